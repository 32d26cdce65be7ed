"""A real `lium-mcp serve` process, and the three ways in which clients reach it over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from lium_mcp.settings_table import TOOLSETS
from tests.harness import text_of, write_ssh_key

Way = Literal["modern", "legacy", "sse"]
WAYS: Final[tuple[Way, ...]] = ("modern", "legacy", "sse")
MODERN_VERSION: Final = "2026-07-28"
LEGACY_VERSION: Final = "2025-11-25"
# Of which an idle machine needs a tenth.
STOP_SECONDS: Final = 30
LOG_SECONDS: Final = 60
_EVERY_ANSWER: Final = "application/json, text/event-stream"


@dataclass
class Served:
    """A server process at an address."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    first_words: str

    def stderr(self) -> str:
        """What it has said so far: all of it once it has ended, and before that all but what was logged just now."""
        return self.log.read_text()

    def says(self, words: str, *, times: int = 1) -> str:
        """Wait until it has said some words so many times; all that it has said then.

        A thread of the server writes what is logged, a moment later.
        """
        deadline = time.monotonic() + LOG_SECONDS
        while (said := self.stderr()).count(words) < times:
            assert time.monotonic() < deadline, f"{words!r} is not in the log: {said}"
            time.sleep(0.01)
        return said

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status; one that does not end fails."""
        self.process.send_signal(number)
        return self.process.wait(timeout=STOP_SECONDS)


ALL_TOOLS = {"LIUM_MCP_TOOLSETS": ",".join(TOOLSETS)}


def variables(home: Path, **settings: str) -> dict[str, str]:
    """The whole environment of a server process with all tools on: a home with a key pair, and the settings."""
    write_ssh_key(home)
    kept = {name: value for name, value in os.environ.items() if name.startswith("COV")}
    return kept | {"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "127.0.0.1"} | ALL_TOOLS | settings


@contextmanager
def serving(home: Path, *options: str, **settings: str) -> Iterator[Served]:
    """Run `lium-mcp serve` at a free port until the end of the block."""
    with _serving(home, ["lium_mcp"], options, settings) as served:
        yield served


@contextmanager
def serving_newer(home: Path, settings: dict[str, str], *, port: int = 0) -> Iterator[Served]:
    """Run it as a later version would be, whose ledger has more in it."""
    with _serving(home, ["tests.newer"], ("--port", str(port)), settings) as served:
        yield served


@contextmanager
def serving_amid(home: Path, names: dict[str, list[list[str]]], *options: str, **settings: str) -> Iterator[Served]:
    """Run it where names stand for these addresses: at the first lookup, at the second, and so on."""
    with _serving(home, ["tests.lookups", json.dumps(names)], options, settings) as served:
        yield served


@contextmanager
def serving_at(home: Path, seconds: float, **settings: str) -> Iterator[Served]:
    """Run it with a clock that is ahead by so many seconds."""
    with _serving(home, ["tests.shifted", str(seconds)], (), settings) as served:
        yield served


@contextmanager
def serving_within(
    home: Path,
    settings: dict[str, str],
    *,
    connections: dict[str, float] | None = None,
    sessions: dict[str, float] | None = None,
    descriptors: int | None = None,
    haste: float = 1,
    logins: int | None = None,
    port: int = 0,
) -> Iterator[Served]:
    """Run it within other bounds than its own, which a test can reach, or as many tests as use it cannot."""
    bounds = json.dumps([connections or {}, sessions or {}, descriptors, haste, logins])
    with _serving(home, ["tests.within", bounds], ("--port", str(port)), settings) as served:
        yield served


@contextmanager
def _serving(home: Path, program: list[str], options: tuple[str, ...], settings: dict[str, str]) -> Iterator[Served]:
    home.mkdir(parents=True, exist_ok=True)
    log = home / "stderr"
    command = [sys.executable, "-m", *program, "serve", "--transport", "http", "--port", "0", *options]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, text=True, env=variables(home, **settings)
        ) as process,
    ):
        try:
            yield Served(process, _address(process, log), log, log.read_text())
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    while True:
        found = re.search(r"Serving (http://\S+:\d+)(?:/\S+)?/mcp", log.read_text())
        if found:
            return found[1]
        try:
            status = process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"the server ended with {status}: {log.read_text()}")


@dataclass
class Caller:
    """An MCP client that comes over HTTP, with or without a key."""

    client: Client
    progress: list[str] = field(default_factory=list)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that should succeed."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, text_of(result)
        assert result.structured_content is not None
        return dict(result.structured_content)

    async def refused(self, tool: str, **arguments: Any) -> tuple[str, str]:
        """Call a tool that should fail; return the code and the text."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, text_of(result)
        return str((result.meta or {})["lium-mcp/error"]["code"]), text_of(result)

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message or "")

        return await self.client.call_tool(tool, arguments, progress_callback=on_progress)


