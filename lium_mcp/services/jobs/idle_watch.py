"""Removes a pod once its GPUs were read as idle for as long as somebody asked for, after a last backup if wanted.

Each step is one reading. Only readings that succeeded, were idle and came soon after one another make up the time, so a
pod that could not be read, a server that was away, or a job that ran begins it anew. Before a removal the claim on the
task is kept: whoever cancels it before that is in time.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from lium_mcp.api.errors import (
    LiumError,
    NotFound,
)
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.rentals import OTHERS_SECONDS, Claim, NotNow
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import REFUSALS, from_api
from lium_mcp.services.jobs.following import back_up
from lium_mcp.services.jobs.pod_use import what_is_cut_off
from lium_mcp.services.pods.at_work import removing
from lium_mcp.services.pods.idle_readings import IdleReading, read_idleness
from lium_mcp.services.pods.idle_removals import (
    FAILED_AT,
    IDLE_SINCE,
    KEPT_BECAUSE,
    PROBLEM,
    READ_AT,
    REMOVAL_ORDERED,
    IdleRemoval,
    read_moment,
    read_removal,
)
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.pods.removing import MISSING_FOR, start_removal
from lium_mcp.services.polling import Poller
from lium_mcp.services.removed_pods import is_kept_by_record
from lium_mcp.text import shortened

log = logging.getLogger(__name__)

_EVERY: Final = timedelta(seconds=60)
# A server that takes over from one that died does so within this.
_LONGEST_GAP: Final = timedelta(minutes=3)
# Lium's clock is known to the second, and corrected with each answer.
_CLOCK_STEPS: Final = timedelta(seconds=5)
_READING_SECONDS: Final = 45.0
# Less than the lease, which is prolonged just before.
_REMOVAL_SECONDS: Final = 60.0
_MOST_ATTEMPTS: Final = 3
_MOST_WHY_CHARACTERS: Final = 200
# A last backup that fails is one that is stored and billed, so the next one waits.
_AFTER_FAILURE: Final = timedelta(minutes=30)
_READ: Final = ("moved_bytes", "container", "cpu_seconds", "jobs", "work")


async def watch_idle(account: Account, poller: Poller, claim: Claim) -> None:
    """Read a pod's GPUs once, and remove it if they were idle for long enough. One step of the task, see `Worker`.

    Raises:
        NotNow: this server cannot read them now; others may be able to.
        LeaseLost: another server does it, or it was cancelled.
        LedgerUnavailable: nobody can tell whether one does.
    """
    if not claim.is_own:
        raise NotNow("another key set it", seconds=OTHERS_SECONDS)
    removal = read_removal(claim.task)
    if removal is None:
        raise NotNow("another version wrote it", seconds=OTHERS_SECONDS)
    try:
        await _look(account, poller, claim, removal)
    except NotFound:
        await _note_missing(account, claim)
    except (LiumError, TimeoutError) as error:
        if isinstance(error, REFUSALS):
            await _fail(account, claim, from_api(error))
        else:
            log.info("Pod %s could not be read or removed: %s", claim.task.subject, type(error).__name__)
            await claim.keep(progress=_failed(claim.task.progress) | {KEPT_BECAUSE: "Lium did not answer"})
    except Failure as failure:
        await _fail(account, claim, failure)
    if not claim.is_over:
        await claim.leave_until(account.lium.now() + _EVERY)


async def _look(account: Account, poller: Poller, claim: Claim, removal: IdleRemoval) -> None:
    pod = await account.lium.pods.get(claim.task.subject)
    if pod.is_removed or pod.is_being_removed or (pod.is_terminal and not pod.is_billing):
        await _finish(claim, f"the pod is {pod.state}")
        return
    since = await _read(account, claim, pod)
    if since is None or account.lium.now() - since < timedelta(minutes=removal.idle_minutes):
        return
    if (why := await what_is_cut_off(account, pod, claim.task, but_backups=removal.final_backup)) is not None:
        await claim.keep(progress={**claim.task.progress, KEPT_BECAUSE: why})
        return
    if removal.final_backup:
        await claim.keep(progress={**claim.task.progress, KEPT_BECAUSE: "its last backup comes first"})
        if not await _back_up_while_idle(account, poller, claim, pod):
            return
        backup_id = claim.task.progress.get("backup_id")
        if await _read(account, claim, pod) != since:
            raise _worked_meanwhile(claim, backup_id)
    await _remove(account, claim)


async def _read(account: Account, claim: Claim, pod: Pod) -> datetime | None:
    """Read whether a pod is idle, and write it down; since when all readings were idle, None where this one is not."""
    before = claim.task.progress
    began, reading = await _reading_since(account, pod, before)
    written = _written(began, reading) | _failed(before)
    if not reading.is_idle:
        await claim.keep(progress=written)
        return None
    # What was done for the removal, such as a backup, lasts as long as nothing worked in the pod.
    since = read_moment(before, IDLE_SINCE) or began
    kept = {key: value for key, value in before.items() if key not in ("missing_since", REMOVAL_ORDERED)}
    if _gap(before, began) is None:
        since, kept = began, {}
    await claim.keep(progress=kept | written | {IDLE_SINCE: since.isoformat()})
    return since


async def _reading_since(account: Account, pod: Pod, before: Mapping[str, Any]) -> tuple[datetime, IdleReading]:
    """Read whether a pod is idle, and was so since an earlier reading; and when that began."""
    began = account.lium.now()
    reading = await _reading_of(account, pod)
    gap = _gap(before, began)
    if reading.is_idle and gap is not None:
        read: dict[str, Any] = {name: before.get(name) for name in _READ}
        earlier = IdleReading(True, **read)
        if (why := reading.follows(earlier, gap.total_seconds())) is not None:
            reading = replace(reading, is_idle=False, why=why)
    log.info("Pod %s is %s", pod.id, "idle" if reading.is_idle else f"not idle: {reading.why}")
    return began, reading


def _gap(before: Mapping[str, Any], now: datetime) -> timedelta | None:
    """The time since an idle reading; None where there was none, or too long ago to tell what happened since."""
    read_at = read_moment(before, READ_AT)
    if read_at is None or IDLE_SINCE not in before or not -_CLOCK_STEPS <= now - read_at <= _LONGEST_GAP:
        return None
    return max(now - read_at, timedelta())


def _written(began: datetime, reading: IdleReading) -> dict[str, Any]:
    read = {name: getattr(reading, name) for name in _READ}
    return {READ_AT: began.isoformat(), **read, KEPT_BECAUSE: shortened(reading.why, _MOST_WHY_CHARACTERS) or None}


async def _reading_of(account: Account, pod: Pod) -> IdleReading:
    if not pod.is_ready:
        return IdleReading(False, f"it is {pod.state}", is_read=False)
    try:
        with anyio.fail_after(_READING_SECONDS):
            return await read_idleness(account, pod)
    except (Failure, TimeoutError) as error:
        return IdleReading(False, f"it could not be read ({error})", is_read=False)


async def _back_up_while_idle(account: Account, poller: Poller, claim: Claim, pod: Pod) -> bool:
    """Take a last backup, and read on meanwhile; whether it is complete.

    Raises:
        Failure: there is no complete backup, or the pod worked meanwhile: each attempt is stored and billed.
    """
    is_complete = False
    problem: Exception | None = None
    readings = dict(claim.task.progress)

    async def save() -> None:
        nonlocal is_complete, problem
        try:
            is_complete = await back_up(account, poller, claim, pod)
        except Exception as error:  # noqa: BLE001 - raised below as it is, and not in a group
            problem = error
        group.cancel_scope.cancel()

    # Meanwhile nothing is written but by the backup: each would overwrite what the other has written.
    is_idle = True
    async with anyio.create_task_group() as group:
        group.start_soon(save)
        while is_idle and not poller.stop.asked:
            await poller.stop.pause(poller.clock, _EVERY.total_seconds())
            began, reading = await _reading_since(account, pod, readings)
            is_idle = reading.is_idle
            readings |= _written(began, reading)
        group.cancel_scope.cancel()
    if problem is not None:
        raise problem
    made = claim.task.progress
    if is_idle:  # the next reading follows the last of these
        await claim.keep(progress={**made, **readings})
        return is_complete
    await claim.keep(progress=_failed(made) | {KEPT_BECAUSE: readings[KEPT_BECAUSE]})
    if "asked_at" in made:
        raise _worked_meanwhile(claim, made.get("backup_id"))
    return False


def _worked_meanwhile(claim: Claim, backup_id: str | None) -> Failure:
    """Say that a backup was made for a removal that does not follow."""
    why = claim.task.progress.get(KEPT_BECAUSE) or "there was no reading for minutes"
    backup = f"backup {backup_id}" if backup_id else "that backup"
    return Failure(
        "not_idle_during_backup",
        f"It was not idle all the time while its last backup was made ({why}), so it stays; {backup} is stored and "
        "bills.",
        "",
    )


async def _remove(account: Account, claim: Claim) -> None:
    """Remove the pod, if it still runs now that the claim is kept.

    Raises:
        Failure, LiumError: it may still be there.
    """
    read = claim.task.progress.get("work")
    async with removing(account, claim.task.subject, since=read if isinstance(read, int) else 0) as is_free:
        if not is_free:  # the next reading tells what has begun
            return
        await claim.keep(progress={**claim.task.progress, REMOVAL_ORDERED: True})
        with anyio.fail_after(_REMOVAL_SECONDS):
            pod = await account.lium.pods.get(claim.task.subject)
            is_ordered = pod.is_ready and await start_removal(account, pod)
    if is_ordered:
        await _finish(claim, "the pod was idle")
    else:
        await claim.keep(progress=_failed(claim.task.progress))


async def _finish(claim: Claim, why: str) -> None:
    if claim.task.progress.get(REMOVAL_ORDERED):
        backup_id = claim.task.progress.get("backup_id")
        await claim.finish("done", f"pod removed: it was idle{f', after backup {backup_id}' if backup_id else ''}")
    else:
        await claim.finish("gone", f"{why}, so nothing is left to remove")


async def _note_missing(account: Account, claim: Claim) -> None:
    """Note that Lium shows no such pod, and believe it the second time."""
    since = read_moment(claim.task.progress, "missing_since")
    if since is None:
        # What was done until then says how it went.
        ended = {name: claim.task.progress.get(name) for name in (REMOVAL_ORDERED, "backup_id")}
        await claim.keep(progress=ended | {"missing_since": account.lium.now().isoformat()})
    elif account.lium.now() - since >= MISSING_FOR and not await is_kept_by_record(account, claim.task.subject):
        await pod_access(account).gone(claim.task.subject)
        await _finish(claim, "Lium has no such pod any more")


async def _fail(account: Account, claim: Claim, failure: Failure) -> None:
    attempts = claim.task.attempts + 1
    log.warning("The removal of idle pod %s failed: %s", claim.task.subject, failure.code)
    now = account.lium.now()
    await claim.keep(progress={PROBLEM: failure.happened, FAILED_AT: now.isoformat()}, attempts=attempts)
    if attempts >= _MOST_ATTEMPTS:
        await claim.finish("failed", f"{failure.happened} (code: {failure.code}, tried {attempts} times).")
    else:
        await claim.leave_until(now + _AFTER_FAILURE)


def _failed(progress: Mapping[str, Any]) -> dict[str, Any]:
    """What went wrong the last time, which is told until the pod is removed."""
    return {name: progress[name] for name in (PROBLEM, FAILED_AT) if name in progress}
