"""Several servers of one account on one ledger, which look at once and again soon, over a clock that is turned."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import pytest

from lium_mcp.rentals import LazyLedger, Task
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.01
_MOST_TASKS: Final = 100


class Servers:
    """Starts servers that share an account, a ledger and settings."""

    def __init__(self, account: Sandbox, state_url: str, settings: Mapping[str, Any]) -> None:
        self._account, self._state_url = account, state_url
        self._settings = dict(settings)

    @asynccontextmanager
    async def __call__(self, wire: Wire | None = None, **settings: Any) -> AsyncIterator[Agent]:
        """A client on one more of them, set as the others are but for what is given."""
        given = {"state_url": self._state_url} | self._settings | settings
        async with agent_on(self._account, transport=wire, **given) as agent:
            yield agent

    async def task(self, holds: Callable[[Task], Any]) -> Task:
        """Wait until something holds of the newest task of the ledger, and return it as it is then."""
        async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(LazyLedger(self._state_url)) as ledger:
            while True:
                for task in await ledger.tasks().newest(1):
                    if holds(task):
                        return task
                await asyncio.sleep(_PAUSE_SECONDS)

    async def at_work(self, pod_id: str, count: int = 1) -> None:
        """Wait until these servers do so much in a pod that somebody waits for."""
        now = self._account.clock.now()
        async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(LazyLedger(self._state_url)) as ledger:
            while len((await ledger.work_log().of_pod(pod_id, now=now)).going_on) != count:  # noqa: ASYNC110 - as above
                await asyncio.sleep(_PAUSE_SECONDS)

    async def settle(self) -> None:
        """Wait until these servers have done what is due now: no task of the ledger is, and none is claimed."""
        await settled(self._account, self._state_url)


async def settled(sandbox: Sandbox, state_url: str) -> None:
    """Wait until no open task of a ledger is due at this moment of the sandbox or claimed by a server."""
    now = sandbox.clock.now()
    async with asyncio.timeout(_PATIENCE_SECONDS), aclosing(LazyLedger(state_url)) as ledger:
        while any(  # noqa: ASYNC110 - no event tells
            task.closed_at is None and (task.next_at <= now or task.lease_owner is not None)
            for task in await ledger.tasks().newest(_MOST_TASKS)
        ):
            await asyncio.sleep(_PAUSE_SECONDS)


def hasten(monkeypatch: pytest.MonkeyPatch, *, pause_seconds: float = 0.02) -> None:
    """Let servers look at their tasks at once, and again after a pause; the shorter it is, the more they compute."""
    pauses = {
        "FIRST_LOOK": 0.0,
        "LOOK": pause_seconds,
        "FIRST_PAUSE": pause_seconds / 2,
        "LONGEST_PAUSE": pause_seconds,
    }
    for name, seconds in pauses.items():
        monkeypatch.setattr(f"lium_mcp.rentals.worker._{name}_SECONDS", seconds)
    monkeypatch.setattr("lium_mcp.rentals.worker._SHORTEST_PAUSE_SECONDS", 0.005)
