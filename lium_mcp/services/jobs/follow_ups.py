"""Writes down what is to follow a job, as `start_job` was told: a backup, perhaps with the removal of the pod.

It becomes a task of the ledger before the job starts, so that one server of the account does it (`following.py`), even
where the server that started the job is gone.
"""

import json
import logging
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError, NotFound
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote.jobs import Job, Then
from lium_mcp.rentals import AccountUnknown, AccountWorker, LedgerUnavailable, Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import what_is_not_saved

log = logging.getLogger(__name__)

# A job that has not appeared by then was never started.
_STARTING: Final = timedelta(seconds=120)
_MOST_FILES: Final = 500
_MOST_BYTES: Final = 4096
_FILES_LIVE: Final = timedelta(days=31)


def is_due(job: Job) -> bool:
    """Whether something is still to follow a job, now or when it ends."""
    return job.then != "nothing" and job.followed_by is None and job.status not in ("stopped", "lost")


def tell_of_problem(pod: Pod, job: Job) -> str | None:
    """Say that a pod stays and bills where what was to follow its job failed; None where it did not."""
    problem = (job.followed_by or {}).get("problem")
    if problem is None:
        return None
    removal = pod.removal_scheduled_at
    end = " until a removal time that cannot be read" if pod.has_unreadable_removal else " and has no removal time"
    until = f" until Lium removes it at {removal:%Y-%m-%dT%H:%M:%SZ}" if removal else end
    save = (
        f"Save what you need (download_files, or create_backup for what lies under {pod.volume_root[:200]}), then "
        "remove_pod ends that."
    )
    return f"It is over, and {job.then} was not done as asked ({problem}): the pod stays and bills{until}. {save}"


async def warn_of_unsaved(account: Account, pod: Pod, job: Job) -> list[str]:
    """Say what a backup that follows a job leaves out of its pod; nothing where that cannot be read."""
    if job.then == "nothing" or job.status in ("stopped", "lost"):
        return []
    try:
        unsaved = what_is_not_saved(pod, await account.lium.backup_schedules.get_for_pod(pod.id))
    except LiumError:
        return []
    return [unsaved] if unsaved else []


def refuse_unkept(account: Account, then: Then) -> None:
    """Refuse, before anybody is asked, what is to follow a job where no ledger can be made to write it into.

    Raises:
        Failure: none can.
    """
    if then == "nothing" or account.worker is None:
        return
    try:
        account.rents.refuse_unmakeable()
    except LedgerUnavailable as error:
        raise _not_kept(error) from error


def _not_kept(error: Exception) -> Failure:
    return Failure(
        "follow_up_not_kept",
        f"What is to follow the job cannot be written down: {error}",
        "Call again in a minute, or start it with then=nothing.",
        effect="Nothing was started.",
    )


async def promise(account: Account, pod: Pod, job: str, then: Then) -> Task | None:
    """Write down what is to follow a job that is about to start; None where nothing follows, or it was written before.

    Raises:
        Failure: it cannot be written, so nothing must be started.
    """
    worker = account.worker
    if then == "nothing" or worker is None:
        return None
    try:
        task, is_new = await worker.add("follow_up", pod.id, job, {"then": then}, delay=_STARTING)
    except (AccountUnknown, LedgerUnavailable, LiumError) as error:
        raise _not_kept(error) from error
    return task if is_new else None


async def keep_promise(account: Account, task: Task | None) -> None:
    """Let what was promised begin, now that the job was started."""
    worker = account.worker
    if task is not None and worker is not None:
        with suppress(LedgerUnavailable):  # it begins by itself a little later
            await worker.begin(task)


async def take_back(account: Account, task: Task | None) -> None:
    """Drop what was promised for a job that was not started."""
    worker = account.worker
    if task is not None and worker is not None:
        with anyio.CancelScope(shield=True), suppress(LedgerUnavailable):  # it finds out by itself
            await worker.withdraw(task, "the job was not started")


async def remember(account: Account, pod: Pod, job: Job) -> None:
    """Write down what is to follow a job if nobody has: the pod says what the job was started with."""
    worker = account.worker
    if worker is None or not is_due(job):
        return
    try:
        await worker.add("follow_up", pod.id, job.name, {"then": job.then})
    except (AccountUnknown, LedgerUnavailable, LiumError) as error:
        log.warning("What is to follow job %s on pod %s cannot be written down: %s", job.name, pod.id, error)


async def take_up_files(account: Account, worker: AccountWorker, directory: Path) -> None:
    """Make tasks of the files in which an earlier version remembered follow-ups, and remove them.

    They do not say whose key they were made with, so only a server whose key is shown the pod takes one up.
    """
    for path in await anyio.to_thread.run_sync(lambda: sorted(directory.glob("*.json"))[:_MOST_FILES]):
        read = await anyio.to_thread.run_sync(_read_file, path)
        if read is None:
            continue
        pod_id, job, written_at = read
        try:
            await account.lium.pods.get(pod_id)
            await worker.add("follow_up", pod_id, job, {})
        except NotFound:
            if account.lium.now() - written_at < _FILES_LIVE:
                continue  # perhaps another server's, whose key is shown it
            log.warning("Nothing follows job %s on pod %s: no key of this machine is shown that pod", job, pod_id)
        except (AccountUnknown, LedgerUnavailable, LiumError) as error:
            log.warning("What is to follow job %s on pod %s could not be taken up: %s", job, pod_id, error)
            continue
        await anyio.to_thread.run_sync(_remove_file, path)


def _read_file(path: Path) -> tuple[str, str, datetime] | None:
    try:
        row = json.loads(path.read_text()[:_MOST_BYTES])
        written_at = datetime.fromtimestamp(path.stat().st_mtime).astimezone()
        return str(row["pod_id"]), str(row["job"]), written_at
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("A follow-up of an earlier version cannot be read: %s", path.name)
        return None


def _remove_file(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
