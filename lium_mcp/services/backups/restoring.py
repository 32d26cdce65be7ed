"""Restoring one backup into many pods: started a few at a time, waited for together, each with its own outcome.

A restore writes over what is there, so it goes only where nothing is. Where this server can log in, it looks; where it
cannot, a directory that somebody named needs a person's yes for that pod, and one that nobody named gets a new name.
"""

import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import anyio

from lium_mcp.api.backups import Backup
from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.restores import Restore
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.guard.consent import Question
from lium_mcp.remote.restore_targets import TargetState, look
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import check_path, volume_root
from lium_mcp.services.backups.restore_turns import KnownRestore, KnownRestores, RestoreTurns, first_writing_to
from lium_mcp.services.failure_words import from_api
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.polling import Poller
from lium_mcp.services.targets import listed

_AT_ONCE: Final = 8
_EVERY_SECONDS: Final = 4.0
_LOOK_SECONDS: Final = 6.0
_DEFAULT_NAME: Final = "restored"

_REFUSALS: Final[dict[TargetState, tuple[str, str]]] = {
    "content": ("restore_target_not_empty", "is not empty, and a restore would write over what is there"),
    "link": ("restore_target_not_empty", "leads through a symbolic link, so what it would write over is not known"),
    "mount": ("restore_target_not_empty", "is on another file system than the local volume, which a restore misses"),
    "unseen": (
        "restore_target_unseen",
        "was named, and nobody could look whether files are there that a restore would write over",
    ),
}


class RestoreView(Result):
    """One restore."""

    restore_id: str
    pod_id: str | None = None
    backup_id: str | None = None
    status: str | None = None
    partial: bool | None = None
    of_partial_backup: bool | None = None
    stage: str | None = None
    progress_percent: float | None = None
    path: str | None = None
    created_at: UtcTime | None = None
    started_at: UtcTime | None = None
    completed_at: UtcTime | None = None
    problem: str | None = None
    message: str | None = None


class PodRestore(Result):
    """What came of a restore into one pod."""

    pod: str
    outcome: Outcome
    restore: RestoreView | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class UnseenTargets(Question):
    """A question about pods into which nobody could look.

    Attributes:
        unseen: Their ids.
    """

    unseen: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Run:
    """One pod's restore, from the order to its end. `refused` and `problem` say what came of the order."""

    pod: Pod
    ordered_at: datetime
    path: str = ""
    restore_id: str | None = None
    restore: Restore | None = None
    refused: bool = False
    problem: str | None = None

    @property
    def is_over(self) -> bool:
        return self.refused or (self.restore is not None and self.restore.is_final)

    def is_of(self, restore: Restore, backup_id: str) -> bool:
        """Whether a restore is this order's: time, backup and path must not deny its id, and tell where it has none."""
        is_new, asked = restore.began_since(self.ordered_at), (backup_id, self.path)
        said = (restore.backup_id, (restore.restore_path or "").rstrip("/") or None)
        if restore.id == self.restore_id:
            return is_new is not False and all(one in (None, other) for one, other in zip(said, asked, strict=True))
        return self.restore_id is None and is_new is True and said == asked


async def restore_into(
    account: Account,
    poller: Poller,
    agreed: Question | None,
    turns: RestoreTurns,
    backup: Backup,
    pods: Sequence[Pod],
    path: str,
    *,
    wait_seconds: float,
) -> list[PodRestore]:
    """Restore a backup into each of the pods and wait until all of it is over, or the time is.

    `path` is a new or empty directory in each pod; left empty, it is `restored` in the pod's local volume, or a new
    name beside it where that is not seen to be free. A pod where it is neither is refused, and the others go on.
    """
    runs = [_Run(pod, account.lium.now()) for pod in pods]
    await _each(runs, lambda run: _start(account, poller.clock, agreed, turns, backup.id, run, path))

    async def read() -> list[_Run]:
        await _each((run for run in runs if not run.is_over), lambda run: _read_state(account, backup.id, run))
        return runs

    await poller.until(
        await read(),
        read,
        lambda state: all(run.is_over for run in state),
        wait_seconds=wait_seconds,
        describe=lambda state: f"{sum(run.is_over for run in state)} of {len(state)} restores are over",
        every_seconds=_EVERY_SECONDS,
    )
    return [_judge(run, backup) for run in runs]


