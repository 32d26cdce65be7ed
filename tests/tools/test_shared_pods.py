"""Lium lists pods 60 times a minute: those who show them with one key share a reading for two seconds."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY, Sandbox
from tests.harness import Agent
from tests.http_server import calling, serving
from tests.wires import Wire, ask, editing, rent, served


@pytest.fixture
def wire(sandbox: Sandbox) -> Wire:
    return Wire(sandbox)


@pytest.fixture
def settings_of_agent(wire: Wire) -> dict[str, Any]:
    return {"transport": wire}


def lists(wire: Wire) -> int:
    return len(wire.sent("GET", "/pods"))


async def test_those_of_one_key_share_a_list_for_two_seconds(sandbox: Sandbox, agent: Agent, wire: Wire) -> None:
    await rent(sandbox, "one")
    tools = ("list_pods", "get_balance", "list_pods")
    answers = await asyncio.gather(*(agent.call(tool) for tool in tools))
    assert answers[0]["total"] == 1
    await rent(sandbox, "two", boot=False)
    await agent.clock.sleep(1.5)
    assert (await agent.call("list_pods"))["total"] == 1
    assert lists(wire) == 1
    await agent.clock.sleep(0.5)
    assert (await agent.call("list_pods"))["total"] == 2
    assert lists(wire) == 2


async def test_so_do_those_whose_pods_were_rented_here_and_a_pod_that_is_missed_is_looked_for(
    sandbox: Sandbox, agent: Agent, wire: Wire
) -> None:
    await agent.call("rent_pod", name="one", gpu_type="A100", hours=5, wait_seconds=300)
    await agent.clock.sleep(2)
    before = lists(wire)
    answers = await asyncio.gather(*(agent.call("list_pods") for _ in range(5)))
    assert [answer["total"] for answer in answers] == [1] * 5
    assert lists(wire) == before + 1
    await agent.clock.sleep(2)
    wire.on("GET", "/pods", editing(lambda _: []), times=1)
    assert (await agent.call("get_balance"))["balance_usd"] > 0  # reads the list that lacks the pod
    assert (await agent.call("list_pods"))["total"] == 1, "a kept list that lacks a pod is not taken at its word"


async def test_a_pod_that_is_read_by_its_name_is_found_in_a_list_that_is_kept_and_looked_for_if_it_is_not_there(
    sandbox: Sandbox, agent: Agent, wire: Wire
) -> None:
    pod = await rent(sandbox, "one")
    for _ in range(5):
        assert (await agent.call("get_pod", pod="one"))["pod"]["pod_id"] == pod
        await agent.call("list_backups", pod="one")
        await agent.call("get_pod_logs", pod="one")
    assert lists(wire) == 1
    assert len(wire.sent("GET", "/version")) == 1
    await ask(sandbox, "DELETE", f"/pods/{pod}")
    assert (await agent.call("get_pod", pod="one"))["pod"]["status"] != "RUNNING", "its state is read anew"
    later = await rent(sandbox, "two")
    assert (await agent.call("get_pod", pod="two"))["pod"]["pod_id"] == later
    assert lists(wire) == 2
    await agent.call("reboot_pod", pod="two", wait_seconds=0)
    assert lists(wire) > 2, "what acts on a pod reads anew which one it is"


async def test_a_change_of_ours_is_seen_at_once(agent: Agent, wire: Wire) -> None:
    assert (await agent.call("list_pods"))["total"] == 0
    pod = (await agent.call("rent_pod", name="one", gpu_type="A100", hours=5, wait_seconds=120))["pod_id"]
    assert (await agent.call("list_pods"))["total"] == 1
    await agent.call("remove_pod", pod=pod)
    assert (await agent.call("list_pods"))["total"] == 0


async def test_what_was_asked_before_a_change_is_not_shown_after_it(agent: Agent, wire: Wire) -> None:
    before = wire.hold("GET", "/pods", "after the work")
    asked = asyncio.create_task(agent.call("list_pods"))
    await before.reached()
    await agent.call("rent_pod", name="one", gpu_type="A100", hours=5, wait_seconds=0)
    before.let_go()
    assert (await asked)["total"] == 0
    assert (await agent.call("list_pods"))["total"] == 1


async def test_a_change_that_fails_counts_as_one(agent: Agent, wire: Wire, sandbox: Sandbox) -> None:
    pod = await rent(sandbox, "one")
    assert (await agent.call("list_pods"))["total"] == 1
    sandbox.add_fault("lost_answer", match={"method": "DELETE", "path": "/pods/*"}, times=9)
    await agent.raw("remove_pod", pod=pod, wait_seconds=0)
    before = lists(wire)
    await agent.call("list_pods")
    assert lists(wire) == before + 1


async def test_what_is_settled_is_read_anew(sandbox: Sandbox, agent: Agent, wire: Wire) -> None:
    sandbox.add_fault("lost_answer", match={"method": "POST", "path": "/executors/**"}, times=9)
    await agent.raw("rent_pod", name="one", gpu_type="A100", hours=5, wait_seconds=0)
    for _ in range(2):
        before = lists(wire)
        await agent.call("list_pods")
        assert lists(wire) > before, "a rent is open"


async def test_no_other_key_is_shown_them(sandbox: Sandbox, tmp_path: Path) -> None:
    await rent(sandbox, "mine")
    async with served(Wire(sandbox)) as wire:
        with serving(tmp_path, LIUM_BASE_URL=wire.base_url) as server:
            async with anyio.create_task_group() as group:
                totals: dict[str, list[int]] = {API_KEY: [], OTHER_API_KEY: []}

                async def look(key: str) -> None:
                    async with calling(server.url, "modern", {"X-API-Key": key}) as caller:
                        for _ in range(5):
                            totals[key].append((await caller.call("list_pods"))["total"])

                for key in (API_KEY, OTHER_API_KEY, API_KEY):
                    group.start_soon(look, key)
    assert set(totals[API_KEY]) == {1}
    assert set(totals[OTHER_API_KEY]) == {0}
    for key in totals:
        asked = [request for request in wire.sent("GET", "/pods") if request.headers["x-api-key"] == key]
        assert 1 <= len(asked) < 5
