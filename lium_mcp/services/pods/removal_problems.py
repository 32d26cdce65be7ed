"""Why a pod bills on that was to be removed by now: its removal when idle, or what was to follow a job, has failed."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Final

from lium_mcp.rentals import LedgerUnavailable, Task
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
