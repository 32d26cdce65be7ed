"""Earlier prices: what readings of the market leave behind, at whose cost, and what get_gpu_prices makes of it."""

import asyncio
import logging
import math
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any, Final, Literal

import pytest
from mcp import Client

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.harness import Agent, TurnedClock, agent_on
from tests.processes import environment
from tests.wires import Row, Wire, answering, editing, eventually

LIUM = "https://lium.io/api"
TEN_MINUTES = 600
HOUR = 3600
DAY = 24 * HOUR
H100 = "H100 PCIe"


@pytest.fixture
def sandbox() -> Sandbox:
    """A simulated Lium that begins with a stretch of ten minutes."""
    return Sandbox(seed=7, speed=0, start=datetime(2026, 3, 2, 9, tzinfo=UTC))


@pytest.fixture
def wire(sandbox: Sandbox) -> Wire:
    return Wire(sandbox)


@pytest.fixture
def file() -> Path:
    return Path.home() / "price-history.db"


@pytest.fixture
def settings_of_agent(wire: Wire) -> dict[str, Any]:
    # A server takes what is on this machine for a simulated Lium, of which nothing may outlive it.
    return {"transport": wire, "base_url": LIUM}


def rows_in(file: Path) -> list[tuple[Any, ...]]:
    if not file.exists():
        return []
    with closing(sqlite3.connect(file)) as connection:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'samples'").fetchall():
            return []  # it is being made
        return connection.execute("SELECT at, gpu_type, lowest_usd, median_usd, gpus, nodes FROM samples").fetchall()


def times_in(file: Path) -> list[int]:
    return sorted({row[0] for row in rows_in(file)})


async def look(agent: Agent, **asked: Any) -> dict[str, Row]:
    """The types on offer by name."""
    return {row["gpu_type"]: row for row in (await agent.call("get_gpu_prices", **asked))["gpu_types"]}


async def look_often(agent: Agent, times: int, *, every_seconds: float = TEN_MINUTES) -> list[dict[str, Row]]:
    seen = []
    for _ in range(times):
        seen.append(await look(agent))
        await agent.clock.sleep(every_seconds)
    return seen


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def files_below(folder: Path) -> list[Path]:
    return list(folder.rglob("price-history*"))


def delete(file: Path) -> None:
    file.unlink()


