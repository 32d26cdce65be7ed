"""A rent happens once or not at all, whatever is lost on the way.

Everything goes through an MCP client; the sandbox's own record says how many pods there are.
"""

from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Mode, agent_on, text_of
from tests.wires import (
    Act,
    Forward,
    Wire,
    after_work,
    answering,
    ask,
    editing,
    failing,
    list_late,
    living,
    losing_the_answer,
    on_rents,
    passing,
    rent,
    rents,
    sent_rents,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
NO_REPLAY = ("rent_by_spec", "run_record")
TRAIN = {"name": "train", "hours": 2}
WAYS = ("by spec", "by node")
every_way = pytest.mark.parametrize("way", WAYS)


async def wanted(sandbox: Sandbox, way: str) -> dict[str, Any]:
    if way == "by spec":
        return TRAIN | {"gpu_type": "RTX4090"}
    nodes = [
        node
        for node in await ask(sandbox, "GET", "/executors?view=summary")
        if node.get("min_gpu_count_for_rental") == 1
    ]
    return TRAIN | {"executor_id": min(nodes, key=lambda node: float(node["price_per_gpu"]))["id"]}


def posts(wire: Wire) -> list[httpx2.Request]:
    return sent_rents(wire)


def assert_one_pod(sandbox: Sandbox, rented: dict[str, Any]) -> None:
    (record,) = rents(sandbox)
    (pod,) = living(sandbox)
    assert rented["pod_id"] == record["pod_id"] == pod["id"]


# --- lost answers, where the API replays -----------------------------------------------------------------------------


@both_eras
@every_way
async def test_a_rent_whose_answer_is_lost_is_not_sent_again_while_its_pod_is_listed(
    sandbox: Sandbox, mode: Mode, way: str
) -> None:
    wire = Wire(sandbox)
    on_rents(wire, losing_the_answer(), times=1)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, way))
    assert rented["outcome"] == "done"
    assert_one_pod(sandbox, rented)
    assert any("found by its name" in warning for warning in rented["warnings"])
    assert len(posts(wire)) == 1


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("listed_after_sends", [1, 2])
async def test_a_server_of_the_api_that_forgets_keys_rents_no_more_for_it(
    sandbox: Sandbox, status: int, listed_after_sends: int
) -> None:
    """It says that it knows idempotency keys, and each repeat makes another pod."""
    wire = Wire(sandbox)

    async def forgets(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        keyless = httpx2.Request(request.method, request.url, headers=request.headers, content=request.content)
        del keyless.headers["Idempotency-Key"]
        act = passing if status == 200 and rents(sandbox) else after_work(answering(500, b"{}"))
        return await act(keyless, forward)

    on_rents(wire, forgets)
    list_late(wire, sends=listed_after_sends)
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.raw("rent_pod", **await wanted(sandbox, "by spec"))
        for _ in range(20):
            await agent.raw("list_pods")
            await agent.raw("rent_pod", **await wanted(sandbox, "by spec"))
            sandbox.clock.advance(seconds=45)
    assert len(rents(sandbox)) == listed_after_sends


@both_eras
@every_way
async def test_a_rent_whose_answer_is_lost_is_settled_by_replay(sandbox: Sandbox, mode: Mode, way: str) -> None:
    wire = Wire(sandbox)
    on_rents(wire, losing_the_answer(), times=1)
    list_late(wire, sends=2)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, way))
    assert rented["outcome"] == "done"
    assert_one_pod(sandbox, rented)
    assert "warnings" not in rented
    first, second = posts(wire)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert first.content == second.content


@every_way
async def test_a_rent_that_was_lost_on_the_way_is_sent_again(sandbox: Sandbox, way: str) -> None:
    wire = Wire(sandbox)
    on_rents(wire, failing(httpx2.WriteError("reset")), times=2)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, way))
    assert_one_pod(sandbox, rented)
    assert len({request.headers["Idempotency-Key"] for request in posts(wire)}) == 1


