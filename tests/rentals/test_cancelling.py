"""A cancelled rent leaves nothing behind, and takes nobody else's pod with it.

Everything goes through an MCP client; the sandbox's own record says which pods there are.
"""

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, Mode, agent_on
from tests.wires import (
    Act,
    Forward,
    Hold,
    Wire,
    answering,
    ask,
    eventually,
    living,
    losing_the_answer,
    on_rents,
    rent,
    rents,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
NO_REPLAY = ("rent_by_spec", "run_record")
TRAIN = {"name": "train", "hours": 2}
WAYS = ("by spec", "by node")


async def wanted(sandbox: Sandbox, way: str) -> dict[str, Any]:
    if way == "by spec":
        return TRAIN | {"gpu_type": "RTX4090"}
    nodes = [
        node
        for node in await ask(sandbox, "GET", "/executors?view=summary")
        if node.get("min_gpu_count_for_rental") == 1
    ]
    return TRAIN | {"executor_id": min(nodes, key=lambda node: float(node["price_per_gpu"]))["id"]}


class Moment:
    """The moment at which the client gives up, and the server's side of it."""

    def __init__(self) -> None:
        self.come = anyio.Event()

    async def comes(self) -> None:
        """Let the client cancel, and wait until the server must have heard of it."""
        if not self.come.is_set():
            self.come.set()
            for _ in range(200):
                await anyio.lowlevel.checkpoint()

    def before(self, act: Act | None = None) -> Act:
        async def acting(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            await self.comes()
            return await (act(request, forward) if act else forward(request))

        return acting

    def after(self) -> Act:
        async def acting(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            response = await forward(request)
            await response.aread()
            await self.comes()
            return response

        return acting


async def cancelled(agent: Agent, moment: Moment, **arguments: Any) -> None:
    """Call rent_pod and cancel it when the moment comes."""
    answers = []
    async with anyio.create_task_group() as group:

        async def call() -> None:
            answers.append(await agent.raw("rent_pod", **arguments))

        group.start_soon(call)
        with anyio.fail_after(10):
            await moment.come.wait()
        group.cancel_scope.cancel()
    assert answers == []


def arrange(wire: Wire, moment: Moment, point: str) -> None:
    match point:
        case "before the rent is served":
            on_rents(wire, moment.before(), times=1)
        case "after the rent is served":
            on_rents(wire, moment.after(), times=1)
        case "when the answer is lost":
            on_rents(wire, moment.before(losing_the_answer()), times=1)
        case "during the wait":
            wire.on("GET", "/pods/*", moment.after(), times=1)
        case "at the end of the wait":
            wire.on("GET", "/pods/*/events", moment.before(), times=1)


POINTS = [
    "before the rent is served",
    "after the rent is served",
    "when the answer is lost",
    "during the wait",
    "at the end of the wait",
]


@both_eras
@pytest.mark.parametrize("point", POINTS)
async def test_a_cancelled_rent_removes_its_pod_and_no_other(sandbox: Sandbox, mode: Mode, point: str) -> None:
    other = await rent(sandbox, "other")
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, point)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        await cancelled(agent, moment, **await wanted(sandbox, "by spec"))
        await eventually(lambda: [pod["id"] for pod in living(sandbox)] == [other] and len(rents(sandbox)) == 2)
        # The server lives on, and the name is free again.
        sandbox.clock.advance(minutes=1)
        assert (await agent.call("rent_pod", **await wanted(sandbox, "by spec")))["outcome"] == "done"


async def test_a_rent_that_is_cancelled_before_it_is_sent_is_not_sent(sandbox: Sandbox) -> None:
    moment, wire = Moment(), Wire(sandbox)
    wire.on("GET", "/pods", moment.after(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        await cancelled(agent, moment, **await wanted(sandbox, "by spec"))
        await agent.refused("rent_pod", name="x", gpu_type="Voodoo2")
    assert rents(sandbox) == []


async def test_the_pod_of_a_cancelled_rent_goes_even_if_it_boots_for_minutes(sandbox: Sandbox) -> None:
    sandbox.add_fault("boot_slow", seconds=240)
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, "during the wait")
    async with agent_on(sandbox, transport=wire) as agent:
        await cancelled(agent, moment, **await wanted(sandbox, "by spec"))
        await eventually(lambda: living(sandbox) == [])


async def test_the_pod_of_a_cancelled_rent_goes_even_if_this_server_is_gone_by_then(sandbox: Sandbox) -> None:
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, "during the wait")
    gone = False

    async def until_gone(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal gone
        if gone:
            raise httpx2.ConnectError("the server is gone")
        gone = True
        return await forward(request)

    wire.on("DELETE", "/pods/*", until_gone)
    async with agent_on(sandbox, transport=wire) as agent:
        await cancelled(agent, moment, name="train", gpu_type="RTX4090")
        await eventually(lambda: len(wire.sent("DELETE", "/pods/*")) > 1)
    sandbox.clock.advance(minutes=5)
    assert living(sandbox) == []


async def test_removing_the_pod_of_a_cancelled_rent_survives_failures(sandbox: Sandbox) -> None:
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, "after the rent is served")
    wire.on("DELETE", "/pods/*", answering(500, {"detail": "oops"}), times=4)
    wire.on("DELETE", "/pods/*", losing_the_answer(), times=1)
    wire.on("POST", "/pods/*/schedule-removal", answering(500, {"detail": "oops"}))
    async with agent_on(sandbox, transport=wire) as agent:
        await cancelled(agent, moment, **await wanted(sandbox, "by spec"))
        await eventually(lambda: living(sandbox) == [])


async def test_a_pod_that_cannot_be_removed_gets_its_removal_time_even_if_that_fails_at_first(sandbox: Sandbox) -> None:
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, "after the rent is served")
    wire.on("DELETE", "/pods/*", answering(500, {"detail": "oops"}))
    wire.on("POST", "/pods/*/schedule-removal", answering(422, {"detail": "oops"}), times=2)
    async with agent_on(sandbox, transport=wire) as agent:
        # Without hours: those of a rent replace every removal time when the pod starts.
        await cancelled(agent, moment, name="train", gpu_type="RTX4090")
        await eventually(lambda: living(sandbox) == [])
    assert len(wire.sent("POST", "/pods/*/schedule-removal")) == 3


async def test_a_pod_that_was_only_found_by_name_is_never_removed() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    moment, wire = Moment(), Wire(sandbox)
    somebodys: list[str] = []

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        # Ours never arrives, and somebody else rents under the same name at that very moment.
        somebodys.append(await rent(sandbox, "train"))
        raise httpx2.ReadError("lost")

    on_rents(wire, act)
    arrange(wire, moment, "during the wait")
    async with agent_on(sandbox, transport=wire) as agent:
        await cancelled(agent, moment, **await wanted(sandbox, "by node"))
        await agent.refused("rent_pod", name="x", gpu_type="Voodoo2")
    assert [pod["id"] for pod in living(sandbox)] == somebodys
    assert wire.sent("DELETE", "/pods/*") == []


@both_eras
async def test_a_cancelled_wait_for_ones_turn_rents_nothing(sandbox: Sandbox, mode: Mode) -> None:
    wire, rent = Wire(sandbox), Hold()
    on_rents(wire, rent, times=1)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent, anyio.create_task_group() as group:
        group.start_soon(partial(agent.call, "rent_pod", name="first", gpu_type="RTX4090", hours=1))
        await rent.reached()
        second = Moment()
        wire.on("GET", "/templates", second.before(), times=1)
        async with anyio.create_task_group() as calls:
            calls.start_soon(partial(agent.raw, "rent_pod", name="second", gpu_type="RTX4090", template="none"))
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            calls.cancel_scope.cancel()
        rent.let_go()
    assert [record["pod_name"] for record in rents(sandbox)] == ["first"]


async def test_a_client_that_goes_away_leaves_no_pod(sandbox: Sandbox) -> None:
    moment, wire = Moment(), Wire(sandbox)
    arrange(wire, moment, "during the wait")

    async def connect_and_rent() -> None:
        async with agent_on(sandbox, transport=wire) as agent:
            await agent.raw("rent_pod", **await wanted(sandbox, "by spec"))

    async with anyio.create_task_group() as group:
        group.start_soon(connect_and_rent)
        await moment.come.wait()
        group.cancel_scope.cancel()
    sandbox.clock.advance(minutes=5)
    assert len(rents(sandbox)) == 1
    assert living(sandbox) == []


async def test_the_log_of_a_settled_rent_holds_no_secret(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire(sandbox)
    on_rents(wire, losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        with caplog.at_level("DEBUG"):
            await agent.call("rent_pod", **await wanted(sandbox, "by node"))
    assert "settling it" in caplog.text
    assert "sk_sandbox" not in caplog.text
    assert PUBLIC_KEY.split()[1][:20] not in caplog.text
    assert rents(sandbox)[0]["idempotency_key"] not in caplog.text