def content_of(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def only(*rows: Row) -> Callable[[Any], Any]:
    return lambda _: list(rows)


def node(number: int = 1, **changes: Any) -> Row:
    good = {
        "id": f"3f6c1a52-7d0e-4b7e-9a31-{number:012d}",
        "machine_name": "NVIDIA H100 PCIe",
        "price_per_gpu": 1.5,
        "gpu_count": 8,
        "available_gpu_count": 4,
        "min_gpu_count_for_rental": 1,
    }
    return good | changes


# --- what is said ----------------------------------------------------------------------------------------------------


async def test_range_and_median_of_the_lowest_price_are_those_that_were_seen(agent: Agent) -> None:
    seen = await look_often(agent, 24)
    now = await look(agent)
    for name, row in now.items():
        lowest = [each[name]["min_usd"] for each in seen if name in each]
        if len(lowest) < 6:
            assert "past" not in row
            continue
        first = next(index for index, each in enumerate(seen) if name in each)
        assert row["past"] == {
            "seen_since": f"2026-03-02T{9 + first // 6:02d}:{first % 6}0:00Z",
            "lowest_last_day": {
                "min_usd": min(lowest),
                "median_usd": pytest.approx(median(lowest)),
                "max_usd": max(lowest),
                "samples": len(lowest),
            },
        }
    assert any("past" in row for row in now.values())


async def test_the_week_is_said_where_it_says_more_than_the_day(agent: Agent) -> None:
    seen = await look_often(agent, 60, every_seconds=3 * HOUR)
    past = (await look(agent))[H100]["past"]
    for name, days in (("lowest_last_day", 1), ("lowest_last_week", 7)):
        lowest = [each[H100]["min_usd"] for each in seen[-days * 8 :] if H100 in each]
        assert past[name]["samples"] == len(lowest)
        assert (past[name]["min_usd"], past[name]["max_usd"]) == (min(lowest), max(lowest))
    assert past["seen_since"] == "2026-03-02T09:00:00Z"


async def test_a_few_samples_say_nothing(agent: Agent) -> None:
    for _ in range(6):
        assert not any("past" in row for row in (await look(agent)).values())
        await agent.clock.sleep(TEN_MINUTES)
    assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 6


async def test_one_type_is_told_as_in_the_whole_list(agent: Agent) -> None:
    await look_often(agent, 8)
    assert await look(agent, gpu_type=H100) == {H100: (await look(agent))[H100]}


async def test_a_chart_gets_every_sample_of_some_hours(agent: Agent) -> None:
    seen = await look_often(agent, 12)
    history = (await look(agent, gpu_type=H100, history_days=1))[H100]["past"]["history"]
    assert history["at"] == [f"2026-03-02T{9 + index // 6:02d}:{index % 6}0:00Z" for index in range(12)]
    for name, field in {
        "lowest_usd": "min_usd",
        "median_usd": "median_usd",
        "gpus": "free_gpus",
        "nodes": "nodes",
    }.items():
        assert history[name] == [each[H100][field] for each in seen]


async def test_a_chart_of_weeks_is_thinned_evenly(agent: Agent, file: Path) -> None:
    await look(agent)
    start = int(agent.clock.now().timestamp())
    with closing(sqlite3.connect(file)) as connection, connection:
        for name in (H100, "RTX4090", "A100 80GB PCIe", "L4"):
            samples = [(1, start - TEN_MINUTES * n, name, 1 + n / 1e4, 2.0, 8, 1) for n in range(1, 30 * 144)]
            connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", samples)
    for days, of_one in ((30, (195, 200)), (7, (160, 200)), (1, (140, 145))):
        history = (await look(agent, gpu_type=H100, history_days=days))[H100]["past"]["history"]
        assert of_one[0] <= len(history["at"]) <= of_one[1]
        times = [datetime.fromisoformat(at).timestamp() for at in history["at"]]
        steps = {later - earlier for earlier, later in pairwise(times[:-2])}
        assert len(steps) == 1
        assert times[0] >= start - days * DAY
        assert {len(column) for column in history.values()} == {len(times)}
        # Each is a sample as it was taken.
        kept = {row[0]: row for row in rows_in(file) if row[1] == H100}
        for index, at in enumerate(times):
            assert history["lowest_usd"][index] == pytest.approx(kept[int(at)][2])
    everything = await look(agent, history_days=30)
    assert sum(len(row.get("past", {}).get("history", {"at": []})["at"]) for row in everything.values()) <= 2000


@pytest.mark.parametrize("days", [1, 7, 30])
async def test_what_is_no_more_than_a_chart_holds_is_not_thinned(agent: Agent, days: int) -> None:
    """Whatever the time that is asked for: the range that stands beside it is of these very samples."""
    seen = await look_often(agent, 17)
    past = (await look(agent, gpu_type=H100, history_days=days))[H100]["past"]
    assert past["history"]["lowest_usd"] == [each[H100]["min_usd"] for each in seen]


async def test_a_thinned_chart_keeps_each_low_and_the_newest_sample(agent: Agent, file: Path) -> None:
    await look(agent)
    start = int(agent.clock.now().timestamp())
    cycle = (1.0, 1.05, 1.1)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DELETE FROM samples")
        samples = [(1, start - TEN_MINUTES * n, H100, cycle[n % 3], 2.0 + n, 8, 1) for n in range(1, 7 * 144)]
        connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)", samples)
    past = (await look(agent, gpu_type=H100, history_days=7))[H100]["past"]
    lowest = past["history"]["lowest_usd"]
    assert 160 <= len(lowest) <= 200
    assert set(lowest[:-2]) == {1.0}, "each stretch of an hour had it"
    assert lowest[-1] == cycle[1], "the newest stands for itself"
    kept = {row[0]: row for row in rows_in(file) if row[1] == H100}
    for at, low, middle in zip(past["history"]["at"], lowest, past["history"]["median_usd"], strict=True):
        assert kept[int(datetime.fromisoformat(at).timestamp())][2:4] == pytest.approx((low, middle))


# --- what is kept ----------------------------------------------------------------------------------------------------


