"""The limits, against an agent that may call any tool in any order: what they refuse is never sent.

Everything goes through an MCP client; the sandbox's own record says what was rented and what it costs.
"""

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from lium_mcp.rentals import LazyLedger
from lium_mcp.sandbox import Sandbox
from lium_mcp.settings_table import LEAST_HOURS
from tests.harness import Agent, Failure, agent_on
from tests.wires import Forward, Row, Wire, ask, editing, first, living, on_rents, rent, rents, rows_of, truth

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
NO_TEMPLATE = "00000000-0000-4000-8000-000000000000"
WAYS = ("by spec", "by node")
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def sandbox() -> Sandbox:
    """An account that can pay for whole nodes, in the middle of a month."""
    return Sandbox(seed=7, speed=0, balance_usd=5000, start=START)


async def node_of(sandbox: Sandbox, gpu: str, count: int = 1) -> Row:
    nodes = [
        row
        for row in await rows_of(sandbox)
        if gpu in row["machine_name"]
        and row.get("min_gpu_count_for_rental") == 1
        and row["available_gpu_count"] >= count
    ]
    return min(nodes, key=lambda row: (float(row["price_per_gpu"]), row["id"]))


async def wanted(sandbox: Sandbox, way: str, name: str = "train", gpu: str = "4090", **more: Any) -> Row:
    """Arguments of a rent of one GPU of the cheapest node of its kind."""
    node = await node_of(sandbox, gpu)
    where = {"executor_id": node["id"]} if way == "by node" else {"gpu_type": gpu if gpu == "H100" else f"RTX{gpu}"}
    return {"name": name, **where, "wait_seconds": 0, **more}


def price_of(sandbox: Sandbox, name: str = "train") -> float:
    [pod] = [pod for pod in living(sandbox) if pod["pod_name"] == name]
    return float(pod["price"])


async def refused(agent: Agent, limit: str, tool: str = "rent_pod", **arguments: Any) -> Failure:
    """The call is refused by this limit, and nothing is rented or changed."""
    before = agent.sandbox.state()
    failure = await agent.refused(tool, **arguments)
    assert failure.code == "policy_refused", failure.text
    assert f"limit {limit} of" in failure.text
    assert "Nothing was changed." in failure.text
    assert "What fits: " in failure.text
    after = agent.sandbox.state()
    assert (after["rents"], after["pods"]) == (before["rents"], before["pods"])
    return failure


def figure(failure: Failure, pattern: str) -> float:
    """A number that the failure says would fit."""
    found = re.search(pattern, failure.text.partition("What fits: ")[2])
    assert found, failure.text
    return float(found[1])


# --- each limit, for a pod -------------------------------------------------------------------------------------------


@every_way
async def test_a_price_above_the_limit_is_refused(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, max_price_per_hour_usd=0.2) as agent:
        await refused(agent, "max_price_per_hour_usd", **await wanted(sandbox, way))
        await agent.call("rent_pod", **await wanted(sandbox, way, gpu="3090"))
    assert price_of(sandbox) <= 0.2


@every_way
async def test_the_price_counts_for_all_gpus_of_a_pod(sandbox: Sandbox, way: str) -> None:
    one = float((await node_of(sandbox, "4090", 2))["price_per_gpu"])
    node = (await node_of(sandbox, "4090", 2))["id"]
    where: Row = {"executor_id": node} if way == "by node" else {"gpu_type": "RTX4090"}
    async with agent_on(sandbox, max_price_per_hour_usd=one * 1.5) as agent:
        await refused(agent, "max_price_per_hour_usd", name="train", gpu_count=2, **where)
        await agent.call("rent_pod", name="train", gpu_count=1, wait_seconds=0, **where)


@every_way
@pytest.mark.parametrize("hours", [3, 2.0001, 720])
async def test_more_hours_than_allowed_are_refused(sandbox: Sandbox, way: str, hours: float) -> None:
    async with agent_on(sandbox, max_hours=2) as agent:
        asked = await wanted(sandbox, way)
        failure = await refused(agent, "max_hours", **asked, hours=hours)
        await agent.call("rent_pod", **asked, hours=figure(failure, r"hours=([\d.]+)"))


@every_way
async def test_hours_of_which_a_rent_carries_more_are_refused(sandbox: Sandbox, way: str) -> None:
    """A server that dies right after the rent leaves a pod with the whole hours of it."""
    async with agent_on(sandbox, max_hours=2.5) as agent:
        asked = await wanted(sandbox, way)
        failure = await refused(agent, "max_hours", **asked, hours=2.2)
        assert "2.2 hours, which Lium takes for 3 at the rent; at most 2.5 are allowed" in failure.text
        assert figure(failure, r"hours=(\d+)") == 2
        await agent.call("rent_pod", **asked)  # hours left out are whole ones
    sandbox.clock.advance(hours=2.2)
    assert living(sandbox) == []


