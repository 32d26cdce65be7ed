"""What later looks at a rent do: other servers' looks while it is under way, and everybody's once its call has ended.

A look may settle, set a removal time, or remove what must go. It never rents what was refused, never puts a removal
off, and holds a pod that no call has seen against what it may cost.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Failure, agent_on
from tests.wires import (
    Act,
    Forward,
    Hold,
    Wire,
    answering,
    editing,
    eventually,
    failing,
    living,
    losing_the_answer,
    offers,
    on_rents,
    rents,
    truth,
)

TRAIN: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 1, "wait_seconds": 0}
NO_CONNECTION = httpx2.ConnectError("no way there")
TOO_MANY = answering(429, {"detail": "slow down"})


@pytest.fixture
def account() -> Sandbox:
    return Sandbox(seed=7, speed=0, balance_usd=5000)


@pytest.fixture
def ledger() -> str:
    return f"sqlite:///{Path.home() / 'shared.db'}"


async def a_node(account: Sandbox) -> str:
    return str(next(row["id"] for row in await offers(account) if row.get("min_gpu_count_for_rental") == 1))


@pytest.mark.parametrize("refusal", [failing(NO_CONNECTION), TOO_MANY], ids=["not sent", "429"])
@pytest.mark.parametrize("first", ["refused", "repeated"])
async def test_a_rent_that_is_refused_while_another_server_asks_again_is_one_rent(
    account: Sandbox, ledger: str, refusal: Act, first: str
) -> None:
    renting, looking = Wire(account), Wire(account)
    sent, refuse, repeated = anyio.Event(), anyio.Event(), Hold()

    async def refused(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        sent.set()
        await refuse.wait()
        return await refusal(request, forward)

    on_rents(renting, refused, times=1)
    on_rents(looking, repeated, times=1)
    wanted = {"name": "train", "executor_id": await a_node(account), "hours": 1, "wait_seconds": 0}
    answers: list[Any] = []
    async with (
        agent_on(account, state_url=ledger, transport=renting, max_pods=1) as one,
        agent_on(account, state_url=ledger, transport=looking, max_pods=1) as other,
    ):

        async def rent() -> None:
            answers.append(await one.raw("rent_pod", **wanted))

        async with anyio.create_task_group() as calls:
            calls.start_soon(rent)
            await sent.wait()
            account.clock.advance(seconds=30)  # longer than a server that lives waits for its answer
            calls.start_soon(other.call, "list_pods")
            await repeated.reached()
            ways = [refuse.set, repeated.let_go]
            for go_on in ways if first == "refused" else reversed(ways):
                go_on()
                await eventually(lambda: bool(answers) or bool(rents(account)))
        [answer] = answers
        [pod] = living(account)
        assert not answer.is_error
        assert answer.structured_content["pod_id"] == pod["id"]
        assert (await other.refused("rent_pod", **TRAIN | {"name": "more"})).code == "policy_refused"
        assert (await one.call("rent_pod", **wanted))["already_rented"] is True
    assert len(rents(account)) == 1


async def test_a_server_that_became_an_older_one_is_not_asked_again(account: Sandbox) -> None:
    wire = Wire(account)
    version = {"uptime": 1, "features": ["rent_by_spec", "rent_idempotency"]}
    wire.on("GET", "/version", answering(200, version), times=1)
    wire.on("GET", "/version", answering(200, version | {"features": []}))
    node = await a_node(account)
    async with agent_on(account, transport=wire, max_pods=2) as agent:
        assert (await agent.refused("rent_pod", name="a", gpu_type="none-such")).code
        wire.on("POST", "/executors/*/rent", losing_the_answer(), times=1)
        await agent.raw("rent_pod", name="b", executor_id=node, hours=1, wait_seconds=0)
    assert len(wire.sent("POST", "/executors/*/rent")) == len(rents(account)) == 1


async def test_looks_do_not_put_off_that_a_pod_must_go(account: Sandbox) -> None:
    wire = Wire(account)
    wire.on("DELETE", "/pods/*", answering(500, {"detail": "worker unavailable"}))
    wire.on("GET", "/pods/*", editing(lambda body: body | {"price": 25.0}))
    async with agent_on(account, transport=wire, max_price_per_hour_usd=1) as agent:
        failure = await agent.refused("rent_pod", **TRAIN | {"wait_seconds": 50})
        assert failure.code == "dearer_than_allowed"
        for _ in range(20):
            await agent.call("list_pods")
            account.clock.advance(seconds=15)
    assert living(account) == []


async def test_looks_do_not_put_off_the_end_of_hours_that_are_over(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    async with agent_on(account, state_url=ledger) as agent:
        await agent.call("rent_pod", **TRAIN | {"hours": 0.5})
    account.clock.advance(minutes=40)
    wire.on("GET", "/pods/*", failing(NO_CONNECTION))
    async with agent_on(account, state_url=ledger, transport=wire) as agent:
        for _ in range(20):
            await agent.call("list_pods")
            account.clock.advance(seconds=15)
    assert living(account) == []


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("change", "code"),
    [({"price": 25.0}, "dearer_than_allowed"), ({"gpu_count": "2"}, "not_as_asked")],
)
async def test_a_look_that_gives_back_what_a_call_has_not_read_yet_is_told_by_the_call(
    account: Sandbox, ledger: str, change: dict[str, Any], code: str, count: int
) -> None:
    renting, looking = Wire(account), Wire(account)
    listed = Hold("before the work")

    async def held(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if rents(account):
            return await listed(request, forward)
        return await forward(request)

    path = "/pods" if count > 1 else "/pods/*"
    renting.on("GET", path, held)
    looking.on("GET", "/pods", editing(lambda rows: [row | change for row in rows]))
    wanted = TRAIN | {"max_usd_per_gpu_hour": 0.5, "wait_seconds": 600, "count": count, "gpu_count": 1}
    answers: list[Any] = []
    async with (
        agent_on(account, state_url=ledger, transport=renting) as one,
        agent_on(account, state_url=ledger, transport=looking) as other,
    ):

        async def rent() -> None:
            answers.append(await one.raw("rent_pod", **wanted))

        async with anyio.create_task_group() as calls:
            calls.start_soon(rent)
            await listed.reached()
            account.clock.advance(minutes=2)
            shown = await other.call("list_pods")
            assert "after the call" not in str(shown)
            assert living(account) == []
            read_before = len(renting.sent("GET", path))
            listed.let_go()
        assert len(renting.sent("GET", path)) - read_before < 3, "what the ledger knows is not waited for"
        [answer] = answers
        if count == 1:
            failure = Failure(answer)
            assert failure.code == code
            assert "may bill" not in failure.text
        else:
            rows = answer.structured_content["pods"]
            assert [(row["outcome"], row.get("code")) for row in rows] == [("failed", code)] * count
            assert "pending" not in answer.structured_content["next"]


LOST = {
    "the answer is lost": losing_the_answer(),
    "it never arrives": failing(httpx2.ReadError("the connection broke")),
}


def dearer(body: Any) -> Any:
    return [row | {"price": 25.0} for row in body] if isinstance(body, list) else body | {"price": 25.0}


@pytest.mark.parametrize("lost", LOST)
async def test_a_pod_that_is_found_later_is_held_against_the_limits(account: Sandbox, ledger: str, lost: str) -> None:
    wire = Wire(account)
    is_dark = False

    async def lose(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal is_dark
        is_dark = True
        return await LOST[lost](request, forward)

    async def reach(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if is_dark:
            raise NO_CONNECTION
        return await forward(request)

    on_rents(wire, lose, times=1)
    for path in ("/pods", "/version"):
        wire.on("GET", path, reach)
    wanted = TRAIN | {"gpu_type": "", "executor_id": await a_node(account)}
    async with agent_on(account, state_url=ledger, transport=wire, max_burn_per_hour_usd=2) as agent:
        assert (await agent.refused("rent_pod", **wanted)).code == "outcome_unknown"
    later = Wire(account)
    later.on("GET", "/pods", editing(dearer))
    later.on("GET", "/pods/*", editing(dearer))
    async with agent_on(account, state_url=ledger, transport=later, max_burn_per_hour_usd=2) as agent:
        for _ in range(4):
            await agent.call("list_pods")
            account.clock.advance(minutes=1)
    assert living(account) == []
    assert len(rents(account)) == 1


async def left_by_a_server_that_died(
    account: Sandbox, ledger: str, tool: str, wanted: dict[str, Any], **limits: Any
) -> None:
    """Let a server lose its way to Lium in the moment in which that rents, and end."""
    wire, is_dark = Wire(account), False

    async def lose(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal is_dark
        is_dark = True
        return await losing_the_answer()(request, forward)

    async def reach(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if is_dark:
            raise NO_CONNECTION
        return await forward(request)

    for path in ("/pods", "/version"):
        wire.on("GET", path, reach)
    on_rents(wire, lose, times=1)
    wire.on("POST", "/executors/cluster/rent", lose, times=1)
    async with agent_on(account, state_url=ledger, transport=wire, **limits) as agent:
        assert (await agent.refused(tool, **wanted)).code == "outcome_unknown"


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lium_mcp.between_calls._FIRST_ATTENTION_SECONDS", 0.0)
    monkeypatch.setattr("lium_mcp.between_calls._ATTENTION_SECONDS", 0.01)


async def seconds_until(account: Sandbox, holds: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not holds():
            account.clock.advance(seconds=15)
            await anyio.sleep(0.02)


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("minutes", [1, 12, 120])
async def test_a_server_that_starts_late_sets_the_removal_time_of_a_cluster_unasked(
    account: Sandbox, ledger: str, minutes: int
) -> None:
    async with agent_on(account) as agent:
        [offer, *_] = (await agent.call("list_clusters"))["offers"]
    nodes = [node["executor_id"] for node in offer["nodes"][:2]]
    wanted = {"name": "many", "executor_ids": nodes, "hours": 9}
    await left_by_a_server_that_died(account, ledger, "rent_cluster", wanted)
    account.clock.advance(minutes=minutes)
    assert [pod["removal_scheduled_at"] for pod in living(account)] == [None, None]
    async with agent_on(account, state_url=ledger):
        await seconds_until(account, lambda: all(pod["removal_scheduled_at"] for pod in living(account)))
    account.clock.advance(hours=10)
    assert living(account) == []


@pytest.mark.usefixtures("_often")
@pytest.mark.parametrize("minutes", [1, 12, 120])
async def test_a_server_that_starts_late_gives_back_what_came_out_too_dear_unasked(
    account: Sandbox, ledger: str, minutes: int
) -> None:
    wanted = TRAIN | {"gpu_type": "", "executor_id": await a_node(account), "hours": 100}
    await left_by_a_server_that_died(account, ledger, "rent_pod", wanted, max_price_per_hour_usd=2)
    account.clock.advance(minutes=minutes)
    later = Wire(account)
    for path in ("/pods", "/pods/*"):
        later.on("GET", path, editing(dearer))
    async with agent_on(account, state_url=ledger, transport=later, max_price_per_hour_usd=2):
        await seconds_until(account, lambda: not living(account))
    assert len(rents(account)) == 1


@pytest.mark.parametrize("first", ["rent_pod", "list_pods", "get_pod"])
@pytest.mark.parametrize("seconds", [5, 40, 700])
async def test_the_first_call_after_a_server_died_keeps_nothing_that_it_must_not(
    account: Sandbox, ledger: str, first: str, seconds: int
) -> None:
    wanted = {"name": "train", "gpu_type": "A100", "hours": 1, "max_usd_per_hour": 5}
    await left_by_a_server_that_died(account, ledger, "rent_pod", wanted)
    account.clock.advance(seconds=seconds)
    [left] = [pod["id"] for pod in living(account)]
    later = Wire(account)
    for path in ("/pods", "/pods/*"):
        later.on("GET", path, editing(dearer))
    async with agent_on(account, state_url=ledger, transport=later) as agent:
        given = {"rent_pod": wanted, "get_pod": {"pod": left}}.get(first, {})
        answer = await agent.raw(first, **given)
        said = json.dumps(answer.structured_content) or str(answer.content)
        assert later.sent("DELETE", f"/pods/{left}"), said
        assert left not in [pod["id"] for pod in living(account)]
        if first == "rent_pod":
            assert answer.structured_content is None or answer.structured_content["pod_id"] != left


@pytest.mark.parametrize("is_dearer", [True, False])
@pytest.mark.parametrize("is_listed", [True, False])
@pytest.mark.parametrize("first", ["rent_pod", "list_pods"])
async def test_a_pod_of_anothers_that_is_named_for_a_rent_is_left_alone(
    account: Sandbox, ledger: str, first: str, is_listed: bool, is_dearer: bool
) -> None:
    wanted = {"name": "train", "gpu_type": "A100", "hours": 1, "max_usd_per_hour": 5}
    await left_by_a_server_that_died(account, ledger, "rent_pod", wanted)
    account.clock.advance(seconds=40)
    async with agent_on(account, state_url=f"{ledger}-of-another") as stranger:
        rented = await stranger.call("rent_pod", name="other", gpu_type="A100", hours=100, wait_seconds=300)
    other = rented["pod_id"]
    later = Wire(account)
    on_rents(later, editing(lambda body: body | {"pod_id": other}))
    if not is_listed:
        later.on("GET", "/pods", answering(200, []), times=1)
    for path in ("/pods", "/pods/*") if is_dearer else ():
        later.on("GET", path, editing(dearer))
    async with agent_on(account, state_url=ledger, transport=later) as agent:
        await agent.raw(first, **(wanted if first == "rent_pod" else {}))
        account.clock.advance(seconds=20)
        await agent.call("list_pods")
    changed = [request for request in later.requests if request.method != "GET" and other in request.url.path]
    assert changed == []
    assert other in [pod["id"] for pod in living(account)]


async def test_a_pod_that_is_handed_out_and_that_no_look_has_seen_is_held_against_what_was_asked(
    account: Sandbox, ledger: str
) -> None:
    wanted = {"name": "train", "gpu_type": "A100", "hours": 1, "max_usd_per_hour": 5}
    await left_by_a_server_that_died(account, ledger, "rent_pod", wanted)
    account.clock.advance(seconds=40)
    [left] = [pod["id"] for pod in living(account)]
    later = Wire(account)
    later.on("GET", "/pods/*", editing(dearer))
    later.on("GET", "/pods", answering(200, []))
    async with agent_on(account, state_url=ledger, transport=later) as agent:
        refused = await agent.refused("rent_pod", **wanted)
    assert (refused.code, left in refused.text) == ("dearer_than_allowed", True)
    assert living(account) == []
    assert len(rents(account)) == 1


async def test_one_answer_that_a_pod_is_not_there_closes_no_rent(account: Sandbox) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire, max_pods=1) as agent:
        rented = await agent.call("rent_pod", **TRAIN | {"hours": 5, "wait_seconds": 300})
        account.clock.advance(minutes=10)
        wire.on("GET", "/pods", answering(200, []), times=2)
        wire.on("GET", "/pods/*", answering(404, {"detail": "Pod not found"}), times=2)
        await agent.raw("rent_pod", **TRAIN | {"hours": 5})
        account.clock.advance(seconds=10)
        again = await agent.call("rent_pod", **TRAIN | {"hours": 5})
        assert again["pod_id"] == rented["pod_id"]
    assert len(rents(account)) == len(living(account)) == 1


async def test_a_pod_that_its_own_call_could_not_read_is_held_against_the_limits(account: Sandbox) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire, max_price_per_hour_usd=1) as agent:
        wire.on("GET", "/pods/*", answering(404, {"detail": "Pod not found"}), times=3)
        rented = await agent.call("rent_pod", **TRAIN)
        assert rented["outcome"] == "pending"
        wire.on("GET", "/pods", editing(dearer))
        await agent.call("list_pods")
        account.clock.advance(minutes=2)
        await agent.call("list_pods")
    assert living(account) == []


async def test_a_price_that_rises_once_it_was_accepted_removes_nothing(account: Sandbox) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire, max_price_per_hour_usd=1) as agent:
        await agent.call("rent_pod", **TRAIN | {"wait_seconds": 50})
        wire.on("GET", "/pods", editing(dearer))
        wire.on("GET", "/pods/*", editing(dearer))
        await agent.call("list_pods")
        await agent.call("get_pod", pod="train")
    assert [pod["pod_name"] for pod in living(account)] == ["train"]


async def clustered(agent: Agent, **arguments: Any) -> list[str]:
    offer = min((await agent.call("list_clusters"))["offers"], key=lambda offer: str(offer["fabric_id"]))
    nodes = [node["executor_id"] for node in offer["nodes"][:2]]
    return list((await agent.call("rent_cluster", name="c", executor_ids=nodes, **arguments))["pod_ids"])


@pytest.mark.parametrize("what", ["removed", "scheduled"])
async def test_the_end_of_one_member_leaves_the_removal_time_of_the_others(account: Sandbox, what: str) -> None:
    wire = Wire(account)
    wire.on("POST", "/pods/*/schedule-removal", answering(500, {"detail": "not now"}), times=2)
    settings: Any = {"max_hours": 2, "transport": wire}
    async with agent_on(account, **settings) as agent:
        one, other = await clustered(agent, hours=2)
        account.clock.advance(minutes=1)
        if what == "removed":
            await agent.call("remove_pod", pod=one)
        else:
            await agent.call("schedule_pod_removal", pod=one, hours_from_now=1)
        await agent.call("list_pods")
        account.clock.advance(minutes=2)
        assert other in {pod["id"] for pod in living(account)}
        await agent.call("list_pods")
    account.clock.advance(hours=2.1)
    assert living(account) == []


async def test_members_whose_price_is_known_are_enough_to_be_too_dear(account: Sandbox) -> None:
    wire = Wire(account)
    wire.on("GET", "/pods", editing(lambda rows: [row | {"price": 500 if n else None} for n, row in enumerate(rows)]))
    settings: Any = {"max_price_per_hour_usd": 30}
    async with agent_on(account, transport=wire, **settings) as agent:
        with pytest.raises(AssertionError, match="dearer_than_allowed"):
            await clustered(agent)


async def test_a_pod_that_is_removed_during_a_rent_counts_towards_the_budget(account: Sandbox) -> None:
    wire = Wire(account)
    # Charges reach the statement late.
    wire.on("GET", "/billing/statement", editing(lambda body: body | {"pods": [], "total": 0}))
    whole = [row for row in await offers(account) if row["available_gpu_count"] == 8]
    one, other = sorted(whole, key=lambda row: (float(row["price_per_gpu"]), row["id"]))[-2:]
    arguments: Any = {"gpu_count": 8, "hours": 1}
    budget_usd = float(other["price_per_gpu"]) * 8 * 1.2
    async with agent_on(account, transport=wire, budget_usd=budget_usd) as agent:
        await agent.call("rent_pod", name="first", executor_id=one["id"], **arguments, wait_seconds=50)
        account.clock.advance(minutes=30)
        looks = 0

        async def first_goes(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            nonlocal looks
            looks += 1
            if looks == 2:
                await agent.call("remove_pod", pod="first")
                account.clock.advance(minutes=1)
            return await forward(request)

        wire.on("GET", "/pods", first_goes)
        result = await agent.raw("rent_pod", name="second", executor_id=other["id"], **arguments, wait_seconds=0)
        assert looks >= 2
        assert Failure(result).code == "policy_refused"
    assert living(account) == []


async def test_a_part_of_an_hour_is_not_given_away(account: Sandbox) -> None:
    async with agent_on(account, max_hours=2) as agent:
        await agent.call("rent_pod", **TRAIN | {"hours": 1.1})
        account.clock.advance(minutes=1)
        failure = await agent.refused("schedule_pod_removal", pod="train", hours_from_now=2)
        assert failure.code == "policy_refused"
        await agent.call("list_pods")
    account.clock.advance(hours=1.3)
    assert living(account) == []


async def test_a_ceiling_is_never_raised_to_what_was_quoted(account: Sandbox) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/rent-by-spec", editing(lambda body: body | {"price_per_hour": 5.0}), times=1)
    async with agent_on(account, transport=wire, max_price_per_hour_usd=9) as agent:
        await agent.raw("rent_pod", **TRAIN, max_usd_per_gpu_hour=0.3)
    assert all(pod["price"] <= 0.3 for pod in truth(account, "pods"))
    bodies = [json.loads(request.content) for request in wire.sent("POST", "/executors/rent-by-spec")]
    assert [body["max_price_per_gpu_hour"] for body in bodies] == [0.3, 0.3]