async def test_a_reading_in_ten_minutes_is_kept_whoever_makes_it(agent: Agent, file: Path) -> None:
    looks: tuple[tuple[str, dict[str, Any]], ...] = (
        ("list_gpus", {"gpu_type": "H100"}),
        ("get_gpu_prices", {"gpu_type": "4090"}),
        ("list_gpus", {"max_usd_per_gpu_hour": 0.001, "wait_seconds": 60}),
    )
    for tool, asked in looks:
        await agent.call(tool, **asked)
        await agent.call("list_gpus")
        await agent.clock.sleep(TEN_MINUTES)
    assert len(times_in(file)) == len(looks)
    types = {name for _, name, *_ in rows_in(file)}
    assert len(types) > 10, "of the whole market, whatever was asked for"
    for _, _, lowest, middle, gpus, nodes in rows_in(file):
        assert 0 < lowest <= middle
        assert 0 < nodes <= gpus


async def test_a_watch_leaves_a_sample_in_each_ten_minutes(agent: Agent, file: Path) -> None:
    await agent.clock.sleep(500)
    await agent.call("list_gpus", max_usd_per_gpu_hour=0.001, wait_seconds=200)
    await eventually(lambda: len(times_in(file)) == 2)


async def test_it_is_the_owners_file_and_has_a_version(agent: Agent, file: Path) -> None:
    await look(agent)
    await eventually(lambda: bool(rows_in(file)))
    assert mode_of(file) == 0o600
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT base_url FROM markets").fetchall() == [(LIUM,)]


async def test_the_next_server_goes_on_with_it(sandbox: Sandbox) -> None:
    for number in range(7):
        async with agent_on(sandbox, base_url=LIUM) as agent:
            past = (await look(agent))[H100].get("past", {})
            assert past.get("lowest_last_day", {}).get("samples") == (6 if number == 6 else None)
            await agent.clock.sleep(TEN_MINUTES)


async def test_servers_that_look_at_once_keep_one_reading(sandbox: Sandbox, file: Path) -> None:
    async with agent_on(sandbox, base_url=LIUM) as one, agent_on(sandbox, base_url=LIUM) as other:
        for _ in range(6):
            await asyncio.gather(*(agent.call("list_gpus") for agent in (one, other)))
            await one.clock.sleep(TEN_MINUTES)
        await eventually(lambda: len(times_in(file)) == 6)
        assert (await look(one)) == (await look(other))


async def test_what_is_older_than_a_month_goes(agent: Agent, file: Path) -> None:
    await look_often(agent, 3)
    await agent.clock.sleep(29 * DAY)
    await look(agent)
    assert len(times_in(file)) == 4
    await agent.clock.sleep(DAY)
    await look(agent)
    await eventually(lambda: len(times_in(file)) == 2)


async def test_a_type_that_is_gone_has_no_sample(agent: Agent, wire: Wire, file: Path) -> None:
    wire.on("GET", "/executors", editing(only(node(1), node(2, machine_name="NVIDIA L4"))), times=1)
    await look_often(agent, 1)
    wire.on("GET", "/executors", editing(only(node(2, machine_name="NVIDIA L4"))))
    await look_often(agent, 7)
    assert [name for _, name, *_ in rows_in(file)].count(H100) == 1
    assert (await look(agent))["L4"]["past"]["lowest_last_day"]["samples"] == 8


async def test_a_type_that_is_gone_is_told_with_what_it_cost(agent: Agent, wire: Wire) -> None:
    both = [node(1), node(2, machine_name="NVIDIA L4", price_per_gpu=0.25)]
    wire.on("GET", "/executors", editing(only(*both)), times=7)
    await look_often(agent, 6)
    assert "gone" not in await agent.call("get_gpu_prices")
    await agent.clock.sleep(TEN_MINUTES)
    busy = node(1, available_gpu_count=0)
    wire.on("GET", "/executors", editing(only(busy, both[1])))
    cost = {"min_usd": 1.5, "median_usd": 1.5, "max_usd": 1.5, "samples": 7}
    gone = {
        "gpu_type": H100,
        "last_seen": "2026-03-02T10:00:00Z",
        "past": {"seen_since": "2026-03-02T09:00:00Z", "lowest_last_day": cost},
    }
    for asked in ({}, {"gpu_type": "h100"}):
        answer = await agent.call("get_gpu_prices", **asked)
        assert answer["gone"] == [gone]
        assert answer["total"] == (0 if asked else 1)
    assert "gone" not in await agent.call("get_gpu_prices", gpu_type="L4")
    [charted] = (await agent.call("get_gpu_prices", gpu_type="H100", history_days=1))["gone"]
    assert charted["past"]["history"]["lowest_usd"] == [1.5] * 7
    # Rows that cannot be read may be of that type.
    wire.on("GET", "/executors", editing(only(both[1], {"machine_name": "NVIDIA H100 PCIe"})))
    await agent.clock.sleep(3)
    assert "gone" not in await agent.call("get_gpu_prices")
    wire.on("GET", "/executors", editing(only(busy, both[1])))
    await agent.clock.sleep(7 * DAY)
    assert "gone" not in await agent.call("get_gpu_prices")


