"""What one tool call works with: the API client, time, progress, and waiting for what runs asynchronously."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mcp.server.mcpserver import Context

from lium_mcp.api import Clock, LiumClient, LiumError
from lium_mcp.rentals import Renter

T = TypeVar("T")

# GET /pods allows about 60 reads a minute for the whole account: a wait may take half of that.
_POLL_SECONDS = 2.0
_SLOW_POLL_SECONDS = 5.0
_SLOW_AFTER_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What all calls of one server share."""

    lium: LiumClient
    clock: Clock
    renter: Renter
    ssh_public_key_path: Path | None


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call."""

    runtime: Runtime
    context: Context[Any, Any]

    @property
    def lium(self) -> LiumClient:
        """The API client of the account that this call acts for."""
        return self.runtime.lium

    async def wait_until(
        self,
        state: T,
        read: Callable[[], Awaitable[T]],
        done: Callable[[T], bool],
        *,
        wait_seconds: float,
        describe: Callable[[T], str],
        every_seconds: float = _POLL_SECONDS,
    ) -> T:
        """Read again until `done` says so or the time is over, reporting progress; return the newest state.

        A read that fails does not end the wait, since what is waited for may be billing already: the newest state that
        was read stands.
        """
        clock = self.runtime.clock
        started = clock.monotonic()
        while not done(state):
            elapsed = clock.monotonic() - started
            left = wait_seconds - elapsed
            if left <= 0:
                break
            await self.context.report_progress(elapsed, wait_seconds, describe(state))
            await clock.sleep(min(left, every_seconds if elapsed < _SLOW_AFTER_SECONDS else _SLOW_POLL_SECONDS))
            with suppress(LiumError):
                state = await read()
        return state