@every_way
async def test_hours_left_out_are_the_most_that_is_allowed(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, max_hours=2) as agent:
        rented = await agent.call("rent_pod", **(await wanted(sandbox, way) | {"wait_seconds": 60}))
    ends = datetime.fromisoformat(rented["pod"]["removal_at"])
    assert timedelta(hours=1.9) < ends - sandbox.clock.now() <= timedelta(hours=2, minutes=1)
    sandbox.clock.advance(hours=2.1)
    assert living(sandbox) == []


@every_way
async def test_more_pods_than_allowed_are_refused(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, max_pods=1) as agent:
        await agent.call("rent_pod", **(await wanted(sandbox, way) | {"wait_seconds": 60}))
        second = await wanted(sandbox, way, "second")
        failure = await refused(agent, "max_pods", **second)
        assert "removing one first" in failure.text
        await agent.call("remove_pod", pod="train")
        await agent.call("rent_pod", **second)


@every_way
async def test_a_burn_above_the_limit_is_refused(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, max_burn_per_hour_usd=0.45) as agent:
        await agent.call("rent_pod", **await wanted(sandbox, way))
        failure = await refused(agent, "max_burn_per_hour_usd", **await wanted(sandbox, way, "second"))
        left = figure(failure, r"at most \$([\d.]+) more")
        cheap = await wanted(sandbox, way, "second", "3090")
        await agent.call("rent_pod", **cheap)
    assert price_of(sandbox, "second") <= left
    assert sum(price_of(sandbox, name) for name in ("train", "second")) <= 0.45


@every_way
async def test_a_budget_bounds_price_times_hours(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, budget_usd=1) as agent:
        asked = await wanted(sandbox, way)
        failure = await refused(agent, "budget_usd", **asked, hours=50)
        hours = figure(failure, r"(\d+) hours at this price")
        await refused(agent, "budget_usd", **asked, hours=hours + 1)
        await agent.call("rent_pod", **asked, hours=hours)
        assert price_of(sandbox) * (hours + 0.1) <= 1 < price_of(sandbox) * (hours + 1.1)
        await refused(agent, "budget_usd", **await wanted(sandbox, way, "second"), hours=1)


@every_way
async def test_with_a_budget_a_pod_needs_hours(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, budget_usd=1) as agent:
        asked = await wanted(sandbox, way)
        failure = await refused(agent, "budget_usd", **asked)
        assert "hours" in failure.text.partition("What fits: ")[2]
        await agent.call("rent_pod", **asked, hours=1)


@every_way
async def test_part_of_an_hour_counts_as_the_hour_that_lium_takes(sandbox: Sandbox, way: str) -> None:
    price = float((await node_of(sandbox, "4090"))["price_per_gpu"])
    async with agent_on(sandbox, budget_usd=price * 0.5) as agent:
        for hours in (LEAST_HOURS, 0.5, 0.99):
            await refused(agent, "budget_usd", **await wanted(sandbox, way), hours=hours)


@every_way
async def test_a_gpu_type_that_is_not_listed_is_refused(sandbox: Sandbox, way: str) -> None:
    async with agent_on(sandbox, allow_gpu_types="RTX 3090,H100") as agent:
        failure = await refused(agent, "allow_gpu_types", **await wanted(sandbox, way))
        assert "3090" in failure.text.partition("What fits: ")[2]
        await agent.call("rent_pod", **await wanted(sandbox, way, gpu="3090"))


async def test_a_country_that_is_not_listed_is_refused(sandbox: Sandbox) -> None:
    nodes = [row for row in await rows_of(sandbox) if row.get("min_gpu_count_for_rental") == 1]
    abroad = next(row for row in nodes if row["location"]["country_code"] != "US")
    async with agent_on(sandbox, allow_countries="us") as agent:
        await refused(agent, "allow_countries", name="train", executor_id=abroad["id"])
        await agent.call("rent_pod", **await wanted(sandbox, "by spec"))
    [pod] = living(sandbox)
    [node] = [row for row in nodes if row["id"] == pod["executor_id"]]
    assert node["location"]["country_code"] == "US"
    async with agent_on(sandbox, allow_countries="AQ") as agent:
        await refused(agent, "allow_countries", **await wanted(sandbox, "by spec", "more"))
        failure = await agent.refused("rent_pod", name="more", gpu_type="H100", max_usd_per_gpu_hour=0.01)
        assert failure.code == "no_gpu_matches"


@every_way
async def test_a_template_that_is_not_listed_is_refused(sandbox: Sandbox, way: str) -> None:
    templates = await ask(sandbox, "GET", "/templates")
    allowed = next(row["id"] for row in templates if row["name"] == "vLLM server")  # recommended for no node
    other = next(row["id"] for row in templates if row["id"] != allowed)
    async with agent_on(sandbox, allow_templates=allowed.upper()) as agent:
        asked = await wanted(sandbox, way)
        await refused(agent, "allow_templates", **asked, template=other)
        await refused(agent, "allow_templates", **asked)  # the choice would be Lium's
        await agent.call("rent_pod", **asked, template=allowed)
        await refused(agent, "allow_templates", "switch_pod_template", pod="train", template=other)


