"""What servers do in pods, as the ledger has it: who is asked before a pod is removed, and for how long."""

import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from lium_mcp.rentals import BeingRemoved, LazyLedger
from lium_mcp.rentals.work_log import WorkLog

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POD = "9902b705-b801-4570-93d1-66d82920809c"


@pytest.fixture
async def log(state_url: str) -> AsyncIterator[WorkLog]:
    async with aclosing(LazyLedger(state_url)) as ledger:
        yield ledger.work_log()


async def test_work_counts_until_it_is_ended_and_no_longer_than_its_time(log: WorkLog) -> None:
    command = await log.begin(POD, "command", now=NOW, until=NOW + HOUR)
    upload = await log.begin(POD, "upload", now=NOW, until=NOW + 2 * HOUR)
    await log.begin("another", "upload", now=NOW, until=NOW + 2 * HOUR)
    assert (await log.of_pod(POD, now=NOW)).going_on == (command, upload)
    assert (await log.of_pod(POD, now=NOW + HOUR)).going_on == (upload,)
    assert (await log.of_pod(POD, now=NOW + 2 * HOUR)).going_on == ()
    await log.end(command, now=NOW)
    assert (await log.of_pod(POD, now=NOW)).going_on == (upload,)


async def test_a_pod_is_removed_only_where_nothing_goes_on_and_nothing_came_since(log: WorkLog) -> None:
    command = await log.begin(POD, "command", now=NOW, until=NOW + HOUR)
    seen = (await log.of_pod(POD, now=NOW)).newest_change
    assert await log.begin_removal(POD, now=NOW, until=NOW + HOUR, since=seen) is None
    await log.end(command, now=NOW)
    upload = await log.begin(POD, "upload", now=NOW, until=NOW + HOUR)
    await log.end(upload, now=NOW)
    assert await log.begin_removal(POD, now=NOW, until=NOW + HOUR, since=seen) is None
    download = await log.begin(POD, "download", now=NOW, until=NOW + HOUR)
    await log.end(download, now=NOW)
    assert (await log.of_pod(POD, now=NOW)).newest == download.id
    removal = await log.begin_removal(POD, now=NOW, until=NOW + HOUR, since=upload.id)
    assert removal is not None
    with pytest.raises(BeingRemoved):
        await log.begin(POD, "command", now=NOW, until=NOW + HOUR)
    await log.begin("another", "command", now=NOW, until=NOW + HOUR)
    await log.end(removal, now=NOW)
    assert (await log.begin(POD, "command", now=NOW, until=NOW + HOUR)).id > removal.id


async def test_a_removal_whose_server_vanished_keeps_nobody_out_for_long(log: WorkLog) -> None:
    assert await log.begin_removal(POD, now=NOW, until=NOW + HOUR, since=0) is not None
    assert (await log.begin(POD, "command", now=NOW + HOUR, until=NOW + 2 * HOUR)).kind == "command"


async def test_the_work_of_a_server_of_this_machine_that_has_ended_does_not_count(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    program = f"""
import asyncio
from datetime import datetime, timedelta
from lium_mcp.rentals import LazyLedger
now = datetime.fromisoformat({NOW.isoformat()!r})
asyncio.run(LazyLedger({url!r}).work_log().begin({POD!r}, "upload", now=now, until=now + timedelta(hours=9)))
"""
    await anyio.run_process([sys.executable, "-c", program])
    async with aclosing(LazyLedger(url)) as ledger:
        found = await ledger.work_log().of_pod(POD, now=NOW)
    assert found.going_on == ()
    assert found.newest_change == 1


async def test_what_is_long_over_is_forgotten_and_no_id_is_used_again(log: WorkLog) -> None:
    first = await log.begin(POD, "command", now=NOW, until=NOW + HOUR)
    later = NOW + timedelta(days=3)
    await log.begin("another", "command", now=later, until=later + HOUR)
    assert (await log.of_pod(POD, now=later)).newest == 0
    assert (await log.begin(POD, "command", now=later, until=later + HOUR)).id > first.id + 1
