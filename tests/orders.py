"""What tests of standing orders share: servers that look at once, orders that nothing fits, and time that is turned."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent
from tests.servers import settled
from tests.wires import Hold, ask

CHEAP: Final = 0.25
_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.01


def account_of_two() -> Sandbox:
    """An account with two keys, that may be read as often as its servers like."""
    sandbox = Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)
    sandbox.add_key("sk_colleague")
    return sandbox


def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers look at once, and again soon."""
    monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("lium_mcp.rentals.worker._LOOK_SECONDS", 0.05)
    monkeypatch.setattr("lium_mcp.rentals.worker._LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr("lium_mcp.between_calls._FIRST_ATTENTION_SECONDS", 0.0)
    monkeypatch.setattr("lium_mcp.between_calls._ATTENTION_SECONDS", 0.05)


def prices(sandbox: Sandbox, factor: float) -> None:
    """Let every price of the market be so many times what it is."""
    for node in sandbox._world.market.nodes.values():
        node.base_price *= factor


async def until(holds: Callable[[], Any], sandbox: Sandbox) -> None:
    """Let time go by, at the sandbox and at the servers, until something holds."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():
            sandbox.clock.advance(seconds=5)
            await asyncio.sleep(_PAUSE_SECONDS)


async def reached(hold: Hold, sandbox: Sandbox) -> None:
    """Let time go by until a request is held."""
    arriving = asyncio.create_task(hold.reached())
    await until(arriving.done, sandbox)
    await arriving


async def looked(sandbox: Sandbox, state_url: str, *, after_minutes: float = 10) -> None:
    """Let time go by, and wait until servers have looked at each open order since, and left or closed it."""
    sandbox.clock.advance(minutes=after_minutes)
    await settled(sandbox, state_url)


async def ceiling_below(sandbox: Sandbox) -> float:
    """A price per GPU-hour that no A100 has now."""
    nodes = await ask(sandbox, "GET", "/executors?view=summary")
    return float(min(node["price_per_gpu"] for node in nodes if "A100" in node["machine_name"])) / 2


async def wish_in_vain(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    """Arguments of a rent that waits, since nothing fits it now."""
    wish = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 24}
    return wish | {"max_usd_per_gpu_hour": await ceiling_below(sandbox)} | changes


async def order(agent: Agent, **changes: Any) -> dict[str, Any]:
    """Place an order for which nothing fits."""
    placed = await agent.call("rent_pod", **await wish_in_vain(agent.sandbox, **changes))
    assert placed["outcome"] == "pending"
    assert "pod_id" not in placed
    return dict(placed["order"])


async def shown(agent: Agent, name: str = "train") -> dict[str, Any]:
    """The order as the list shows it."""
    listed = await agent.call("list_pods")
    return next(dict(row) for row in listed.get("orders", []) if row["name"] == name)


async def rented(agent: Agent, name: str = "train") -> dict[str, Any]:
    """The order once it has rented, with time going by meanwhile."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while (row := await shown(agent, name))["status"] != "rented":
            agent.sandbox.clock.advance(seconds=5)
            await asyncio.sleep(_PAUSE_SECONDS)
    return row
