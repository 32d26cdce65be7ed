"""A pod that Lium names for a rent, and that cannot have come of it, is another's: it is left alone.

Everything goes through an MCP client; the sandbox's own record says which pods there are.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, agent_on
from tests.wires import (
    Act,
    Forward,
    Wire,
    after_work,
    answering,
    ask,
    editing,
    failing,
    living,
    on_rents,
    rent,
    rows_of,
    smallest_count,
    truth,
)

TRAIN: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 30}


def assert_left_alone(wire: Wire, sandbox: Sandbox, *pod_ids: str) -> None:
    """Nothing was ordered for these pods, and they have no removal time."""
    for pod_id in pod_ids:
        orders = [sent for sent in wire.sent("*", f"/pods/{pod_id}**") if sent.method != "GET"]
        assert [(sent.method, sent.url.path) for sent in orders] == []
    shown = {pod["id"]: pod for pod in truth(sandbox, "pods")}
    for pod_id in pod_ids:
        assert shown[pod_id]["removed_at"] is None
        assert shown[pod_id].get("removal_scheduled_at") is None


async def looked_at_for_minutes(agent: Agent, minutes: int = 12) -> dict[str, Any]:
    """What list_pods says in the end, when it was asked again and again."""
    listed: dict[str, Any] = {}
    for _ in range(minutes * 2):
        agent.sandbox.clock.advance(seconds=30)
        listed = await agent.call("list_pods")
    return listed


@pytest.mark.parametrize("row", [{}, {"gpu_name": "NVIDIA H200"}, {"price": 99.0}], ids=["alike", "card", "price"])
async def test_a_pod_from_before_the_rent_is_not_what_it_made(sandbox: Sandbox, row: dict[str, Any]) -> None:
    innocent = await rent(sandbox, "innocent")
    wire = Wire(sandbox)
    on_rents(wire, answering(200, {"success": True, "pod_id": innocent}))
    wire.on("GET", "/pods", editing(lambda pods: [pod | row for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: pod | row))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=50) as agent:
        failure = await agent.refused("rent_pod", **TRAIN)
        assert failure.code == "outcome_unknown"
        assert innocent in failure.text
        assert (await agent.refused("rent_pod", **TRAIN | {"name": "other"})).code == "rent_unsettled"
        listed = await looked_at_for_minutes(agent)
        assert "unsettled" not in listed
        wire.behave()
        assert (await agent.call("rent_pod", **TRAIN))["outcome"] == "done"
    assert_left_alone(wire, sandbox, innocent)
    assert len(living(sandbox)) == 2


ANOTHERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "another name": lambda pod: pod | {"pod_name": "innocent"},
    "older": lambda pod: pod | {"created_at": "2020-01-01T00:00:00"},
}


def claimed(pod_id: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    """Show a pod as another's, dear and with another card, wherever it is shown."""

    def edit(body: Any) -> Any:
        if isinstance(body, list):
            return [edit(row) for row in body]
        return change(body) | {"price": 99.0, "gpu_name": "NVIDIA H200"} if body.get("id") == pod_id else body

    return edit


@pytest.mark.parametrize("change", ANOTHERS.values(), ids=ANOTHERS)
@pytest.mark.parametrize("wait_seconds", [0, 30])
async def test_a_pod_that_is_shown_as_anothers_is_left_alone(
    sandbox: Sandbox, change: Callable[[dict[str, Any]], dict[str, Any]], wait_seconds: int
) -> None:
    stranger = await rent(sandbox, "train", boot=False)
    wire = Wire(sandbox)
    edit = claimed(stranger, change)
    wire.on("GET", "/pods", answering(200, []), times=2)
    on_rents(wire, answering(200, {"success": True, "pod_id": stranger}))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=50) as agent:
        wire.on("GET", "/pods/*", editing(edit))
        failure = await agent.refused("rent_pod", **TRAIN | {"wait_seconds": wait_seconds})
        assert failure.code == "outcome_unknown"
        assert stranger in failure.text
        wire.on("GET", "/pods", editing(edit))
        await looked_at_for_minutes(agent)
    assert_left_alone(wire, sandbox, stranger)