@pytest.mark.parametrize("error", [httpx2.ConnectError("refused"), httpx2.ConnectTimeout("slow")], ids=repr)
async def test_a_rent_that_never_left_is_a_plain_failure(sandbox: Sandbox, error: Exception) -> None:
    wire = Wire(sandbox)
    on_rents(wire, failing(error))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by spec"))
    assert failure.code == "lium_unreachable"
    assert "Nothing was changed." in failure.text
    assert len(posts(wire)) == 1


UNCLEAR: dict[str, Act] = {
    "500": after_work(answering(500, b'{"detail": "oops"}')),
    "502 html": after_work(answering(502, b"<html>bad gateway</html>")),
    "503": after_work(answering(503, b"")),
    "504": after_work(answering(504, b"")),
    "524": after_work(answering(524, b"")),
    "408": after_work(answering(408, b"{}")),
    "418": after_work(answering(418, b"{}")),
    "200 nothing": after_work(answering(200, b"")),
    "204": after_work(answering(204, b"")),
    "200 html": after_work(answering(200, b"<html>hello</html>")),
    "200 truncated": after_work(answering(200, b'{"success": true, "pod_')),
    "200 no id": after_work(answering(200, b'{"success": true}')),
    "200 null id": after_work(answering(200, b'{"success": true, "pod_id": null}')),
    "200 a path for an id": after_work(answering(200, b'{"success": true, "pod_id": "../keys"}')),
    "200 a list": after_work(answering(200, b"[]")),
    "200 oversize": after_work(answering(200, b'{"success": true}' + b" " * (9 * 2**20))),
    "302": after_work(answering(302, b"", Location="/api/pods")),
    "in progress": after_work(answering(409, b'{"error": {"code": "idempotency_in_progress", "message": "x"}}')),
    "unknown": after_work(answering(409, b'{"error": {"code": "idempotency_outcome_unknown", "message": "x"}}')),
    "read timeout": losing_the_answer(httpx2.ReadTimeout("slow")),
    "protocol": losing_the_answer(httpx2.RemoteProtocolError("cut")),
}


@pytest.mark.parametrize("unclear", UNCLEAR)
async def test_an_unclear_answer_is_settled_and_one_pod_is_there(sandbox: Sandbox, unclear: str) -> None:
    wire = Wire(sandbox)
    on_rents(wire, UNCLEAR[unclear], times=1)
    list_late(wire, sends=2)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, "by node"))
    assert_one_pod(sandbox, rented)
    assert "warnings" not in rented


@pytest.mark.parametrize("unclear", UNCLEAR)
async def test_what_stays_dark_is_unknown_and_never_rented_twice(sandbox: Sandbox, unclear: str) -> None:
    wire = Wire(sandbox)
    on_rents(wire, UNCLEAR[unclear])
    rented = anyio.Event()

    async def dark_afterwards(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if posts(wire):
            rented.set()
            raise httpx2.ReadError("dark")
        return await forward(request)

    wire.on("GET", "/pods", dark_afterwards)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by node"))
        assert agent.clock.slept_seconds < 60
    assert failure.code == "outcome_unknown"
    assert "Do not rent again" in failure.text
    assert "list_pods" in failure.text
    assert "train" in failure.text
    assert "Nothing was changed" not in failure.text
    assert rented.is_set()
    assert len(rents(sandbox)) == len(living(sandbox)) == 1
    assert len({request.headers["Idempotency-Key"] for request in posts(wire)}) == 1


async def test_a_pod_that_only_the_list_knows_is_found_by_its_name(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    on_rents(wire, losing_the_answer())
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, "by spec"))
    assert_one_pod(sandbox, rented)
    assert any("found by its name" in warning for warning in rented["warnings"])


