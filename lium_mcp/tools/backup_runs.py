"""Backing up a pod and waiting for it: shared by `create_backup` and by the removal that takes a last backup first."""

from dataclasses import dataclass
from posixpath import normpath
from typing import Final

from lium_mcp.api import Backup, BackupSchedule, Conflict, LiumError, Pod
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure

DEFAULT_EVERY_HOURS: Final = 6
DEFAULT_KEEP_DAYS: Final = 7

_NEVER_BACKED_UP: Final = ("/mnt", "/tmp")  # noqa: S108 - paths inside a pod


@dataclass(frozen=True, slots=True)
class StartedBackup:
    """A backup under way.

    Attributes:
        joined: It ran already when it was asked for, so it may miss what was written since it began.
    """

    backup_id: str
    schedule: BackupSchedule | None
    schedule_created: bool
    joined: bool


def check_path(pod: Pod, path: str, parameter: str) -> str:
    """Hold a path against the rules of backups: absolute, inside the pod's local volume, no way out of it.

    Raises:
        ToolFailure: it breaks a rule.
    """
    root = pod.volume_root.rstrip("/") or "/"
    inside = path == root or path.startswith(f"{root}/" if root != "/" else "/")
    if not path.startswith("/"):
        problem = f"{parameter} is not an absolute path"
    elif ".." in path.split("/"):
        problem = f"{parameter} must not contain .."
    elif any(path == refused or path.startswith(f"{refused}/") for refused in _NEVER_BACKED_UP):
        problem = f"{parameter} is under {path.split('/')[1]}, which backups leave out"
    elif not inside:
        problem = f"{parameter} is outside the pod's local volume {root}"
    else:
        return normpath(path)
    raise ToolFailure("invalid_argument", f"{problem}.", f"Choose a path under {root}.")


async def ensure_schedule(call: Call, pod: Pod) -> tuple[BackupSchedule, bool]:
    """The pod's schedule, made with the usual values if there is none, since Lium backs up nothing without one."""
    schedule = await call.lium.backup_schedules.get_for_pod(pod.id)
    if schedule is not None:
        return schedule, False
    created = await call.lium.backup_schedules.create(
        pod.id,
        backup_path=pod.volume_root,
        backup_frequency_hours=DEFAULT_EVERY_HOURS,
        retention_days=DEFAULT_KEEP_DAYS,
    )
    return created, True


async def start_backup(call: Call, pod: Pod, *, name: str) -> StartedBackup:
    """Start a backup of a pod, or join the one that runs.

    Raises:
        ToolFailure: Lium accepted the backup and it cannot be found.
        LiumError: Lium refused.
    """
    schedule, created = await ensure_schedule(call, pod)
    before = {backup.id for backup in await call.lium.backups.list(pod_id=pod.id)}
    try:
        started = await call.lium.backups.start(pod.id, name=name)
    except Conflict as error:
        running = error.active_operation_id
        if running is None or not await _is_backup(call, running):
            raise
        return StartedBackup(running, schedule, created, joined=True)
    if started.backup_log_id:
        return StartedBackup(started.backup_log_id, schedule, created, joined=False)
    new = [backup for backup in await call.lium.backups.list(pod_id=pod.id) if backup.id not in before]
    if len(new) == 1:
        return StartedBackup(new[0].id, schedule, created, joined=False)
    raise ToolFailure(
        "outcome_unknown",
        f"Lium accepted a backup of {pod.pod_name} and did not name it.",
        "Call list_backups with this pod to find it.",
        effect="The backup may be running.",
    )


async def wait_for_backup(call: Call, backup: Backup, *, wait_seconds: float) -> Backup:
    """Wait until a backup is over, or the time is."""
    return await call.wait_until(
        backup,
        lambda: call.lium.backups.get(backup.id),
        lambda state: state.is_final,
        wait_seconds=wait_seconds,
        describe=lambda state: f"Backup is {state.state}" + (f", {state.progress:.0f} %" if state.progress else ""),
    )


async def _is_backup(call: Call, operation_id: str) -> bool:
    try:
        await call.lium.backups.get(operation_id)
    except LiumError:
        return False
    return True
