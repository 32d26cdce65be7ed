"""Money: every cent that leaves the balance was a second that a pod ran."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import SESSION_TOKEN, Sandbox
from tests.sandbox.wire import Wire, wire_to

START = datetime(2026, 10, 6, 12, 0, 2, tzinfo=UTC)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.integers(1, 40_000)),
        st.tuples(st.sampled_from(["rent", "reboot", "remove"]), st.integers(0, 3)),
    ),
    min_size=3,
    max_size=14,
)


async def _take_step(sandbox: Sandbox, wire: Wire, kind: str, value: int) -> None:
    pods = await wire.ok("listPods")
    if kind == "advance":
        sandbox.clock.advance(seconds=value / 7)
    elif kind == "rent" and len(pods) < 3:
        await wire.rent(await wire.node(("A100", "RTX 4090", "L40S", "H200")[value]))
    elif pods:
        pod = pods[value % len(pods)]["id"]
        await wire.send("rebootPod" if kind == "reboot" else "deletePod", pod_id=pod, json={})


@given(steps=STEPS)
@settings(max_examples=25)
async def test_balance_and_charges_always_add_up_to_the_start(steps: list[tuple[str, int]]) -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, balance_usd=500)
    async with wire_to(sandbox, checks=False) as wire:
        for kind, value in steps:
            await _take_step(sandbox, wire, kind, value)
        sandbox.clock.advance(minutes=5)
        state = sandbox.state()
        statement = await wire.ok("getBillingStatement")
    account = state["accounts"][0]
    charged = sum(Decimal(str(row["amount"])) for row in state["ledger"])
    assert Decimal(str(account["opening_balance"])) - charged == Decimal(str(account["balance"]))
    assert statement["total"] == pytest.approx(float(charged))
    assert statement["total"] == pytest.approx(sum(pod["total"] for pod in statement["pods"]))
    for pod in statement["pods"]:
        record = next(row for row in state["pods"] if row["id"] == pod["pod_id"])
        due = Decimal(str(record["price"])) * record["billed_seconds"] / 3600
        assert pod["total"] == pytest.approx(float(round(due, 6)), abs=1e-9)
        assert sum(day["billed_seconds"] for day in pod["days"]) == pod["billed_seconds"]


@given(running_seconds=st.floats(0.5, 200_000))
@settings(max_examples=25)
async def test_billed_seconds_are_the_seconds_between_running_and_removal(running_seconds: float) -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, balance_usd=500)
    async with wire_to(sandbox, checks=False) as wire:
        pod_id = await wire.rent()
        while (pod := await wire.pod(pod_id))["status"] != "RUNNING":
            sandbox.clock.advance(seconds=max(0.01, pod["estimated_ready_seconds"] - 1))
        booted = datetime.fromisoformat(pod["updated_at"]).replace(tzinfo=UTC)
        sandbox.clock.advance(seconds=running_seconds)
        ran = sandbox.clock.now() - booted
        await wire.ok("deletePod", pod_id=pod_id)
        sandbox.clock.advance(hours=3)
        record = await wire.ok("getPodRecord", pod_id=pod_id)
        balance = await wire.balance()
    assert record["billed_seconds"] == int(ran.total_seconds())
    assert record["total"] == pytest.approx(pod["price"] * record["billed_seconds"] / 3600, abs=1e-6)
    assert balance == pytest.approx(500 - record["total"])


async def test_the_balance_moves_every_five_minutes_only(sandbox: Sandbox, wire: Wire) -> None:
    await wire.running(sandbox)
    sandbox.clock.advance(minutes=3)
    assert await wire.balance() == 100
    sandbox.clock.advance(minutes=2)
    assert await wire.balance() < 100


async def test_a_statement_splits_a_run_at_midnight(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.clock.advance(hours=13)
    await wire.ok("deletePod", pod_id=pod_id)
    [pod] = (await wire.ok("getBillingStatement"))["pods"]
    assert [day["billing_day"] for day in pod["days"]] == ["2026-10-06", "2026-10-07"]
    midnight = datetime(2026, 10, 7, tzinfo=UTC)
    assert pod["days"][1]["billed_seconds"] == pytest.approx((sandbox.clock.now() - midnight).total_seconds(), abs=1)
    first = await wire.ok("getBillingStatement", query={"start_day": "2026-10-06", "end_day": "2026-10-06"})
    assert first["total"] == pytest.approx(pod["days"][0]["amount"])
    wrong = {"start_day": "2026-10-07", "end_day": "2026-10-06"}
    await wire.refused("getBillingStatement", 422, query=wrong)


async def test_at_zero_balance_every_pod_is_removed() -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, balance_usd=1.0)
    async with wire_to(sandbox) as wire:
        pod_id = await wire.running(sandbox)
        sandbox.clock.advance(hours=3)
        assert await wire.ok("listPods") == []
        assert (await wire.ok("getPodRecord", pod_id=pod_id))["close_reason"] == "insufficient_balance"
        assert -0.2 < await wire.balance() <= 0


async def test_a_key_at_its_budget_loses_the_pods_it_rented_and_gets_402(sandbox: Sandbox, wire: Wire) -> None:
    other = await wire.running(sandbox)
    body = {"name": "agent", "daily_budget_usd": 2, "monthly_budget_usd": 3}
    key = (await wire.ok("createKey", session=SESSION_TOKEN, json=body))["key"]
    pod_id = await wire.rent(key=key)
    sandbox.clock.advance(hours=4)
    assert [pod["id"] for pod in await wire.ok("listPods")] == [other]
    record = await wire.ok("getPodRecord", pod_id=pod_id)
    assert record["close_reason"] == "api_key_budget_exceeded"
    node = await wire.node()
    refusal = await wire.refused(
        "rentExecutor",
        402,
        "API_KEY_BUDGET_EXCEEDED",
        executor_id=node["id"],
        key=key,
        json=await wire.rent_body(),
    )
    detail = refusal["message"]
    assert detail["window"] == "daily"
    assert detail["spent_usd"] >= detail["budget_usd"] == 2
    refusals = await wire.ok("listKeyRefusals", key=key, key_id=detail["api_key_id"])
    assert [entry["route"] for entry in refusals["refusals"]] == ["POST /executors/{executor_id}/rent"]
    sandbox.clock.advance(hours=24)
    await wire.rent(key=key)


async def test_a_key_at_its_budget_may_shorten_a_schedule_but_not_extend_it(sandbox: Sandbox, wire: Wire) -> None:
    body = {"name": "agent", "daily_budget_usd": 1, "scopes": ["read", "rent", "manage"], "pod_visibility": "account"}
    key = (await wire.ok("createKey", session=SESSION_TOKEN, json=body))["key"]
    await wire.rent(key=key)
    sandbox.clock.advance(hours=2)
    pod_id = await wire.running(sandbox)
    later, soon = ((sandbox.clock.now() + timedelta(hours=hours)).isoformat() for hours in (9, 1))
    extend = {"removal_scheduled_at": later}
    await wire.refused("scheduleRemoval", 402, pod_id=pod_id, key=key, json=extend)
    await wire.ok("scheduleRemoval", pod_id=pod_id, json=extend)
    await wire.ok("scheduleRemoval", pod_id=pod_id, key=key, json={"removal_scheduled_at": soon})


async def test_stored_data_is_charged_by_the_hour_and_belongs_to_no_pod(sandbox: Sandbox, wire: Wire) -> None:
    volume = await wire.ok("createVolume", json={"name": "data"})
    pod_id = await wire.running(sandbox, volume_id=volume["id"])
    sandbox.clock.advance(hours=5)
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(hours=10)
    assert (await wire.ok("getVolume", volume_id=volume["id"]))["current_size_gb"] >= 1
    pods_total = (await wire.ok("getBillingStatement"))["total"]
    assert 0 < 100 - await wire.balance() - pods_total < 0.01
