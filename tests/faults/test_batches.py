"""Several pods in one call: admitted together or not at all, and one that fails voids no other.

Everything goes through an MCP client; the sandbox's own record says how many pods there are, and the ledger's rows what
is known of them.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import httpx2
import pytest

from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.sandbox.sandbox import FEATURES
from tests.faults.fates import Fate, Fates, Kind, Process, Rents
from tests.faults.record import forgotten, is_open, is_unsettled, rows_of
from tests.faults.test_ledger_failures import no_file_longer_than
from tests.harness import Agent, agent_on
from tests.processes import serving
from tests.serving.test_stdio import CURRENT, called, speaking
from tests.wires import (
    Act,
    Forward,
    Hold,
    Wire,
    answering,
    eventually,
    failing,
    list_late,
    living,
    losing_the_answer,
    passing,
    rents,
    sent_rents,
    served,
)

NO_REPLAY: Final = tuple(feature for feature in FEATURES if feature != "rent_idempotency")
TRAIN: Final[dict[str, Any]] = {"name": "train", "gpu_type": "RTX4090", "count": 3, "hours": 2, "wait_seconds": 0}
NAMES: Final = ["train-1", "train-2", "train-3"]
POINTS: Final = ("before the work", "after the work")


@pytest.fixture
def account() -> Sandbox:
    """An account whose servers may read as often as they like."""
    return Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)


@pytest.fixture
def ledger() -> str:
    """An empty ledger, which any server may open."""
    return f"sqlite:///{Path.home() / 'batches.db'}"


def on_the(number: int, act: Act) -> Act:
    """Let one rent of a batch, counted from 1, be in the hands of the act; also when it is repeated."""
    keys: list[str] = []

    async def acting(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        key = request.headers["Idempotency-Key"]
        if key not in keys:
            keys.append(key)
        return await (act if keys.index(key) + 1 == number else passing)(request, forward)

    return acting


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in answer["pods"]}


def outcomes(answer: dict[str, Any]) -> list[str]:
    return [row["outcome"] for row in answer["pods"]]


def named(pods: list[dict[str, Any]]) -> list[str]:
    return sorted(pod["pod_name"] for pod in pods)


def assert_each_once(sandbox: Sandbox, ledger: str) -> None:
    """No name has two pods, no pod is forgotten, and no row of the ledger waits for anybody."""
    assert all(count == 1 for count in Counter(named(living(sandbox))).values())
    assert forgotten(sandbox, rows_of(ledger)) == []
    assert all(row["status"] == "rented" for row in rows_of(ledger) if is_open(row))


async def settle(agent: Agent) -> None:
    """Let time pass, and lists show what there is."""
    agent.sandbox.clock.advance(minutes=6)
    for _ in range(3):
        await agent.call("list_pods")
        agent.sandbox.clock.advance(seconds=61)
    assert "unsettled" not in await agent.call("list_pods")


# --- what a batch is -------------------------------------------------------------------------------------------------


async def test_a_batch_is_a_pod_for_each_name_and_the_same_call_again_rents_none(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})
        assert (answer["outcome"], answer["pods_done"]) == ("done", 3)
        assert [row["name"] for row in answer["pods"]] == NAMES == named(living(account))
        assert answer["price_per_hour_usd"] == pytest.approx(sum(float(pod["price"]) for pod in living(account)))
        again = await agent.call("rent_pod", **TRAIN)
        assert {row["pod_id"] for row in again["pods"]} == {row["pod_id"] for row in answer["pods"]}
        assert all(row["already_rented"] for row in again["pods"])
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == len(sent_rents(wire)) == 3
    assert {row["status"] for row in rows_of(ledger)} == {"rented"}


async def test_the_same_call_again_rents_what_is_missing_and_more_of_them_are_more(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        first = by_name(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45}))
        await agent.call("remove_pod", pod="train-2")
        again = by_name(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45}))
        assert [row.get("already_rented", False) for row in again.values()] == [True, False, True]
        assert again["train-2"]["pod_id"] != first["train-2"]["pod_id"]
        more = by_name(await agent.call("rent_pod", **TRAIN | {"count": 5, "wait_seconds": 45}))
        assert list(more) == [*NAMES, "train-4", "train-5"]
        assert sum(row.get("already_rented", False) for row in more.values()) == 3
    assert len(rents(account)) == 6
    assert len(living(account)) == 5


async def test_pods_of_one_node_take_as_many_gpus_of_it_as_it_has(account: Sandbox) -> None:
    node = next(
        row
        for row in account.state("nodes")["nodes"]
        if row["available_gpu_count"] == 8 and row["min_gpu_count_for_rental"] == 1
    )
    wanted = {"name": "one", "executor_id": node["id"], "hours": 1, "wait_seconds": 0}
    async with agent_on(account) as agent:
        failure = await agent.refused("rent_pod", **wanted, gpu_count=3, count=3)
        assert failure.code == "gpu_count_not_rentable"
        assert "room for 2 of 3 pods" in failure.text
        assert rents(account) == []
        await agent.call("rent_pod", **wanted, gpu_count=3, count=2)
    assert {record["executor_id"] for record in living(account)} == {node["id"]}
    assert len(living(account)) == 2


async def test_a_backup_is_restored_into_each_pod_of_a_batch(account: Sandbox) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire) as agent:
        await agent.call("rent_pod", name="source", gpu_type="RTX4090", hours=5)
        backup_id = (await agent.call("create_backup", pod="source", wait_seconds=300))["backup"]["backup_id"]
        restored = {"name": "copy", "gpu_type": "RTX4090", "hours": 1, "backup_id": backup_id}
        answer = await agent.call("rent_pod", **restored, count=2)
        assert len(answer["pods"]) == 2
    bodies = [json.loads(request.content) for request in sent_rents(wire)[1:]]
    assert [body["pod_name"] for body in bodies] == ["copy-1", "copy-2"]
    assert {body["backup_log_id"] for body in bodies} == {backup_id}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"volume": "data"}, "invalid_argument"),
        ({"name": "n" * 199}, "invalid_argument"),
        ({"count": 21}, "invalid_argument"),
        ({"count": -1}, "invalid_argument"),
        ({"gpu_type": "H200", "count": 20, "gpu_count": 8}, "no_gpu_matches"),
    ],
    ids=str,
)
async def test_what_no_batch_can_be_is_refused_before_anything_is_sent(
    account: Sandbox, ledger: str, wrong: dict[str, Any], code: str
) -> None:
    async with agent_on(account, state_url=ledger) as agent:
        assert (await agent.refused("rent_pod", **TRAIN | wrong)).code == code
    assert rents(account) == rows_of(ledger) == []


async def test_one_name_that_another_request_has_taken_keeps_all_from_leaving(account: Sandbox, ledger: str) -> None:
    async with agent_on(account, state_url=ledger) as agent:
        await agent.call("rent_pod", name="train-2", gpu_type="RTX4090", hours=1, wait_seconds=0)
        failure = await agent.refused("rent_pod", **TRAIN)
        assert failure.code == "pod_name_taken"
        assert "train-2" in failure.text
    assert named(living(account)) == ["train-2"]
    assert len(rows_of(ledger)) == 1


# --- limits ----------------------------------------------------------------------------------------------------------

LIMITS: Final = {
    "max_pods": 2,
    "max_burn_per_hour_usd": 0.8,
    "budget_usd": 1.5,
    "max_price_per_hour_usd": 0.27,
    "max_hours": 1,
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_a_batch_of_which_a_part_would_fit_is_refused_whole(account: Sandbox, ledger: str, limit: str) -> None:
    bound: dict[str, Any] = {limit: LIMITS[limit]}
    async with agent_on(account, state_url=ledger, **bound) as agent:
        failure = await agent.refused("rent_pod", **TRAIN)
        assert failure.code == "policy_refused"
        assert limit in failure.text
        assert rents(account) == rows_of(ledger) == []
        fits = TRAIN | {"count": 1, "hours": 1}
        assert (await agent.call("rent_pod", **fits))["pod_id"]


async def test_what_lives_of_a_batch_counts_once_when_it_is_completed(account: Sandbox) -> None:
    async with agent_on(account, max_pods=3) as agent:
        await agent.call("rent_pod", **TRAIN | {"count": 2})
        assert outcomes(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})) == ["done"] * 3
        assert (await agent.refused("rent_pod", **TRAIN | {"count": 4})).code == "policy_refused"
    assert len(living(account)) == 3


@pytest.mark.parametrize("limit", ["max_pods", "max_burn_per_hour_usd"])
async def test_batches_of_several_servers_at_once_pass_no_limit_together(
    account: Sandbox, limit: str, state_url: str
) -> None:
    bound: dict[str, Any] = {limit: {"max_pods": 7, "max_burn_per_hour_usd": 2.3}[limit]}
    calls = [TRAIN | {"name": name} for name in ("one", "two", "three", "four")]
    async with (
        agent_on(account, state_url=state_url, **bound) as first,
        agent_on(account, state_url=state_url, **bound) as second,
        agent_on(account, state_url=state_url, **bound) as third,
        agent_on(account, state_url=state_url, **bound) as fourth,
    ):
        agents = (first, second, third, fourth)
        pairs = list(zip(agents, calls, strict=True))
        for _ in range(5):  # servers that wait turn the clock: one in flight soon looks lost
            await asyncio.gather(*[agent.raw("rent_pod", **call) for agent, call in pairs])
    pods = living(account)
    assert len(pods) == len(rents(account)) >= 6
    if limit == "max_pods":
        assert len(pods) <= 7
    else:  # prices move while servers wait: how many fit is not known before
        assert sum(float(pod["price"]) for pod in pods) <= 2.3


async def test_servers_that_rent_one_batch_at_once_rent_it_once(account: Sandbox, state_url: str) -> None:
    async with (
        agent_on(account, state_url=state_url) as first,
        agent_on(account, state_url=state_url) as second,
        agent_on(account, state_url=state_url) as third,
    ):
        answers = await asyncio.gather(*[agent.call("rent_pod", **TRAIN) for agent in (first, second, third)])
    assert named(living(account)) == NAMES
    assert len(rents(account)) == 3
    assert len({row["pod_id"] for answer in answers for row in answer["pods"]}) == 3


# --- one that fails --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("features", [FEATURES, NO_REPLAY], ids=["replay", "no replay"])
@pytest.mark.parametrize("is_late", [True, False], ids=["after the work", "before"])
async def test_a_lost_answer_voids_no_other(ledger: str, number: int, features: tuple[str, ...], is_late: bool) -> None:
    account = Sandbox(seed=7, speed=0, features=features)
    wire = Wire(account)
    lost = losing_the_answer() if is_late else failing(httpx2.ReadError("lost"))
    wire.on("POST", "/executors/*/rent", on_the(number, lost))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})
        others = [name for name in NAMES if name != f"train-{number}"]
        assert all(by_name(answer)[name]["outcome"] == "done" for name in others)
        of_lost = by_name(answer)[f"train-{number}"]
        if is_late:  # its pod is found by its name
            assert of_lost["outcome"] == "done"
            assert "found by its name" in of_lost["problem"]
        else:
            assert (of_lost["outcome"], of_lost["code"]) == ("unknown", "outcome_unknown")
        assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 3
        wire.behave()
        await settle(agent)
        await agent.call("rent_pod", **TRAIN)
        assert named(living(account)) == NAMES
    assert_each_once(account, ledger)


async def test_while_one_of_a_batch_is_lost_nothing_else_is_rented(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", on_the(2, answering(502, b"")))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
        assert answer["pods_unknown"] == 1
        for other in (TRAIN, TRAIN | {"count": 5}, TRAIN | {"name": "other"}, TRAIN | {"name": "x", "count": 1}):
            assert (await agent.refused("rent_pod", **other)).code == "rent_unsettled"
    assert len(rents(account)) == 2


async def test_where_lium_does_not_answer_at_all_two_are_lost_and_the_others_never_leave(
    account: Sandbox, ledger: str
) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", answering(502, b""))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        failure = await agent.refused("rent_pod", **TRAIN | {"count": 6})
        assert failure.code == "outcome_unknown"
        assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 2
        assert Counter(row["status"] for row in rows_of(ledger)) == {"unknown": 2, "withdrawn": 4}
        wire.behave()
        await settle(agent)
        answer = await agent.call("rent_pod", **TRAIN | {"count": 6, "wait_seconds": 45})
        assert outcomes(answer) == ["done"] * 6
    assert_each_once(account, ledger)


async def test_answers_that_are_lost_one_after_the_other_and_settled_keep_no_other_from_leaving(
    account: Sandbox, ledger: str
) -> None:
    wire = Wire(account)
    firsts: set[str] = set()

    async def lose_each_once(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        await response.aread()
        if (key := request.headers["Idempotency-Key"]) not in firsts:
            firsts.add(key)
            raise httpx2.ReadError("lost")
        return response

    wire.on("POST", "/executors/*/rent", lose_each_once)
    list_late(wire, sends=10)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **TRAIN | {"count": 5, "wait_seconds": 100})
        assert outcomes(answer) == ["done"] * 5
        assert all(row["lost_answer_settled"] for row in answer["pods"])
    assert len(rents(account)) == 5
    assert_each_once(account, ledger)


TAKEN: Final = answering(400, {"error": {"code": "node_unavailable", "message": "The node was taken"}})


async def test_a_node_that_is_taken_is_replaced_by_one_that_costs_no_more(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", on_the(1, TAKEN))
    roomy = {"gpu_type": "H100", "name": "train", "count": 2, "hours": 1, "wait_seconds": 0}
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        planned = await agent.call("rent_pod", **roomy, dry_run=True)
        answer = await agent.call("rent_pod", **roomy)
    dearest = {row["name"]: row["price_per_hour_usd"] for row in planned["pods"]}
    for pod in living(account):
        assert float(pod["price"]) <= dearest[pod["pod_name"]] + 0.0001
    refused = [row for row in rows_of(ledger) if row["status"] == "refused"]
    assert len(refused) == 1
    assert len(living(account)) == sum(outcome != "failed" for outcome in outcomes(answer))
    assert_each_once(account, ledger)


async def test_a_node_that_is_taken_with_no_other_for_its_price_fails_alone(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", on_the(1, TAKEN))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        # The first is the cheapest of all, so that no other costs as little.
        answer = await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})
        assert outcomes(answer) == ["failed", "done", "done"]
        assert answer["outcome"] == "partly_done"
        assert "The node was taken" in answer["pods"][0]["problem"]
        assert named(living(account)) == NAMES[1:]
        again = await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})
        assert outcomes(again) == ["done"] * 3
    assert_each_once(account, ledger)


@pytest.mark.parametrize("status", [401, 402, 403, 422, 429])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_refusal_that_is_of_all_stops_the_rest(account: Sandbox, ledger: str, status: int, number: int) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", on_the(number, answering(status, {"detail": "no more"})))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        result = await agent.raw("rent_pod", **TRAIN)
        assert len(sent_rents(wire)) == number
        assert len(living(account)) == number - 1
        assert (
            Counter(row["status"] for row in rows_of(ledger))
            == Counter({"rented": number - 1, "refused": 1, "withdrawn": 3 - number}) - Counter()
        )
        assert result.is_error == (number == 1)
        wire.behave()
        assert outcomes(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})) == ["done"] * 3
    assert_each_once(account, ledger)


async def test_one_that_comes_out_dearer_is_given_back_and_the_others_stay(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)

    async def dearer(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        body = json.loads(await response.aread())
        rows = body if isinstance(body, list) else [body]
        for row in rows:
            if row.get("pod_name") == "train-2":
                row["price"] = 9.0
        return httpx2.Response(response.status_code, json=body)

    wire.on("GET", "/pods", dearer)
    wire.on("GET", "/pods/*", dearer)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **TRAIN | {"max_usd_per_gpu_hour": 0.5, "wait_seconds": 45})
        assert outcomes(answer) == ["done", "failed", "done"]
        assert answer["pods"][1]["code"] == "dearer_than_allowed"
        account.clock.advance(minutes=1)
        await agent.call("list_pods")
    assert named(living(account)) == ["train-1", "train-3"]


async def test_what_the_ledger_cannot_note_is_not_sent(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    with ExitStack() as disk:

        async def fill(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            response = await forward(request)
            await response.aread()
            disk.enter_context(no_file_longer_than(1))
            return response

        async with agent_on(account, transport=wire, state_url=ledger) as agent:
            wire.on("POST", "/executors/*/rent", on_the(1, fill), times=1)
            answer = await agent.call("rent_pod", **TRAIN)
            assert outcomes(answer)[1:] == ["failed", "failed"]
            assert {row["code"] for row in answer["pods"][1:]} == {"not_sent"}
            assert len(sent_rents(wire)) == len(rents(account)) == 1
            disk.close()
            account.clock.advance(minutes=6)
            assert outcomes(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})) == ["done"] * 3
    assert_each_once(account, ledger)


# --- cut off in the middle -------------------------------------------------------------------------------------------


async def let_go_later(hold: Hold) -> None:
    """Once the server must have heard that nobody waits any more."""
    for _ in range(200):
        await anyio.lowlevel.checkpoint()
    hold.let_go()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_a_cancelled_batch_leaves_no_pod_and_sends_no_more(
    account: Sandbox, ledger: str, number: int, point: Any
) -> None:
    wire, hold = Wire(account), Hold(point)
    wire.on("POST", "/executors/*/rent", on_the(number, hold))
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        async with anyio.create_task_group() as calls:

            async def rent() -> None:
                await agent.raw("rent_pod", **TRAIN)

            calls.start_soon(rent)
            await hold.reached()
            later = asyncio.create_task(let_go_later(hold))
            calls.cancel_scope.cancel()
        await later
        await eventually(lambda: len(rents(account)) == number and living(account) == [])
        await eventually(lambda: not any(is_unsettled(row) for row in rows_of(ledger)))
        wire.behave()
        account.clock.advance(minutes=2)
        assert outcomes(await agent.call("rent_pod", **TRAIN | {"wait_seconds": 45})) == ["done"] * 3
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == number + 3
    assert_each_once(account, ledger)


async def test_a_batch_that_is_cancelled_while_it_waits_removes_all_its_pods(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        reading = wire.hold("GET", "/pods/*")
        async with anyio.create_task_group() as calls:

            async def rent() -> None:
                await agent.raw("rent_pod", **TRAIN | {"wait_seconds": 45})

            calls.start_soon(rent)
            await reading.reached()
            assert len(living(account)) == 3
            later = asyncio.create_task(let_go_later(reading))
            calls.cancel_scope.cancel()
        await later
        await eventually(lambda: living(account) == [])


class Servers:
    """Servers that follow one another on one ledger, each of which may die at a chosen request."""

    def __init__(self, sandbox: Sandbox, ledger: str) -> None:
        self._sandbox = sandbox
        self._ledger = ledger
        self.rents = Rents(
            sandbox.clock.now,
            {API_KEY: "Sandbox"},
            lambda key: any(row["idempotency_key"] == key and is_unsettled(row) for row in rows_of(ledger)),
            lambda: {row["idempotency_key"] for row in rows_of(ledger) if row["status"] == "admitted"},
        )
        self.fates = Fates(self.rents)
        self._processes: list[Process] = []

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool of a new server."""
        process = Process(
            self._sandbox,
            self.fates,
            api_key=API_KEY,
            base_url="http://127.0.0.1/api",
            state_url=self._ledger,
            log_level="ERROR",
            max_pods=3,
        )
        self._processes.append(process)
        connection = await process.connect(API_KEY, "auto")
        return await connection.call(tool, **arguments)

    async def close(self) -> None:
        for process in self._processes:
            await process.close()


