"""What callers over HTTP can make the server hold: sessions, and the bodies of requests, within bounds.

The SDK bounds the sessions of Streamable HTTP in all, and those of SSE not at all. Here both share one table, which
also knows addresses, and which closes sessions in use by nobody. Knows HTTP and MCP, but neither tools nor Lium.
"""

import ipaddress
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types import INVALID_REQUEST
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import to_json
from starlette.authentication import SimpleUser
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.serving.messages import is_answer, read_message, request_id_in

log = logging.getLogger(__name__)

SESSION: Final = "lium_mcp.session"
"""Where the scope of a request has its session, once it has passed here."""
MESSAGE: Final = "lium_mcp.message"
"""Where the scope of a request has the message in its body, once it has passed here."""

_SWEEPS_PER_PERIOD: Final = 10
_RETRY_AFTER_SECONDS: Final = 60
_METHODS: Final = ("GET", "POST", "DELETE")
_NO_SESSION: Final = (
    "Bad Request: Missing session ID. Over protocols before 2026-07-28, initialize opens a session, and what comes "
    "after names it in Mcp-Session-Id. Requests of 2026-07-28 say so in MCP-Protocol-Version, and need none."
)
_IPV6_NETWORK_BITS: Final = 64  # what one subscriber has at least


@dataclass(frozen=True, slots=True)
class SessionBounds:
    """How much callers can make the server hold.

    Attributes:
        total: Open sessions of all callers, of Streamable HTTP and SSE together.
        per_address: Those of one address; of IPv6, of one /64 network. Callers that show neither key nor token may have
            half of these, and half of the total: they lock nobody out who does.
        unused_seconds: How long one lives that has no request open and never called a tool.
        idle_seconds: How long one lives that has no request open.
        call_bytes: The body of a tool call by a caller with a key or the server token.
        body_bytes: The body of any other request.
    """

    total: int = 1000
    per_address: int = 20
    unused_seconds: float = 5 * 60
    idle_seconds: float = 30 * 60
    call_bytes: int = 2**20
    body_bytes: int = 64 * 1024


@dataclass(slots=True, eq=False)
class _Session:
    address: str
    user: SimpleUser | None
    open_requests: int = 0
    idle_since: float = 0.0
    has_begun: bool = False
    has_called: bool = False


