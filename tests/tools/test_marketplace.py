"""The marketplace as an agent meets it: filters that filter, prices that agree, and rows that lie."""

import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, hosted, text_of
from tests.harness import agent_on as agent_on_every_tool
from tests.tools.wires import Wire, answering, ask, editing

# Only the tools at hand: a server with all of them takes its time to build.
agent_on = partial(agent_on_every_tool, toolsets=frozenset({"marketplace"}), log_level="ERROR")
both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
NODE = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"
UNKNOWN_NODE = "00000000-0000-4000-8000-00000000dead"

Row = dict[str, Any]


@pytest.fixture
async def agent(sandbox: Sandbox) -> AsyncIterator[Agent]:
    async with hosted(agent_on(sandbox)) as connected:
        yield connected


async def rows_of(sandbox: Sandbox) -> list[Row]:
    """The market as the API itself shows it in full."""
    return list(await ask(sandbox, "GET", "/executors?view=full"))


async def all_offers(agent: Agent, **filters: Any) -> list[Row]:
    """Every offer, page by page."""
    offers: list[Row] = []
    cursor = ""
    while True:
        page = await agent.call("list_gpus", limit=100, cursor=cursor, **filters)
        offers += page["offers"]
        assert page["total"] >= len(offers)
        if "next_cursor" not in page:
            assert page["total"] == len(offers)
            return offers
        cursor = page["next_cursor"]


# --- filters ---------------------------------------------------------------------------------------------------------
# What each filter means, told from the API's own rows: KiB, MiB, and figures that a node may not report.


def _smallest(row: Row) -> int:
    if "min_gpu_count_for_rental" not in row:
        return 1
    least = row["min_gpu_count_for_rental"]
    return int(row["gpu_count"] if least is None else least)


def _spec(row: Row, *path: str) -> Any:
    value: Any = row["specs"]
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _vram_gb(row: Row) -> float:
    details = _spec(row, "gpu", "details")
    return details[0]["capacity"] / 1024 if details else -1


def _ram_gb(row: Row) -> float:
    total, reserve = _spec(row, "ram", "total"), _spec(row, "ram", "pod_reserve")
    return (total - (reserve or 0)) / 2**20 if total else -1


def _disk_gb(row: Row) -> float:
    free = _spec(row, "hard_disk", "free")
    return free / 2**20 if free else -1


def _country(row: Row) -> Any:
    return (row["location"] or {}).get("country_code")


MEANINGS: dict[str, Callable[[Row, Any], bool]] = {
    "gpu_type": lambda row, wanted: wanted in row["machine_name"].replace(" ", ""),
    "gpu_count": lambda row, wanted: _smallest(row) <= wanted <= row["available_gpu_count"],
    "max_usd_per_gpu_hour": lambda row, wanted: row["price_per_gpu"] <= wanted,
    "min_vram_gb": lambda row, wanted: _vram_gb(row) >= wanted,
    "min_ram_gb": lambda row, wanted: _ram_gb(row) >= wanted,
    "min_disk_gb": lambda row, wanted: _disk_gb(row) >= wanted,
    "min_cuda": lambda row, wanted: (row["max_cuda_version"] or -1) >= wanted,
    "min_download_mbps": lambda row, wanted: (row["effective_download_speed_mbps"] or -1) >= wanted,
    "country": lambda row, wanted: _country(row) == wanted,
    "tier": lambda row, wanted: row["tier"] == wanted,
    "nvlink": lambda row, wanted: not wanted or row["nvlink"] is True,
    "docker_in_docker": lambda row, wanted: not wanted or _spec(row, "sysbox_runtime") is True,
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "gpu_type": st.sampled_from(["H100", "RTX4090", "RTX3090", "L40S", "B200"]),
    "gpu_count": st.integers(1, 8),
    "max_usd_per_gpu_hour": st.floats(0.1, 4).map(lambda value: round(value, 2)),
    "min_vram_gb": st.integers(10, 150),
    "min_ram_gb": st.integers(1, 1500),
    "min_disk_gb": st.integers(1, 9000),
    "min_cuda": st.sampled_from([12.2, 12.4, 12.8, 13.0]),
    "min_download_mbps": st.integers(1, 3000),
    "country": st.sampled_from(["US", "DE", "JP", "SG"]),
    "tier": st.sampled_from(["secure", "spot"]),
    "nvlink": st.booleans(),
    "docker_in_docker": st.booleans(),
}


