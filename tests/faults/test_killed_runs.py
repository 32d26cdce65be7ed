"""A server that does a run is killed between any two of its writes to the ledger, and another one goes on.

What it was about to do next is never done, and what it had asked of Lium or of the pod stays done. Whenever that is,
there is one rent, the command runs once, and the pod goes only with its results saved.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest.mock import patch

import httpx2
import pytest
from sqlalchemy import Connection

from lium_mcp.connecting import open_ledger
from lium_mcp.rentals import LazyLedger, LedgerUnavailable, Task
from lium_mcp.sandbox import Sandbox
from lium_mcp.settings import Settings
from tests.harness import Agent, agent_on, make_key_pair
from tests.processes import serving
from tests.serving.test_stdio import CURRENT, called, speaking
from tests.wires import Forward, Wire, living, sent_rents, served

# One plays a run dozens of times.
pytestmark = pytest.mark.timeout(400)
T = TypeVar("T")
When = Literal["before", "after"]
_PATIENCE_SECONDS = 60
# More than a run writes.
_MOST_WRITES = 60


class Fate:
    """When a server dies: before or after a write to its ledger, counted from when its run was written down."""

    def __init__(self, write: int, when: When) -> None:
        self.write, self.when = write, when
        self.writes = 0
        self.is_dead = asyncio.Event()
        # What hangs ends with the test: a shield would keep it alive.
        self.is_over = asyncio.Event()

    async def meet(self, when: When) -> None:
        """Die, if that is in store: nothing that runs in the server comes any further."""
        self.writes += when == "before"
        if self.is_dead.is_set():
            raise LedgerUnavailable("this server is dead")
        if self.writes == self.write and self.when == when:
            self.is_dead.set()
            await self.is_over.wait()
            raise LedgerUnavailable("this server is dead")

    async def carry(self, request: httpx2.Request, forward: Forward) -> httpx2.Response:
        """Let a request pass, unless the server is dead."""
        if self.is_dead.is_set():
            await self.is_over.wait()
            raise httpx2.ConnectError("this server is dead")
        return await forward(request)


def mortal(settings: Settings, fate: Fate) -> LazyLedger:
    """A ledger that is written to only while its server lives."""
    ledger = open_ledger(settings)
    database = ledger.open().database
    write = database.run

    async def run(work: Callable[[Connection], T]) -> T:
        await fate.meet("before")
        written = await write(work)
        await fate.meet("after")
        return written

    database.run = run  # type: ignore[method-assign]
    return ledger


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers look at once, and again soon."""
    monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("lium_mcp.rentals.worker._LONGEST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.rentals.worker._LOOK_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.services.jobs.claimed_run._AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.services.jobs.run_endings._DOWNLOAD_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.services.jobs.runs._QUICK_SECONDS", 0.0)


@asynccontextmanager
async def server(
    account: Sandbox, folder: Path, wire: Wire, fate: Fate | None = None, **settings: Any
) -> AsyncIterator[Agent]:
    """A server of the account on its ledger, which may have to die."""
    own: dict[str, Any] = {
        "ssh_key_path": folder / "key",
        "local_dirs": [folder / "work"],
        "state_url": f"sqlite:///{folder / 'ledger.db'}",
    }
    if fate is None:
        async with agent_on(account, transport=wire, **own | settings) as agent:
            yield agent
        return
    wire.on("*", "**", fate.carry)
    with patch("lium_mcp.server.open_ledger", lambda given: mortal(given, fate)):
        context = agent_on(account, transport=wire, **own | settings)
        agent = await context.__aenter__()
    try:
        yield agent
    finally:
        await context.__aexit__(None, None, None)


async def is_closed(folder: Path) -> bool:
    """Whether the run is over, as the ledger has it."""
    ledger = LazyLedger(f"sqlite:///{folder / 'ledger.db'}")
    tasks = await ledger.tasks().newest(1)
    await ledger.aclose()
    return [task.closed_at is not None for task in tasks] == [True]


async def until_row(folder: Path, holds: Callable[[Task], Any]) -> Task:
    """The run as the ledger has it, once something holds of it."""
    ledger = LazyLedger(f"sqlite:///{folder / 'ledger.db'}")
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                for task in await ledger.tasks().newest(1):
                    if holds(task):
                        return task
                await asyncio.sleep(0.02)
    finally:
        await ledger.aclose()


