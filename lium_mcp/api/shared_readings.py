"""Readings that those share who ask for the same at around the same time: one request in flight, one answer kept.

What is kept is of the moment before its request left, and only for as long as those who ask let it be old. A failure is
told to all who wait for it, and to nobody after them. Who wants to know what an answer is made of notes its sources.
Knows no resource and no HTTP.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from lium_mcp.api.clock import Clock
from lium_mcp.observing import own_context

T = TypeVar("T")
R = TypeVar("R")

Name = tuple[str, str]
"""Whose reading it is, and of what."""

NOBODY: Final = ""
"""Whose what is open to all is."""

Listener = Callable[[Any, datetime], None]
"""Hears what was read, and when. It raises nothing, and takes no time."""

MOST_READINGS: Final = 1000
MOST_MADE: Final = 200


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What was read, and how many seconds ago the request for it left, or earlier."""

    value: T
    age_seconds: float
    _made: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, name: Hashable, make: Callable[[T], R]) -> R:
        """Return what `make` makes of the value, made once under that name for all who share the reading."""
        made: R = self._made.pop(name) if name in self._made else make(self.value)
        while len(self._made) >= MOST_MADE:
            del self._made[next(iter(self._made))]
        self._made[name] = made  # what was asked for last comes last
        return made


@dataclass(slots=True, eq=False)
class _Shared:
    began_at: datetime
    task: asyncio.Task[Any]
    askers: int = 0
    made: dict[Hashable, Any] = field(default_factory=dict)
    mark: object = field(default_factory=object)


class Sources:
    """What was read from Lium in a block: readings that are kept, and perhaps something else."""

    def __init__(self) -> None:
        self.owners: set[str] = set()
        self._still_hold: list[Callable[[], bool]] = []
        self._anew = False

    def note_shared(self, owner: str, still_holds: Callable[[], bool]) -> None:
        """Note a reading that is kept."""
        self.owners.add(owner)
        self._still_hold.append(still_holds)

    def note_anew(self) -> None:
        """Note that something was asked for which nobody keeps."""
        self._anew = True

    def still_hold(self) -> bool:
        """Whether who reads the same again now would get the very same, with the same whole seconds of age."""
        return bool(self._still_hold) and not self._anew and all(still_holds() for still_holds in self._still_hold)


_sources: ContextVar[Sources | None] = ContextVar("_sources", default=None)


@contextmanager
def noting_sources() -> Iterator[Sources]:
    """Note what is read in the block, by it and by the tasks that it begins."""
    sources = Sources()
    token = _sources.set(sources)
    try:
        yield sources
    finally:
        _sources.reset(token)


def note_read_anew() -> None:
    """Say that something is asked for which nobody keeps. A reading that is kept says so to nobody."""
    if (sources := _sources.get()) is not None:
        sources.note_anew()


class SharedReadings:
    """The newest reading under each name, in flight or done."""

    def __init__(self) -> None:
        self._newest: dict[Name, _Shared] = {}
        self._listeners: dict[Name, Listener] = {}

    def hear(self, name: Name, listener: Listener) -> None:
        """Let a listener hear of each reading under a name once it is there, in the place of one before it."""
        self._listeners[name] = listener

    def tell(self, name: Name, value: object, at: datetime) -> None:
        """Tell whoever listens what was read under a name, and when."""
        if (listener := self._listeners.get(name)) is not None:
            listener(value, at)

    async def read(
        self, name: Name, read: Callable[[], Awaitable[T]], clock: Clock, *, most_seconds: float
    ) -> Reading[T]:
        """Return what `read` does, or what it did for somebody else: now, or less than `most_seconds` ago.

        Who is cancelled stops nobody else's request; one that nobody waits for any more ends.

        Raises:
            LiumError: as `read`.
        """
        now = clock.now()
        shared = self._newest.get(name)
        # The clock on the wall may have been set back.
        is_old = shared is not None and not timedelta() <= now - shared.began_at < timedelta(seconds=most_seconds)
        if shared is None or (is_old and shared.task.done()):
            shared = self._begin(name, read, now, most_seconds)
        shared.askers += 1
        try:
            value: T = await asyncio.shield(shared.task)
        finally:
            shared.askers -= 1
            if not shared.askers and not shared.task.done():
                self._drop(name, shared)
                shared.task.cancel()

        seconds = max((clock.now() - shared.began_at).total_seconds(), 0.0)
        if (sources := _sources.get()) is not None:
            sources.note_shared(name[0], self._still_holds(name, shared, clock, int(seconds)))
        return Reading(value, seconds, shared.made)

    def _still_holds(self, name: Name, shared: _Shared, clock: Clock, seconds: int) -> Callable[[], bool]:
        """Tells whether this is the newest reading still, and of the same whole seconds of age; it keeps no reading."""
        mark, began_at = shared.mark, shared.began_at

        def still_holds() -> bool:
            newest = self._newest.get(name)
            age_seconds = max((clock.now() - began_at).total_seconds(), 0.0)
            return newest is not None and newest.mark is mark and int(age_seconds) == seconds

        return still_holds

    def forget(self, owner: str) -> None:
        """Let who asks for this owner from now on read anew: what is there, or under way, may be of before a change."""
        for name in [name for name in self._newest if name[0] == owner]:
            del self._newest[name]

    def _begin(self, name: Name, read: Callable[[], Awaitable[T]], now: datetime, most_seconds: float) -> _Shared:
        async def run() -> T:
            return await read()

        loop = asyncio.get_running_loop()
        # It acts for all who ask, not for the call that happens to be the first.
        shared = _Shared(now, loop.create_task(run(), context=own_context()))

        def done(task: asyncio.Task[T]) -> None:
            if task.cancelled() or task.exception() is not None:
                self._drop(name, shared)
            else:
                loop.call_later(most_seconds, self._drop, name, shared)

        shared.task.add_done_callback(done)
        self._newest.pop(name, None)
        while len(self._newest) >= MOST_READINGS:
            del self._newest[next(iter(self._newest))]
        self._newest[name] = shared
        return shared

    def _drop(self, name: Name, shared: _Shared) -> None:
        if self._newest.get(name) is shared:
            del self._newest[name]