@pytest.mark.parametrize("name", VALUES)
async def test_each_filter_filters(sandbox: Sandbox, agent: Agent, name: str) -> None:
    wanted = {
        "gpu_type": "H100",
        "gpu_count": 4,
        "max_usd_per_gpu_hour": 0.5,
        "min_vram_gb": 60,
        "min_ram_gb": 500,
        "min_disk_gb": 3000,
        "min_cuda": 12.8,
        "min_download_mbps": 1200,
        "country": "US",
        "tier": "secure",
        "nvlink": True,
        "docker_in_docker": True,
    }[name]
    rows = await rows_of(sandbox)
    kept = {row["id"] for row in rows if MEANINGS[name](row, wanted)}
    assert 0 < len(kept) < len(rows), "a filter that keeps all or nothing shows nothing"
    assert {offer["executor_id"] for offer in await all_offers(agent, **{name: wanted})} == kept


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 50),
    hours=st.integers(0, 100),
    filters=st.fixed_dictionaries({}, optional=VALUES),
)
async def test_filters_together_keep_exactly_the_nodes_that_meet_all(
    seed: int, hours: int, filters: dict[str, Any]
) -> None:
    sandbox = Sandbox(seed=seed, speed=0)
    sandbox.clock.advance(hours=hours)
    rows = await rows_of(sandbox)
    kept = {row["id"] for row in rows if all(MEANINGS[name](row, wanted) for name, wanted in filters.items())}
    async with agent_on(sandbox) as agent:
        assert {offer["executor_id"] for offer in await all_offers(agent, **filters)} == kept


@pytest.mark.parametrize("spelling", ["RTX PRO 6000", "rtxpro6000", "PRO6000", "rtx-pro-6000", " RTX_PRO_6000 "])
async def test_a_gpu_type_may_be_spelled_as_people_do(agent: Agent, spelling: str) -> None:
    page = await agent.call("list_gpus", gpu_type=spelling)
    assert page["total"]
    assert {offer["gpu_type"] for offer in page["offers"]} == {"RTXPRO6000"}


async def test_a_country_may_be_named_in_words(agent: Agent) -> None:
    by_code = await all_offers(agent, country="de")
    assert by_code
    assert await all_offers(agent, country="germany") == by_code


async def test_no_gpu_of_an_unknown_type_is_offered(agent: Agent) -> None:
    assert await agent.call("list_gpus", gpu_type="Voodoo2") == {"offers": [], "total": 0}


# --- what a row says, and in which order -----------------------------------------------------------------------------


@both_eras
async def test_an_offer_says_what_the_node_says(sandbox: Sandbox, mode: Mode) -> None:
    rows = {row["id"]: row for row in await rows_of(sandbox)}
    async with agent_on(sandbox, mode=mode) as agent:
        offers = await all_offers(agent)
    assert {offer["executor_id"] for offer in offers} == set(rows)
    for offer in offers:
        row = rows[offer["executor_id"]]
        assert offer["price_per_gpu_hour_usd"] == row["price_per_gpu"]
        assert offer["free_gpus"] == row["available_gpu_count"]
        assert offer.get("min_gpus", 1) == _smallest(row)
        assert offer.get("vram_gb", -1) == math.trunc(_vram_gb(row))
        assert offer.get("ram_gb", -1) == math.trunc(_ram_gb(row))
        assert offer.get("disk_gb", -1) == math.trunc(_disk_gb(row))
        assert offer.get("cpus") == _spec(row, "cpu", "count")
        assert offer.get("country") == _country(row)
        assert offer.get("tier") == row["tier"]
        assert offer.get("cuda") == row["max_cuda_version"]


