"""The retry policy: what may be sent again, how often, and after which pause.

Up to three attempts, pauses of 1 s and 2 s plus up to 0.5 s at random. A `Retry-After` lengthens the pause up to
20 s; a server that asks for more gets no further attempt, and the caller learns how long it asked for. All attempts and
pauses of a read together end within 28 s: its last attempt has what is left of that. A change may take 50 s, and begins
no attempt that could not have its full time. Refusals (400, 401, 402, 403, 404, 409, 422) are final.
"""

import random
from collections.abc import Awaitable, Callable
from enum import Enum
from itertools import count
from typing import TypeVar

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import (
    CertificateRefused,
    ConnectionFailed,
    Effect,
    LiumError,
    ProxyLoginRefused,
    RateLimited,
    RequestTimedOut,
    ServerFailed,
)

MAX_ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 1.0
MAX_JITTER_SECONDS = 0.5
MAX_RETRY_AFTER_SECONDS = 20.0
MAX_READ_SECONDS = 28.0
MAX_CHANGE_SECONDS = 50.0
MIN_ATTEMPT_SECONDS = 2.0

T = TypeVar("T")


class Repeat(Enum):
    """When a request may be sent again."""

    ALWAYS = "always"
    """After a 429, a 5xx or a lost answer: reads, and changes that a second request cannot double."""
    UNEXECUTED = "unexecuted"
    """Only after a 429, which says that nothing was executed."""
    NEVER = "never"


async def repeating(
    attempt: Callable[[float], Awaitable[T]], repeat: Repeat, clock: Clock, *, limit_seconds: float
) -> T:
    """Run `attempt` as often as the policy allows, telling it how many seconds it has; raise the last error."""
    started = clock.monotonic()
    if repeat is Repeat.ALWAYS:
        total_seconds, least_seconds = MAX_READ_SECONDS, min(limit_seconds, MIN_ATTEMPT_SECONDS)
    else:  # a change that is cut short may be lost
        total_seconds, least_seconds = max(MAX_CHANGE_SECONDS, limit_seconds), limit_seconds
    left_seconds = total_seconds
    effect: Effect = "none"
    for number in count(1):
        try:
            return await attempt(min(limit_seconds, left_seconds))
        except LiumError as error:
            # An earlier attempt whose answer was lost may have taken effect, whatever a later one says.
            effect = error.effect = "unknown" if effect == "unknown" else error.effect
            pause = pause_seconds(error, number, repeat)
            if pause is None:
                raise
            left_seconds = total_seconds - (clock.monotonic() - started) - pause
            if left_seconds < least_seconds:
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
    if repeat is Repeat.NEVER or isinstance(error, CertificateRefused | ProxyLoginRefused):
        return False
    if isinstance(error, RateLimited):
        return True
    return repeat is Repeat.ALWAYS and isinstance(error, ConnectionFailed | RequestTimedOut | ServerFailed)