async def test_an_allowed_template_stays_what_it_is(sandbox: Sandbox) -> None:
    wanted = {"image": "busybox:1", "wait_seconds": 0}
    async with agent_on(sandbox) as agent:
        mine, other = [
            (await agent.call("create_template", name=name, **wanted))["template"]["template_id"]
            for name in ("mine", "other")
        ]
    async with agent_on(sandbox, allow_templates=mine.upper()) as agent:
        await refused(agent, "allow_templates", "update_template", template="mine", startup_commands="mine-coins")
        await agent.call("update_template", template=other, startup_commands="train", wait_seconds=0)
        commands = [
            (await agent.call("get_template", template=name, wait_seconds=0))["template"].get("startup_commands")
            for name in (mine, other)
        ]
    assert commands == [None, "train"]


# --- each limit, for a cluster ---------------------------------------------------------------------------------------


async def fabric(agent: Agent) -> list[Row]:
    """The nodes of the first fabric, cheapest first."""
    offer = (await agent.call("list_clusters"))["offers"][0]
    return sorted(offer["nodes"], key=lambda node: float(node["price_per_hour_usd"]))


CLUSTER_LIMITS: dict[str, tuple[Callable[[list[Row]], Row], Row]] = {
    # A cheap node beside a dear one does not make the dear one cheaper.
    "max_price_per_hour_usd": (
        lambda nodes: {
            "max_price_per_hour_usd": (nodes[0]["price_per_hour_usd"] + nodes[-1]["price_per_hour_usd"]) / 2 + 0.1
        },
        {},
    ),
    "max_pods": (lambda _: {"max_pods": 1}, {}),
    "max_burn_per_hour_usd": (lambda nodes: {"max_burn_per_hour_usd": nodes[0]["price_per_hour_usd"] + 1}, {}),
    "budget_usd": (lambda nodes: {"budget_usd": nodes[0]["price_per_hour_usd"] + 1}, {"hours": 1}),
    "max_hours": (lambda _: {"max_hours": 1}, {"hours": 1.5}),
    "allow_gpu_types": (lambda _: {"allow_gpu_types": "RTX4090"}, {}),
    "allow_countries": (lambda _: {"allow_countries": "AQ"}, {}),
    "allow_templates": (lambda _: {"allow_templates": NO_TEMPLATE}, {}),
}


@pytest.mark.parametrize("limit", CLUSTER_LIMITS)
async def test_a_cluster_is_held_to_every_limit(sandbox: Sandbox, limit: str) -> None:
    make_settings, arguments = CLUSTER_LIMITS[limit]
    async with agent_on(sandbox) as agent:
        nodes = await fabric(agent)
    ids = [nodes[0]["executor_id"], nodes[-1]["executor_id"]]
    async with agent_on(sandbox, **make_settings(nodes)) as agent:
        await refused(agent, limit, "rent_cluster", name="train", executor_ids=ids, **arguments)
    async with agent_on(sandbox) as agent:
        await agent.call("rent_cluster", name="train", executor_ids=ids, **arguments)
    assert len(living(sandbox)) == 2


async def test_a_cluster_counts_towards_what_comes_later(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, max_pods=2, max_hours=2, budget_usd=100) as agent:
        nodes = await fabric(agent)
        await agent.call("rent_cluster", name="train", executor_ids=[node["executor_id"] for node in nodes[:2]])
        await refused(agent, "max_pods", **await wanted(sandbox, "by spec", "second"), hours=1)
    sandbox.clock.advance(hours=2.2)
    assert living(sandbox) == [], "hours that were left out are the most that is allowed"


# --- how long a pod lives --------------------------------------------------------------------------------------------


@asynccontextmanager
async def running(sandbox: Sandbox, hours: float = 1, **settings: Any) -> AsyncIterator[Agent]:
    """An agent with one running pod."""
    async with agent_on(sandbox, **settings) as agent:
        await agent.call("rent_pod", **(await wanted(sandbox, "by spec", hours=hours) | {"wait_seconds": 60}))
        yield agent


async def test_no_removal_time_lets_a_pod_live_longer_than_allowed(sandbox: Sandbox) -> None:
    async with running(sandbox, max_hours=2) as agent:
        sandbox.clock.advance(hours=0.5)
        failure = await refused(agent, "max_hours", "schedule_pod_removal", pod="train", hours_from_now=1.6)
        left = figure(failure, r"at most ([\d.]+) hours from now")
        await refused(agent, "max_hours", "cancel_pod_removal", pod="train")
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=left)
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=0.1)
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=left)
    sandbox.clock.advance(hours=left + 0.1)
    assert living(sandbox) == []


