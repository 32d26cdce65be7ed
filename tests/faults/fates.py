"""Server processes whose requests meet what a test has in store for them, and that can be dropped in the middle.

A fate strikes the first request of its kind, wherever it comes from: it is lost, its answer is, its caller gives up,
its server dies, somebody else acts first or meanwhile. What the server should make of that is the test's affair. Every
rent that leaves is noted, and held against what may never leave.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from unittest.mock import patch

import anyio
import anyio.lowlevel
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult
from starlette.types import Receive, Scope, Send

from lium_mcp.connecting import open_ledger
from lium_mcp.rentals import LazyLedger, LedgerUnavailable
from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.transport import InProcessTransport
from lium_mcp.server import build_server
from lium_mcp.serving.http import bound_calls, build_app
from lium_mcp.serving.probes import Readiness
from lium_mcp.serving.sessions import SessionBounds, Sessions
from lium_mcp.settings import Settings
from tests.harness import Mode, TurnedClock
from tests.wires import Forward, Wire

Kind = Literal[
    "lose_request",
    "lose_answer",
    "fail_before_work",
    "fail_after_work",
    "cut_answer",
    "no_pod_id",
    "rate_limit",
    "cancel_before",
    "cancel_after",
    "kill_before",
    "kill_after",
    "act_first",
    "act_meanwhile",
    "call_beside",
    "empty_list",
    "short_list",
]
Where = Literal["rent", "change", "read", "list", "pod"]
WIRE: Final[tuple[Kind, ...]] = (
    "lose_request",
    "lose_answer",
    "fail_before_work",
    "fail_after_work",
    "cut_answer",
    "rate_limit",
)
LISTS: Final[tuple[Kind, ...]] = ("empty_list", "short_list")
CANCELS: Final[tuple[Kind, ...]] = ("cancel_before", "cancel_after")
KILLS: Final[tuple[Kind, ...]] = ("kill_before", "kill_after")
MOST_REQUESTS_IN_A_CALL: Final = 6
MOST_REQUESTS_IN_A_MINUTE: Final = 12
_HANGS_AFTER_SECONDS: Final = 60.0
_ENDS_WITHIN_SECONDS: Final = 5.0
_RENTS: Final = ("/rent", "/rent-by-spec")
_MCP_URL: Final = "http://127.0.0.1:8080/mcp"


@dataclass
class Fate:
    """What happens to the next requests of a kind, after so many that pass, and once so many of rents have left."""

    kind: Kind
    where: Where
    passing: int = 0
    times: int = 1
    after_rents: int = 0


@dataclass(frozen=True)
class Sent:
    """One request of a rent on its way: when, with which idempotency key, by whose API key, from which process."""

    at: datetime
    key: str
    caller: str
    process: "Process"


@dataclass
class Rents:
    """The rents that left, over all processes, and what was wrong about that.

    Attributes:
        now: The sandbox's time.
        accounts: The account of each API key.
        is_unsettled: Whether the ledger has a rent with this idempotency key whose outcome it does not know.
        admitted: The idempotency keys of what awaits its turn: it may leave although the answer to another is lost.
    """

    now: Callable[[], datetime]
    accounts: Mapping[str, str]
    is_unsettled: Callable[[str], bool]
    admitted: Callable[[], set[str]] = set
    may_leave: set[str] = field(default_factory=set)
    sent: list[Sent] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)

    def leave(self, key: str, caller: str, process: "Process") -> None:
        """A request leaves."""
        account = self.accounts[caller]
        if key not in self.may_leave and all(sent.key != key for sent in self.sent):
            for lost in [lost for lost, whose in self.lost.items() if whose == account]:
                if self.is_unsettled(lost):
                    self.wrongs.append(f"rent {key} left while {lost} was lost")
                else:
                    del self.lost[lost]
        self.sent.append(Sent(self.now(), key, caller, process))
        since = self.now() - timedelta(seconds=60)
        count = sum(sent.key == key and sent.at > since for sent in self.sent)
        if count == MOST_REQUESTS_IN_A_MINUTE + 1:  # said once, not for each that follows
            self.wrongs.append(f"more than {MOST_REQUESTS_IN_A_MINUTE} requests for rent {key} in a minute")

    def lose(self, key: str) -> None:
        """Nobody was told what became of it."""
        self.lost[key] = self.account_of(key)
        self.may_leave |= self.admitted()

    def answer(self, key: str, response: httpx2.Response) -> None:
        """A server was told something about it."""
        match _verdict(response, is_first=sum(sent.key == key for sent in self.sent) == 1):
            case "settled":
                self.lost.pop(key, None)
            case "lost":
                self.lose(key)
            case _:
                pass

    def end_of_call(self, process: "Process", start: int) -> None:
        """A call ends that ran alone in its process, and began when so many requests had left."""
        counts = Counter(sent.key for sent in self.sent[start:] if sent.process is process)
        self.wrongs += [
            f"{count} requests for rent {key} in one call"
            for key, count in counts.items()
            if count > MOST_REQUESTS_IN_A_CALL
        ]

    def account_of(self, key: str) -> str:
        """Whose rent it is."""
        return self.accounts[next(sent.caller for sent in self.sent if sent.key == key)]


def _verdict(response: httpx2.Response, *, is_first: bool) -> Literal["settled", "lost", "nothing"]:
    """What an answer proves, by the API's contract."""
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    if response.is_success:
        return "settled" if told.get("pod_id") or told.get("id") else "lost"
    if not response.is_client_error:
        return "lost"
    error = told.get("error")
    code = str(error.get("code")) if isinstance(error, dict) else ""
    if is_first and not code.startswith("idempotency_"):
        return "settled"
    stored = "Idempotent-Replayed" in response.headers and response.status_code != 429
    return "settled" if stored and not code.startswith("idempotency_") else "nothing"


