"""Everything that can go wrong on the wire while something is rented, and how it ends once the API answers again.

Whatever happened, each rent is settled then, and there are as many pods as rents that the API accepted.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.sandbox import FEATURES
from tests.harness import Agent, Failure, agent_on, text_of
from tests.wires import Act, Forward, Wire, after_work, answering, cut, drop, living, page, rents, served, silence

NO_REPLAY = tuple(feature for feature in FEATURES if feature != "rent_idempotency")
RENTS = "/executors/**rent**"
TRAIN = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
# A ledger in memory: hundreds of files would have to be written to the disk.
SETTINGS: Any = {
    "allow_tools": frozenset({"rent_pod", "list_pods"}),
    "log_level": "ERROR",
    "state_url": "sqlite://",
}


@dataclass(frozen=True)
class Fault:
    """What the wire does, and whether that proves by the API's contract that nothing was done."""

    name: str
    act: Act
    is_refusal: bool = False


FAULTS = [
    Fault("dropped", drop),
    Fault("cut", cut),
    Fault("half a JSON", answering(200, b'{"success": true, "pod_id": "0b0d2f14-6e')),
    Fault("nothing", answering(200, b"")),
    Fault("login page", page(200)),
    Fault("failure", answering(500, {"detail": "oops"})),
    Fault("failure page", page(500)),
    Fault("bad gateway page", page(502)),
    Fault("gateway timeout", answering(504, b"")),
    Fault("elsewhere, 302", answering(302, b"", location="http://127.0.0.1:1/api/pods")),
    Fault("here, 303", answering(303, b"", location="/api/pods")),
    Fault("elsewhere, 307", answering(307, b"", location="http://127.0.0.1:1/api/pods"), is_refusal=True),
    Fault("storm", answering(429, b""), is_refusal=True),
    Fault("storm, wait 2 s", answering(429, b"", retry_after="2"), is_refusal=True),
    Fault("storm, wait a day", answering(429, b"", retry_after="86400"), is_refusal=True),
]
SILENCE = Fault("silence", silence)
# Each fault strikes once, or for as long as the call lasts.
TIMES = [1, None]
CASES = [
    (fault, is_late, times)
    for fault in FAULTS
    for is_late in ([False] if fault.is_refusal else [False, True])
    for times in TIMES
] + [(SILENCE, False, 1), (SILENCE, True, 1)]
cases = pytest.mark.parametrize(
    ("fault", "is_late", "times"),
    CASES,
    ids=[f"{fault.name}-{'after' if is_late else 'before'}-{times or 'always'}" for fault, is_late, times in CASES],
)
both_backends = pytest.mark.parametrize("features", [FEATURES, NO_REPLAY], ids=["replay", "no replay"])


@asynccontextmanager
async def connected(features: tuple[str, ...], **settings: Any) -> AsyncIterator[tuple[Agent, Wire]]:
    sandbox = Sandbox(seed=7, speed=0, features=features)
    async with served(Wire(sandbox)) as server:
        transport = httpx2.AsyncHTTPTransport(verify=False)  # nothing here is encrypted, and certificates load slowly
        async with agent_on(sandbox, transport=transport, base_url=server.base_url, **SETTINGS | settings) as agent:
            yield agent, server


async def settle(agent: Agent) -> None:
    """Let the API answer again, and time pass."""
    agent.sandbox.clock.advance(minutes=6)
    for _ in range(2):  # one list that lacks a pod proves nothing
        await agent.call("list_pods")
        agent.sandbox.clock.advance(seconds=61)
    listed = await agent.call("list_pods")
    assert "unsettled" not in listed
    assert {row["pod_id"] for row in listed["pods"]} == {pod["id"] for pod in living(agent.sandbox)}


@both_backends
@cases
async def test_a_rent_that_met_a_fault_is_settled_once_the_api_answers_again(
    features: tuple[str, ...], fault: Fault, is_late: bool, times: int | None
) -> None:
    timeout_seconds = 1 if fault is SILENCE else 15
    async with connected(features, timeout_seconds=timeout_seconds) as (agent, server):
        server.on("POST", RENTS, after_work(fault.act) if is_late else fault.act, times=times)
        first = await agent.raw("rent_pod", **TRAIN)
        sent = [
            request for request in server.requests if request.method == "POST" and "/executors/" in request.url.path
        ]
        assert len({request.headers["idempotency-key"] for request in sent}) == 1
        assert len(rents(agent.sandbox)) <= 1
        if features == NO_REPLAY and not fault.is_refusal:
            assert len(sent) == 1
        if first.is_error:
            failure = Failure(first)
            assert (failure.code == "outcome_unknown") != fault.is_refusal, failure.text
            assert ("may exist and bill" in failure.text) != fault.is_refusal
            assert not (fault.is_refusal and rents(agent.sandbox))
        else:
            assert rents(agent.sandbox)[0]["pod_id"] in text_of(first)
        server.behave()
        await settle(agent)
        assert len(living(agent.sandbox)) == len(rents(agent.sandbox)) <= 1
        # Nothing stands in the way of the next rents, and the same call gets the same pod.
        had_pod = bool(rents(agent.sandbox))
        again = await agent.call("rent_pod", **TRAIN)
        assert again.get("already_rented", False) == had_pod
        await agent.call("rent_pod", **TRAIN | {"name": "other"})
        assert len(living(agent.sandbox)) == len(rents(agent.sandbox)) == 2


@both_backends
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", [drop, page(502), answering(429, b"")], ids=["dropped", "bad gateway", "storm"])
async def test_a_rent_is_settled_when_nothing_at_all_could_be_read_after_it(
    features: tuple[str, ...], fault: Act, is_late: bool
) -> None:
    async with connected(features) as (agent, server):

        async def then_dark(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            server.on("*", "**", fault)
            return await drop(request, forward)

        server.on("POST", RENTS, after_work(then_dark) if is_late else then_dark)
        first = await agent.raw("rent_pod", **TRAIN)
        assert first.is_error
        failure = Failure(first)
        assert failure.code == "outcome_unknown", failure.text
        await agent.refused("list_pods")
        # Nothing else is rented while nobody knows what became of it.
        await agent.refused("rent_pod", **TRAIN | {"name": "other"})
        assert len(rents(agent.sandbox)) == is_late
        server.behave()
        await settle(agent)
        assert len(living(agent.sandbox)) == len(rents(agent.sandbox)) <= 1
        had_pod = bool(rents(agent.sandbox))
        assert (await agent.call("rent_pod", **TRAIN)).get("already_rented", False) == had_pod
        assert len(living(agent.sandbox)) == len(rents(agent.sandbox)) == 1
