"""How a backup is shown, and whose it is."""

from collections.abc import Sequence
from contextlib import suppress

from lium_mcp.api.backups import Backup
from lium_mcp.api.errors import LiumError
from lium_mcp.api.restores import Restore
from lium_mcp.figures import rounded
from lium_mcp.results import Result, UtcTime, note_on
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, standing
from lium_mcp.services.pod_details import Outcome

Owner = tuple[str, str | None]  # a pod's id, and its name while it lives


class BackupView(Result):
    """One backup; the pod is missing where Lium does not tell any more whose it is."""

    backup_id: str
    pod_id: str | None = None
    pod: str | None = None
    status: str | None = None
    partial: bool | None = None
    progress_percent: float | None = None
    created_at: UtcTime | None = None
    started_at: UtcTime | None = None
    completed_at: UtcTime | None = None
    size_gb: float | None = None
    files: int | None = None
    deleting: str | None = None
    problem: str | None = None
    message: str | None = None


class ObservedBackup(Result):
    """A backup after a wait: whether its data can be restored."""

    outcome: Outcome
    backup: BackupView
    note: str | None = None
    warnings: list[str] | None = None
    next: str | None = None


class EndedBackup(Result):
    """A backup that was cancelled, or whose data is deleted or being deleted."""

    backup_id: str
    status: str | None = None


async def find_owners(account: Account, backups: Sequence[Backup]) -> dict[str, Owner]:
    """Map the ids of schedules to their pods. A backup names only its schedule, and a removed pod has none any more."""
    owners: dict[str, Owner] = {}
    if any(backup.backup_config_id for backup in backups):
        with suppress(LiumError):  # the backups are worth showing without it
            schedules = await account.lium.backup_schedules.list()
            pods = await account.lium.pods.list()
            for schedule in schedules:
                # Older servers leave out pod_id, and name a node or a pod in pod_executor_id.
                link = schedule.pod_id or schedule.pod_executor_id
                mine = [pod for pod in pods if link in (pod.id, None if schedule.pod_id else pod.executor_id)]
                if len(mine) == 1:
                    owners[schedule.id] = mine[0].id, mine[0].pod_name
                elif schedule.pod_id:
                    owners[schedule.id] = schedule.pod_id, None
    return owners


def judge_backup(backup: Backup, owner: Owner | None, warnings: Sequence[str] = ()) -> ObservedBackup:
    """Say what the state of a backup means for whoever waits for it."""
    view = backup_view(backup, owner)
    note = note_on(view.problem, view.message)
    kept = [*warnings, *([PARTIAL] if backup.is_partial else [])] or None
    if backup.is_completed:
        return ObservedBackup(outcome="done", backup=view, note=note, warnings=kept)
    if backup.is_final:
        return ObservedBackup(
            outcome="failed",
            backup=view,
            note=note,
            warnings=kept,
            next="There is no data to restore. create_backup tries again."
            if backup.state != "SKIPPED"
            else "Nothing was backed up this time. create_backup backs up now.",
        )
    return ObservedBackup(
        outcome="pending",
        backup=view,
        note=note,
        warnings=kept,
        next=f"{standing(backup)} Call get_backup with this backup_id to look again.",
    )


def backup_view(backup: Backup, owner: Owner | None) -> BackupView:
    """Show a backup."""
    pod_id, name = owner or (None, None)
    return BackupView(
        backup_id=backup.id,
        pod_id=pod_id,
        pod=name or None,
        status=backup.state or None,
        partial=backup.is_partial or None,
        progress_percent=None if backup.is_final else backup.progress,
        created_at=backup.created_at,
        started_at=backup.started_at,
        completed_at=backup.completed_at,
        size_gb=rounded(backup.total_bytes / 1e9, 3) if backup.total_bytes and backup.has_data else None,
        files=backup.held_files if backup.total_bytes and backup.has_data else None,
        deleting=backup.deletion_state,
        problem=(backup.problem or "")[:300] or None,
        message=(backup.remark or "")[:300] or None,
    )


def age_key(run: Backup | Restore) -> str:
    """Sort key: when a run began, as far as Lium says it."""
    return run.began_at.isoformat() if run.began_at else ""
