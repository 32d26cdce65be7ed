"""An HTTP transport straight into the sandbox's app, for in-process clients.

Unlike a plain ASGI transport it behaves like a server at the far end of a wire: the work goes on when the client gives
up, an answer is streamed as it comes, and a dropped connection is a read error.
"""

import asyncio
from collections.abc import AsyncIterator

import httpx2
from starlette.types import ASGIApp, Message, Scope

from lium_mcp.sandbox.refusals import ConnectionDropped


class InProcessTransport(httpx2.AsyncBaseTransport):
    """Sends requests to an ASGI app, each in a task of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        # The loop keeps only weak references to tasks.
        self._serving: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return once the answer begins."""
        body = await request.aread()
        exchange = _SentRequest(body)
        task = asyncio.create_task(exchange.serve(self._app, _scope(request)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            start = await exchange.next_message()
        except asyncio.CancelledError:
            exchange.closed.set()
            raise
        return httpx2.Response(start["status"], headers=start["headers"], stream=_Body(exchange), request=request)


class _SentRequest:
    """One request and the messages of its answer."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._messages.put)
        except ConnectionDropped:
            await self._messages.put(httpx2.ReadError("the connection was closed without an answer"))
        except Exception as error:  # noqa: BLE001 - a defect of the app belongs to the test that met it
            await self._messages.put(error)

    async def next_message(self) -> Message:
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.closed.wait()
        return {"type": "http.disconnect"}


class _Body(httpx2.AsyncByteStream):
    def __init__(self, exchange: _SentRequest) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            message = await self._exchange.next_message()
            yield message.get("body", b"")
            if not message.get("more_body", False):
                return

    async def aclose(self) -> None:
        self._exchange.closed.set()


def _scope(request: httpx2.Request) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 0),
    }