@dataclass
class Fates:
    """What is in store; all processes share it.

    Attributes:
        act_first: What somebody does before a request arrives.
        act_meanwhile: What somebody does while the answer to a request, which is ready, is on its way.
        call_beside: What somebody calls while a call looks at its pod, whose caller then gives up.
        after_work: What looks at the sandbox in the moment in which it has done what a rent asked for.
    """

    rents: Rents
    pending: list[Fate] = field(default_factory=list)
    act_first: Callable[[], Awaitable[None]] | None = None
    act_meanwhile: Callable[[], Awaitable[None]] | None = None
    call_beside: Callable[[], Awaitable[None]] | None = None
    after_work: Callable[[], None] | None = None
    struck: Counter[str] = field(default_factory=Counter)
    _acting: bool = False

    def meet(self, request: httpx2.Request) -> Kind | None:
        """What strikes this request."""
        for fate in self.pending:
            if not _concerns(fate.where, request) or len(self.rents.sent) < fate.after_rents:
                continue
            if fate.passing:
                fate.passing -= 1
                continue
            fate.times -= 1
            if not fate.times:
                self.pending.remove(fate)
            self.struck[fate.kind] += 1
            return fate.kind
        return None

    async def act(self, what: Callable[[], Awaitable[None]] | None) -> None:
        """Let somebody act, unless that is what sends this very request."""
        if what is None or self._acting:
            return
        self._acting = True
        try:
            await what()
        finally:
            self._acting = False


def _concerns(where: Where, request: httpx2.Request) -> bool:
    path = request.url.path
    match where:
        case "read":
            return request.method == "GET"
        case "list":
            return request.method == "GET" and path.endswith("/pods")
        case "pod":
            return request.method == "GET" and "/pods/" in path and path.count("/") == 3
        case "rent":
            return request.method == "POST" and _rents(request)
        case "change":
            return request.method != "GET" and not _rents(request)


def _dead(*_: Any) -> None:
    raise LedgerUnavailable("this server is dead")


def _rents(request: httpx2.Request) -> bool:
    return request.url.path.endswith(_RENTS)


class Hung(AssertionError):
    """A call took longer than any call may."""


