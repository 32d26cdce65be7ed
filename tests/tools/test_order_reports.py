"""What is told of a standing order: why it waits, from its first moment on, what its pod came to, and what it asks."""

from functools import partial
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person
from tests.orders import CHEAP, account_of_two, look_at_once, looked, order, prices, rented, shown, until
from tests.servers import Servers
from tests.wires import Wire, ask, living, rent, silence


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_once(monkeypatch)


@pytest.fixture
def sandbox() -> Sandbox:
    return account_of_two()


@pytest.fixture
def at(sandbox: Sandbox, state_url: str) -> Servers:
    return Servers(sandbox, state_url, {})


@pytest.fixture
def servers_look(sandbox: Sandbox, state_url: str) -> Any:
    """Let time go by, and servers look at each open order."""
    return partial(looked, sandbox, state_url)


@pytest.mark.parametrize("is_asked", [False, True], ids=["nobody is asked", "a person is asked"])
async def test_an_order_tells_why_nothing_fits_before_any_server_has_looked(
    sandbox: Sandbox, at: Any, is_asked: bool
) -> None:
    wire = Wire(sandbox)

    async def stop_looks() -> None:
        wire.on("GET", "/executors", silence)

    async with at(wire, person=Person("yes", meanwhile=stop_looks) if is_asked else None) as agent:
        placed = await order(agent)
        await stop_looks()
        for row in (placed, await shown(agent)):
            assert "the cheapest A100" in row["because"]
            assert row["looked_at"] == row["since"]


async def test_each_look_that_finds_nothing_is_told(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    async with at() as agent:
        told = [(await order(agent))["looked_at"]]
        for _ in range(2):
            await servers_look()
            told.append((await shown(agent))["looked_at"])
    assert told == sorted(set(told))


async def test_an_order_that_nobody_looked_at_in_time_says_so(sandbox: Sandbox, at: Any, servers_look: Any) -> None:
    wire = Wire(sandbox)

    async def stop_looks() -> None:
        wire.on("GET", "/executors", silence)

    async with at(wire, person=Person("yes", meanwhile=stop_looks)) as agent:
        await order(agent, keep_trying_hours=1)
    sandbox.clock.advance(hours=2)
    async with at() as agent:
        await servers_look()
        row = await shown(agent)
        assert (row["status"], row["because"]) == ("expired", "no server looked in time")


async def test_an_order_whose_pod_did_not_start_tells_why(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        await order(agent)
        sandbox.add_fault("boot_fails", step="docker_pull")
        prices(sandbox, CHEAP)
        row = await rented(agent)
        assert "because" not in row
        await until(lambda: not living(sandbox) or living(sandbox)[0]["status"] == "CREATION_FAILED", sandbox)
        assert "The image could not be pulled" in (await shown(agent))["because"]
        sandbox.clock.advance(minutes=10)
        row = await shown(agent)
        assert "The image could not be pulled" in row["because"]
        found = await agent.call("get_pod", pod=row["pod_id"])
        assert (found["outcome"], found["order"]["name"]) == ("failed", "train")


async def test_what_an_order_rented_is_shown_with_it(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent:
        placed = await order(agent)
        prices(sandbox, CHEAP)
        pod_id = (await rented(agent))["pod_id"]
        found = await agent.call("get_pod", pod=pod_id, wait_seconds=0)
        assert (found["order"]["order_id"], found["order"]["status"]) == (placed["order_id"], "rented")


@pytest.mark.parametrize("key", ["sk_sandbox", "sk_colleague"])
async def test_who_removes_a_pod_by_its_id_is_told_that_an_order_would_rent_its_name_again(
    sandbox: Sandbox, at: Any, key: str
) -> None:
    person = Person("yes")
    async with at() as agent, at(person=person, api_key=key) as asking:
        placed = await order(agent)
        pod_id = await rent(sandbox, "train")
        came = await asking.call("remove_pod", pod=pod_id)
        [asked] = person.questions
        for told in (asked, came["next"]):
            assert "A standing order of this name" in told
            assert (f"remove_pod with {placed['order_id']} cancels it" in told) == (key == "sk_sandbox")
        if key == "sk_sandbox":
            await agent.call("remove_pod", pod=placed["order_id"])
            assert "next" not in await agent.call("remove_pod", pod=await rent(sandbox, "train"))


async def test_the_numbers_of_an_order_are_words_of_one_or_of_several(sandbox: Sandbox, at: Any) -> None:
    person = Person("yes")
    nodes = await ask(sandbox, "GET", "/executors?view=summary")
    any_gpu = {"gpu_type": None, "min_vram_gb": 4, "max_usd_per_gpu_hour": 0.0001}
    async with at(person=person) as agent:
        await order(agent, name="one", hours=1, keep_trying_hours=1, **any_gpu)
        assert "within 1 hour from now, rent the cheapest GPU with min_vram_gb=4" in person.questions[0]
        assert "1 hour after it starts" in person.questions[0]
        await order(agent, name="two", gpu_count=2, **any_gpu)
        assert "within 24 hours from now, rent 2 of the cheapest GPUs with min_vram_gb=4" in person.questions[1]
        assert "2 hours after it starts" in person.questions[1]
        wish = {"executor_id": nodes[0]["id"], "gpu_type": None, "max_usd_per_gpu_hour": 0.0001}
        assert (await order(agent, name="three", gpu_count=1, **wish))["wants"] == f"1 GPU of node {nodes[0]['id']}"
