"""Answers as on a bad day: each quirk alone, and the profile that draws them all."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY, OWN_API_KEY, TEAM_API_KEY, Sandbox
from tests.sandbox.conftest import START
from tests.sandbox.wire import PUBLIC_KEY, Wire, wire_to
from tests.wires import eventually


async def test_a_late_list_is_of_the_moment_it_was_asked_for(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("late", seconds=13)
    listing = asyncio.create_task(wire.ok("listPods"))
    await eventually(lambda: bool(sandbox.state()["requests"]))
    pod_id = await wire.rent()
    sandbox.clock.advance(seconds=13)
    assert await listing == []
    assert [row["id"] for row in await wire.ok("listPods")] == [pod_id]


async def test_a_late_answer_turns_a_clock_that_nobody_turns(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("late", seconds=13)
    assert await wire.ok("listPods") == []
    assert sandbox.clock.now() - START == timedelta(seconds=13)


async def test_a_list_is_empty_for_a_while(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.add_fault("empty_list", lasting_seconds=60)
    for _ in range(2):
        assert await wire.ok("listPods") == []
        assert (await wire.pod(pod_id))["status"] == "RUNNING"
        sandbox.clock.advance(seconds=30)
    assert [row["id"] for row in await wire.ok("listPods")] == [pod_id]
    assert sandbox.state()["faults"] == []


async def test_a_short_list_lacks_the_same_rows_until_it_is_over(sandbox: Sandbox, wire: Wire) -> None:
    pods = [await wire.rent(pod_name=f"p{number}") for number in range(6)]
    sandbox.add_fault("short_list", times=2, share=0.5)
    first, second, third = [[row["id"] for row in await wire.ok("listPods")] for _ in range(3)]
    assert first == second
    assert 0 < len(first) < 6
    assert sorted(third) == sorted(pods)
    sandbox.add_fault("short_list", ids=[pods[0]])
    assert sorted(row["id"] for row in await wire.ok("listPods")) == sorted(pods[1:])


async def test_some_rows_of_a_list_cannot_be_read(sandbox: Sandbox, wire: Wire) -> None:
    kept, spoiled = await wire.rent(pod_name="kept"), await wire.rent(pod_name="spoiled")
    sandbox.add_fault("unreadable_rows", ids=[spoiled])
    wire.checks = False
    rows = await wire.ok("listPods")
    readable = [row["id"] for row in rows if isinstance(row, dict) and row.get("pod_name")]
    assert (len(rows), readable) == (2, [kept])


async def test_figures_are_null_or_absent(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("missing_fields", times=3)
    rows = await wire.listing()
    for name in ("available_gpu_count", "min_gpu_count_for_rental", "specs"):
        assert all(row.get(name) is None for row in rows)
    assert {"specs" in row for row in rows} == {True, False}
    assert {"specs" in row for row in await wire.listing()} == {True, False}
    assert await wire.listing() == rows
    node = (await wire.listing())[0]
    options = {"fields": ["specs.ram.total"], "ids": [node["id"]]}
    for leaves, expected in (("null", {"total": None}), ("nothing", {})):
        sandbox.add_fault("missing_fields", leaves=leaves, **options)
        row = next(row for row in await wire.listing() if row["id"] == node["id"])
        assert row["specs"]["ram"] == {"pod_reserve": node["specs"]["ram"]["pod_reserve"]} | expected
    assert next(row for row in await wire.listing() if row["id"] == node["id"]) == node


async def test_rows_are_spelled_otherwise(sandbox: Sandbox, wire: Wire) -> None:
    await wire.running(sandbox, await wire.node("A100-SXM4-80GB"))
    wire.checks = False
    sandbox.add_fault("spelled_otherwise", times=2)
    (pod,), node = await wire.ok("listPods"), (await wire.listing())[0]
    assert pod["status"] == "running"
    assert pod["gpu_name"] == "NVIDIA  A100 SXM4 80GB"
    assert isinstance(pod["price"], str)
    assert isinstance(node["price_per_gpu"], str)
    assert isinstance(node["available_gpu_count"], str)
    assert datetime.fromisoformat(node["last_verified_at"]).tzinfo is None


async def test_a_rent_is_done_and_its_answer_does_not_name_the_pod(sandbox: Sandbox, wire: Wire) -> None:
    wire.checks = False
    order: dict[str, Any] = {"executor_id": (await wire.node())["id"], "json": await wire.rent_body()}
    match = {"path": "/executors/*/rent"}
    sandbox.add_fault("missing_fields", fields=["pod_id", "success"], leaves="nothing", match=match)
    assert await wire.ok("rentExecutor", headers={"Idempotency-Key": "k"}, **order) == {}
    again = await wire.ok("rentExecutor", headers={"Idempotency-Key": "k"}, **order)
    assert [record["pod_id"] for record in sandbox.state()["rents"]] == [again["pod_id"]]


async def test_a_new_pod_cannot_be_read_for_some_seconds(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("appears_late", seconds=20, pod_name="slow")
    sandbox.add_fault("appears_late", seconds=20, pod_name="hidden", listed=False)
    slow, hidden = await wire.rent(pod_name="slow"), await wire.rent(pod_name="hidden")
    for pod_id in (slow, hidden):
        await wire.refused("getPod", 404, pod_id=pod_id)
    assert [row["id"] for row in await wire.ok("listPods")] == [slow]
    sandbox.clock.advance(seconds=20)
    assert {row["id"] for row in await wire.ok("listPods")} == {slow, hidden}
    assert (await wire.pod(slow))["pod_name"] == "slow"


async def test_a_row_is_going_for_minutes_and_only_the_pod_itself_shows_it(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.add_fault("delete_slow", seconds=120)
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(seconds=115)
    assert (await wire.pod(pod_id))["status"] == "DELETING"
    assert await wire.ok("listPods") == []
    sandbox.clock.advance(seconds=30)
    await wire.refused("getPod", 404, pod_id=pod_id)


@pytest.mark.parametrize(
    ("asked", "came"),
    [
        ("H20", "NVIDIA H200 NVL"),
        ("L40", "NVIDIA L40S"),
        ("RTXPRO6000", "NVIDIA RTX PRO 6000D"),
        ("100", "NVIDIA Tesla V100 Tensor Core GPU"),
    ],
)
async def test_a_gpu_type_is_matched_loosely_and_another_card_comes_out(asked: str, came: str) -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, lookalikes=True)
    async with wire_to(sandbox) as wire:
        sandbox.add_fault("loose_gpu_types", times=None)
        rented = await wire.ok("rentBySpec", json=await wire.rent_body(gpu_type=asked))
        assert (await wire.pod(rented["pod_id"]))["gpu_name"] == came


async def test_an_endless_list_has_the_same_row_on_every_page(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    config = {"pod_id": pod_id, "backup_frequency_hours": 1, "retention_days": 1, "backup_path": ""}
    await wire.ok("createBackupConfig", json=config)
    for name in ("first", "second"):
        await wire.ok("backupPodNow", pod_id=pod_id, json={"name": name})
        sandbox.clock.advance(minutes=10)
    sandbox.add_fault("endless_pages", times=None)
    pages = [await wire.ok("listBackupLogs", query={"page": page, "limit": 100}) for page in (1, 2, 1000)]
    assert pages[0] == pages[1] == pages[2]
    assert pages[0]["has_next"] is True
    assert len(pages[0]["items"]) == 1


async def test_a_date_is_wrong_and_a_wait_is_a_year(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("wrong_date", offset_seconds=3600)
    told = parsedate_to_datetime((await wire.send("getMe")).headers["date"])
    assert told - sandbox.clock.now().replace(microsecond=0) == timedelta(hours=1)
    sandbox.add_fault("error", status=503, retry_after_seconds=31_536_000)
    assert (await wire.send("getMe")).headers["retry-after"] == "31536000"


async def test_who_one_is_may_be_forbidden_to_one_key_alone(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_key("sk_narrow")
    sandbox.add_fault("forbidden", times=None, match={"path": "/users/me", "key": "narrow"})
    await wire.refused("getMe", 403, "missing_scope", key="sk_narrow")
    await wire.ok("listPods", key="sk_narrow")
    await wire.ok("getMe")


async def test_keys_of_one_customer_share_a_workspace_or_do_not(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_key("sk_second")
    sandbox.add_key("sk_own", pod_visibility="own")
    sandbox.add_key("sk_team", workspace="Team")
    sandbox.add_key("sk_new", account="Newcomer")
    who = {key: await wire.ok("getMe", key=key) for key in (API_KEY, "sk_second", "sk_own", "sk_team", "sk_new")}
    user_id, workspace = who[API_KEY]["id"], who[API_KEY]["workspace"]
    assert [who[key]["workspace"] == workspace for key in who] == [True, True, True, False, False]
    assert [who[key]["id"] == user_id for key in who] == [True, True, True, True, False]
    pod_id = await wire.rent(key="sk_second")
    seen = {key: [row["id"] for row in await wire.ok("listPods", key=key)] for key in who}
    assert [key for key in who if seen[key] == [pod_id]] == [API_KEY, "sk_second"]
    await wire.refused("getPod", 404, key="sk_team", pod_id=pod_id)


async def _day_of(sandbox: Sandbox) -> tuple[dict[str, Any], Counter[str]]:
    """A day of a renter who does not mind; how it ended, and how often each fault struck.

    An answer that none struck is as the contract says.
    """
    answers: dict[str, tuple[str, httpx2.Response]] = {}
    async with wire_to(sandbox, checks=False) as wire:
        template = await wire.template()

        async def call(operation_id: str, **options: Any) -> httpx2.Response | None:
            with suppress(httpx2.ReadError):
                response = await wire.send(operation_id, **options)
                answers[response.headers["x-request-id"]] = (operation_id, response)
                return response
            return None

        for number in range(40):
            for name in ("getMe", "listBackupLogs", "listPods"):
                await call(name)
            await call("listExecutors", query={"view": "summary", "machine_names": "NVIDIA L4"})
            order = {"pod_name": f"p{number}", "user_public_key": [PUBLIC_KEY], "template_id": template}
            await call("rentBySpec", json=order | {"gpu_type": "V100"}, headers={"Idempotency-Key": f"k{number}"})
            sandbox.clock.advance(seconds=60)
            for pod in sandbox.state()["pods"][-1:]:
                await call("deletePod", pod_id=pod["id"])
    state = sandbox.state()
    struck = Counter(kind for note in state["requests"] for kind in note.get("faults", []))
    for note in state["requests"]:
        if "faults" not in note and note["request_id"] in answers:
            Wire.check(*answers[note["request_id"]])
    return state, struck


async def test_a_rough_day_is_the_same_day_again_and_breaks_the_contract_only_where_a_fault_struck() -> None:
    (first, struck), (again, _) = [
        await _day_of(Sandbox(seed=7, speed=0, start=START, profile="rough")) for _ in range(2)
    ]
    assert first == again
    assert len(first["rents"]) > 30
    for kind in ("spelled_otherwise", "short_list", "empty_list", "late", "error", "missing_fields", "wrong_date"):
        assert struck[kind], kind
    assert sum(struck.values()) < len(first["requests"])


async def test_a_rough_sandbox_is_calm_once_its_faults_are_cleared() -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, profile="rough")
    sandbox.clear_faults()
    async with wire_to(sandbox) as calm:
        for key in (API_KEY, OWN_API_KEY, TEAM_API_KEY):
            for _ in range(50):
                await calm.ok("listPods", key=key)
                sandbox.clock.advance(seconds=2)
    assert not any(note.get("faults") for note in sandbox.state()["requests"])