async def unseen_targets(account: Account, turns: RestoreTurns, pods: Sequence[Pod], path: str) -> list[Pod]:
    """The pods in which nobody can see whether the named path is empty, where a restore would be ordered then."""
    runs = [_Run(pod, account.lium.now()) for pod in pods]
    unseen: set[str] = set()

    async def examine(run: _Run) -> None:
        with suppress(Failure, LiumError):  # the restore itself refuses a path that cannot be one, or is written to
            checked = check_path(run.pod, path, "path")
            known = await turns.known(account, run.pod)
            _refuse_taken(checked, known.unfinished)
            if await _find(account, run.pod, checked, known) == "unseen":
                unseen.add(run.pod.id)

    await _each(runs, examine)
    return [pod for pod in pods if pod.id in unseen]


async def _each(runs: Iterable[_Run], step: Callable[[_Run], Awaitable[None]]) -> None:
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def limited(run: _Run) -> None:
        async with limiter:
            await step(run)

    async with anyio.create_task_group() as group:
        for run in runs:
            group.start_soon(limited, run)


async def _start(
    account: Account, clock: Clock, agreed: Question | None, turns: RestoreTurns, backup_id: str, run: _Run, path: str
) -> None:
    pod = run.pod
    try:
        async with turns.taking(account, clock, pod):
            known = await turns.known(account, pod)
            run.path = await _fresh_path(account, agreed, backup_id, pod, path, known)
            run.ordered_at = account.lium.now()
            await _order(account, turns, backup_id, run)
    except Failure as failure:
        run.refused, run.problem = True, f"{failure.happened} {failure.advice}"
    except LiumError as error:
        said = from_api(error)
        run.refused = error.effect != "unknown"
        run.problem = f"{said.happened} {said.effect}"


async def _order(account: Account, turns: RestoreTurns, backup_id: str, run: _Run) -> None:
    ordered = KnownRestore(run.path)
    turns.note(account, run.pod, ordered)
    try:
        answer = await account.lium.restores.start(run.pod.id, backup_id=backup_id, restore_path=run.path)
    except LiumError as error:
        if error.effect != "unknown":
            turns.forget(ordered)
        raise
    run.restore_id = ordered.restore_id = answer.id


async def _fresh_path(
    account: Account,
    agreed: Question | None,
    backup_id: str,
    pod: Pod,
    path: str,
    known: KnownRestores,
) -> str:
    """Where to restore to, looked at just before the order.

    Raises:
        Failure: the path cannot be used, or would be written over, or an unfinished restore may write there.
    """
    if not path:
        default = check_path(pod, f"{volume_root(pod).rstrip('/')}/{_DEFAULT_NAME}", "path")
        # A name with a part that nobody could have guessed is new wherever it is.
        is_taken = first_writing_to(default, known.unfinished) is not None
        is_fresh = not is_taken and await _find(account, pod, default, known) == "fresh"
        chosen = default if is_fresh else f"{default}-{backup_id[:8]}-{secrets.token_hex(3)}"
        _refuse_taken(chosen, [restore for restore in known.unfinished if restore.path is not None])
        return chosen
    checked = check_path(pod, path, "path")
    _refuse_taken(checked, known.unfinished)
    found = await _find(account, pod, checked, known)
    is_agreed = isinstance(agreed, UnseenTargets) and pod.id in agreed.unseen
    if found == "fresh" or (found == "unseen" and is_agreed):
        return checked
    code, problem = _REFUSALS[found]
    raise Failure(
        code,
        f"path {checked} {problem} (code: {code}).",
        "Leave path out: then it goes into a new directory.",
    )


def _refuse_taken(path: str, unfinished: Iterable[KnownRestore]) -> None:
    writing = first_writing_to(path, unfinished)
    if writing is not None:
        code = "restore_target_taken"
        raise Failure(
            code,
            f"path {path} may be written to by {writing.title}, which is not over (code: {code}).",
            f"Wait for its end with list_restores, or stop it with cancel_restore {IN_EXTRAS}.",
        )


