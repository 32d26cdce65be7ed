"""A server on a real local socket that misbehaves as told, and else answers for the sandbox."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

from lium_mcp.sandbox import Sandbox

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]
Moment = Literal["before the work", "after the work", "after the answer"]

HTML = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><script>x</script><h1>Sorry</h1></body></html>"


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class _Rule:
    """What is done to which requests."""

    method: str
    path: re.Pattern[str]
    act: Act
    after_work: bool
    times: int | None

    def strikes(self, method: str, path: str) -> bool:
        """Whether it meets this request; if so, it has struck once more."""
        if self.times == 0 or self.method not in {method, "*"} or not self.path.fullmatch(path):
            return False
        self.times = None if self.times is None else self.times - 1
        return True


class Hold:
    """A request that is held on its way: it has come so far, and goes no further before it is let go."""

    def __init__(self, method: str, path: str, moment: Moment) -> None:
        self._method = method
        self._path = re.compile(f"/api{path}")
        self._moment = moment
        self._reached = asyncio.Event()
        self._let_go = asyncio.Event()

    def catches(self, method: str, path: str) -> bool:
        """Whether this request is the one, the first of its kind."""
        return not self._reached.is_set() and method == self._method and bool(self._path.fullmatch(path))

    async def at(self, moment: Moment) -> None:
        """Hold the request, if it is held at this moment."""
        if moment == self._moment:
            self._reached.set()
            await self._let_go.wait()

    async def reached(self) -> None:
        """Wait until a request is held."""
        async with asyncio.timeout(20):
            await self._reached.wait()

    def let_go(self) -> None:
        self._let_go.set()


class Rogue:
    """Requests that a rule meets get what the rule does; all others go to the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox.transport()
        self._rule: _Rule | None = None
        self._hold: Hold | None = None
        self._after_change: Act | None = None
        self._changed = False
        self._connections: set[asyncio.Task[None]] = set()
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.seen: list[Seen] = []
        self.base_url = ""

    def on(self, method: str, path: str, act: Act, *, after_work: bool = False, times: int | None = None) -> None:
        """Let `act` answer these requests, so many times, after the sandbox has served them or instead.

        The path is a pattern without ``/api``.
        """
        self._rule = _Rule(method, re.compile(f"/api{path}"), act, after_work, times)

    def hold(self, method: str, path: str, moment: Moment) -> Hold:
        """Hold the next such request at that moment."""
        self._hold = Hold(method, path, moment)
        return self._hold

    def after_change(self, act: Act) -> None:
        """Let `act` answer everything that comes after the next change that succeeds."""
        self._after_change, self._changed = act, False

    def behave(self) -> None:
        self._rule = None

    async def arrival(self, method: str) -> None:
        """Wait for the first request of this method."""
        async with asyncio.timeout(20):
            await self._arrivals[method].wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has had enough, or the test
        finally:
            writer.close()
            self._connections.discard(task)

    async def hang_up(self) -> None:
        """End every connection that still hangs."""
        hanging = list(self._connections)
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.strip().split("\r\n")
        method, target, _ = start.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append(Seen(method, target, headers))
        self._arrivals[method].set()
        path = target.partition("?")[0]
        rule = self._rule if self._rule and self._rule.strikes(method, path) else None
        hold = self._hold if self._hold and self._hold.catches(method, path) else None
        if hold:
            await hold.at("before the work")
        if rule and not rule.after_work:
            await rule.act(writer)
            return
        if self._after_change and self._changed:
            await self._after_change(writer)
            return
        request = httpx2.Request(method, f"http://127.0.0.1{target}", headers=headers, content=body)
        response = await self._sandbox.handle_async_request(request)
        content = await response.aread()
        self._changed = self._changed or (method != "GET" and response.is_success)
        if hold:
            await hold.at("after the work")
        if rule:
            await rule.act(writer)
            return
        write_head(writer, response.status_code, {**response.headers, "content-length": str(len(content))})
        writer.write(content)
        if hold:
            await writer.drain()
            await hold.at("after the answer")


@asynccontextmanager
async def rogue(sandbox: Sandbox) -> AsyncIterator[Rogue]:
    """Serve one, and leave nothing behind."""
    server = Rogue(sandbox)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api"
    try:
        yield server
    finally:
        listening.close()
        await server.hang_up()


def write_head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} X", "connection: close", *(f"{name}: {value}" for name, value in headers.items())]
    writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")


def answer(status: int, body: Any = b"", **headers: str) -> Act:
    """A complete answer; bytes are sent as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def act(writer: asyncio.StreamWriter) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        write_head(writer, status, {"content-length": str(len(content)), **named})
        writer.write(content)

    return act


def page(status: int) -> Act:
    """What a firewall or a gateway shows."""
    return answer(status, HTML, content_type="text/html")


async def drop(writer: asyncio.StreamWriter) -> None:
    """Close without a byte."""


async def cut(writer: asyncio.StreamWriter) -> None:
    """Promise more than comes."""
    write_head(writer, 200, {"content-length": "1000", "content-type": "application/json"})
    writer.write(b'[{"id": "')


async def silence(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Answer without an end, a byte at a time: each comes before any time limit on silence."""
    write_head(writer, 200, {"transfer-encoding": "chunked", "content-type": "application/json"})
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