@asynccontextmanager
async def servers_on(sandbox: Sandbox, ledger: str) -> AsyncIterator[Servers]:
    servers = Servers(sandbox, ledger)
    try:
        yield servers
    finally:
        await servers.close()


@pytest.mark.parametrize("kind", ["kill_before", "kill_after"])
@pytest.mark.parametrize(("where", "passing_by"), [("rent", 0), ("rent", 1), ("rent", 2), ("pod", 0), ("pod", 2)])
async def test_a_server_that_dies_in_a_batch_leaves_what_the_next_one_completes(
    account: Sandbox, ledger: str, kind: Kind, where: Any, passing_by: int
) -> None:
    async with servers_on(account, ledger) as servers:
        servers.fates.pending.append(Fate(kind, where, passing_by))
        assert await servers.call("rent_pod", **TRAIN) is None
        left = {row["pod_name"]: row["status"] for row in rows_of(ledger)}
        assert sorted(left) == NAMES
        if where == "rent":
            waiting = [name for name, status in left.items() if status == "admitted"]
            assert waiting == NAMES[passing_by + 1 :]
        # What never left is neither sent by the next server nor in its way for long.
        account.clock.advance(seconds=30 + 15 + 3 + 1)
        listed = await servers.call("list_pods")
        assert not listed.is_error
        assert not any(row["status"] == "admitted" for row in rows_of(ledger))
        account.clock.advance(minutes=6)
        for _ in range(4):
            await servers.call("list_pods")
            account.clock.advance(seconds=65)
        answer = await servers.call("rent_pod", **TRAIN | {"wait_seconds": 45})
        assert not answer.is_error, answer
        assert outcomes(answer.structured_content) == ["done"] * 3
    assert servers.rents.wrongs == []
    assert named(living(account)) == NAMES
    assert_each_once(account, ledger)


