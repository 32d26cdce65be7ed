"""The last backup before a removal: a pod is let go only once that backup is really complete.

A backup that takes longer than one call may wait is remembered, so that the next call goes on with it instead of
starting over; not for long after its end, since what is written to the pod later is not in it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from lium_mcp.api.backups import Backup
from lium_mcp.api.errors import LiumError, NotFound
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.figures import rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import (
    PARTIAL,
    SCHEDULE_STAYS,
    StartedBackup,
    read_started,
    read_written,
    refuse_partial,
    standing,
    start_backup,
    wait_for_backup,
)
from lium_mcp.services.failure_words import from_api
from lium_mcp.services.polling import Poller

FinalBackups = dict[str, StartedBackup]
"""The last backups that removals began, by pod."""

_MOST_BACKUPS: Final = 3
_WAYS_OUT: Final = (
    "Wait for its end with get_backup and wait_seconds (Lium gives up one that is stuck, as a rule after ten minutes), "
    "then call {again}. schedule_pod_removal has the pod removed at a time of your choice, whatever runs then. To lose "
    f"that backup now, have a person cancel it on lium.io, or call cancel_backup {IN_EXTRAS}. Where a schedule began "
    "it, delete_backup_schedule keeps the next from beginning."
)
_FRESH: Final = timedelta(minutes=10)
# Far longer than one takes; what it holds is judged anew.
_TOLD_FOR: Final = timedelta(hours=12)
_LOOK_SECONDS: Final = 5.0
_ADVICE: Final = (
    "Try again once. If it fails again too, copy the data with download_files, or in the pod to a volume at /mnt, and "
    "call remove_pod without final_backup, which loses the rest. list_backups with this pod shows what there is."
)


@dataclass(frozen=True, slots=True)
class RemovalQuestion(Question):
    """The question before a removal; the backups in `cut_off` are those that it says would be lost."""

    cut_off: frozenset[str] = frozenset()


async def take_final_backup(
    account: Account, poller: Poller, final_backups: FinalBackups, pod: Pod, *, wait_seconds: float
) -> Backup:
    """Take a last backup of a pod, or go on with the one that an earlier call began.

    Returns:
        The backup, completed or still running.

    Raises:
        Failure: there is no complete backup; the pod was not touched.
    """
    outdated = list[str]()
    while len(outdated) < _MOST_BACKUPS:
        backup = await _take(account, poller, final_backups, pod, wait_seconds=wait_seconds)
        if not backup.is_completed or not await _is_outdated(account, final_backups[pod.id], pod):
            return backup
        outdated.append(backup.id)
        final_backups.pop(pod.id, None)
    raise Failure(
        "final_backup_outdated",
        f"A command, an upload or a new job changed {pod.pod_name} during each of {_MOST_BACKUPS} last backups, so the "
        f"newest, {outdated[-1]}, may lack that.",
        "Call again when nothing is done in the pod, or call remove_pod without final_backup to lose what is not in "
        "the backup.",
        effect=_stays(pod),
    )


async def _take(
    account: Account, poller: Poller, final_backups: FinalBackups, pod: Pod, *, wait_seconds: float
) -> Backup:
    try:
        backup = await earlier_final_backup(account, final_backups, pod)
        if backup is None:
            started = await _begin(account, poller, pod, wait_seconds=wait_seconds)
            final_backups[pod.id] = started
            await _tell_others(account, pod, started)
            backup = await account.lium.backups.get(started.backup_id)
            _refuse_unfit(final_backups, pod, backup)
        backup = await wait_for_backup(account, poller, backup, wait_seconds=wait_seconds)
        _refuse_unfit(final_backups, pod, backup)
    except LiumError as error:
        said = from_api(error)
        raise Failure(said.code, said.happened, _ADVICE, effect=_stays(pod), request_id=error.request_id) from error
    except Failure as failure:
        if not failure.effect.startswith(_stays(pod)):
            failure.effect = f"{_stays(pod)} {failure.effect}"
        raise
    return backup


async def _is_outdated(account: Account, started: StartedBackup, pod: Pod) -> bool:
    """Whether a server has begun something since a backup was asked for that may have changed the pod's files."""
    newest = await _newest_change(account, pod)
    return started.change is not None and newest is not None and newest > started.change


async def _newest_change(account: Account, pod: Pod) -> int | None:
    with suppress(LedgerUnavailable):
        return (await account.rents.work_in(pod.id)).newest_change
    return None


