"""What a key may do: scopes, visibility, budgets; and what only a session may."""

from typing import Any

import pytest

from lium_mcp.sandbox import API_KEY, SESSION_TOKEN, Sandbox
from tests.sandbox.wire import Wire


async def _mint(wire: Wire, *scopes: str, **change: Any) -> dict[str, Any]:
    body = {"name": "ci", "scopes": list(scopes), **change}
    return dict(await wire.ok("createKey", session=SESSION_TOKEN, json=body))


async def test_a_missing_scope_is_named_with_the_key(sandbox: Sandbox, wire: Wire) -> None:
    reader = (await _mint(wire, "read"))["key"]
    node = await wire.node()
    refusal = await wire.refused(
        "rentExecutor", 403, "missing_scope", key=reader, executor_id=node["id"], json=await wire.rent_body()
    )
    assert refusal["message"] == "API key 'ci' does not have the 'rent' scope"
    assert await wire.ok("listPods", key=reader) == []
    for name, body in (("createVolume", {"name": "x"}), ("createTemplate", {"name": "x", "docker_image": "y"})):
        refusal = await wire.refused(name, 403, key=reader, json=body)
        assert "'manage' scope" in refusal["message"]
    money = (await _mint(wire, "billing"))["key"]
    await wire.refused("listPods", 403, key=money)


async def test_a_key_that_rents_may_act_on_its_own_pods_only(sandbox: Sandbox, wire: Wire) -> None:
    renter = (await _mint(wire, "read", "rent", pod_visibility="account"))["key"]
    mine, theirs = await wire.rent(key=renter), await wire.rent()
    sandbox.clock.advance(minutes=1)
    assert {pod["id"] for pod in await wire.ok("listPods", key=renter)} == {mine, theirs}
    await wire.refused("deletePod", 403, key=renter, pod_id=theirs)
    await wire.refused("rebootPod", 403, key=renter, pod_id=theirs, json={})
    await wire.ok("deletePod", key=renter, pod_id=mine)
    assert [pod["id"] for pod in await wire.ok("listPods")] == [theirs]


async def test_a_key_with_own_visibility_knows_of_its_own_pods_only(sandbox: Sandbox, wire: Wire) -> None:
    renter = await _mint(wire, "read", "rent", "manage")
    assert renter["pod_visibility"] == "own"
    mine, theirs = await wire.rent(key=renter["key"]), await wire.rent()
    assert [pod["id"] for pod in await wire.ok("listPods", key=renter["key"])] == [mine]
    await wire.refused("getPod", 404, key=renter["key"], pod_id=theirs)
    events = await wire.ok("listAccountEvents", key=renter["key"])
    assert {event["pod_id"] for event in events} == {mine}
    both = await wire.ok("listPods", query={"api_key_id": renter["id"]})
    assert [pod["id"] for pod in both] == [mine]


async def test_keys_are_for_sessions_and_a_key_reads_only_its_own_refusals(wire: Wire) -> None:
    await wire.refused("listKeys", 401, key=API_KEY)
    first, second = await _mint(wire, "read"), await _mint(wire, "read")
    await wire.ok("listKeyRefusals", key=first["key"], key_id=first["id"])
    await wire.refused("listKeyRefusals", 401, key=first["key"], key_id=second["id"])
    await wire.refused("listKeys", 401, session="expired")
    elsewhere = {"X-Lium-Workspace-Id": "00000000-0000-4000-8000-00000000dead"}
    await wire.refused("listKeys", 403, session=SESSION_TOKEN, headers=elsewhere)


async def test_a_revoked_key_is_dead_at_once_and_its_pods_live_on(sandbox: Sandbox, wire: Wire) -> None:
    key = await _mint(wire, "read", "rent")
    pod_id = await wire.rent(key=key["key"])
    await wire.ok("revokeKey", session=SESSION_TOKEN, key_id=key["id"])
    await wire.refused("listPods", 401, key=key["key"])
    sandbox.clock.advance(minutes=1)
    assert (await wire.pod(pod_id))["status"] == "RUNNING"


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": ["billing", "read"]},
        {"scopes": []},
        {"scopes": ["admin"]},
        {"daily_budget_usd": 0.99},
        {"daily_budget_usd": 1.001},
        {"daily_budget_usd": 5, "monthly_budget_usd": 4},
        {"daily_budget_usd": 5, "max_budget_usd": 4},
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(wire: Wire, change: dict[str, Any]) -> None:
    await wire.refused("createKey", 422, session=SESSION_TOKEN, json={"name": "x", **change})


async def test_budgets_are_set_and_cleared_one_by_one(wire: Wire) -> None:
    key = await _mint(wire, "read", daily_budget_usd=5, max_budget_usd=50)
    patch = {"daily_budget_usd": None, "monthly_budget_usd": 20}
    changed = await wire.ok("updateKey", session=SESSION_TOKEN, key_id=key["id"], json=patch)
    budgets = [changed[f"{window}_budget_usd"] for window in ("daily", "monthly", "max")]
    assert budgets == [None, 20, 50]


async def test_the_audit_log_names_who_did_what_and_pages_by_cursor(sandbox: Sandbox, wire: Wire) -> None:
    for number in range(5):
        await wire.ok("createVolume", json={"name": f"v{number}"}, headers={"X-Source": "mcp"})
        sandbox.clock.advance(seconds=1)
    first = await wire.ok("listAudit", query={"limit": 3, "source": "mcp"})
    rest = await wire.ok("listAudit", query={"limit": 3, "source": "mcp", "cursor": first["next_cursor"]})
    rows = first["items"] + rest["items"]
    assert [row["action"] for row in rows] == ["volume.create"] * 5
    assert [row["created_at"] for row in rows] == sorted((row["created_at"] for row in rows), reverse=True)
    assert rest["next_cursor"] is None
    await wire.refused("listAudit", 422, query={"cursor": "bm9uc2Vuc2U="})
    sandbox.clock.advance(hours=24 * 91)
    assert (await wire.ok("listAudit"))["items"] == []