@asynccontextmanager
async def calling(url: str, way: Way, headers: dict[str, str] | None = None, query: str = "") -> AsyncIterator[Caller]:
    """Connect one of the SDK's clients."""
    if way == "sse":
        async with Client(sse_client(f"{url}/sse{query}", headers=headers), mode="legacy") as client:
            yield Caller(client)
        return
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http,
        Client(
            streamable_http_client(f"{url}/mcp{query}", http_client=http), mode="auto" if way == "modern" else "legacy"
        ) as client,
    ):
        yield Caller(client)


class Wire:
    """MCP written by hand, for what no client does: to leave without a word, or to use another's session.

    Attributes:
        session: The address and the header of the open session, as its client sends them and as proxies log them.
    """

    session: tuple[str, dict[str, str]]

    def __init__(self, url: str, headers: dict[str, str] | None = None, *, asks: bool = False) -> None:
        self._asks = asks
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)

    async def say(self, message: dict[str, Any]) -> int:
        """Send a message in the open session; return the status."""
        return (await self.post(message)).status_code

    async def post(self, message: dict[str, Any]) -> httpx2.Response:
        """Send a message in the open session."""
        path, headers = self.session
        return await self._http.post(path, json=message, headers=headers | {"Accept": _EVERY_ANSWER})

    @asynccontextmanager
    async def calling(self, way: Way, tool: str, arguments: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """Call a tool and yield the lines of its stream; leaving the block drops the connection."""
        try:
            opened = self._sse(tool, arguments) if way == "sse" else self._streamable(way, tool, arguments)
            async with opened as lines:
                yield lines
        finally:
            await self._http.aclose()

    @asynccontextmanager
    async def _streamable(self, way: Way, tool: str, arguments: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        headers = {"Accept": _EVERY_ANSWER}
        if way == "modern":
            headers |= {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        else:
            headers |= {"MCP-Protocol-Version": LEGACY_VERSION}
            opening = await self._http.post("/mcp", json=initialize(asks=self._asks), headers=headers)
            headers["Mcp-Session-Id"] = opening.headers["mcp-session-id"]
            self.session = "/mcp", {"Mcp-Session-Id": headers["Mcp-Session-Id"]}
            await self._http.post("/mcp", json=initialized(), headers=headers)
        body = tool_call(tool, arguments, modern=way == "modern")
        async with self._http.stream("POST", "/mcp", json=body, headers=headers) as answer:
            assert answer.status_code == 200
            yield answer.aiter_lines()

    @asynccontextmanager
    async def _sse(self, tool: str, arguments: dict[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        async with self._http.stream("GET", "/sse") as answer:
            lines = answer.aiter_lines()
            async for line in lines:
                if line.startswith("data: "):
                    break
            path = line.removeprefix("data: ")
            self.session = path, {}
            for message in (initialize(asks=self._asks), initialized(), tool_call(tool, arguments, modern=False)):
                accepted = await self._http.post(path, json=message)
                assert accepted.status_code == 202
            yield lines


def tool_call(tool: str, arguments: dict[str, Any], *, modern: bool) -> dict[str, Any]:
    """A `tools/call` request that asks for progress."""
    meta: dict[str, Any] = {"progressToken": "p"}
    if modern:
        meta |= envelope()
    return {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    }


def envelope() -> dict[str, Any]:
    """What each request of the current protocol says about its client."""
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
    }


def initialize(padding: str = "", *, asks: bool = False) -> dict[str, Any]:
    """The request that opens a session; of a client that can ask its user, if so told."""
    client = {"name": f"by-hand{padding}", "version": "1"}
    capabilities: dict[str, Any] = {"elicitation": {}} if asks else {}
    params = {"protocolVersion": LEGACY_VERSION, "capabilities": capabilities, "clientInfo": client}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def initialized() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/initialized"}


async def until_progress(lines: AsyncIterator[str]) -> str:
    """Read a stream up to its first word of progress."""
    heard: list[str] = []
    async for line in lines:
        heard.append(line)
        if line.startswith("data: ") and "notifications/progress" in line:
            return str(json.loads(line.removeprefix("data: "))["params"]["message"])
    raise AssertionError(f"the stream ended without progress: {heard}")