class Process:
    """A server process: one caller's own, or one that callers with keys of their own reach over HTTP."""

    def __init__(self, sandbox: Sandbox, fates: Fates, *, over_http: bool = False, **settings: Any) -> None:
        self.line = _Line(sandbox, fates, self)
        self.fates = fates
        self.connections: dict[str, Connection] = {}
        self.died = asyncio.Event()
        options = Settings(transport="http" if over_http else "stdio", **settings)
        self._journals: list[LazyLedger] = []
        with patch("lium_mcp.server.open_ledger", self._open_journal):
            self.server = build_server(options, transport=self.line.wire, clock=TurnedClock(sandbox))
        readiness = Readiness(self.server.check)
        self._app = (
            build_app(self.server, options, Sessions(SessionBounds()), readiness, bound_calls(self.server, options))
            if over_http
            else None
        )
        self._over = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self.calls_running = 0

    async def connect(self, key: str, mode: Mode) -> "Connection":
        """Connect a client that acts for the holder of an API key."""
        if self._app is not None and self._serving is None:
            ready = asyncio.Event()
            self._serving = asyncio.create_task(self._serve(ready))
            await ready.wait()
        connection = self.connections[key] = Connection(self, key, mode, self._app)
        return await connection.open()

    async def _serve(self, ready: asyncio.Event) -> None:
        """Keep the web application's own tasks alive."""
        started, messages = asyncio.Event(), iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            message = next(messages)
            if message == "lifespan.shutdown":
                await self._over.wait()
            return {"type": message}

        async def send(message: Mapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                started.set()
                ready.set()

        assert self._app is not None
        await self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    def _open_journal(self, settings: Settings) -> LazyLedger:
        self._journals.append(open_ledger(settings))
        return self._journals[-1]

    async def drop(self) -> None:
        """End without grace: nothing that runs in it comes any further."""
        self.line.is_dead = True
        self.died.set()
        for ledger in self._journals:  # a database has only so many connections, and the dead neither keep nor open one
            await ledger.aclose()
            for name in ("open", "tasks"):
                setattr(ledger, name, _dead)

    async def close(self) -> None:
        """End, and let go of what a process that was dropped still holds."""
        self.line.is_over.set()
        for connection in self.connections.values():
            await connection.close()
        self._over.set()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)


