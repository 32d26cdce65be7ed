"""How many requests leave before the one that rents or removes: each takes time, and counts towards a limit of Lium."""

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Mode, Person, agent_on
from tests.wires import Wire, rent

# What the market says of a node or of a type, whom the key belongs to, and what else lives.
BY_NODE = ["/executors", "/executors/*/quote", "/executors/default-docker-image", "/templates"]
BY_TYPE = ["/executors", "/machines", "/version"]
ROOM = ["/users/me", "/pods"]
SPENT = "/billing/statement"


def paths(wire: Wire, sandbox: Sandbox) -> list[str]:
    """What was read, with the id of a node as a star, up to the rent or the removal."""
    found: list[str] = []
    for request in wire.requests:
        path = request.url.path.removeprefix("/api")
        is_dry = b'"dry_run":true' in request.content.replace(b" ", b"")
        if request.method == "DELETE" or (request.method == "POST" and "rent" in path and not is_dry):
            return found
        parts = path.split("/")
        found.append("/".join("*" if len(part) == 36 else part for part in parts))
    raise AssertionError("nothing was rented or removed")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("is_asked", [False, True], ids=["unasked", "asked"])
@pytest.mark.parametrize("has_budget", [False, True], ids=["free", "budget"])
@pytest.mark.parametrize("way", ["by node", "by type"])
async def test_a_rent_reads_what_it_needs_once_and_after_a_question_what_may_have_moved(
    way: str, has_budget: bool, is_asked: bool, mode: Mode
) -> None:
    sandbox = Sandbox(seed=7, speed=0)
    wire = Wire(sandbox)
    limits = {"budget_usd": 100.0, "budget_since": sandbox.clock.now().date()} if has_budget else {}
    async with agent_on(
        sandbox, mode=mode, transport=wire, person=Person("yes") if is_asked else None, **limits
    ) as agent:
        [offer] = (await agent.call("list_gpus", limit=1))["offers"]
        wire.requests.clear()
        wish = {"executor_id": offer["executor_id"]} if way == "by node" else {"gpu_type": offer["gpu_type"]}
        await agent.call("rent_pod", name="once", hours=2, wait_seconds=0, **wish)
    select = ["/executors/rent-by-spec"] if way == "by type" and (is_asked or has_budget) else []
    plan = (BY_NODE if way == "by node" else BY_TYPE) + select
    spent = [SPENT] if has_budget else []
    if not is_asked:
        expected = [*plan, *ROOM, *spent]
    else:
        limits_before = [*spent, "/pods"] if has_budget else []
        names = ["/pods"]
        moved = ["/executors/*/quote"] if way == "by node" else select
        bears = ["/users/me", "/executors/*/quote"]
        expected = [*plan, *limits_before, *names, *bears, *moved, "/pods", *spent]
    assert sorted(paths(wire, sandbox)) == sorted(expected)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_removal_reads_the_pods_once_before_the_question_and_once_after_it(mode: Mode) -> None:
    sandbox = Sandbox(seed=7, speed=0)
    pod_id = await rent(sandbox, "gone")
    wire = Wire(sandbox)
    async with agent_on(sandbox, mode=mode, transport=wire, person=Person("yes")) as agent:
        await agent.call("remove_pod", pod=pod_id)
    read = paths(wire, sandbox)
    assert read.count("/pods") == 2
    assert read.count("/backup-configs/pod/*") <= 2
