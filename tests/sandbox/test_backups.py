"""Backups and restores: one at a time, for minutes, kept as long as promised."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.sandbox.wire import Wire


async def _configure(wire: Wire, pod_id: str, **change: Any) -> dict[str, Any]:
    body = {"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": "/root/data", **change}
    return dict(await wire.ok("createBackupConfig", json=body))


async def _backup(sandbox: Sandbox, wire: Wire, pod_id: str) -> str:
    run = await wire.ok("backupPodNow", pod_id=pod_id, json={"name": "by hand"})
    sandbox.clock.advance(minutes=4)
    return str(run["backup_log_id"])


async def test_a_backup_progresses_and_completes(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await wire.refused("backupPodNow", 400, pod_id=pod_id, json={"name": "too early"})
    await _configure(wire, pod_id)
    run = (await wire.ok("backupPodNow", pod_id=pod_id, json={"name": "first"}))["backup_log_id"]
    seen: list[dict[str, Any]] = []
    for _ in range(30):
        seen.append(await wire.ok("getBackupLog", backup_id=run))
        sandbox.clock.advance(seconds=10)
    progress = [row["progress"] for row in seen]
    assert progress == sorted(progress)
    assert {"PENDING", "IN_PROGRESS", "COMPLETED"} == {row["status"] for row in seen}
    assert all(row["processed_bytes"] <= row["total_bytes"] for row in seen)
    assert seen[-1]["processed_bytes"] == seen[-1]["total_bytes"]
    assert any(row["estimated_remaining_seconds"] for row in seen)


async def test_one_operation_of_a_pod_blocks_another(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id)
    done = await _backup(sandbox, wire, pod_id)
    running = (await wire.ok("backupPodNow", pod_id=pod_id, json={"name": "second"}))["backup_log_id"]
    for name, body in (
        ("backupPodNow", {"name": "third"}),
        ("restoreBackup", {"backup_id": done, "restore_path": "/root/back"}),
    ):
        refusal = await wire.refused(name, 409, pod_id=pod_id, json=body)
        assert refusal["detail"]["active_operation_id"] == running
    await wire.refused("deleteBackupLog", 409, backup_id=running)
    await wire.ok("cancelBackup", backup_id=running)
    await wire.refused("cancelBackup", 400, backup_id=running)


async def test_a_pod_has_one_configuration(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    config = await _configure(wire, pod_id)
    body = {"pod_id": pod_id, "backup_frequency_hours": 1, "retention_days": 1, "backup_path": ""}
    refusal = await wire.refused("createBackupConfig", 400, json=body)
    assert refusal == {"detail": "Backup configuration already exists"}
    wrong = {"backup_path": "/mnt/data", "retention_days": 9}
    await wire.refused("updateBackupConfig", 400, config_id=config["id"], json=wrong)
    assert (await wire.ok("getBackupConfigForPod", pod_id=pod_id))["retention_days"] == 7
    await wire.refused("updateBackupConfig", 422, config_id=config["id"], json={"backup_frequency_hours": 169})


@pytest.mark.parametrize(
    "path",
    ["data", "/tmp/x", "/mnt", "/mnt/x", "/root/../etc", "/rooted", "/", "/etc"],  # noqa: S108 - a path in a pod
)
async def test_a_backup_path_outside_the_local_volume_is_refused(sandbox: Sandbox, wire: Wire, path: str) -> None:
    pod_id = await wire.running(sandbox)
    body = {"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": path}
    await wire.refused("createBackupConfig", 400, json=body)


async def test_scheduled_backups_run_and_old_ones_expire(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id, backup_frequency_hours=12, retention_days=1)
    sandbox.clock.advance(hours=49)
    page = await wire.ok("listBackupLogsForPod", pod_id=pod_id)
    assert [row["status"] for row in page["items"]] == ["COMPLETED", "COMPLETED", "EXPIRED", "EXPIRED"]
    expired = page["items"][-1]["id"]
    body = {"backup_id": expired, "restore_path": "/root/back"}
    await wire.refused("restoreBackup", 400, pod_id=pod_id, json=body)


async def test_a_scheduled_backup_of_a_pod_that_is_down_is_skipped(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    config = await _configure(wire, pod_id, backup_frequency_hours=1, backup_path="")
    sandbox.add_fault("reboot_fails")
    await wire.ok("rebootPod", pod_id=pod_id, json={})
    sandbox.clock.advance(hours=1)
    [row] = (await wire.ok("listBackupLogsForPod", pod_id=pod_id))["items"]
    assert row["status"] == "SKIPPED"
    await wire.ok("updateBackupConfig", config_id=config["id"], json={"is_active": False})
    sandbox.clock.advance(hours=3)
    assert len((await wire.ok("listBackupLogsForPod", pod_id=pod_id))["items"]) == 1


async def test_pages_say_whether_there_is_more(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id, backup_frequency_hours=1)
    sandbox.clock.advance(hours=5, minutes=30)
    pages = [await wire.ok("listBackupLogs", query={"page": page, "limit": 2}) for page in (1, 2, 3)]
    assert [(len(page["items"]), page["has_next"]) for page in pages] == [(2, True), (2, True), (1, False)]
    created = [row["created_at"] for page in pages for row in page["items"]]
    assert created == sorted(created, reverse=True)


async def test_deleted_data_goes_in_the_background_and_the_row_stays(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id)
    run = await _backup(sandbox, wire, pod_id)
    await wire.ok("deleteBackupLog", backup_id=run)
    row = await wire.ok("getBackupLog", backup_id=run)
    assert (row["status"], row["deletion_state"]) == ("COMPLETED", "PENDING")
    await wire.refused("deleteBackupLog", 400, backup_id=run)
    sandbox.clock.advance(minutes=2)
    row = await wire.ok("getBackupLog", backup_id=run)
    assert (row["status"], row["deletion_state"]) == ("DELETED", "DELETED")


async def test_a_restore_passes_its_stages_and_needs_a_new_directory(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id)
    body = {"backup_id": await _backup(sandbox, wire, pod_id), "restore_path": "/root/back"}
    await wire.ok("restoreBackup", pod_id=pod_id, json=body)
    rows = []
    for _ in range(40):
        rows += (await wire.ok("listRestoreLogs", pod_id=pod_id))["items"]
        sandbox.clock.advance(seconds=4)
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["PREPARING", "RESTORING", "FINALIZING", None]
    assert rows[-1]["status"] == "COMPLETED"
    await wire.refused("restoreBackup", 400, pod_id=pod_id, json=body)
    await wire.refused("restoreBackup", 400, pod_id=pod_id, json=body | {"restore_path": "/elsewhere"})


async def test_a_backup_outlives_its_pod_and_is_restored_by_another_rent(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id)
    backup = await _backup(sandbox, wire, pod_id)
    await wire.ok("deletePod", pod_id=pod_id)
    sandbox.clock.advance(minutes=1)
    assert await wire.ok("listBackupConfigs") == []
    second = await wire.rent(backup_log_id=backup, restore_path="/root/back")
    [row] = (await wire.ok("listRestoreLogs", pod_id=second))["items"]
    assert (row["stage"], row["restore_mode"]) == ("WAITING_FOR_POD", "STARTUP")
    sandbox.clock.advance(minutes=5)
    [row] = (await wire.ok("listRestoreLogs", pod_id=second))["items"]
    assert row["status"] == "COMPLETED"


async def test_faults_and_removals_fail_what_is_going_on(sandbox: Sandbox, wire: Wire) -> None:
    pod_id = await wire.running(sandbox)
    await _configure(wire, pod_id)
    sandbox.add_fault("backup_fails", message="bucket is gone")
    failed = await wire.ok("getBackupLog", backup_id=await _backup(sandbox, wire, pod_id))
    assert (failed["status"], failed["error_message"]) == ("FAILED", "bucket is gone")
    good = await _backup(sandbox, wire, pod_id)
    sandbox.add_fault("restore_fails")
    await wire.ok("restoreBackup", pod_id=pod_id, json={"backup_id": good, "restore_path": "/root/a"})
    sandbox.clock.advance(minutes=4)
    await wire.ok("restoreBackup", pod_id=pod_id, json={"backup_id": good, "restore_path": "/root/b"})
    await wire.ok("deletePod", pod_id=pod_id)
    rows = (await wire.ok("listRestoreLogs", pod_id=pod_id))["items"]
    assert [row["status"] for row in rows] == ["FAILED", "FAILED"]
    assert rows[0]["error_message"] == "The pod was removed"
