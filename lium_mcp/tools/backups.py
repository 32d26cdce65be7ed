"""Toolset `backups`: schedules, backups and restores of a pod's local volume."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Final, Literal

from pydantic import Field

from lium_mcp.api.backups import BackupSchedule
from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.inputs import ShortText
from lium_mcp.results import Result, Timed, UtcTime, note_on
from lium_mcp.services.as_asked import unlike
from lium_mcp.services.backing_up import (
    DEFAULT_EVERY_HOURS,
    DEFAULT_KEEP_DAYS,
    PARTIAL,
    RESTORED_PARTLY,
    SCHEDULE_STAYS,
    check_path,
    held_path,
    losses,
    read_started,
    refuse_incomplete,
    refuse_undeletable,
    start_backup,
    volume_root,
    wait_for_backup,
)
from lium_mcp.services.backups.backup_details import (
    BackupView,
    EndedBackup,
    ObservedBackup,
    Origin,
    age_key,
    backup_view,
    find_origins,
    judge_backup,
    origin_at_removal,
)
from lium_mcp.services.backups.backup_questions import (
    ask_to_back_up,
    ask_to_delete_backup,
    ask_to_delete_schedule,
    ask_to_restore,
    ask_to_set_schedule,
)
from lium_mcp.services.backups.restoring import PodRestore, RestoreView, list_into, restore_into, restore_view
from lium_mcp.services.backups.whole_backups import undone_by
from lium_mcp.services.pods.at_work import refuse_being_removed
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.targets import find_pod, find_pod_or_past, find_pods, find_pods_or_past
from lium_mcp.services.unasked import refuse_unasked
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import (
    DEFAULT_WAIT_SECONDS,
    BackupId,
    Cursor,
    Limit,
    PodName,
    PodNames,
    WaitSeconds,
    incomplete,
    page,
)
from lium_mcp.toolkit.registry import DESTROYS, DESTROYS_EACH_TIME, READS, WRITES_EACH_TIME, Toolset

toolset = Toolset("backups")

_NO_SCHEDULE: Final = "This pod has no schedule: set_backup_schedule or create_backup makes one."
_WHOSE: Final = (
    "Lium does not say whose those without pod_id are: their pods are gone. list_backups with the id or name of a "
    "removed pod shows its own; get_spending lists removed pods with their ids."
)
_AFTER_RESTORE: Final[dict[Outcome, str]] = {
    "pending": "Call list_restores with the pending pods to look again.",
    "failed": "Repeat it for the pods that failed, once what their problem says is mended. Without path it goes into a "
    "new directory in each; a path has to lie in the local volume of each.",
}


class ScheduleView(Result):
    """When a pod is backed up, and what of it."""

    every_hours: int | None = None
    keep_days: int | None = None
    path: str | None = None
    active: bool | None = None
    next_backup_at: UtcTime | None = None


class PodSchedule(Timed):
    """The schedule of one pod, if it has one."""

    pod_id: str
    name: str
    schedule: ScheduleView | None = None
    before: ScheduleView | None = None
    created: bool | None = None
    warnings: list[str] | None = None
    next: str | None = None


class BackupRows(Timed):
    """One page of backups, newest first; of one pod, with its schedule."""

    schedule: ScheduleView | None = None
    backups: list[BackupView]
    note: str | None = None
    total: int
    incomplete: str | None = None
    next: str | None = None
    next_cursor: str | None = None


class RestoreRows(Timed):
    """One page of restores into pods, newest first."""

    restores: list[RestoreView]
    note: str | None = None
    total: int
    incomplete: str | None = None
    next_cursor: str | None = None


class Restored(Result):
    """What came of a restore, pod by pod; partly done where it failed in some pods only."""

    outcome: Literal["done", "partly_done", "failed", "pending"]
    pods: list[PodRestore]
    note: str | None = None
    warnings: list[str] | None = None
    next: str | None = None


@toolset.tool(
    title="Set backup schedule",
    hints=DESTROYS,
    search_hint="back up automatically every few hours, scheduled backups, snapshots",
    asks=lambda call, **given: ask_to_set_schedule(call.account, **given),
)
async def set_backup_schedule(
    call: Call,
    pod: PodName,
    every_hours: Annotated[int | None, Field(ge=1, le=168, description="Hours between backups; 6 if new.")] = None,
    keep_days: Annotated[int | None, Field(ge=1, le=365, description="Days kept; 7 if new.")] = None,
    path: Annotated[ShortText, Field(description="In the local volume; all of it if new.")] = "",
) -> PodSchedule:
    """Create or change the backup schedule of a pod: how often, for how long, which path. What is left out stays as it
    is; an inactive one is activated. Stored backups bill by size. For a single backup now, use create_backup.
    """
    target = await find_pod(call.account, pod)
    checked = check_path(target, path, "path") if path else None
    schedules = call.lium.backup_schedules
    present = await schedules.get_for_pod(target.id)
    if present is None or present.is_active is False:
        refuse_unasked(call.agreed, f"{target.pod_name} ({target.id}) has no active backup schedule any more.")
    if present is None:
        backup_path = volume_root(target) if checked is None else checked
        hours, days = every_hours or DEFAULT_EVERY_HOURS, keep_days or DEFAULT_KEEP_DAYS
        created = await schedules.create(
            target.id, backup_path=backup_path, backup_frequency_hours=hours, retention_days=days
        )
        told = {"backup_path": backup_path, "backup_frequency_hours": hours, "retention_days": days}
        return PodSchedule(
            pod_id=target.id,
            name=target.pod_name,
            schedule=_schedule(target, created),
            created=True,
            warnings=[
                *await undone_by(call.account, target, backup_path),
                *_not_as_told(target, created.model_copy(update=told), created),
            ]
            or None,
        )
    wanted = present.model_copy(
        update={
            "backup_path": present.backup_path if checked in (None, held_path(target, present)) else checked,
            "backup_frequency_hours": every_hours or present.backup_frequency_hours,
            "retention_days": keep_days or present.retention_days,
            "is_active": True if present.is_active is False else present.is_active,
        }
    )
    if wanted == present:
        return PodSchedule(
            pod_id=target.id, name=target.pod_name, schedule=_schedule(target, present), next="It was so already."
        )
    lost = losses(target, present, keep_days=keep_days, path=checked)
    if checked is not None:
        lost += await undone_by(call.account, target, checked)
    changed = await schedules.update(
        present.id,
        backup_path=wanted.backup_path,
        backup_frequency_hours=wanted.backup_frequency_hours,
        retention_days=wanted.retention_days,
        is_active=True if present.is_active is False else None,
    )
    return PodSchedule(
        pod_id=target.id,
        name=target.pod_name,
        schedule=_schedule(target, changed),
        before=_schedule(target, present),
        warnings=_on_change(target, present, wanted, changed, lost),
    )


@toolset.tool(
    title="Delete backup schedule",
    hints=DESTROYS,
    search_hint="stop automatic, scheduled backups",
    asks=lambda call, **given: ask_to_delete_schedule(call.account, **given),
)
async def delete_backup_schedule(call: Call, pod: PodName) -> PodSchedule:
    """Stop the scheduled backups of a pod. Backups that are stored stay until their time is over."""
    target = await find_pod(call.account, pod)
    schedule = await call.lium.backup_schedules.get_for_pod(target.id)
    if schedule is None:
        return PodSchedule(
            pod_id=target.id, name=target.pod_name, next="This pod had no backup schedule: nothing was changed."
        )
    refuse_unasked(call.agreed, f"{target.pod_name} ({target.id}) has just got a backup schedule.")
    await call.lium.backup_schedules.delete(schedule.id)
    return PodSchedule(pod_id=target.id, name=target.pod_name, next="This pod is not backed up any more.")


@toolset.tool(
    title="List backups",
    hints=READS,
)
async def list_backups(
    call: Call,
    pod: Annotated[ShortText, Field(description="Id or name; default: of all pods, removed ones too.")] = "",
    limit: Limit = 20,
    cursor: Cursor = "",
) -> BackupRows:
    """List backups of the whole account, newest first, or of one pod, with its backup schedule: how often, which path,
    how long kept. A completed one can be restored into any pod with restore_backup.
    """
    pod_id, target = await find_pod_or_past(call.account, pod) if pod else (None, None)
    listed = await call.lium.backups.list(pod_id=pod_id)
    backups = sorted(listed, key=lambda backup: (age_key(backup), backup.id), reverse=True)
    rows, next_cursor = page(backups, limit=limit, cursor=cursor)
    missing, schedule = [incomplete(listed)], None
    if target is not None:
        try:
            schedule = await call.lium.backup_schedules.get_for_pod(target.id)
        except LiumError:
            missing.append("Its schedule could not be read.")
    origins = {} if pod_id else await find_origins(call.account, rows)
    own = Origin.of(target, schedule) if target else Origin(pod_id) if pod_id else None
    views = [backup_view(row, own or origins.get(row.backup_config_id or "")) for row in rows]
    is_without = target is not None and schedule is None and missing == [None]
    return BackupRows(
        schedule=_schedule(target, schedule) if target and schedule else None,
        backups=views,
        note=note_on(*(text for view in views for text in (view.problem, view.message))),
        total=len(backups),
        incomplete=" ".join(filter(None, missing)) or None,
        next=_NO_SCHEDULE if is_without else _WHOSE if any(view.pod_id is None for view in views) else None,
        next_cursor=next_cursor,
    )


@toolset.tool(title="Get backup", hints=READS, search_hint="wait for a backup, its size and progress")
async def get_backup(
    call: Call, backup_id: BackupId, wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS
) -> ObservedBackup:
    """Read one backup: status, progress, size, what went wrong. If it is running, wait until it is over."""
    backup = await call.lium.backups.get(backup_id)
    backup = await wait_for_backup(call.account, call.poller, backup, wait_seconds=wait_seconds)
    origin = (await find_origins(call.account, [backup])).get(backup.backup_config_id or "")
    return judge_backup(backup, origin or origin_at_removal(call.runtime.final_backups, backup))


@toolset.tool(
    title="Create backup",
    hints=WRITES_EACH_TIME,
    search_hint="save my data now, back up, snapshot or snapshots before removing",
    asks=lambda call, **given: ask_to_back_up(call.account, **given),
)
async def create_backup(
    call: Call,
    pod: PodName,
    path: Annotated[ShortText, Field(description="In the local volume; default: what its schedule covers.")] = "",
    name: Annotated[ShortText, Field(description="What to call it on lium.io.")] = "manual",
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> ObservedBackup:
    """Back up a running pod's local volume, or a path in it, now and wait until it is done. Lium needs a schedule for
    that: if the pod has none, one is made, and stays. One that covers another path is left as it is, and this refused.
    """
    target = await find_pod(call.account, pod)
    checked = check_path(target, path, "path") if path else ""
    await refuse_being_removed(call.account, target)
    started = await start_backup(call.account, target, name=name, path=checked, agreed=call.agreed)
    backup = await wait_for_backup(
        call.account, call.poller, await read_started(call.account, target, started), wait_seconds=wait_seconds
    )
    warnings = []
    if started.schedule_created:
        is_said_elsewhere = not backup.has_data or (backup.is_completed and not backup.says_content)
        stays = "" if is_said_elsewhere else SCHEDULE_STAYS
        warnings.append(
            f"The pod had no schedule, so one was made: every {started.schedule.backup_frequency_hours} hours, kept "
            f"{started.schedule.retention_days} days. {stays}".strip()
        )
        if checked:
            warnings += await undone_by(call.account, target, checked)
    if started.wider:
        warnings.append(started.wider)
    if started.joined:
        warnings.append("A backup was running already: this is that one, and may miss what was written since it began.")
    # The schedule was read just before, so that its path is that of this backup.
    saved = held_path(target, started.schedule) if backup.has_data and not started.joined else None
    return judge_backup(backup, Origin.of(target, started.schedule), warnings, path=saved)


@toolset.tool(
    title="Delete backup",
    hints=DESTROYS,
    search_hint="delete a stored snapshot, old snapshots, backups",
    asks=lambda call, **given: ask_to_delete_backup(call.account, **given),
)
async def delete_backup(call: Call, backup_id: BackupId) -> EndedBackup:
    """Delete the stored data of a completed backup for good. Lium does it in the background."""
    refuse_undeletable(await call.lium.backups.get(backup_id))
    await call.lium.backups.delete(backup_id)
    is_deleted = False
    with suppress(LiumError):  # it was ordered, whether that can be looked at or not
        is_deleted = (await call.lium.backups.get(backup_id)).is_deleted
    return EndedBackup(backup_id=backup_id, status="deleted" if is_deleted else "being deleted")


@toolset.tool(
    title="Restore backup",
    hints=DESTROYS_EACH_TIME,
    search_hint="restore snapshots, bring data back, copy it to one pod or many pods",
    asks=lambda call, **given: ask_to_restore(call.account, call.runtime.restore_turns, **given),
)
async def restore_backup(
    call: Call,
    backup_id: BackupId,
    pods: PodNames,
    path: Annotated[ShortText, Field(description="New or empty directory; default: one is made.")] = "",
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> Restored:
    """Write a completed backup into one or many running pods at once and wait; the answer says what came of it in each.
    Nothing is overwritten: a directory with content is refused. rent_pod restores into a new pod.
    """
    backup = await call.lium.backups.get(backup_id)
    refuse_incomplete(backup)
    rows = await restore_into(
        call.account,
        call.poller,
        call.agreed,
        call.runtime.restore_turns,
        backup,
        await find_pods(call.account, pods),
        path,
        wait_seconds=wait_seconds,
    )
    outcomes = {row.outcome for row in rows}
    advice = " ".join(said for outcome, said in _AFTER_RESTORE.items() if outcome in outcomes)
    views = [row.restore for row in rows if row.restore]
    warnings = [PARTIAL] if backup.is_partial else []
    if any(view.partial for view in views):
        warnings.append(RESTORED_PARTLY)
    return Restored(
        outcome=outcomes.pop() if len(outcomes) == 1 else "partly_done" if "failed" in outcomes else "pending",
        pods=rows,
        note=note_on(
            *(row.problem for row in rows), *(text for view in views for text in (view.problem, view.message))
        ),
        warnings=warnings or None,
        next=advice or None,
    )


@toolset.tool(
    title="List restores", hints=READS, search_hint="progress of a restore or restores, into one pod or many pods"
)
async def list_restores(call: Call, pods: PodNames, limit: Limit = 20, cursor: Cursor = "") -> RestoreRows:
    """List the restores into one or many pods with their progress, newest first. restore_backup starts one."""
    listed, missing = await list_into(call.account, await find_pods_or_past(call.account, pods))
    restores = sorted(listed, key=lambda restore: (age_key(restore), restore.id), reverse=True)
    rows, next_cursor = page(restores, limit=limit, cursor=cursor)
    partial = await _partial_backups(call) if any(row.backup_id for row in rows) else frozenset()
    views = [restore_view(row, of_partial_backup=row.backup_id in partial) for row in rows]
    note = note_on(*(text for view in views for text in (view.problem, view.message)))
    missing = " ".join(filter(None, (incomplete(listed), missing))) or None
    return RestoreRows(restores=views, note=note, total=len(restores), incomplete=missing, next_cursor=next_cursor)


async def _partial_backups(call: Call) -> frozenset[str | None]:
    with suppress(LiumError):  # the restores are worth showing without it
        return frozenset(backup.id for backup in await call.lium.backups.list() if backup.is_partial)
    return frozenset()


def _on_change(
    pod: Pod, present: BackupSchedule, wanted: BackupSchedule, changed: BackupSchedule, lost: Sequence[str]
) -> list[str] | None:
    warnings = list(lost)
    if present.is_active is False and changed.is_active is not False:
        warnings.append("The schedule was inactive, and is active now.")
    return [*warnings, *_not_as_told(pod, wanted, changed)] or None


def _not_as_told(pod: Pod, told: BackupSchedule, answered: BackupSchedule) -> list[str]:
    meant, shown = _schedule(pod, told), _schedule(pod, answered)
    pairs = {name: (getattr(meant, name), getattr(shown, name)) for name in ("every_hours", "keep_days", "path")}
    warnings = [
        f"Lium did not say what {name} was: it was not sent. Name it to be sure."
        for name, (asked, _) in pairs.items()
        if asked is None
    ]
    warnings += [f"Lium was told {name}={pairs[name][0]} and shows {pairs[name][1]}." for name in unlike(pairs)]
    if answered.is_active is False:
        warnings.append("The schedule is inactive, so nothing is backed up by it: have a person look at lium.io.")
    return warnings


def _schedule(pod: Pod, schedule: BackupSchedule) -> ScheduleView:
    return ScheduleView(
        every_hours=schedule.backup_frequency_hours,
        keep_days=schedule.retention_days,
        path=held_path(pod, schedule),
        active=schedule.is_active,
        next_backup_at=schedule.next_backup_at,
    )
