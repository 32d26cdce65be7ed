"""Waits for the end of a job, and says what became of it: its container may have started again, or its pod stay."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote.jobs import Job, read_job
from lium_mcp.rentals import Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.jobs.job_details import ObservedJob, show_run
from lium_mcp.services.jobs.runs import read_progress
from lium_mcp.services.pods.container_restarts import look_for_restart
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.pods.readiness import read_pod
from lium_mcp.services.polling import Poller

# A container that starts again takes a moment to answer.
_MOST_FAILURES: Final = 3
_UNREACHABLE: Final = frozenset({"connection_lost", "timed_out", "ssh_unreachable", "ssh_refused"})
_LOST: Final = "It does not run any more and left no exit code"


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job as it was seen last, and why it is lost, if it is."""

    job: Job
    lost_because: str | None = None


async def watch_job(account: Account, poller: Poller, pod: Pod, first: Job, *, wait_seconds: float) -> WatchedJob:
    """Wait until a job is over, also where the connection breaks meanwhile.

    Args:
        account: Whose pod it is.
        poller: Waits.
        pod: Its pod.
        first: The job as it was read first.
        wait_seconds: How long to wait.

    Raises:
        Failure: the pod cannot be reached any more, and nobody says that its container started again.
    """
    seen, failures = first, 0
    unreachable: Failure | None = None

    async def read() -> Job:
        nonlocal seen, failures, unreachable
        try:
            async with pod_access(account).to(pod) as connection:
                seen = await read_job(connection, first.name, now=account.lium.now())
        except Failure as failure:
            if failure.code not in _UNREACHABLE:
                raise
            failures, unreachable = failures + 1, failure
        else:
            failures, unreachable = 0, None
        return seen

    job = await poller.until(
        first,
        read,
        lambda state: state.is_over or failures >= _MOST_FAILURES,
        wait_seconds=wait_seconds,
        describe=lambda state: f"Job {first.name} is {state.status}",
    )
    if unreachable is not None:
        restart = await look_for_restart(account, pod)
        if restart is None or not restart.is_after(job.started_at):
            raise unreachable
        because = f"{restart.describe()} Its files stay, but nobody can log in to the pod now: get_pod says more."
        return WatchedJob(replace(job, status="lost"), because)
    return WatchedJob(job, await why_lost(account, pod, job) if job.status == "lost" else None)


async def why_lost(account: Account, pod: Pod, job: Job) -> str:
    """Say what is known of why a job left no exit code, and what to do."""
    restart = await look_for_restart(account, pod)
    if restart is not None and restart.is_after(job.started_at):
        return f"{_LOST}. {restart.describe()} Its files stay: start it again under another name."
    return f"{_LOST}: the pod was rebooted, or the job was killed."


async def observe_run(account: Account, task: Task) -> ObservedJob:
    """Show a run that is not looked at on its pod; of a pod that stays, also whether it does."""
    progress = read_progress(task)
    pod: Pod | None = None
    if progress.pod_stays and progress.pod_id is not None:
        with suppress(LiumError):
            pod = await read_pod(account, progress.pod_id)
    lives = pod is not None and not pod.is_removed and not pod.is_being_removed
    return show_run(task, account.lium.now(), pod=pod if lives else None)


async def tell_of_restart(account: Account, pod: Pod, failure: Failure) -> None:
    """Add to a failure to log in to a pod that its container started again by itself, if it did."""
    restart = await look_for_restart(account, pod) if failure.code in _UNREACHABLE else None
    if restart is not None:
        failure.happened = f"{failure.happened} {restart.describe()} What ran in it is gone."
