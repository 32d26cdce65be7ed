"""What a GPU costs: quartiles that agree with the offers, and quotes that agree with the API."""

import math
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, agent_on
from tests.wires import Wire, all_offers, answering, ask, editing, rows_of, smallest_count

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
UNKNOWN_NODE = "00000000-0000-4000-8000-00000000dead"

Row = dict[str, Any]


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
        assert row["vram_gb"] in {offer.get("vram_gb") for offer in mine}
        expected = [each[0], _quantile(each, 0.25), _quantile(each, 0.5), _quantile(each, 0.75), each[-1]]
        names = ("min_usd", "q1_usd", "median_usd", "q3_usd", "max_usd")
        assert [row[name] for name in names] == pytest.approx(expected, abs=1e-4)
    medians = [row["median_usd"] for row in prices["gpu_types"]]
    assert medians == sorted(medians)


async def test_prices_of_one_type_are_the_same_as_in_the_whole_list(agent: Agent) -> None:
    everything = {row["gpu_type"]: row for row in (await agent.call("get_gpu_prices"))["gpu_types"]}
    for asked, rows in {
        "h100": {"H100 80GB HBM3", "H100 PCIe", "H100 NVL"},
        "H100 PCIe": {"H100 PCIe"},
        "4090, RTX A6000": {"RTX4090", "A6000"},
    }.items():
        some = await agent.call("get_gpu_prices", gpu_type=asked)
        assert {row["gpu_type"] for row in some["gpu_types"]} == rows
        assert some["total"] == len(rows)
        assert all(row == everything[row["gpu_type"]] for row in some["gpu_types"])


# --- quotes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def splittable(sandbox: Sandbox) -> Row:
    rows = await rows_of(sandbox)
    return next(row for row in rows if smallest_count(row) == 2 and row["available_gpu_count"] > 2)


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
    assert [line["item"] for line in theirs["lines"]] == ["compute", "volume", "backup", "egress"]
    assert quote["lines"][3] == {
        "item": "egress",
        "unit": "GB",
        "quantity": 0,
        "note": "charged at provider cost",
    }, "what nobody can price before is no reason to keep silent about it"
    assert sum(line.get("amount_usd", 0) for line in quote["lines"]) == pytest.approx(quote["total_usd"], abs=1e-3)


@pytest.mark.parametrize("said", [{"total_usd": None, "lines": []}, {"price_per_hour": None, "total_usd": 0}])
async def test_a_total_that_lium_does_not_quote_is_said_to_be_worked_out(
    sandbox: Sandbox, splittable: Row, said: Row
) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        theirs = await agent.call("quote_rental", executor_id=splittable["id"], hours=3)
        wire.on("GET", "/executors/*/quote", editing(lambda quote: quote | said))
        ours = await agent.call("quote_rental", executor_id=splittable["id"], hours=3)
    assert ours["total_usd"] == pytest.approx(3 * ours["price_per_hour_usd"], abs=1e-4)
    assert any("Lium quotes no total" in warning for warning in ours["warnings"])
    assert not any("total" in warning for warning in theirs.get("warnings", []))


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


@pytest.mark.parametrize("node", [UNKNOWN_NODE, "../users/me", "cosmic-hawk-f2"])
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
    async with agent_on(sandbox, api_key=None) as keyless:
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
        assert failure.code == "not_supported"
        assert "Leave volume_gb and backup_gb out." in failure.text


async def test_a_price_of_nothing_is_not_the_cheapest(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda nodes: [nodes[0] | {"price_per_gpu": 0}, *nodes[1:]]))
    async with agent_on(sandbox, transport=wire) as agent:
        listed = await agent.call("list_gpus", limit=100)
        prices = await agent.call("get_gpu_prices")
    assert all(offer["price_per_gpu_hour_usd"] > 0 for offer in listed["offers"])
    assert all(row["min_usd"] > 0 for row in prices["gpu_types"])
