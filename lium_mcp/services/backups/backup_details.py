"""How a backup is shown, and whose it is."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.backups import Backup, BackupSchedule
from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.restores import Restore
from lium_mcp.figures import counted, rounded_gb
from lium_mcp.results import Result, Timed, UtcTime, note_on
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, StartedBackup, held_path, standing
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.text import quotation

_SHOWN_CHARACTERS: Final = 300
_MOST_KEEP_DAYS: Final = 36_500
_FAILED: Final = (
    "There is no data to restore. create_backup tries again: do that once. If it fails again too, no third will help: "
    "copy the data with download_files, or inside the pod to a volume at /mnt."
)
_NEXT_OF_OTHERS: Final = {
    "SKIPPED": "Nothing was backed up this time. create_backup backs up now.",
    "CANCELLED": "There is no data to restore. create_backup begins anew.",
    "EXPIRED": "Its time was over: there is no data to restore. create_backup makes a new one.",
    "DELETED": "There is no data to restore any more. create_backup makes a new one.",
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a backup is from, as far as Lium still tells.

    Attributes:
        pod_id: The pod.
        pod: Its name while it lives.
        schedule: The pod's schedule as it is now.
        path: What backups by that schedule hold now.
    """

    pod_id: str
    pod: str | None = None
    schedule: BackupSchedule | None = None
    path: str | None = None

    @classmethod
    def of(cls, pod: Pod, schedule: BackupSchedule | None) -> "Origin":
        """A pod that lives, with its schedule if it has one."""
        return cls(pod.id, pod.pod_name, schedule, held_path(pod, schedule) if schedule else None)

    def schedule_of(self, backup: Backup) -> BackupSchedule | None:
        """The schedule, where the backup was made by it and not by an earlier one of the same pod."""
        made_by, schedule = (backup.backup_config_id or "").casefold(), self.schedule
        return schedule if schedule and schedule.id.casefold() == made_by else None

    def path_of(self, backup: Backup) -> str | None:
        """What the backup holds; None where the schedule may have been another when it was made."""
        schedule, began_at = self.schedule_of(backup), backup.began_at
        is_as_then = schedule and began_at and schedule.was_changed_since(began_at) is False
        return self.path if is_as_then else None


class BackupView(Result):
    """One backup; the pod is missing where Lium does not tell any more whose it is."""

    backup_id: str
    pod_id: str | None = None
    pod: str | None = None
    status: str | None = None
    partial: bool | None = None
    progress_percent: float | None = None
    path: str | None = None
    size_gb: float | None = None
    files: int | None = None
    created_at: UtcTime | None = None
    started_at: UtcTime | None = None
    completed_at: UtcTime | None = None
    kept_until: UtcTime | None = None
    deleting: str | None = None
    problem: str | None = None
    message: str | None = None


class ObservedBackup(Timed):
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


async def find_origins(account: Account, backups: Sequence[Backup]) -> dict[str, Origin]:
    """Map the ids of schedules to where they are. A backup names only its schedule, and a removed pod has none."""
    origins: dict[str, Origin] = {}
    if any(backup.backup_config_id for backup in backups):
        with suppress(LiumError):  # the backups are worth showing without it
            schedules = await account.lium.backup_schedules.list()
            pods = await account.lium.pods.list()
            for schedule in schedules:
                # Older servers leave out pod_id, and name a node or a pod in pod_executor_id.
                link = schedule.pod_id or schedule.pod_executor_id
                mine = [pod for pod in pods if link in (pod.id, None if schedule.pod_id else pod.executor_id)]
                if len(mine) == 1:
                    origins[schedule.id] = Origin.of(mine[0], schedule)
                elif schedule.pod_id:
                    origins[schedule.id] = Origin(schedule.pod_id, schedule=schedule, path=schedule.backup_path or None)
    return origins


def origin_at_removal(final_backups: Mapping[str, StartedBackup], backup: Backup) -> Origin | None:
    """Where a last backup before a removal is from, which Lium does not tell once the pod and its schedule are gone."""
    for pod_id, started in final_backups.items():
        if started.backup_id == backup.id:
            return Origin(pod_id, schedule=started.schedule, path=started.schedule.backup_path or None)
    return None


