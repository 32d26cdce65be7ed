"""Wires with faults in them: a transport that answers from a script, and a real server on a local socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from lium_mcp.api import LiumClient

KEY = "sk_test_0123456789"
POD_ID = "8b0d2f14-6e35-4c19-8f7a-2a91c3d4e5f6"
NODE_ID = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"
IDEMPOTENCY_KEY = "6f1d2c3b-4a59-4687-9abc-def012345678"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE demo@example"

Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


class Script(httpx2.AsyncBaseTransport):
    """Answers each request with the next reply; a request beyond the script is a failure of the test."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        if not self.replies:
            raise AssertionError(f"unexpected {request.method} {request.url}")
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    def sent_json(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)


class TurnedClock:
    """Sleeping only notes how long."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return sum(self.pauses)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


def ok(body: Any = None, **headers: str) -> httpx2.Response:
    return httpx2.Response(200, json={} if body is None else body, headers=headers)


def refusal(status: int, body: Any = None, **headers: str) -> httpx2.Response:
    return httpx2.Response(
        status, json={"message": "no", "status_code": status} if body is None else body, headers=headers
    )


def client_on(transport: httpx2.AsyncBaseTransport, **options: Any) -> LiumClient:
    defaults: dict[str, Any] = {"api_key": KEY, "clock": TurnedClock()}
    return LiumClient(transport=transport, **{**defaults, **options})


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def local_server(handler: Handler) -> AsyncIterator[str]:
    """Serve raw bytes on a local port; `handler` is called once a request head has arrived."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.close()
