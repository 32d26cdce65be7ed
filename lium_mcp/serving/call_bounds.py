"""How many calls a caller over HTTP may make, at once and in a minute: one that runs wild keeps nobody else waiting.

A caller is a key, or the server token, or whoever shows neither from one address. All of one address together may make
some times as many. What is refused is an error of MCP, and over Streamable HTTP, where nothing else was answered
before, its status is 429 with `Retry-After`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.serving.allowances import Allowances, TooOften
from lium_mcp.serving.callers import CALLER, Caller
from lium_mcp.serving.sessions import address_of

log = logging.getLogger(__name__)

# What may ask Lium.
_CALLS: Final = frozenset({"tools/call", "resources/read", "completion/complete"})
# Behind one address may be an office, or all who come through a proxy that is not named.
_CALLERS_OF_AN_ADDRESS: Final = 4
_BUSY_SECONDS: Final = 5
_SERVER_ERROR: Final = -32000
_REFUSED: Final = "lium_mcp.refused"


class CallBounds:
    """The calls of all callers, and who of them may make another one.

    Args:
        at_once: How many of one caller may run.
        per_minute: How many of one caller may begin in a minute; all of them may come at its beginning.
        time: Seconds since an arbitrary, fixed moment.
    """

    def __init__(self, at_once: int, per_minute: int, time: Callable[[], float] = anyio.current_time) -> None:
        self._at_once = at_once
        self._per_minute = per_minute
        self._running: Counter[str] = Counter()
        self._allowances = Allowances(time)

    async def bounded(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: refuse a call that is one too many.

        Raises:
            MCPError: it is; nothing was done.
        """
        if ctx.request is None or ctx.method not in _CALLS:
            return await call_next(ctx)
        scope = ctx.request.scope
        try:
            with self.running(scope):
                return await call_next(ctx)
        except TooManyCalls as refused:
            log.warning("A call was refused: %s", refused)
            scope[_REFUSED] = refused.seconds
            raise MCPError(
                _SERVER_ERROR,
                f"{refused}. Nothing was done: call again in {refused.seconds} s.",
                {"retry_after_seconds": refused.seconds},
            ) from None

    @contextmanager
    def running(self, scope: Scope) -> Iterator[None]:
        """Let a call of whoever sent this request run.

        Raises:
            TooManyCalls: it is one too many; nothing was counted.
        """
        caller: Caller = scope[CALLER]
        address = f"address {address_of(scope.get('client'))}"
        owner = f"key {caller.owner}" if caller.owner else f"nobody at {address}"
        whose = {owner: 1, address: _CALLERS_OF_AN_ADDRESS}
        for name, share in whose.items():
            if self._running[name] >= self._at_once * share:
                happened = f"Too many calls: this {_kind(name)} has {self._running[name]} running, and may have no more"
                raise TooManyCalls(happened, _BUSY_SECONDS)
        per_minute = {name: self._per_minute * share for name, share in whose.items()}
        try:
            self._allowances.take(per_minute)
        except TooOften as error:
            happened = f"Too many calls: this {_kind(error.name)} has made {per_minute[error.name]} within a minute"
            raise TooManyCalls(happened, error.seconds) from None
        self._running.update(whose.keys())
        try:
            yield
        finally:
            for name in whose:
                self._running[name] -= 1
                if not self._running[name]:
                    del self._running[name]


def told(app: ASGIApp) -> ASGIApp:
    """Let the status of an answer that refuses a call for its number say so, where the answer is not begun before."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_status(message: Message) -> None:
            if message["type"] == "http.response.start" and _REFUSED in scope:
                message["status"] = 429
                MutableHeaders(scope=message)["Retry-After"] = str(scope[_REFUSED])
            await send(message)

        await app(scope, receive, send_with_status)

    return served


class TooManyCalls(Exception):
    """A caller makes too many calls; it may make the next in so many seconds."""

    def __init__(self, happened: str, seconds: int) -> None:
        super().__init__(happened)
        self.seconds = seconds


def _kind(name: str) -> str:
    return "key" if name.startswith("key ") else "address"
