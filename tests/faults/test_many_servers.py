"""Many servers that act for one account at the same moment: one pod for one name, and no limit passed together."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Failure, agent_on
from tests.processes import Served, serving
from tests.serving.test_stdio import CURRENT, called, speaking
from tests.wires import (
    Wire,
    after_work,
    answering,
    eventually,
    failing,
    living,
    losing_the_answer,
    offers,
    on_rents,
    rents,
    sent_rents,
    served,
    silence,
    smallest_count,
)

TRAIN = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
SERVERS = 20


@asynccontextmanager
async def servers_on(sandbox: Sandbox, count: int, state_url: str, **settings: Any) -> AsyncIterator[list[Agent]]:
    """Clients of so many servers, which share nothing but the account and the database."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(agent_on(sandbox, state_url=state_url, **settings)) for _ in range(count)
        ]


async def call_all(agents: list[Agent], calls: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Let each rent at once; what was rented, and the codes of what was refused."""
    pairs = zip(agents, calls, strict=True)
    results = await asyncio.gather(*[agent.raw("rent_pod", **call) for agent, call in pairs])
    rented = [dict(result.structured_content or {}) for result in results if not result.is_error]
    return rented, Counter(Failure(result).code for result in results if result.is_error)


async def different_pods(sandbox: Sandbox, count: int) -> list[dict[str, Any]]:
    """Calls for pods of different names, on nodes that have room for all of them."""
    roomy = [row for row in await offers(sandbox) if row["available_gpu_count"] == 8 and smallest_count(row) == 1]
    assert len(roomy) * 8 > count
    return [
        {"name": f"train-{number}", "executor_id": roomy[number // 8]["id"], "hours": 2, "wait_seconds": 0}
        for number in range(count)
    ]


@pytest.fixture
def account() -> Sandbox:
    """An account whose servers may read as often as they like."""
    return Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)


@pytest.mark.parametrize("count", [2, SERVERS])
async def test_servers_that_rent_one_name_at_once_rent_one_pod(account: Sandbox, count: int, state_url: str) -> None:
    async with servers_on(account, count, state_url) as agents:
        rented, refused = await call_all(agents, [TRAIN] * count)
    assert refused == {}
    (pod,), (record,) = living(account), rents(account)
    assert {row["pod_id"] for row in rented} == {pod["id"]} == {record["pod_id"]}
    assert sum(row.get("already_rented", False) for row in rented) == count - 1


async def test_servers_whose_one_rent_gets_no_answer_still_rent_one_pod(account: Sandbox, state_url: str) -> None:
    wire = Wire(account)
    on_rents(wire, losing_the_answer(), times=3)
    on_rents(wire, after_work(answering(502, b"<html>")), times=3)
    async with servers_on(account, SERVERS, state_url, transport=wire) as agents:
        rented, refused = await call_all(agents, [TRAIN] * SERVERS)
        assert set(refused) <= {"rent_unsettled", "outcome_unknown"}
        account.clock.advance(minutes=6)
        for agent in agents[:2]:
            assert "unsettled" not in await agent.call("list_pods")
        (pod,), (record,) = living(account), rents(account)
        assert {row["pod_id"] for row in rented} <= {pod["id"]} == {record["pod_id"]}
        assert (await agents[-1].call("rent_pod", **TRAIN))["pod_id"] == pod["id"]
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 1


LIMITS = {"max_pods": 5, "max_burn_per_hour_usd": 3.0}


@pytest.mark.parametrize("limit", LIMITS)
async def test_servers_that_rent_at_once_never_pass_a_limit_together(
    account: Sandbox, limit: str, state_url: str
) -> None:
    async with servers_on(account, SERVERS, state_url, **{limit: LIMITS[limit]}) as agents:
        calls = await different_pods(account, SERVERS)
        rented, refused = await call_all(agents, calls)
        for _ in range(5):
            # Twenty that wait turn the clock twenty times as fast: a rent in flight soon looks lost.
            if "rent_unsettled" in refused:
                rented, refused = await call_all(agents, calls)
    pods = living(account)
    assert len(rented) == len(pods) == len(rents(account)) == len({pod["pod_name"] for pod in pods})
    assert refused == {"policy_refused": SERVERS - len(rented)}
    # The limit was reached, and not passed.
    if limit == "max_pods":
        assert len(pods) == 5
    else:
        prices = [float(pod["price"]) for pod in pods]
        assert 3 - max(prices) < sum(prices) <= 3


async def test_a_server_with_a_limit_counts_what_a_server_without_one_rents(account: Sandbox, state_url: str) -> None:
    async with (
        servers_on(account, 4, state_url) as free,
        servers_on(account, 4, state_url, max_pods=2) as bound,
    ):
        calls = await different_pods(account, 8)
        await call_all(free, calls[:4])
        _, refused = await call_all(bound, calls[4:])
    assert refused == {"policy_refused": 4}
    assert len(living(account)) == 4


async def test_two_processes_that_rent_one_name_at_once_rent_one_pod(state_url: str) -> None:
    async def begin(stack: AsyncExitStack) -> tuple[Served, Any]:
        server = await stack.enter_async_context(
            serving(
                LIUM_API_KEY="sk_sandbox",
                LIUM_BASE_URL=wire.base_url,
                LIUM_MCP_STATE_URL=state_url,
                LIUM_MCP_ALLOW_TOOLS="rent_pod",
                # Enough for a busy machine; the second settles the rent of the first when so much has gone by.
                LIUM_MCP_TIMEOUT_SECONDS="5",
            )
        )
        return server, await speaking(server, CURRENT)

    sandbox = Sandbox(seed=7, speed=0)
    async with served(Wire(sandbox)) as wire, AsyncExitStack() as stack:
        processes = await asyncio.gather(begin(stack), begin(stack))
        # While the request of the first is held, the second settles it; then both have the pod.
        hold = wire.hold("POST", "/executors/rent-by-spec")
        calls = [
            asyncio.create_task(server.ask(called(number, request, "rent_pod", **TRAIN)))
            for number, (server, request) in enumerate(processes, 1)
        ]
        await hold.reached()
        done, _ = await asyncio.wait(calls, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        hold.let_go()
        answers = [(await call)["result"]["structuredContent"] for call in calls]
    (pod,), (record,) = living(sandbox), rents(sandbox)
    assert {answer["pod_id"] for answer in answers} == {pod["id"]} == {record["pod_id"]}
    assert sorted(answer.get("already_rented", False) for answer in answers) == [False, True]


async def test_a_server_that_sets_a_removal_time_does_not_undo_that_the_pod_must_go(account: Sandbox) -> None:
    state_url = f"sqlite:///{Path.home() / 'shared.db'}"
    renting, listing = Wire(account), Wire(account)
    renting.on("GET", "/pods/*", silence, times=1)
    gone = failing(httpx2.ConnectError("the server is gone"))
    renting.on("DELETE", "/pods/*", gone)
    renting.on("POST", "/pods/*/schedule-removal", gone)
    scheduling = listing.hold("POST", "/pods/*/schedule-removal")
    async with (
        agent_on(account, state_url=state_url, transport=renting) as first,
        agent_on(account, state_url=state_url, transport=listing) as second,
        anyio.create_task_group() as others,
    ):
        async with anyio.create_task_group() as calls:
            calls.start_soon(partial(first.raw, "rent_pod", **TRAIN | {"hours": 1.5}))
            await renting.arrival("GET", "/pods/*")
            account.clock.advance(minutes=1)
            others.start_soon(second.call, "list_pods")
            await scheduling.reached()
            calls.cancel_scope.cancel()
        await eventually(lambda: len(renting.sent("DELETE", "/pods/*")) >= 3)
        scheduling.let_go()
    assert len(living(account)) == 1
    async with agent_on(account, state_url=state_url) as third:
        assert (await third.call("list_pods"))["pods"] == []
    assert living(account) == []
