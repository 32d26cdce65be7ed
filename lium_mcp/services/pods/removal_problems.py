"""Why a pod bills on that was to be removed by now, or will be: what was to remove it has failed.

That is its removal when idle, what was to follow a job, or Lium itself at a time that it took, and does not keep.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import LATE_HOURS, Entry, LedgerUnavailable, Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.idle_removals import KEPT_BECAUSE, IdleState

_TOLD_FOR: Final = timedelta(days=1)
_AND_BILLS: Final = "It stays, and bills: remove_pod ends that, and get_job tells more."


async def removal_problems(account: Account, idle: Mapping[str, IdleState]) -> Mapping[str, str]:
    """What went wrong lately with the ends of pods, by the id of the pod, as far as the ledger can be read."""
    since = account.lium.now() - _TOLD_FOR
    problems: dict[str, str] = {}
    with suppress(LedgerUnavailable):
        # Newest first, of each kind.
        for task in await account.rents.tasks("follow_up"):
            if (said := _of_follow_up(task)) and (task.closed_at is None or task.closed_at > since):
                problems.setdefault(task.subject, said)
        for task in await account.rents.tasks("job_run"):
            if (said := _of_run(task)) and (task.closed_at is None or task.closed_at > since):
                problems.setdefault(str(task.progress.get("pod_id")), said)
    return problems | {pod_id: state.problem for pod_id, state in idle.items() if state.problem}


async def removal_time_problems(account: Account, pods: Sequence[Pod]) -> dict[str, str]:
    """What to know of pods that live on past their removal time, or run and have none that was asked for, by their ids.

    The ledger tells what was asked for, as far as it can be read. A server that may change something has tried to set
    it before, so that Lium has refused or ignored it.
    """
    entries: Sequence[Entry] = ()
    with suppress(LedgerUnavailable):
        entries = await account.rents.open_entries()
    asked = {
        pod_id: entry
        for entry in entries
        if entry.status == "rented"
        for pod_id in entry.pod_ids
        if pod_id not in entry.kept_pod_ids
    }
    late = account.lium.now() - timedelta(hours=LATE_HOURS)
    said = {pod.id: _of_removal_time(pod, asked.get(pod.id), late) for pod in pods if pod.is_alive}
    return {pod_id: problem for pod_id, problem in said.items() if problem is not None}


def _of_removal_time(pod: Pod, entry: Entry | None, late: datetime) -> str | None:
    if pod.has_not_started:
        return None
    shown = pod.removal_scheduled_at
    if shown is not None and shown < late:
        return _was_due(pod, shown, "")
    if entry is None or entry.hours is None:
        return None
    due = entry.created_at + timedelta(hours=entry.hours)
    if due < late:
        return _was_due(pod, due, ", by the hours it was rented for")
    lacks = pod.has_unreadable_removal or not pod.has_removal
    return lacks_removal_time(pod) if pod.runs and lacks else None


def _was_due(pod: Pod, due: datetime, why: str) -> str:
    bills = "bills" if pod.is_billing else "may bill"
    return f"It was to be removed at {due:%Y-%m-%dT%H:%MZ}{why}, is still there, and {bills}: remove_pod ends that."


def lacks_removal_time(pod: Pod) -> str:
    """Say that a pod that was rented for some hours has no removal time that is known."""
    shown = "a removal time that cannot be read" if pod.has_removal else "no removal time"
    return f"Lium shows {shown}: the pod may bill until it is removed. Call schedule_pod_removal."


def _of_follow_up(task: Task) -> str | None:
    what = f"{task.payload.get('then') or 'What was to follow'} after job {task.name}"
    if task.status == "failed":
        return f"{what} failed: {task.note.rstrip('.')}. {_AND_BILLS}"
    if task.closed_at is None and task.attempts:
        return f"{what} has failed {task.attempts} times, and is tried again. Until then it bills."
    if task.closed_at is None and (why := task.progress.get(KEPT_BECAUSE)):
        return f"{what} waits, since {why}. Until then it bills."
    return None


def _of_run(task: Task) -> str | None:
    problem, then = task.progress.get("problem"), task.payload["order"].get("then")
    if task.closed_at is None and problem is None and (why := task.progress.get(KEPT_BECAUSE)):
        return f"The removal of the pod of run {task.name} waits, since {why}. Until then it bills."
    if problem is None or task.progress.get("pod_id") is None:
        return None
    if task.closed_at is None:
        return f"Run {task.name} is held up ({problem}), and tried again: until {then} it bills. get_job tells more."
    return f"Run {task.name}: {task.note.rstrip('.')}. {_AND_BILLS}"
