"""Pods that live on past their removal time, or run without the one that was asked for: every look at them says so."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire, answering, ask, editing, living, rent

Row = dict[str, Any]
LACKS = "Lium shows no removal time: the pod may bill until it is removed. Call schedule_pod_removal."


def without_removal(answer: Any) -> Any:
    """Pods as Lium shows them, without when it removes them."""
    if isinstance(answer, list):
        return [without_removal(row) for row in answer]
    return answer | {"removal_scheduled_at": None, "termination_hours": None}


def ignoring(sandbox: Sandbox) -> Wire:
    """Lium takes removal times, and keeps none."""
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/schedule-removal", answering(200, {"success": True}))
    for path in ("/pods", "/pods/*"):
        wire.on("GET", path, editing(without_removal))
    return wire


async def said_of(agent: Agent, name: str) -> str | None:
    """What the list and the pod itself say that somebody should know of it: the same."""
    row = next(pod for pod in (await agent.call("list_pods"))["pods"] if pod["name"] == name)
    warnings = (await agent.call("get_pod", pod=name, wait_seconds=0))["pod"].get("warnings", [])
    assert warnings == [row["problem"]] if "problem" in row else warnings == []
    problem: str | None = row.get("problem")
    return problem


async def test_a_removal_time_that_lium_takes_and_ignores_is_told_by_every_look(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, transport=ignoring(sandbox)) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=1.5, wait_seconds=300)
        pod_id, due = rented["pod_id"], sandbox.clock.now() + timedelta(hours=1.5)
        assert [*rented.get("warnings", []), *rented["pod"].get("warnings", [])].count(LACKS) == 1
        await ask(sandbox, "DELETE", f"/pods/{pod_id}/schedule-removal")  # nor does it keep the hours of the rent
        assert await said_of(agent, "train") == LACKS
        sandbox.clock.advance(hours=1.5, minutes=10)
        late = await said_of(agent, "train")
        assert late is not None
        at = late.removeprefix("It was to be removed at ").split("Z")[0]
        assert abs(datetime.fromisoformat(f"{at}+00:00") - due) < timedelta(minutes=10)
        assert late.endswith("by the hours it was rented for, is still there, and bills: remove_pod ends that.")
        assert (await agent.call("remove_pod", pod="train"))["outcome"] == "done"
    assert living(sandbox) == []


@pytest.mark.parametrize(("minutes", "is_late"), [(-30, False), (3, False), (10, True)])
async def test_a_pod_past_the_removal_time_that_lium_shows_is_told_of(
    sandbox: Sandbox, minutes: int, is_late: bool
) -> None:
    await rent(sandbox, "train")
    due = sandbox.clock.now() - timedelta(minutes=minutes)
    shown = {"removal_scheduled_at": f"{due:%Y-%m-%dT%H:%M:%S}"}
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda rows: [row | shown for row in rows]))
    wire.on("GET", "/pods/*", editing(lambda row: row | shown))
    late = f"It was to be removed at {due:%Y-%m-%dT%H:%M}Z, is still there, and bills: remove_pod ends that."
    async with agent_on(sandbox, transport=wire) as agent:
        assert await said_of(agent, "train") == (late if is_late else None)


@pytest.mark.parametrize("change", ["schedule_pod_removal", "cancel_pod_removal"])
async def test_a_pod_whose_end_somebody_put_off_is_not_late(sandbox: Sandbox, change: str) -> None:
    async with agent_on(sandbox) as agent:
        await agent.call("rent_pod", name="train", gpu_type="A100", hours=1, wait_seconds=300)
        assert await said_of(agent, "train") is None
        await agent.call(change, pod="train", **({"hours_from_now": 5} if change.startswith("s") else {}))
        sandbox.clock.advance(hours=2)
        assert await said_of(agent, "train") is None
