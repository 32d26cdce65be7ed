"""Answers that lie about money and time: none makes room under a limit, and nonsense counts against the caller."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire, answering, editing, living, offers, rent, rents

BY_SPEC = {"name": "train", "gpu_type": "RTX4090", "hours": 2}
# No price at all, or none that anybody can be asked to pay.
NO_PRICES = [-1, float("nan"), float("-inf"), "NaN", "-5", "free", None, {"a": 1}, True]
ABSURD_PRICES = [float("inf"), "1e308", 10**400]
LIMITS = {"max_price_per_hour_usd": 1.0, "max_burn_per_hour_usd": 5.0, "budget_usd": 50.0}

Row = dict[str, Any]


@asynccontextmanager
async def agent_with(sandbox: Sandbox, wire: Wire, **limits: Any) -> AsyncIterator[Agent]:
    async with agent_on(sandbox, transport=wire, **limits) as agent:
        yield agent


def each_row(**changes: Any) -> Callable[[Any], Any]:
    return lambda rows: [row | changes for row in rows]


async def refused_by(agent: Agent, limit: str, **arguments: Any) -> None:
    failure = await agent.refused("rent_pod", **arguments)
    assert failure.code == "policy_refused", failure.text
    assert limit in failure.text
    assert "Traceback" not in failure.text


@pytest.mark.parametrize(("limit", "most"), LIMITS.items())
@pytest.mark.parametrize("price", NO_PRICES + ABSURD_PRICES, ids=str)
async def test_a_selection_without_a_sane_price_is_not_rented_under_a_limit(
    sandbox: Sandbox, limit: str, most: float, price: Any
) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/executors/rent-by-spec", editing(lambda body: body | {"price_per_hour": price}))
    async with agent_with(sandbox, wire, **{limit: most}) as agent:
        await refused_by(agent, limit, **BY_SPEC)
    assert rents(sandbox) == []


@pytest.mark.parametrize(("limit", "most"), LIMITS.items())
@pytest.mark.parametrize("price", NO_PRICES + ABSURD_PRICES, ids=str)
async def test_a_quote_without_a_sane_price_rents_at_no_more_than_the_listing_says(
    sandbox: Sandbox, limit: str, most: float, price: Any
) -> None:
    node = next(row for row in await offers(sandbox) if float(row["price_per_gpu"]) > 0)
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", editing(lambda body: body | {"price_per_hour": price, "total_usd": price}))
    wire.on("GET", "/executors", editing(each_row(price_per_gpu=price)))
    async with agent_with(sandbox, wire, **{limit: most}) as agent:
        failure = await agent.refused("rent_pod", name="train", executor_id=node["id"], hours=2)
        assert failure.code in {"policy_refused", "price_unknown"}, failure.text
        quoted = await agent.raw("quote_rental", executor_id=node["id"])
        if not quoted.is_error:
            assert (quoted.structured_content or {})["price_per_hour_usd"] > most
    assert rents(sandbox) == []


@pytest.mark.parametrize(
    ("limit", "changes"),
    [
        *((limit, {"price": price}) for limit in ("max_burn_per_hour_usd", "budget_usd") for price in NO_PRICES),
        *((limit, {"price": price}) for limit in ("max_burn_per_hour_usd", "budget_usd") for price in ABSURD_PRICES),
        *(
            ("budget_usd", {"termination_hours": hours, "removal_scheduled_at": at})
            for hours in (-(10**12), 0, "soon")
            for at in (
                None,
                "",
                "never",
                "0001-01-01T00:00:00Z",
                "1970-01-01T00:00:00+23:59",
                -1,
                "9999-12-31T23:59:59Z",
            )
        ),
        ("budget_usd", {"termination_hours": 2**62}),
        ("budget_usd", {"id": None}),
        ("max_burn_per_hour_usd", {"id": {}}),
        ("max_pods", {"id": []}),
        ("max_pods", {"pod_name": None, "price": -1}),
        ("max_pods", {"status": "\u202e"}),
    ],
    ids=str,
)
async def test_a_living_pod_whose_row_makes_no_sense_counts_against_the_limit(
    sandbox: Sandbox, limit: str, changes: Row
) -> None:
    await rent(sandbox, "other", termination_hours=2)
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(each_row(**changes)))
    async with agent_with(sandbox, wire, **({limit: 1} if limit == "max_pods" else {limit: 50.0})) as agent:
        await refused_by(agent, limit, **BY_SPEC)
    assert [pod["pod_name"] for pod in living(sandbox)] == ["other"]


@pytest.mark.parametrize(
    ("budget", "changes"),
    [
        # Two hours cost more than this budget, whatever was spent before.
        (0.1, {"total": -1e6}),
        (0.1, {"total": -1e6, "pods": [{"pod_id": "a", "total": -1e9}]}),
        (0.1, {"total": "-1e6", "pods": None}),
        (50, {"pods": [{"pod_id": "a", "total": 1e9}, {"pod_id": "a", "total": -1e12}]}),
        (50, {"total": 0, "pods": [{"pod_id": "a", "total": 60}, {"pod_id": "b", "total": -60}]}),
        (50, {"pods": [{"pod_id": "a", "total": 1e308}, {"pod_id": "b", "total": 1e308}]}),
        (50, {"total": None}),
        (50, {"total": float("nan"), "pods": [{"pod_id": "a", "total": 1}]}),
    ],
)  # fmt: skip
async def test_no_statement_gives_a_budget_back(sandbox: Sandbox, budget: float, changes: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", editing(lambda body: body | changes))
    async with agent_with(sandbox, wire, budget_usd=budget) as agent:
        await refused_by(agent, "budget_usd", **BY_SPEC)
        await agent.call("get_spending")
    assert rents(sandbox) == []


@pytest.mark.parametrize("price", [-1, -1e308, "NaN", None], ids=str)
async def test_a_pod_without_a_sane_price_cannot_be_kept_longer_under_a_budget(sandbox: Sandbox, price: Any) -> None:
    await rent(sandbox, "other", termination_hours=2)
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(each_row(price=price)))
    async with agent_with(sandbox, wire, budget_usd=10) as agent:
        failure = await agent.refused("schedule_pod_removal", pod="other", hours_from_now=700)
        assert failure.code == "policy_refused"
        assert "budget_usd" in failure.text


@pytest.mark.parametrize("count", [-1, 0, 10**9, "many"], ids=str)
async def test_a_count_of_gpus_that_makes_no_sense_hides_no_price(sandbox: Sandbox, count: Any) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"gpu_count": count, "price": 500}))
    async with agent_with(sandbox, wire) as agent:
        failure = await agent.refused("rent_pod", **BY_SPEC, max_usd_per_gpu_hour=1)
        assert failure.code == "dearer_than_allowed", failure.text


@pytest.mark.parametrize("count", [-8, 0, None, "many"], ids=str)
async def test_a_cluster_node_with_no_sane_count_of_gpus_has_no_negative_price(sandbox: Sandbox, count: Any) -> None:
    wire = Wire(sandbox)
    node = {
        "id": "n1",
        "machine_name": "NVIDIA H100",
        "price_per_gpu": 3,
        "gpu_count": count,
        "specs": {"gpu": {"count": -8}},
    }
    offer = {"fabric_id": "f", "nodes": [node, node | {"id": "n2"}]}
    wire.on("GET", "/executors/infiniband-clusters", answering(200, [offer]))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=1) as agent:
        page = await agent.call("list_clusters")
        assert all(row.get("price_per_hour_usd", 0) >= 0 for shown in page["offers"] for row in shown["nodes"])
        failure = await agent.refused("rent_cluster", name="c", executor_ids=["n1", "n2"])
        assert failure.code == "policy_refused", failure.text
    assert rents(sandbox) == []
