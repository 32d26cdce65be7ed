"""Backups of a pod: what a schedule covers, how one is started and waited for, and which can be relied on."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from posixpath import normpath
from typing import Any, Final

from lium_mcp.api.backups import Backup, BackupSchedule
from lium_mcp.api.errors import BadRequest, Conflict, LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.guard.consent import Question
from lium_mcp.remote.ssh_addresses import until_it_runs
from lium_mcp.results import state_in_words
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import after_change
from lium_mcp.services.polling import Poller
from lium_mcp.services.unasked import refuse_unasked

DEFAULT_EVERY_HOURS: Final = 6
DEFAULT_KEEP_DAYS: Final = 7
PARTIAL: Final = "It is partial: files that could not be read are not in it."
SCHEDULE_STAYS: Final = "It stays, and backs up and bills on, until delete_backup_schedule."
RESTORED_PARTLY: Final = "A restore is partial: files are missing of what it was to write."

_SHOWN_CHARACTERS: Final = 200
# Where root, as whom everybody logs in to a pod, is at home.
LOGIN_FOLDER: Final = "/root"
_LOOK_FOR_IT: Final = "Call list_backups with this pod to find it."
_MAY_RUN: Final = "The backup may be running."
_NEVER_BACKED_UP: Final = ("/mnt", "/tmp")  # noqa: S108 - paths inside a pod


@dataclass(frozen=True, slots=True)
class StartedBackup:
    """A backup under way.

    Attributes:
        joined: Whether it ran already when it was asked for: then it may miss what was written since it began.
        asked_at: When it was asked for, by Lium's clock.
        wider: What it holds beside the path that was asked for, in a sentence; None where nothing.
        change: The id of the last change in the pod by a server before it was asked for, see `PodWork`; None where
            nobody could tell.
    """

    backup_id: str
    schedule: BackupSchedule
    schedule_created: bool
    joined: bool
    asked_at: datetime
    wider: str | None = None
    change: int | None = None

    def as_written(self) -> dict[str, object]:
        """What the ledger keeps of it; `read_written` reads it again."""
        return asdict(self) | {
            "schedule": self.schedule.model_dump(mode="json", by_alias=True),
            "asked_at": self.asked_at.isoformat(),
        }

    def why_another(self, backup: Backup) -> str | None:
        """Why what Lium shows under its id is another backup; None where nothing says that it is."""
        if backup.backup_config_id and backup.backup_config_id.casefold() != self.schedule.id.casefold():
            return "it belongs to another schedule than this pod's"
        if not self.joined and backup.began_since(self.asked_at) is False:
            return f"it began at {backup.began_at:%Y-%m-%d %H:%M} UTC, before it was asked for"
        return None


def read_written(written: Mapping[str, Any]) -> StartedBackup:
    """A backup under way, as the ledger has it.

    Raises:
        ValueError, TypeError, KeyError: another version has written it.
    """
    schedule, asked_at = written["schedule"], written["asked_at"]
    known = {"schedule": BackupSchedule.model_validate(schedule), "asked_at": datetime.fromisoformat(asked_at)}
    return StartedBackup(**{**written, **known})


def check_path(pod: Pod, path: str, parameter: str) -> str:
    """Hold a path against the rules of backups: absolute, inside the pod's local volume, no way out of it.

    Raises:
        Failure: it breaks a rule.
    """
    return check_path_in(volume_root(pod), path, parameter)


def check_path_in(root: str, path: str, parameter: str) -> str:
    """The same, where a pod will have its local volume at `root`.

    Raises:
        Failure: it breaks a rule.
    """
    plain = plain_path(path)
    if not path.startswith("/"):
        problem = f"{parameter} is not an absolute path"
    elif ".." in path.split("/"):
        problem = f'{parameter} has a ".." in it'
    elif any(is_inside(plain, refused) for refused in _NEVER_BACKED_UP):
        problem = f"{parameter} is under /{plain.split('/')[1]}, which backups leave out"
    elif not is_inside(plain, root):
        problem = f"{parameter} is outside the pod's local volume {root}"
    else:
        return plain
    raise Failure("invalid_argument", f"{problem}.", f"Choose a path under {root}.")


def volume_root(pod: Pod) -> str:
    """Where the pod's local volume is mounted, in the plain form that `check_path` returns."""
    return plain_path(pod.volume_root)