async def test_a_pod_whose_beginning_nobody_knows_does_not_live_longer(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with running(sandbox, transport=wire, max_hours=2) as agent:
        wire.on("GET", "/pods", editing(lambda rows: [row | {"created_at": None} for row in rows]))
        await refused(agent, "max_hours", "schedule_pod_removal", pod="train", hours_from_now=1.9)
        await refused(agent, "max_hours", "cancel_pod_removal", pod="train")
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=0.5)


async def test_extending_again_and_again_does_not_add_up(sandbox: Sandbox) -> None:
    async with running(sandbox, max_hours=3) as agent:
        for _ in range(8):
            sandbox.clock.advance(hours=0.45)
            await agent.raw("schedule_pod_removal", pod="train", hours_from_now=1)
    sandbox.clock.advance(hours=3)
    [record] = truth(sandbox, "pods")
    assert 2.5 < record["billed_seconds"] / 3600 < 3.1


async def test_no_removal_time_passes_the_budget(sandbox: Sandbox) -> None:
    async with running(sandbox, budget_usd=1) as agent:
        price = price_of(sandbox)
        failure = await refused(agent, "budget_usd", "schedule_pod_removal", pod="train", hours_from_now=10)
        hours = figure(failure, r"(\d+) hours at this price")
        await refused(agent, "budget_usd", "cancel_pod_removal", pod="train")
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=hours)
        assert price * (hours + 0.1) <= 1
        sandbox.clock.advance(hours=1)
        await refused(agent, "budget_usd", "schedule_pod_removal", pod="train", hours_from_now=hours)


async def test_two_extensions_at_once_do_not_pass_the_budget_together(sandbox: Sandbox) -> None:
    price = float((await node_of(sandbox, "4090"))["price_per_gpu"])
    wire = Wire(sandbox)

    async def slowly(request: Any, forward: Any) -> Any:
        for _ in range(30):
            await anyio.lowlevel.checkpoint()
        return await forward(request)

    async with agent_on(sandbox, transport=wire, budget_usd=price * 12) as agent:
        for name in ("one", "two"):
            asked = await wanted(sandbox, "by spec", name, hours=1, max_usd_per_gpu_hour=price * 1.2)
            await agent.call("rent_pod", **(asked | {"wait_seconds": 60}))
        wire.on("POST", "/pods/*/schedule-removal", slowly)
        async with anyio.create_task_group() as group:
            for name in ("one", "two", "one", "two"):
                group.start_soon(partial(agent.raw, "schedule_pod_removal", pod=name, hours_from_now=9))
    sandbox.clock.advance(hours=12)
    assert living(sandbox) == []
    assert spent(sandbox) <= price * 12 + 0.01


async def test_a_sooner_removal_before_the_boot_does_not_drop_the_exact_time(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        await agent.call("rent_pod", **await wanted(sandbox, "by spec"), hours=1.5)
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=1)
        sandbox.clock.advance(minutes=2)  # the boot sets the whole hours of the rent: two
        await agent.call("get_pod", pod="train")
    sandbox.clock.advance(hours=1.6)
    assert living(sandbox) == []


async def test_starting_a_pod_over_does_not_put_off_its_removal(sandbox: Sandbox) -> None:
    templates = [row["id"] for row in await ask(sandbox, "GET", "/templates")]
    async with running(sandbox, max_hours=1) as agent:
        await agent.call("switch_pod_template", pod="train", template=templates[0])
        sandbox.clock.advance(hours=0.9)
        await refused(agent, "max_hours", "switch_pod_template", pod="train", template=templates[1])
        for _ in range(8):
            sandbox.clock.advance(minutes=1)
            await agent.raw("switch_pod_template", pod="train", template=templates[1], wait_seconds=0)
            await agent.raw("reboot_pod", pod="train", wait_seconds=0)
    assert living(sandbox) == []


# --- what is spent ---------------------------------------------------------------------------------------------------


def spent(sandbox: Sandbox) -> float:
    return sum(float(pod["charged_usd"]) for pod in truth(sandbox, "pods"))


async def test_many_short_rents_do_not_pass_the_budget(sandbox: Sandbox) -> None:
    """Pods of some minutes each, of which the statement says nothing until later."""
    async with agent_on(sandbox, budget_usd=1, max_pods=3) as agent:
        for number in range(40):
            asked = {"name": f"p{number}", "gpu_type": "RTX4090", "hours": 1, "wait_seconds": 60}
            result = await agent.raw("rent_pod", **asked)
            sandbox.clock.advance(minutes=4, seconds=30)
            if not result.is_error:
                await agent.call("remove_pod", pod=f"p{number}")
    sandbox.clock.advance(hours=2)
    assert 0.5 < spent(sandbox) <= 1


