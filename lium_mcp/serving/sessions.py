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
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import to_json
from starlette.authentication import SimpleUser
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.serving.messages import is_answer, read_message

log = logging.getLogger(__name__)

SESSION: Final = "lium_mcp.session"
"""Where the scope of a request has its session, once it has passed here."""
MESSAGE: Final = "lium_mcp.message"
"""Where the scope of a request has the message in its body, once it has passed here."""

_SWEEPS_PER_PERIOD: Final = 10
_RETRY_AFTER_SECONDS: Final = 60
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
        """Bound an application whose sessions have ids, which requests without one open and DELETE ends."""
        self._ends = app
        app = self.bodies(app)

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            headers = Headers(scope=scope)
            version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
            if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
                await app(scope, receive, send)  # it has no sessions
                return
            session_id = headers.get(MCP_SESSION_ID_HEADER)
            if session_id is None:
                await self._open_with(app, scope, receive, send)
                return
            session = self._by_id.get(session_id)
            if session is None or _name(session.user) != _name(scope.get("user")):
                await app(scope, receive, send)  # which knows none either, and says so
                return
            scope[SESSION] = session
            with _in_use(session):
                await app(scope, receive, send)
            if scope["method"] == "DELETE":
                await self._end(session, session_id)  # whatever the SDK thought of the request

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
        opened: list[str] = []

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:  # noqa: PLR2004 - an error
                session_id = Headers(raw=message["headers"]).get(MCP_SESSION_ID_HEADER)
                if session_id is not None:
                    self._by_id[session_id] = session
                    opened.append(session_id)
            await send(message)

        try:
            with _in_use(session):
                await app(scope, receive, send_and_note)
        finally:
            if not opened:
                self._drop(session)

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
    """MCP middleware: a session that calls a tool lives longer."""
    if ctx.method == "tools/call" and ctx.request is not None:
        session: _Session | None = ctx.request.scope.get(SESSION)
        if session is not None:
            session.has_called = True
    return await call_next(ctx)


@contextmanager
def _in_use(session: _Session) -> Iterator[None]:
    session.open_requests += 1
    try:
        yield
    finally:
        session.open_requests -= 1
        session.idle_since = anyio.current_time()


def _name(user: SimpleUser | None) -> str | None:
    return user.username if user is not None else None
