"""Rates are shown as Lium states them, and held against ceilings with every digit."""

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Row, Wire, editing, rents

STATED = 2.2000001


def stating(sandbox: Sandbox, price: float) -> Wire:
    wire = Wire(sandbox)
    prices = {"price_per_gpu": price, "price_per_hour": price}
    wire.on("GET", "/executors", editing(lambda rows: [row | {"price_per_gpu": price} for row in rows]))
    wire.on("GET", "/executors/*/quote", editing(lambda body: body | prices))
    wire.on("GET", "/pods", editing(lambda rows: [row | {"price": price} for row in rows]))
    wire.on("GET", "/pods/*", editing(lambda body: body | {"price": price}))
    return wire


async def one_gpu(agent: Agent) -> Row:
    offers = (await agent.call("list_gpus", gpu_type="RTX4090", gpu_count=1))["offers"]
    return {"name": "train", "executor_id": offers[0]["executor_id"], "gpu_count": 1, "wait_seconds": 0}


async def test_a_rate_keeps_its_digits_in_every_answer(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, transport=stating(sandbox, STATED)) as agent:
        offers = (await agent.call("list_gpus"))["offers"]
        assert {offer["price_per_gpu_hour_usd"] for offer in offers} == {STATED}
        prices = (await agent.call("get_gpu_prices"))["gpu_types"]
        assert {row[name] for row in prices for name in ("min_usd", "median_usd", "max_usd")} == {STATED}
        wanted = await one_gpu(agent)
        quote = await agent.call("quote_rental", executor_id=wanted["executor_id"], gpu_count=1)
        assert quote["price_per_hour_usd"] == STATED
        rented = await agent.call("rent_pod", **wanted)
        assert rented["pod"]["price_per_hour_usd"] == STATED
        [listed] = (await agent.call("list_pods"))["pods"]
        assert listed["price_per_hour_usd"] == STATED


@pytest.mark.parametrize(
    ("limits", "arguments"),
    [
        ({"max_price_per_hour_usd": 2.2}, {}),
        ({"max_burn_per_hour_usd": 2.2}, {}),
        ({}, {"max_usd_per_gpu_hour": 2.2}),
    ],
    ids=str,
)
async def test_a_price_above_a_ceiling_by_its_last_digit_is_refused_and_shown_whole(
    sandbox: Sandbox, limits: Row, arguments: Row
) -> None:
    async with agent_on(sandbox, transport=stating(sandbox, STATED), **limits) as agent:
        failure = await agent.refused("rent_pod", **await one_gpu(agent), hours=1, **arguments)
        assert failure.code in {"policy_refused", "price_above_ceiling"}
        assert "$2.2000001" in failure.text
    assert rents(sandbox) == []


@pytest.mark.parametrize("limits", [{"max_price_per_hour_usd": STATED}, {"max_burn_per_hour_usd": STATED}], ids=str)
async def test_a_price_at_its_ceiling_is_rented(sandbox: Sandbox, limits: Row) -> None:
    async with agent_on(sandbox, transport=stating(sandbox, STATED), **limits) as agent:
        await agent.call("rent_pod", **await one_gpu(agent), hours=1)
    assert len(rents(sandbox)) == 1


async def test_a_pod_that_came_out_above_a_ceiling_by_its_last_digit_is_given_back(sandbox: Sandbox) -> None:
    wire = stating(sandbox, STATED)
    wire.on("GET", "/executors", editing(lambda rows: [row | {"price_per_gpu": 2.2} for row in rows]))
    wire.on("GET", "/executors/*/quote", editing(lambda body: body | {"price_per_gpu": 2.2, "price_per_hour": 2.2}))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=2.2) as agent:
        failure = await agent.refused("rent_pod", **await one_gpu(agent) | {"wait_seconds": 60})
    assert failure.code == "dearer_than_allowed"
    assert "$2.2000001" in failure.text
