"""The ledger on both of its databases: what it promises is held by the database, whoever else writes into it."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import anyio
import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from lium_mcp.rentals import Entry, Extension, LedgerUnavailable, PastCost
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.rentals.tasks import Tasks
from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError
from tests.harness import agent_on
from tests.postgres import PASSWORD, Postgres, database_of
from tests.rentals.entries import ACCOUNT, NOW, a_task, admit, allow, an_entry

SERVERS: Final = 20
_RAW_INSERT: Final = text(
    'INSERT INTO rentals (id, account, key_tag, pod_name, status, "order", asked, idempotency_key, known_pod_ids, '
    "pod_ids, pod_count, kept_pod_ids, confirmed, note, created_at) VALUES (:id, :account, 'k', :pod_name, 'sending', "
    "'{}', 'x', :key, '[]', '[]', 1, '[]', false, '', '2026-10-25 02:30:15')"
)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(url)
    try:
        yield ledger
    finally:
        await ledger.aclose()


def raw(url: str) -> Any:
    """The database past our ledger: no turn is taken, and SQLite does not wait."""
    arguments = {"timeout": 0.2} if url.startswith("sqlite") else {}
    engine = create_engine(
        url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool, connect_args=arguments
    )
    return engine.begin()


def insert_raw(connection: Connection, pod_name: str = "train", account: str = ACCOUNT) -> None:
    connection.execute(_RAW_INSERT, {"id": str(uuid4()), "key": str(uuid4()), "account": account, "pod_name": pod_name})


async def test_a_second_ledger_of_a_process_lets_no_other_process_take_the_first_for_closed(tmp_path: Path) -> None:
    path = tmp_path / "rentals.db"

    async def write_elsewhere(tag: str) -> None:
        program = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('INSERT INTO accounts VALUES (?, ?, ?)', "
            "[sys.argv[2], 'somebody', '2026-10-25 02:30:15']); c.commit(); c.close()"
        )
        await anyio.run_process([sys.executable, "-c", program, str(path), tag])

    async with opened(f"sqlite:///{path}") as first, opened(f"sqlite:///{path}") as second:
        for tag in ("one", "two", "three"):
            assert [await ledger.account_of(tag) for ledger in (first, second)] == [None, None]
            await write_elsewhere(tag)
            assert [await ledger.account_of(tag) for ledger in (first, second)] == ["somebody", "somebody"]


# --- one open rent per name ------------------------------------------------------------------------------------------


async def test_a_rent_comes_back_as_it_was_written(state_url: str) -> None:
    async with opened(state_url) as ledger:
        written = await admit(ledger, an_entry(), allow)
        assert written == replace(
            an_entry(idempotency_key=written.idempotency_key), id=written.id, pod_ids=[], kept_pod_ids=[]
        )
    async with opened(state_url) as another:
        (found,) = await another.open_entries(ACCOUNT)
        assert found == written
        assert await another.open_entries("c" * 64) == []


async def test_a_value_comes_back_of_the_type_that_its_field_has(state_url: str) -> None:
    entry = an_entry(
        status="rented", pod_ids=["p"], kept_pod_ids=["p"], pod_count=2, expected={"gpu_count": 2}, hours=3.0,
        confirmed=True, handed_out=True, unwanted=True, removal_accepted=True, looks=3, next_look_at=NOW,
        missed_lists=1, missed_at=NOW, note="as said", settled_at=NOW, closed_at=NOW,
    )  # fmt: skip
    async with opened(state_url) as ledger:
        written = await admit(ledger, entry, allow)
        (found,) = await ledger.newest(1)
    assert found == written
    assert {name: type(value) for name, value in asdict(found).items()} == {
        name: type(value) for name, value in asdict(written).items()
    }


async def test_a_ledger_that_keeps_the_number_of_pods_as_a_float_gives_it_back_whole(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await ledger.newest(1)
    with raw(state_url) as connection:
        if connection.dialect.name == "sqlite":
            made = str(connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'rentals'")).scalar_one())
            assert "pod_count INTEGER" in made
            connection.execute(text("DROP TABLE rentals"))
            connection.execute(text(made.replace("pod_count INTEGER", "pod_count FLOAT")))
        else:
            connection.execute(text("ALTER TABLE rentals ALTER COLUMN pod_count TYPE FLOAT"))
    async with opened(state_url) as ledger:
        await admit(ledger, an_entry(pod_count=2), allow)
        (found,) = await ledger.open_entries(ACCOUNT)
    assert (found.pod_count, type(found.pod_count)) == (2, int)


async def test_a_ledger_of_an_earlier_version_is_brought_up_to_date(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await admit(ledger, an_entry(), allow)
    with raw(state_url) as connection:
        for statement in (
            "DROP INDEX one_rental_per_task",
            "ALTER TABLE rentals DROP COLUMN task_id",
            "ALTER TABLE rentals DROP COLUMN by_login",
            "ALTER TABLE tasks DROP COLUMN by_login",
            "UPDATE ledger_version SET version = 2",
        ):
            connection.execute(text(statement))
    async with opened(state_url) as ledger:
        [entry] = await ledger.open_entries(ACCOUNT)
        assert (entry.pod_name, entry.task_id, entry.by_login) == ("train", None, False)
        task, _ = await Tasks(ledger.database).add(a_task())
        await admit(ledger, an_entry("other", task_id=task.id), allow)
        with pytest.raises(LedgerUnavailable):
            await admit(ledger, an_entry("third", task_id=task.id), allow)


async def test_times_survive_with_their_zone(state_url: str) -> None:
    settled, closed = NOW + timedelta(seconds=1), NOW + timedelta(days=200)  # the clocks change in between
    async with opened(state_url) as ledger:
        entry = await admit(ledger, an_entry(), allow)
        await ledger.change(entry, "rented", now=settled, pod_ids=["p"])
        (rented,) = await ledger.open_entries(ACCOUNT)
        await ledger.change(rented, "removed", now=closed)
        (found,) = await ledger.newest(10)
        assert (found.created_at, found.settled_at, found.closed_at) == (NOW, settled, closed)
        assert found.created_at.tzinfo is UTC
        past = PastCost(["p"], found.price_per_hour_usd, NOW, closed)
        assert await ledger.closed_since(ACCOUNT, closed) == [past]
        assert await ledger.closed_since(ACCOUNT, closed + timedelta(microseconds=1)) == []


async def test_a_judge_sees_what_is_open_and_can_prevent_the_rent(state_url: str) -> None:
    seen: list[str] = []

    def refuse(entries: Sequence[Entry], _: Sequence[Extension]) -> None:
        seen.extend(entry.pod_name for entry in entries)
        raise ZeroDivisionError

    async with opened(state_url) as ledger:
        await admit(ledger, an_entry("first"), allow)
        await ledger.change(await admit(ledger, an_entry("closed"), allow), "refused", now=NOW)
        await admit(ledger, an_entry("somebody's", account="c" * 64), allow)
        with pytest.raises(ZeroDivisionError):
            await admit(ledger, an_entry("second"), refuse)
        assert seen == ["first"]
        assert [entry.pod_name for entry in await ledger.open_entries(ACCOUNT)] == ["first"]
        # Nothing of the refused one holds a lock.
        await admit(ledger, an_entry("second"), allow)


async def test_the_database_refuses_a_second_open_rent_of_a_name(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await admit(ledger, an_entry(), allow)
        with pytest.raises(LedgerUnavailable, match="second open rent of that name"):
            await admit(ledger, an_entry(), allow)
        with pytest.raises(IntegrityError), raw(state_url) as connection:
            insert_raw(connection)
        with raw(state_url) as connection:
            insert_raw(connection, account="c" * 64)
            insert_raw(connection, pod_name="Train")
        assert len(await ledger.open_entries(ACCOUNT)) == 2


async def test_of_rents_that_are_admitted_together_all_are_written_or_none(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await admit(ledger, an_entry("second"), allow)
        with pytest.raises(LedgerUnavailable):
            await ledger.admit([an_entry("first"), an_entry("second"), an_entry("third")], allow)
        assert [entry.pod_name for entry in await ledger.open_entries(ACCOUNT)] == ["second"]
        written = await ledger.admit([an_entry(f"pod-{number}", status="admitted") for number in range(20)], allow)
        assert len({entry.id for entry in written}) == 20
        assert {entry.id for entry in await ledger.open_entries(ACCOUNT)} > {entry.id for entry in written}


async def test_no_key_is_used_twice(state_url: str) -> None:
    async with opened(state_url) as ledger:
        first = await admit(ledger, an_entry(), allow)
        await ledger.change(first, "refused", now=NOW)
        with pytest.raises(LedgerUnavailable):
            await admit(ledger, an_entry("other", idempotency_key=first.idempotency_key), allow)


async def test_of_many_that_write_at_once_without_taking_turns_one_gets_the_name(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await ledger.open_entries(ACCOUNT)

        def write() -> bool:
            try:
                with raw(state_url) as connection:
                    insert_raw(connection)
            except (IntegrityError, OperationalError):  # SQLite may find the file locked instead
                return False
            return True

        written = await asyncio.gather(*[asyncio.to_thread(write) for _ in range(SERVERS)])
        assert written.count(True) == 1
        assert len(await ledger.open_entries(ACCOUNT)) == 1


async def test_who_writes_between_the_judgement_and_the_row_is_seen_by_the_database(
    postgres: Postgres, tmp_path: Path
) -> None:
    def somebody_writes(url: str, _entries: Sequence[Entry], _extensions: Sequence[Extension]) -> None:
        with raw(url) as connection:
            insert_raw(connection)

    with postgres.database() as url:
        async with opened(url) as ledger:
            with pytest.raises(LedgerUnavailable, match="second open rent"):
                await admit(ledger, an_entry(), partial(somebody_writes, url))
            assert len(await ledger.open_entries(ACCOUNT)) == 1
    # SQLite lets nobody write then, whoever it is.
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    async with opened(url) as ledger:
        with pytest.raises(LedgerUnavailable, match="locked"):
            await ledger.database.run(lambda connection: somebody_writes(url, [], []))


async def test_of_many_servers_at_once_each_sees_the_rents_of_those_before_it(state_url: str) -> None:
    counts: list[int] = []

    def room_for_five(entries: Sequence[Entry], _: Sequence[Extension]) -> None:
        counts.append(len(entries))
        if len(entries) >= 5:
            raise OverflowError

    async def serve(number: int) -> None:
        async with opened(state_url) as ledger:
            await admit(ledger, an_entry(f"pod-{number}"), room_for_five)

    results = await asyncio.gather(*[serve(number) for number in range(SERVERS)], return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [OverflowError] * (SERVERS - 5)
    assert sorted(counts) == [0, 1, 2, 3, 4] + [5] * (SERVERS - 5)


# --- changing and closing --------------------------------------------------------------------------------------------


async def test_closing_a_rent_frees_its_name_for_good(state_url: str) -> None:
    async with opened(state_url) as ledger:
        for status in ("refused", "removed", "absent", "closed"):
            entry = await admit(ledger, an_entry(), allow)
            assert await ledger.change(entry, status, now=NOW) is True
            assert await ledger.open_entries(ACCOUNT) == []
            assert await ledger.change(entry, "rented", now=NOW, pod_ids=["p"]) is False
        assert {entry.status for entry in await ledger.newest(10)} == {"refused", "removed", "absent", "closed"}
        assert all(entry.pod_ids == [] for entry in await ledger.newest(10))


async def test_a_change_can_be_bound_to_the_status_it_was_decided_on(state_url: str) -> None:
    async with opened(state_url) as ledger:
        entry = await admit(ledger, an_entry(), allow)
        assert await ledger.change(entry, "absent", now=NOW, only_from={"unknown"}) is False
        assert await ledger.change(entry, "rented", now=NOW, only_from={"sending", "unknown"}, pod_ids=["p"]) is True
        (found,) = await ledger.open_entries(ACCOUNT)
        assert (found.status, found.pod_ids, found.settled_at) == ("rented", ["p"], NOW)


async def test_a_note_of_any_length_and_of_any_characters_is_kept_as_far_as_there_is_room(state_url: str) -> None:
    async with opened(state_url) as ledger:
        for note in ("x" * 10**6, "\N{COLLISION SYMBOL}" * 600, "a\x00b", "\ud800", "'; DROP TABLE rentals; --"):
            entry = await admit(ledger, an_entry(), allow)
            await ledger.change(entry, "refused", now=NOW, note=note)
        notes = {entry.note for entry in await ledger.newest(10)}
        assert notes == {"x" * 500, "\N{COLLISION SYMBOL}" * 500, "a b", " ", "'; DROP TABLE rentals; --"}


# --- many at once on a fresh database --------------------------------------------------------------------------------


async def test_twenty_servers_find_a_fresh_database_at_once(state_url: str) -> None:
    async def serve(number: int) -> None:
        async with opened(state_url) as ledger:
            assert number >= 0
            await admit(ledger, an_entry(f"pod-{number}"), allow)

    await asyncio.gather(*[serve(number) for number in range(SERVERS)])
    async with opened(state_url) as ledger:
        assert len(await ledger.open_entries(ACCOUNT)) == SERVERS


async def test_calls_at_once_take_turns_on_a_ledger_in_memory() -> None:
    async with opened("sqlite://") as ledger:
        await asyncio.gather(*[admit(ledger, an_entry(f"pod-{number}"), allow) for number in range(SERVERS)])
        assert len(await ledger.open_entries(ACCOUNT)) == SERVERS


async def test_who_reads_waits_for_nobody_who_writes(state_url: str) -> None:
    async with opened(state_url) as ledger:
        await admit(ledger, an_entry(), allow)
        tasks = Tasks(ledger.database)
        with raw(state_url) as connection:
            insert_raw(connection, "other")
            assert [entry.pod_name for entry in await ledger.open_entries(ACCOUNT)] == ["train"]
            assert [entry.pod_name for entry in (await ledger.standing(ACCOUNT))[0]] == ["train"]
            assert [entry.pod_name for entry in await ledger.newest(9)] == ["train"]
            assert await ledger.account_of("k") is None
            assert await ledger.closed_since(ACCOUNT, NOW) == []
            assert not await tasks.is_any_due(["follow_up"], now=NOW)
            assert await tasks.newest(9) == []
        assert {entry.pod_name for entry in await ledger.open_entries(ACCOUNT)} == {"train", "other"}


async def test_a_new_file_that_somebody_is_writing_is_waited_for(tmp_path: Path) -> None:
    # SQLite itself does not wait for the change to its write-ahead log.
    url = f"sqlite:///{tmp_path / 'rentals.db'}"
    async with opened(url) as ledger:
        with raw(url) as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            admission = asyncio.create_task(admit(ledger, an_entry(), allow))
            await asyncio.sleep(0.2)
            assert not admission.done()
        await admission


# The processes wait for one another before they open it.
_PROCESSES: Final = """
import asyncio, os, sys
from tests.rentals.entries import admit, allow, an_entry
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.rentals.tasks import Tasks