@pytest.mark.parametrize("minutes", [1, 4])
async def test_a_pod_that_lium_has_named_and_does_not_know_yet_is_not_rented_again(
    sandbox: Sandbox, minutes: int
) -> None:
    wire = Wire(sandbox)
    known_at = sandbox.clock.now() + timedelta(minutes=minutes)

    async def unknown(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        late = answering(200, []) if request.url.path.endswith("/pods") else answering(404, {"detail": "Not found"})
        return await (late if sandbox.clock.now() < known_at else passing)(request, forward)

    for path in ("/pods", "/pods/*", "/pods/*/record"):
        wire.on("GET", path, unknown)
    async with agent_on(sandbox, transport=wire) as agent:
        for _ in range(12):
            await agent.raw("rent_pod", **await wanted(sandbox, "by spec") | {"wait_seconds": 2})
            await agent.raw("list_pods")
            sandbox.clock.advance(seconds=31)
        rented = await agent.call("rent_pod", **await wanted(sandbox, "by spec"))
    assert rented["already_rented"] is True
    assert_one_pod(sandbox, rented)


@every_way
async def test_a_stored_refusal_is_a_refusal(sandbox: Sandbox, way: str) -> None:
    asked = await wanted(sandbox, way) | ({} if way == "by node" else {"max_usd_per_gpu_hour": 0.02})
    sandbox.add_fault("node_taken", times=None)
    wire = Wire(sandbox)
    if way == "by spec":  # the market is dearer at the rent than it was listed
        wire.on("GET", "/executors", editing(lambda rows: [row | {"price_per_gpu": 0.01} for row in rows]))
    on_rents(wire, losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **asked)
    assert failure.code == ("nodes_taken" if way == "by node" else "no_gpu_matches")
    assert "Nothing was changed." in failure.text
    assert len(posts(wire)) == 2
    assert rents(sandbox) == []


REPLAYED = {"Idempotent-Replayed": "true"}
REPEAT_REFUSALS = {
    "401": answering(401, {"detail": "API key not found"}),
    "402": answering(402, {"error": {"code": "API_KEY_BUDGET_EXCEEDED", "message": "x"}, "message": "x"}),
    "403": answering(403, {"error": {"code": "insufficient_balance", "message": "x"}, "message": "x"}),
    "404": answering(404, {"detail": "Not Found"}),
    "409": answering(409, {"detail": "conflict"}),
    "422": answering(422, {"detail": "x"}),
    "429": answering(429, {"detail": "slow down"}),
    "429 replayed": answering(429, {"detail": "slow down"}, **REPLAYED),
    "500 replayed": answering(500, {"detail": "oops"}, **REPLAYED),
    "in progress replayed": answering(409, {"error": {"code": "idempotency_in_progress", "message": "x"}}, **REPLAYED),
}


@pytest.mark.parametrize("refusal", REPEAT_REFUSALS)
async def test_a_fresh_refusal_of_the_repeat_says_nothing_of_the_first(sandbox: Sandbox, refusal: str) -> None:
    wire = Wire(sandbox)
    seen = 0

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal seen
        seen += 1
        return await (losing_the_answer() if seen == 1 else REPEAT_REFUSALS[refusal])(request, forward)

    on_rents(wire, act)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, "by node"))
    assert_one_pod(sandbox, rented)
    assert rented["warnings"]


@every_way
async def test_what_lium_says_of_a_success_that_is_none_is_said_and_proves_nothing(sandbox: Sandbox, way: str) -> None:
    wire = Wire(sandbox)
    on_rents(wire, answering(200, {"success": False, "message": "No capacity\u202e sk_live_abcdefghijklmnop1234"}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, way))
    assert failure.code == "outcome_unknown"
    assert "No capacity" in failure.text
    assert "\u202e" not in failure.text


@pytest.mark.parametrize("rented", [True, False], ids=["rented", "not rented"])
async def test_a_server_that_died_in_mid_rent_is_looked_behind(sandbox: Sandbox, rented: bool) -> None:
    sandbox.add_fault("rent_crash", rented=rented)
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        result = await agent.raw("rent_pod", **await wanted(sandbox, "by spec"))
    assert bool(result.is_error) is not rented
    assert ("found by its name" in text_of(result)) is rented
    assert ("Do not rent again" in text_of(result)) is not rented
    assert len(rents(sandbox)) == (1 if rented else 0)
    assert len({request.headers["Idempotency-Key"] for request in posts(wire)}) == 1


