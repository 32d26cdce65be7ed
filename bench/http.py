"""What a served call costs beside one of an empty server of the SDK: rates, latencies, memory and requests to Lium.

`python -m bench.http` runs three processes on one machine: a Lium that only reads out (`bench.lium_double`), an empty
`MCPServer` with one trivial tool, and our server for callers with keys of their own. Closed loops of callers, each on a
connection of its own, take turns with both servers, so that ratios are of the same minute. Callers write HTTP by hand,
since any client costs more than the server that is to be measured. It reads what processes take from Linux's /proc.
"""

import argparse
import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.lium_double import ASKED, NODES

VERSION: Final = "2026-07-28"
CALLERS: Final = (1, 10, 100, 500)
# Callers of one team: as many share a key and an address.
TEAM: Final = 10
SECONDS: Final = 1.0
TURNS: Final = 2
# Longer than anything is kept that was read.
FORGOTTEN_SECONDS: Final = 2.5
ALONE_ROUNDS: Final = 8
WATCH_SECONDS: Final = 15
FIRST_CALLS: Final = 1000
EMPTY_SERVER: Final = """
import sys
from mcp.server import MCPServer
server = MCPServer(name="empty", version="1", log_level="ERROR")
@server.tool()
async def echo(text: str) -> str:
    return text
server.run("streamable-http", port=int(sys.argv[1]))
"""
_NUMBERS: Final = itertools.count()
TOOLS: Final = ("list_gpus", "get_gpu_prices", "list_pods", "list_ssh_keys")
# The same list, asked for in words of its own each time: what is kept is the market, and not the answer.
OTHER_WORDS: Final = "list_gpus, other words"


@dataclass(frozen=True)
class Server:
    """A server under measurement: where it listens, and its process."""

    port: int
    process: subprocess.Popen[str]

    def resident_mib(self) -> float:
        """Memory that the process has now, MiB."""
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024  # noqa: S603

    def cpu_seconds(self) -> float:
        """Processor time that the process has taken so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Line:
    """What closed loops of callers saw: calls, seconds in all, and the milliseconds of each call.

    Attributes:
        cpu_seconds: Processor time of the server meanwhile, which other programs of the machine do not lengthen.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls a second."""
        return len(self.milliseconds) / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """Processor time of the server for one call, ms."""
        return self.cpu_seconds * 1000 / len(self.milliseconds)

    def percentile(self, percent: int) -> float:
        """The time under which so many of a hundred calls stayed, ms."""
        ordered = sorted(self.milliseconds)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


class Caller:
    """One connection, on which calls are made one after the other."""

    def __init__(self, port: int, number: int = 0) -> None:
        self._port = port
        team = number // TEAM
        self._headers = f"X-API-Key: sk_bench{team}\r\nX-Forwarded-For: 10.0.{team // 250}.{team % 250 + 1}\r\n"
        self._reader: asyncio.StreamReader | None = None

    async def call(self, tool: str, **arguments: object) -> bytes:
        """Call a tool and return the answer's bytes; whatever is no result of the tool fails."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {VERSION}\r\n"
            f"Mcp-Method: tools/call\r\nMcp-Name: {tool}\r\n{self._headers}Content-Length: {len(body)}\r\n\r\n"
        )
        answer = await self.exchange((head + body).encode())
        assert b'"result"' in answer, answer[:2000]
        assert b'"isError":true' not in answer, answer[:2000]
        return answer

    async def get(self, path: str) -> bytes:
        """GET a path and return the body."""
        return await self.exchange(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())

    async def exchange(self, request: bytes) -> bytes:
        """Send a request and read its answer to the end."""
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**20)
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"\r\ncontent-length:" in head:
            length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            return head + await self._reader.readexactly(length)
        pieces = [head]
        while size := int(await self._reader.readline(), 16):
            pieces.append((await self._reader.readexactly(size + 2))[:-2])
        await self._reader.readline()
        return b"".join(pieces)

    def close(self) -> None:
        """Leave."""
        if self._reader is not None:
            self._writer.close()


