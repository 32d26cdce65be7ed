"""How a server that was started without a key comes to one: it is saved meanwhile, or the person agrees in the browser.

This is for a server over standard input and output alone, whose only caller is the person's own host. One login is open
at a time, and Lium is asked about it only while a call waits for it. Whatever comes to nothing is not offered again for
a while: a host may say yes or no by itself, and show nobody a page.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio
from mcp import UrlElicitationRequiredError
from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import Context
from mcp.types import ElicitRequest, ElicitRequestURLParams, ElicitResult, InputRequiredResult

from lium_mcp.api.addresses import is_of_lium
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import AuthenticationFailed, LiumError, NotFound, RouteMissing
from lium_mcp.failures import Failure
from lium_mcp.guard.confirm import answers_later, can_show_pages
from lium_mcp.services.failure_words import as_failure
from lium_mcp.services.logging_in import POLL_SECONDS, OpenLogin, begin_login, fetch_key, owner_of
from lium_mcp.services.polling import Stop

log = logging.getLogger(__name__)

_REQUEST: Final = "lium_login"
_LIFETIME_SECONDS: Final = 600.0
_WAIT_SECONDS: Final = 30.0  # many hosts cut a call at 60, and its own work comes after it
_QUIET_SECONDS: Final = 600.0
_MOST_OFFERS: Final = 3
_BY_COMMAND: Final = "The user can run `lium-mcp login` in a terminal on this machine at any time instead; no restart."


@dataclass(slots=True)
class _Offered:
    """A login that is open, and how often its page was given to the client to show."""

    login: OpenLogin
    until: float
    times: int = 0

    @property
    def name(self) -> str:
        """What clients of the older protocol know it by; the session cannot be told from it."""
        return hashlib.sha256(f"lium-mcp login {self.login.session_id}".encode()).hexdigest()[:32]


class LoginOffers:
    """Finds a key for a server that has none.

    Args:
        lium: The client without a key.
        clock: For pauses.
        stop: Ends waits where the server is to stop.
        find: Looks for a saved key, and lets the server act with it; whether there is one now.
        keep: Saves a key, and lets the server act with it.
    """

    def __init__(
        self, lium: LiumClient, clock: Clock, stop: Stop, *, find: Callable[[], bool], keep: Callable[[str], None]
    ) -> None:
        self._lium = lium
        self._clock = clock
        self._stop = stop
        self._find = find
        self._keep = keep
        self._open: _Offered | None = None
        self._quiet_until = 0.0
        self._asked_at = 0.0
        self._beginning = anyio.Lock()
        self._waiting: anyio.Event | None = None

    async def look_first(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """MCP middleware: use a key that was saved since the last request."""
        self._find()
        return await call_next(ctx)

    async def seek(self, context: Context[Any, Any]) -> InputRequiredResult | bool:
        """Come to a key for a call that needs one.

        Returns:
            Whether there is one now; or what the client is to show the person, and to call again with.

        Raises:
            UrlElicitationRequiredError: the same, for a client of the older protocol.
            Failure: the person has not agreed.
        """
        if self._find():
            return True
        if not can_show_pages(context) or not is_of_lium(self._lium.base_url):
            return False
        answer = (context.input_responses or {}).get(_REQUEST)
        if isinstance(answer, ElicitResult) and answer.action != "accept":
            self._end()
            raise Failure(
                "login_declined",
                "The person did not want to open Lium's login page, or the client does not show such pages.",
                f"Do not call again unless they ask for it. {_BY_COMMAND}",
            )
        offered = await self._offered()
        if offered is None:
            return False
        was_shown = offered.times > 0
        is_opened = isinstance(answer, ElicitResult) or not answers_later(context)
        if was_shown and await self._agreed(context, offered, _WAIT_SECONDS if is_opened else 0):
            return True
        if (was_shown and isinstance(answer, ElicitResult)) or offered.times >= _MOST_OFFERS:
            raise _pending()
        offered.times += 1
        return self._offer(context, offered)

    def _offer(self, context: Context[Any, Any], offered: _Offered) -> InputRequiredResult:
        page = ElicitRequestURLParams(
            message=f"Lium MCP needs an API key of yours to go on. On this page at {offered.login.site} you agree that "
            "it gets one, which is saved on this machine in ~/.lium/config.ini. Agree only if you have just asked for "
            "something at Lium.",
            url=offered.login.page,
        )
        if answers_later(context):
            return InputRequiredResult(input_requests={_REQUEST: ElicitRequest(params=page)})
        raise UrlElicitationRequiredError(
            [page.model_copy(update={"elicitation_id": offered.name})],
            "This needs a Lium API key. The person is shown a page on which they agree that this server gets one: call "
            f"again when they have. {_BY_COMMAND}",
        )

    async def _offered(self) -> _Offered | None:
        """The open login, or a new one; None where none may be begun now, or cannot be."""
        async with self._beginning:
            now = self._clock.monotonic()
            if self._open is not None and now >= self._open.until:
                self._end()
            if self._open is None and now >= self._quiet_until:
                try:
                    login = await begin_login(self._lium)
                except (LiumError, Failure) as error:
                    log.warning("No login could be begun: %s", error)
                    self._end()
                else:
                    self._open = _Offered(login, self._clock.monotonic() + _LIFETIME_SECONDS)
            return self._open

    async def _agreed(self, context: Context[Any, Any], offered: _Offered, wait_seconds: float) -> bool:
        """Ask whether the person has agreed, for so long; whether there is a key now.

        Raises:
            Failure: there will be none from this login.
        """
        if self._waiting is not None:
            # Another call asks Lium for both.
            with anyio.move_on_after(2 * _WAIT_SECONDS):
                await self._waiting.wait()
            if self._find():
                return True
            raise _pending()
        self._waiting = anyio.Event()
        try:
            return await self._fetched(context, offered, wait_seconds)
        finally:
            self._waiting.set()
            self._waiting = None

    async def _fetched(self, context: Context[Any, Any], offered: _Offered, wait_seconds: float) -> bool:
        pauses = _Pauses(self._clock, self._stop, context)
        try:
            if (rest := self._asked_at + POLL_SECONDS - self._clock.monotonic()) > 0:
                await pauses.sleep(rest)
            key = await fetch_key(self._lium, offered.login, pauses, limit_seconds=wait_seconds)
        except Failure as failure:
            if failure.code != "login_unanswered":
                self._end()
                raise
            return self._find()  # another program may have saved one meanwhile
        except (NotFound, RouteMissing):
            return self._find()  # said once, that may be too early or too late
        except LiumError as error:
            raise as_failure(error) from None
        finally:
            self._asked_at = self._clock.monotonic()
        # From here on nothing may be lost: the page gives the key once.
        with anyio.CancelScope(shield=True):
            try:
                await owner_of(self._lium, key)
            except AuthenticationFailed as error:
                self._end()
                raise as_failure(error) from None
            except LiumError as error:
                log.warning("Whose the key of the login is could not be asked: %s", error)
            self._open = None
            self._keep(key)
        log.info("A person agreed to a login: this server has a key now")
        return True

    def _end(self) -> None:
        self._open = None
        self._quiet_until = self._clock.monotonic() + _QUIET_SECONDS


@dataclass(frozen=True, slots=True)
class _Pauses:
    """A clock whose pauses tell the client how long is waited, and end where the server is to stop."""

    clock: Clock
    stop: Stop
    context: Context[Any, Any]

    def now(self) -> datetime:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.context.report_progress(self.clock.monotonic(), message="Waiting until the person has logged in")
        await self.stop.pause(self.clock, seconds)
        if self.stop.asked:
            raise _pending()


def _pending() -> Failure:
    return Failure(
        "login_pending",
        "The person has not agreed on Lium's login page yet, or the client has shown them none.",
        f"Call again once they have agreed. {_BY_COMMAND}",
    )
