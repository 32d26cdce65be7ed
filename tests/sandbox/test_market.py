"""The market: seeded, moving, full of the holes that real listings have."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.market import Market, short_type
from tests.sandbox.wire import Wire, wire_to

START = datetime(2026, 10, 6, 12, tzinfo=UTC)


async def test_one_seed_gives_one_market_whenever_the_sandbox_starts() -> None:
    listings = []
    for seed, start in ((7, START), (7, START + timedelta(days=3, hours=5)), (8, START)):
        async with wire_to(Sandbox(seed=seed, speed=0, start=start)) as wire:
            rows = await wire.listing()
            listings.append([(row["id"], row["price_per_gpu"], row["available_gpu_count"]) for row in rows])
    assert listings[0] == listings[1] != listings[2]


async def test_prices_drift_and_other_renters_come_and_go(sandbox: Sandbox, wire: Wire) -> None:
    before = {row["id"]: row for row in await wire.listing()}
    sandbox.clock.advance(hours=5)
    after = {row["id"]: row for row in await wire.listing()}
    assert before.keys() - after.keys()
    assert after.keys() - before.keys()
    changes = [after[i]["price_per_gpu"] / before[i]["price_per_gpu"] for i in before.keys() & after.keys()]
    assert any(change != 1 for change in changes)
    assert all(0.8 < change < 1.25 for change in changes)


@given(seed=st.integers(0, 10_000), minutes=st.integers(0, 60 * 24 * 60))
@settings(max_examples=15)
def test_eight_a100_nodes_are_always_free(seed: int, minutes: int) -> None:
    market = Market(seed, START)
    free = market.listed(START + timedelta(minutes=minutes))
    assert sum("A100" in node.gpu.name for node in free) >= 8


@given(seed=st.integers(0, 10_000), minutes=st.integers(0, 60 * 24 * 60))
@settings(max_examples=15)
def test_a_listed_node_can_be_rented_at_its_smallest_split(seed: int, minutes: int) -> None:
    market, now = Market(seed, START), START + timedelta(minutes=minutes)
    for node in market.listed(now):
        assert node.smallest_split <= market.free_gpus(node, now) <= node.gpu_count
        assert market.price(node, now) > 0


async def test_the_listing_has_the_holes_of_a_real_one(wire: Wire) -> None:
    rows = await wire.listing()
    assert any(isinstance(row["gpu_count"], str) for row in rows)
    assert any("min_gpu_count_for_rental" not in row for row in rows)
    assert any(row.get("min_gpu_count_for_rental", 0) is None for row in rows)
    assert any(row["location"] is None for row in rows)
    parts = [row["specs"].get(name) for row in rows for name in ("cpu", "ram", "hard_disk", "network")]
    assert None in parts
    assert any(part is not None and set(part.values()) == {None} for part in parts)
    assert {row["tier"] for row in rows} == {"spot", "secure", None}


async def test_the_full_view_carries_the_scrape_that_the_summary_leaves_out(wire: Wire) -> None:
    [brief] = [row for row in await wire.listing(machine_names="NVIDIA H200") if row["gpu_count"] == 8][:1]
    [full] = [row for row in await wire.ok("listExecutors") if row["id"] == brief["id"]]
    assert len(brief["specs"]["gpu"]["details"]) == 1
    assert len({card["uuid"] for card in full["specs"]["gpu"]["details"]}) == 8
    assert len(full["interconnect"]["matrix"]) == 8
    assert full["specs"]["ram"]["free"] + full["specs"]["ram"]["used"] == full["specs"]["ram"]["total"]


async def test_filters_keep_what_they_say_and_drop_what_is_unknown(wire: Wire) -> None:
    name = "NVIDIA A100-SXM4-80GB"
    assert {row["machine_name"] for row in await wire.listing(machine_names=f"{name},NVIDIA L4")} == {
        name,
        "NVIDIA L4",
    }
    assert await wire.listing(machine_names="A100") == []
    assert {int(row["gpu_count"]) for row in await wire.listing(gpu_count_gte=4, gpu_count_lte=4)} == {4}
    assert all(row["nvlink"] is True for row in await wire.listing(nvlink="true"))
    fast = await wire.listing(min_download_mbps=2000)
    assert fast
    assert all(row["effective_download_speed_mbps"] >= 2000 for row in fast)
    assert not any(row["frequent_rent_failures"] for row in await wire.listing(reliable_only="true"))
    near = await wire.listing(lat=50.1, lon=8.7, max_distance_mile=300)
    assert near
    assert {row["location"]["city"] for row in near} <= {"Frankfurt", "Amsterdam", "Paris"}
    whole = len(await wire.listing())
    assert len(await wire.listing(size=5)) == whole
    assert len(await wire.listing(size=5, page=2)) == 5
    await wire.refused("listExecutors", 422, query={"gpu_count_gte": "many"})


async def test_a_quote_adds_up_and_without_a_count_prices_all_free_gpus(wire: Wire) -> None:
    node = await wire.node(gpus=4)
    query = {"hours": 2, "volume_gb": 100, "backup_gb": 10}
    quote = await wire.ok("quoteExecutor", executor_id=node["id"], query=query)
    assert quote["gpu_count"] == node["available_gpu_count"]
    assert quote["price_per_hour"] == pytest.approx(node["price_per_gpu"] * node["available_gpu_count"])
    priced = [line["amount_usd"] for line in quote["lines"] if line["amount_usd"] is not None]
    assert quote["total_usd"] == pytest.approx(sum(priced))
    assert quote["total_usd"] > quote["price_per_hour"] * 2
    assert quote["pod_balance_floor_usd"] == pytest.approx(quote["price_per_hour"] / 4)
    assert quote["rent_balance_required_usd"] == pytest.approx(quote["price_per_hour"] / 4)
    anonymous = await wire.ok("quoteExecutor", executor_id=node["id"], key=None, query=query)
    assert anonymous["rent_balance_required_usd"] is None
    await wire.refused("quoteExecutor", 422, executor_id=node["id"])
    await wire.refused("quoteExecutor", 422, executor_id=node["id"], query={"hours": 1, "gpu_count": 9})


async def test_a_sold_out_type_is_known_but_not_listed(wire: Wire) -> None:
    machines = {row["name"]: row for row in await wire.ok("listMachines", key=None)}
    assert machines["NVIDIA B300 SXM6 AC"]["rental_rate"] == 1
    assert await wire.listing(machine_names="NVIDIA B300 SXM6 AC") == []
    await wire.refused("requestMachine", 422, json={"machine_name": "B300"})


def test_short_types_are_what_users_type() -> None:
    names = {
        "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTXPRO6000",
        "NVIDIA GeForce RTX 4090": "RTX4090",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-80GB": "A100",
        "NVIDIA L40S": "L40S",
        "NVIDIA L4": "L4",
        "NVIDIA RTX A6000": "A6000",
    }
    assert {name: short_type(name) for name in names} == names
