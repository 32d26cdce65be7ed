"""Removals of pods whose GPUs are idle: how one is set, shown and ended. `idle_watch.py` reads the GPUs and removes.

Each is a task of the ledger, done by a server with the key that set it. It only ever ends a pod earlier.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import anyio
from pydantic import BaseModel, ConfigDict, ValidationError

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import NOTHING_CHANGED, Failure
from lium_mcp.rentals import AccountUnknown, LedgerUnavailable, Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import refuse_partial
from lium_mcp.services.pods.idle_readings import BUSY_CPUS, IDLE_BELOW_PERCENT, read_idleness

IDLE_WATCH: Final = "idle_watch"
REMOVAL_ORDERED: Final = "removal_ordered"
READ_AT: Final = "read_at"
IDLE_SINCE: Final = "idle_since"
KEPT_BECAUSE: Final = "kept_because"
PROBLEM: Final = "problem"
FAILED_AT: Final = "failed_at"
_NAME: Final = "idle"
_LOOK_SECONDS: Final = 20.0
_TOLD_FOR: Final = timedelta(days=1)
# A server that looks does so at least this often.
_LOOKED_LATELY: Final = timedelta(minutes=5)
WHAT_IS_IDLE: Final = (
    f"Idle is: at each reading, one a minute, every GPU below {IDLE_BELOW_PERCENT} % and without a process that "
    "nvidia-smi lists, and no job, command or transfer of lium-mcp running; between two, little network traffic, and "
    f"less than {BUSY_CPUS:g} CPUs used, where that can be read."
)
ONLY_WITH_A_SERVER: Final = "Only while a server of lium-mcp with this key runs: none watches otherwise."


class IdleRemoval(BaseModel):
    """What was asked for: to remove a pod once it was idle for so many minutes, perhaps only after a last backup."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    idle_minutes: int
    final_backup: bool = False


@dataclass(frozen=True, slots=True)
class IdleState:
    """How far the removal of a pod when idle is.

    Attributes:
        removal: What was asked for; None where nothing is set any more.
        idle_for_minutes: For how long the pod was idle at the last reading; None where it was not, or nobody knows.
        kept_because: What holds the removal off; None where nothing does but the time.
        problem: What went wrong with the removal.
    """

    removal: IdleRemoval | None = None
    idle_for_minutes: int | None = None
    kept_because: str | None = None
    problem: str | None = None


def wanted_removal(
    earlier: IdleRemoval | None, *, hours_from_now: float | None, idle_minutes: int | None, final_backup: bool | None
) -> IdleRemoval | None:
    """The removal when idle that a call asks for; None where it asks for a time alone.

    What a call leaves out of `final_backup` stays as it was set earlier: no backup is dropped unsaid.

    Raises:
        Failure: it asks for neither, or for a backup that nobody would take.
    """
    if hours_from_now is None and idle_minutes is None:
        raise Failure("invalid_argument", "Give hours_from_now or idle_minutes.", "Correct it and call again.")
    if idle_minutes is not None:
        stays = earlier is not None and earlier.final_backup
        return IdleRemoval(idle_minutes=idle_minutes, final_backup=stays if final_backup is None else final_backup)
    if final_backup:
        raise Failure(
            "invalid_argument",
            "final_backup goes with idle_minutes: at a time, Lium itself removes the pod, without a backup.",
            "Back up with set_backup_schedule, or end with remove_pod and final_backup.",
        )
    return None


def on_last_backup(earlier: IdleRemoval | None, wanted: IdleRemoval | None, *, is_named: bool) -> str | None:
    """Say what becomes of the last backup that was set earlier, where a removal takes the place of another."""
    if earlier is None or wanted is None or not earlier.final_backup or (wanted.final_backup and is_named):
        return None
    if wanted.final_backup:
        return "The last backup that was set earlier stays: it is removed only after it."
    return "The last backup that was set earlier is not taken any more."


async def set_before(account: Account, pod: Pod) -> IdleRemoval | None:
    """The removal when idle that a pod has now.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    task = (await _open_tasks(account)).get(pod.id)
    return read_removal(task) if task else None


async def has_idle_removal(account: Account, pod: Pod) -> bool:
    """Whether a removal when idle is set of a pod, also one that a later version wrote.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    return pod.id in await _open_tasks(account)


def read_removal(task: Task) -> IdleRemoval | None:
    """What a task of the ledger asks for; None where a later version wrote it."""
    with suppress(ValidationError):
        return IdleRemoval.model_validate(task.payload)
    return None


async def check_watchable(account: Account, pod: Pod, wanted: IdleRemoval) -> None:
    """Refuse to set a removal that could never happen: somebody has to log in to the pod and read its GPUs.

    A pod that does not run yet is taken at its word.

    Raises:
        Failure: this server cannot read the pod's GPUs or write the removal down, or the pod's backups would not hold
            everything.
    """
    access = account.pod_access
    if account.worker is None or access is None:
        account.lium.check_api_key()
        raise Failure(
            "idle_not_watched",
            "This server does not log in to pods of this key between calls, so it would not see that one is idle.",
            "Set hours_from_now instead: Lium itself removes the pod then.",
        )
    try:
        account.rents.refuse_unmakeable()
    except LedgerUnavailable as error:
        raise _not_kept(pod, error) from error
    if wanted.final_backup:
        refuse_partial(pod, await account.lium.backup_schedules.get_for_pod(pod.id))
    if not pod.is_ready:
        return
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            reading = await read_idleness(account, pod)
    except TimeoutError:
        problem = "the pod did not answer in time"
    except Failure as failure:
        problem = failure.happened.rstrip(".")
    else:
        if reading.is_read:
            return
        problem = reading.why
    raise Failure(
        "idle_not_readable",
        f"Whether the GPUs of {pod.pod_name} ({pod.id}) are idle cannot be read: {problem}.",
        "Set hours_from_now instead: Lium itself removes the pod then; or try again once get_pod shows its GPUs.",
    )