async def _begin(account: Account, poller: Poller, pod: Pod, *, wait_seconds: float) -> StartedBackup:
    """Begin a backup of the whole local volume that holds all that is written by now.

    It waits up to `wait_seconds` for the end of one that runs already.

    Raises:
        Failure: another one is still running, or none could be begun.
        LiumError: Lium refused.
    """
    change = await _announce(account, pod)
    started = await start_backup(account, pod, name="final", whole=True)
    if started.joined:
        begun = await _begun_elsewhere(account, pod)
        if begun is not None and begun.backup_id == started.backup_id:
            return begun
        # It began before this call and may miss what was written since: let it end, then take one of our own.
        await wait_for_backup(account, poller, await read_started(account, pod, started), wait_seconds=wait_seconds)
        change = await _announce(account, pod)
        started = await start_backup(account, pod, name="final", whole=True)
    if started.joined:
        raise Failure(
            "backup_running",
            f"Another backup of {pod.pod_name}, {started.backup_id}, is still running.",
            _WAYS_OUT.format(again="remove_pod with final_backup again"),
            effect=_stays(pod),
        )
    return replace(started, change=change)


async def earlier_final_backup(account: Account, final_backups: FinalBackups, pod: Pod) -> Backup | None:
    """The last backup that an earlier call began, if a removal may rest on it: it runs, or was complete just now.

    Raises:
        Failure: it is unfit, which is said once; the next call takes another.
        LiumError: it could not be read.
    """
    started = final_backups.get(pod.id)
    if started is None:
        started = await _begun_elsewhere(account, pod)
        if started is None:
            return None
        final_backups[pod.id] = started
    try:
        backup = await account.lium.backups.get(started.backup_id)
    except NotFound:
        return None
    _refuse_unfit(final_backups, pod, backup)
    if backup.is_completed and account.lium.now() - (backup.completed_at or started.asked_at) > _FRESH:
        return None
    return backup


async def _tell_others(account: Account, pod: Pod, started: StartedBackup) -> None:
    """Note for the other servers of the ledger that a last backup was begun, so that none of them begins another."""
    with suppress(LedgerUnavailable):
        until = started.asked_at + _TOLD_FOR
        await account.rents.notes.keep(_note_of(pod), started.as_written(), until=until)


async def _announce(account: Account, pod: Pod) -> int | None:
    """Note for the other servers that a last backup is asked for now: this one may end before it hears which one it is.

    What another server has announced stands, as long as nothing changed in the pod.

    Returns:
        The id of the last change in the pod by a server, see `PodWork`; None where nobody can tell.
    """
    change, now = await _newest_change(account, pod), account.lium.now()
    with suppress(LedgerUnavailable, ValueError, TypeError, KeyError):
        written = await account.rents.notes.read(_note_of(pod))
        is_announced = written is not None and "backup_id" not in written and written["change"] == change
        if is_announced and now - datetime.fromisoformat(written["asked_at"]) <= _FRESH:
            return change
    with suppress(LedgerUnavailable):
        before = [backup.id for backup in await account.lium.backups.list(pod_id=pod.id)]
        announced = {"asked_at": now.isoformat(), "change": change, "backups_before": before}
        await account.rents.notes.keep(_note_of(pod), announced, until=now + _TOLD_FOR)
    return change


async def _begun_elsewhere(account: Account, pod: Pod) -> StartedBackup | None:
    """The last backup that another server of the ledger began, if a removal may rest on it; else another is taken."""
    with suppress(LedgerUnavailable, LiumError, Failure, ValueError, TypeError, KeyError):
        written = await account.rents.notes.read(_note_of(pod))
        if written is not None:
            told = "backup_id" in written
            started = read_written(written) if told else await _find_announced(account, pod, written)
            backup = await account.lium.backups.get(started.backup_id)
            _refuse_another(started, backup)
            refuse_unfit(pod, backup, started.asked_at)
            if not (backup.is_completed and await _is_outdated(account, started, pod)):
                return started
    return None


async def _find_announced(account: Account, pod: Pod, written: Mapping[str, Any]) -> StartedBackup:
    """The backup that a server asked for which ended before it wrote which one it is.

    Raises:
        KeyError: there is none.
        Failure: the pod's schedule leaves out a part.
        LiumError: Lium does not say.
    """
    asked_at, before = datetime.fromisoformat(written["asked_at"]), written["backups_before"]
    for backup in await account.lium.backups.list(pod_id=pod.id):
        is_usable = backup.is_completed or not backup.is_final
        if backup.id not in before and is_usable and backup.began_since(asked_at) is True:
            schedule = await account.lium.backup_schedules.get_for_pod(pod.id)
            refuse_partial(pod, schedule)
            if schedule is not None:
                return StartedBackup(backup.id, schedule, False, False, asked_at, change=written["change"])
    raise KeyError("backup_id")


