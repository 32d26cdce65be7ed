"""Connections whose requests meet what a test has in store for them, and servers that can be dropped in the middle.

A fate strikes the first request of its kind, wherever it comes from: it is lost, its answer is, its caller gives up,
its server dies, somebody else acts first. What the server should make of that is the test's affair.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import httpx2
from mcp import Client
from mcp.types import CallToolResult

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.harness import Mode, TurnedClock

Kind = Literal[
    "lose_request",
    "lose_answer",
    "fail_before_work",
    "fail_after_work",
    "cut_answer",
    "rate_limit",
    "cancel_before",
    "cancel_after",
    "kill_before",
    "kill_after",
    "act_first",
]
Where = Literal["rent", "change", "read"]
WIRE: Final[tuple[Kind, ...]] = (
    "lose_request",
    "lose_answer",
    "fail_before_work",
    "fail_after_work",
    "cut_answer",
    "rate_limit",
)
CANCELS: Final[tuple[Kind, ...]] = ("cancel_before", "cancel_after")
KILLS: Final[tuple[Kind, ...]] = ("kill_before", "kill_after")
_HANGS_AFTER_SECONDS: Final = 30.0


@dataclass
class Fate:
    """What happens to the next requests of a kind, after so many that pass."""

    kind: Kind
    where: Where
    passing: int = 0
    times: int = 1


@dataclass
class Fates:
    """What is in store; all connections share it."""

    pending: list[Fate] = field(default_factory=list)
    act_first: Callable[[], Awaitable[None]] | None = None
    struck: int = 0

    def meet(self, request: httpx2.Request) -> Kind | None:
        """What strikes this request."""
        for fate in self.pending:
            if fate.where != _where(request):
                continue
            if fate.passing:
                fate.passing -= 1
                continue
            fate.times -= 1
            if not fate.times:
                self.pending.remove(fate)
            self.struck += 1
            return fate.kind
        return None


def _where(request: httpx2.Request) -> Where:
    if request.method == "GET":
        return "read"
    return "rent" if request.url.path.endswith(("/rent", "/rent-by-spec")) else "change"


class Hung(AssertionError):
    """A call took longer than any call may."""


class Connection:
    """A client on a server of its own, in a task of its own, which ends when it is dropped or closed."""

    def __init__(self, sandbox: Sandbox, fates: Fates, mode: Mode, **settings: Any) -> None:
        self._line = _Line(sandbox, fates, self)
        self._server = build_server(Settings(**settings), transport=self._line, clock=TurnedClock(sandbox))
        self._mode: Mode = mode
        self._over = asyncio.Event()
        self._client: Client
        self._hosting: asyncio.Task[None]
        self._calling: set[anyio.CancelScope] = set()
        self._calls: set[asyncio.Task[Any]] = set()
        self.died = asyncio.Event()

    async def open(self) -> "Connection":
        """Connect."""
        ready = asyncio.Event()

        async def host() -> None:
            async with Client(self._server, mode=self._mode, raise_exceptions=True) as self._client:
                ready.set()
                await self._over.wait()

        self._hosting = asyncio.create_task(host())
        await ready.wait()
        return self

    async def call(self, tool: str, **arguments: Any) -> CallToolResult | None:
        """Call a tool; None where the client gave up, or the server died under it."""
        calling, dying = asyncio.create_task(self._call(tool, arguments)), asyncio.create_task(self.died.wait())
        self._calls.add(calling)
        done, _ = await asyncio.wait(
            {calling, dying}, timeout=_HANGS_AFTER_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        dying.cancel()
        if not done:
            raise Hung(f"{tool} {arguments}")
        return calling.result() if calling in done and not self.died.is_set() else None

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult | None:
        with anyio.CancelScope() as scope:
            self._calling.add(scope)
            try:
                return await self._client.call_tool(tool, arguments)
            finally:
                self._calling.discard(scope)
        with anyio.fail_after(_HANGS_AFTER_SECONDS):
            await self._server.until_idle()  # what it does for a caller who left
        return None

    def give_up(self) -> bool:
        """Cancel what is being called; whether something was."""
        for scope in tuple(self._calling):
            scope.cancel()
        return bool(self._calling)

    async def drop(self) -> None:
        """End without grace: nothing that runs for this server comes any further."""
        self._line.is_dead = True
        self.died.set()

    async def close(self) -> None:
        """End in order, or take away what is left of a server that was dropped."""
        self._over.set()
        if self.died.is_set():
            for task in (self._hosting, *self._calls):
                task.cancel()
        await asyncio.gather(self._hosting, *self._calls, return_exceptions=True)


class _Line(httpx2.AsyncBaseTransport):
    """The way from one server to the sandbox."""

    def __init__(self, sandbox: Sandbox, fates: Fates, connection: Connection) -> None:
        self._forward = sandbox.transport().handle_async_request
        self._fates = fates
        self._connection = connection
        self.is_dead = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        if self.is_dead:
            await asyncio.Event().wait()
        kind = self._fates.meet(request)
        early = await self._before(kind)
        if early is not None:
            return early
        response = await self._forward(request)
        return await self._after(kind, response, await response.aread())

    async def _before(self, kind: Kind | None) -> httpx2.Response | None:
        match kind:
            case "lose_request":
                raise httpx2.ReadError("the connection broke")
            case "fail_before_work":
                return httpx2.Response(503, json={"detail": "overloaded"})
            case "rate_limit":
                return httpx2.Response(429, headers={"Retry-After": "1"}, json={"detail": "slow down"})
            case "act_first" if self._fates.act_first is not None:
                await self._fates.act_first()
            case "cancel_before":
                await self._give_up()
            case "kill_before":
                await self._die()
            case _:
                pass
        return None

    async def _after(self, kind: Kind | None, response: httpx2.Response, content: bytes) -> httpx2.Response:
        match kind:
            case "lose_answer":
                raise httpx2.ReadError("the connection broke")
            case "fail_after_work":
                return httpx2.Response(502, html="<h1>Bad Gateway</h1>")
            case "cut_answer":
                return httpx2.Response(response.status_code, content=content[: len(content) // 2])
            case "cancel_after":
                await self._give_up()
            case "kill_after":
                await self._die()
            case _:
                pass
        return httpx2.Response(response.status_code, content=content, headers=_kept(response.headers))

    async def _give_up(self) -> None:
        self._connection.give_up()
        for _ in range(100):  # until the server must have heard of it
            await anyio.lowlevel.checkpoint()

    async def _die(self) -> None:
        await self._connection.drop()
        await asyncio.Event().wait()


def _kept(headers: httpx2.Headers) -> dict[str, str]:
    names = ("Content-Type", "Date", "X-Request-Id", "Idempotent-Replayed", "Retry-After")
    return {name: headers[name] for name in names if name in headers}