async def test_charges_that_the_statement_has_not_yet_count(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", editing(lambda body: body | {"total": 0.0, "pods": []}))
    async with running(sandbox, 2, budget_usd=0.9, transport=wire) as agent:
        price = price_of(sandbox)
        sandbox.clock.advance(hours=1)
        failure = await refused(agent, "budget_usd", **await wanted(sandbox, "by spec", "second"), hours=2)
        left = re.search(r"of the budget of \$0.9 \$([\d.]+) is left", failure.text)
        assert left
        assert float(left[1]) == pytest.approx(0.9 - 2.1 * price, abs=0.02)


async def test_the_last_minutes_of_a_removed_pod_count_while_the_statement_lacks_them(sandbox: Sandbox) -> None:
    async with running(sandbox, 2, budget_usd=1, max_price_per_hour_usd=1) as agent:
        sandbox.clock.advance(minutes=9)
        statement = await ask(sandbox, "GET", "/billing/statement")
        assert statement["total"] > 0
        frozen = Wire(sandbox)
        frozen.on("GET", "/billing/statement", editing(lambda _: statement))
        sandbox.clock.advance(minutes=4)
        await agent.call("remove_pod", pod="train")
    truly = spent(sandbox)
    assert truly > statement["total"]
    async with agent_on(sandbox, transport=frozen, budget_usd=1) as agent:
        failure = await refused(agent, "budget_usd", **await wanted(sandbox, "by spec", "second"), hours=50)
        left = re.search(r"of the budget of \$1 \$([\d.]+) is left", failure.text)
        assert left
        assert float(left[1]) <= round(1 - truly, 2)


@pytest.mark.parametrize("said", [{}, {"total": None}, {"total": "NaN"}, {"total": []}, {"total": "1e999"}], ids=str)
async def test_a_statement_that_says_no_total_is_not_nothing_spent(sandbox: Sandbox, said: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", editing(lambda _: said))
    async with agent_on(sandbox, transport=wire, budget_usd=100) as agent:
        failure = await refused(agent, "budget_usd", **await wanted(sandbox, "by spec"), hours=1)
    assert "does not say what was spent" in failure.text


async def test_negative_charges_make_no_room(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    pods = [{"pod_id": "x", "total": -1000.0}]
    wire.on("GET", "/billing/statement", editing(lambda body: body | {"total": -500.0, "pods": pods}))
    async with agent_on(sandbox, transport=wire, budget_usd=1) as agent:
        await refused(agent, "budget_usd", **await wanted(sandbox, "by spec"), hours=50)


async def test_a_statement_that_cannot_be_read_stops_the_rent(sandbox: Sandbox) -> None:
    sandbox.add_fault("error", times=None, status=500, match={"path": "/billing/statement"})
    async with agent_on(sandbox, budget_usd=100) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by spec"), hours=1)
        assert "Nothing was changed." in failure.text
    assert rents(sandbox) == []


async def test_pods_that_others_rented_on_the_account_count(sandbox: Sandbox) -> None:
    await rent(sandbox, "theirs", termination_hours=3)
    price = price_of(sandbox, "theirs")
    async with agent_on(sandbox, max_pods=1) as agent:
        await refused(agent, "max_pods", **await wanted(sandbox, "by spec"))
    async with agent_on(sandbox, max_burn_per_hour_usd=price + 0.1) as agent:
        await refused(agent, "max_burn_per_hour_usd", **await wanted(sandbox, "by spec"))
    async with agent_on(sandbox, budget_usd=3 * price + 0.2) as agent:
        await refused(agent, "budget_usd", **await wanted(sandbox, "by spec"), hours=1)


async def test_a_pod_without_a_removal_time_leaves_no_budget_until_it_has_one(sandbox: Sandbox) -> None:
    await rent(sandbox, "theirs")
    async with agent_on(sandbox, budget_usd=50) as agent:
        asked = await wanted(sandbox, "by spec", hours=1)
        failure = await refused(agent, "budget_usd", **asked)
        assert "theirs has no removal time" in failure.text
        assert "schedule_pod_removal" in failure.text
        await agent.call("schedule_pod_removal", pod="theirs", hours_from_now=1)
        await agent.call("rent_pod", **asked)


@every_way
async def test_a_pod_that_came_without_a_price_is_reported(sandbox: Sandbox, way: str) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda rows: [row | {"price": None} for row in rows]))
    wire.on("GET", "/pods/*", editing(lambda body: body | {"price": None}))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=5) as agent:
        answer = await agent.call("rent_pod", **await wanted(sandbox, way, hours=1) | {"wait_seconds": 50})
        assert "Lium does not say what it costs" in " ".join(answer["warnings"])
        listed = await agent.call("list_pods")
        assert (listed["burn_per_hour_usd"], listed["unpriced_pods"]) == (0, 1)


@pytest.mark.parametrize("price", [None, "NaN", -5, "free", 1e400], ids=str)
async def test_a_living_pod_whose_price_nobody_can_read_makes_no_room(sandbox: Sandbox, price: Any) -> None:
    await rent(sandbox, "theirs", termination_hours=2)
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda rows: [row | {"price": price} for row in rows]))
    for limit in ("budget_usd", "max_burn_per_hour_usd"):
        settings: Row = {limit: 1000}
        async with agent_on(sandbox, transport=wire, **settings) as agent:
            await refused(agent, limit, **await wanted(sandbox, "by spec"), hours=1)


