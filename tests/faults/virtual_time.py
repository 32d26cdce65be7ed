"""An event loop whose time jumps instead of passing: whatever waits for a minute has waited a minute at once."""

import asyncio
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from unittest.mock import patch

import anyio.to_thread

T = TypeVar("T")


_run_sync = anyio.to_thread.run_sync
_threads_at_work = 0


async def _counted(*arguments: Any, **options: Any) -> Any:
    global _threads_at_work  # noqa: PLW0603 - one loop at a time is virtual
    _threads_at_work += 1
    try:
        return await _run_sync(*arguments, **options)
    finally:
        _threads_at_work -= 1


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for files as ever, and reports how long a wait would have been instead of sitting it out."""

    skipped_seconds = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or _threads_at_work:  # time waits for a thread
            return list(super().select(None))
        self.skipped_seconds += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.skipped_seconds


class LoopClock:
    """The server's clock on such a loop."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC)

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run on such a loop. Nothing in `main` may use sockets, nor threads but anyio's: time would jump past them."""
    with patch("anyio.to_thread.run_sync", _counted), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
