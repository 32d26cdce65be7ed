"""Waiting for what goes on at Lium: within a bound, and no longer than the server lives."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

import anyio

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError
from lium_mcp.failures import Failure
from lium_mcp.observing import Work, observing

T = TypeVar("T")

Report = Callable[[float, float, str], Awaitable[None]]
"""Says how far something is: seconds gone, seconds in all, and a sentence."""

# GET /pods allows about 60 reads a minute for the whole account: a wait may take half of that.
_POLL_SECONDS = 2.0
_SLOW_POLL_SECONDS = 5.0
_SLOW_AFTER_SECONDS = 90.0
# The last read of a wait gets this long, however little of the wait is left.
_LAST_READ_SECONDS = 5.0
# For so long a read may still show what was before a change that Lium has accepted.
_LAG_SECONDS = 30.0
# All requests of a body that only reads, together: nobody waits longer for a figure, and many hosts cut a call at 60 s.
READ_LIMIT_SECONDS: Final = 30.0


class OrderedChange(Generic[T]):
    """A change that Lium accepted, and whether it was seen: for a while a read may show what was before.

    Args:
        shows: Whether a state shows the change. Once one did, all that follow do.
    """

    def __init__(self, shows: Callable[[T], bool]) -> None:
        self._shows = shows
        self.is_seen = False

    def note(self, state: T) -> bool:
        """Look at what was just read, and say whether the change has been seen by now."""
        self.is_seen = self.is_seen or self._shows(state)
        return self.is_seen


class Stop:
    """Ends the waits of all calls, so that a server that is asked to stop still answers them."""

    def __init__(self) -> None:
        self.asked = False
        self._pauses: set[anyio.CancelScope] = set()

    def ask(self) -> None:
        """End every wait, also those that begin later."""
        self.asked = True
        for pause in tuple(self._pauses):
            pause.cancel()

    async def pause(self, clock: Clock, seconds: float) -> None:
        """Let time pass, unless the server is to stop."""
        with anyio.CancelScope() as pause:
            self._pauses.add(pause)
            try:
                await clock.sleep(seconds)
            finally:
                self._pauses.discard(pause)


@dataclass(frozen=True, slots=True)
class Poller:
    """Reads again and again until something is done.

    Its waits are those of one call: all of them together end `wait_seconds` after the call began, however much of that
    its requests took, since hosts cut a call off.

    Attributes:
        clock: For pauses.
        stop: Ends every wait.
        began: When the call began, by the clock.
        report: Tells the client how far it is; None where nobody listens.
    """

    clock: Clock
    stop: Stop
    began: float
    report: Report | None = None

    def anew(self) -> "Poller":
        """The same, for waits that begin now: those of work that no call waits for."""
        return replace(self, began=self.clock.monotonic())

    def left(self, wait_seconds: float) -> float:
        """How many seconds of a call's wait are left; 0 once it is over."""
        return max(self.began + wait_seconds - self.clock.monotonic(), 0.0)

    async def until(
        self,
        state: T,
        read: Callable[[], Awaitable[T]],
        done: Callable[[T], bool],
        *,
        wait_seconds: float,
        describe: Callable[[T], str],
        every_seconds: float = _POLL_SECONDS,
        change: OrderedChange[T] | None = None,
    ) -> T:
        """Read again until `done` says so or the time is over, reporting progress; return the newest state.

        A read that fails does not end the wait, since what is waited for may be billing already: the newest state that
        was read stands. Nor does a state that `done` is true of end it before `change` was seen, within a bound: it may
        be that of before.
        """
        started = self.clock.monotonic()

        def is_over(state: T) -> bool:
            is_current = change is None or change.note(state)
            return done(state) and (is_current or self.clock.monotonic() - started >= _LAG_SECONDS)

        while not is_over(state) and not self.stop.asked:
            left = self.left(wait_seconds)
            if not left:
                break
            elapsed = wait_seconds - left
            if self.report is not None:
                await self.report(elapsed, wait_seconds, describe(state))
            pause_seconds = every_seconds if elapsed < _SLOW_AFTER_SECONDS else _SLOW_POLL_SECONDS
            await self.stop.pause(self.clock, min(left, pause_seconds))
            if self.stop.asked:
                break
            with suppress(LiumError), anyio.move_on_after(max(self.left(wait_seconds), _LAST_READ_SECONDS)):
                state = await read()
        return state


class _LedgerTime:
    """How much of a call's time the ledger took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def observe(self, work: Work) -> Iterator[None]:
        began = anyio.current_time()
        try:
            yield
        finally:
            if work.kind == "transaction":
                self.seconds += anyio.current_time() - began


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Bound the time of a body that only reads.

    Raises:
        Failure: the time is over; it names who took most of it.
    """
    ledger = _LedgerTime()
    try:
        with anyio.fail_after(seconds), observing(ledger.observe):
            yield
    except TimeoutError as error:
        if seconds is not None and ledger.seconds >= seconds / 2:
            raise Failure(
                "timed_out",
                f"The ledger of rents, and not Lium, took {ledger.seconds:.0f} of the {seconds:.0f} seconds that this "
                "call may take.",
                "Try again in a minute. If it stays so, the person who runs this server has to see what keeps the "
                "database of LIUM_MCP_STATE_URL from answering: another program may hold its lock.",
            ) from error
        raise Failure(
            "timed_out", "Lium did not answer all requests of this call in time.", "Try again in a minute."
        ) from error
