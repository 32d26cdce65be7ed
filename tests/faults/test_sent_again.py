"""A rent whose answer was lost is sent again only where it might leave now: that may do the work for the first time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.faults.virtual_time import LoopClock, run_virtually
from tests.harness import Agent, Person, agent_on
from tests.wires import (
    Act,
    Forward,
    Wire,
    answering,
    editing,
    failing,
    living,
    losing_the_answer,
    offers,
    on_rents,
    passing,
    rent,
    rents,
    sent_rents,
)

ID = "00000000-0000-4000-8000-000000000000"
LOST = failing(httpx2.ReadError("the connection broke"))
LOWERED: dict[str, dict[str, Any]] = {
    "max_price_per_hour_usd": {"max_price_per_hour_usd": 0.01},
    "max_pods": {"max_pods": 0},
    "max_hours": {"max_hours": 1},
    "max_burn_per_hour_usd": {"max_burn_per_hour_usd": 0.01},
    "budget_usd": {"budget_usd": 0.01},
    "allow_gpu_types": {"allow_gpu_types": frozenset({"H200"})},
    "allow_countries": {"allow_countries": frozenset({"AQ"})},
    "allow_templates": {"allow_templates": frozenset({ID})},
    "does not offer rent_pod": {"deny_tools": frozenset({"rent_pod"})},
    "a person is asked": {"confirm": "always"},
}


@pytest.fixture
def account() -> Sandbox:
    return Sandbox(seed=7, speed=0, balance_usd=5000)


async def a_node(account: Sandbox) -> str:
    return str(next(row["id"] for row in await offers(account) if row.get("min_gpu_count_for_rental") == 1))


async def lose_a_rent(account: Sandbox, **settings: Any) -> None:
    """Let a server send a rent that never arrives, and end."""
    wire = Wire(account)
    on_rents(wire, LOST)
    node = await a_node(account)
    async with agent_on(account, transport=wire, **settings) as agent:
        failure = await agent.refused("rent_pod", name="train", executor_id=node, hours=2, wait_seconds=0)
    assert failure.code == "outcome_unknown"


async def look_for_ten_minutes(agent: Agent) -> list[str]:
    """Look again and again, and return what was advised meanwhile."""
    advice = []
    for _ in range(10):
        agent.sandbox.clock.advance(minutes=1)
        advice += [row["next"] for row in (await agent.call("list_pods")).get("unsettled", [])]
    return advice


@pytest.mark.parametrize("why", LOWERED)
async def test_a_server_sends_no_rent_again_that_it_might_not_send_itself(account: Sandbox, why: str) -> None:
    await lose_a_rent(account)
    wire = Wire(account)
    async with agent_on(account, transport=wire, **LOWERED[why]) as agent:
        advice = await look_for_ten_minutes(agent)
        assert "unsettled" not in await agent.call("list_pods")
    assert sent_rents(wire) == []
    assert rents(account) == []
    assert "not sent again, since" in advice[0]
    assert why in advice[0]
    assert "looks for its pod" in advice[-1]


@pytest.mark.parametrize("why", ["max_price_per_hour_usd", "max_pods"])
async def test_a_pod_that_is_there_already_is_found_by_its_name_all_the_same(account: Sandbox, why: str) -> None:
    wire = Wire(account)
    node = await a_node(account)

    async def lose_sight(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        wire.on("*", "**", LOST)
        return await losing_the_answer()(request, forward)

    on_rents(wire, lose_sight)
    async with agent_on(account, transport=wire) as agent:
        assert (await agent.refused("rent_pod", name="train", executor_id=node, hours=2)).code == "outcome_unknown"
    account.clock.advance(minutes=1)
    async with agent_on(account, **LOWERED[why]) as agent:
        listed = await agent.call("list_pods")
    assert [pod["name"] for pod in listed["pods"]] == ["train"]
    assert "unsettled" not in listed
    assert len(rents(account)) == 1


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_price_per_hour_usd": 5, "max_hours": 3, "max_pods": 1, "budget_usd": 50, "max_burn_per_hour_usd": 5},
        {"allow_gpu_types": frozenset({"RTX4090", "RTX3090", "L40S", "A100", "H100"})},
        {"confirm": "never"},
    ],
    ids=["none", "numbers", "GPU types", "never asks"],
)
async def test_a_server_with_the_same_limits_sends_it_again(account: Sandbox, limits: dict[str, Any]) -> None:
    await lose_a_rent(account, **limits)
    account.clock.advance(minutes=1)
    async with agent_on(account, **limits) as agent:
        listed = await agent.call("list_pods")
        assert [pod["name"] for pod in listed["pods"]] == ["train"]
    assert len(rents(account)) == 1


async def test_what_a_repeat_shows_to_be_beyond_the_limits_of_now_is_given_back(account: Sandbox) -> None:
    await lose_a_rent(account)
    wire = Wire(account)

    def dearer(body: Any) -> Any:
        return [dearer(row) for row in body] if isinstance(body, list) else body | {"price": 25.0}

    wire.on("GET", "/pods", editing(dearer))
    wire.on("GET", "/pods/*", editing(dearer))
    async with agent_on(account, transport=wire, max_price_per_hour_usd=5) as agent:
        await look_for_ten_minutes(agent)
    assert len(rents(account)) == 1
    assert living(account) == []


async def test_a_pod_that_appeared_meanwhile_takes_the_room(account: Sandbox) -> None:
    await lose_a_rent(account, max_pods=1)
    await rent(account, "by hand")
    async with agent_on(account, max_pods=1) as agent:
        advice = await look_for_ten_minutes(agent)
    assert [pod["pod_name"] for pod in living(account)] == ["by hand"]
    assert "max_pods" in advice[0]


async def test_a_pod_that_appears_during_the_call_takes_the_room(account: Sandbox) -> None:
    wire = Wire(account)
    node = await a_node(account)

    async def meanwhile(request: httpx2.Request, _: Any) -> httpx2.Response:
        await rent(account, "by hand")
        raise httpx2.ReadError("the connection broke")

    on_rents(wire, meanwhile, times=1)
    async with agent_on(account, transport=wire, max_pods=1) as agent:
        failure = await agent.refused("rent_pod", name="train", executor_id=node, hours=2, wait_seconds=0)
        assert failure.code == "outcome_unknown"
        refused = await agent.refused("rent_pod", name="other", executor_id=node, hours=2, wait_seconds=0)
    assert refused.code == "rent_unsettled"
    assert "max_pods" in refused.text
    assert [pod["pod_name"] for pod in living(account)] == ["by hand"]


async def test_what_a_person_agreed_to_is_sent_again_in_its_own_call_alone(account: Sandbox) -> None:
    wire, person = Wire(account), Person("yes")
    node = await a_node(account)
    on_rents(wire, LOST, times=1)
    async with agent_on(account, transport=wire, person=person, confirm="always") as agent:
        rented = await agent.call("rent_pod", name="one", executor_id=node, hours=2, wait_seconds=0)
        on_rents(wire, LOST, times=4)
        await agent.refused("rent_pod", name="two", executor_id=node, hours=2, wait_seconds=0)
        sent = len(sent_rents(wire))
        await look_for_ten_minutes(agent)
    assert [pod["id"] for pod in living(account)] == [rented["pod_id"]]
    assert len(sent_rents(wire)) == sent


@pytest.mark.parametrize("why", ["does not offer rent_pod", "a person is asked", "max_pods", ""])
def test_between_calls_it_leaves_only_where_a_rent_might_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr("lium_mcp.between_calls._FIRST_ATTENTION_SECONDS", 2.0)
    account = Sandbox(seed=7, speed=0)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"

    def server(wire: Wire, **settings: Any) -> Any:
        fixed: dict[str, Any] = {"api_key": "sk_sandbox", "base_url": "http://127.0.0.1/api", "state_url": url}
        return build_server(Settings(**fixed, **settings), transport=wire, clock=LoopClock())

    async def main() -> None:
        wire = Wire(account)
        on_rents(wire, LOST)
        node = await a_node(account)
        async with Client(server(wire)) as client:
            await client.call_tool("rent_pod", {"name": "train", "executor_id": node, "hours": 2, "wait_seconds": 0})
        account.clock.advance(minutes=1)
        async with Client(server(Wire(account), **LOWERED.get(why, {}))) as client:
            await client.list_tools()
            await anyio.sleep(120)

    run_virtually(main())
    assert len(rents(account)) == (0 if why else 1)


async def test_an_answer_says_that_an_earlier_rent_has_a_pod_now(account: Sandbox) -> None:
    await lose_a_rent(account)
    account.clock.advance(minutes=1)
    async with agent_on(account) as agent:
        rented = await agent.call("rent_pod", name="other", gpu_type="RTX4090", hours=2, wait_seconds=0)
        [pod_id] = [pod["id"] for pod in living(account) if pod["pod_name"] == "train"]
        assert any("earlier rent of train" in said and pod_id in said for said in rented["warnings"])
        again = await agent.call("rent_pod", name="other", gpu_type="RTX4090", hours=2, wait_seconds=0)
    assert "earlier rent" not in str(again)


@pytest.mark.parametrize(("minutes", "price"), [(1, None), (1, 9.0), (11, None)])
async def test_what_a_person_agreed_to_minutes_ago_is_sent_again_if_it_must_not_stay(
    account: Sandbox, minutes: int, price: float | None
) -> None:
    """Its server may have died: what came of its rent must not stay in the place of what was agreed to."""
    wire, later = Wire(account), Wire(account)

    async def lose_sight(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        wire.on("*", "**", LOST)
        return await losing_the_answer()(request, forward)

    on_rents(wire, lose_sight)
    if price is not None:
        later.on("GET", "/pods", editing(lambda pods: [pod | {"price": price} for pod in pods]))
        later.on("GET", "/pods/*", editing(lambda pod: pod | {"price": price}))
    async with agent_on(account, transport=wire, person=Person("yes")) as agent:
        failure = await agent.refused("rent_pod", name="train", gpu_type="RTX4090", hours=2, wait_seconds=0)
    assert failure.code == "outcome_unknown"
    account.clock.advance(minutes=minutes)
    async with agent_on(account, transport=later, person=Person("yes")) as agent:
        for _ in range(5):
            await agent.call("list_pods")
            account.clock.advance(seconds=40)
    sent = [*sent_rents(wire), *sent_rents(later)]
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    assert bool(sent_rents(later)) == (price is not None)
    assert len(rents(account)) == 1
    assert len(living(account)) == (0 if price else 1)


@pytest.mark.parametrize("asked", [False, True])
async def test_a_refusal_says_that_an_earlier_rent_has_a_pod_now(account: Sandbox, asked: bool) -> None:
    if asked:  # then it is not sent again, and found by its name
        wire = Wire(account)
        on_rents(wire, losing_the_answer())
        wire.on("GET", "/version", answering(200, {"uptime": 1, "features": ["rent_by_spec"]}))
        wire.on("GET", "/pods", after(is_over=lambda: bool(rents(account))))
        async with agent_on(account, transport=wire) as agent:
            await agent.refused("rent_pod", name="train", executor_id=await a_node(account), hours=2, wait_seconds=0)
    else:
        await lose_a_rent(account)
    account.clock.advance(minutes=1)
    async with agent_on(account, max_pods=1, person=Person("yes") if asked else None) as agent:
        failure = await agent.refused("rent_pod", name="other", gpu_type="RTX4090", hours=2)
    [pod] = living(account)
    assert failure.code == "policy_refused"
    assert f"earlier rent of train, whose answer was lost, has turned out to have a pod that bills: {pod['id']}" in (
        failure.text
    )
    assert "Nothing else was changed." in failure.text
    assert "Nothing was changed." not in failure.text


def after(is_over: Callable[[], bool]) -> Act:
    """Pods cannot be listed any more once it is over."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return await (LOST if is_over() else passing)(request, forward)

    return act