async def set_idle_removal(account: Account, pod: Pod, wanted: IdleRemoval, *, effect: str) -> None:
    """Let a pod be removed when its GPUs are idle, in place of what was set before.

    Args:
        account: Whose pod it is.
        pod: The pod.
        wanted: When it is to be removed.
        effect: What the call has changed before, for a failure to say.

    Raises:
        Failure: it cannot be written, or the pod is being removed.
    """
    worker = account.worker
    if worker is None:
        return
    try:
        for _ in range(2):  # another call may set one at the same moment
            task, is_new = await worker.add(IDLE_WATCH, pod.id, _NAME, wanted.model_dump())
            if is_new or read_removal(task) == wanted:
                return
            await _end(account, pod, task, "replaced by another")
    except (AccountUnknown, LedgerUnavailable, LiumError) as error:
        raise _not_kept(pod, error, effect) from error
    raise Failure(
        "changed_meanwhile",
        f"Another call sets when {pod.pod_name} ({pod.id}) is removed.",
        "Look with get_pod.",
        effect=effect,
    )


def _not_kept(pod: Pod, error: Exception, effect: str = NOTHING_CHANGED) -> Failure:
    return Failure(
        "idle_not_kept",
        f"That {pod.pod_name} ({pod.id}) is to be removed when idle cannot be written down: {error}",
        "Call again in a minute, or set hours_from_now.",
        effect=effect,
    )


async def end_idle_removal(account: Account, pod: Pod, note: str) -> bool:
    """End the removal of a pod when idle, whichever server watches it; whether one was set.

    Raises:
        Failure: it cannot be ended: the pod is being removed, or the ledger cannot be written.
    """
    try:
        task = (await _open_tasks(account)).get(pod.id)
        if task is None:
            return False
        await _end(account, pod, task, note)
    except LedgerUnavailable as error:
        raise Failure(
            "idle_not_kept",
            f"Whether {pod.pod_name} ({pod.id}) is to be removed when idle cannot be read or changed: {error}",
            "Call again in a minute: until then it may be removed when idle.",
        ) from error
    return True


async def idle_states(account: Account) -> Mapping[str, IdleState]:
    """How far the removals when idle are, by the id of the pod; none where the ledger cannot be read."""
    now, states = account.lium.now(), dict[str, IdleState]()
    with suppress(LedgerUnavailable):
        tasks = await account.rents.tasks(IDLE_WATCH)  # newest first; one may replace another in the same moment
        for task in sorted(tasks, key=lambda task: task.status != "open"):
            if task.subject not in states:
                states[task.subject] = _state(task, now)
    return states


def _state(task: Task, now: datetime) -> IdleState:
    if task.status == "failed" and (task.closed_at or task.created_at) > now - _TOLD_FOR:
        said = (
            f"It is not removed when idle any more: {task.note} It stays, and bills: remove_pod ends that, and "
            "schedule_pod_removal sets it again."
        )
        return IdleState(problem=said)
    if task.status != "open":
        return IdleState()
    removal, problem = read_removal(task), _problem_of(task)
    is_done_now = task.lease_until is not None and task.lease_until > now
    if not is_done_now and task.next_at < now - _LOOKED_LATELY:
        return IdleState(
            removal, kept_because=f"no server has looked since {task.next_at:%Y-%m-%dT%H:%MZ}", problem=problem
        )
    read_at, since = (read_moment(task.progress, name) for name in (READ_AT, IDLE_SINCE))
    idle_for = None if read_at is None or since is None else max(int((read_at - since).total_seconds() // 60), 0)
    return IdleState(removal, idle_for, task.progress.get(KEPT_BECAUSE), problem)


def read_moment(progress: Mapping[str, object], name: str) -> datetime | None:
    """When something happened, as the progress of a task has it."""
    written = progress.get(name)
    return datetime.fromisoformat(written) if isinstance(written, str) else None


def _problem_of(task: Task) -> str | None:
    """What went wrong with the removal that is set, the last time that the pod was idle for long enough."""
    if PROBLEM not in task.progress:
        return None
    return (
        f"Its removal when idle failed at {task.progress[FAILED_AT][:16]}Z: {task.progress[PROBLEM]} It is tried again "
        "half an hour later at the earliest, once the pod is idle for long enough; until then it bills."
    )


async def _open_tasks(account: Account) -> dict[str, Task]:
    tasks = await account.rents.tasks(IDLE_WATCH)
    return {task.subject: task for task in reversed(tasks) if task.status == "open"}


async def _end(account: Account, pod: Pod, task: Task, note: str) -> None:
    if not task.progress.get(REMOVAL_ORDERED) and await account.rents.cancel(task, note):
        return
    if task.progress.get(REMOVAL_ORDERED):
        raise Failure(
            "removal_ordered",
            f"{pod.pod_name} ({pod.id}) was idle for long enough, and its removal is being ordered in this moment.",
            "Call get_pod: if it still runs, call this again.",
        )
