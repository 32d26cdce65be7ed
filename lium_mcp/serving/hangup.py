"""When a caller hangs up, its calls end: nobody would read their answers, and a rent that nobody hears of bills.

Over the current protocol the SDK does that itself. A call of an older client would run on, since its session outlives
the connection, and its answer could not be delivered any more. Knows HTTP and MCP, but neither tools nor Lium.
"""

from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INTERNAL_ERROR
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CALLS: Final = "lium_mcp.calls"


class Hangups:
    """ASGI middleware that tells calls when their caller leaves, and can end all exchanges as if all callers left."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._listening: set[anyio.CancelScope] = set()
        self._hung_up = False

    def hang_up(self) -> None:
        """End every open exchange in order, and serve no other."""
        self._hung_up = True
        for listening in tuple(self._listening):
            listening.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._hung_up:
            await PlainTextResponse("This server is stopping", 503)(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        calls: set[anyio.CancelScope] = set()
        scope[_CALLS] = calls
        started = complete = False

        async def receive_or_hang_up() -> Message:
            message: Message = {"type": "http.disconnect"}
            if not self._hung_up:
                with anyio.CancelScope() as listening:
                    self._listening.add(listening)
                    try:
                        message = await receive()
                    finally:
                        self._listening.discard(listening)
            if message["type"] == "http.disconnect":
                for call in tuple(calls):
                    call.cancel()
            return message

        async def send_in_order(message: Message) -> None:
            nonlocal started, complete
            begins = message["type"] == "http.response.start"
            # The SDK begins an empty second answer after a stream whose caller, as it believes, has left.
            if complete or (begins and started):
                return
            started = started or begins
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        await self._app(scope, receive_or_hang_up, send_in_order)
        if started and not complete:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def listening(app: ASGIApp) -> ASGIApp:
    """Notice a caller who leaves an application that does not listen for it: the SDK's, where it answers in JSON.

    The body must come in one message.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        waiting = [await receive()]
        left = anyio.Event()

        async def replay() -> Message:
            if not waiting:
                await left.wait()
            return waiting.pop() if waiting else {"type": "http.disconnect"}

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            await app(scope, replay, send)
            group.cancel_scope.cancel()

    return served


async def end_with_caller(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: cancel what a request does when its caller leaves."""
    scope: Scope = getattr(ctx.request, "scope", {})
    calls: set[anyio.CancelScope] | None = scope.get(_CALLS)
    if calls is None:
        return await call_next(ctx)
    with anyio.CancelScope() as call:
        calls.add(call)
        try:
            return await call_next(ctx)
        finally:
            calls.discard(call)
    raise MCPError(INTERNAL_ERROR, "The caller left before the answer")