async def _find(account: Account, pod: Pod, path: str, known: KnownRestores) -> TargetState:
    found = await _look(account, pod, path)
    # Where nobody can look, what has been restored there is there still.
    has_been_written = found == "unseen" and first_writing_to(path, known.completed) is not None
    return "content" if has_been_written else found


async def _look(account: Account, pod: Pod, path: str) -> TargetState:
    root = volume_root(pod)
    if path == root:
        return "content"
    access = account.pod_access
    if access is None or not pod.is_ready or not access.is_promising(pod.id):
        return "unseen"
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            async with access.to(pod) as connection:
                return await look(connection, root, path)
    except (Failure, TimeoutError):
        access.note_failure(pod.id)
        return "unseen"


async def _read_state(account: Account, backup_id: str, run: _Run) -> None:
    with suppress(LiumError):  # the newest state that was read stands
        restores = await account.lium.restores.list(run.pod.id)
        if any(restore.id == run.restore_id and not run.is_of(restore, backup_id) for restore in restores):
            # Lium named another restore: the order's own is known by what it asked for, as if the answer had been lost.
            run.problem = f"Lium answered with another restore, {run.restore_id}. Whether this one runs is not known."
            run.restore_id = None
        for restore in restores:
            if run.is_of(restore, backup_id):
                run.restore, run.problem = restore, None
                return


async def list_into(account: Account, pods: Mapping[str, Pod | None]) -> tuple[Rows[Restore], str | None]:
    """The restores into pods, given by their ids, and of which pods they could not be read.

    Raises:
        LiumError: they could be read of none.
    """
    found: Rows[Restore] = Rows()
    unread: dict[str, LiumError] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def read(pod_id: str) -> None:
        async with limiter:
            try:
                rows = await account.lium.restores.list(pod_id)
            except LiumError as error:
                unread[pod_id] = error
            else:
                found.extend(row if row.pod_id else row.model_copy(update={"pod_id": pod_id}) for row in rows)
                found.skipped += rows.skipped
                found.truncated = found.truncated or rows.truncated

    async with anyio.create_task_group() as group:
        for pod_id in pods:
            group.start_soon(read, pod_id)
    if len(unread) == len(pods):
        raise next(iter(unread.values()))
    living = [pod for pod_id in unread if (pod := pods[pod_id]) is not None]
    of = ", ".join([*([listed(living)] if living else []), *(pod_id for pod_id in unread if pods[pod_id] is None)])
    return found, f"Those of these pods could not be read: {of}." if unread else None


def restore_view(restore: Restore, *, of_partial_backup: bool) -> RestoreView:
    """Show a restore, and whether the backup that it is of lacks files."""
    return RestoreView(
        restore_id=restore.id,
        pod_id=restore.pod_id,
        backup_id=restore.backup_id,
        status=restore.state or None,
        partial=restore.is_partial or None,
        of_partial_backup=of_partial_backup or None,
        stage=None if restore.is_final else restore.stage,
        progress_percent=None if restore.is_final else restore.progress,
        path=restore.restore_path,
        created_at=None if restore.started_at else restore.created_at,
        started_at=restore.started_at,
        completed_at=restore.completed_at,
        problem=(restore.problem or "")[:300] or None,
        message=(restore.remark or "")[:300] or None,
    )


def _judge(run: _Run, backup: Backup) -> PodRestore:
    label = f"{run.pod.pod_name} ({run.pod.id})"
    if run.restore is None:
        problem = run.problem or "Lium does not list the restore yet."
        return PodRestore(pod=label, outcome="failed" if run.refused else "pending", problem=problem)
    outcome: Outcome = "pending"
    if run.restore.is_final:
        outcome = "done" if run.restore.state == "COMPLETED" else "failed"
    return PodRestore(
        pod=label, outcome=outcome, restore=restore_view(run.restore, of_partial_backup=backup.is_partial)
    )