# --- what is not kept ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        answering(500, {"detail": "no"}),
        answering(200, {"error": "no list"}),
        answering(200, []),
        editing(lambda rows: [*rows, {"machine_name": "a row without an id"}]),
    ],
    ids=["failed", "no list", "empty", "partial"],
)
async def test_a_reading_that_is_not_whole_is_no_sample(agent: Agent, wire: Wire, file: Path, act: Any) -> None:
    wire.on("GET", "/executors", act, times=20)
    for tool in ("list_gpus", "get_gpu_prices"):
        await agent.raw(tool)
        await agent.clock.sleep(3)
    assert rows_in(file) == []


async def test_after_one_that_is_not_whole_the_next_is_kept(agent: Agent, wire: Wire, file: Path) -> None:
    wire.on("GET", "/executors", answering(200, []), times=1)
    await agent.call("list_gpus")
    await agent.clock.sleep(3)
    await agent.call("list_gpus")
    await eventually(lambda: bool(rows_in(file)))


@pytest.mark.parametrize("days", [-300, 300])
async def test_an_answer_with_a_wrong_date_moves_and_clears_nothing(
    agent: Agent, sandbox: Sandbox, file: Path, days: int
) -> None:
    await look_often(agent, 3)
    sandbox.add_fault("wrong_date", match={"path": "/executors"}, times=1, offset_seconds=days * DAY)
    await look_often(agent, 4)
    start = int(datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp())
    assert times_in(file) == [start + TEN_MINUTES * number for number in range(7)]
    assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 7


@pytest.mark.parametrize("status", [401, 403])
async def test_what_only_an_account_sees_is_not_kept(agent: Agent, wire: Wire, file: Path, status: int) -> None:
    async def for_accounts(request: Any, forward: Any) -> Any:
        known = "x-api-key" in request.headers
        return await (forward(request) if known else answering(status, {"detail": "Who are you?"})(request, forward))

    wire.on("GET", "/executors", for_accounts)
    for seen in await look_often(agent, 7):
        assert seen
        assert not any("past" in row for row in seen.values())
    assert rows_in(file) == []


async def test_rows_that_say_no_price_are_left_out(agent: Agent, wire: Wire, file: Path) -> None:
    absurd = [math.nan, math.inf, -1, 0, None, "free!", True, [1], 10**400, "absent"]
    rows = [node(number, price_per_gpu=price) for number, price in enumerate(absurd)]
    rows += [node(50, price_per_gpu="2.5"), node(51, price_per_gpu=3.5, available_gpu_count=10**12)]
    wire.on("GET", "/executors", editing(only(*rows)))
    await look(agent)
    await eventually(lambda: bool(rows_in(file)))
    [(_, name, lowest, middle, gpus, nodes)] = rows_in(file)
    assert (name, lowest, middle, gpus, nodes) == (H100, 2.5, 3.5, 68, 2)


async def test_hostile_names_and_crowds_stay_within_bounds(agent: Agent, wire: Wire, file: Path) -> None:
    names = ["x" * 5000, "a\nb", "", "\u202egnp", "'; DROP TABLE samples; --", "NVIDIA H100 PCIe"]
    rows = [node(number, machine_name=name) for number, name in enumerate(names)]
    rows += [node(100 + number, machine_name=f"Card {number}X", available_gpu_count=1) for number in range(300)]
    wire.on("GET", "/executors", editing(only(*rows)))
    for _ in range(7):
        assert (await agent.call("list_gpus", gpu_type="H100"))["total"] == 1
        await agent.clock.sleep(TEN_MINUTES)
    kept = [name for _, name, *_ in rows_in(file)]
    assert kept.count(H100) == 7
    assert len(kept) <= 700
    assert all(len(name) <= 100 and name.isprintable() for name in kept)
    assert (await look(agent, gpu_type="H100", history_days=1))[H100]["past"]["lowest_last_day"]["samples"] == 7


