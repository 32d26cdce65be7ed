"""What follows a job: a backup, and the removal of the pod, as `start_job` was told.

It is done by a server that lives when the job ends: the one that started it, or one that takes it up from what the pod
and this machine remember. A pod is removed only after a backup that began when no job ran there any more is complete;
whatever fails leaves the pod as it is.
"""

import logging
from typing import Final

import anyio

from lium_mcp.api import LiumError, NotFound, Pod
from lium_mcp.remote import RemoteError
from lium_mcp.remote.follow_ups import FollowUp
from lium_mcp.remote.jobs import Job, list_jobs, note_follow_up
from lium_mcp.tools.backup_runs import wait_for_backup
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.final_backup import begin_final_backup
from lium_mcp.tools.pod_work import pod_access
from lium_mcp.tools.pods import start_removal

log = logging.getLogger("lium_mcp.follow_ups")

_FIRST_LOOK_SECONDS: Final = 1.0
_MOST_SECONDS_BETWEEN_LOOKS: Final = 20.0
_BACKUP_WAIT_SECONDS: Final = 600.0
_MOST_ATTEMPTS: Final = 3


def is_due(job: Job) -> bool:
    """Whether something is still to follow a job, now or when it ends."""
    return job.then != "nothing" and job.followed_by is None and job.status not in ("stopped", "lost")


async def remember(call: Call, pod: Pod, job: Job) -> None:
    """See to it that what is to follow a job is done, also by a later process on this machine if need be."""
    access = pod_access(call)
    if is_due(job) and access.may_follow:
        item = FollowUp(pod.id, job.name)
        await anyio.to_thread.run_sync(access.follow_ups.add, item)
        follow_in_background(call, item)


def follow_in_background(call: Call, item: FollowUp) -> None:
    """Wait for the end of a job and do what is to follow it, while this process lives."""
    call.runtime.background.start(item, lambda: _follow(Call(call.runtime), item))


async def _follow(call: Call, item: FollowUp) -> None:
    access = pod_access(call)
    pause_seconds, attempts = _FIRST_LOOK_SECONDS, 0
    while not call.runtime.stop.asked:
        try:
            if await _look(call, item):
                await anyio.to_thread.run_sync(access.follow_ups.remove, item)
                return
        except (LiumError, RemoteError) as error:  # the next look may do better
            log.info("Job %s on pod %s could not be looked at: %s", item.job, item.pod_id, type(error).__name__)
        except ToolFailure as failure:
            attempts += 1
            log.warning("What is to follow job %s on pod %s failed: %s", item.job, item.pod_id, failure.code)
            if attempts == _MOST_ATTEMPTS:
                await _give_up(call, item, failure)
                await anyio.to_thread.run_sync(access.follow_ups.remove, item)
                return
        await anyio.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 1.5, _MOST_SECONDS_BETWEEN_LOOKS)


async def _look(call: Call, item: FollowUp) -> bool:
    """Do what is to follow a job if it has ended; return whether nothing is left to do."""
    try:
        pod = await call.lium.pods.get(item.pod_id)
    except NotFound:
        return True
    if pod.is_terminal:
        return True
    if not pod.is_ready:
        return False
    async with pod_access(call).to(pod) as connection:
        jobs = await list_jobs(connection, now=call.lium.now())
    # Judged by one reading: between two of them a job may have been stopped, which is not an end like any other.
    job = next((one for one in jobs if one.name == item.job), None)
    if job is None or not is_due(job):
        return True
    if not all(one.is_over for one in (jobs if job.then == "backup_and_remove" else [job])):
        return False
    return await _do(call, pod, job)


async def _do(call: Call, pod: Pod, job: Job) -> bool:
    """Back up and, if that is wanted, remove; return whether nothing is left to do.

    Raises:
        ToolFailure: there is no complete backup, or the removal was refused; the pod is as it was.
    """
    log.info("Job %s on pod %s is over: %s", job.name, pod.id, job.then)
    # One that an earlier removal began may miss what was written since.
    call.runtime.final_backups.pop(pod.id, None)
    removes = job.then == "backup_and_remove"
    backup_id = await begin_final_backup(call, pod, whole=removes, wait_seconds=_BACKUP_WAIT_SECONDS)
    backup = await call.lium.backups.get(backup_id)
    while not backup.is_final and not call.runtime.stop.asked:
        backup = await wait_for_backup(call, backup, wait_seconds=_BACKUP_WAIT_SECONDS)
    if not backup.is_final:
        return False
    if not backup.is_completed:
        raise ToolFailure("final_backup_failed", f"The backup is {backup.state}.", "Take one with create_backup.")
    async with pod_access(call).to(pod) as connection:
        if not removes:
            await note_follow_up(connection, job.name, {"backup_id": backup_id})
            return True
        if not all(other.is_over for other in await list_jobs(connection, now=call.lium.now())):
            return False  # one was started meanwhile, and the backup may miss what it writes
    await start_removal(call, pod)
    log.info("Pod %s is removed after backup %s", pod.id, backup_id)
    return True


async def _give_up(call: Call, item: FollowUp, failure: ToolFailure) -> None:
    try:
        async with pod_access(call).to(await call.lium.pods.get(item.pod_id)) as connection:
            await note_follow_up(connection, item.job, {"problem": failure.code})
    except (LiumError, RemoteError):
        log.info("That could not be noted on pod %s", item.pod_id)