@pytest.mark.parametrize("price", [None, "NaN", -5, "free", 1e400], ids=str)
@pytest.mark.parametrize("limit", ["max_price_per_hour_usd", "max_burn_per_hour_usd", "budget_usd"])
async def test_a_quote_that_nobody_can_read_is_refused(sandbox: Sandbox, price: Any, limit: str) -> None:
    wire = Wire(sandbox)
    unreadable = {"price_per_gpu": price, "price_per_hour": price}
    wire.on("GET", "/executors", editing(lambda rows: [row | unreadable for row in rows]))
    wire.on("GET", "/executors/*/quote", editing(lambda body: body | unreadable))

    def spoil(body: Row) -> Row:
        return body | {"price_per_hour": price, "selected_executor": body["selected_executor"] | unreadable}

    dry = Wire(sandbox)
    dry.on("POST", "/executors/rent-by-spec", editing(spoil))
    settings: Row = {limit: 1000}
    for way, transport in (("by node", wire), ("by spec", dry)):
        async with agent_on(sandbox, transport=transport, **settings) as agent:
            failure = await agent.refused("rent_pod", **await wanted(sandbox, way), hours=1)
            assert failure.code in {"policy_refused", "price_unknown"}, failure.text
    assert rents(sandbox) == []


async def test_the_budget_begins_with_the_month_or_where_it_is_said(sandbox: Sandbox) -> None:
    async with running(sandbox, 2) as agent:
        sandbox.clock.advance(hours=3)
        cost = spent(sandbox)
        assert cost > 0.4
        await agent.call("list_pods")  # a rent counts until somebody sees that its pod is gone
    sandbox.clock.advance(hours=24 * 3)
    tight: Row = {"budget_usd": cost + 0.05}
    for since, is_room in ((None, False), ("2026-11-20", False), ("2026-11-22", True), ("2026-10-01", False)):
        settings = tight | ({"budget_since": since} if since else {})
        async with agent_on(sandbox, **settings) as agent:
            result = await agent.raw("rent_pod", **await wanted(sandbox, "by spec", f"p{since}"), hours=1)
            assert result.is_error is not is_room, result.content
            if is_room:
                sandbox.clock.advance(minutes=1)
                await agent.call("remove_pod", pod=f"p{since}")
    sandbox.clock.advance(hours=24 * 9)  # December
    async with agent_on(sandbox, **tight) as agent:
        await agent.call("rent_pod", **await wanted(sandbox, "by spec", "next-month"), hours=1)


async def test_a_budget_that_begins_in_the_future_allows_nothing_more(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, budget_usd=0.1, budget_since="2030-01-01") as agent:
        failure = await refused(agent, "budget_usd", **await wanted(sandbox, "by spec"), hours=1)
        assert "begins on 2030-01-01" in failure.text


# --- what comes out otherwise than quoted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [{"max_price_per_hour_usd": 0.3}, {"max_burn_per_hour_usd": 0.3}, {"budget_usd": 0.6}], ids=str
)
async def test_a_price_that_rises_between_quote_and_rent_is_not_paid(sandbox: Sandbox, limits: Row) -> None:
    wire = Wire(sandbox)
    for path in ("/pods", "/pods/*"):
        wire.on(
            "GET",
            path,
            editing(
                lambda body: [row | {"price": 9.5} for row in body] if isinstance(body, list) else body | {"price": 9.5}
            ),
        )
    async with agent_on(sandbox, transport=wire, **limits) as agent:
        failure = await agent.refused("rent_pod", **(await wanted(sandbox, "by node", hours=2) | {"wait_seconds": 60}))
        assert failure.code == "dearer_than_allowed"
        [pod] = truth(sandbox, "pods")
        assert f"Call get_pod with {pod['id']} until it is gone" in failure.text
        sandbox.clock.advance(minutes=1)  # one that starts cannot be removed yet
        await agent.call("list_pods")
    sandbox.clock.advance(minutes=1)
    assert len(rents(sandbox)) == 1
    assert living(sandbox) == []


# --- several at once -------------------------------------------------------------------------------------------------


async def test_many_rents_at_once_pass_no_limit_together(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, max_pods=3, max_burn_per_hour_usd=2, budget_usd=50) as agent:
        asked = [await wanted(sandbox, "by spec", f"p{number}", hours=1) for number in range(8)]
        async with anyio.create_task_group() as group:
            for arguments in asked:
                group.start_soon(partial(agent.raw, "rent_pod", **arguments))
        assert 1 <= len(rents(sandbox)) <= 3
        for arguments in asked:  # a node that was taken by the rent before was too dear elsewhere
            await agent.raw("rent_pod", **arguments)
    assert len(rents(sandbox)) == 3


