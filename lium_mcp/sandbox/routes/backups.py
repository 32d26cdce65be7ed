"""The routes of backups and restores."""

from datetime import datetime

from pydantic import JsonValue

from lium_mcp.sandbox import data_transfers
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import (
    BackupConfigBody,
    BackupConfigChange,
    BackupNowBody,
    PageQuery,
    RestoreBody,
)
from lium_mcp.sandbox.records import StoredBackupConfig, StoredPod, StoredTransfer
from lium_mcp.sandbox.refusals import detailed, missing
from lium_mcp.sandbox.simulated_clock import iso_naive


def create_config(call: ApiCall) -> Reply:
    """Give a pod its backup schedule."""
    world, body = call.world, call.parse(BackupConfigBody)
    pod = world.pods.get(str(body.pod_id))
    if pod is None or not call.sees(pod) or not pod.is_open:
        raise missing("Pod")
    call.require_write(pod)
    if any(config.pod_id == pod.id for config in world.configs.values()):
        raise detailed(400, "Backup configuration already exists")
    _check_backup_path(call, pod, body.backup_path)
    config = StoredBackupConfig(
        id=world.new_id("backup-config"),
        account_id=pod.account_id,
        pod_id=pod.id,
        frequency_hours=body.backup_frequency_hours,
        retention_days=body.retention_days,
        path=body.backup_path,
        created_at=world.now,
        next_at=world.now,
    )
    world.configs[config.id] = config
    data_transfers.schedule_next(world, config)
    return Reply(_config_row(call, config))


def list_configs(call: ApiCall) -> Reply:
    """List all schedules the caller sees."""
    configs = call.world.configs.values()
    return Reply([_config_row(call, config) for config in configs if call.sees(call.world.pods[config.pod_id])])


def get_config_for_pod(call: ApiCall) -> Reply:
    """Read the schedule of one pod."""
    pod = call.pod()
    for config in call.world.configs.values():
        if config.pod_id == pod.id:
            return Reply(_config_row(call, config))
    raise missing("Backup configuration")


def update_config(call: ApiCall) -> Reply:
    """Change a schedule; a refused change leaves it as it was."""
    config, body = _config(call), call.parse(BackupConfigChange)
    if body.backup_path is not None:
        _check_backup_path(call, call.world.pods[config.pod_id], body.backup_path)
        config.path = body.backup_path
    config.retention_days = body.retention_days or config.retention_days
    config.is_active = config.is_active if body.is_active is None else body.is_active
    config.updated_at = call.world.now
    if body.backup_frequency_hours is not None:
        config.frequency_hours = body.backup_frequency_hours
        data_transfers.schedule_next(call.world, config)
    return Reply(_config_row(call, config))


def delete_config(call: ApiCall) -> Reply:
    """End the scheduled backups; what is stored stays until its retention ends."""
    del call.world.configs[_config(call).id]
    return Reply({"success": True})


def backup_now(call: ApiCall) -> Reply:
    """Start a backup by hand; it needs the pod's configuration."""
    pod, body = call.pod(write=True), call.parse(BackupNowBody)
    config = next((config for config in call.world.configs.values() if config.pod_id == pod.id), None)
    if config is None:
        raise detailed(400, "The pod has no backup configuration")
    _require_running(pod)
    data_transfers.require_idle(call.world, pod.id)
    run = data_transfers.begin_backup(call.world, pod, config, name=body.name)
    return Reply({"success": True, "backup_log_id": run.id})


def restore(call: ApiCall) -> Reply:
    """Restore a backup, of whichever pod of the account, into a running pod."""
    pod, body = call.pod(write=True), call.parse(RestoreBody)
    world = call.world
    backup = data_transfers.restorable(world, call.me.id, str(body.backup_id))
    _require_running(pod)
    template = world.templates.get(pod.template_id)
    volume = template.local_volume if template is not None else "/root"
    data_transfers.check_path(volume, body.restore_path, what="restore_path", may_be_empty=False)
    if body.restore_path.rstrip("/") in pod.restored_paths:
        raise detailed(400, "restore_path must be a new or empty directory")
    data_transfers.require_idle(world, pod.id)
    run = data_transfers.prepare_restore(world, pod, backup, body.restore_path)
    data_transfers.begin_restore(world, run)
    return Reply({"restore_log_id": run.id})


def list_backups(call: ApiCall) -> Reply:
    """List the backups of the account, newest first."""
    return _page(call, _runs(call, "backup"))


