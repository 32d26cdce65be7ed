"""Backups and restores: work that moves a pod's data for minutes, one at a time per pod.

Where pods answer SSH, they have files, which are copied and counted. Elsewhere they have none, and the amount of data
is made up. How far a run has come is always made up.
"""

import posixpath
from datetime import timedelta
from typing import Final

from lium_mcp.sandbox.records import StoredBackupConfig, StoredPod, StoredTransfer
from lium_mcp.sandbox.refusals import detailed, missing
from lium_mcp.sandbox.seeded import fraction
from lium_mcp.sandbox.world import World

BACKUP_SECONDS: Final = (60, 180)
RESTORE_SECONDS: Final = (45, 150)
DELETION_SECONDS: Final = 120
START_SECONDS: Final = 3


def check_path(pod_volume: str, path: str, *, what: str, may_be_empty: bool) -> None:
    """Refuse a path that is not an absolute one inside the pod's local volume."""
    if not path and may_be_empty:
        return
    parts = path.split("/")
    root = pod_volume.rstrip("/")
    inside = posixpath.normpath(path) == root or path.startswith(f"{root}/")
    reserved = any(path == mount or path.startswith(f"{mount}/") for mount in ("/mnt", "/tmp"))  # noqa: S108 - names a rule
    if not path.startswith("/") or ".." in parts or not inside or reserved:
        raise detailed(400, f"{what} must be an absolute path inside the pod's local volume {pod_volume}")


def active_for(world: World, pod_id: str) -> StoredTransfer | None:
    """Return the backup or restore of the pod that is still going."""
    return next((run for run in world.transfers.values() if run.pod_id == pod_id and run.is_active), None)


def require_idle(world: World, pod_id: str) -> None:
    """Refuse while another backup or restore of the pod is going."""
    if (active := active_for(world, pod_id)) is not None:
        detail = {"message": f"A {active.kind} is already running", "active_operation_id": active.id}
        raise detailed(409, dict(detail))


def stored_size(world: World, pod: StoredPod, path: str) -> tuple[int, int]:
    """Return the bytes and files under a backup's path; where they are made up, they grow as the pod runs."""
    if world.contents is not None:
        return world.contents.measure(pod, path)
    hours = 0.0 if pod.started_at is None else (world.now - pod.started_at) / timedelta(hours=1)
    size = int((60 + 40 * fraction(pod.id, "size") + 512 * hours) * 2**20)
    return size, 80 + int(size / 2**20)


def begin_backup(
    world: World, pod: StoredPod, config: StoredBackupConfig, *, name: str | None = None
) -> StoredTransfer:
    """Start a backup of a running pod."""
    size, files = stored_size(world, pod, config.path)
    run = StoredTransfer(
        id=world.new_id("backup"),
        account_id=pod.account_id,
        pod_id=pod.id,
        kind="backup",
        created_at=world.now,
        total_bytes=size,
        total_files=files,
        config_id=config.id,
        name=name,
        retention_days=config.retention_days,
        path=config.path,
    )
    world.transfers[run.id] = run
    world.after(START_SECONDS, lambda: _start(world, run, BACKUP_SECONDS))
    return run


def prepare_restore(
    world: World, pod: StoredPod, backup: StoredTransfer, path: str, *, at_startup: bool = False
) -> StoredTransfer:
    """Write down a restore, to be begun later: one that is ordered with the rent waits for the pod."""
    run = StoredTransfer(
        id=world.new_id("restore"),
        account_id=pod.account_id,
        pod_id=pod.id,
        kind="restore",
        created_at=world.now,
        total_bytes=backup.total_bytes,
        total_files=backup.total_files,
        backup_id=backup.id,
        path=path,
        at_startup=at_startup,
    )
    world.transfers[run.id] = run
    pod.restored_paths.add(path.rstrip("/"))
    return run


def begin_restore(world: World, run: StoredTransfer) -> None:
    """Start a restore that was written down."""
    world.after(START_SECONDS, lambda: _start(world, run, RESTORE_SECONDS))


def cancel(world: World, run: StoredTransfer) -> None:
    """Stop a run that is going."""
    run.status, run.completed_at = "CANCELLED", world.now


def abort_for(world: World, pod: StoredPod, error: str) -> None:
    """Fail the backup or restore that runs on a pod that ends."""
    run = active_for(world, pod.id)
    if run is not None:
        _fail(world, run, error)


def restorable(world: World, account_id: str, backup_id: str) -> StoredTransfer:
    """Return a finished backup of the account, of whichever pod."""
    run = world.transfers.get(backup_id)
    if run is None or run.kind != "backup" or run.account_id != account_id:
        raise missing("Backup")
    if run.status != "COMPLETED" or run.deletion_state is not None:
        raise detailed(400, "Only a completed backup can be restored")
    return run


def begin_deletion(world: World, run: StoredTransfer) -> None:
    """Delete the stored data of a finished backup, in the background."""
    run.deletion_state = "PENDING"
    run.cleanup_at = world.after(DELETION_SECONDS, lambda: _finish_deletion(run, "DELETED"))


def schedule_next(world: World, config: StoredBackupConfig) -> None:
    """Schedule the configuration's next backup."""
    config.next_at = world.now + timedelta(hours=config.frequency_hours)
    due = config.next_at

    def run_due() -> None:
        if world.configs.get(config.id) is not config or config.next_at != due:
            return
        pod = world.pods[config.pod_id]
        if config.is_active:
            if pod.status == "RUNNING" and active_for(world, pod.id) is None:
                begin_backup(world, pod, config)
            else:
                _skip(world, pod, config)
        schedule_next(world, config)

    world.at(due, run_due)


def _skip(world: World, pod: StoredPod, config: StoredBackupConfig) -> None:
    run = begin_backup(world, pod, config)
    run.status, run.completed_at = "SKIPPED", world.now
    run.remark = "The pod was not running or busy with another operation"


def _start(world: World, run: StoredTransfer, seconds: tuple[int, int]) -> None:
    if not run.is_active:
        return
    run.status, run.started_at = "IN_PROGRESS", world.now
    run.due_at = world.after(world.pick(*seconds, run.id), lambda: _finish(world, run))


def _finish(world: World, run: StoredTransfer) -> None:
    if not run.is_active:
        return
    kind = run.kind
    if fault := world.faults.strike("backup_fails" if kind == "backup" else "restore_fails", pod_id=run.pod_id):
        _fail(world, run, fault.message or f"The {kind} failed: connection to storage lost")
        return
    if world.contents is not None:
        pod = world.pods[run.pod_id]
        if kind == "backup":
            run.total_bytes, run.total_files = world.contents.save(pod, run)
        elif (problem := world.contents.restore(pod, run)) is not None:
            _fail(world, run, problem)
            return
    run.status, run.completed_at = "COMPLETED", world.now
    if kind == "backup" and (fault := world.faults.strike("backup_partial", pod_id=run.pod_id)):
        run.quality, run.error = "PARTIAL", fault.message or "2 files could not be read"
    if kind == "backup":
        world.after(run.retention_days * 86400, lambda: _expire(world, run))


def _fail(world: World, run: StoredTransfer, error: str) -> None:
    run.status, run.completed_at, run.error = "FAILED", world.now, error


def _expire(world: World, run: StoredTransfer) -> None:
    if run.status == "COMPLETED" and run.deletion_state is None:
        run.cleanup_at = world.now
        _finish_deletion(run, "EXPIRED")


def _finish_deletion(run: StoredTransfer, status: str) -> None:
    run.status, run.deletion_state = status, "DELETED"
