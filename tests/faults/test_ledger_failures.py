"""A ledger that cannot be written: what cannot be journaled is not sent, and what was sent is not hidden by it."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from lium_mcp.rentals.ledger import Ledger
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.postgres import Postgres, database_of
from tests.wires import Wire, living, on_rents, rents, then

TRAIN = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
PAGE_BYTES = 4096


@contextmanager
def no_file_longer_than(size_bytes: int) -> Iterator[None]:
    """A disk that is full, as far as this process is concerned."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def is_refused(agent: Agent) -> None:
    """Nothing is rented, and the reason is said."""
    sent = len(rents(agent.sandbox))
    failure = await agent.refused("rent_pod", **TRAIN)
    assert failure.code == "ledger_unavailable", failure.text
    assert "Nothing was changed." in failure.text
    assert len(rents(agent.sandbox)) == sent


def a_directory(path: Path) -> None:
    path.mkdir(parents=True)


def a_file_in_the_way(path: Path) -> None:
    path.parent.write_text("")


def not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("once upon a time " * 100)


def another_table(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rentals (something TEXT)")
    connection.close()


@pytest.mark.parametrize("spoil", [a_directory, a_file_in_the_way, not_a_database, another_table])
async def test_a_rent_that_cannot_be_journaled_is_not_sent(sandbox: Sandbox, tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "state" / "rentals.db"
    spoil(path)
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire, state_url=f"sqlite:///{path}") as agent:
        await is_refused(agent)
        # Reading goes on, and so does what ends a bill.
        assert (await agent.call("list_pods"))["pods"] == []
    assert not [request for request in wire.requests if request.method == "POST"]


async def test_a_rent_is_not_sent_when_the_disk_is_full_whatever_still_fits(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    refused = 0
    for pages in range(100):
        async with agent_on(sandbox, state_url=url) as agent:
            with no_file_longer_than(pages * PAGE_BYTES + 1):
                result = await agent.raw("rent_pod", **TRAIN)
                if not result.is_error:
                    break
                await is_refused(agent)
            refused += 1
            assert rents(sandbox) == []
    assert refused > 2
    assert len(living(sandbox)) == len(rents(sandbox)) == 1
    async with agent_on(sandbox, state_url=url) as agent:
        assert (await agent.call("rent_pod", **TRAIN))["already_rented"] is True


async def test_a_disk_that_has_room_again_is_used_again(sandbox: Sandbox, tmp_path: Path) -> None:
    async with agent_on(sandbox, state_url=f"sqlite:///{tmp_path / 'rentals.db'}") as agent:
        for size_bytes in (0, 1, PAGE_BYTES):
            with no_file_longer_than(size_bytes):
                await is_refused(agent)
        assert (await agent.call("rent_pod", **TRAIN))["pod_id"] == living(sandbox)[0]["id"]


async def test_a_pod_is_reported_although_its_rent_cannot_be_noted_any_more(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    wire = Wire(sandbox)
    on_rents(wire, then(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))), times=1)
    try:
        async with agent_on(sandbox, transport=wire, state_url=url) as agent:
            rented = await agent.call("rent_pod", **TRAIN)
            assert [pod["id"] for pod in living(sandbox)] == [rented["pod_id"]]
            assert await statuses(url) == ["sending"]
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            sandbox.clock.advance(seconds=30)
            assert "unsettled" not in await agent.call("list_pods")
            assert await statuses(url) == ["rented"]
            assert (await agent.call("rent_pod", **TRAIN))["already_rented"] is True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(living(sandbox)) == len(rents(sandbox)) == 1


async def statuses(url: str) -> list[str]:
    ledger = Ledger(url)
    try:
        return [entry.status for entry in await ledger.newest(10)]
    finally:
        await ledger.aclose()


async def test_a_pod_can_be_removed_without_a_ledger(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    async with agent_on(sandbox, state_url=url) as agent:
        rented = await agent.call("rent_pod", **TRAIN)
        sandbox.clock.advance(minutes=1)
        with no_file_longer_than(0):
            assert (await agent.call("remove_pod", pod=rented["pod_id"]))["outcome"] == "done"
        assert living(sandbox) == []
        sandbox.clock.advance(minutes=1)
        assert "already_rented" not in await agent.call("rent_pod", **TRAIN)


async def test_a_database_that_only_reads_rents_nothing(sandbox: Sandbox, postgres: Postgres) -> None:
    with postgres.database() as url:
        name = database_of(url)
        async with agent_on(sandbox, state_url=url) as agent:
            await agent.call("rent_pod", **TRAIN | {"name": "before"})
            postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            postgres.disconnect(url)
            await is_refused(agent)
            postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            postgres.disconnect(url)
            await agent.call("rent_pod", **TRAIN)
    assert len(rents(sandbox)) == 2


async def test_a_database_that_goes_away_during_a_rent_hides_no_pod(sandbox: Sandbox, postgres: Postgres) -> None:
    with postgres.database() as url:
        wire = Wire(sandbox)
        on_rents(wire, then(lambda: postgres.close(url)), times=1)
        async with agent_on(sandbox, transport=wire, state_url=url) as agent:
            rented = await agent.call("rent_pod", **TRAIN)
            assert [pod["id"] for pod in living(sandbox)] == [rented["pod_id"]]
            listed = await agent.call("list_pods")
            assert [row["pod_id"] for row in listed["pods"]] == [rented["pod_id"]]
            await is_refused(agent)
            postgres.open(url)
            sandbox.clock.advance(seconds=30)
            assert "unsettled" not in await agent.call("list_pods")
            assert await statuses(url) == ["rented"]
            assert (await agent.call("rent_pod", **TRAIN))["already_rented"] is True
    assert len(living(sandbox)) == len(rents(sandbox)) == 1


async def test_a_lost_answer_and_a_lost_ledger_together_still_rent_one_pod(sandbox: Sandbox, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lose_all() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        raise httpx2.ReadError("lost")

    wire = Wire(sandbox)
    on_rents(wire, then(lose_all))
    try:
        async with agent_on(sandbox, transport=wire, state_url=url) as agent:
            first = await agent.raw("rent_pod", **TRAIN)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            on_rents(wire, then(lambda: None))
            sandbox.clock.advance(seconds=30)
            assert "unsettled" not in await agent.call("list_pods")
            again = await agent.call("rent_pod", **TRAIN)
            assert again["already_rented"] is True
            assert first.is_error or again["pod_id"] in str(first.structured_content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(living(sandbox)) == len(rents(sandbox)) == 1


async def test_a_server_that_is_cancelled_closes_its_ledger(sandbox: Sandbox, postgres: Postgres) -> None:
    with postgres.database() as url:

        async def serve() -> None:
            async with agent_on(sandbox, state_url=url) as agent:
                await agent.call("rent_pod", **TRAIN)
                await postgres.until_connected(url, 1)
                serving.cancel()
                await anyio.sleep_forever()

        with anyio.CancelScope() as serving:
            await serve()
        await postgres.until_connected(url, 0)


@contextmanager
def locked(path: Path, *, wholly: bool = False) -> Iterator[None]:
    """Another program that lets nobody write the file, or wholly: open it."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        if wholly:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("UPDATE rentals SET note = note")
        yield
    finally:
        connection.close()


async def test_a_call_whose_time_a_locked_ledger_took_names_the_ledger_and_not_lium(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lium_mcp.rentals.database._BUSY_SECONDS", 0.4)
    monkeypatch.setattr("lium_mcp.toolkit.registry.READ_LIMIT_SECONDS", 1)
    path = tmp_path / "rentals.db"
    async with agent_on(sandbox, state_url=f"sqlite:///{path}") as agent:
        await agent.call("rent_pod", **TRAIN)
    async with agent_on(sandbox, state_url=f"sqlite:///{path}") as agent:
        with locked(path, wholly=True):
            failure = await agent.refused("list_pods")
        assert failure.code == "timed_out", failure.text
        assert "The ledger of rents, and not Lium, took" in failure.text
        assert "LIUM_MCP_STATE_URL" in failure.text
        assert "Lium did not answer" not in failure.text
        assert (await agent.call("list_pods"))["total"] == 1


async def test_a_file_that_is_locked_is_said_to_be_however_long_that_takes(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit of PostgreSQL is none of a file's: it has no connection that could be cut."""
    monkeypatch.setattr("lium_mcp.rentals.database._BUSY_SECONDS", 0.4)
    monkeypatch.setattr("lium_mcp.rentals.database._ANSWER_SECONDS", 0.1)
    path = tmp_path / "rentals.db"
    async with agent_on(sandbox, state_url=f"sqlite:///{path}") as agent:
        await agent.call("rent_pod", **TRAIN)
        with locked(path):
            failure = await agent.refused("rent_pod", **{**TRAIN, "name": "other"})
    assert failure.code == "ledger_unavailable"
    assert "database is locked" in failure.text