def plain_path(path: str) -> str:
    """An absolute path in the form that `check_path` returns."""
    # normpath() alone would keep two slashes at the front.
    return "/" + normpath(path).lstrip("/") if path.startswith("/") else path


def is_inside(path: str, directory: str) -> bool:
    """Whether a plain path is a directory or below it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")


def held_path(pod: Pod, schedule: BackupSchedule) -> str | None:
    """What backups by this schedule hold: an empty path means all of the local volume; None where Lium says none."""
    return volume_root(pod) if schedule.backup_path == "" else schedule.backup_path


def covers_all(pod: Pod, schedule: BackupSchedule) -> bool:
    """Whether backups by this schedule hold all of the pod's local volume."""
    path = held_path(pod, schedule)
    return path is not None and is_inside(volume_root(pod), plain_path(path))


def losses(pod: Pod, schedule: BackupSchedule, *, keep_days: int | None, path: str | None) -> list[str]:
    """Say what a change of a schedule takes away: a path that backups held, or days that they were kept."""
    lost: list[str] = []
    held = held_path(pod, schedule)
    widens = held is not None and path is not None and is_inside(plain_path(held), path)
    if path is not None and not widens:
        now = "a path that Lium does not say" if held is None else held[:_SHOWN_CHARACTERS].replace('"', "'")
        lost.append(f"They hold {now}, and will hold {path} instead.")
    if keep_days is not None and schedule.retention_days is None:
        lost.append(f"They will be kept {keep_days} days; how long now, Lium does not say.")
    elif keep_days is not None and schedule.retention_days is not None and keep_days < schedule.retention_days:
        lost.append(f"They are kept {schedule.retention_days} days, and will be deleted after {keep_days}.")
    return lost


def refuse_partial(pod: Pod, schedule: BackupSchedule | None) -> None:
    """Refuse to rest a removal on backups that leave out a part of the local volume; without a schedule, none do.

    Raises:
        Failure: the schedule leaves out a part.
    """
    if schedule is None or covers_all(pod, schedule):
        return
    only = f"only {schedule.backup_path}" if schedule.backup_path else "a path that Lium does not say"
    raise Failure(
        "backup_partial",
        f"The backup schedule of {pod.pod_name} ({pod.id}) covers {only}, and a last backup must hold all of "
        f"{pod.volume_root}.",
        f"Widen it: set_backup_schedule with path={pod.volume_root}, then call again. To keep that part only, call "
        "create_backup, then remove_pod without final_backup.",
    )


def what_is_not_saved(pod: Pod, schedule: BackupSchedule | None) -> str | None:
    """Say what the backups of a pod leave out: a part of its local volume, or the login folder, where files go."""
    root = volume_root(pod)[:_SHOWN_CHARACTERS]
    if schedule is not None and not covers_all(pod, schedule):
        only = (schedule.backup_path or "a path that Lium does not say")[:_SHOWN_CHARACTERS]
        return (
            f"The backup saves only {only}, the path of the pod's schedule, and not the rest of {root}: "
            f"set_backup_schedule with path={root} widens it."
        )
    if is_inside(LOGIN_FOLDER, volume_root(pod)):
        return None
    return (
        f"The backup saves only {root}, and files are brought to {LOGIN_FOLDER}, where commands start: write results "
        f"to {root}, or fetch them while the pod lives (download_files, or run_job with then=download_and_remove)."
    )


