"""What the requests of a piece of work changed, so that its failure cannot deny it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_changes: ContextVar[list[str] | None] = ContextVar("_changes", default=None)


@contextmanager
def noting_changes() -> Iterator[list[str]]:
    """Note each request inside the block that changed something."""
    changes: list[str] = []
    token = _changes.set(changes)
    try:
        yield changes
    finally:
        _changes.reset(token)


def noted_changes() -> list[str]:
    """The changes noted so far in the block around this call; outside of any, a list that nobody reads."""
    changes = _changes.get()
    return [] if changes is None else changes