async def play(folder: Path, fate: Fate, then: str) -> bool:
    """Run once, with a server that dies on the way and another that goes on; whether the first one died."""
    make_key_pair(folder / "key")
    (folder / "work").mkdir()
    (folder / "work" / "data").write_text("1 2 3\n")
    account = Sandbox(seed=7, speed=0, ssh=True, pod_polls_per_minute=10**6)
    order: dict[str, Any] = {
        "name": "train",
        "gpu_type": "A100",
        "max_total_usd": 20,
        "command": "echo once >> count; cat data count > result",
        "local_path": "data",
        "then": then,
    }
    if then == "download_and_remove":
        order["download_path"] = "result"
    first, second = Wire(account), Wire(account)
    async with server(account, folder, first, fate) as agent:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            calling = asyncio.create_task(agent.raw("run_job", wait_seconds=600, **order))
            dying = asyncio.create_task(fate.is_dead.wait())
            await asyncio.wait({calling, dying}, return_when=asyncio.FIRST_COMPLETED)
            while not fate.is_dead.is_set() and not await is_closed(folder):  # noqa: ASYNC110 - the server's doing
                await asyncio.sleep(0.02)
        has_died = fate.is_dead.is_set()
        account.clock.advance(minutes=3)  # its lease is over then
        async with server(account, folder, second) as other, asyncio.timeout(_PATIENCE_SECONDS):
            seen = await other.raw("run_job", wait_seconds=1, **order)  # the same call again
            while (seen.structured_content or {}).get("outcome") == "pending":
                seen = await other.raw("get_job", pod="train", name="train", wait_seconds=1)
        fate.is_over.set()
        calling.cancel()
        dying.cancel()
        await asyncio.gather(calling, dying, return_exceptions=True)
    shown = seen.structured_content
    assert shown is not None, seen
    assert (shown["outcome"], shown["job"]["status"]) == ("done", "succeeded"), shown
    assert len({request.headers["Idempotency-Key"] for request in [*sent_rents(first), *sent_rents(second)]}) == 1
    assert len(account.state()["pods"]) == 1
    if then == "download_and_remove":
        assert (folder / "work" / "train").read_text() == "1 2 3\nonce\n"
    if then == "backup_and_remove":
        assert shown["job"]["backup_id"] in {row["id"] for row in account.state()["backups"]}
    assert len(living(account)) == (then == "keep")
    await account.aclose()
    return has_died


@pytest.mark.parametrize(
    ("then", "when", "first"),
    [
        ("download_and_remove", "before", 1),
        ("download_and_remove", "after", 1),
        ("backup_and_remove", "before", 15),  # up to then it is as with the other
    ],
)
async def test_whenever_a_server_dies_the_next_one_goes_on(tmp_path: Path, then: str, when: When, first: int) -> None:
    last = first
    while last < _MOST_WRITES:
        folder = tmp_path / f"{last}"
        folder.mkdir()
        if not await play(folder, Fate(last, when), then):
            break
        last += 1
    assert 18 < last < _MOST_WRITES, "it died at each write, until it wrote no more"


async def test_a_process_that_hangs_is_told_and_keeps_its_run_and_one_that_is_killed_is_followed_at_once(
    tmp_path: Path,
) -> None:
    make_key_pair(tmp_path / "key")
    (tmp_path / "work").mkdir()
    account = Sandbox(seed=7, speed=0, ssh=True, pod_polls_per_minute=10**6)
    variables = {
        "LIUM_API_KEY": "sk_sandbox",
        "LIUM_MCP_STATE_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        "LIUM_SSH_KEY_PATH": str(tmp_path / "key"),
    }
    given = {"name": "train", "command": "sleep 600", "gpu_type": "A100", "max_total_usd": 20, "then": "remove"}
    async with served(Wire(account)) as wire, serving(**variables, LIUM_BASE_URL=wire.base_url) as process:
        request = await speaking(process, CURRENT)
        await process.send(called(7, request, "run_job", **given, wait_seconds=1))
        running = asyncio.create_task(until_row(tmp_path, lambda task: task.progress["state"] == "running"))
        while not running.done():
            account.clock.advance(seconds=1)
            await asyncio.sleep(0.1)
        first = await running
        process.interrupt(signal.SIGSTOP)
        account.clock.advance(seconds=60)
        async with server(account, tmp_path, Wire(account), base_url=wire.base_url) as other:
            seen = await other.call("get_job", pod="train", name="train", wait_seconds=0)
            [told] = [text for text in seen["warnings"] if "of this machine) last wrote at" in text]
            assert "If it has ended and a server runs, another takes over at" in told
            held = await until_row(tmp_path, lambda _: True)
            assert held.lease_owner == first.lease_owner, "it is not dead, and its lease holds"
            await process.kill()
            taken = await until_row(tmp_path, lambda task: task.lease_owner not in (first.lease_owner, None))
            assert held.lease_until is not None
            assert account.clock.now() < held.lease_until, "the lease would hold longer"
            assert taken.progress["pod_id"] == first.progress["pod_id"]
            account.clock.advance(seconds=600)
            await until_row(tmp_path, lambda task: task.closed_at is not None)
            ended = await other.call("get_job", pod="train", name="train")
    assert (ended["outcome"], ended["job"]["status"]) == ("done", "succeeded")
    assert living(account) == []
    await account.aclose()
