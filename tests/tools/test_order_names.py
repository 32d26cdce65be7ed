"""The name of a standing order is the account's: no key rents another pod of that name while the order may rent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lium_mcp.rentals import LazyLedger
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.orders import CHEAP, look_at_once, looked, order, prices, rented, shown, until, wish_in_vain
from tests.wires import Wire, ask, living, rent, rents

_KEY = "sk_colleague"
_PLAIN = {"gpu_type": "RTX 4090", "hours": 2, "wait_seconds": 0}


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    look_at_once(monkeypatch)


@pytest.fixture
def sandbox() -> Sandbox:
    """An account with two keys, one of which sees its own pods alone."""
    sandbox = Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)
    sandbox.add_key(_KEY, pod_visibility="own")
    return sandbox


@pytest.fixture
def at(sandbox: Sandbox, state_url: str) -> Any:
    """Start a server on the account's ledger, with one of its keys."""

    @asynccontextmanager
    async def start(api_key: str = "sk_sandbox", wire: Wire | None = None) -> AsyncIterator[Agent]:
        async with agent_on(sandbox, transport=wire, state_url=state_url, api_key=api_key) as agent:
            yield agent

    return start


@pytest.mark.parametrize("key", ["sk_sandbox", _KEY])
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("rent_pod", {"name": "train-1"} | _PLAIN),
        ("rent_pod", {"name": "train", "count": 2} | _PLAIN),
        ("run_job", {"name": "train-1", "gpu_type": "RTX 4090", "command": "true", "max_total_usd": 5}),
    ],
    ids=["a pod", "one of several", "a run"],
)
async def test_nothing_else_is_rented_under_the_name_of_an_open_order(
    sandbox: Sandbox, at: Any, key: str, tool: str, arguments: dict[str, Any]
) -> None:
    async with at() as agent, at(key) as other:
        placed = await order(agent, name="train-1")
        failure = await other.refused(tool, **arguments)
        assert failure.code == "standing_order_open"
        assert "train-1" in failure.text
        for told in ("A100", placed["order_id"], str(placed["max_usd_per_hour"])):
            assert told not in failure.text
        assert rents(sandbox) == []
        prices(sandbox, CHEAP)
        await rented(agent, "train-1")
    assert len(rents(sandbox)) == 1


async def test_an_order_that_is_placed_while_another_key_rents_its_name_keeps_that_rent_from_leaving(
    sandbox: Sandbox, at: Any
) -> None:
    wire = Wire(sandbox)
    async with at() as agent, at(_KEY, wire) as other:
        hold = wire.hold("GET", "/executors")
        renting = asyncio.create_task(other.refused("rent_pod", name="train", **_PLAIN))
        await hold.reached()
        await order(agent)
        hold.let_go()
        assert (await renting).code == "standing_order_open"
    assert rents(sandbox) == []


async def test_no_order_is_placed_under_the_name_of_another_keys_pod(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent, at(_KEY) as other:
        await agent.call("rent_pod", name="train", **_PLAIN)
        assert (await other.call("list_pods"))["pods"] == []
        failure = await other.refused("rent_pod", **await wish_in_vain(sandbox))
        assert failure.code == "pod_name_taken"
        assert "orders" not in await other.call("list_pods")


async def test_no_order_is_written_down_once_another_key_has_rented_its_name(sandbox: Sandbox, at: Any) -> None:
    wire = Wire(sandbox)
    async with at() as agent, at(_KEY, wire) as other:
        await other.call("list_pods")
        hold = wire.hold("GET", "/pods", "after the answer")
        placing = asyncio.create_task(other.refused("rent_pod", **await wish_in_vain(sandbox)))
        await hold.reached()
        await agent.call("rent_pod", name="train", **_PLAIN)
        hold.let_go()
        assert (await placing).code == "pod_name_taken"
        assert "orders" not in await other.call("list_pods")


async def test_an_order_waits_while_a_pod_has_its_name_that_somebody_rented_past_the_ledger(
    sandbox: Sandbox, at: Any, state_url: str
) -> None:
    async with at() as agent:
        await order(agent)
        pod_id = await rent(sandbox, "train")
        prices(sandbox, CHEAP)
        await looked(sandbox, state_url)
        row = await shown(agent)
        assert (row["status"], len(living(sandbox))) == ("waiting", 1)
        assert f"exists already, from another request: {pod_id}" in row["because"]
        await ask(sandbox, "DELETE", f"/pods/{pod_id}")
        assert (await rented(agent))["pod_id"] != pod_id


async def test_an_order_whose_time_is_over_holds_its_name_no_longer_though_its_server_is_gone(
    sandbox: Sandbox, at: Any, state_url: str
) -> None:
    async with at() as agent:
        await order(agent, keep_trying_hours=1)
    sandbox.clock.advance(hours=2)
    async with at(_KEY) as other:
        again = await order(other)
        assert again["status"] == "waiting"
        await other.call("remove_pod", pod="train")
        assert "pod_id" in await other.call("rent_pod", name="train", **_PLAIN)
    ledger = LazyLedger(state_url)
    assert sorted(task.status for task in await ledger.tasks().newest(10)) == ["cancelled", "expired"]
    await ledger.aclose()
    assert len(living(sandbox)) == 1


async def test_a_cancelled_order_frees_its_name_for_every_key(sandbox: Sandbox, at: Any) -> None:
    async with at() as agent, at(_KEY) as other:
        await order(agent)
        await agent.call("remove_pod", pod="train")
        await other.call("rent_pod", name="train", **_PLAIN)
        await until(lambda: living(sandbox), sandbox)
