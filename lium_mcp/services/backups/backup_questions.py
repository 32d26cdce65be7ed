"""What a person is asked before backups, schedules or the files under a restore are lost."""

from typing import Any

from lium_mcp.figures import counted
from lium_mcp.guard.consent import Question
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import (
    DEFAULT_EVERY_HOURS,
    DEFAULT_KEEP_DAYS,
    PARTIAL,
    check_path,
    losses,
    refuse_incomplete,
    refuse_undeletable,
    refuse_unstarted,
)
from lium_mcp.services.backups.restore_turns import RestoreTurns
from lium_mcp.services.backups.restoring import UnseenTargets, unseen_targets
from lium_mcp.services.backups.whole_backups import undone_by
from lium_mcp.services.question_words import last_backup, quoted, quoted_id, the_pod
from lium_mcp.services.targets import find_pod, find_pods


async def ask_to_delete_backup(account: Account, *, backup_id: str) -> Question:
    """Before `delete_backup`."""
    backup = await account.lium.backups.get(backup_id)
    refuse_undeletable(backup)
    made = f" of {backup.created_at:%Y-%m-%d %H:%M} UTC" if backup.created_at else ""
    lacks = f" {PARTIAL}" if backup.is_partial else ""
    return Question(
        f"Delete the completed backup {quoted_id(backup.id)}{made} for good? It cannot be restored then.{lacks}"
    )


async def ask_to_delete_schedule(account: Account, *, pod: str) -> Question | None:
    """Before `delete_backup_schedule`; not where there is none."""
    target = await find_pod(account, pod)
    if await account.lium.backup_schedules.get_for_pod(target.id) is None:
        return None
    return Question(f"Stop backing up {the_pod(target)}? {await last_backup(account, target)}", {"pod": target.id})


async def ask_to_back_up(account: Account, *, pod: str, path: str, **_: Any) -> Question | None:  # noqa: ANN401 - as above
    """Before `create_backup`, where the pod has no schedule: Lium needs one, which stays and bills on."""
    target = await find_pod(account, pod)
    if path:
        check_path(target, path, "path")
    schedule = await account.lium.backup_schedules.get_for_pod(target.id)
    if schedule is not None:
        return None
    refuse_unstarted(target, schedule)
    lasting = _lasting(DEFAULT_EVERY_HOURS, DEFAULT_KEEP_DAYS)
    return Question(
        f"Back up {the_pod(target)} now, and from then on? It has no backup schedule, and Lium needs one for that. "
        f"{lasting}",
        {"pod": target.id},
    )


def _lasting(every_hours: int, keep_days: int) -> str:
    return (
        f"The schedule stays: every {counted(every_hours, 'hour')}, kept {counted(keep_days, 'day')}. What is stored "
        "bills by its size, until somebody deletes the schedule and the time of its backups is over."
    )


async def ask_to_restore(
    account: Account,
    turns: RestoreTurns,
    *,
    backup_id: str,
    pods: list[str],
    path: str,
    **_: Any,  # noqa: ANN401 - as above
) -> Question | None:
    """Before `restore_backup`, where a directory is named and nobody can look whether it is empty."""
    if not path:
        return None
    backup, targets = await account.lium.backups.get(backup_id), await find_pods(account, pods)
    refuse_incomplete(backup)
    unseen = await unseen_targets(account, turns, targets, path)
    if not unseen:
        return None
    named = "; ".join(f"pod {quoted(pod.pod_name)} ({quoted_id(pod.id)})" for pod in unseen)
    lacks = f" Of the backup: {PARTIAL}" if backup.is_partial else ""
    return UnseenTargets(
        f"Restore a backup into {quoted(path)} of {named}? Nobody could look whether it is empty there: files of the "
        f"same names would be overwritten.{lacks}",
        {"pods": [pod.id for pod in targets], "path": path},
        unseen=frozenset(pod.id for pod in unseen),
    )


async def ask_to_set_schedule(
    account: Account,
    *,
    pod: str,
    every_hours: int | None,
    keep_days: int | None,
    path: str,
) -> Question | None:
    """Before `set_backup_schedule`, where it begins to back up a pod, covers something else, or keeps less long."""
    target = await find_pod(account, pod)
    schedule = await account.lium.backup_schedules.get_for_pod(target.id)
    checked = check_path(target, path, "path") if path else None
    begun = schedule if schedule and schedule.is_active is not False else None
    lost = losses(target, schedule, keep_days=keep_days, path=checked) if schedule else []
    if checked is not None:
        lost += await undone_by(account, target, checked)
    if begun is None:
        hours = every_hours or (schedule and schedule.backup_frequency_hours) or DEFAULT_EVERY_HOURS
        days = keep_days or (schedule and schedule.retention_days) or DEFAULT_KEEP_DAYS
        begins = f"Back up {the_pod(target)} from now on? {_lasting(hours, days)}"
        return Question(" ".join((begins, *lost)), {"pod": target.id})
    if not lost:
        return None
    return Question(f"Change the backups of {the_pod(target)}? {' '.join(lost)}", {"pod": target.id})
