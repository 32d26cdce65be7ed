"""A rent for which nothing fits now waits as a standing order, and becomes one pod when something does.

Servers look at once and again soon; the sandbox's clock is turned, and its prices are set.
"""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from lium_mcp.cli.rentals import list_rentals
from lium_mcp.rentals import LazyLedger
from lium_mcp.sandbox import Sandbox
from tests.harness import Person
from tests.orders import (
    CHEAP,
    ceiling_below,
    look_at_once,
    looked,
    order,
    prices,
    reached,
    rented,
    shown,
    until,
)
from tests.servers import Servers
from tests.wires import Wire, answering, ask, drop, living, losing_the_answer, make_template, rent, rents


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_once(monkeypatch)


@pytest.fixture
def sandbox() -> Sandbox:
    """An account that may be read as often as its servers like."""
    return Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)


@pytest.fixture
def at(sandbox: Sandbox, state_url: str) -> Servers:
    return Servers(sandbox, state_url, {})


@pytest.fixture
def servers_look(sandbox: Sandbox, state_url: str) -> Any:
    """Let time go by, and servers look at each open order."""
    return partial(looked, sandbox, state_url)


async def test_an_order_waits_and_rents_once_the_price_has_dropped(
    sandbox: Sandbox, at: Any, servers_look: Any
) -> None:
    async with at() as agent:
        placed = await order(agent)
        assert (placed["status"], placed["wants"], placed["hours"]) == ("waiting", "1x A100", 2)
        assert placed["max_total_usd"] == pytest.approx(2.1 * placed["max_usd_per_hour"], abs=0.01)
        assert "the cheapest A100" in placed["because"]
        await servers_look()
        waiting = await shown(agent)
        assert waiting["looked_at"] > waiting["since"]
        assert rents(sandbox) == []
        prices(sandbox, CHEAP)
        await until(lambda: living(sandbox), sandbox)
        await until(lambda: living(sandbox)[0]["status"] == "RUNNING", sandbox)
        row = await rented(agent)
        [pod] = living(sandbox)
        assert (row["status"], row["pod_id"], pod["pod_name"]) == ("rented", pod["id"], "train")
        assert pod["price"] <= placed["max_usd_per_hour"]
        await order(agent, name="never", max_usd_per_gpu_hour=0.0001)  # whoever looks at it has looked at all
        await servers_look()
    assert len(rents(sandbox)) == 1


async def test_who_is_told_that_nothing_fits_is_told_that_it_can_be_waited_for(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": 0.01}
        assert "keep_trying_hours" in (await agent.refused("rent_pod", **wish)).text


async def test_what_fits_now_is_rented_at_once(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": 50, "keep_trying_hours": 24}
        came = await agent.call("rent_pod", **wish, wait_seconds=300)
        assert (came["outcome"], "order" in came) == ("done", False)
        assert "orders" not in await agent.call("list_pods")
        again = await agent.call("rent_pod", **wish)
        assert again["already_rented"] is True
    assert len(rents(sandbox)) == 1


async def test_the_same_call_again_shows_the_order_and_another_one_of_its_name_is_refused(
    sandbox: Sandbox, at: Any
) -> None:
    async with at() as agent:
        placed = await order(agent)
        for same in ({}, {"keep_trying_hours": None}):
            assert (await order(agent, **same))["since"] == placed["since"]
        for other in ({"hours": 3}, {"keep_trying_hours": 48}, {"max_usd_per_gpu_hour": 50}):
            wish = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 24}
            wish["max_usd_per_gpu_hour"] = placed["max_usd_per_hour"]
            failure = await agent.refused("rent_pod", **wish | other)
            assert failure.code == "standing_order_open"
        assert len((await agent.call("list_pods"))["orders"]) == 1
    assert rents(sandbox) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hours": None}, "needs hours"),
        ({"max_usd_per_gpu_hour": None, "country": "AQ"}, "needs a ceiling"),
        ({"gpu_type": "H1000"}, "no GPU model called H1000"),
        ({"template": "no-such"}, "no-such"),
        ({"volume": "no-such"}, "no-such"),
        ({"gpu_type": None, "executor_id": "a node, as agreed", "gpu_count": 1}, "needs its id"),
        ({"count": 3}, "count and keep_trying_hours"),
        ({"keep_trying_hours": 0}, "keep_trying_hours"),
        ({"keep_trying_hours": 169}, "keep_trying_hours"),
    ],
)
async def test_what_has_no_bounds_or_could_never_be_rented_is_no_order(
    sandbox: Sandbox, at: Any, changes: dict[str, Any], said: str
) -> None:
    async with at() as agent:
        wish: dict[str, Any] = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 24}
        failure = await agent.refused("rent_pod", **wish | {"max_usd_per_gpu_hour": 0.01} | changes)
        assert said in failure.text
        assert "orders" not in await agent.call("list_pods")


