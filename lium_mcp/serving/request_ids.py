"""A request id is used once at a time: of two requests with one id the SDK would answer one twice and the other never.

Well-behaved clients never do that; one that repeats a request after its connection was lost may. The second is refused
where it comes in, since the SDK's streams go by ids, and what it cancels too: it would forget the first.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp.serving.messages import refuse_again, request_id_in
from lium_mcp.serving.sessions import MESSAGE, SESSION

_Use = tuple[object, str]  # the connection, and the id as the SDK compares it

_SSE_SESSION: Final = "lium_mcp.sse_session"

_LAST_WORDS_SECONDS: Final = 1.0


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
                await _refused(request_id)(scope, receive, send)
                return
            exchange = self._posted[use] = _Exchange()
            try:
                await app(scope, receive, send)
            finally:
                del self._posted[use]
                exchange.over.set()

        return posted

    def of_sse(self, app: ASGIApp) -> ASGIApp:
        """Note of each message the SSE session that its address names, and refuse a request whose id runs there.

        Elsewhere an address may say what it wants, and here who sends a message is part of it: who names another's
        session takes no ids from it, and learns of none.
        """

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            user = scope.get("user")
            session = Request(scope).query_params.get("session_id"), user and user.username
            scope[_SSE_SESSION] = session
            request_id = request_id_in(scope[MESSAGE])
            if request_id is not None and (session, str(request_id)) in self._served:
                await _refused(request_id)(scope, receive, send)
                return
            await app(scope, receive, send)

        return served

    async def once_served(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: refuse a request whose id another one of its connection has."""
        connection = _connection(ctx.request)
        if connection is None or ctx.request_id is None:
            return await call_next(ctx)
        use = connection, str(ctx.request_id)
        if use in self._served:
            raise MCPError.from_error_data(refuse_again(ctx.request_id).error)
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


def _refused(request_id: str | int) -> JSONResponse:
    return JSONResponse(refuse_again(request_id).model_dump(mode="json", exclude_unset=True), 400)


def _connection(request: Request | None) -> object:
    """What a request shares its ids with; None where it shares them with none."""
    if request is None:
        return ""  # standard input and output
    return request.scope.get(SESSION) or request.scope.get(_SSE_SESSION)


def _is_in_session(request: Request | None) -> bool:
    return request is not None and SESSION in request.scope
