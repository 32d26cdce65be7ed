"""What is known of jobs whose pod is gone: the ledger keeps what was to follow them, and what came of that."""

from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from lium_mcp.failures import Failure
from lium_mcp.remote.jobs import Job
from lium_mcp.rentals import LedgerUnavailable, Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.jobs.job_details import JobView, ObservedJob
from lium_mcp.services.removed_pods import PodRemoved
from lium_mcp.services.targets import is_id

_OVER: Final = "The pod is gone, and with it the files and the output of its jobs."


def end_of(job: Job) -> dict[str, Any]:
    """What came of a job, as the ledger keeps it for when its pod is gone."""
    ended_at = job.finished_at.isoformat() if job.finished_at else None
    return {"status": job.status, "exit_code": job.exit_code, "finished_at": ended_at}


async def look_back(account: Account, named: str, name: str, failure: Failure) -> ObservedJob | None:
    """Show the jobs of a pod that was not found, by what was to follow them; None where the ledger knows of none.

    Args:
        account: Whose pod it was.
        named: What the caller calls the pod.
        name: The job; empty for all.
        failure: Why the pod was not found.
    """
    if failure.code != "pod_not_found":
        return None
    ids = (
        {pod.pod_id for pod in failure.pods} if isinstance(failure, PodRemoved) else {named} if is_id(named) else set()
    )
    tasks: list[Task] = []
    with suppress(LedgerUnavailable):
        tasks = [
            task for task in await account.rents.tasks("follow_up") if task.subject in ids and name in ("", task.name)
        ]
    if len({task.subject for task in tasks}) != 1:
        return None  # of several pods, the failure names the ids
    newest = {task.name: task for task in reversed(tasks)}
    views = [_view(task) for task in newest.values()]
    if not name:
        return ObservedJob(outcome="done", pod_id=tasks[0].subject, jobs=views, next=_OVER)
    task, [view] = newest[name], views
    is_well = view.status == "succeeded" and task.status == "done"
    return ObservedJob(
        outcome="pending" if task.closed_at is None else "done" if is_well else "failed",
        pod_id=task.subject,
        job=view,
        next=_next_of(task),
    )


def _view(task: Task) -> JobView:
    # A follow-up of an earlier version did not keep how its job ended.
    ended: dict[str, Any] = task.progress.get("job") or {}
    finished_at = ended.get("finished_at")
    return JobView(
        job=task.name,
        status=ended.get("status") or "lost",
        exit_code=ended.get("exit_code"),
        finished_at=datetime.fromisoformat(finished_at) if finished_at else None,
        then=task.payload.get("then"),
        backup_id=task.progress.get("backup_id"),
        problem=task.note if task.status in ("failed", "gone") else None,
    )


def _next_of(task: Task) -> str:
    backup_id = task.progress.get("backup_id")
    became = f" What followed: {task.note}." if task.note else ""
    saved = f" restore_backup or rent_pod brings its files back from backup {backup_id}." if backup_id else ""
    return f"{_OVER}{became}{saved}"