@contextmanager
def crowd(server: Server, count: int) -> Iterator[list[Caller]]:
    """So many callers of a server, each on a connection of its own."""
    callers = [Caller(server.port, number) for number in range(count)]
    try:
        yield callers
    finally:
        for caller in callers:
            caller.close()


def arguments_of(tool: str) -> dict[str, object]:
    """What a tool is called with, of our server or of the empty one."""
    if tool == OTHER_WORDS:
        return {"max_usd_per_hour": 1000 + next(_NUMBERS)}
    return {"text": "x"} if tool == "echo" else {}


async def loops(callers: Sequence[Caller], tool: str, line: Line, *, seconds: float) -> None:
    """Let callers call a tool again and again, and wait for the last answers."""
    started = time.perf_counter()

    async def loop(caller: Caller) -> None:
        while (began := time.perf_counter()) - started < seconds:
            await caller.call(tool.partition(",")[0], **arguments_of(tool))
            line.milliseconds.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*map(loop, callers))
    line.seconds += time.perf_counter() - started


async def measure_rates(empty: Server, ours: Server, levels: Sequence[int]) -> None:
    print(f"{'callers':>7}  {'':22}{'calls/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'ratio':>7}", end="")
    print(f"{'CPU ms':>9}{'ratio':>7}")
    for level in levels:
        lines = {tool: Line() for tool in ("echo", *TOOLS, OTHER_WORDS)}
        for _ in range(TURNS):
            for tool, line in lines.items():
                # Each turn on connections of its own: those that idle are closed.
                server = empty if tool == "echo" else ours
                with crowd(server, level) as callers:
                    before = server.cpu_seconds()
                    await loops(callers, tool, line, seconds=SECONDS)
                    line.cpu_seconds += server.cpu_seconds() - before
        for tool, line in lines.items():
            figures = "".join(f"{line.percentile(percent):9.1f}" for percent in (50, 95, 99))
            name = "(empty server)" if tool == "echo" else tool
            rates = f"{line.rate / lines['echo'].rate:7.2f}"
            cpu = f"{line.cpu_milliseconds:9.2f}{lines['echo'].cpu_milliseconds / line.cpu_milliseconds:7.2f}"
            print(f"{level:7}  {name:22}{line.rate:9.0f}{figures}{rates}{cpu}")


async def milliseconds(action: Coroutine[Any, Any, bytes]) -> float:
    started = time.perf_counter()
    await action
    return (time.perf_counter() - started) * 1000


async def measure_alone(lium: Server, empty: Server, ours: Server) -> None:
    """One caller, when nothing is kept: what list_gpus adds to the request that it makes."""
    times: dict[str, list[float]] = {"raw": [], "echo": [], "list_gpus": []}
    cpu_seconds = 0.0
    for _ in range(ALONE_ROUNDS):
        await asyncio.sleep(FORGOTTEN_SECONDS)
        before = ours.cpu_seconds()
        with crowd(lium, 1) as [api], crowd(empty, 1) as [echo], crowd(ours, 1) as [caller]:
            times["list_gpus"].append(await milliseconds(caller.call("list_gpus")))
            cpu_seconds += ours.cpu_seconds() - before
            times["echo"].append(await milliseconds(echo.call("echo", text="x")))
            times["raw"].append(await milliseconds(api.get("/api/executors?view=summary")))
    raw, echoed, alone = (statistics.median(times[name]) for name in ("raw", "echo", "list_gpus"))
    print(
        f"list_gpus alone, nothing kept: {alone:.1f} ms; its raw request for {NODES} rows {raw:.1f} ms, a call of the "
        f"empty server {echoed:.1f} ms; above the raw request: {alone - raw:.1f} ms (goal: at most 10 ms); "
        f"of the processor: {cpu_seconds * 1000 / ALONE_ROUNDS:.0f} ms"
    )


