"""A market that lies: rows of any shape and size cost no answer, and are offered for no more than they say."""

import math
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on
from tests.wires import Wire, answering, editing

NODE = "3f6c1a52-7d0e-4b7e-9a31-5c2f8e4d1b60"

Row = dict[str, Any]


def row(**changes: Any) -> Row:
    """A small good row, changed."""
    good = {
        "id": NODE,
        "machine_name": "NVIDIA H100 PCIe",
        "price_per_gpu": 1.5,
        "gpu_count": 8,
        "available_gpu_count": 4,
        "min_gpu_count_for_rental": 1,
    }
    return {name: value for name, value in (good | changes).items() if value != "absent"}


@pytest.mark.parametrize(
    "changes",
    [
        {"price_per_gpu": -1},
        {"price_per_gpu": math.nan},
        {"price_per_gpu": math.inf},
        {"price_per_gpu": "NaN"},
        {"price_per_gpu": "free!"},
        {"price_per_gpu": None},
        {"price_per_gpu": "absent"},
        {"price_per_gpu": True},
        {"price_per_gpu": [1]},
        {"available_gpu_count": 0},
        {"price_per_gpu": 0},
        {"min_gpu_count_for_rental": 6},
        {"min_gpu_count_for_rental": None},
        {"id": None},
        {"id": ""},
        {"id": {"a": 1}},
    ],
    ids=str,
)
async def test_a_row_without_a_price_or_a_free_gpu_is_no_offer(sandbox: Sandbox, changes: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(**changes), row(id="good")]))
    async with agent_on(sandbox, transport=wire) as agent:
        page = await agent.call("list_gpus")
        assert [offer["executor_id"] for offer in page["offers"]] == ["good"]


@pytest.mark.parametrize("price", [None, "absent", 0, "NaN"], ids=str)
async def test_what_would_do_but_for_its_price_is_counted(sandbox: Sandbox, price: Any) -> None:
    def market(_: Any) -> list[Any]:
        unpriced = [row(id=f"unpriced-{i}", price_per_gpu=price) for i in range(2)]
        others = [
            row(id="small", price_per_gpu=price, machine_name="NVIDIA L4"),
            row(id="full", price_per_gpu=price, available_gpu_count=0),
        ]
        return [row(id="good"), *unpriced, *others, "no row"]

    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(market))
    async with agent_on(sandbox, transport=wire) as agent:
        page = await agent.call("list_gpus", gpu_type="H100", max_usd_per_gpu_hour=2)
        prices = await agent.call("get_gpu_prices", gpu_type="H100")
        every = await agent.call("list_gpus")
    left_out = "2 more nodes would do, but Lium says no price that can be billed: left out."
    assert page["total"] == 1
    assert page["incomplete"] == prices["incomplete"] == f"{left_out} 1 node of the market could not be read."
    assert every["incomplete"].startswith("3 more nodes")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"price_per_gpu": "1.25"}, {"price_per_gpu_hour_usd": 1.25}),
        ({"available_gpu_count": "4"}, {"free_gpus": 4}),
        ({"available_gpu_count": None}, {"free_gpus": "absent"}),
        ({"available_gpu_count": "absent"}, {"free_gpus": "absent"}),
        ({"available_gpu_count": "many"}, {"free_gpus": "absent"}),
        ({"available_gpu_count": math.nan}, {"free_gpus": "absent"}),
        ({"available_gpu_count": -3}, {"free_gpus": "absent"}),
        ({"available_gpu_count": None, "gpu_count": None, "specs": None}, {"free_gpus": "absent"}),
        ({"gpu_count": "8", "min_gpu_count_for_rental": None, "available_gpu_count": 8}, {"rentable_gpus": "8"}),
        ({"specs": None}, {"free_gpus": 4}),
        ({"specs": {"gpu": "eight", "ram": [], "cpu": {"count": "many"}}}, {"free_gpus": 4}),
        ({"specs": {"ram": {"total": math.nan}, "hard_disk": {"free": -5}}}, {"free_gpus": 4}),
        ({"location": "Mars", "tier": 7, "max_cuda_version": "12.8"}, {"cuda": 12.8, "tier": "7"}),
        ({"machine_name": None, "reliability_score": "NaN"}, {"gpu_type": "absent"}),
        ({"machine_name": "\x1b[31mNVIDIA H100\u202e"}, {"gpu_type": "H100"}),
        ({"location": {"country_code": "d\u200be\x07"}}, {"country": "DE"}),
        ({"unheard_of": {"nested": [1, 2, {"deep": None}]}}, {"free_gpus": 4}),
    ],
    ids=str,
)
async def test_a_row_with_strange_figures_is_offered_for_what_it_says(
    sandbox: Sandbox, changes: Row, shown: Row
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(**changes)]))
    async with agent_on(sandbox, transport=wire) as agent:
        (offer,) = (await agent.call("list_gpus"))["offers"]
        assert {name: offer.get(name, "absent") for name in shown} == shown


@pytest.mark.parametrize("free", [10**9, 10**18, 10**300])
async def test_a_node_that_claims_a_billion_free_gpus_stalls_nothing(sandbox: Sandbox, free: int) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(available_gpu_count=free), row(id="b", price_per_gpu=2)]))
    async with agent_on(sandbox, transport=wire) as agent:
        (prices,) = (await agent.call("get_gpu_prices"))["gpu_types"]
        assert prices["free_gpus"] < 100
        assert prices["max_usd"] == 2
        assert (await agent.call("list_gpus", gpu_type="H100"))["total"]


async def test_prices_beyond_reason_break_no_answer(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda _: [row(price_per_gpu=1.7e308), row(id="b", price_per_gpu=1.6e308)]))
    wire.on("GET", "/executors/*/quote", answering(404, {"detail": "Not Found"}))
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("get_gpu_prices")
        await agent.call("list_gpus")
        await agent.raw("quote_rental", executor_id=NODE, gpu_count=4, hours=1000)


async def test_a_market_of_fifty_thousand_nodes_is_read(sandbox: Sandbox) -> None:
    market = [row(id=f"n{number}", price_per_gpu=1 + number / 10_000) for number in range(50_000)]
    wire = Wire(sandbox)
    wire.on("GET", "/executors", answering(200, market))
    async with agent_on(sandbox, transport=wire, timeout_seconds=45) as agent:
        page = await agent.call("list_gpus", max_usd_per_gpu_hour=2)
        assert page["total"] == 10_001
        assert [offer["executor_id"] for offer in page["offers"]] == [f"n{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "unreadable_answer"),
        (b"<html>", "not_lium"),
        (b'{"items": 3}', "unreadable_answer"),
        (b"[" * 100_000, "unreadable_answer"),
        (b"[]" + b" " * (9 * 2**20), "answer_too_large"),
    ],
    ids=["empty", "html", "no list", "deep", "large"],
)
async def test_a_listing_that_cannot_be_read_is_a_failure_in_words(sandbox: Sandbox, content: bytes, code: str) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors", answering(200, content))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("list_gpus")).code == code


async def test_the_market_is_out_of_reach_in_words(sandbox: Sandbox) -> None:
    async def refuse(*_: Any) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    wire = Wire(sandbox)
    wire.on("GET", "/executors", refuse)
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("list_gpus")).code == "lium_unreachable"
