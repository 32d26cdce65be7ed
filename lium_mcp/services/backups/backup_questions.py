"""What a person is asked before backups, schedules or the files under a restore are lost."""

from typing import Any

from lium_mcp.guard.consent import Question
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, check_path, losses, refuse_incomplete, refuse_undeletable
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
    keep_days: int | None,
    path: str,
    **_: Any,  # noqa: ANN401 - the tool's other arguments
) -> Question | None:
    """Before `set_backup_schedule`, where backups would cover something else or be deleted earlier than now."""
    target = await find_pod(account, pod)
    schedule = await account.lium.backup_schedules.get_for_pod(target.id)
    checked = check_path(target, path, "path") if path else None
    lost = losses(target, schedule, keep_days=keep_days, path=checked) if schedule else []
    if checked is not None:
        lost += await undone_by(account, target, checked)
    if not lost:
        return None
    return Question(f"Change the backups of {the_pod(target)}? {' '.join(lost)}", {"pod": target.id})