def _wider_than_asked(pod: Pod, schedule: BackupSchedule, path: str) -> str | None:
    """Say that backups by this schedule hold more than the path that was asked for, where they do.

    Raises:
        Failure: they do not hold it: Lium backs up what the schedule names, and nothing else.
    """
    held = held_path(pod, schedule)
    if held is not None and plain_path(held) == path:
        return None
    if held is not None and is_inside(path, plain_path(held)):
        return f"Lium backs up the path of the pod's schedule: all of {held}, which {path} is a part of."
    now = "a path that Lium does not say" if held is None else held
    instead = "leave path out for what it covers" if held is None else f"leave path out to back up {held}"
    raise Failure(
        "backup_path_differs",
        f"Lium backs up the path of the pod's schedule only, which is {now} and does not cover {path}.",
        f"Change it for all backups to come: set_backup_schedule with path={path}, then call again. Or {instead}; "
        "download_files copies the rest.",
    )


def refuse_unstarted(pod: Pod, schedule: BackupSchedule | None) -> None:
    """Refuse to make a first schedule for a pod that has not started: it would back up nothing now, and stay.

    Raises:
        Failure: the pod has no schedule, and has not started.
    """
    if schedule is None and pod.has_not_started:
        raise Failure(
            "pod_not_running",
            f"Pod {pod.pod_name} ({pod.id}) has not started: there is nothing to back up.",
            until_it_runs(pod),
        )


async def ensure_schedule(
    account: Account, pod: Pod, path: str = "", *, agreed: Question | None = None
) -> tuple[BackupSchedule, bool]:
    """The pod's schedule, made with the usual values if there is none, since Lium backs up nothing without one.

    Args:
        account: Whose pod it is.
        pod: The pod.
        path: What a new one covers; all of the local volume where it is empty.
        agreed: What a person was asked, where they are asked before one is made.

    Raises:
        Failure: there is none, and the pod has not started, or nobody was asked since there was one just before.
        LiumError: Lium refused.
    """
    schedule = await account.lium.backup_schedules.get_for_pod(pod.id)
    if schedule is not None:
        return schedule, False
    refuse_unstarted(pod, schedule)
    refuse_unasked(agreed, f"{pod.pod_name} ({pod.id}) has no backup schedule any more.")
    try:
        created = await account.lium.backup_schedules.create(
            pod.id,
            backup_path=path or pod.volume_root,
            backup_frequency_hours=DEFAULT_EVERY_HOURS,
            retention_days=DEFAULT_KEEP_DAYS,
        )
    except (BadRequest, Conflict):
        # Somebody else may have made one at the same moment.
        schedule = await account.lium.backup_schedules.get_for_pod(pod.id)
        if schedule is None:
            raise
        return schedule, False
    return created, True


async def start_backup(
    account: Account, pod: Pod, *, name: str, whole: bool = False, path: str = "", agreed: Question | None = None
) -> StartedBackup:
    """Start a backup of a pod, or join the one that runs.

    Args:
        account: Whose pod it is.
        pod: The pod.
        name: What the backup is called.
        whole: Whether only one of the whole local volume will do.
        path: What it has to hold, as `check_path` returns it; what the schedule covers where it is empty.
        agreed: As `ensure_schedule`.

    Raises:
        Failure: it cannot be established whether one was started, or a schedule was made and no backup, or the
            schedule leaves out a part.
        LiumError: Lium refused.
    """
    schedule, created = await ensure_schedule(account, pod, path, agreed=agreed)
    if whole:
        refuse_partial(pod, schedule)
    made = f"A backup schedule was made for {pod.pod_name}, every {DEFAULT_EVERY_HOURS} hours. {SCHEDULE_STAYS}"
    try:
        wider = _wider_than_asked(pod, schedule, path) if path else None
    except Failure as failure:
        failure.effect = made if created else failure.effect
        raise
    asked_at = account.lium.now()
    with after_change(made) if created else nullcontext():
        backup_id, joined = await _start(account, pod, name)
        if whole:  # somebody may have narrowed it just before the start
            refuse_partial(pod, await account.lium.backup_schedules.get_for_pod(pod.id))
    return StartedBackup(backup_id, schedule, created, joined, asked_at, wider)