@pytest.mark.parametrize(
    ("changes", "said"), [({"hours": None}, "needs hours"), ({"max_usd_per_gpu_hour": None}, "needs a ceiling")]
)
async def test_what_has_no_bounds_is_refused_also_where_something_fits_now(
    sandbox: Sandbox, at: Any, changes: dict[str, Any], said: str
) -> None:
    async with at() as agent:
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 24, "max_usd_per_gpu_hour": 50}
        for more in ({}, {"dry_run": True}):
            failure = await agent.refused("rent_pod", **wish | changes | more)
            assert f"keep_trying_hours {said}" in failure.text
    assert rents(sandbox) == []


async def test_the_limits_bound_an_order_that_names_less(sandbox: Sandbox, at: Any) -> None:
    most = await ceiling_below(sandbox)
    async with at(max_hours=3, max_price_per_hour_usd=most) as agent:
        placed = await order(agent, hours=None, max_usd_per_gpu_hour=50)
        assert (placed["hours"], placed["max_usd_per_hour"]) == (3, most)
        prices(sandbox, CHEAP)
        await until(lambda: living(sandbox), sandbox)
        assert living(sandbox)[0]["price"] <= most


async def test_a_node_that_is_taken_is_waited_for(sandbox: Sandbox, at: Any) -> None:
    nodes = await ask(sandbox, "GET", "/executors?view=summary")
    node = next(node for node in nodes if node["min_gpu_count_for_rental"] == 1)
    sandbox.add_fault("provider_pause", executor_id=node["id"])
    wish: dict[str, Any] = {"executor_id": node["id"], "gpu_type": None, "max_usd_per_gpu_hour": 50}
    async with at() as agent:
        failure = await agent.refused("rent_pod", name="train", hours=2, keep_trying_hours=24, **wish)
        assert "gpu_count" in failure.text
        placed = await order(agent, gpu_count=1, **wish)
        assert placed["wants"] == f"1 GPU of node {node['id']}"
        sandbox._world.market.nodes[node["id"]].off_market_until = None
        await until(lambda: living(sandbox), sandbox)
    assert rents(sandbox)[0]["executor_id"] == node["id"]