def list_backups_for_pod(call: ApiCall) -> Reply:
    """List the backups of one pod, newest first; also when it is gone."""
    pod = call.pod(gone_too=True)
    runs = [run for run in _runs(call, "backup") if run.pod_id == pod.id]
    if not runs:
        raise missing("Backup logs")
    return _page(call, runs)


def get_backup(call: ApiCall) -> Reply:
    """Read one backup."""
    return Reply(_backup_row(_run(call, "backup_id", "backup", "Backup log"), call.world.now))


def delete_backup(call: ApiCall) -> Reply:
    """Delete the stored data of a finished backup, in the background."""
    run = _run(call, "backup_id", "backup", "Backup log")
    if run.is_active:
        message = "The backup is still running"
        raise detailed(409, {"message": message, "active_operation_id": run.id})
    restoring = next((r for r in call.world.transfers.values() if r.backup_id == run.id and r.is_active), None)
    if restoring is not None:
        raise detailed(409, {"message": "A restore reads this backup", "active_operation_id": restoring.id})
    if run.status != "COMPLETED" or run.deletion_state is not None:
        raise detailed(400, "Only a completed backup can be deleted")
    data_transfers.begin_deletion(call.world, run)
    return Reply({"success": True})


def cancel_backup(call: ApiCall) -> Reply:
    """Cancel a backup that is going."""
    return _cancel(call, _run(call, "backup_id", "backup", "Backup log"))


def cancel_restore(call: ApiCall) -> Reply:
    """Cancel a restore that is going; what was written stays."""
    return _cancel(call, _run(call, "restore_id", "restore", "Restore log"))


def list_restores(call: ApiCall) -> Reply:
    """List the restores into a pod, newest first."""
    pod = call.pod(gone_too=True)
    return _page(call, [run for run in _runs(call, "restore") if run.pod_id == pod.id])


def _cancel(call: ApiCall, run: StoredTransfer) -> Reply:
    call.require_write(call.world.pods[run.pod_id])
    if not run.is_active:
        raise detailed(400, f"The {run.kind} is {run.status} and cannot be cancelled")
    data_transfers.cancel(call.world, run)
    return Reply({"success": True})


def _config(call: ApiCall) -> StoredBackupConfig:
    config = call.world.configs.get(call.uuid("config_id"))
    if config is None or not call.sees(call.world.pods[config.pod_id]):
        raise missing("Backup configuration")
    call.require_write(call.world.pods[config.pod_id])
    return config


def _run(call: ApiCall, parameter: str, kind: str, what: str) -> StoredTransfer:
    run = call.world.transfers.get(call.uuid(parameter))
    if run is None or run.kind != kind or not call.sees(call.world.pods[run.pod_id]):
        raise missing(what)
    return run


def _runs(call: ApiCall, kind: str) -> list[StoredTransfer]:
    seen = [run for run in call.world.transfers.values() if run.kind == kind and call.sees(call.world.pods[run.pod_id])]
    return seen[::-1]


def _page(call: ApiCall, runs: list[StoredTransfer]) -> Reply:
    query = call.arguments(PageQuery)
    now, start = call.world.now, (query.page - 1) * query.limit
    rows: list[JsonValue] = [
        _backup_row(run, now) if run.kind == "backup" else _restore_row(run, now)
        for run in runs[start : start + query.limit]
    ]
    if call.world.faults.is_armed("old_server"):
        return Reply(rows)
    return Reply({"items": rows, "has_next": len(runs) > start + query.limit, "total": len(runs)})


def _require_running(pod: StoredPod) -> None:
    if pod.status != "RUNNING":
        raise detailed(400, f"The pod is {pod.status}")


def _check_backup_path(call: ApiCall, pod: StoredPod, path: str) -> None:
    template = call.world.templates.get(pod.template_id)
    volume = template.local_volume if template is not None else "/root"
    data_transfers.check_path(volume, path, what="backup_path", may_be_empty=True)


def _when(moment: datetime | None) -> str | None:
    return None if moment is None else iso_naive(moment)


def _config_row(call: ApiCall, config: StoredBackupConfig) -> dict[str, JsonValue]:
    is_old = call.world.faults.is_armed("old_server")
    return {
        "id": config.id,
        "pod_executor_id": call.world.pods[config.pod_id].node_id if is_old else config.pod_id,
        **({} if is_old else {"pod_id": config.pod_id}),
        "backup_frequency_hours": config.frequency_hours,
        "retention_days": config.retention_days,
        "backup_path": config.path,
        "is_active": config.is_active,
        "created_at": iso_naive(config.created_at),
        "updated_at": _when(config.updated_at),
        "next_backup_at": iso_naive(config.next_at),
    }


