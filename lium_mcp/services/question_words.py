"""How a target stands in a question to a person, and what is known of its data: others chose the names in it."""

import re
from typing import Final

from lium_mcp.api.backups import BackupSchedule
from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.figures import rate_in_usd
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, covers_all, refuse_partial
from lium_mcp.services.pods.rented_elsewhere import say_whose
from lium_mcp.services.pods.work_told import say_what_ends
from lium_mcp.text import quotation

_SHOWN_CHARACTERS: Final = 60
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STATE: Final = re.compile(r"[A-Z_]{1,20}")


def quoted(name: str) -> str:
    """A name as it stands in a question. Others chose it: it must not read as a part of the question."""
    return quotation(name, _SHOWN_CHARACTERS) or "(unnamed)"


def quoted_id(of: str) -> str:
    """An id as it is, where it is one; else in quotation marks."""
    return of if _ID.fullmatch(of) else quoted(of)


def the_pod(pod: Pod) -> str:
    """A pod by name, id, place in its cluster, state and price."""
    price = f", {rate_in_usd(pod.price)} an hour" if pod.price is not None else ""
    state = pod.state if _STATE.fullmatch(pod.state) else "state unknown"
    rank = "" if pod.cluster_node_index is None else f"rank {pod.cluster_node_index} of "
    member = f"{rank}cluster {quoted_id(pod.cluster_id)}, " if pod.cluster_id else ""
    return f"pod {quoted(pod.pod_name)} ({quoted_id(pod.id)}, {member}{state}{price})"


def backed_up_first(pod: Pod, schedule: BackupSchedule | None) -> str:
    """What becomes of a pod's data where a last backup comes before its removal.

    Raises:
        Failure: the pod's schedule leaves out a part of its local volume.
    """
    refuse_partial(pod, schedule)
    return (
        "Its local volume is backed up first, and it stays if that fails. "
        f"What lies outside {quoted(pod.volume_root)} is lost."
    )


async def what_ends(account: Account, pod: Pod) -> str:
    """Whose a pod is, what works in it and ends, and when it was last backed up."""
    said = await say_whose(account, pod), await say_what_ends(account, pod), await last_backup(account, pod)
    return " ".join(filter(None, said))


async def last_backup(account: Account, pod: Pod) -> str:
    """When a pod was last backed up, and what that lacks."""
    said, _ = await read_last_backup(account, pod)
    return said


async def read_last_backup(account: Account, pod: Pod) -> tuple[str, frozenset[str]]:
    """What is said of the last backup, and the ids of those that are said to run, or perhaps."""
    try:
        backups = await account.lium.backups.list(pod_id=pod.id)
        schedule = await account.lium.backup_schedules.get_for_pod(pod.id) if backups else None
    except LiumError:
        return "Whether there is a backup of it could not be read.", frozenset()
    made = [(backup.created_at, backup) for backup in backups if backup.is_completed and backup.created_at]
    said = "There is no backup of it."
    if made:
        made_at, last = max(made, key=lambda one: one[0])
        said = f"Its last backup is of {made_at:%Y-%m-%d %H:%M} UTC." + (f" {PARTIAL}" if last.is_partial else "")
    last_at = max((at for at, _ in made), default=None)
    failed = [backup.created_at for backup in backups if backup.state == "FAILED" and backup.created_at]
    if failed and (last_at is None or max(failed) > last_at):
        said += f" {'A later one' if made else 'One'}, of {max(failed):%Y-%m-%d %H:%M} UTC, failed."
    running = frozenset(backup.id for backup in backups if not backup.is_final)
    if running:
        other = said if made else "There is no other."
        runs = any(backup.is_running for backup in backups)
        how = "A backup of it is running" if runs else "A backup of it may be running, which Lium does not say"
        said = f"{how}, and would be lost unless it is complete by then. {other}"
    if schedule and not covers_all(pod, schedule):
        said += f" Its backups hold only {quoted(schedule.backup_path or '')}."
    return said, running