@pytest.mark.parametrize(
    ("sort", "figure"),
    [
        ("price", lambda offer: offer["price_per_gpu_hour_usd"]),
        ("download", lambda offer: -offer.get("download_mbps", 0)),
        ("vram", lambda offer: -offer.get("vram_gb", 0)),
        ("reliability", lambda offer: -offer.get("reliability", 0)),
    ],
)
async def test_the_best_comes_first(agent: Agent, sort: str, figure: Callable[[Row], float]) -> None:
    offers = await all_offers(agent, sort=sort)
    figures = [figure(offer) for offer in offers]
    assert figures == sorted(figures)
    assert len(set(figures)) > 5


async def test_equal_offers_come_in_the_same_order_however_the_api_orders_them(sandbox: Sandbox) -> None:
    orders = []
    for turn in (lambda rows: rows, lambda rows: rows[::-1]):
        wire = Wire(sandbox)
        wire.on("GET", "/executors", editing(turn))
        async with agent_on(sandbox, transport=wire) as agent:
            orders.append(await all_offers(agent, sort="vram"))
    assert orders[0] == orders[1]


async def test_pages_cover_every_offer_once(sandbox: Sandbox, agent: Agent) -> None:
    seen: list[str] = []
    cursor = ""
    while True:
        page = await agent.call("list_gpus", limit=7, cursor=cursor)
        assert len(page["offers"]) <= 7
        seen += [offer["executor_id"] for offer in page["offers"]]
        cursor = page.get("next_cursor", "")
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == page["total"]
    assert set(seen) == {row["id"] for row in await rows_of(sandbox)}


async def test_a_page_beyond_the_end_is_empty(agent: Agent) -> None:
    page = await agent.call("list_gpus", cursor="99999")
    assert page["offers"] == []
    assert page["total"] > 0
    assert "next_cursor" not in page


async def test_twenty_offers_cost_less_than_1500_tokens() -> None:
    for seed in range(5):
        async with agent_on(Sandbox(seed=seed, speed=0)) as agent:
            for filters in ({}, {"gpu_type": "RTXPRO6000"}, {"nvlink": True}, {"docker_in_docker": True}):
                answer = await agent.raw("list_gpus", **filters)
                assert len(text_of(answer).encode()) / 4 < 1500, (seed, filters)


# --- watching --------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_watch_ends_as_soon_as_a_price_falls_below_the_ceiling(sandbox: Sandbox, mode: Mode) -> None:
    # The market is a function of seed and time: a twin tells the future.
    twin = Sandbox(seed=7, speed=0)
    twin.clock.advance(seconds=600)

    def cheapest(rows: list[Row]) -> dict[str, float]:
        rows = sorted(rows, key=lambda row: row["price_per_gpu"], reverse=True)
        return {row["machine_name"]: row["price_per_gpu"] for row in rows}

    before, after = cheapest(await rows_of(sandbox)), cheapest(await rows_of(twin))
    falling = next(name for name in after if after[name] < before.get(name, 0))
    sandbox.clock.advance(seconds=300)
    async with agent_on(sandbox, mode=mode) as agent:
        watched = {"gpu_type": falling, "max_usd_per_gpu_hour": after[falling]}
        assert (await agent.call("list_gpus", **watched))["total"] == 0
        page = await agent.call("list_gpus", **watched, wait_seconds=600)
        assert page["offers"][0]["price_per_gpu_hour_usd"] == after[falling]
        assert 290 <= agent.clock.slept_seconds <= 310
        assert agent.progress
        assert set(agent.progress) == {"No offer matches yet"}


async def test_a_watch_that_sees_nothing_ends_with_the_time(agent: Agent) -> None:
    assert (await agent.call("list_gpus", max_usd_per_gpu_hour=0.001, wait_seconds=30))["total"] == 0
    assert agent.clock.slept_seconds == 30


async def test_an_offer_that_is_there_ends_a_watch_at_once(agent: Agent) -> None:
    assert (await agent.call("list_gpus", wait_seconds=600))["total"]
    assert agent.clock.slept_seconds == 0


