"""The marketplace as an agent meets it: filters that filter, orders, pages, and watches that end in time."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, agent_on, text_of
from tests.wires import Wire, all_offers, answering, editing, rows_of, smallest_count

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
NODE = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"

Row = dict[str, Any]


# --- filters ---------------------------------------------------------------------------------------------------------
# What each filter means, told from the API's own rows: KiB, MiB, and figures that a node may not report. The sizes that
# cards are sold with, by what the sandbox's cards report.
SOLD_GB = {
    275040: 288,
    183359: 180,
    143771: 141,
    81559: 80,
    95830: 94,
    81920: 80,
    40960: 40,
    46068: 48,
    23034: 24,
    97887: 96,
    49140: 48,
    24564: 24,
    32607: 32,
    24576: 24,
}


def _spec(row: Row, *path: str) -> Any:
    value: Any = row["specs"]
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _vram_gb(row: Row) -> float:
    details = _spec(row, "gpu", "details")
    return SOLD_GB[details[0]["capacity"]] if details else -1


def _ram_gb(row: Row) -> float:
    total, reserve = _spec(row, "ram", "total"), _spec(row, "ram", "pod_reserve")
    return (total - (reserve or 0)) * 1024 / 10**9 if total else -1


def _disk_gb(row: Row) -> float:
    free = _spec(row, "hard_disk", "free")
    return free * 1024 / 10**9 if free else -1


def _country(row: Row) -> Any:
    return (row["location"] or {}).get("country_code")


# By what is asked for: where nodes of the sandbox may be. None is a node that does not say it.
WHERE = {
    "US": {"US"},
    "de": {"DE"},
    "Japan": {"JP"},
    "DE,FR": {"DE", "FR"},
    '["SG", "us"]': {"SG", "US"},
    "EU": {"DE", "NL", "FI", "FR"},
    "EU,!DE": {"NL", "FI", "FR"},
    "!US": {"CA", "DE", "NL", "FI", "NO", "FR", "IS", "JP", "SG", "IN", "AU"},
    "!EU, !USA": {"CA", "NO", "IS", "JP", "SG", "IN", "AU"},
    "NO,EU": {"NO", "DE", "NL", "FI", "FR"},
}


def _sure_count(row: Row) -> int:
    """The fewest GPUs that a row surely rents: one that does not say how it splits may rent only whole."""
    return smallest_count(row) if "min_gpu_count_for_rental" in row else int(row["available_gpu_count"])


def _is_in(code: Any, asked: str) -> bool:
    return code in WHERE[asked]


MEANINGS: dict[str, Callable[[Row, Any], bool]] = {
    "gpu_type": lambda row, wanted: wanted in row["machine_name"].replace(" ", "").replace("GeForce", ""),
    "gpu_count": lambda row, wanted: (
        smallest_count(row) <= wanted <= row["available_gpu_count"]
        and ("min_gpu_count_for_rental" in row or wanted == row["gpu_count"])
    ),
    "max_usd_per_gpu_hour": lambda row, wanted: row["price_per_gpu"] <= wanted,
    "min_vram_gb": lambda row, wanted: _vram_gb(row) >= wanted,
    "min_ram_gb": lambda row, wanted: _ram_gb(row) >= wanted,
    "min_disk_gb": lambda row, wanted: _disk_gb(row) >= wanted,
    "min_cuda": lambda row, wanted: (row["max_cuda_version"] or -1) >= wanted,
    "min_download_mbps": lambda row, wanted: (row["effective_download_speed_mbps"] or -1) >= wanted,
    "max_usd_per_hour": lambda row, wanted: row["price_per_gpu"] * _sure_count(row) <= wanted,
    "country": lambda row, wanted: _is_in(_country(row), wanted),
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
    "max_usd_per_hour": st.floats(0.1, 8).map(lambda value: round(value, 2)),
    "country": st.sampled_from(list(WHERE)),
    "tier": st.sampled_from(["secure", "spot"]),
    "nvlink": st.booleans(),
    "docker_in_docker": st.booleans(),
}


async def test_a_type_that_matches_nothing_is_told_which_are_on_offer(agent: Agent) -> None:
    none = await agent.call("list_gpus", gpu_type="H1000")
    assert none["offers"] == []
    assert "No gpu_type on offer matches" in none["next"]
    assert "H100" in none["next"]
    few = await agent.call("list_gpus", gpu_type="H100", max_usd_per_gpu_hour=0.0001)
    assert "leave some out" in few["next"]
    found = await agent.call("list_gpus", gpu_type="NVIDIA H100")
    assert found == await agent.call("list_gpus", gpu_type="H100")
    assert "next" not in found


@pytest.mark.parametrize("name", VALUES)
async def test_each_filter_filters(sandbox: Sandbox, agent: Agent, name: str) -> None:
    wanted = {
        "gpu_type": "H100",
        "gpu_count": 4,
        "max_usd_per_gpu_hour": 0.5,
        "max_usd_per_hour": 1.5,
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
    rows = await rows_of(sandbox, "full")
    kept = {row["id"] for row in rows if MEANINGS[name](row, wanted)}
    assert 0 < len(kept) < len(rows), "a filter that keeps all or nothing shows nothing"
    assert {offer["executor_id"] for offer in await all_offers(agent, **{name: wanted})} == kept


@settings(max_examples=20)
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
    assert {offer["gpu_type"] for offer in page["offers"]} == {"RTXPRO6000 Server"}


@pytest.mark.parametrize("asked", WHERE)
async def test_countries_are_listed_joined_and_excluded(sandbox: Sandbox, agent: Agent, asked: str) -> None:
    offers = await all_offers(agent, country=asked)
    assert {offer["country"] for offer in offers} == WHERE[asked] & {_country(row) for row in await rows_of(sandbox)}


async def test_a_list_of_countries_may_come_as_a_list(agent: Agent) -> None:
    assert await all_offers(agent, country=["DE", "us"]) == await all_offers(agent, country="DE,US")


@pytest.mark.parametrize("told", [None, "", "Mars", "UKR", "USA", "united states", 7, {}], ids=str)
async def test_a_country_that_nobody_can_tell_is_not_another_than_the_excluded_one(sandbox: Sandbox, told: Any) -> None:
    wire = Wire(sandbox)
    moved = {"country_code": told, "country": "Utopia"}
    wire.on("GET", "/executors", editing(lambda rows: [row | {"location": moved} for row in rows]))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.call("list_gpus"))["total"]
        for asked in ("!US", "DE"):
            assert (await agent.call("list_gpus", country=asked))["total"] == 0


async def test_a_number_of_gpus_is_what_the_ceiling_and_the_price_are_for(sandbox: Sandbox, agent: Agent) -> None:
    rows = {row["id"]: row for row in await rows_of(sandbox)}
    offers = await all_offers(agent, gpu_count=2, max_usd_per_hour=1)
    assert offers
    for offer in offers:
        assert offer["price_per_hour_usd"] == pytest.approx(rows[offer["executor_id"]]["price_per_gpu"] * 2)
        assert offer["price_per_hour_usd"] <= 1


async def test_no_gpu_of_an_unknown_type_is_offered(agent: Agent) -> None:
    assert (await agent.call("list_gpus", gpu_type="Voodoo2"))["total"] == 0


# --- what a row says, and in which order -----------------------------------------------------------------------------


@both_eras
async def test_an_offer_says_what_the_node_says(sandbox: Sandbox, mode: Mode) -> None:
    rows = {row["id"]: row for row in await rows_of(sandbox, "full")}
    async with agent_on(sandbox, mode=mode) as agent:
        offers = await all_offers(agent)
    assert {offer["executor_id"] for offer in offers} == set(rows)
    for offer in offers:
        row = rows[offer["executor_id"]]
        smallest, free = smallest_count(row), row["available_gpu_count"]
        assert offer["price_per_gpu_hour_usd"] == row["price_per_gpu"]
        assert offer["price_per_hour_usd"] == pytest.approx(row["price_per_gpu"] * _sure_count(row))
        assert (offer["free_gpus"], offer["total_gpus"]) == (free, int(row["gpu_count"]))
        if "min_gpu_count_for_rental" in row:
            assert offer["rentable_gpus"] == (str(free) if smallest == free else f"{smallest}-{free}")
        else:
            assert "rentable_gpus" not in offer
        assert offer.get("vram_gb", -1) == math.trunc(_vram_gb(row))
        assert offer.get("node_ram_gb", -1) == math.trunc(_ram_gb(row))
        assert offer.get("node_disk_gb", -1) == math.trunc(_disk_gb(row))
        assert offer.get("country") == _country(row)
        assert offer.get("tier") == row["tier"]
        assert offer.get("cuda") == row["max_cuda_version"]


@pytest.mark.parametrize(
    ("sort", "figure"),
    [
        ("price", lambda offer: offer["price_per_hour_usd"]),
        ("price_per_gpu", lambda offer: offer["price_per_gpu_hour_usd"]),
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
        page = await agent.call("list_gpus", limit=25, cursor=cursor)
        assert len(page["offers"]) <= 25
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


async def test_twenty_offers_cost_less_than_1750_tokens() -> None:
    for seed in range(3):
        async with agent_on(Sandbox(seed=seed, speed=0)) as agent:
            for filters in ({}, {"gpu_type": "RTXPRO6000"}, {"nvlink": True}, {"docker_in_docker": True}):
                answer = await agent.raw("list_gpus", **filters)
                assert len(text_of(answer).encode()) / 4 < 1750, (seed, filters)


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
    await agent.clock.sleep(2)  # for so long the market is kept
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
        ("list_gpus", {"limit": -1}, "limit"),
        ("list_gpus", {"limit": 101}, "limit"),
        ("list_gpus", {"limit": "many"}, "limit"),
        ("list_gpus", {"limit": 2.5}, "limit"),
        ("list_gpus", {"gpu_count": -1}, "gpu_count"),
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
        ("quote_rental", {"max_usd_per_hour": 0}, "max_usd_per_hour"),
        ("list_gpus", {"country": "Germny"}, "'Germny' is no country"),
        ("list_gpus", {"country": "US,!XY"}, "'!XY' is no country"),
        ("list_gpus", {"country": "DE,!EU"}, "excludes every country"),
        ("list_gpus", {"country": '["US"'}, "country"),
        ("list_gpus", {"country": ["US", 7]}, "country"),
        ("list_gpus", {"country": " , "}, "country"),
        ("quote_rental", {"executor_id": NODE, "hours": 0}, "hours"),
        ("quote_rental", {"executor_id": NODE, "hours": "nan"}, "hours"),
        ("quote_rental", {"executor_id": NODE, "volume_gb": -1}, "volume_gb"),
        ("quote_rental", {"executor_id": NODE, "volume_gb": "inf"}, "volume_gb"),
        ("quote_rental", {"executor_id": NODE, "gpu_count": -4}, "gpu_count"),
        ("get_gpu_prices", {"gpu_type": True}, "gpu_type"),
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


# --- quotes with filters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [
        {"gpu_type": "RTX4090"},
        {"gpu_type": "H100", "gpu_count": 2, "nvlink": True},
        {"min_vram_gb": 70, "country": "EU"},
        {"max_usd_per_hour": 1, "gpu_count": 4, "tier": "secure"},
    ],
    ids=str,
)
async def test_a_quote_without_a_node_is_of_the_one_that_would_be_rented(agent: Agent, filters: dict[str, Any]) -> None:
    quote = await agent.call("quote_rental", hours=3, **filters)
    planned = await agent.call("rent_pod", name="p", hours=3, dry_run=True, **filters)
    for name in ("executor_id", "gpu_type", "gpu_count", "price_per_hour_usd", "total_usd"):
        assert quote[name] == planned[name], name


async def test_a_quote_for_a_node_names_each_filter_that_it_does_not_meet(agent: Agent) -> None:
    node = (await agent.call("list_gpus", gpu_type="RTX4090", country="US"))["offers"][0]
    wanted = {"executor_id": node["executor_id"], "min_vram_gb": 80, "country": "EU", "gpu_type": "H100"}
    failure = await agent.refused("quote_rental", **wanted)
    assert failure.code == "filters_not_met"
    for said in ("min_vram_gb=80 (it has 24)", "country=EU (it is in US)", "gpu_type=H100 (it has RTX4090)"):
        assert said in failure.text


async def test_a_node_that_does_not_say_how_it_splits_is_not_offered_in_parts(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda rows: [row | {"min_gpu_count_for_rental": None} for row in rows]))
    async with agent_on(sandbox, transport=wire) as agent:
        offers = (await agent.call("list_gpus", gpu_type="A100", gpu_count=1, limit=100))["offers"]
        assert offers
        assert {offer["total_gpus"] for offer in offers} == {1}
        quoted = await agent.call("quote_rental", gpu_type="A100", gpu_count=1)
    assert quoted["executor_id"] == offers[0]["executor_id"]