async def test_prices_of_another_address_are_another_market(sandbox: Sandbox, file: Path) -> None:
    for number in range(8):
        async with agent_on(sandbox, base_url="https://staging.lium.io/api") as agent:
            await agent.call("list_gpus")
            await agent.clock.sleep(TEN_MINUTES)
        if number % 4 == 0:
            async with agent_on(sandbox, base_url=LIUM) as agent:
                await agent.call("list_gpus")
    async with agent_on(sandbox, base_url=LIUM) as agent:
        assert "past" not in (await look(agent))[H100]
    async with agent_on(sandbox, base_url="https://staging.lium.io/api") as agent:
        assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 8


@pytest.mark.parametrize(
    "settings", [{"base_url": "http://127.0.0.1:8765/api"}, {"base_url": LIUM, "state_url": "sqlite://"}], ids=str
)
async def test_a_simulated_market_is_remembered_in_memory_alone(
    sandbox: Sandbox, file: Path, settings: dict[str, Any]
) -> None:
    async with agent_on(sandbox, **settings) as agent:
        await look_often(agent, 6)
        assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 6
    assert files_below(file.parent) == []


@pytest.mark.parametrize(
    ("transport", "folder"), [("stdio", ".local/state/lium-mcp"), ("http", None)], ids=["stdio", "http"]
)
async def test_beside_a_database_of_replicas_there_is_no_file(
    sandbox: Sandbox, transport: Literal["stdio", "http"], folder: str | None
) -> None:
    settings = Settings(
        transport=transport, base_url=LIUM, state_url="postgresql://nobody@127.0.0.1:1/none", read_only=True
    )
    clock = TurnedClock(sandbox)
    server = build_server(settings, transport=sandbox.transport(), clock=clock)
    async with Client(server, raise_exceptions=True) as client:
        agent = Agent(client, sandbox, clock)
        await look_often(agent, 6)
        assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 6
    assert files_below(Path.home()) == ([Path.home() / folder / "price-history.db"] if folder else [])


async def test_a_server_of_the_sandbox_leaves_no_file() -> None:
    server = build_server(Settings(sandbox=True))
    async with Client(server, raise_exceptions=True) as client:
        result = await client.call_tool("get_gpu_prices", {"history_days": 1})
    assert result.structured_content
    assert result.structured_content["total"]
    assert files_below(Path.home()) == []


# --- several processes -----------------------------------------------------------------------------------------------

# A server in a process of its own, whose market and clock are those of the others.
_LOOKER: Final = """
import asyncio, resource, signal, sys
from datetime import UTC, datetime
from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on

async def look(times):
    sandbox = Sandbox(seed=7, speed=0, start=datetime(2026, 3, 2, 9, tzinfo=UTC))
    async with agent_on(sandbox, base_url="https://lium.io/api", state_url=sys.argv[2]) as agent:
        for _ in range(times):
            assert (await agent.call("get_gpu_prices"))["total"]
            print("looked", flush=True)
            await agent.clock.sleep(600)

if most_bytes := int(sys.argv[3]):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
asyncio.run(look(int(sys.argv[1])))
"""


async def start_looking(times: int, folder: Path, *, most_bytes: int = 0) -> asyncio.subprocess.Process:
    arguments = (str(times), f"sqlite:///{folder / 'rentals.db'}", str(most_bytes))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LOOKER, *arguments, env=environment(), stdout=pipe, stderr=pipe
    )


