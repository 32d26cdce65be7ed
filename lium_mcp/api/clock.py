"""Time as the client needs it: a clock that tests can turn instead of sleeping, and dates by two clocks compared."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio


class Clock(Protocol):
    """A clock on the wall, a monotonic one, and a way to wait on it."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary, fixed moment."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        ...


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


SYSTEM_CLOCK: Clock = _SystemClock()


def is_since(at: datetime | None, moment: datetime | None, *, clocks_differ: timedelta) -> bool | None:
    """Whether something happened at a moment or later, as far as clocks agree; None where a time is missing."""
    if at is None or moment is None:
        return None
    return moment - at <= clocks_differ  # no date is too early to be subtracted