@pytest.mark.parametrize("limits", [{"max_pods": 1}, {"max_burn_per_hour_usd": 0.4}, {"budget_usd": 0.4}], ids=str)
async def test_two_servers_with_one_ledger_pass_no_limit_together(sandbox: Sandbox, limits: Row) -> None:
    """Each lists the pods before the other's rent is there, and only the ledger knows of it."""
    arrived = [0]
    both = anyio.Event()

    async def meet(request: Any, forward: Any) -> Any:
        arrived[0] += 1
        if arrived[0] == 2:
            both.set()
        with anyio.move_on_after(0.3):
            await both.wait()
        return await forward(request)

    wires = [Wire(sandbox), Wire(sandbox)]
    async with (
        agent_on(sandbox, transport=wires[0], **limits) as one,
        agent_on(sandbox, transport=wires[1], **limits) as other,
    ):
        for wire in wires:
            on_rents(wire, first(lambda: None))
            wire.on("GET", "/pods", meet, times=1)
        async with anyio.create_task_group() as group:
            for agent, name in ((one, "one"), (other, "other")):
                group.start_soon(partial(agent.raw, "rent_pod", **await wanted(sandbox, "by spec", name, hours=1)))
    assert len(rents(sandbox)) == 1


# --- shadow mode -----------------------------------------------------------------------------------------------------

SHADOWED: dict[str, tuple[Row, Row]] = {
    "max_price_per_hour_usd": ({"max_price_per_hour_usd": 0.01}, {}),
    "max_hours": ({"max_hours": 1}, {"hours": 5}),
    "max_pods": ({"max_pods": 0}, {}),
    "max_burn_per_hour_usd": ({"max_burn_per_hour_usd": 0.01}, {}),
    "budget_usd": ({"budget_usd": 0.01}, {"hours": 5}),
    "allow_gpu_types": ({"allow_gpu_types": "H100"}, {}),
    "allow_countries": ({"allow_countries": "AQ"}, {}),
    "allow_templates": ({"allow_templates": NO_TEMPLATE}, {}),
}


@every_way
@pytest.mark.parametrize("limit", SHADOWED)
async def test_shadow_mode_refuses_nothing_and_logs_one_line(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, limit: str, way: str
) -> None:
    limits, arguments = SHADOWED[limit]
    caplog.set_level(logging.WARNING, "lium_mcp.guard")
    async with agent_on(sandbox, policy_mode="shadow", **limits) as agent:
        await agent.call("rent_pod", **await wanted(sandbox, way, "secret-name"), **arguments)
    lines = [record.getMessage() for record in caplog.records if record.name == "lium_mcp.guard.policy"]
    assert lines == [f"policy=shadow limit={limit} would have refused a call"]


async def test_shadow_mode_lets_lives_be_changed(sandbox: Sandbox) -> None:
    templates = [row["id"] for row in await ask(sandbox, "GET", "/templates")]
    async with running(
        sandbox, policy_mode="shadow", max_hours=1, budget_usd=0.01, allow_templates=NO_TEMPLATE
    ) as agent:
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=100)
        await agent.call("cancel_pod_removal", pod="train")
        await agent.call("switch_pod_template", pod="train", template=templates[0])
        assert "no_removal_time" not in (await agent.call("get_pod", pod="train"))


# --- a team's file beside the settings -------------------------------------------------------------------------------


def policy_file(text: str) -> Path:
    path = Path.home() / "policy.toml"
    path.write_text(text)
    return path


async def test_limits_of_the_file_alone_hold(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, policy=policy_file("max_pods = 0")) as agent:
        await refused(agent, "max_pods", **await wanted(sandbox, "by spec"))


@pytest.mark.parametrize(("setting", "written"), [(5, 1), (1, 5)])
async def test_of_two_limits_the_tighter_holds(sandbox: Sandbox, setting: int, written: int) -> None:
    async with agent_on(sandbox, max_hours=setting, policy=policy_file(f"max_hours = {written}")) as agent:
        asked = await wanted(sandbox, "by spec")
        await refused(agent, "max_hours", **asked, hours=2)
        await agent.call("rent_pod", **asked, hours=1)


async def test_of_two_lists_what_both_have_is_allowed(sandbox: Sandbox) -> None:
    both = policy_file('allow_gpu_types = ["RTX3090", "H100"]\nallow_countries = ["US"]')
    async with agent_on(sandbox, allow_gpu_types="RTX4090,rtx3090", policy=both) as agent:
        await refused(agent, "allow_gpu_types", **await wanted(sandbox, "by spec", gpu="4090"))
        await refused(agent, "allow_gpu_types", **await wanted(sandbox, "by spec", gpu="H100"))
        await agent.call("rent_pod", name="train", gpu_type="RTX3090", wait_seconds=0)
    async with agent_on(sandbox, allow_gpu_types="RTX4090", policy=both) as agent:
        for gpu in ("4090", "H100", "3090"):
            await refused(agent, "allow_gpu_types", **await wanted(sandbox, "by spec", "second", gpu))