async def test_processes_share_a_file_and_one_that_is_killed_harms_nobody(tmp_path: Path) -> None:
    lookers = [await start_looking(20, tmp_path) for _ in range(3)]
    killed = lookers[0]
    assert killed.stdout is not None
    for _ in range(5):
        await asyncio.wait_for(killed.stdout.readline(), 60)
    killed.kill()
    ends = await asyncio.wait_for(asyncio.gather(*(looker.communicate() for looker in lookers)), 120)
    assert [looker.returncode for looker in lookers] == [-9, 0, 0]
    for out, err in ends[1:]:
        assert out.count(b"looked") == 20
        assert b"cannot be used" not in err
    file = tmp_path / "price-history.db"
    start = int(datetime(2026, 3, 2, 9, tzinfo=UTC).timestamp())
    assert times_in(file) == [start + TEN_MINUTES * number for number in range(20)]
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_full_disk_costs_no_call_and_is_told_once(tmp_path: Path) -> None:
    looker = await start_looking(45, tmp_path, most_bytes=36_000)
    out, err = await asyncio.wait_for(looker.communicate(), 60)
    assert (looker.returncode, out.count(b"looked")) == (0, 45), err.decode()
    words = " ".join(err.decode().split())
    assert words.count("No past prices are kept") == 1
    with closing(sqlite3.connect(tmp_path / "price-history.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert 0 < len(times_in(tmp_path / "price-history.db")) < 45


# --- what the disk does ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def told_once(caplog: pytest.LogCaptureFixture, words: str) -> AsyncIterator[None]:
    """Whatever happens inside is said once in the log, and only as a warning."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        yield
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "price-history.db cannot be used" in record.getMessage()
    assert words in record.getMessage()


def a_folder(file: Path) -> None:
    file.mkdir()


def not_a_database(file: Path) -> None:
    file.write_text("some notes of mine\n" * 100)


def of_a_later_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 2")


async def test_a_file_that_is_deleted_begins_anew(agent: Agent, file: Path) -> None:
    await look_often(agent, 7)
    delete(file)
    await look_often(agent, 7)
    assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 7


@pytest.mark.parametrize("value", ["dear", None, b"\x00\xff", math.inf])
async def test_what_somebody_put_into_it_costs_no_call(
    agent: Agent, file: Path, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    await look_often(agent, 7)
    with closing(sqlite3.connect(file)) as connection, connection, suppress(sqlite3.IntegrityError):
        connection.execute("UPDATE samples SET lowest_usd = :value, nodes = :value", {"value": value})
    await agent.clock.sleep(TEN_MINUTES)
    assert (await agent.call("get_gpu_prices", history_days=1))["total"]
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


@pytest.mark.parametrize(
    ("prepare", "words"),
    [(a_folder, "directory"), (not_a_database, "not a database"), (of_a_later_version, "newer version")],
)
async def test_a_file_that_cannot_be_used_costs_no_call_and_is_told_once(
    agent: Agent, file: Path, caplog: pytest.LogCaptureFixture, prepare: Callable[[Path], None], words: str
) -> None:
    prepare(file)
    before = content_of(file)
    async with told_once(caplog, words):
        for seen in await look_often(agent, 4):
            assert seen[H100]["min_usd"] > 0
        answer = await agent.call("get_gpu_prices", history_days=7)
    assert answer["gpu_types"]
    assert answer["warnings"] == ["history_days: earlier prices cannot be read now."]
    assert content_of(file) == before, "it is somebody else's"


async def test_a_folder_that_cannot_be_made_costs_no_call(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    not_a_database(tmp_path / "taken")
    ledger = f"sqlite:///{tmp_path / 'taken' / 'rentals.db'}"
    async with agent_on(sandbox, base_url=LIUM, state_url=ledger) as agent, told_once(caplog, "taken"):
        assert all(await look_often(agent, 3))


async def test_a_locked_file_costs_no_call_and_serves_again_later(
    agent: Agent, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await look_often(agent, 7)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        async with told_once(caplog, "locked"):
            for seen in await look_often(agent, 2):
                assert "past" not in seen[H100]
    await asyncio.sleep(1)  # the last try still waits
    await agent.clock.sleep(TEN_MINUTES)
    assert (await look(agent))[H100]["past"]["lowest_last_day"]["samples"] == 7


async def test_a_disk_that_hangs_is_waited_for_once(
    agent: Agent, file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, connect = Event(), sqlite3.connect

    def hang(*arguments: Any, **options: Any) -> Any:
        answers.wait(30)
        return connect(*arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", hang)
    async with told_once(caplog, "in time"):
        for tool in ("list_gpus", "get_gpu_prices", "get_gpu_prices", "list_gpus"):
            assert (await agent.call(tool))["total"]
    answers.set()
    monkeypatch.undo()
