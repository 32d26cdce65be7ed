"""Whose requests may be under way now: places for so many, of which nobody has so many that others find none.

Knows no HTTP.
"""

from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from lium_mcp.observing import Work, observed

PART_OF_FREE: Final = 3
"""Who has a third as many as are free gets no more."""


class Turns:
    """Places that owners share.

    One owner alone gets a quarter of them. The more owners want many, the fewer each has, and some stay free for who
    comes next.

    Args:
        places: How many there are.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._running: Counter[str] = Counter()
        # In the order in which owners began to wait.
        self._waiting: dict[str, deque[anyio.Event]] = {}

    @asynccontextmanager
    async def turn(self, owner: str, most_seconds: float) -> AsyncIterator[None]:
        """Have one place until the end of the block.

        Raises:
            TimeoutError: there was none for this owner in that time.
        """
        if self._may_have_one(owner):
            self._take(owner)
        else:
            await self._wait(owner, most_seconds)
        try:
            yield
        finally:
            self._give_back(owner)

    def _may_have_one(self, owner: str) -> bool:
        return self._running[owner] * PART_OF_FREE < self._free

    def _take(self, owner: str) -> None:
        self._running[owner] += 1
        self._free -= 1

    def _give_back(self, owner: str) -> None:
        self._free += 1
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        while entitled := [name for name in self._waiting if self._may_have_one(name)]:
            fewest = min(entitled, key=self._running.__getitem__)
            called = self._waiting[fewest].popleft()
            if not self._waiting[fewest]:
                del self._waiting[fewest]
            self._take(fewest)
            called.set()

    async def _wait(self, owner: str, most_seconds: float) -> None:
        called = anyio.Event()
        self._waiting.setdefault(owner, deque()).append(called)
        try:
            with observed(Work("wait", "turn")) as work:
                work.outcome = "timeout"
                with anyio.fail_after(most_seconds):
                    await called.wait()
                work.outcome = "ok"
        except BaseException:
            if called.is_set():
                self._give_back(owner)
            else:
                self._waiting[owner].remove(called)
                if not self._waiting[owner]:
                    del self._waiting[owner]
            raise
