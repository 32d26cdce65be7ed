"""What the removal of a pod would cut off, beside what works in it: restores, backups, and what is still to be done."""

from typing import Final, get_args

from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import Task, TaskKind
from lium_mcp.services.accounts import Account

# What a task waits for before it removes a pod.
_WAITED_FOR_BY: Final[dict[TaskKind, tuple[TaskKind, ...]]] = {
    "idle_watch": tuple(kind for kind in get_args(TaskKind) if kind != "idle_watch"),
    "job_run": ("follow_up",),
    "follow_up": ("job_run",),
}
# The backup of a follow-up holds what a run has made whose command is over; if it waited, each would for the other.
_OVER: Final = ("following", "removing")


async def what_is_cut_off(account: Account, pod: Pod, task: Task, *, but_backups: bool = False) -> str | None:
    """What the removal of a pod by a task would cut off; None where nothing is known of.

    Args:
        account: Whose pod it is.
        pod: The pod.
        task: The task that would remove it.
        but_backups: Whether its backups are the task's own matter.

    Raises:
        LiumError: restores and backups cannot be read.
        LedgerUnavailable: the tasks cannot be read.
    """
    for kind in _WAITED_FOR_BY.get(task.kind, ()):
        for other in await account.rents.tasks(kind):
            if other.closed_at is None and pod.id in (other.subject, other.progress.get("pod_id")):
                if kind == "follow_up":
                    return f"what follows job {other.name} is not done"
                if task.kind == "idle_watch" or (other.id != task.id and other.progress.get("state") not in _OVER):
                    return f"{other.name} goes on"
    if any(not run.is_final for run in await account.lium.restores.list(pod.id)):
        return "a restore goes on"
    backups = [] if but_backups or "asked_at" in task.progress else await account.lium.backups.list(pod_id=pod.id)
    return "a backup goes on" if any(not run.is_final for run in backups) else None