async def serve(number):
    ledger = Ledger(sys.argv[1])
    await admit(ledger, an_entry(f"pod-{number}"), allow)
    await ledger.aclose()

reading, writing = os.pipe()
children = []
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        status = 1
        try:
            asyncio.run(serve(number))
            status = 0
        except Exception as error:
            print(repr(error), file=sys.stderr, flush=True)
        os._exit(status)
    children.append(child)
os.close(writing)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children) > 0)
"""


async def test_twenty_processes_find_a_fresh_database_at_once(state_url: str) -> None:
    command = [sys.executable, "-c", _PROCESSES, state_url, str(SERVERS)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert errors == b""
    assert process.returncode == 0
    async with opened(state_url) as ledger:
        assert len(await ledger.open_entries(ACCOUNT)) == SERVERS


_ONE_THAT_DIES: Final = """
import asyncio, os, signal, sys
from tests.rentals.entries import admit, allow, an_entry
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.rentals.tasks import Tasks

def die(entries, extensions):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    ledger = Ledger(sys.argv[1])
    await admit(ledger, an_entry("written"), allow)
    await admit(ledger, an_entry("begun"), die)

asyncio.run(main())
"""


async def test_what_a_process_has_written_outlives_it_and_what_it_has_begun_does_not(state_url: str) -> None:
    command = [sys.executable, "-c", _ONE_THAT_DIES, state_url]
    assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == -signal.SIGKILL
    async with opened(state_url) as ledger:
        assert [entry.pod_name for entry in await ledger.open_entries(ACCOUNT)] == ["written"]
        await admit(ledger, an_entry("begun"), allow)


# --- who can read it, and what is in it ------------------------------------------------------------------------------


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "state"
    before = os.umask(0)
    try:
        async with opened(f"sqlite:///{directory / 'rentals.db'}") as ledger:
            await admit(ledger, an_entry(), allow)
            names = {path.name for path in directory.iterdir()}
            assert names == {"rentals.db", "rentals.db-wal", "rentals.db-shm"}
            assert {mode_of(path) for path in directory.iterdir()} == {0o600}
            assert mode_of(directory) == 0o700
    finally:
        os.umask(before)


async def test_a_file_that_everybody_could_read_is_closed(tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "rentals.db").touch(0o666)
    async with opened(f"sqlite:///{directory / 'rentals.db'}") as ledger:
        await ledger.open_entries(ACCOUNT)
        assert {mode_of(path) for path in directory.iterdir()} == {0o600}


async def test_no_secret_is_in_the_database(state_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    sandbox = Sandbox(seed=7, speed=0)
    tools = frozenset({"rent_pod", "remove_pod"})
    async with agent_on(sandbox, state_url=state_url, allow_tools=tools) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=2)
        await agent.call("remove_pod", pod=rented["pod_id"])
        await agent.call("rent_pod", name="train", gpu_type="A100", hours=2)
        if state_url.startswith("sqlite"):
            found = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
        else:
            postgres: Postgres = request.getfixturevalue("postgres")
            found = repr(postgres.execute("SELECT * FROM rentals", database_of(state_url))).encode()
    assert found.count(b"train") >= 2  # what was searched is the ledger
    assert b"sk_sandbox" not in found
    assert b"sandbox" not in found


# --- a database that goes away ---------------------------------------------------------------------------------------


async def test_a_connection_that_the_database_ended_is_made_again(postgres: Postgres) -> None:
    with postgres.database() as url:
        async with opened(url) as ledger:
            entry = await admit(ledger, an_entry(), allow)
            for _ in range(3):
                postgres.disconnect(url)
                assert await ledger.change(entry, "rented", now=NOW, pod_ids=["p"])


async def test_a_database_that_is_away_is_said_to_be_and_used_again_when_it_is_back(postgres: Postgres) -> None:
    with postgres.database() as url:
        async with opened(url) as ledger:
            await admit(ledger, an_entry(), allow)
            postgres.close(url)
            with pytest.raises(LedgerUnavailable) as away:
                await admit(ledger, an_entry("other"), allow)
            assert PASSWORD not in str(away.value)
            postgres.open(url)
            assert [entry.pod_name for entry in await ledger.open_entries(ACCOUNT)] == ["train"]


async def test_a_database_that_is_frozen_keeps_nobody_waiting_and_is_used_again_when_it_is_back(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lium_mcp.rentals.database._CONNECT_SECONDS", 2)
    with postgres.database() as url:
        ledger = Ledger(url)
        await ledger.newest(1)
        with monkeypatch.context() as bounds, postgres.frozen(), anyio.fail_after(30):
            bounds.setattr("lium_mcp.rentals.database._ANSWER_SECONDS", 0.5)
            for _ in range(2):  # by the connection that it has, and by a new one
                with pytest.raises(LedgerUnavailable):
                    await ledger.newest(1)
        assert await ledger.newest(1) == []
        await ledger.aclose()


async def test_a_database_that_takes_no_writes_is_no_ledger_to_rent_by(postgres: Postgres) -> None:
    with postgres.database() as url:
        ledger = Ledger(url)
        await ledger.database.check()
        postgres.execute(f"ALTER DATABASE {database_of(url)} SET default_transaction_read_only = on")
        postgres.disconnect(url)
        with pytest.raises(LedgerUnavailable, match="takes no writes"):
            await ledger.database.check()
        await ledger.aclose()


async def test_no_connection_is_left_by_a_failed_opening_or_a_cancelled_closing(postgres: Postgres) -> None:
    with postgres.database() as url:
        ledger = Ledger(url)
        postgres.execute(f"ALTER DATABASE {database_of(url)} SET default_transaction_read_only = on")
        for _ in range(2):
            with pytest.raises(LedgerUnavailable):
                await ledger.open_entries(ACCOUNT)
        await postgres.until_connected(url, 0)
        postgres.execute(f"ALTER DATABASE {database_of(url)} RESET default_transaction_read_only")
        await ledger.open_entries(ACCOUNT)
        await postgres.until_connected(url, 1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ledger.aclose()
        await postgres.until_connected(url, 0)


async def test_a_connection_that_ends_in_mid_transaction_writes_nothing(postgres: Postgres) -> None:
    with postgres.database() as url:

        def cut_off(_entries: Sequence[Entry], _extensions: Sequence[Extension]) -> None:
            postgres.disconnect(url)

        async with opened(url) as ledger:
            with pytest.raises(LedgerUnavailable):
                await admit(ledger, an_entry(), cut_off)
            assert await ledger.open_entries(ACCOUNT) == []


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@/nothing?host=/nowhere",
        "postgresql://me:hunter2@127.0.0.1:1/nothing",
        "postgresql://me:hunter2@no-such-host.invalid/nothing",
        "postgresql://me:hunter2@127.0.0.1:99999/nothing",
        "postgresql://me:hunter2@/nothing?nonsense=1",
        "postgresql://127.0.0.1:1/nothing?user=me&password=hunter2",
        # Passwords that should have been encoded.
        "postgresql://me:p@hunter2@127.0.0.1:1/nothing",
        "postgresql://me:p/hunter2@127.0.0.1:1/nothing",
        "postgresql://me:hunter2/p@127.0.0.1:1/nothing",
        "postgresql://me:p?hunter2@127.0.0.1:1/nothing",
        "postgresql://me:p#hunter2@127.0.0.1:1/nothing",
        "postgresql://me:p%zzhunter2@127.0.0.1:1/nothing",
        "postgresql://me:p/@hunter2@127.0.0.1:1/nothing",
        "postgresql://me@127.0.0.1:hunter2/nothing",
        "postgresql://me:[hunter2@127.0.0.1:1:1/nothing",
    ],
)
async def test_no_error_tells_the_password_of_the_database(
    address: str, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    tools = frozenset({"rent_pod", "list_pods"})
    refusal = ""
    try:
        build_server(Settings(state_url=address))
    except SettingsError as error:
        refusal = str(error)
    if refusal:  # what is no address stops the start
        assert "LIUM_MCP_STATE_URL" in refusal
        assert "hunter2" not in refusal
        return
    async with agent_on(sandbox, state_url=address, allow_tools=tools) as agent:
        with caplog.at_level("DEBUG"):
            failure = await agent.refused("rent_pod", name="train", gpu_type="A100")
            await agent.call("list_pods")
    assert failure.code == "ledger_unavailable", failure.text
    assert "hunter2" not in failure.text
    assert "hunter2" not in caplog.text
    assert sandbox.state()["rents"] == []


@pytest.mark.parametrize("options", ["?timeout=1", "?mode=ro&uri=true"])
def test_an_address_of_a_file_takes_no_options(options: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LIUM_MCP_STATE_URL"):
        build_server(Settings(state_url=f"sqlite:///{tmp_path / 'rentals.db'}{options}"))
    assert list(tmp_path.glob("*.db*")) == []