async def test_a_watch_survives_failures_of_the_api(sandbox: Sandbox, agent: Agent) -> None:
    await agent.call("list_gpus")
    sandbox.add_fault("error", times=30, status=503, match={"path": "/executors"})
    failure = await agent.refused("list_gpus")
    assert failure.code == "lium_failed"
    sandbox.clear_faults()
    # The first read is good and finds nothing, the following ones fail, then all is well again.
    wire = Wire(sandbox)
    wire.on("GET", "/executors", answering(500, {"detail": "oops"}), times=9)
    wire.on("GET", "/executors", answering(200, []), times=1)
    async with agent_on(sandbox, transport=wire) as watcher:
        assert (await watcher.call("list_gpus", wait_seconds=120))["total"]


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("list_gpus", {"cursor": "abc"}, "cursor"),
        ("list_gpus", {"cursor": "-1"}, "cursor"),
        ("list_gpus", {"cursor": "1" * 50}, "cursor"),
        ("list_gpus", {"cursor": "\u0663"}, "cursor"),
        ("list_gpus", {"limit": 0}, "limit"),
        ("list_gpus", {"limit": 101}, "limit"),
        ("list_gpus", {"limit": "many"}, "limit"),
        ("list_gpus", {"limit": 2.5}, "limit"),
        ("list_gpus", {"limit": None}, "limit"),
        ("list_gpus", {"gpu_count": 0}, "gpu_count"),
        ("list_gpus", {"wait_seconds": 601}, "wait_seconds"),
        ("list_gpus", {"wait_seconds": -1}, "wait_seconds"),
        ("list_gpus", {"sort": "cheapest"}, "sort"),
        ("list_gpus", {"tier": "gold"}, "tier"),
        ("list_gpus", {"nvlink": "perhaps"}, "nvlink"),
        ("list_gpus", {"gpu_type": ["H100"]}, "gpu_type"),
        ("list_gpus", {"gpu_type": "H" * 201}, "gpu_type"),
        ("list_gpus", {"max_price": 1}, "max_price"),
        ("list_gpus", {"max_usd_per_gpu_hour": "nan"}, "max_usd_per_gpu_hour"),
        ("list_gpus", {"min_vram_gb": "inf"}, "min_vram_gb"),
        ("list_gpus", {"min_ram_gb": "a lot"}, "min_ram_gb"),
        ("quote_rental", {}, "executor_id"),
        ("quote_rental", {"executor_id": NODE, "hours": 0}, "hours"),
        ("quote_rental", {"executor_id": NODE, "hours": "nan"}, "hours"),
        ("quote_rental", {"executor_id": NODE, "volume_gb": -1}, "volume_gb"),
        ("quote_rental", {"executor_id": NODE, "volume_gb": "inf"}, "volume_gb"),
        ("quote_rental", {"executor_id": NODE, "gpu_count": -4}, "gpu_count"),
        ("get_gpu_prices", {"gpu_type": 4090.5}, "gpu_type"),
    ],
)
async def test_an_argument_that_does_not_fit_is_refused_by_name(
    agent: Agent, tool: str, arguments: dict[str, Any], named: str
) -> None:
    failure = await agent.refused(tool, **arguments)
    assert failure.code == "invalid_argument"
    assert named in failure.text
    assert "Nothing was changed." in failure.text


async def test_the_value_of_a_refused_argument_is_not_repeated(agent: Agent) -> None:
    failure = await agent.refused("list_gpus", limit="hunter2-hunter2")
    assert "hunter2" not in failure.text


async def test_numbers_and_booleans_may_come_as_text(agent: Agent) -> None:
    as_text = {"limit": "3", "min_vram_gb": "42", "gpu_count": "1", "wait_seconds": "0", "nvlink": "false"}
    as_meant = {"limit": 3, "min_vram_gb": 42, "gpu_count": 1, "wait_seconds": 0, "nvlink": False}
    assert await agent.call("list_gpus", **as_text) == await agent.call("list_gpus", **as_meant)


# --- prices ----------------------------------------------------------------------------------------------------------


def _quantile(values: list[float], share: float) -> float:
    position = (len(values) - 1) * share
    low = math.floor(position)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (position - low)


