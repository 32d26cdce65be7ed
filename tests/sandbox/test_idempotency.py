"""The Idempotency-Key: one key, one rental, whatever happens in between."""

from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire, wire_to

KEY = {"Idempotency-Key": "6f1d2c3b-4a59-4687-9abc-def012345678"}


async def _order(wire: Wire, **asked: Any) -> dict[str, Any]:
    node = await wire.node(gpus=2)
    return {"executor_id": node["id"], "json": await wire.rent_body(**asked), "headers": KEY}


async def test_a_repeat_gets_the_first_answer_and_rents_nothing(sandbox: Sandbox, wire: Wire) -> None:
    order = await _order(wire)
    first = await wire.send("rentExecutor", **order)
    assert "idempotent-replayed" not in first.headers
    sandbox.clock.advance(hours=23)
    again = await wire.send("rentExecutor", **order)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert [rent["idempotency_key"] for rent in sandbox.state()["rents"]] == [KEY["Idempotency-Key"]]


async def test_after_a_day_the_key_protects_no_more(sandbox: Sandbox, wire: Wire) -> None:
    order = await _order(wire)
    await wire.ok("rentExecutor", **order)
    sandbox.clock.advance(hours=24)
    again = await wire.send("rentExecutor", **order)
    assert again.is_success
    assert "idempotent-replayed" not in again.headers
    assert len(sandbox.state()["rents"]) == 2


async def test_a_stored_refusal_is_replayed_as_the_same_refusal(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("node_taken")
    order = await _order(wire)
    await wire.refused("rentExecutor", 400, "node_unavailable", **order)
    sandbox.clock.advance(hours=2)
    again = await wire.send("rentExecutor", **order)
    assert again.status_code == 400
    assert again.headers["idempotent-replayed"] == "true"
    assert sandbox.state()["rents"] == []


async def test_the_key_with_another_request_is_refused_loudly(sandbox: Sandbox, wire: Wire) -> None:
    order = await _order(wire)
    await wire.ok("rentExecutor", **order)
    other = {**order, "json": {**order["json"], "pod_name": "other"}}
    await wire.refused("rentExecutor", 422, "idempotency_key_reused", **other)
    spec = {**order["json"], "gpu_type": "A100"}
    await wire.refused("rentBySpec", 422, "idempotency_key_reused", json=spec, headers=KEY)
    assert len(sandbox.state()["rents"]) == 1


async def test_budget_and_balance_speak_before_the_record_does() -> None:
    async with wire_to(Sandbox(seed=7, speed=0)) as wire:
        price = (await wire.node(gpus=2))["price_per_gpu"]
    async with wire_to(Sandbox(seed=7, speed=0, balance_usd=0.4 * price)) as wire:
        order = await _order(wire)
        await wire.ok("rentExecutor", **order)
        # The first rental now counts against the balance, and the repeat is refused without a word about it.
        refusal = await wire.send("rentExecutor", **order)
        assert refusal.status_code == 403
        assert "idempotent-replayed" not in refusal.headers


@pytest.mark.parametrize("rented", [True, False])
async def test_a_crash_in_mid_rent_leaves_the_key_locked_and_then_unknown(
    sandbox: Sandbox, wire: Wire, rented: bool
) -> None:
    sandbox.add_fault("rent_crash", rented=rented)
    order = await _order(wire)
    with pytest.raises(httpx2.ReadError):
        await wire.send("rentExecutor", **order)
    assert len(await wire.ok("listPods")) == rented
    await wire.refused("rentExecutor", 409, "idempotency_in_progress", **order)
    sandbox.clock.advance(seconds=300)
    await wire.refused("rentExecutor", 409, "idempotency_outcome_unknown", **order)
    assert len(sandbox.state()["rents"]) == rented


async def test_a_lost_answer_is_settled_by_the_repeat(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("lost_answer", match={"method": "POST", "path": "/executors/*/rent"})
    order = await _order(wire)
    with pytest.raises(httpx2.ReadError):
        await wire.send("rentExecutor", **order)
    settled = await wire.ok("rentExecutor", **order)
    assert [pod["id"] for pod in await wire.ok("listPods")] == [settled["pod_id"]]


async def test_a_failed_dry_run_leaves_its_key_pending(sandbox: Sandbox, wire: Wire) -> None:
    body = await wire.rent_body(gpu_type="A100", min_cpus=100_000, dry_run=True)
    await wire.refused("rentBySpec", 409, "no_executor_matches_spec", json=body, headers=KEY)
    await wire.refused("rentBySpec", 409, "idempotency_in_progress", json=body, headers=KEY)
    sandbox.clock.advance(minutes=6)
    await wire.refused("rentBySpec", 409, "idempotency_outcome_unknown", json=body, headers=KEY)


async def test_a_server_without_the_feature_ignores_the_key() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=("rent_by_spec",))
    async with wire_to(sandbox) as wire:
        order = await _order(wire)
        for _ in range(2):
            await wire.ok("rentExecutor", **order)
    assert len(sandbox.state()["rents"]) == 2


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["k1", "k2"]), st.sampled_from(["fine", "lost_answer", "lost_request", "error"])),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=15)
async def test_however_often_a_key_is_sent_it_rents_once(steps: list[tuple[str, str]]) -> None:
    sandbox = Sandbox(seed=7, speed=0)
    async with wire_to(sandbox, checks=False) as wire:
        orders = {key: await _order(wire, pod_name=key) | {"headers": {"Idempotency-Key": key}} for key in ("k1", "k2")}
        reached: set[str] = set()
        for key, fate in steps:
            if fate != "fine":
                sandbox.add_fault(
                    fate, match={"path": "/executors/*/rent"}, **({"after_work": True} if fate == "error" else {})
                )
            try:
                await wire.send("rentExecutor", **orders[key])
            except httpx2.ReadError:
                assert fate in {"lost_answer", "lost_request"}
            if fate != "lost_request":
                reached.add(key)
    assert {rent["pod_name"] for rent in sandbox.state()["rents"]} == reached
    assert len(sandbox.state()["rents"]) == len(reached)
