"""The market is public: one reading without a key serves all who look at around the same time, and says how old it is.

What is rented is not taken from it.
"""

import asyncio
from datetime import timedelta
from typing import Any

import anyio
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, TurnedClock
from tests.wires import Wire, answering, editing

LOOKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("list_gpus", {}),
    ("list_gpus", {"gpu_type": "4090", "max_usd_per_hour": 1}),
    ("list_gpus", {"min_download_mbps": 500, "country": "US"}),
    ("get_gpu_prices", {}),
    ("get_gpu_prices", {"gpu_type": "H100"}),
)


@pytest.fixture
def wire(sandbox: Sandbox) -> Wire:
    return Wire(sandbox)


@pytest.fixture
def settings_of_agent(wire: Wire) -> dict[str, Any]:
    return {"transport": wire}


def polls(wire: Wire) -> int:
    return len(wire.sent("GET", "/executors"))


async def asking(agent: Agent, tool: str, **arguments: Any) -> "asyncio.Task[dict[str, Any]]":
    """A call that has come as far as it comes before Lium answers."""
    call = asyncio.create_task(agent.call(tool, **arguments))
    await anyio.wait_all_tasks_blocked()
    return call


async def test_whoever_looks_at_the_same_time_shares_one_request_without_a_key(agent: Agent, wire: Wire) -> None:
    hold = wire.hold("GET", "/executors")
    calls = [await asking(agent, tool, **arguments) for tool, arguments in LOOKS]
    hold.let_go()
    answers = await asyncio.gather(*calls)
    assert all(answer["total"] for answer in answers)
    [request] = wire.requests
    assert "x-api-key" not in request.headers
    assert dict(request.url.params) == {"view": "summary"}


async def test_what_was_read_is_kept_for_two_seconds_and_says_its_age(agent: Agent, wire: Wire) -> None:
    assert "read_seconds_ago" not in await agent.call("list_gpus")
    await agent.clock.sleep(1.5)
    for tool, arguments in LOOKS:
        assert (await agent.call(tool, **arguments))["read_seconds_ago"] == 1
    assert polls(wire) == 1
    await agent.clock.sleep(0.5)
    assert "read_seconds_ago" not in await agent.call("list_gpus")
    assert polls(wire) == 2


async def test_its_age_is_counted_from_before_the_request(agent: Agent, wire: Wire) -> None:
    hold = wire.hold("GET", "/executors", "after the work")
    call = await asking(agent, "list_gpus")
    await agent.clock.sleep(7)
    hold.let_go()
    assert (await call)["read_seconds_ago"] == 7
    await agent.call("list_gpus")
    assert polls(wire) == 2, "it was old when it came"


async def test_a_clock_that_is_set_back_keeps_nothing_longer(
    sandbox: Sandbox, agent: Agent, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.call("list_gpus")
    now = sandbox.clock.now
    monkeypatch.setattr(type(agent.clock), "now", lambda _: now() - timedelta(hours=1))
    assert "read_seconds_ago" not in await agent.call("list_gpus")
    assert polls(wire) == 2


async def test_who_leaves_takes_the_market_from_nobody(agent: Agent, wire: Wire) -> None:
    hold = wire.hold("GET", "/executors")
    leaving, staying = [await asking(agent, "list_gpus") for _ in range(2)]
    leaving.cancel()
    await anyio.wait_all_tasks_blocked()
    hold.let_go()
    assert (await staying)["total"]
    assert leaving.cancelled()
    assert polls(wire) == 1


async def test_when_all_have_left_the_next_one_asks_anew(agent: Agent, wire: Wire) -> None:
    wire.hold("GET", "/executors")  # never released
    for leaving in [await asking(agent, "list_gpus") for _ in range(2)]:
        leaving.cancel()
    await anyio.wait_all_tasks_blocked()
    assert (await agent.call("list_gpus"))["total"]
    assert polls(wire) == 2


async def test_a_failure_is_told_to_all_who_wait_and_kept_for_nobody(agent: Agent, wire: Wire) -> None:
    answer_now = anyio.Event()

    async def failing(request: Any, forward: Any) -> Any:
        await answer_now.wait()
        return await answering(404, {"detail": "Not Found"})(request, forward)

    wire.on("GET", "/executors", failing, times=1)
    calls = [asyncio.create_task(agent.refused(tool, **arguments)) for tool, arguments in LOOKS]
    await anyio.wait_all_tasks_blocked()
    answer_now.set()
    codes = {failure.code for failure in await asyncio.gather(*calls)}
    assert len(codes) == 1
    assert polls(wire) == 1
    assert (await agent.call("list_gpus"))["total"]


async def test_many_watchers_ask_as_often_as_one(
    sandbox: Sandbox, agent: Agent, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = anyio.Event()

    async def sleep(clock: TurnedClock, seconds: float) -> None:
        until = clock.slept_seconds + seconds
        while clock.slept_seconds < until:
            await turned.wait()

    async def turn(seconds: float) -> None:
        nonlocal turned
        agent.clock.slept_seconds += seconds
        sandbox.clock.advance(seconds=seconds)
        turned.set()
        turned = anyio.Event()
        await anyio.wait_all_tasks_blocked()

    monkeypatch.setattr(TurnedClock, "sleep", sleep)
    watch: dict[str, Any] = {"max_usd_per_gpu_hour": 0.001, "wait_seconds": 30}
    asked = []
    for watchers in (1, 40):
        calls = []
        for _ in range(watchers):
            calls.append(await asking(agent, "list_gpus", **watch))
            await turn(0.25)
        before = polls(wire)
        for _ in range(60):
            await turn(0.25)
        asked.append(polls(wire) - before)
        while not all(call.done() for call in calls):
            await turn(0.25)
        assert {(await call)["total"] for call in calls} == {0}
    assert asked == [3, 3], "each five seconds, for all"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_market_for_accounts_alone_is_read_as_the_account(agent: Agent, wire: Wire, status: int) -> None:
    async def for_accounts(request: Any, forward: Any) -> Any:
        known = "x-api-key" in request.headers
        return await (forward(request) if known else answering(status, {"detail": "Who are you?"})(request, forward))

    wire.on("GET", "/executors", for_accounts)
    assert (await agent.call("list_gpus"))["total"]


async def test_what_is_priced_or_rented_is_read_anew_as_the_account(agent: Agent, wire: Wire) -> None:
    offer = (await agent.call("list_gpus"))["offers"][0]
    wire.on("GET", "/executors", editing(lambda rows: [row for row in rows if row["id"] != offer["executor_id"]]))
    assert (await agent.call("list_gpus"))["offers"][0] == offer, "kept"
    dry = await agent.call("quote_rental", max_usd_per_hour=100)
    assert dry["executor_id"] != offer["executor_id"]
    rented = await agent.call("rent_pod", name="p", max_usd_per_hour=100, hours=1, wait_seconds=0)
    assert rented["pod"]["executor_id"] != offer["executor_id"]
    _, *later = wire.sent("GET", "/executors")
    assert later
    assert all(request.headers["x-api-key"] == "sk_sandbox" for request in later)