async def test_the_mode_of_the_file_wins(sandbox: Sandbox) -> None:
    enforcing = policy_file('max_pods = 0\nmode = "enforce"')
    async with agent_on(sandbox, policy=enforcing, policy_mode="shadow") as agent:
        await refused(agent, "max_pods", **await wanted(sandbox, "by spec"))


async def test_a_pod_that_a_person_removed_takes_no_room_and_is_closed_by_the_next_look(sandbox: Sandbox) -> None:
    asked = {"gpu_type": "RTX3090", "wait_seconds": 0}
    async with agent_on(sandbox, budget_usd=8) as agent:
        gone = await agent.call("rent_pod", name="gone", hours=40, **asked)
        kept = await agent.call("rent_pod", name="kept", hours=2, **asked)
        sandbox.clock.advance(minutes=2)
        await ask(sandbox, "DELETE", f"/pods/{gone['pod_id']}")
        sandbox.clock.advance(minutes=2)
        await agent.call("schedule_pod_removal", pod=kept["pod_id"], hours_from_now=40)
        await agent.call("list_pods")
    [ledger] = Path.home().glob("ledger-*.db")
    rows = LazyLedger(f"sqlite:///{ledger}")
    assert {row.pod_name: row.status for row in await rows.open().newest(9)} == {"gone": "removed", "kept": "rented"}
    await rows.aclose()
    assert [pod["pod_name"] for pod in living(sandbox)] == ["kept"]


async def test_in_place_of_a_node_that_is_taken_in_this_moment_comes_what_the_limits_allow(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    # As if the node that was quoted were gone by the time of the rent.
    cheaper = editing(lambda body: body | {"price_per_hour": body["price_per_hour"] / 2})
    wire.on("POST", "/executors/rent-by-spec", cheaper, times=1)
    wanted = {"name": "train", "gpu_type": "RTX3090", "hours": 2, "wait_seconds": 0}
    async with agent_on(sandbox, budget_usd=50, max_price_per_hour_usd=0.138, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **wanted)
        assert failure.code == "nodes_taken"
        assert "Nothing was changed." in failure.text
        assert "max_price_per_hour_usd" in failure.text
        assert "max_price_per_gpu_hour" not in failure.text
        assert rents(sandbox) == []
    wire.on("POST", "/executors/rent-by-spec", cheaper, times=1)
    async with agent_on(sandbox, budget_usd=50, transport=wire) as agent:
        await agent.call("rent_pod", **wanted)
    assert len(rents(sandbox)) == 1


async def test_a_pod_that_an_earlier_call_rented_is_not_given_back(sandbox: Sandbox) -> None:
    wanted = {"name": "train", "gpu_type": "RTX3090", "hours": 2, "wait_seconds": 0}
    wire = Wire(sandbox)
    async with agent_on(sandbox, budget_usd=50) as one, agent_on(sandbox, budget_usd=50, transport=wire) as two:

        async def one_comes_first(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            await one.call("rent_pod", **wanted)
            return await forward(request)

        # What the second is quoted is less than what the first has paid.
        cheaper = editing(lambda body: body | {"price_per_hour": body["price_per_hour"] / 2})
        wire.on("POST", "/executors/rent-by-spec", cheaper)
        wire.on("GET", "/billing/statement", one_comes_first, times=1)
        answer = await two.call("rent_pod", **wanted)
    [pod] = living(sandbox)
    assert (answer["already_rented"], answer["pod_id"]) == (True, pod["id"])
    assert len(rents(sandbox)) == 1
    assert pod["removal_scheduled_at"] is None


async def test_a_pod_of_the_name_that_another_rented_is_left_alone_whatever_it_costs() -> None:
    older = Sandbox(seed=7, speed=0, start=START, features=("rent_by_spec", "run_record"))
    wire = Wire(older)

    async def somebody_else_rents(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if json.loads(request.content)["dry_run"]:
            return await forward(request)
        body = json.loads(request.content) | {
            "gpu_type": "H100",
            "max_price_per_gpu_hour": None,
            "termination_hours": 9,
        }
        await ask(older, "POST", "/executors/rent-by-spec", body)
        raise httpx2.ReadError("the connection broke")

    wire.on("POST", "/executors/rent-by-spec", somebody_else_rents)
    async with agent_on(older, transport=wire, max_price_per_hour_usd=1) as agent:
        lost = await agent.refused("rent_pod", name="train", gpu_type="RTX3090", hours=20)
        assert lost.code == "outcome_unknown"
        older.clock.advance(minutes=5)
        await agent.call("list_pods")
    assert len(living(older)) == 1
    assert wire.sent("DELETE", "/pods/*") == wire.sent("POST", "/pods/*/schedule-removal") == []