class Sessions:
    """The open sessions of the web application, and what may come in."""

    def __init__(self, bounds: SessionBounds) -> None:
        self._bounds = bounds
        self._open: set[_Session] = set()
        self._at: Counter[str] = Counter()
        self._by_id: dict[str, _Session] = {}
        self._ends: ASGIApp | None = None

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def sse(self, app: ASGIApp) -> ASGIApp:
        """Bound an application whose every exchange is a session, as long as it lasts."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            session = self._admit(scope)
            if session is None:
                await self._full(scope, receive, send)
                return
            try:
                await app(scope, receive, send)
            finally:
                self._drop(session)

        return bounded

    def streamable(self, app: ASGIApp) -> ASGIApp:
        """Find the session that a request to an application names, which DELETE ends."""
        app = self.bodies(app)

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            session_id = Headers(scope=scope).get(MCP_SESSION_ID_HEADER) if _has_sessions(scope) else None
            session = self._by_id.get(session_id) if session_id is not None else None
            if session_id is None or session is None or _name(session.user) != _name(scope.get("user")):
                await app(scope, receive, send)  # which knows none either, and says so
                return
            scope[SESSION] = session
            with _in_use(session):
                await app(scope, receive, send)
            if scope["method"] == "DELETE":
                await self._end(session, session_id)  # whatever the SDK thought of the request

        return served

    def opening(self, app: ASGIApp) -> ASGIApp:
        """Bound an application in which requests that name no session open one: only `initialize` comes so far."""
        self._ends = app

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            if MCP_SESSION_ID_HEADER in Headers(scope=scope) or not _has_sessions(scope):
                await app(scope, receive, send)
            elif scope["method"] == "POST" and scope[MESSAGE].get("method") == "initialize":
                await self._open_with(app, scope, receive, send)
            else:
                await _without_session(scope)(scope, receive, send)

        return bounded

    def bodies(self, app: ASGIApp) -> ASGIApp:
        """Let only messages through, and long ones only where a caller with a key or the token calls a tool."""

        async def short(scope: Scope, receive: Receive, send: Send) -> None:
            first = await receive()
            if first["type"] != "http.request" or first.get("more_body", False):
                return  # the caller has left in the middle
            body = first.get("body", b"")
            message, _, refusal = read_message(body)
            scope[MESSAGE] = message
            if len(body) > self._bounds.body_bytes and message.get("method") != "tools/call":
                await PlainTextResponse("Request body too large", 413)(scope, receive, send)
                return
            if refusal is not None and scope["method"] == "POST":
                said = refusal.model_dump(mode="json", exclude_unset=True)
                if not is_answer(message):
                    await JSONResponse(said, 400)(scope, receive, send)
                    return
                first["body"] = to_json(said)  # whoever waits for the answer hears that it was none
            waiting: list[Message] = [first]

            async def replay() -> Message:
                return waiting.pop() if waiting else await receive()

            await app(scope, replay, send)

        calls = RequestBodyLimitMiddleware(short, self._bounds.call_bytes)
        others = RequestBodyLimitMiddleware(short, self._bounds.body_bytes)

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            may_call = scope["method"] == "POST" and scope.get("user") is not None
            await (calls if may_call else others)(scope, receive, send)

        return bounded

    async def close_idle(self) -> None:
        """Close sessions that nobody uses, for ever."""
        period_seconds = min(self._bounds.unused_seconds, self._bounds.idle_seconds) / _SWEEPS_PER_PERIOD
        while True:
            await anyio.sleep(period_seconds)
            now = anyio.current_time()
            for session_id, session in tuple(self._by_id.items()):
                limit_seconds = self._bounds.idle_seconds if session.has_called else self._bounds.unused_seconds
                if not session.open_requests and now - session.idle_since >= limit_seconds:
                    await self._end(session, session_id)

    def _admit(self, scope: Scope) -> _Session | None:
        address = address_of(scope.get("client"))
        session = _Session(address, scope.get("user"))
        if session.user is None:
            unknown = [other for other in self._open if other.user is None]
            here = sum(other.address == address for other in unknown)
            if 2 * len(unknown) >= self._bounds.total or 2 * here >= self._bounds.per_address:
                return None
        if len(self._open) >= self._bounds.total or self._at[address] >= self._bounds.per_address:
            return None
        self._open.add(session)
        self._at[address] += 1
        return session

    def _drop(self, session: _Session, session_id: str | None = None) -> None:
        if session_id is not None:
            self._by_id.pop(session_id, None)
        if session in self._open:
            self._open.remove(session)
            self._at[session.address] -= 1
            if not self._at[session.address]:
                del self._at[session.address]

    async def _open_with(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        session = self._admit(scope)
        if session is None:
            await self._full(scope, receive, send)
            return
        scope[SESSION] = session
        # The SDK names the session before it has looked at the request, and keeps it whatever it finds.
        held: list[Message] = []
        session_id = None
        is_told = False

        async def send_once_begun(message: Message) -> None:
            nonlocal session_id, is_told
            if is_told:
                await send(message)
                return
            held.append(message)
            if message["type"] == "http.response.start":
                session_id = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                return
            if not session.has_begun and message.get("more_body", False):
                return
            is_told = True
            if session.has_begun and session_id is not None:
                self._by_id[session_id] = session
            else:
                self._drop(session)
                del MutableHeaders(scope=held[0])[MCP_SESSION_ID_HEADER]
            for earlier in held:
                await send(earlier)

        try:
            with _in_use(session):
                await app(scope, receive, send_once_begun)
        finally:
            if session_id is None:
                self._drop(session)
            elif session_id not in self._by_id:
                await self._end(session, session_id)

    async def _full(self, scope: Scope, receive: Receive, send: Send) -> None:
        log.warning("No more sessions are opened for now: %d are open", len(self._open))
        await PlainTextResponse(
            "Too many sessions are open, in all or from this address. Close some, or wait: those in no use are closed "
            "after some minutes. The current protocol needs none.",
            503,
            {"Retry-After": str(_RETRY_AFTER_SECONDS)},
        )(scope, receive, send)

    async def _end(self, session: _Session, session_id: str) -> None:
        """End a session as its client would."""
        self._drop(session, session_id)
        scope: Scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "DELETE",
            "path": "/",
            "query_string": b"",
            "headers": [(MCP_SESSION_ID_HEADER.encode(), session_id.encode())],
            "user": session.user,
        }

        async def left() -> Message:
            return {"type": "http.disconnect"}

        async def unread(_: Message) -> None:
            return None

        if self._ends is not None:
            await self._ends(scope, left, unread)


def address_of(client: tuple[str, int] | None) -> str:
    """What counts as one address: that of the client, or of IPv6 its network."""
    host = client[0] if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(address), _IPV6_NETWORK_BITS), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


async def note_use(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: a session lives once it has begun, and longer if it calls a tool."""
    session: _Session | None = ctx.request.scope.get(SESSION) if ctx.request is not None else None
    if session is None:
        return await call_next(ctx)
    if ctx.method == "tools/call":
        session.has_called = True
    result = await call_next(ctx)
    if ctx.method == "initialize":
        session.has_begun = True
    return result


@contextmanager
def _in_use(session: _Session) -> Iterator[None]:
    session.open_requests += 1
    try:
        yield
    finally:
        session.open_requests -= 1
        session.idle_since = anyio.current_time()


def _has_sessions(scope: Scope) -> bool:
    """Whether a request is of a protocol that has sessions."""
    version = Headers(scope=scope).get(MCP_PROTOCOL_VERSION_HEADER)
    return version is None or version in HANDSHAKE_PROTOCOL_VERSIONS


def _without_session(scope: Scope) -> Response:
    """Refuse a request that needs a session and names none."""
    if scope["method"] not in _METHODS:
        return PlainTextResponse("Method Not Allowed", 405, {"Allow": ", ".join(_METHODS)})
    error = {"code": INVALID_REQUEST, "message": _NO_SESSION}
    return JSONResponse({"jsonrpc": "2.0", "id": request_id_in(scope[MESSAGE]), "error": error}, 400)


def _name(user: SimpleUser | None) -> str | None:
    return user.username if user is not None else None
