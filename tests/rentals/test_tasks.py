"""Tasks in the ledger: each is claimed by one server at a time, on either database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from lium_mcp.rentals import LazyLedger, LedgerUnavailable, Task, TaskOver
from lium_mcp.rentals.entries import TaskKind
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.rentals.tasks import Tasks
from tests.rentals.entries import a_task, admit, allow, an_entry

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LEASE = timedelta(seconds=90)
SERVERS = 6
KINDS: tuple[TaskKind, ...] = ("follow_up",)


def task(name: str = "j", *, account: str = "ours", next_at: datetime = NOW) -> Task:
    return a_task(name, account=account, created_at=NOW, next_at=next_at)


@pytest.fixture
async def servers(state_url: str) -> AsyncIterator[list[Tasks]]:
    """Servers that share nothing but the database."""
    async with AsyncExitStack() as stack:
        ledgers = [LazyLedger(state_url) for _ in range(SERVERS)]
        for ledger in ledgers:
            stack.push_async_callback(ledger.aclose)
        yield [ledger.tasks() for ledger in ledgers]


async def claim(tasks: Tasks, *, account: str = "ours", now: datetime = NOW) -> Task | None:
    return await tasks.claim(account, KINDS, now=now, lease=LEASE)


async def test_each_task_is_claimed_by_one_server(servers: list[Tasks]) -> None:
    for number in range(20):
        await servers[0].add(task(f"j{number}"))

    async def claim_all(tasks: Tasks) -> list[str]:
        claimed = []
        while True:
            found = await claim(tasks)
            if found is not None:
                claimed.append(found.id)
            elif not await tasks.is_any_due(KINDS, now=NOW):
                return claimed

    claimed = [name for names in await asyncio.gather(*map(claim_all, servers)) for name in names]
    assert len(claimed) == len(set(claimed)) == 20


async def test_a_task_is_added_once_while_it_is_open(servers: list[Tasks]) -> None:
    added = await asyncio.gather(*(tasks.add(task()) for tasks in servers))
    assert sorted(is_new for _, is_new in added) == [False] * (SERVERS - 1) + [True]
    assert len({found.id for found, _ in added}) == 1
    claimed = await claim(servers[0])
    assert claimed is not None
    assert await servers[0].finish(claimed, "done", now=NOW)
    assert (await servers[1].add(task()))[1]


async def test_a_lease_that_ran_out_is_another_servers_and_the_first_can_write_nothing(servers: list[Tasks]) -> None:
    first, second = servers[:2]
    await first.add(task())
    claimed = await claim(first)
    assert claimed is not None
    kept = await first.keep(claimed, now=NOW + LEASE / 2, lease=LEASE, progress={"backup_id": "b"})
    assert kept is not None
    assert await claim(second, now=NOW + LEASE) is None
    taken = await claim(second, now=NOW + 2 * LEASE)
    assert taken is not None
    assert (taken.id, taken.progress) == (claimed.id, {"backup_id": "b"})
    late = NOW + 2 * LEASE
    assert await first.keep(kept, now=late, lease=LEASE, progress={}) is None
    assert not await first.finish(kept, "gone", now=late)
    assert not await first.put_off(kept, late)
    assert await second.finish(taken, "failed", now=late, note="because\0of this")
    [closed] = await first.newest(10)
    assert (closed.status, closed.progress, closed.note) == ("failed", {"backup_id": "b"}, "because of this")
    assert closed.closed_at == late


async def test_a_task_is_due_at_its_time_for_its_account_and_again_once_it_was_given_back(
    servers: list[Tasks],
) -> None:
    first, second = servers[:2]
    await first.add(task(next_at=NOW + LEASE))
    assert await claim(second) is None
    assert not await second.is_any_due(KINDS, now=NOW)
    assert await claim(second, account="theirs", now=NOW + LEASE) is None
    claimed = await claim(second, now=NOW + LEASE)
    assert claimed is not None
    assert await second.put_off(claimed, NOW + 3 * LEASE)
    assert await claim(first, now=NOW + 2 * LEASE) is None
    again = await claim(first, now=NOW + 3 * LEASE)
    assert again is not None
    assert again.lease_owner != claimed.lease_owner


async def test_closed_tasks_are_forgotten_after_ninety_days(servers: list[Tasks]) -> None:
    [tasks, *_] = servers
    added, _ = await tasks.add(task())
    assert await tasks.finish(added, "gone", now=NOW)
    for days, left in ((89, 2), (91, 2)):
        later = NOW + timedelta(days=days)
        row, _ = await tasks.add(a_task(f"after {days}", account="ours", created_at=later, next_at=later))
        assert row.status == "open"
        assert len(await tasks.newest(10)) == left


# --- rents that are for a task ---------------------------------------------------------------------------------------


@pytest.fixture
async def ledger(state_url: str) -> AsyncIterator[Ledger]:
    """The rents beside the tasks."""
    ledger = Ledger(state_url)
    yield ledger
    await ledger.aclose()


async def test_a_task_rents_once_unless_that_was_refused(servers: list[Tasks], ledger: Ledger) -> None:
    added, _ = await servers[0].add(task())
    refused = await admit(ledger, an_entry("a", task_id=added.id), allow)
    await ledger.change(refused, "refused", now=refused.created_at)
    made = await admit(ledger, an_entry("b", task_id=added.id), allow)
    for status in ("rented", "removed"):
        with pytest.raises(LedgerUnavailable):
            await admit(ledger, an_entry("c", task_id=added.id), allow)
        await ledger.change(made, status, now=made.created_at)
    with pytest.raises(LedgerUnavailable):
        await admit(ledger, an_entry("c", task_id=added.id), allow)
    assert [entry.pod_name for entry in await ledger.made_for(added, "", made.created_at)] in (["a", "b"], ["b", "a"])


async def test_of_servers_that_rent_for_one_task_at_once_one_does(servers: list[Tasks], state_url: str) -> None:
    added, _ = await servers[0].add(task())
    async with AsyncExitStack() as stack:
        ledgers = [Ledger(state_url) for _ in range(SERVERS)]
        for ledger in ledgers:
            stack.push_async_callback(ledger.aclose)
        rents = (admit(ledger, an_entry(f"p{n}", task_id=added.id), allow) for n, ledger in enumerate(ledgers))
        came = await asyncio.gather(*rents, return_exceptions=True)
    assert sum(isinstance(one, LedgerUnavailable) for one in came) == SERVERS - 1


async def test_a_task_is_cancelled_or_rents_never_both(servers: list[Tasks], ledger: Ledger) -> None:
    for number in range(10):
        added, _ = await servers[0].add(task(f"j{number}"))
        claimed = await claim(servers[1])
        assert claimed is not None
        cancelled, rented = await asyncio.gather(
            servers[0].cancel(added, now=NOW, note="not wanted"),
            admit(ledger, an_entry(f"p{number}", task_id=added.id), allow),
            return_exceptions=True,
        )
        assert (cancelled is True) == isinstance(rented, TaskOver)
        assert await servers[1].finish(claimed, "done", now=NOW) == (cancelled is False)
        assert not await servers[0].cancel(added, now=NOW, note="again")


async def test_what_was_refused_keeps_no_task_from_being_cancelled(servers: list[Tasks], ledger: Ledger) -> None:
    added, _ = await servers[0].add(task())
    entry = await admit(ledger, an_entry(task_id=added.id), allow)
    assert not await servers[0].cancel(added, now=NOW, note="")
    await ledger.change(entry, "refused", now=NOW)
    assert await servers[0].cancel(added, now=NOW, note="")
    with pytest.raises(TaskOver):
        await admit(ledger, an_entry(task_id=added.id), allow)
