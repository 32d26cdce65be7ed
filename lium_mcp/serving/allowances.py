"""How often somebody may ask for something in a minute: all of it may come at once, and it grows back evenly."""

import math
from collections.abc import Callable, Mapping
from typing import Final

import anyio

_MINUTE_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 1000
_ROUNDING_SECONDS: Final = 0.001


class TooOften(Exception):
    """One that is one too many.

    Attributes:
        name: Whose allowance is used up.
        seconds: After how many one more may come.
    """

    def __init__(self, name: str, seconds: int) -> None:
        super().__init__(name)
        self.name = name
        self.seconds = seconds


class Allowances:
    """The allowance of each name.

    Args:
        time: Seconds since an arbitrary, fixed moment.
    """

    def __init__(self, time: Callable[[], float] = anyio.current_time) -> None:
        self._time = time
        # When a name will have been idle for so long that all it may have in a minute may come at once.
        self._rested_at: dict[str, float] = {}

    def take(self, per_minute: Mapping[str, int]) -> None:
        """Take one from the allowance of each of these names, which have so many a minute.

        Raises:
            TooOften: one of them has none left; nothing was taken from the others.
        """
        now = self._time()
        taken = {
            name: max(self._rested_at.get(name, now), now) + _MINUTE_SECONDS / most for name, most in per_minute.items()
        }
        for name, rested_at in taken.items():
            if (too_early := rested_at - now - _MINUTE_SECONDS) > _ROUNDING_SECONDS:
                raise TooOften(name, math.ceil(too_early))
        self._rested_at.update(taken)
        if len(self._rested_at) > _MOST_REMEMBERED:
            self._rested_at = {name: at for name, at in self._rested_at.items() if at > now}
