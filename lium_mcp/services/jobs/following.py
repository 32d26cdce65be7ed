"""Does what is to follow a job: a backup, perhaps with the removal of the pod.

One server of the account at a time does it, the one that started the job or another that goes on from what the ledger
says (`follow_ups.py` writes it there). A pod is removed only once a backup is complete that began when nothing worked
there any more (`pods/at_work.py`). Whatever fails leaves the pod as it is, and is noted.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio

from lium_mcp.api.backups import Backup
from lium_mcp.api.errors import (
    LiumError,
    NotFound,
    PermissionDenied,
)
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote.jobs import Job, note_follow_up
from lium_mcp.rentals import OTHERS_SECONDS, Claim, NotNow
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import read_started, refuse_partial, start_backup, wait_for_backup
from lium_mcp.services.backups.final_backup import refuse_unfit
from lium_mcp.services.failure_words import REFUSALS, from_api
from lium_mcp.services.jobs.past_jobs import end_of
from lium_mcp.services.jobs.pod_use import what_is_cut_off
from lium_mcp.services.pods.at_work import AtWork, all_at_work, removing
from lium_mcp.services.pods.idle_removals import KEPT_BECAUSE
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.pods.removing import MISSING_FOR, start_removal
from lium_mcp.services.polling import Poller
from lium_mcp.services.removed_pods import is_kept_by_record

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

log = logging.getLogger(__name__)

_MOST_ATTEMPTS: Final = 3
# Each try may be stored and billed as a whole backup.
_AGAIN: Final = timedelta(minutes=3)
_BACKUP_LOOK_SECONDS: Final = 20.0
_SSH_SECONDS: Final = 60.0
# Less than the lease, which is prolonged just before.
_REMOVAL_SECONDS: Final = 60.0
# How old a complete backup may be, as with remove_pod: what was written since is not in it.
_FRESH: Final = timedelta(minutes=10)
# Less than elsewhere: one that began seconds before the job ended may be listed late, and lacks its end.
_CLOCKS_DIFFER: Final = timedelta(seconds=2)
# What is written of the way to a pod's end, and what of it says that something was saved.
_OF_THE_END: Final = frozenset({"backups_before", "asked_at", "backup_id", "path", "removal_ordered"})
_SAVED: Final = frozenset({"asked_at", "path"})


async def follow(account: Account, poller: Poller, claim: Claim) -> None:
    """Look at a job, and if it has ended, do what is to follow it. This is one step of the task, see `Worker`.

    Raises:
        NotNow: it could not be looked at; other servers may be able to.
        LeaseLost: another server does it.
        LedgerUnavailable: nobody can tell whether one does.
    """
    try:
        await _look(account, poller, claim)
    except TimeoutError as error:
        raise NotNow("it took too long") from error
    except LiumError as error:
        if not claim.is_own and isinstance(error, (NotFound, PermissionDenied)):
            # What is said to another key than the one that made the task proves nothing.
            raise NotNow("this server's key is not shown the pod", seconds=OTHERS_SECONDS) from error
        if not isinstance(error, REFUSALS):
            raise NotNow(type(error).__name__) from error
        await _fail(account, claim, from_api(error))
    except Failure as failure:
        await _fail(account, claim, failure)


async def _look(account: Account, poller: Poller, claim: Claim) -> None:
    job_name = claim.task.name
    try:
        pod = await account.lium.pods.get(claim.task.subject)
    except NotFound:
        if not claim.is_own:
            raise
        await _note_missing(account, claim)
        return
    if "missing_since" in claim.task.progress:
        await claim.keep(progress=_without(claim.task.progress, "missing_since"))
    if pod.is_terminal:
        await _end(claim, pod)
        return
    if not pod.is_ready:
        return
    seen = await _at_work(account, pod)
    # Judged by one reading: between two of them a job may have been stopped, which is not an end like any other.
    job = next((one for one in seen.jobs or () if one.name == job_name), None)
    await _keep_end(claim, job)
    if job is None or job.status == "lost":
        await _give_up(account, claim, pod, "job_not_found" if job is None else "job_lost")
    elif job.followed_by is not None:
        await claim.finish("done", "the pod says that it was done")
    elif job.status == "stopped":
        await claim.finish("done", "the job was stopped, so nothing follows")
    elif _then(claim, job) == "backup_and_remove":
        if await end_pod(account, claim, pod, lambda: back_up(account, poller, claim, pod), seen):
            await claim.finish("done", f"pod removed after backup {claim.task.progress['backup_id']}")
    elif job.is_quiet:
        await _back_up_only(account, poller, claim, pod, job)


async def _keep_end(claim: Claim, job: Job | None) -> None:
    """Write down how a job ended: its pod, which knows it too, may be gone soon."""
    if job is not None and job.is_over and "job" not in claim.task.progress:
        await claim.keep(progress={**claim.task.progress, "job": end_of(job)})


async def _back_up_only(account: Account, poller: Poller, claim: Claim, pod: Pod, job: Job) -> None:
    backup = await _backup(account, poller, claim, pod, whole=False)
    if backup is None:
        return
    async with _connected(account, pod) as connection:
        problem = {"problem": "backup_partial"} if backup.is_partial else {}
        await note_follow_up(connection, job.name, {"backup_id": backup.id, **problem})
    await claim.finish("done", f"backup {backup.id}")


async def end_pod(
    account: Account,
    claim: Claim,
    pod: Pod,
    save: Callable[[], Awaitable[bool]],
    seen: AtWork | None = None,
) -> bool:
    """Remove a pod once nothing works there any more and all that was written is saved.

    Args:
        account: Whose pod it is.
        claim: The task that this is part of.
        pod: The pod.
        save: Saves what was written; tells whether that is done by now.
        seen: What works in it, where that was just read.

    Returns:
        Whether Lium has accepted to remove it.

    Raises:
        Failure: it could not be saved, or the removal was refused; the pod is as it was.
        LedgerUnavailable: nobody can tell what other servers do in it.
    """
    seen = seen or await _at_work(account, pod)
    if not await _is_free(account, claim, pod, seen):
        return False
    if claim.task.progress.get("jobs") != seen.job_names:
        # Nothing was begun, or another job was started since, and what it wrote is not saved.
        await claim.keep(progress=_begun_anew(claim, jobs=seen.job_names, change=seen.work.newest_change))
    elif claim.task.progress.get("change", 0) != seen.work.newest_change:
        await _begin_after_change(claim, pod, seen.work.newest_change)
    if not await save():
        return False
    again = await _at_work(account, pod)
    if again.job_names != seen.job_names or not await _is_free(account, claim, pod, again):
        return False  # the next step begins anew
    async with removing(account, pod.id, since=seen.work.newest_change) as is_free:
        if not is_free:
            return False
        await claim.keep(progress={**claim.task.progress, "removal_ordered": True})
        with anyio.fail_after(_REMOVAL_SECONDS):
            return await start_removal(account, pod)


async def _is_free(account: Account, claim: Claim, pod: Pod, seen: AtWork) -> bool:
    """Whether nothing works in a pod that a removal would cut off; what does is written down, and told."""
    why = seen.why or await what_is_cut_off(account, pod, claim.task)
    if claim.task.progress.get(KEPT_BECAUSE) != why:
        progress = _without(claim.task.progress, KEPT_BECAUSE)
        await claim.keep(progress=progress if why is None else progress | {KEPT_BECAUSE: why})
    return why is None


async def _begin_after_change(claim: Claim, pod: Pod, change: int) -> None:
    """Begin anew, since what was saved so far may lack what a command or an upload has changed.

    Raises:
        Failure: something was saved: each try may be a whole backup, so there are only so many.
    """
    is_saved = not claim.task.progress.keys().isdisjoint(_SAVED)
    await claim.keep(progress=_begun_anew(claim, change=change))
    if is_saved:
        raise Failure(
            "changed_while_saved",
            f"A command or an upload changed {pod.pod_name} ({pod.id}) while what it holds was saved, so that may be "
            "missing there.",
            "",
        )


async def back_up(account: Account, poller: Poller, claim: Claim, pod: Pod) -> bool:
    """Take a backup of all of a pod's local volume before its removal; whether it is complete by now.

    Raises:
        Failure: it failed, or does not hold everything.
    """
    return await _backup(account, poller, claim, pod, whole=True) is not None


async def _backup(account: Account, poller: Poller, claim: Claim, pod: Pod, *, whole: bool) -> Backup | None:
    """A complete backup that began after the jobs ended; None while there is none yet.

    Its id is written down as soon as it is known, so that nobody who goes on with the task begins another.
    """
    backup_id = claim.task.progress.get("backup_id") or await _begin_backup(account, claim, pod, whole=whole)
    if backup_id is None:
        return None
    log.info("Backup %s follows job %s on pod %s", backup_id, claim.task.name, pod.id)
    try:
        backup = await account.lium.backups.get(backup_id)
    except NotFound:
        if claim.is_own:
            await claim.keep(progress=_begun_anew(claim))
        raise
    while not backup.is_final and not poller.stop.asked:
        backup = await wait_for_backup(account, poller.anew(), backup, wait_seconds=_BACKUP_LOOK_SECONDS)
        await claim.keep()
    if not backup.is_final:
        return None
    if whole or not backup.is_completed:
        try:
            refuse_unfit(pod, backup, _asked_at(claim.task.progress))
        except Failure:
            await claim.keep(progress=_begun_anew(claim))
            raise
    if whole and backup.completed_at is not None and account.lium.now() - backup.completed_at > _FRESH:
        await claim.keep(progress=_begun_anew(claim))  # whoever took it was away for long: the next step takes another
        return None
    return backup


async def _begin_backup(account: Account, claim: Claim, pod: Pod, *, whole: bool) -> str | None:
    listed = await account.lium.backups.list(pod_id=pod.id)
    progress = claim.task.progress
    if "asked_at" not in progress:
        before = [backup.id for backup in listed]
        progress = {**progress, "backups_before": before, "asked_at": account.lium.now().isoformat()}
        await claim.keep(progress=progress)
    # A server that asked for one may have ended before it wrote which one it is.
    begun = [backup.id for backup in listed if _began_later(backup, progress)]
    if begun:
        [backup_id, *_] = begun
        if whole:
            refuse_partial(pod, await account.lium.backup_schedules.get_for_pod(pod.id))
    else:
        started = await start_backup(account, pod, name="final", whole=whole)
        backup = await read_started(account, pod, started)
        if started.joined and not _began_later(backup, progress):
            return None  # it may miss what was written since it began: the next one is ours
        backup_id = started.backup_id
    await claim.keep(progress={**progress, "backup_id": backup_id})
    return backup_id


def _began_later(backup: Backup, progress: Mapping[str, Any]) -> bool:
    is_new = backup.id not in progress["backups_before"]
    usable = backup.is_completed or not backup.is_final
    return is_new and usable and backup.began_since(_asked_at(progress), clocks_differ=_CLOCKS_DIFFER) is True


def _asked_at(progress: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(progress["asked_at"])


async def _at_work(account: Account, pod: Pod) -> AtWork:
    async with _connected(account, pod) as connection:
        return await all_at_work(account, pod, connection)


@asynccontextmanager
async def _connected(account: Account, pod: Pod) -> AsyncIterator["Connection"]:
    """A connection to a pod, for as long as one look may take.

    Raises:
        NotNow: there is none, or what is done over it fails.
    """
    access = pod_access(account)
    try:
        with anyio.fail_after(_SSH_SECONDS):
            async with access.to(pod) as connection:
                yield connection
    except Failure as failure:
        raise NotNow(failure.code) from failure


async def _note_missing(account: Account, claim: Claim) -> None:
    """Note that Lium shows the task's own key no such pod, and believe it the second time."""
    since = claim.task.progress.get("missing_since")
    if since is None:
        await claim.keep(progress={**claim.task.progress, "missing_since": account.lium.now().isoformat()})
    elif account.lium.now() - datetime.fromisoformat(since) >= MISSING_FOR and not await is_kept_by_record(
        account, claim.task.subject
    ):
        access = account.pod_access
        if access is not None:
            await access.gone(claim.task.subject)
        if claim.task.progress.get("removal_ordered"):
            await claim.finish("done", f"pod removed after backup {claim.task.progress.get('backup_id')}")
        else:
            await claim.finish("gone", "Lium has no such pod any more, so nothing could follow the job")


