"""Replicas over HTTP with a key of their own, on one PostgreSQL: what one has claimed the next does when it dies."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from lium_mcp.rentals import LazyLedger, Task, read_claimant
from lium_mcp.sandbox import API_KEY
from lium_mcp.serving.callers import OWN_KEY_HEADER
from tests.compat.simulated import Simulated, simulating
from tests.http_server import Served, calling, serving_within

TOKEN = "a-token-that-a-test-has-made-up-4711"
OWN = {OWN_KEY_HEADER: TOKEN}
ORDER = {"name": "train", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 100}
RENT = {"method": "POST", "path": "/executors/rent-by-spec"}
LEASE_SECONDS = 100


@pytest.fixture
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(balance_usd=5000, pod_polls_per_minute=10**6)
        yield simulated


def price_at(lium: Simulated, factor: float) -> None:
    for node in lium.playing._world.market.nodes.values():
        node.base_price *= factor


def cheapest(lium: Simulated) -> float:
    nodes = [node for node in lium.state()["nodes"] if "A100" in node["machine_name"]]
    return float(min(node["price_per_gpu"] for node in nodes))


async def order_of(server: Served) -> dict[str, Any]:
    async with calling(server.url, "modern", OWN) as caller:
        [order] = (await caller.call("list_pods"))["orders"]
        return dict(order)


async def claimed(ledger: LazyLedger) -> Task:
    """The one task, once a server has claimed it."""
    while True:
        [task] = await ledger.tasks().newest(1)
        if task.lease_owner is not None:
            return task
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("stage", ["before", "answer"])
async def test_an_order_whose_replica_dies_in_the_middle_is_carried_out_once_by_the_other(
    lium: Simulated, tmp_path: Path, state_url: str, stage: str
) -> None:
    settings = {
        "LIUM_BASE_URL": lium.base_url,
        "LIUM_API_KEY": API_KEY,
        "LIUM_MCP_SERVER_TOKEN": TOKEN,
        "LIUM_MCP_STATE_URL": state_url,
    }
    with (
        serving_within(tmp_path / "one", settings, haste=20) as one,
        serving_within(tmp_path / "two", settings, haste=20) as two,
    ):
        async with calling(one.url, "modern", OWN) as caller, aclosing(LazyLedger(state_url)) as ledger:
            wish = ORDER | {"max_usd_per_gpu_hour": cheapest(lium) / 2}
            assert (await caller.call("rent_pod", **wish))["order"]["status"] == "waiting"
            assert (await order_of(two))["name"] == "train", "each replica knows the order"
            lium.fault("slow", seconds=200, stage=stage, match=RENT)
            price_at(lium, 1 / 4)
            with anyio.fail_after(60):
                # Whichever of the two has it, that one dies while Lium has its request.
                while not [row for row in lium.state()["requests"] if row["path"].endswith(RENT["path"])]:
                    lium.turn(seconds=20)
                    for server in (one, two):  # a server knows Lium's time by what Lium answers it
                        await order_of(server)
                    await asyncio.sleep(0.5)
                owner = read_claimant((await claimed(ledger)).lease_owner).process_id
                [dying] = [server for server in (one, two) if server.process.pid == owner]
                [left] = [server for server in (one, two) if server is not dying]
                dying.process.kill()
                dying.process.wait()
                lium.let_go()
                lium.turn(seconds=LEASE_SECONDS)
                while (await order_of(left))["status"] != "rented":
                    lium.turn(seconds=20)
                    await asyncio.sleep(0.3)
            rented = await order_of(left)
    [record] = lium.state()["rents"]
    assert (record["pod_name"], record["pod_id"]) == ("train", rented["pod_id"])