async def test_what_a_dead_server_admitted_is_not_sent_by_one_with_stricter_limits(
    account: Sandbox, ledger: str
) -> None:
    async with servers_on(account, ledger) as servers:
        servers.fates.pending.append(Fate("kill_after", "rent"))
        await servers.call("rent_pod", **TRAIN)
    async with agent_on(account, state_url=ledger, max_pods=1) as agent:
        await settle(agent)
        assert (await agent.refused("rent_pod", **TRAIN)).code == "policy_refused"
    assert len(rents(account)) == 1


async def test_while_a_batch_is_being_sent_other_servers_wait_for_their_turn(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    held = Hold()
    wire.on("POST", "/executors/*/rent", on_the(2, held))
    async with (
        agent_on(account, state_url=ledger, transport=wire, max_pods=3) as first,
        agent_on(account, state_url=ledger, max_pods=3) as second,
        anyio.create_task_group() as calls,
    ):

        async def rent() -> None:
            assert outcomes(await first.call("rent_pod", **TRAIN | {"wait_seconds": 45})) == ["done"] * 3

        calls.start_soon(rent)
        await held.reached()
        refused = await second.raw("rent_pod", name="other", gpu_type="RTX4090", hours=1, wait_seconds=0)
        assert refused.is_error
        held.let_go()
    assert named(living(account)) == NAMES


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_a_real_process_that_ends_in_a_batch_leaves_what_the_next_one_completes(
    account: Sandbox, ledger: str, number: signal.Signals
) -> None:
    async with served(Wire(account)) as wire, AsyncExitStack() as processes:
        variables = {"LIUM_API_KEY": API_KEY, "LIUM_BASE_URL": wire.base_url, "LIUM_MCP_STATE_URL": ledger}
        first = await processes.enter_async_context(serving(**variables))
        request = await speaking(first, CURRENT)
        hold = Hold("after the work")
        wire.on("POST", "/executors/*/rent", on_the(2, hold))
        await first.send(called(7, request, "rent_pod", **TRAIN))
        await hold.reached()
        first.interrupt(number)
        await first.exited()
        wire.behave()
        assert len(rents(account)) == 2
        # Longer than a server that lives takes for a batch.
        account.clock.advance(seconds=90)
        second = await processes.enter_async_context(serving(**variables))
        request = await speaking(second, CURRENT)
        for _ in range(4):
            listed = (await second.ask(called(8, request, "list_pods")))["result"]
            assert not listed.get("isError"), listed
            account.clock.advance(seconds=65)
        assert not any(row["status"] in ("admitted", "sending") for row in rows_of(ledger))
        assert len(rents(account)) == 2
        answer = (await second.ask(called(9, request, "rent_pod", **TRAIN)))["result"]
        assert not answer.get("isError"), answer
    assert named(living(account)) == NAMES
    assert_each_once(account, ledger)
