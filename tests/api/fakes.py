"""Our client on a wire with nothing behind it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from lium_mcp.api.client import LiumClient
from tests.wires import Act, Forward, Wire

KEY = "sk_test_0123456789"
POD_ID = "8b0d2f14-6e35-4c19-8f7a-2a91c3d4e5f6"
NODE_ID = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"
IDEMPOTENCY_KEY = "6f1d2c3b-4a59-4687-9abc-def012345678"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE demo@example"

Reply = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]


def scripted(*replies: Reply) -> Wire:
    """Each request gets the next reply; a request beyond the script is a failure of the test."""
    wire = Wire()
    for reply in reversed(replies):
        wire.on("*", "**", _replying(reply), times=1)
    return wire


def _replying(reply: Reply) -> Act:
    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, httpx2.Response) else reply(request)

    return act


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