async def test_a_dry_run_says_what_would_be_ordered_and_orders_nothing(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        ceiling = await ceiling_below(sandbox)
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": ceiling, "dry_run": True}
        would = await agent.call("rent_pod", **wish, keep_trying_hours=24)
        assert (would["outcome"], would["order"]["status"]) == ("dry_run", "not_placed")
        assert "nothing was ordered" in would["next"]
        assert "orders" not in await agent.call("list_pods")


async def test_a_name_that_a_pod_has_is_no_orders_name(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        await agent.call("rent_pod", name="train", gpu_type="A100", hours=2, wait_seconds=0)
        wish = {"gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": 0.01, "keep_trying_hours": 24}
        assert (await agent.refused("rent_pod", name="train", **wish)).code == "pod_name_taken"


# --- consent ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_person_is_asked_once_for_all_that_an_order_may_come_to(sandbox: Sandbox, at: Any, mode: Any) -> None:
    person = Person("yes")
    async with at(person=person, mode=mode) as agent:
        placed = await order(agent, country="US,CA")
        [asked] = person.questions
        for bound in ("standing order", '"train"', "1x A100", "country=CA,US", "24 hours", "2 hours after it starts"):
            assert bound in asked, asked
        assert f"${placed['max_total_usd']:.2f} in all" in asked
        prices(sandbox, CHEAP)
        await rented(agent)
    assert len(person.questions) == 1


async def test_a_total_alone_bounds_an_order(sandbox: Sandbox, at: Any) -> None:
    person, most = Person("yes"), await ceiling_below(sandbox)
    async with at(person=person) as agent:
        placed = await order(agent, hours=None, max_usd_per_gpu_hour=None, max_total_usd=most)
        assert (placed["max_total_usd"], "max_usd_per_hour" in placed) == (pytest.approx(most, abs=1e-3), False)
        assert "before it has cost more" in person.questions[0]
        prices(sandbox, CHEAP)
        await until(lambda: living(sandbox), sandbox)
        [pod] = living(sandbox)
        assert pod["price"] * pod["termination_hours"] <= most


async def test_without_a_yes_there_is_no_order(sandbox: Sandbox, at: Any) -> None:
    async with at(person=Person("no")) as agent:
        wish = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 24, "max_usd_per_gpu_hour": 0.01}
        assert (await agent.refused("rent_pod", **wish)).code == "not_confirmed"
        assert "orders" not in await agent.call("list_pods")
    async with at(confirm="always") as agent:
        assert (await agent.refused("rent_pod", **wish)).code == "confirmation_unavailable"
        assert "orders" not in await agent.call("list_pods")


async def test_what_fits_by_the_time_of_the_yes_is_rented_by_the_order(sandbox: Sandbox, at: Any) -> None:
    async def drop() -> None:
        prices(sandbox, CHEAP)

    async with at(person=Person("yes", meanwhile=drop)) as agent:
        placed = await order(agent)
        await until(lambda: living(sandbox), sandbox)
        assert living(sandbox)[0]["price"] <= placed["max_usd_per_hour"]


async def test_a_server_that_always_asks_carries_out_only_what_somebody_agreed_to(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        await order(agent, name="not-asked")
    async with at(person=Person("yes"), confirm="always") as agent:
        await order(agent, name="asked")
        prices(sandbox, CHEAP)
        await rented(agent, "asked")
        assert "nobody was asked" in (await shown(agent, "not-asked"))["because"]
    assert [pod["pod_name"] for pod in living(sandbox)] == ["asked"]


# --- the end of an order ---------------------------------------------------------------------------------------------


async def test_an_order_whose_time_is_over_never_rents(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    async with at() as agent:
        await order(agent, keep_trying_hours=1)
    sandbox.clock.advance(hours=2)
    prices(sandbox, CHEAP)
    async with at() as agent:
        await servers_look()
        row = await shown(agent)
        assert row["status"] == "expired"
        found = await agent.call("get_pod", pod="train")
        assert (found["outcome"], found["order"]["status"]) == ("failed", "expired")
        sandbox.clock.advance(hours=23)
        assert (await shown(agent))["status"] == "expired"
        sandbox.clock.advance(hours=2)
        assert "orders" not in await agent.call("list_pods")
        assert (await agent.refused("get_pod", pod="train")).code == "pod_not_found"
        assert (await agent.refused("remove_pod", pod="train")).code == "pod_not_found"
    assert rents(sandbox) == []


async def test_an_order_is_cancelled_by_its_name_and_never_rents_after(
    sandbox: Sandbox, at: Any, servers_look: Any
) -> None:
    person = Person("yes")
    async with at() as agent, at(person=person) as asking:
        await order(agent)
        assert (await agent.call("get_pod", pod="train"))["order"]["status"] == "waiting"
        cancelled = await asking.call("remove_pod", pod="train")
        assert (cancelled["outcome"], "pod_id" in cancelled) == ("done", False)
        assert "Cancel the standing order" in person.questions[0]
        prices(sandbox, CHEAP)
        await order(agent, name="never", max_usd_per_gpu_hour=0.0001)  # whoever looks at it has looked at all
        await servers_look()
        assert (await agent.call("get_pod", pod="train"))["order"]["status"] == "cancelled"
        assert (await agent.refused("remove_pod", pod="train")).code == "pod_not_found"
        # Whoever lists pods later does not hear of it again and again; who asks for it does.
        sandbox.clock.advance(minutes=11)
        assert [row["name"] for row in (await agent.call("list_pods"))["orders"]] == ["never"]
        assert (await agent.call("get_pod", pod="train"))["order"]["status"] == "cancelled"
        # Its name is free.
        assert "pod_id" in await agent.call("rent_pod", name="train", gpu_type="A100", hours=2, wait_seconds=0)
    assert len(rents(sandbox)) == 1


async def test_an_order_that_is_cancelled_while_it_is_about_to_rent_does_not(
    sandbox: Sandbox, at: Any, servers_look: Any
) -> None:
    wire = Wire(sandbox)
    async with at(wire) as agent:
        await order(agent)
        hold = wire.hold("GET", "/pods", "after the answer")
        prices(sandbox, CHEAP)
        await reached(hold, sandbox)
        wire.behave()
        async with at() as other:
            assert (await other.call("remove_pod", pod="train"))["outcome"] == "done"
        hold.let_go()
        await order(agent, name="never", max_usd_per_gpu_hour=0.0001)  # whoever looks at it has looked at all
        await servers_look()
        assert (await agent.call("get_pod", pod="train"))["order"]["status"] == "cancelled"
    assert rents(sandbox) == []


@pytest.mark.parametrize("moment", ["before the work", "after the work"])
async def test_an_order_that_is_renting_is_not_said_to_be_cancelled(sandbox: Sandbox, at: Any, moment: Any) -> None:
    wire = Wire(sandbox)
    async with at(wire) as agent:
        await order(agent, min_ram_gb=1)
        hold = wire.hold("POST", "/executors/*/rent", moment)
        prices(sandbox, CHEAP)
        await reached(hold, sandbox)
        async with at() as other:
            failure = await other.refused("remove_pod", pod="train")
            assert failure.code in ("outcome_unknown", "pod_not_known_yet", "removal_refused"), failure.text
            assert "Nothing was changed" not in failure.text
        hold.let_go()
        assert (await rented(agent))["pod_id"] == living(sandbox)[0]["id"]


async def test_the_pod_that_an_order_rented_is_removed_by_its_name_and_not_rented_again(
    sandbox: Sandbox, at: Any, servers_look: Any
) -> None:
    async with at() as agent:
        await order(agent)
        prices(sandbox, CHEAP)
        await rented(agent)
        await until(lambda: [pod for pod in living(sandbox) if pod["status"] == "RUNNING"], sandbox)
        await agent.call("remove_pod", pod="train", wait_seconds=300)
        await until(lambda: not living(sandbox), sandbox)
        await order(agent, name="never", max_usd_per_gpu_hour=0.0001)  # whoever looks at it has looked at all
        await servers_look()
        found = await agent.call("get_pod", pod="train")
        assert (found["outcome"], found["order"]["status"]) == ("removed", "rented")
    assert len(rents(sandbox)) == 1


# --- why it waits ----------------------------------------------------------------------------------------------------


async def test_a_limit_that_refuses_now_is_said_and_waited_for(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    async with at(max_pods=1) as agent:
        await agent.call("rent_pod", name="other", gpu_type="RTX 4090", hours=2, wait_seconds=300)
        await order(agent)
        prices(sandbox, CHEAP)
        await servers_look()
        assert "max_pods" in (await shown(agent))["because"]
        await agent.call("remove_pod", pod="other", wait_seconds=300)
        await until(lambda: living(sandbox), sandbox)
        assert living(sandbox)[0]["pod_name"] == "train"


async def test_a_limit_that_forbids_it_for_ever_ends_it(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    async with at() as agent:
        await order(agent)
    async with at(allow_gpu_types="RTX 4090") as agent:
        await servers_look()
        row = await shown(agent)
        assert row["status"] == "failed"
        assert "not allowed" in row["because"]
    prices(sandbox, CHEAP)
    async with at() as agent:
        await servers_look()
    assert rents(sandbox) == []


@pytest.mark.parametrize("status", [401, 402, 403, 429, 500])
async def test_what_lium_refuses_now_is_waited_for(sandbox: Sandbox, at: Any, servers_look: Any, status: int) -> None:
    wire = Wire(sandbox)
    async with at(wire) as agent:
        await order(agent)
        wire.on("*", "**", answering(status, {"detail": "not now"}))
        prices(sandbox, CHEAP)
        await servers_look()
        wire.behave()
        assert (await shown(agent))["status"] == "waiting"
        await until(lambda: living(sandbox), sandbox)
    assert len(rents(sandbox)) == 1


async def test_whoever_runs_the_server_sees_what_an_order_waits_for(
    sandbox: Sandbox, at: Any, servers_look: Any, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with at() as agent:
        await order(agent)
        await servers_look()
    async with at(read_only=True) as agent:
        order_there = await shown(agent)
    assert order_there["status"] == "waiting"
    assert "this server does not look for it, since it only reads (LIUM_MCP_READ_ONLY)" in order_there["because"]
    assert "when a server looked last: No node meets" in order_there["because"]
    async with at(deny_tools=["rent_pod"]) as agent:
        assert "since rent_pod is none of its tools" in (await shown(agent))["because"]
    ledger = LazyLedger(state_url)
    assert await list_rentals(ledger, all_of_them=False) == 0
    await ledger.aclose()
    line = next(line for line in capsys.readouterr().out.splitlines() if "standing_order" in line)
    assert " train " in line
    assert "the cheapest A100" in line


# --- exactly once ----------------------------------------------------------------------------------------------------


async def test_of_many_servers_one_rents(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(at()) for _ in range(4)]
        for number, agent in enumerate(agents):
            await order(agent, name=f"train-{number}")
        prices(sandbox, CHEAP)
        await until(lambda: len(living(sandbox)) == 4, sandbox)
        await servers_look()
        listed = await agents[0].call("list_pods")
        assert {row["pod_id"] for row in listed["orders"]} == {pod["id"] for pod in living(sandbox)}
    assert len(rents(sandbox)) == 4


@pytest.mark.parametrize("how", [losing_the_answer(), drop], ids=["the answer is lost", "the request is lost"])
@pytest.mark.parametrize("asked", [False, True], ids=["nobody to ask", "somebody to ask"])
async def test_a_lost_answer_is_settled_and_nothing_is_rented_twice(
    sandbox: Sandbox, at: Any, servers_look: Any, how: Any, asked: bool
) -> None:
    wire = Wire(sandbox)
    async with at(wire, person=Person("yes") if asked else None) as agent:
        await order(agent)
        for path in ("/executors/*/rent", "/executors/rent-by-spec"):
            wire.on("POST", path, _unless_dry(how), times=3)
        prices(sandbox, CHEAP)
        await until(lambda: [pod for pod in living(sandbox) if pod["status"] == "RUNNING"], sandbox)
        await servers_look()
        row = await shown(agent)
        assert (row["status"], row["pod_id"]) == ("rented", living(sandbox)[0]["id"])
        assert living(sandbox)[0]["removal_scheduled_at"] is not None
    assert len(rents(sandbox)) == 1
    assert (
        len({request.headers["Idempotency-Key"] for request in wire.requests if "Idempotency-Key" in request.headers})
        == 1
    )


def _unless_dry(act: Any) -> Any:
    async def acted(request: Any, forward: Any) -> Any:
        is_dry = b'"dry_run":true' in request.content.replace(b" ", b"")
        return await (forward(request) if is_dry else act(request, forward))

    return acted


async def test_what_a_call_with_the_same_wish_rented_meanwhile_is_the_orders_pod(
    sandbox: Sandbox, at: Any, servers_look: Any
) -> None:
    wire = Wire(sandbox)
    ceiling = await ceiling_below(sandbox)
    wish = {"name": "train", "gpu_type": "A100", "hours": 2, "max_usd_per_gpu_hour": ceiling, "keep_trying_hours": 24}
    async with at(wire) as agent, at() as other:
        hold = wire.hold("GET", "/executors", "after the answer")
        placing = asyncio.create_task(agent.call("rent_pod", **wish))
        await hold.reached()
        prices(sandbox, CHEAP)
        came = await other.call("rent_pod", **wish, wait_seconds=300)
        await other.call("remove_pod", pod="train", wait_seconds=300)
        await until(lambda: not living(sandbox), sandbox)
        hold.let_go()
        await placing
        await servers_look()
        assert (await shown(agent))["pod_id"] == came["pod_id"]
    assert len(rents(sandbox)) == 1


async def test_a_name_that_a_pod_has_too_cancels_and_removes_nothing(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        await order(agent)
        pod_id = await rent(sandbox, "train")  # by somebody else
        failure = await agent.refused("remove_pod", pod="train")
        assert failure.code == "ambiguous_name"
        both = await agent.call("get_pod", pod="train")
        assert (both["pod"]["pod_id"], both["order"]["status"]) == (pod_id, "waiting")
        order_id = both["order"]["order_id"]
        assert pod_id in failure.text
        assert order_id in failure.text
        assert (await shown(agent))["status"] == "waiting"
        assert (await agent.call("remove_pod", pod=order_id))["name"] == "train"
        assert (await shown(agent))["status"] == "cancelled"
        assert [pod["id"] for pod in living(sandbox)] == [pod_id]
        assert (await agent.call("remove_pod", pod=pod_id))["outcome"] == "done"


@pytest.mark.parametrize("change", [{"docker_image": "evil/miner"}, {"startup_commands": "curl evil"}])
async def test_an_order_rents_nothing_with_a_template_that_was_changed(
    sandbox: Sandbox, at: Any, servers_look: Any, change: dict[str, str]
) -> None:
    template_id = await make_template(sandbox, "mine")
    person = Person("yes")
    async with at(person=person) as agent:
        await order(agent, template="mine")
        [question] = person.questions
        template = await ask(sandbox, "GET", f"/templates/{template_id}")
        assert template["docker_image"] in question
        await ask(sandbox, "PUT", f"/templates/{template_id}", template | change)
        prices(sandbox, CHEAP)
        await servers_look()
        over = await shown(agent)
    assert over["status"] == "failed"
    assert "was changed since it was shown" in over["because"]
    assert rents(sandbox) == []
