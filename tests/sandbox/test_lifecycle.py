"""What becomes of a pod between its rent and its removal."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire


async def test_a_pod_boots_through_its_phases_and_then_has_an_address(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.rent()
    phases, estimates = [], []
    for _ in range(40):
        pod = await wire.pod(pod_id)
        if pod["status"] != "PENDING":
            break
        assert pod["ssh_connect_cmd"] is None
        assert pod["ports_mapping"] is None
        phases.append(pod["phase"])
        estimates.append(pod["estimated_ready_seconds"])
        sandbox.clock.advance(seconds=1)
    else:
        raise AssertionError("still pending")
    assert 9 <= len(phases) <= 36
    assert phases[0] == "queued"
    assert phases[-1] == "configuring ssh"
    assert estimates == sorted(estimates, reverse=True)
    assert pod["status"] == "RUNNING"
    assert re.fullmatch(r"ssh root@203\.0\.113\.\d+ -p \d+", pod["ssh_connect_cmd"])
    assert pod["ssh_connect_cmd"].endswith(str(pod["ports_mapping"]["22"]))
    assert pod["phase"] is pod["estimated_ready_seconds"] is None


async def test_pod_rows_carry_naive_times_and_the_gpu_count_as_a_string(sandbox: Sandbox, wire: Wire) -> None:
    node = await wire.node(gpus=2)
    pod = await wire.pod(await wire.running(sandbox, node, gpu_count=2, termination_hours=5))
    assert pod["gpu_count"] == "2"
    assert int(pod["executor"]["gpu_count"]) == int(node["gpu_count"])
    for field in ("created_at", "updated_at", "removal_scheduled_at"):
        assert datetime.fromisoformat(pod[field]).tzinfo is None


async def test_a_failed_boot_stays_visible_for_three_minutes_and_costs_nothing(sandbox: Sandbox, wire: Wire) -> None:
    node = await wire.node()
    sandbox.add_fault("boot_fails", message="no space left on device")
    pod_id = await wire.rent(node)
    sandbox.clock.advance(seconds=60)
    assert (await wire.pod(pod_id))["status"] == "CREATION_FAILED"
    assert (await wire.node())["available_gpu_count"] == node["available_gpu_count"]
    events = await wire.ok("listPodEvents", pod_id=pod_id)
    assert [event["error"] for event in events if event["error"]] == ["no space left on device"]
    sandbox.clock.advance(minutes=3)
    await wire.refused("getPod", 404, pod_id=pod_id)
    assert await wire.balance() == 100


async def test_a_failed_pod_can_be_cleared_away_before_that(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("boot_fails")
    pod_id = await wire.rent()
    sandbox.clock.advance(seconds=60)
    await wire.ok("deletePod", pod_id=pod_id)
    await wire.refused("getPod", 404, pod_id=pod_id)
    node_counts = {node["id"]: node["rented_by_us"] for node in sandbox.state()["nodes"]}
    assert set(node_counts.values()) == {0}


async def test_a_removal_that_is_due_while_the_pod_boots_waits_for_it(sandbox: Sandbox, wire: Wire) -> None:
    sandbox.add_fault("boot_slow", seconds=600)
    pod_id = await wire.rent()
    due = (sandbox.clock.now() + timedelta(minutes=2)).isoformat()
    await wire.ok("scheduleRemoval", pod_id=pod_id, json={"removal_scheduled_at": due})
    sandbox.clock.advance(minutes=5)
    assert (await wire.pod(pod_id))["status"] == "PENDING"
    sandbox.clock.advance(minutes=8)
    assert await wire.ok("listPods") == []
    assert (await wire.ok("getPodRecord", pod_id=pod_id))["billed_seconds"] <= 61


async def test_a_pending_pod_cannot_be_removed(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.rent()
    await wire.refused("deletePod", 400, pod_id=pod_id)
    sandbox.clock.advance(seconds=60)
    await wire.ok("deletePod", pod_id=pod_id)


async def test_a_removed_pod_leaves_the_list_at_once_and_the_api_a_little_later(sandbox: Sandbox, wire: Wire) -> None:
    node = await wire.node()
    pod_id = await wire.running(sandbox, node)
    await wire.ok("deletePod", pod_id=pod_id)
    assert await wire.ok("listPods") == []
    assert (await wire.pod(pod_id))["status"] == "DELETING"
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(seconds=15)
    assert await wire.refused("deletePod", 404, pod_id=pod_id) == {"message": "Pod not found", "status_code": 404}
    rows = {row["id"]: row for row in await wire.listing()}
    assert rows[node["id"]]["available_gpu_count"] == node["available_gpu_count"]


async def test_termination_hours_count_from_boot_and_replace_a_schedule_set_meanwhile(
    sandbox: Sandbox, wire: Wire
) -> None:
    pod_id = await wire.rent(termination_hours=3)
    await wire.ok("scheduleRemoval", pod_id=pod_id, json={"removal_scheduled_at": "2026-10-08T00:00:00Z"})
    assert (await wire.pod(pod_id))["removal_scheduled_at"] == "2026-10-08T00:00:00"
    sandbox.clock.advance(seconds=60)
    pod = await wire.pod(pod_id)
    running = next(event for event in await wire.ok("listPodEvents", pod_id=pod_id) if event["to_status"] == "RUNNING")
    booted = datetime.fromisoformat(running["created_at"]).replace(tzinfo=None)
    removal = datetime.fromisoformat(pod["removal_scheduled_at"])
    assert abs(removal - booted - timedelta(hours=3)) < timedelta(seconds=1)
    assert pod["termination_hours"] is None


async def test_a_scheduled_removal_comes_within_a_minute_after_its_time(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    due = sandbox.clock.now() + timedelta(minutes=10, seconds=20)
    await wire.ok("scheduleRemoval", pod_id=pod_id, json={"removal_scheduled_at": due.isoformat()})
    sandbox.clock.advance(minutes=10, seconds=20)
    assert len(await wire.ok("listPods")) == 1
    sandbox.clock.advance(minutes=1)
    assert await wire.ok("listPods") == []
    record = await wire.ok("getPodRecord", pod_id=pod_id)
    sandbox.clock.advance(minutes=1)
    record = await wire.ok("getPodRecord", pod_id=pod_id)
    assert record["close_reason"] == "scheduled_termination"
    assert 0 <= (datetime.fromisoformat(record["removed_at"]) - due).total_seconds() <= 76


async def test_a_later_schedule_replaces_an_earlier_one_and_a_cancelled_one_never_strikes(
    sandbox: Sandbox, wire: Wire
) -> None:
    pod_id = await wire.running(sandbox)
    for minutes in (5, 30):
        due = (sandbox.clock.now() + timedelta(minutes=minutes)).isoformat()
        await wire.ok("scheduleRemoval", pod_id=pod_id, json={"removal_scheduled_at": due})
    sandbox.clock.advance(minutes=10)
    assert len(await wire.ok("listPods")) == 1
    await wire.ok("cancelScheduledRemoval", pod_id=pod_id)
    sandbox.clock.advance(hours=2)
    assert len(await wire.ok("listPods")) == 1


async def test_a_schedule_in_the_past_or_without_a_zone_is_refused(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    past = sandbox.clock.now().astimezone(UTC).isoformat()
    await wire.refused("scheduleRemoval", 400, pod_id=pod_id, json={"removal_scheduled_at": past})
    naive = {"removal_scheduled_at": "2026-10-09T00:00:00"}
    await wire.refused("scheduleRemoval", 422, pod_id=pod_id, json=naive)


async def test_a_reboot_keeps_the_pod_and_its_bill_and_replaces_the_output(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.clock.advance(minutes=10)
    assert (await wire.ok("rebootPod", pod_id=pod_id, json={}))["status"] == "REBOOT_PENDING"
    await wire.refused("rebootPod", 400, pod_id=pod_id, json={})
    await wire.refused("streamPodLogs", 404, pod_id=pod_id)
    sandbox.clock.advance(seconds=30)
    assert (await wire.pod(pod_id))["status"] == "RUNNING"
    lines = (await wire.ok("streamPodLogs", pod_id=pod_id, query={"tail": 500})).splitlines()
    assert len(lines) < 10
    await wire.ok("deletePod", pod_id=pod_id)
    events = await wire.ok("listPodEvents", pod_id=pod_id)
    first = next(event for event in events if event["to_status"] == "RUNNING")
    ran = sandbox.clock.now() - datetime.fromisoformat(first["created_at"])
    record = await wire.ok("getPodRecord", pod_id=pod_id)
    assert abs(record["billed_seconds"] - ran.total_seconds()) < 2


async def test_a_failed_reboot_keeps_billing_and_can_be_repeated(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.add_fault("reboot_fails", pod_id=pod_id)
    await wire.ok("rebootPod", pod_id=pod_id, json={})
    sandbox.clock.advance(minutes=1)
    assert (await wire.pod(pod_id))["status"] == "REBOOT_FAILED"
    before = await wire.balance()
    sandbox.clock.advance(minutes=20)
    assert await wire.balance() < before
    await wire.ok("rebootPod", pod_id=pod_id, json={})
    sandbox.clock.advance(minutes=1)
    assert (await wire.pod(pod_id))["status"] == "RUNNING"


async def test_a_switched_template_is_a_clone_and_the_bill_goes_on(sandbox: Sandbox, wire: Wire) -> None:
    pod_id, ubuntu = await wire.running(sandbox), await wire.template("daturaai/ubuntu")
    sandbox.clock.advance(minutes=6)
    row = await wire.ok("switchPodTemplate", pod_id=pod_id, json={"template_id": ubuntu})
    assert row["status"] == "PENDING"
    assert row["template_id"] != ubuntu
    assert row["template_id"] not in {template["id"] for template in await wire.ok("listTemplates")}
    billed = (await wire.ok("getPodRecord", pod_id=pod_id))["billed_seconds"]
    sandbox.clock.advance(minutes=10)
    pod = await wire.pod(pod_id)
    assert pod["status"] == "RUNNING"
    assert pod["template"]["docker_image"] == "daturaai/ubuntu"
    assert (await wire.ok("getPodRecord", pod_id=pod_id))["billed_seconds"] >= billed + 500


async def test_a_reclaimed_spot_pod_is_gone_at_once_and_says_why(sandbox: Sandbox, wire: Wire) -> None:
    rows = await wire.listing()
    node = next(row for row in rows if row["tier"] == "spot" and row.get("min_gpu_count_for_rental") == 1)
    pod_id = await wire.running(sandbox, node)
    sandbox.add_fault("spot_reclaim", pod_id=pod_id)
    await wire.refused("getPod", 404, pod_id=pod_id)
    events = await wire.ok("listPodEvents", pod_id=pod_id)
    assert "spot_reclaimed" in {event["reason"] for event in events}
    assert (await wire.ok("getPodRecord", pod_id=pod_id))["close_reason"] == "spot_reclaimed"
    assert node["id"] not in {row["id"] for row in await wire.listing()}


async def test_the_event_log_names_who_asked_and_leaves_the_platform_unnamed(sandbox: Sandbox, wire: Wire) -> None:
    await wire.ok("createSshKey", json={"name": "laptop", "public_key": "ssh-ed25519 AAAA laptop"})
    removed, expired = await wire.running(sandbox), await wire.running(sandbox)
    await wire.ok("rebootPod", pod_id=removed, json={})
    sandbox.clock.advance(minutes=1)
    await wire.ok("deletePod", pod_id=removed)
    at = sandbox.clock.now() + timedelta(hours=1)
    await wire.ok("scheduleRemoval", pod_id=expired, json={"removal_scheduled_at": at.isoformat()})
    sandbox.clock.advance(hours=2)

    events = await wire.ok("listAccountEvents")
    told = [
        (event["sub_event_type"], event["pod_id"], event["actor"] is not None)
        for event in reversed(events)
        if event["sub_event_type"] != "pod-lifecycle.status"
    ]
    assert told == [
        ("ssh-key-create.success", None, True),
        ("pod-rent.requested", removed, True),
        ("pod-create.success", removed, False),
        ("pod-rent.requested", expired, True),
        ("pod-create.success", expired, False),
        ("pod-reboot.success", removed, True),
        ("pod-delete.success", removed, True),
        ("worker-pod-delete.success", expired, False),
    ]


async def test_a_gpu_reset_is_polled_and_limited_to_one_a_minute(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await wire.refused("resetGpu", 400, "invalid_gpu_index", pod_id=pod_id, json={"gpu_indices": [3]})
    reset = await wire.ok("resetGpu", pod_id=pod_id, json={"gpu_indices": [0]})
    await wire.refused("resetGpu", 409, pod_id=pod_id, json={"gpu_indices": [0]})
    sandbox.clock.advance(minutes=2)
    state = await wire.ok("getGpuReset", pod_id=pod_id, request_id=reset["request_id"])
    assert (state["status"], state["gpus"][0]["result"]) == ("done", "reset")
    sandbox.add_fault("gpu_reset_fails")
    second = await wire.ok("resetGpu", pod_id=pod_id, json={"gpu_indices": [0]})
    sandbox.clock.advance(minutes=2)
    assert (await wire.ok("getGpuReset", pod_id=pod_id, request_id=second["request_id"]))["ok"] is False


async def test_jupyter_needs_a_mapped_port_and_then_has_a_url(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await wire.refused("installJupyter", 400, pod_id=pod_id, json={"jupyter_internal_port": 9999})
    await wire.ok("installJupyter", pod_id=pod_id, json={"jupyter_internal_port": 8888})
    assert (await wire.pod(pod_id))["jupyter_installation_status"] == "IN_PROGRESS"
    sandbox.clock.advance(minutes=1)
    pod = await wire.pod(pod_id)
    assert pod["jupyter_installation_status"] == "SUCCESS"
    assert f":{pod['ports_mapping']['8888']}/" in pod["jupyter_url"]


async def test_output_grows_with_time_and_tail_takes_the_end(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    sandbox.clock.advance(minutes=5)
    early = (await wire.ok("streamPodLogs", pod_id=pod_id, query={"tail": 1000})).splitlines()
    sandbox.clock.advance(minutes=5)
    late = (await wire.ok("streamPodLogs", pod_id=pod_id, query={"tail": 1000})).splitlines()
    assert late[: len(early)] == early
    assert len(late) > len(early)
    assert (await wire.ok("streamPodLogs", pod_id=pod_id, query={"tail": 3})).splitlines() == late[-3:]


async def test_followed_output_ends_when_the_pod_is_removed(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    url = f"http://sandbox/api/pods/{pod_id}/logs?follow=true&tail=1"
    async with asyncio.timeout(60), wire.http.stream("GET", url, headers={"X-API-KEY": "sk_sandbox"}) as answer:
        lines = answer.aiter_lines()
        first = await anext(lines)
        sandbox.clock.advance(minutes=1)
        assert await anext(lines) != first
        await wire.ok("deletePod", pod_id=pod_id)
        rest = [line async for line in lines]
    assert len(rest) < 20


async def test_the_list_is_limited_to_sixty_polls_a_minute(sandbox: Sandbox, wire: Wire) -> None:
    for _ in range(60):
        await wire.ok("listPods")
    limited = await wire.send("listPods")
    assert limited.status_code == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    sandbox.clock.advance(minutes=1)
    await wire.ok("listPods")


async def test_feedback_counts_once(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    assert (await wire.ok("sendPodFeedback", pod_id=pod_id, json={"rating": 2}))["recorded"] is True
    assert (await wire.ok("sendPodFeedback", pod_id=pod_id, json={"rating": 5}))["recorded"] is False
    await wire.refused("sendPodFeedback", 422, pod_id=pod_id, json={"rating": 6})