async def test_a_later_look_lets_go_of_a_pod_that_no_call_could_read(sandbox: Sandbox) -> None:
    stranger = await rent(sandbox, "train", boot=False)
    wire = Wire(sandbox)
    edit = claimed(stranger, ANOTHERS["another name"])
    wire.on("GET", "/pods", answering(200, []), times=2)
    on_rents(wire, answering(200, {"success": True, "pod_id": stranger}))
    wire.on("GET", "/pods/*", answering(503, {"detail": "later"}))
    async with agent_on(sandbox, transport=wire, max_price_per_hour_usd=50) as agent:
        assert (await agent.call("rent_pod", **TRAIN | {"wait_seconds": 0}))["outcome"] == "pending"
        wire.on("GET", "/pods", editing(edit))
        wire.on("GET", "/pods/*", editing(edit))
        [row] = (await agent.call("list_pods"))["unsettled"]
        assert (row["name"], row["status"]) == ("train", "unknown")
        assert "unsettled" not in await looked_at_for_minutes(agent)
    assert_left_alone(wire, sandbox, stranger)


@pytest.mark.parametrize("shown_as", ["known before", *ANOTHERS])
async def test_a_cancelled_call_takes_no_pod_that_is_anothers(sandbox: Sandbox, shown_as: str) -> None:
    stranger = await rent(sandbox, "innocent" if shown_as == "known before" else "train")
    wire = Wire(sandbox)
    if shown_as != "known before":
        wire.on("GET", "/pods", answering(200, []))
        wire.on("GET", "/pods/*", editing(claimed(stranger, ANOTHERS[shown_as])))
    sent, named = anyio.Event(), answering(200, {"success": True, "pod_id": stranger})

    async def while_it_is_cancelled(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if not sent.is_set():
            sent.set()
            for _ in range(200):
                await anyio.lowlevel.checkpoint()
        return await named(request, forward)

    on_rents(wire, while_it_is_cancelled)
    async with agent_on(sandbox, transport=wire) as agent:
        async with anyio.create_task_group() as calls:
            calls.start_soon(lambda: agent.raw("rent_pod", **TRAIN))
            await sent.wait()
            calls.cancel_scope.cancel()
        await looked_at_for_minutes(agent)
    assert_left_alone(wire, sandbox, stranger)


ANOTHERS_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJlbG9uZ3MgdG8gc29tZWJvZHkgZWxzZSwgbm90IG1l"
LOST = failing(httpx2.ReadError("the connection broke"))


async def splittable(sandbox: Sandbox, card: str) -> str:
    rows = await rows_of(sandbox)
    fits = (row for row in rows if card in row["machine_name"] and smallest_count(row) == 1)
    return str(max(fits, key=lambda row: int(row["available_gpu_count"]))["id"])


async def rented_elsewhere(sandbox: Sandbox, what: str) -> tuple[dict[str, Any], Callable[[], Awaitable[str]]]:
    """What a call asks for, and somebody else's rent of that name, which differs in one thing."""
    node, other = await splittable(sandbox, "4090"), await splittable(sandbox, "H200")
    first, second = [row for row in await ask(sandbox, "GET", "/templates") if "pytorch" in row["docker_image"]][:2]
    wanted = {"name": "train", "executor_id": node, "template": first["id"], "hours": 2}
    theirs: dict[str, Any] = {"pod_name": "train", "template_id": first["id"], "user_public_key": [PUBLIC_KEY]}
    theirs |= {"gpu_count": 1}
    match what:
        case "another node":
            node = other
        case "another number of GPUs":
            theirs |= {"gpu_count": 2}
        case "another card":
            wanted |= {"executor_id": "", "gpu_type": "RTX4090"}
            node = other
        case "another template":
            theirs |= {"template_id": second["id"]}
        case "another SSH key":
            theirs |= {"user_public_key": [ANOTHERS_KEY]}

    async def rent_it() -> str:
        return str((await ask(sandbox, "POST", f"/executors/{node}/rent", theirs))["pod_id"])

    return wanted, rent_it


def losing_while(rent_theirs: Callable[[], Awaitable[str]], theirs: list[str]) -> Act:
    """Our rents never arrive, and before the first is lost, somebody else rents."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if not theirs:
            theirs.append(await rent_theirs())
        return await LOST(request, forward)

    return act


@pytest.mark.parametrize("late", [False, True], ids=["never made", "made late"])
@pytest.mark.parametrize(
    "what",
    ["another node", "another number of GPUs", "another card", "another template", "another SSH key"],
)
async def test_a_pod_of_the_name_that_is_not_what_was_asked_for_is_another_s(
    sandbox: Sandbox, what: str, late: bool
) -> None:
    wanted, rent_theirs = await rented_elsewhere(sandbox, what)
    wire, theirs = Wire(sandbox), list[str]()

    on_rents(wire, losing_while(rent_theirs, theirs))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("rent_pod", **wanted)).code == "outcome_unknown"
        sandbox.clock.advance(minutes=1)
        [row] = (await agent.call("list_pods"))["unsettled"]
        assert row["status"] == "unknown"
        assert f"Pod {theirs[0]} has its name and is another's" in row["next"]
        if late:
            wire.behave()
        listed = await looked_at_for_minutes(agent)
        assert "unsettled" not in listed
        ours = [pod["pod_id"] for pod in listed["pods"] if pod["pod_id"] not in theirs]
        assert len(ours) == late
        if late:
            again = await agent.call("rent_pod", **wanted)
            assert (again["pod_id"], again["already_rented"]) == (ours[0], True)
    assert_left_alone(wire, sandbox, *theirs)


async def test_nothing_is_changed_of_a_pod_whose_row_does_not_say_enough(sandbox: Sandbox) -> None:
    wanted, rent_theirs = await rented_elsewhere(sandbox, "another node")
    wire, theirs = Wire(sandbox), list[str]()

    def unsaid(body: Any) -> Any:
        if isinstance(body, list):
            return [unsaid(row) for row in body]
        silent = dict.fromkeys(("executor", "executor_id", "gpu_name", "template", "ssh_keys"))
        return body | silent | {"gpu_count": None}

    on_rents(wire, losing_while(rent_theirs, theirs))
    wire.on("GET", "/pods", editing(unsaid))
    wire.on("GET", "/pods/*", editing(unsaid))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **wanted)
        assert rented["pod_id"] == theirs[0]
        assert any("Check that it is yours" in warning for warning in rented["warnings"])
        assert any("left alone" in warning for warning in rented["warnings"])
        await looked_at_for_minutes(agent)
    assert_left_alone(wire, sandbox, *theirs)


async def test_what_turns_out_to_be_anothers_is_let_go_and_the_own_pod_is_found(sandbox: Sandbox) -> None:
    wanted, rent_theirs = await rented_elsewhere(sandbox, "another node")
    wire, theirs = Wire(sandbox), list[str]()
    unsaid = editing(lambda rows: [row | {"executor": None, "executor_id": None, "gpu_name": None} for row in rows])

    on_rents(wire, losing_while(rent_theirs, theirs))
    wire.on("GET", "/pods", unsaid)
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("rent_pod", **wanted)).code == "outcome_unknown"
        wire.behave()
        sandbox.clock.advance(minutes=1)
        listed = await agent.call("list_pods")
        assert {pod["pod_id"] for pod in listed["pods"]} > set(theirs)
        assert "unsettled" not in listed
    assert_left_alone(wire, sandbox, *theirs)


async def test_a_member_from_before_makes_the_rent_of_a_cluster_unknown(sandbox: Sandbox) -> None:
    innocent = await rent(sandbox, "innocent")
    wire = Wire(sandbox)
    [offer, *_] = await ask(sandbox, "GET", "/executors/infiniband-clusters")
    nodes = [node["id"] for node in offer["nodes"][:2]]
    wire.on("POST", "/executors/cluster/rent", after_work(answering(200, {"success": True, "pod_ids": [innocent]})))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.raw("rent_cluster", name="pair", executor_ids=nodes, hours=2)
        # The members that it made are found by their name.
        made = {pod["id"] for pod in living(sandbox)} - {innocent}
        assert not rented.is_error
        assert set((rented.structured_content or {})["pod_ids"]) == made
        assert len(made) == 2
    assert_left_alone(wire, sandbox, innocent)
