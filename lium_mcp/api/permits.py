"""Whether what a key may be used for still holds: that is asked right before each request that changes something.

What undoes or bounds a rent that was made is sent all the same: without it the pod would bill on.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Permit = Callable[[], Awaitable[None]]
"""Raises a `LiumError` where nothing more may be changed with a key."""

_undoing: Final[ContextVar[bool]] = ContextVar("_undoing", default=False)


@contextmanager
def undoing() -> Iterator[None]:
    """Send what is sent inside the block whether or not the key may still be used for changes."""
    token = _undoing.set(True)
    try:
        yield
    finally:
        _undoing.reset(token)


async def refuse_forbidden(permit: Permit | None) -> None:
    """Refuse a change that the key may not be used for any more.

    Raises:
        LiumError: it may not, or that cannot be told now.
    """
    if permit is not None and not _undoing.get():
        await permit()