@both_eras
async def test_prices_of_a_type_are_the_quartiles_of_its_offers(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        prices = await agent.call("get_gpu_prices")
        offers = await all_offers(agent)
    assert prices["total"] == len(prices["gpu_types"]) > 5
    assert {row["gpu_type"] for row in prices["gpu_types"]} == {offer["gpu_type"] for offer in offers}
    for row in prices["gpu_types"]:
        mine = [offer for offer in offers if offer["gpu_type"] == row["gpu_type"]]
        each = sorted(offer["price_per_gpu_hour_usd"] for offer in mine for _ in range(offer["free_gpus"]))
        assert row["nodes"] == len(mine)
        assert row["free_gpus"] == len(each)
        expected = [each[0], _quantile(each, 0.25), _quantile(each, 0.5), _quantile(each, 0.75), each[-1]]
        names = ("min_usd", "q1_usd", "median_usd", "q3_usd", "max_usd")
        assert [row[name] for name in names] == pytest.approx(expected, abs=1e-4)
    medians = [row["median_usd"] for row in prices["gpu_types"]]
    assert medians == sorted(medians)


async def test_prices_of_one_type_are_the_same_as_in_the_whole_list(agent: Agent) -> None:
    everything = {row["gpu_type"]: row for row in (await agent.call("get_gpu_prices"))["gpu_types"]}
    assert await agent.call("get_gpu_prices", gpu_type="h100") == {"gpu_types": [everything["H100"]], "total": 1}


# --- quotes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def splittable(sandbox: Sandbox) -> Row:
    rows = await rows_of(sandbox)
    return next(row for row in rows if _smallest(row) == 2 and row["available_gpu_count"] > 2)


async def test_a_quote_is_for_the_fewest_gpus_unless_a_count_is_given(
    agent: Agent, sandbox: Sandbox, splittable: Row
) -> None:
    fewest = await agent.call("quote_rental", executor_id=splittable["id"], hours=10)
    assert fewest["gpu_count"] == 2
    assert fewest["price_per_hour_usd"] == pytest.approx(2 * splittable["price_per_gpu"])
    three = await agent.call("quote_rental", executor_id=splittable["id"], hours=10, gpu_count=3)
    assert three["price_per_hour_usd"] == pytest.approx(3 * splittable["price_per_gpu"])
    assert three["total_usd"] == pytest.approx(30 * splittable["price_per_gpu"], abs=1e-4)


@both_eras
async def test_a_quote_says_what_the_api_says(sandbox: Sandbox, splittable: Row, mode: Mode) -> None:
    asked = {"hours": 24, "gpu_count": 2, "volume_gb": 500, "backup_gb": 200}
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    theirs = await ask(sandbox, "GET", f"/executors/{splittable['id']}/quote?{query}")
    async with agent_on(sandbox, mode=mode) as agent:
        quote = await agent.call("quote_rental", executor_id=splittable["id"], **asked)
    assert quote["total_usd"] == pytest.approx(theirs["total_usd"], abs=1e-4)
    assert quote["balance_usd"] == 100
    assert quote["balance_must_exceed_usd"] == pytest.approx(theirs["rent_balance_required_usd"], abs=1e-4)
    assert quote["hours_balance_covers"] == pytest.approx(100 / theirs["price_per_hour"], abs=0.01)
    assert [line["item"] for line in quote["lines"]] == ["compute", "volume", "backup", "egress"]
    amounts = [line["amount_usd"] for line in quote["lines"] if "amount_usd" in line]
    assert sum(amounts) == pytest.approx(quote["total_usd"], abs=1e-3)
    assert "amount_usd" not in quote["lines"][-1]


async def test_a_quote_reserves_and_rents_nothing(agent: Agent, sandbox: Sandbox, splittable: Row) -> None:
    before = sandbox.state()["nodes"]
    await agent.call("quote_rental", executor_id=splittable["id"])
    assert sandbox.state()["nodes"] == before
    assert sandbox.state()["rents"] == []


async def test_more_gpus_than_a_node_rents_are_not_quoted(agent: Agent, splittable: Row) -> None:
    free = splittable["available_gpu_count"]
    failure = await agent.refused("quote_rental", executor_id=splittable["id"], gpu_count=free + 1)
    assert failure.code == "gpu_count_not_rentable"
    assert f"it rents 2 to {free}" in failure.text
    assert (await agent.refused("quote_rental", executor_id=splittable["id"], gpu_count=1)).code == failure.code


async def test_a_whole_node_says_that_it_rents_only_whole(agent: Agent, sandbox: Sandbox) -> None:
    rows = await rows_of(sandbox)
    whole = next(row for row in rows if row.get("min_gpu_count_for_rental", 0) is None and int(row["gpu_count"]) > 1)
    failure = await agent.refused("quote_rental", executor_id=whole["id"], gpu_count=1)
    assert f"it rents only {whole['gpu_count']} at once" in failure.text
    assert (await agent.call("quote_rental", executor_id=whole["id"]))["gpu_count"] == int(whole["gpu_count"])


@pytest.mark.parametrize("node", [UNKNOWN_NODE, "../users/me", "cosmic-hawk-f2", "", " "])
async def test_a_node_that_is_not_for_rent_is_not_quoted(agent: Agent, node: str) -> None:
    failure = await agent.refused("quote_rental", executor_id=node)
    assert failure.code == "node_not_for_rent"
    assert "list_gpus" in failure.text


async def test_the_market_can_be_read_without_a_key(sandbox: Sandbox, splittable: Row) -> None:
    async with agent_on(sandbox, api_key=None) as keyless:
        assert (await keyless.call("list_gpus"))["total"]
        assert (await keyless.call("get_gpu_prices"))["total"]
        quote = await keyless.call("quote_rental", executor_id=splittable["id"])
    assert quote["total_usd"] > 0
    assert {"balance_usd", "balance_must_exceed_usd", "hours_balance_covers"}.isdisjoint(quote)


async def test_what_needs_a_key_says_how_to_get_one(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, api_key=None, toolsets=frozenset({"account"})) as keyless:
        failure = await keyless.refused("get_balance")
    assert failure.code == "api_key_missing"
    assert "LIUM_API_KEY" in failure.text


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_a_balance_that_cannot_be_read_does_not_hide_the_quote(
    sandbox: Sandbox, splittable: Row, status: int
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/users/me", answering(status, {"detail": "no"}))
    async with agent_on(sandbox, transport=wire) as agent:
        quote = await agent.call("quote_rental", executor_id=splittable["id"])
    assert quote["total_usd"] > 0
    assert "balance_usd" not in quote


async def test_a_server_without_quotes_is_priced_from_its_listing(sandbox: Sandbox, splittable: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", answering(404, {"detail": "Not Found"}))
    async with agent_on(sandbox, transport=wire) as agent:
        quote = await agent.call("quote_rental", executor_id=splittable["id"], hours=10, gpu_count=2)
        assert quote["total_usd"] == pytest.approx(20 * splittable["price_per_gpu"], abs=1e-4)
        assert quote["lines"] == []
        failure = await agent.refused("quote_rental", executor_id=splittable["id"], volume_gb=10)
        assert failure.code == "not_found"


# --- rows that lie ---------------------------------------------------------------------------------------------------


def row(**changes: Any) -> Row:
    """A small good row, changed."""
    good = {
        "id": NODE,
        "machine_name": "NVIDIA H100 PCIe",
        "price_per_gpu": 1.5,
        "gpu_count": 8,
        "available_gpu_count": 4,
        "min_gpu_count_for_rental": 1,
    }
    return {name: value for name, value in (good | changes).items() if value != "absent"}


@pytest.mark.parametrize(
    "changes",
    [
        {"price_per_gpu": -1},
        {"price_per_gpu": math.nan},
        {"price_per_gpu": math.inf},
        {"price_per_gpu": "NaN"},
        {"price_per_gpu": "free!"},
        {"price_per_gpu": None},
        {"price_per_gpu": "absent"},
        {"price_per_gpu": True},
        {"price_per_gpu": [1]},
        {"available_gpu_count": 0},
        {"available_gpu_count": -3},
        {"available_gpu_count": None},
        {"available_gpu_count": "many"},
        {"available_gpu_count": math.nan},
        {"min_gpu_count_for_rental": 6},
        {"min_gpu_count_for_rental": None},
        {"id": None},
        {"id": ""},
        {"id": {"a": 1}},
    ],
    ids=str,
)
async def test_a_row_without_a_price_or_a_free_gpu_is_no_offer(sandbox: Sandbox, changes: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(**changes), row(id="good")]))
    async with agent_on(sandbox, transport=wire) as agent:
        page = await agent.call("list_gpus")
        assert [offer["executor_id"] for offer in page["offers"]] == ["good"]


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"price_per_gpu": "1.25"}, {"price_per_gpu_hour_usd": 1.25}),
        ({"price_per_gpu": 0}, {"price_per_gpu_hour_usd": 0}),
        ({"available_gpu_count": "4"}, {"free_gpus": 4}),
        ({"gpu_count": "8", "min_gpu_count_for_rental": None, "available_gpu_count": 8}, {"min_gpus": 8}),
        ({"specs": None}, {"free_gpus": 4}),
        ({"specs": {"gpu": "eight", "ram": [], "cpu": {"count": "many"}}}, {"free_gpus": 4}),
        ({"specs": {"ram": {"total": math.nan}, "hard_disk": {"free": -5}}}, {"free_gpus": 4}),
        ({"location": "Mars", "tier": 7, "max_cuda_version": "12.8"}, {"cuda": 12.8, "tier": "7"}),
        ({"machine_name": None, "reliability_score": "NaN"}, {"gpu_type": "Unknown"}),
        ({"machine_name": "\x1b[31mNVIDIA H100\u202e"}, {"gpu_type": "H100"}),
        ({"location": {"country_code": "d\u200be\x07"}}, {"country": "DE"}),
        ({"unheard_of": {"nested": [1, 2, {"deep": None}]}}, {"free_gpus": 4}),
    ],
    ids=str,
)
async def test_a_row_with_strange_figures_is_offered_for_what_it_says(
    sandbox: Sandbox, changes: Row, shown: Row
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(**changes)]))
    async with agent_on(sandbox, transport=wire) as agent:
        (offer,) = (await agent.call("list_gpus"))["offers"]
        assert offer == offer | shown