async def test_each_rent_has_a_key_of_its_own(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        for name in ("a", "b"):
            await agent.call("rent_pod", name=name, gpu_type="RTX4090", wait_seconds=0)
    first, second = posts(wire)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


# --- lost answers, where the API cannot replay -----------------------------------------------------------------------


@both_eras
@every_way
async def test_without_replay_a_lost_answer_is_found_by_name_and_never_repeated(mode: Mode, way: str) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    await rent(sandbox, "other")
    wire = Wire(sandbox)
    on_rents(wire, losing_the_answer())
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await wanted(sandbox, way))
    assert len(posts(wire)) == 1
    assert [record["pod_id"] for record in rents(sandbox)][1:] == [rented["pod_id"]]
    assert any("found by its name" in warning for warning in rented["warnings"])


async def test_without_replay_a_lost_request_is_unknown_and_never_repeated() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    wire = Wire(sandbox)
    on_rents(wire, failing(httpx2.ReadError("lost")))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by spec"))
    assert failure.code == "outcome_unknown"
    assert len(posts(wire)) == 1
    assert rents(sandbox) == []


async def test_an_old_failed_pod_of_the_name_is_no_proof() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    sandbox.add_fault("boot_fails")
    await rent(sandbox, "train")
    assert [pod["status"] for pod in living(sandbox)] == ["CREATION_FAILED"]
    wire = Wire(sandbox)
    on_rents(wire, failing(httpx2.ReadError("lost")))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by spec"))
    assert failure.code == "outcome_unknown"


async def test_two_new_pods_of_the_name_are_no_proof() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=NO_REPLAY)
    wire = Wire(sandbox)

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await rent(sandbox, "train")
        await (await forward(request)).aread()
        raise httpx2.ReadError("lost")

    on_rents(wire, act)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by node"))
    assert failure.code == "outcome_unknown"
    assert len(living(sandbox)) == 2


# --- names and concurrency -------------------------------------------------------------------------------------------


@both_eras
async def test_two_calls_at_once_under_one_name_rent_one_pod(sandbox: Sandbox, mode: Mode) -> None:
    results = []
    async with agent_on(sandbox, mode=mode) as agent:
        asked = await wanted(sandbox, "by spec")

        async def call() -> None:
            results.append(await agent.raw("rent_pod", **asked))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)
    assert not any(result.is_error for result in results)
    assert sum("already_rented" in text_of(result) for result in results) == 2
    assert len(rents(sandbox)) == len(living(sandbox)) == 1


@both_eras
async def test_calls_at_once_under_different_names_rent_a_pod_each(sandbox: Sandbox, mode: Mode) -> None:
    rented: dict[str, str] = {}
    async with agent_on(sandbox, mode=mode) as agent:

        async def call(name: str) -> None:
            answer = await agent.call("rent_pod", name=name, gpu_type="RTX4090", hours=1)
            rented[name] = answer["pod_id"]

        async with anyio.create_task_group() as group:
            for name in ("a", "b", "c", "d"):
                group.start_soon(call, name)
    assert rented == {record["pod_name"]: record["pod_id"] for record in rents(sandbox)}
    assert len(living(sandbox)) == 4


async def test_a_failure_of_one_rent_does_not_block_the_next(sandbox: Sandbox) -> None:
    sandbox.add_fault("rate_limit", match={"method": "POST", "path": "/executors/**"})
    async with agent_on(sandbox) as agent:
        asked = await wanted(sandbox, "by spec")
        assert (await agent.refused("rent_pod", **asked)).code == "rate_limited"
        assert (await agent.call("rent_pod", **asked))["outcome"] == "done"


async def test_a_list_that_cannot_be_read_stops_the_rent_before_it_is_sent(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods", answering(500, {"detail": "oops"}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **await wanted(sandbox, "by spec"))
    assert failure.code == "lium_failed"
    assert "Nothing was changed." in failure.text
    assert posts(wire) == []
