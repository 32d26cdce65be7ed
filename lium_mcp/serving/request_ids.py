"""A request id is used once at a time: of two requests with one id the SDK would answer one twice and the other never.

Well-behaved clients never do that; one that repeats a request after its connection was lost may. Over Streamable HTTP
the second is refused where it comes in, since the SDK's streams go by ids; elsewhere before it is served.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INVALID_REQUEST
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp.serving.sessions import MESSAGE, SESSION

_Use = tuple[object, str]  # the connection, and the id as the SDK compares it

_SSE_SESSION: Final = "lium_mcp.sse_session"

_LAST_WORDS_SECONDS: Final = 1.0
_REFUSAL: Final = (
    "A request with this id still runs on this connection, and this one was not served. Give each request an id of its "
    "own, or wait for the answer."
)


@dataclass(slots=True, eq=False)
class _Exchange:
    answered: bool = False
    over: anyio.Event = field(default_factory=anyio.Event)


class RequestIds:
    """The ids of the requests that run, on all connections of one server."""

    def __init__(self) -> None:
        self._posted: dict[_Use, _Exchange] = {}
        self._served: set[_Use] = set()

    def once_posted(self, app: ASGIApp) -> ASGIApp:
        """Refuse a request over Streamable HTTP whose id another one of its session has."""

        async def posted(scope: Scope, receive: Receive, send: Send) -> None:
            request_id = request_id_in(scope[MESSAGE]) if scope["method"] == "POST" else None
            if SESSION not in scope or request_id is None:
                await app(scope, receive, send)
                return
            use = scope[SESSION], str(request_id)
            earlier = self._posted.get(use)
            if earlier is not None and earlier.answered:
                # Clients that give each request the same id send the next when they have read the answer.
                with anyio.move_on_after(_LAST_WORDS_SECONDS):
                    await earlier.over.wait()
            if use in self._posted or use in self._served:
                error = {"code": INVALID_REQUEST, "message": _REFUSAL}
                answer = JSONResponse({"jsonrpc": "2.0", "id": request_id, "error": error}, 400)
                await answer(scope, receive, send)
                return
            exchange = self._posted[use] = _Exchange()
            try:
                await app(scope, receive, send)
            finally:
                del self._posted[use]
                exchange.over.set()

        return posted

    async def once_served(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: refuse a request whose id another one of its connection has."""
        connection = _connection(ctx.request)
        if connection is None or ctx.request_id is None:
            return await call_next(ctx)
        use = connection, str(ctx.request_id)
        if use in self._served:
            raise MCPError(INVALID_REQUEST, _REFUSAL)
        self._served.add(use)
        try:
            return await call_next(ctx)
        finally:
            if use in self._posted:
                self._posted[use].answered = True
            if use in self._posted or not _is_in_session(ctx.request):
                self._served.discard(use)
            else:
                # Its caller has left: what is still said of it must not be taken for the answer to another.
                asyncio.get_running_loop().call_later(_LAST_WORDS_SECONDS, self._served.discard, use)


def of_sse(app: ASGIApp) -> ASGIApp:
    """Note of each message the SSE session that its address names, for what takes such messages alone.

    Elsewhere an address may say what it wants: who names another's session there takes no ids from it.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SSE_SESSION] = Request(scope).query_params.get("session_id")
        await app(scope, receive, send)

    return served


def request_id_in(message: Any) -> str | int | None:  # noqa: ANN401 - whatever a body held
    """The id of a message that is a request, else None."""
    request_id = message.get("id") if isinstance(message, dict) and "method" in message else None
    return request_id if isinstance(request_id, str | int) else None


def _connection(request: Request | None) -> object:
    """What a request shares its ids with; None where it shares them with none."""
    if request is None:
        return ""  # standard input and output
    return request.scope.get(SESSION) or request.scope.get(_SSE_SESSION)


def _is_in_session(request: Request | None) -> bool:
    return request is not None and SESSION in request.scope
