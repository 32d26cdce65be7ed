"""What Lium states of a pod late is held against what was asked and allowed as what it states at once.

By the call that rents while it lasts, then by whoever looks, until it was stated once while the pod runs.
"""

from collections.abc import Callable
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire, editing, living, make_template, then

TRAIN: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
NOT_STATED = {"gpu_name": None, "gpu_count": None, "price": None}

LATE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "count": ({"gpu_count": None}, {"gpu_count": "8"}, "8 GPUs, not 1"),
    "card": ({"gpu_name": None}, {"gpu_name": "NVIDIA GeForce RTX 3060"}, "RTX 3060"),
    "price": ({"price": None}, {"price": 9.0}, "dearer than allowed"),
    "another price": ({}, {"price": 9.0}, "dearer than allowed"),
}
late = pytest.mark.parametrize(("starting", "running", "reason"), LATE.values(), ids=LATE)


def show(wire: Wire, starting: dict[str, Any], running: dict[str, Any]) -> None:
    """Let a pod that starts, and one that runs, be shown with these differences."""

    def edit(body: Any) -> Any:
        if isinstance(body, list):
            return [edit(row) for row in body]
        return body | (starting if body.get("status") == "PENDING" else running)

    wire.on("GET", "/pods", editing(edit))
    wire.on("GET", "/pods/*", editing(edit))


async def list_pods(agent: Agent) -> dict[str, Any]:
    return await agent.call("list_pods")


async def get_pod(agent: Agent) -> dict[str, Any]:
    return await agent.call("get_pod", pod="train", wait_seconds=0)


LOOKS: list[Callable[[Agent], Any]] = [list_pods, get_pod]
looks = pytest.mark.parametrize("look", LOOKS)


@late
@looks
async def test_a_later_look_gives_back_what_comes_out_otherwise_and_says_why(
    sandbox: Sandbox, starting: dict[str, Any], running: dict[str, Any], reason: str, look: Callable[[Agent], Any]
) -> None:
    wire = Wire(sandbox)
    show(wire, starting, running)
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=3) as agent:
        rented = await agent.call("rent_pod", **TRAIN)
        assert rented["outcome"] == "pending"
        sandbox.clock.advance(minutes=2)
        assert reason in str(await look(agent))
        assert living(sandbox) == []
        sandbox.clock.advance(minutes=2)
        for named in (rented["pod_id"], "train"):
            seen = await agent.call("get_pod", pod=named)
            assert seen["outcome"] == "removed"
            assert reason in str(seen["warnings"])
        [row] = (await agent.call("list_pods"))["unsettled"]
        assert (row["name"], row["status"]) == ("train", "removed")
        assert reason in row["next"]
        sandbox.clock.advance(hours=25)
        assert "unsettled" not in await agent.call("list_pods")
        assert reason in str((await agent.call("get_pod", pod=rented["pod_id"]))["warnings"])


@late
async def test_the_call_itself_gives_back_what_comes_out_otherwise_at_its_last_look(
    sandbox: Sandbox, starting: dict[str, Any], running: dict[str, Any], reason: str
) -> None:
    wire = Wire(sandbox)
    show(wire, starting, starting)
    # Its removal time is set once it runs, and read back.
    wire.on("POST", "/pods/*/schedule-removal", then(lambda: show(wire, starting, running)))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=3) as agent:
        failure = await agent.refused("rent_pod", **TRAIN | {"hours": 1.5, "wait_seconds": 60})
    assert failure.code == ("not_as_asked" if "GPU" in reason or "RTX" in reason else "dearer_than_allowed")
    assert living(sandbox) == []


async def test_what_an_answer_says_is_said_of_the_pod_that_it_shows(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    show(wire, NOT_STATED, NOT_STATED)
    wire.on("POST", "/pods/*/schedule-removal", then(lambda: show(wire, {}, {"price": 9.0})))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **TRAIN | {"hours": 1.5, "wait_seconds": 60})
    assert rented["pod"]["price_per_hour_usd"] == 9.0
    [warning] = rented["warnings"]
    assert "It costs $9.0000 an hour, more than the" in warning


async def test_what_was_stated_once_of_a_pod_that_runs_is_held_against_nothing_more(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    show(wire, {}, {"gpu_name": None})
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=3) as agent:
        rented = await agent.call("rent_pod", **TRAIN | {"wait_seconds": 60})
        assert rented["outcome"] == "done"
        assert "which GPU it has" in str(rented["warnings"])
        show(wire, {}, {"gpu_name": None, "price": 9.0, "template": {"id": rented["pod_id"], "docker_image": "x/y"}})
        sandbox.clock.advance(minutes=2)
        assert "unsettled" not in await agent.call("list_pods")
        show(wire, {}, {"gpu_name": "NVIDIA GeForce RTX 3060"})
        sandbox.clock.advance(minutes=2)
        assert "RTX 3060" in str((await agent.call("list_pods"))["unsettled"])
    assert living(sandbox) == []


@looks
async def test_a_template_that_was_chosen_later_is_nothing_that_came_out(
    sandbox: Sandbox, look: Callable[[Agent], Any]
) -> None:
    async with agent_on(sandbox) as agent:
        one = await make_template(sandbox, "one", docker_image="me/one")
        other = await make_template(sandbox, "other", docker_image="me/other")
        await agent.call("rent_pod", **TRAIN | {"template": one})
        sandbox.clock.advance(minutes=2)
        await agent.call("switch_pod_template", pod="train", template=other)
        sandbox.clock.advance(minutes=2)
        await look(agent)
    assert len(living(sandbox)) == 1


async def test_what_is_never_stated_of_a_pod_costs_a_call_no_second_list(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    show(wire, {}, {"gpu_name": None})
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("rent_pod", **TRAIN | {"hours": 20, "wait_seconds": 60})
        await agent.call("list_pods")
        before = len(wire.sent("GET", "/pods"))
        await agent.call("list_pods")
        assert len(wire.sent("GET", "/pods")) == before + 1