async def _end(claim: Claim, pod: Pod) -> None:
    """Close the task of a pod of which Lium says that it will not run any more."""
    if claim.task.progress.get("removal_ordered"):
        await claim.finish("done", f"pod removed after backup {claim.task.progress.get('backup_id')}")
    elif pod.is_billing:
        await claim.finish("failed", f"the pod is {pod.state} and bills: nothing could follow the job")
    else:
        await claim.finish("gone", f"the pod is {pod.state}, so nothing could follow the job")


async def _fail(account: Account, claim: Claim, failure: Failure) -> None:
    log.warning("What is to follow job %s on %s failed: %s", claim.task.name, claim.task.subject, failure.code)
    if await try_again_later(account, claim):
        return
    try:
        pod = await account.lium.pods.get(claim.task.subject)
    except LiumError:
        await claim.finish("failed", failure.code)
    else:
        await _give_up(account, claim, pod, failure.code)


async def try_again_later(account: Account, claim: Claim) -> bool:
    """Count what failed, and leave the task for some minutes; False where it has failed often enough.

    Raises:
        LeaseLost, LedgerUnavailable: as `Claim.keep`.
    """
    attempts = claim.task.attempts + 1
    await claim.keep(attempts=attempts)
    if attempts >= _MOST_ATTEMPTS:
        return False
    await claim.leave_until(account.lium.now() + _AGAIN)
    return True


async def _give_up(account: Account, claim: Claim, pod: Pod, code: str) -> None:
    """Close the task as failed, and say so on the pod, where get_job reads it."""
    try:
        async with _connected(account, pod) as connection:
            await note_follow_up(connection, claim.task.name, {"problem": code})
    except (NotNow, TimeoutError):
        log.info("That could not be noted on pod %s", pod.id)
    await claim.finish("failed", code)


def _then(claim: Claim, job: Job) -> str:
    """What was asked for. Programs on the pod can change what the pod says of it, but not what the ledger says."""
    return str(claim.task.payload.get("then") or job.then)


def _begun_anew(claim: Claim, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON values
    """What was done of a task, but for how far its pod is on the way to its end."""
    return {name: value for name, value in claim.task.progress.items() if name not in _OF_THE_END} | values


def _without(progress: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in progress.items() if key != name}
