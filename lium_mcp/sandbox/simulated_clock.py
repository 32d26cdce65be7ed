"""The sandbox's clock: time that runs at a chosen speed and that tests can turn.

It knows nothing of pods or money. The world reads it at the start of each request, and lets everything happen that is
due by then.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class SimulatedClock:
    """UTC time that starts somewhere, runs at ``speed`` times real time, and can be turned forward only."""

    def __init__(self, *, start: datetime | None = None, speed: float = 1.0) -> None:
        if start is not None and start.tzinfo is None:
            msg = "start needs a time zone, for example datetime(..., tzinfo=UTC)"
            raise ValueError(msg)
        self.start = datetime.now(UTC) if start is None else start.astimezone(UTC)
        self._base = self.start
        self._base_monotonic = time.monotonic()
        self._speed = 0.0
        # Called when the clock was turned or its speed changed, in the thread that did so.
        self.watchers: list[Callable[[], None]] = []
        self.set_speed(speed)

    @property
    def speed(self) -> float:
        """Sandbox seconds per real second; 0 when only turning moves time."""
        return self._speed

    def now(self) -> datetime:
        """Return the current sandbox time, in UTC."""
        if self._speed == 0:
            return self._base
        return self._base + timedelta(seconds=(time.monotonic() - self._base_monotonic) * self._speed)

    def set_speed(self, speed: float) -> None:
        """Run at ``speed`` from now on, without a jump."""
        if not math.isfinite(speed) or speed < 0:
            msg = "speed must be a finite number, 0 or more"
            raise ValueError(msg)
        self._base, self._base_monotonic = self.now(), time.monotonic()
        self._speed = speed
        self._tell()

    def freeze(self) -> None:
        """Stop time: from now on only advance() moves it."""
        self.set_speed(0)

    def advance(self, *, seconds: float = 0, minutes: float = 0, hours: float = 0) -> None:
        """Turn the clock forward; what falls due happens in time order before anything is read."""
        step = timedelta(seconds=seconds, minutes=minutes, hours=hours)
        if step < timedelta(0):
            msg = "the clock only turns forward"
            raise ValueError(msg)
        self._base += step
        self._tell()

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()


def iso_naive(moment: datetime) -> str:
    """Write a time as the API's rows do: in UTC, without a zone."""
    return moment.replace(tzinfo=None).isoformat()


def iso_zulu(moment: datetime) -> str:
    """Write a time with a trailing Z, to the second."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
