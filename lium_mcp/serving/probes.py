"""Whether this process takes calls: it tells whoever watches it, and refuses new ones clearly once it is to stop.

Behind a proxy another replica takes what is refused here. What was begun goes on: calls that run, answers to questions,
cancellations, and the lists, which clients hold the answer to a call against.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from anyio import get_cancelled_exc_class
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp.serving.messages import request_id_in
from lium_mcp.serving.sessions import MESSAGE

log = logging.getLogger(__name__)

_CHECK_SECONDS: Final = 2.0
# However many ask, the database is asked this often.
_CHECKED_FOR_SECONDS: Final = 1.0
_STILL_ANSWERED: Final = frozenset({"ping", "tools/list", "prompts/list", "resources/list", "resources/templates/list"})
_SERVER_ERROR: Final = -32000
_REFUSAL: Final = "This server is stopping, and took nothing of this request: send it again, and another one answers."
_REFUSAL_HEADERS: Final = {"Retry-After": "1", "Connection": "close"}


class Readiness:
    """Whether calls may come.

    Args:
        check: Returns where what all calls need can be reached, and raises where it cannot. It asks Lium nothing, which
            is no fault of this process.
    """

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self._check = check
        self._checking: asyncio.Task[bool] | None = None
        self._is_leaving = self._is_draining = False

    async def look(self) -> None:
        """Look once, before anybody asks: what is wrong is in the log from the start."""
        await self._is_reachable()

    def leave(self) -> None:
        """Tell probes that calls should go elsewhere, and still take those that come."""
        self._is_leaving = True

    def drain(self) -> None:
        """Take no more calls."""
        self._is_leaving = self._is_draining = True

    async def answer(self, _: Request) -> JSONResponse:
        """Answer a probe, within a few seconds: 200 where calls may come, else 503 with a word on why not."""
        status = "draining" if self._is_leaving else "ready" if await self._is_reachable() else "ledger_unreachable"
        return JSONResponse({"status": status}, 200 if status == "ready" else 503, {"Cache-Control": "no-store"})

    def taking_calls(self, app: ASGIApp) -> ASGIApp:
        """Refuse new calls, sessions and streams to an application of MCP, once no more calls are taken."""

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            message = scope.get(MESSAGE, {})
            request_id = request_id_in(message)
            is_new = scope["method"] == "GET" if request_id is None else message["method"] not in _STILL_ANSWERED
            if not (self._is_draining and is_new):
                await app(scope, receive, send)
                return
            error = {"code": _SERVER_ERROR, "message": _REFUSAL}
            said = {"jsonrpc": "2.0", "id": request_id, "error": error}
            await JSONResponse(said, 503, _REFUSAL_HEADERS)(scope, receive, send)

        return served

    async def _is_reachable(self) -> bool:
        if self._checking is None:
            self._checking = asyncio.create_task(self._look())
            self._checking.add_done_callback(
                lambda _: asyncio.get_running_loop().call_later(_CHECKED_FOR_SECONDS, self._forget)
            )
        # One that hangs is joined by the probes that follow, and not begun anew.
        done, _ = await asyncio.wait({self._checking}, timeout=_CHECK_SECONDS)
        return bool(done) and not self._checking.cancelled() and self._checking.result()

    async def _look(self) -> bool:
        try:
            await self._check()
        except get_cancelled_exc_class():
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, calls that need it would fail
            log.warning("This server is not ready: what all calls need does not answer: %s", error)
            return False
        return True

    def _forget(self) -> None:
        self._checking = None
