"""The retry policy: what may be sent again, how often, and after which pause.

Up to three attempts, pauses of 1 s and 2 s plus up to 0.5 s at random. A `Retry-After` lengthens the pause up to
20 s; a server that asks for more gets no further attempt, and the caller learns how long it asked for. No attempt
begins that could end later than 50 s after the first began. Refusals (400, 401, 402, 403, 404, 409, 422) are final.
"""

import random
from collections.abc import Awaitable, Callable
from enum import Enum
from itertools import count
from typing import TypeVar

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import ConnectionFailed, Effect, LiumError, RateLimited, RequestTimedOut, ServerFailed

MAX_ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 1.0
MAX_JITTER_SECONDS = 0.5
MAX_RETRY_AFTER_SECONDS = 20.0
MAX_TOTAL_SECONDS = 50.0

T = TypeVar("T")


class Repeat(Enum):
    """When a request may be sent again."""

    ALWAYS = "always"
    """After a 429, a 5xx or a lost answer: reads, and changes that a second request cannot double."""
    UNEXECUTED = "unexecuted"
    """Only after a 429, which says that nothing was executed."""
    NEVER = "never"


async def repeating(
    attempt: Callable[[], Awaitable[T]], repeat: Repeat, clock: Clock, *, limit_seconds: float = 0
) -> T:
    """Run `attempt`, which takes at most `limit_seconds`, as often as the policy allows; the last error leaves."""
    started = clock.monotonic()
    effect: Effect = "none"
    for number in count(1):
        try:
            return await attempt()
        except LiumError as error:
            # An earlier attempt that was lost stays possible, whatever a later one says.
            effect = error.effect = "unknown" if effect == "unknown" else error.effect
            pause = pause_seconds(error, number, repeat)
            if pause is None or clock.monotonic() - started + pause + limit_seconds > MAX_TOTAL_SECONDS:
                raise
        await clock.sleep(pause)
    raise AssertionError("counting never ends")  # pragma: no cover - for the type checker


def pause_seconds(error: LiumError, attempts_made: int, repeat: Repeat) -> float | None:
    """Return how long to wait before the next attempt, or `None` if there must be none."""
    if attempts_made >= MAX_ATTEMPTS or not _may_repeat(error, repeat):
        return None
    asked_seconds = error.retry_after_seconds or 0.0
    if asked_seconds > MAX_RETRY_AFTER_SECONDS:
        return None
    jitter_seconds: float = random.uniform(0, MAX_JITTER_SECONDS)  # noqa: S311 - spreads load, guards nothing
    return max(asked_seconds, FIRST_PAUSE_SECONDS * 2.0 ** (attempts_made - 1) + jitter_seconds)


def _may_repeat(error: LiumError, repeat: Repeat) -> bool:
    if repeat is Repeat.NEVER:
        return False
    if isinstance(error, RateLimited):
        return True
    return repeat is Repeat.ALWAYS and isinstance(error, ConnectionFailed | RequestTimedOut | ServerFailed)