async def _start(account: Account, pod: Pod, name: str) -> tuple[str, bool]:
    before = {backup.id for backup in await account.lium.backups.list(pod_id=pod.id)}
    lost: LiumError | None = None
    try:
        started = await account.lium.backups.start(pod.id, name=name)
        if started.backup_log_id and started.backup_log_id not in before:
            return started.backup_log_id, False
    except Conflict as error:
        running = error.active_operation_id
        if running is None or not await _is_backup(account, running):
            raise
        return running, True
    except LiumError as error:
        if error.effect != "unknown":
            raise
        lost = error
    new = [backup for backup in await account.lium.backups.list(pod_id=pod.id) if backup.id not in before]
    if len(new) == 1:
        return new[0].id, False
    if lost is not None:
        raise lost
    raise Failure(
        "outcome_unknown",
        f"Lium accepted a backup of {pod.pod_name} and did not name a new one.",
        _LOOK_FOR_IT,
        effect=_MAY_RUN,
    )


async def _is_backup(account: Account, operation_id: str) -> bool:
    try:
        await account.lium.backups.get(operation_id)
    except LiumError:
        return False
    return True


async def read_started(account: Account, pod: Pod, started: StartedBackup) -> Backup:
    """Read a backup that was just started.

    Raises:
        Failure: what Lium named is another one.
        LiumError: it could not be read.
    """
    backup = await account.lium.backups.get(started.backup_id)
    if why := started.why_another(backup):
        raise Failure(
            "outcome_unknown",
            f"Lium accepted a backup of {pod.pod_name} and answered with another one, {backup.id}: {why}.",
            _LOOK_FOR_IT,
            effect=_MAY_RUN,
        )
    return backup


async def wait_for_backup(account: Account, poller: Poller, backup: Backup, *, wait_seconds: float) -> Backup:
    """Wait until a backup is over, or the time is."""
    return await poller.until(
        backup,
        lambda: account.lium.backups.get(backup.id),
        lambda state: state.is_final,
        wait_seconds=wait_seconds,
        describe=lambda state: (
            f"Backup is {state_in_words(state.state)}" + (f", {state.progress:.0f} %" if state.progress else "")
        ),
    )


def standing(backup: Backup) -> str:
    """Say that a backup still runs, or may where Lium does not say."""
    return f"{'The backup is' if backup.is_running else 'Lium does not say whether the backup is'} still running."


def refuse_incomplete(backup: Backup) -> None:
    """Refuse to restore a backup that holds nothing, or does not yet.

    Raises:
        Failure: it is not completed.
    """
    if not backup.is_completed:
        raise Failure(
            "backup_not_completed",
            f"Backup {backup.id} is {state_in_words(backup.state)} and cannot be restored.",
            "Call get_backup to wait for it, or choose a completed one with list_backups.",
        )


def refuse_undeletable(backup: Backup) -> None:
    """Refuse to delete a backup that is not completed: Lium deletes no other.

    Raises:
        Failure: it is not completed, or Lium does not say whether it is.
    """
    if backup.is_completed:
        return
    if not backup.state:
        advice = "Call get_backup in a minute. If that lasts, a person can look on lium.io and delete it there."
    elif backup.is_final:
        advice = "It holds nothing to delete or to restore: Lium drops its row when the schedule's keep_days are over."
    else:
        advice = f"Call get_backup to wait for its end. cancel_backup stops it {IN_EXTRAS}."
    raise Failure(
        "backup_not_completed",
        f"Backup {backup.id} is {state_in_words(backup.state)}, and only a completed one can be deleted.",
        advice,
    )