def _note_of(pod: Pod) -> str:
    return f"final backup of {pod.id}"


async def find_running_backup(
    account: Account, final_backups: FinalBackups, agreed: Question | None, pod: Pod
) -> Backup | None:
    """The backup that a removal now would cut off, or might where Lium does not say whether it runs.

    It is read within a few seconds: the end of the billing does not wait for it.

    Raises:
        Failure: one runs, and no person was told so and agreed. Or one may run, and it is the last backup that an
            earlier removal began; this is said once, so that the billing can be ended whatever becomes of the backup.
    """
    backups: Sequence[Backup] | None = None
    with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
        backups = await account.lium.backups.list(pod_id=pod.id)
    running = [backup for backup in backups or () if not backup.is_final]
    told = agreed.cut_off if isinstance(agreed, RemovalQuestion) else frozenset[str]()
    for backup in running:
        if backup.is_running and backup.id not in told:
            raise Failure(
                "backup_running",
                f"Backup {backup.id} of {pod.pod_name} is running, and would be lost.",
                _WAYS_OUT.format(again="again, or remove_pod with final_backup"),
                effect=_stays(pod),
            )
    begun = final_backups.pop(pod.id, None)
    is_ours = begun is not None and (backups is None or any(backup.id == begun.backup_id for backup in running))
    if begun is not None and is_ours and agreed is None:
        raise Failure(
            "final_backup_running",
            f"The last backup of {pod.pod_name}, {begun.backup_id}, still runs, as far as is known, and would be lost.",
            "Call remove_pod with final_backup to remove after a complete backup, or again without, to lose it.",
            effect=_stays(pod),
        )
    return max(running, key=lambda backup: backup.is_running is True, default=None)


def refuse_unfit(pod: Pod, backup: Backup, asked_at: datetime) -> None:
    """Refuse to rest a removal on a backup that is over and does not hold everything.

    Args:
        pod: Whose backup it is.
        backup: The backup.
        asked_at: When it was asked for, by Lium's clock: what began before may miss what was written by then.

    Raises:
        Failure: it failed, lacks files, holds nothing, or may be older.
    """
    reason = f": {backup.problem[:300]}" if backup.problem else ""
    if backup.is_final and not backup.is_completed:
        raise Failure("final_backup_failed", f"The backup is {backup.state}{reason}.", _ADVICE)
    if backup.is_completed and not backup.began_since(asked_at):
        happened = f"Lium shows backup {backup.id} as the last one, and not that it began after it was asked for."
        raise Failure("final_backup_unproven", happened, _ADVICE)
    if backup.is_empty:
        raise Failure(
            "final_backup_empty",
            f"Backup {backup.id} is {backup.state} and holds no file: it saves only {pod.volume_root[:200]}, and what "
            "lies elsewhere in the pod only download_files saves.",
            "Fetch that with download_files, then call remove_pod without final_backup.",
        )
    if backup.is_partial:
        happened = f"Backup {backup.id} is {backup.state}{reason}. {PARTIAL} It is kept, and can be restored."
        raise Failure(
            "final_backup_partial",
            happened,
            "Make them readable and try again, or call remove_pod without final_backup to lose what is not in it.",
        )


def describe_pending(pod: Pod, backup: Backup) -> str:
    """Say what a removal waits for, and what that costs."""
    return (
        f"{standing(backup)} {_stays(pod)} Wait with get_backup until it is complete, then call remove_pod "
        f"with final_backup again within {_FRESH // timedelta(minutes=1)} minutes."
    )


def _refuse_unfit(final_backups: FinalBackups, pod: Pod, backup: Backup) -> None:
    started = final_backups[pod.id]
    try:
        _refuse_another(started, backup)
        refuse_unfit(pod, backup, started.asked_at)
    except Failure as failure:
        final_backups.pop(pod.id, None)
        made = f" A backup schedule was made for it. {SCHEDULE_STAYS}" if started.schedule_created else ""
        failure.effect = f"{_stays(pod)}{made}"
        raise


def _refuse_another(started: StartedBackup, backup: Backup) -> None:
    if why := started.why_another(backup):
        happened = f"Lium shows backup {backup.id} as the last one, and it is another: {why}."
        raise Failure("final_backup_unproven", happened, _ADVICE)


def _stays(pod: Pod) -> str:
    price = f" and bills {rate_in_usd(pod.price)} an hour" if pod.price is not None and pod.is_billing else ""
    return f"The pod was not removed{price}."