async def measure_memory(ours: Server, calls: int) -> None:
    async def many(count: int) -> float:
        async def some(caller: Caller) -> None:
            for number in range(count // TEAM):
                tool = (*TOOLS, OTHER_WORDS)[number % (len(TOOLS) + 1)]
                await caller.call(tool.partition(",")[0], **arguments_of(tool))

        with crowd(ours, TEAM) as callers:
            await asyncio.gather(*map(some, callers))
        return ours.resident_mib()

    before = await many(FIRST_CALLS)
    after = await many(calls - FIRST_CALLS)
    grown = after - before
    print(f"memory after {calls:,} calls minus after {FIRST_CALLS:,}: {grown:.1f} MiB of {after:.0f} (goal: under 10)")


async def asked(lium: Server) -> dict[str, int]:
    with crowd(lium, 1) as [caller]:
        return dict(json.loads((await caller.get(ASKED)).partition(b"\r\n\r\n")[2]))


async def measure_watchers(lium: Server, ours: Server, watchers: int) -> None:
    polls = []
    for count in (1, watchers):
        await asyncio.sleep(FORGOTTEN_SECONDS)
        before = sum((await asked(lium)).values())
        started = time.perf_counter()
        watch: dict[str, object] = {"gpu_type": "TITAN V", "wait_seconds": WATCH_SECONDS}
        with crowd(ours, count) as callers:
            await asyncio.gather(*(caller.call("list_gpus", **watch) for caller in callers))
        polls.append((sum((await asked(lium)).values()) - before) * 60 / (time.perf_counter() - started))
    print(
        f"requests a minute to Lium: {polls[0]:.0f} for one watcher, {polls[1]:.0f} for {watchers} "
        f"(ratio {polls[1] / polls[0]:.1f}; goal: as one)"
    )


@contextmanager
def started(command: Sequence[str], port: int | None = None, **environment: str) -> Iterator[Server]:
    """Run a Python program; without a port, it says its own in its first line."""
    with subprocess.Popen(  # noqa: S603 - programs of our own
        [sys.executable, *command], stdout=subprocess.DEVNULL if port else subprocess.PIPE, text=True,
        env=os.environ | environment,
    ) as process:  # fmt: skip
        try:
            yield Server(port or int(process.stdout.readline() if process.stdout else 0), process)
        finally:
            process.terminate()


async def listens(server: Server) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        except ConnectionError:
            assert server.process.poll() is None, "a server did not start"
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def main(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        lium = stack.enter_context(started(["-m", "bench.lium_double"]))
        port = free_port()
        empty = stack.enter_context(started(["-c", EMPTY_SERVER, str(port)], port))
        port = free_port()
        command = ["-m", "lium_mcp", "serve", "--transport", "http", "--port", str(port), "--log-level", "ERROR"]
        ours = stack.enter_context(
            started(
                [
                    *command,
                    "--trusted-proxy",
                    "127.0.0.1",
                    "--calls-per-minute",
                    "10000000",
                    "--toolsets",
                    "marketplace,pods,extras",
                ],
                port,
                HOME=home,
                LIUM_API_KEY="",
                LIUM_BASE_URL=f"http://127.0.0.1:{lium.port}/api",
                NO_PROXY="127.0.0.1",
            )
        )
        await asyncio.gather(listens(empty), listens(ours))
        with crowd(ours, 1) as [first]:
            for tool in TOOLS:  # what is imported with the first call
                await first.call(tool)
        await measure_rates(empty, ours, options.callers)
        await measure_alone(lium, empty, ours)
        await measure_memory(ours, options.memory_calls)
        await measure_watchers(lium, ours, options.watchers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, nargs="+", default=CALLERS)
    parser.add_argument("--memory-calls", type=int, default=5000)
    parser.add_argument("--watchers", type=int, default=1000)
    asyncio.run(main(parser.parse_args()))