class Connection:
    """A client of a process, in a task of its own, which ends when it is closed or the process has died."""

    def __init__(self, process: Process, key: str, mode: Mode, app: Any) -> None:
        self.process = process
        self.key = key
        self._app = app
        self._mode: Mode = mode
        self._over = asyncio.Event()
        self._client: Client
        self._hosting: asyncio.Task[None]
        self._calling: set[anyio.CancelScope] = set()
        self._calls: set[asyncio.Task[Any]] = set()

    async def open(self) -> "Connection":
        """Connect."""
        ready = asyncio.Event()

        async def host() -> None:
            if self._app is None:
                async with Client(self.process.server, mode=self._mode, raise_exceptions=True) as self._client:
                    ready.set()
                    await self._over.wait()
                return
            wire, headers = InProcessTransport(self._app), {"X-API-Key": self.key}
            async with (
                httpx2.AsyncClient(transport=wire, headers=headers, timeout=None) as http,
                Client(streamable_http_client(_MCP_URL, http_client=http), mode=self._mode) as self._client,
            ):
                ready.set()
                await self._over.wait()

        self._hosting = asyncio.create_task(host())
        opening = asyncio.create_task(ready.wait())
        await asyncio.wait({self._hosting, opening}, return_when=asyncio.FIRST_COMPLETED)
        if self._hosting.done():
            opening.cancel()
            self._hosting.result()
        return self

    async def call(self, tool: str, **arguments: Any) -> CallToolResult | None:
        """Call a tool; None where the client gave up, or the server died under it."""
        process = self.process
        rents, start = process.fates.rents, len(process.fates.rents.sent)
        process.calls_running += 1
        is_alone = process.calls_running == 1
        calling, dying = asyncio.create_task(self._call(tool, arguments)), asyncio.create_task(process.died.wait())
        self._calls.add(calling)
        done, _ = await asyncio.wait(
            {calling, dying}, timeout=_HANGS_AFTER_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        dying.cancel()
        process.calls_running -= 1
        if is_alone and not process.calls_running:
            rents.end_of_call(process, start)
        if not done:
            raise Hung(f"{tool} {arguments}")
        return calling.result() if calling in done and not process.died.is_set() else None

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult | None:
        with anyio.CancelScope() as scope:
            self._calling.add(scope)
            try:
                return await self._client.call_tool(tool, arguments)
            finally:
                self._calling.discard(scope)
        if self.process.calls_running == 1:  # beside others it is never idle
            with anyio.fail_after(_HANGS_AFTER_SECONDS):
                await self.process.server.until_idle()  # what it does for a caller who left
        return None

    def give_up(self) -> bool:
        """Cancel what is being called; whether something was."""
        for scope in tuple(self._calling):
            scope.cancel()
        return bool(self._calling)

    async def close(self) -> None:
        """End in order; what a dead process still waits for comes to an end by itself, or is taken away."""
        self._over.set()
        tasks = {self._hosting, *self._calls}
        _, left = await asyncio.wait(tasks, timeout=_ENDS_WITHIN_SECONDS)
        for task in left:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Line:
    """What befalls the requests of one process on their way to the sandbox."""

    def __init__(self, sandbox: Sandbox, fates: Fates, process: Process) -> None:
        self._sandbox = sandbox
        self.wire = Wire(InProcessTransport(self._work))
        self.wire.on("*", "**", self._carry)
        self._fates = fates
        self._process = process
        self.is_dead = False
        # What hangs ends with the test: a shield would keep a call alive for as long as its time limits.
        self.is_over = asyncio.Event()

    async def _work(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._sandbox.app(scope, receive, send)
        finally:
            if self._fates.after_work is not None and str(scope["path"]).endswith(_RENTS):
                self._fates.after_work()

    async def _carry(self, request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if self.is_dead:
            await self._hang()
        key = request.headers.get("Idempotency-Key") if _rents(request) else None
        if key is None:
            return await self._meet(request, forward)
        rents = self._fates.rents
        rents.leave(key, request.headers["X-API-KEY"], self._process)
        try:
            response = await self._meet(request, forward)
        except (httpx2.HTTPError, asyncio.CancelledError):
            rents.lose(key)
            raise
        rents.answer(key, response)
        return response

    async def _meet(self, request: httpx2.Request, forward: Forward) -> httpx2.Response:
        kind = self._fates.meet(request)
        early = await self._before(kind, request)
        if early is not None:
            return early
        response = await forward(request)
        return await self._after(kind, request, response, await response.aread())

    async def _before(self, kind: Kind | None, request: httpx2.Request) -> httpx2.Response | None:
        match kind:
            case "lose_request":
                raise httpx2.ReadError("the connection broke")
            case "fail_before_work":
                return httpx2.Response(503, json={"detail": "overloaded"})
            case "rate_limit":
                return httpx2.Response(429, headers={"Retry-After": "1"}, json={"detail": "slow down"})
            case "act_first":
                await self._fates.act(self._fates.act_first)
            case "cancel_before":
                await self._give_up(request)
            case "kill_before":
                await self._die(request)
            case _:
                pass
        return None

    async def _after(
        self, kind: Kind | None, request: httpx2.Request, response: httpx2.Response, content: bytes
    ) -> httpx2.Response:
        match kind:
            case "lose_answer":
                raise httpx2.ReadError("the connection broke")
            case "fail_after_work":
                return httpx2.Response(502, html="<h1>Bad Gateway</h1>")
            case "cut_answer":
                return httpx2.Response(response.status_code, content=content[: len(content) // 2])
            case "no_pod_id" if response.is_success:
                content = b'{"success": true}'
            case "empty_list" if response.is_success:
                content = b"[]"
            case "short_list" if response.is_success:
                content = json.dumps(json.loads(content)[1::2]).encode()
            case "act_meanwhile":
                await self._fates.act(self._fates.act_meanwhile)
            case "call_beside":
                await self._fates.act(self._fates.call_beside)
                await self._give_up(request)
            case "cancel_after":
                await self._give_up(request)
            case "kill_after":
                await self._die(request)
            case _:
                pass
        return httpx2.Response(response.status_code, content=content, headers=_kept(response.headers))

    async def _give_up(self, request: httpx2.Request) -> None:
        caller = self._process.connections.get(request.headers.get("X-API-KEY", ""))
        if caller is not None:
            caller.give_up()
        for _ in range(100):  # until the server must have heard of it
            await anyio.lowlevel.checkpoint()

    async def _die(self, request: httpx2.Request) -> None:
        if (key := request.headers.get("Idempotency-Key")) is not None:
            self._fates.rents.lose(key)
        await self._process.drop()
        await self._hang()

    async def _hang(self) -> None:
        await self.is_over.wait()
        raise httpx2.ConnectError("the test is over")


def _kept(headers: httpx2.Headers) -> dict[str, str]:
    names = ("Content-Type", "Date", "X-Request-Id", "Idempotent-Replayed", "Retry-After")
    return {name: headers[name] for name in names if name in headers}