@pytest.mark.parametrize("free", [10**9, 10**18, 10**300])
async def test_a_node_that_claims_a_billion_free_gpus_stalls_nothing(sandbox: Sandbox, free: int) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(available_gpu_count=free), row(id="b", price_per_gpu=2)]))
    async with agent_on(sandbox, transport=wire) as agent:
        (prices,) = (await agent.call("get_gpu_prices"))["gpu_types"]
        assert prices["free_gpus"] < 100
        assert prices["max_usd"] == 2
        assert (await agent.call("list_gpus", gpu_type="H100"))["total"]


async def test_prices_beyond_reason_break_no_answer(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(price_per_gpu=1.7e308), row(id="b", price_per_gpu=1.6e308)]))
    wire.on("GET", "/executors/*/quote", answering(404, {"detail": "Not Found"}))
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("get_gpu_prices")
        await agent.call("list_gpus")
        await agent.raw("quote_rental", executor_id=NODE, gpu_count=4, hours=1000)


async def test_a_market_of_fifty_thousand_nodes_is_read(sandbox: Sandbox) -> None:
    market = [row(id=f"n{number}", price_per_gpu=1 + number / 10_000) for number in range(50_000)]
    wire = Wire(sandbox)
    wire.on("GET", "/executors", answering(200, market))
    async with agent_on(sandbox, transport=wire, timeout_seconds=60) as agent:
        page = await agent.call("list_gpus", max_usd_per_gpu_hour=2)
        assert page["total"] == 10_001
        assert [offer["executor_id"] for offer in page["offers"]] == [f"n{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "unreadable_answer"),
        (b"<html>", "unreadable_answer"),
        (b'{"items": 3}', "unreadable_answer"),
        (b"[" * 100_000, "unreadable_answer"),
        (b"[]" + b" " * (9 * 2**20), "answer_too_large"),
    ],
    ids=["empty", "html", "no list", "deep", "large"],
)
async def test_a_listing_that_cannot_be_read_is_a_failure_in_words(sandbox: Sandbox, content: bytes, code: str) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", answering(content=content))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("list_gpus")).code == code


async def test_the_market_is_out_of_reach_in_words(sandbox: Sandbox) -> None:
    async def refuse(*_: Any) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    wire = Wire(sandbox)
    wire.on("GET", "/executors", refuse)
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("list_gpus")).code == "lium_unreachable"