def _progress_part(run: StoredTransfer, now: datetime) -> dict[str, JsonValue]:
    share = run.progress(now) / 100
    elapsed = 0.0 if run.started_at is None else ((run.completed_at or now) - run.started_at).total_seconds()
    done = int(run.total_bytes * share)
    left = (run.due_at - now).total_seconds() if run.due_at is not None and run.is_active else None
    return {
        "progress": run.progress(now),
        "started_at": _when(run.started_at),
        "completed_at": _when(run.completed_at),
        "created_at": iso_naive(run.created_at),
        "error_message": run.error,
        "total_files": run.total_files,
        "processed_files": int(run.total_files * share),
        "total_bytes": run.total_bytes,
        "processed_bytes": done,
        "elapsed_seconds": int(elapsed),
        "throughput_bytes_per_second": int(done / elapsed) if elapsed else None,
        "estimated_remaining_seconds": None if left is None else max(0, int(left)),
    }


def _backup_row(run: StoredTransfer, now: datetime) -> dict[str, JsonValue]:
    return {
        "id": run.id,
        "backup_config_id": run.config_id,
        "status": run.status,
        "stage": "UPLOADING" if run.status == "IN_PROGRESS" else None,
        "status_message": run.remark,
        "backup_volume_id": None,
        "deletion_state": run.deletion_state,
        "physical_cleanup_at": _when(run.cleanup_at),
        **({} if run.quality is None else {"result_quality": run.quality}),
        **_progress_part(run, now),
    }


def _restore_row(run: StoredTransfer, now: datetime) -> dict[str, JsonValue]:
    return {
        "id": run.id,
        "backup_id": run.backup_id,
        "pod_id": run.pod_id,
        "status": run.status,
        "stage": _stage(run, now),
        "restore_path": run.path,
        "last_heartbeat_at": _when(now if run.status == "IN_PROGRESS" else run.completed_at),
        "logs": [],
        "backup_engine": None,
        "restore_mode": "STARTUP" if run.at_startup else None,
        **_progress_part(run, now),
    }


def _stage(run: StoredTransfer, now: datetime) -> str | None:
    if not run.is_active:
        return None
    if run.started_at is None:
        return "WAITING_FOR_POD" if run.at_startup else "PREPARING"
    done = run.progress(now)
    return "PREPARING" if done < 10 else "RESTORING" if done < 90 else "FINALIZING"  # noqa: PLR2004 - percent


OPERATIONS = (
    Operation("backupPodNow", "POST", "/pods/{pod_id}/backup", Access.POD, backup_now, audit="backup.create"),
    Operation("restoreBackup", "POST", "/pods/{pod_id}/restore", Access.POD, restore, audit="restore.create"),
    Operation("listRestoreLogs", "GET", "/pods/{pod_id}/restore-logs", Access.READ, list_restores),
    Operation(
        "cancelRestore", "POST", "/restore-logs/{restore_id}/cancel", Access.POD, cancel_restore, audit="restore.cancel"
    ),
    Operation("createBackupConfig", "POST", "/backup-configs", Access.POD, create_config, audit="backup_config.create"),
    Operation("listBackupConfigs", "GET", "/backup-configs", Access.READ, list_configs),
    Operation("getBackupConfigForPod", "GET", "/backup-configs/pod/{pod_id}", Access.READ, get_config_for_pod),
    Operation(
        "updateBackupConfig",
        "PUT",
        "/backup-configs/{config_id}",
        Access.POD,
        update_config,
        audit="backup_config.update",
    ),
    Operation(
        "deleteBackupConfig",
        "DELETE",
        "/backup-configs/{config_id}",
        Access.POD,
        delete_config,
        audit="backup_config.delete",
    ),
    Operation("listBackupLogs", "GET", "/backup-logs/", Access.READ, list_backups),
    Operation("listBackupLogsForPod", "GET", "/backup-logs/pod/{pod_id}", Access.READ, list_backups_for_pod),
    Operation("getBackupLog", "GET", "/backup-logs/{backup_id}", Access.READ, get_backup),
    Operation(
        "deleteBackupLog", "DELETE", "/backup-logs/{backup_id}", Access.MANAGE, delete_backup, audit="backup.delete"
    ),
    Operation(
        "cancelBackup", "POST", "/backup-logs/{backup_id}/cancel", Access.POD, cancel_backup, audit="backup.cancel"
    ),
)
