"""How often anybody may ask for what needs no login: each address, and all together."""

from collections import Counter
from typing import Final

import anyio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp.serving.sessions import address_of

_PERIOD_SECONDS: Final = 60.0


class Rate:
    """So many requests a minute, of one address and of all.

    Args:
        per_address: Of one address, or one network of IPv6.
        total: Of all.
    """

    def __init__(self, per_address: int, total: int) -> None:
        self._per_address = per_address
        self._total = total
        self._since = -_PERIOD_SECONDS
        self._asked: Counter[str] = Counter()
        self._asked_in_all = 0

    def bound(self, app: ASGIApp) -> ASGIApp:
        """Let no more requests through."""

        async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
            if self._admits(address_of(scope.get("client"))):
                await app(scope, receive, send)
                return
            said = {"error": "temporarily_unavailable", "error_description": "Too many requests; wait a minute."}
            await JSONResponse(said, 429, {"Retry-After": f"{_PERIOD_SECONDS:.0f}"})(scope, receive, send)

        return bounded

    def _admits(self, address: str) -> bool:
        now = anyio.current_time()
        if now - self._since >= _PERIOD_SECONDS:
            self._since = now
            self._asked.clear()
            self._asked_in_all = 0
        self._asked_in_all += 1
        if self._asked_in_all > self._total:
            return False
        self._asked[address] += 1
        return self._asked[address] <= self._per_address
