"""A server on a real local socket that misbehaves as told, and else answers for the sandbox."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from lium_mcp.sandbox import Sandbox

Act = Callable[[asyncio.StreamWriter], Awaitable[None]]

HTML = b"<!DOCTYPE html><html><head><title>Gateway</title></head><body><script>x</script><h1>Sorry</h1></body></html>"


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]


class Rogue:
    """Requests that a rule meets get what the rule does; all others go to the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox.transport()
        self._rule: tuple[str, re.Pattern[str], Act] | None = None
        self._after_change: Act | None = None
        self._changed = False
        self._connections: set[asyncio.Task[None]] = set()
        self._arrivals: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.seen: list[Seen] = []
        self.base_url = ""

    def on(self, method: str, path: str, act: Act) -> None:
        """Let `act` answer these requests; the path is a pattern without ``/api``."""
        self._rule = (method, re.compile(f"/api{path}"), act)

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
        if self._rule and self._rule[0] in {method, "*"} and self._rule[1].fullmatch(target.partition("?")[0]):
            await self._rule[2](writer)
            return
        if self._after_change and self._changed:
            await self._after_change(writer)
            return
        request = httpx2.Request(method, f"http://127.0.0.1{target}", headers=headers, content=body)
        response = await self._sandbox.handle_async_request(request)
        content = await response.aread()
        self._changed = self._changed or (method != "GET" and response.is_success)
        write_head(writer, response.status_code, {**response.headers, "content-length": str(len(content))})
        writer.write(content)


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
