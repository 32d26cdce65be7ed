"""A rent that its client cancels at any await: before and after each request, each work of the ledger, each pause.

No pod is left that nobody heard of, nobody else's is touched, and the name is free again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, agent_on
from tests.wires import Forward, Wire, eventually, living, losing_the_answer, on_rents, rent, rents

# Each plays a rent a hundred times.
pytestmark = pytest.mark.timeout(400)
# A ledger in memory: hundreds of files would have to be written to the disk.
SETTINGS: Any = {"allow_tools": frozenset({"rent_pod", "list_pods"}), "log_level": "ERROR", "state_url": "sqlite://"}
BOOT_SECONDS = 60
LEAST_POINTS = 25
MOST_POINTS = 120


class Points:
    """Counts what a call waits for, and says when it is the turn of the one that was chosen."""

    def __init__(self, chosen: int) -> None:
        self._chosen = chosen
        self.names: list[str] = []
        self.come = anyio.Event()
        self.is_over = False

    async def passed(self, name: str) -> None:
        if self.is_over or self.come.is_set():
            return
        self.names.append(name)
        if len(self.names) > self._chosen:
            self.come.set()
            for _ in range(200):  # the server must have heard of it by then
                await anyio.lowlevel.checkpoint()


def count_requests(points: Points, wire: Wire) -> Wire:
    """A wire before this one on which each request is two points."""

    async def counted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        name = f"{request.method} {request.url.path}"
        await points.passed(f"before {name}")
        response = await forward(request)
        await points.passed(f"after {name}")
        return response

    before = Wire(wire)
    before.on("*", "**", counted)
    return before


def count_threads(points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync = anyio.to_thread.run_sync

    async def counted(*arguments: Any, **options: Any) -> Any:
        await points.passed("before a thread")
        result = await run_sync(*arguments, **options)
        with anyio.CancelScope(shield=True):  # the thread has ended: its result is not lost
            await points.passed("after a thread")
        return result

    monkeypatch.setattr(anyio.to_thread, "run_sync", counted)


def count_pauses(agent: Agent, points: Points, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = agent.clock.sleep

    async def counted(seconds: float) -> None:
        await points.passed("a pause")
        await sleep(seconds)
        agent.sandbox.clock.advance(seconds=BOOT_SECONDS / 2)  # a wait is a few looks, not dozens

    monkeypatch.setattr(agent.clock, "sleep", counted)


async def cancelled_at(agent: Agent, points: Points, **arguments: Any) -> bool:
    """Call rent_pod and cancel it when its point comes; whether it came before the call had ended."""
    answers = []
    async with anyio.create_task_group() as group:

        async def call() -> None:
            answers.append(await agent.raw("rent_pod", **arguments))
            points.is_over = True
            points.come.set()

        group.start_soon(call)
        with anyio.fail_after(60):
            await points.come.wait()
        group.cancel_scope.cancel()
    points.is_over = True
    return not answers


async def until_alone(sandbox: Sandbox, pod_id: str) -> None:
    await eventually(lambda: [pod["id"] for pod in living(sandbox)] == [pod_id])


Prepare = Callable[[Sandbox, Wire], None]


def nothing(_: Sandbox, __: Wire) -> None:
    """All goes well."""


def lose_an_answer(_: Sandbox, wire: Wire) -> None:
    on_rents(wire, losing_the_answer(), times=1)


@asynccontextmanager
async def at_point(
    point: int, mode: Mode, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Agent, Points, Wire]]:
    sandbox = Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)
    points = Points(point)
    wire = Wire(sandbox)
    prepare(sandbox, wire)
    with monkeypatch.context() as patches:
        count_threads(points, patches)
        async with agent_on(sandbox, mode=mode, transport=count_requests(points, wire), **SETTINGS) as agent:
            count_pauses(agent, points, patches)
            yield agent, points, wire


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("prepare", [nothing, lose_an_answer])
async def test_a_rent_that_is_cancelled_at_any_await_leaves_nothing(
    mode: Mode, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"name": "train", "gpu_type": "RTX4090", "hours": 1.5}
    kinds: Counter[str] = Counter()
    point = sent = 0
    while True:
        async with at_point(point, mode, prepare, monkeypatch) as (agent, points, wire):
            sandbox = agent.sandbox
            other = await rent(sandbox, "other", boot=False)
            was_cancelled = await cancelled_at(agent, points, **asked)
            if not was_cancelled:
                assert len(points.names) <= point
                assert len(living(sandbox)) == len(rents(sandbox)) == 2
                break
            where = f"cancelled {points.names[-1]}, point {point}"
            await agent.call("list_pods")  # waits for its turn, after the rent
            await until_alone(sandbox, other)
            sent += len(rents(sandbox)) - 1
            assert not [request for request in wire.sent("DELETE", "/pods/*") if other in request.url.path], where
            again = await agent.call("rent_pod", **asked)
            assert (again["outcome"], "already_rented" in again) == ("done", False), where
            assert len(living(sandbox)) == 2, where
            assert (await agent.call("list_pods")).get("unsettled") is None, where
        kinds[points.names[-1].split("/")[0]] += 1
        point += 1
        assert point < MOST_POINTS
    assert point >= LEAST_POINTS
    assert sent > 10  # that many were cancelled only after they had been carried out
    assert kinds["before a thread"] == kinds["after a thread"] > 3
    assert kinds["a pause"] > 0