def judge_backup(
    backup: Backup, origin: Origin | None, warnings: Sequence[str] = (), *, path: str | None = None
) -> ObservedBackup:
    """Say what the state of a backup means for whoever waits for it.

    Args:
        backup: The backup.
        origin: Where it is from.
        warnings: What else is to be said.
        path: What it holds, if that is known.
    """
    view = backup_view(backup, origin)
    view = view.model_copy(update={"path": path}) if path else view
    note = note_on(view.problem, view.message)
    kept = [*warnings, *([PARTIAL] if backup.is_partial else []), *_on_content(backup, origin, view.path)] or None
    if backup.is_completed:
        return ObservedBackup(outcome="done", backup=view, note=note, warnings=kept)
    if backup.is_final:
        advice = f"{_NEXT_OF_OTHERS.get(backup.state, _FAILED)}{_on_schedule(origin)}"
        return ObservedBackup(outcome="failed", backup=view, note=note, warnings=kept, next=advice)
    return ObservedBackup(
        outcome="pending",
        backup=view,
        note=note,
        warnings=kept,
        next=f"{standing(backup)} Call get_backup with this backup_id to look again.",
    )


def backup_view(backup: Backup, origin: Origin | None) -> BackupView:
    """Show a backup; without an origin, whose it is only where its own row says it."""
    has_figures = backup.has_data and backup.says_content
    return BackupView(
        backup_id=backup.id,
        pod_id=origin.pod_id if origin else backup.pod_id,
        pod=(origin.pod or None) if origin else backup.pod_name,
        status=backup.state or None,
        partial=backup.is_partial or None,
        progress_percent=None if backup.is_final else backup.progress,
        path=(backup.backup_path or (origin.path_of(backup) if origin else None)) if backup.has_data else None,
        size_gb=rounded_gb(backup.total_bytes / 1e9) if backup.total_bytes and backup.has_data else None,
        files=backup.held_files if has_figures else None,
        created_at=None if backup.started_at else backup.created_at,
        started_at=backup.started_at,
        completed_at=backup.completed_at,
        kept_until=_kept_until(backup, origin),
        deleting=backup.deletion_state,
        problem=(backup.problem or "")[:_SHOWN_CHARACTERS] or None,
        message=(backup.remark or "")[:_SHOWN_CHARACTERS] or None,
    )


def _kept_until(backup: Backup, origin: Origin | None) -> datetime | None:
    schedule = origin.schedule_of(backup) if origin else None
    days, end = schedule.retention_days if schedule else None, backup.completed_at
    if not (days and end and backup.is_completed and not backup.is_deleted) or days > _MOST_KEEP_DAYS:
        return None
    try:
        return end + timedelta(days=days)
    except OverflowError:  # of a year that is no year of anybody's
        return None


def _on_content(backup: Backup, origin: Origin | None, path: str | None) -> list[str]:
    """Say of a completed backup that it may hold nothing, such as one of a folder that is not there."""
    if not backup.is_completed or backup.says_content:
        return []
    what = "It holds no file" if backup.is_empty else "Lium does not say what it holds"
    look = f"{what}: look in the pod whether {quotation(path, _SHOWN_CHARACTERS)} has files." if path else f"{what}."
    stays = _on_schedule(origin)
    return [f"{look}{stays} set_backup_schedule changes its path." if stays else look]


def _on_schedule(origin: Origin | None) -> str:
    schedule = origin.schedule if origin else None
    if schedule is None or schedule.is_active is False:
        return ""
    how_often = f" every {counted(schedule.backup_frequency_hours, 'hour')}" if schedule.backup_frequency_hours else ""
    return f" The pod's schedule stays, and goes on backing up{how_often}: delete_backup_schedule ends that."


def age_key(run: Backup | Restore) -> str:
    """Sort key: when a run began, as far as Lium says it."""
    return run.began_at.isoformat() if run.began_at else ""
