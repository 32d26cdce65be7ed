"""When a pod is removed without another call: by Lium at a time, or by this server when it is idle."""

from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.errors import NotFound
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import NOTHING_CHANGED, Failure
from lium_mcp.figures import counted, rounded
from lium_mcp.guard.consent import NOTHING_TO_ASK, Question
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.rentals import REMOVAL_TOLERANCE
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import after_change
from lium_mcp.services.limits_left import changing_life
from lium_mcp.services.pods.idle_removals import (
    ONLY_WITH_A_SERVER,
    WHAT_IS_IDLE,
    IdleRemoval,
    IdleState,
    check_watchable,
    end_idle_removal,
    has_idle_removal,
    idle_states,
    on_last_backup,
    set_before,
    set_idle_removal,
    wanted_removal,
)
from lium_mcp.services.pods.work_told import say_what_works
from lium_mcp.services.targets import find_pod
from lium_mcp.services.unasked import refuse_unasked

UNREADABLE_TIME: Final = "at a time that cannot be read"


class RemovalSchedule(Result):
    """When a pod will be removed: by Lium, as the API says it now, and by this server when it is idle."""

    pod_id: str
    name: str
    removal_at: UtcTime | None = None
    removal_unreadable: bool | None = None
    hours_left: float | None = None
    cost_until_then_usd: Usd | None = None
    idle_minutes: int | None = None
    final_backup: bool | None = None
    next: str | None = None


async def schedule_removal(
    account: Account,
    policy: Policy,
    named: str,
    *,
    hours_from_now: float | None,
    idle_minutes: int | None,
    final_backup: bool | None,
) -> RemovalSchedule:
    """Have a pod removed by Lium in so many hours, by this server once it was idle so long, or whatever comes first.

    Raises:
        Failure: there is no such pod, nothing or what cannot be is asked for, or Lium shows another time than it took.
        PolicyRefused, AccountUnknown, LiumError, LedgerUnavailable: as `changing_life`.
    """
    target = await find_pod(account, named)
    earlier = await set_before(account, target) if idle_minutes is not None else None
    idle = wanted_removal(earlier, hours_from_now=hours_from_now, idle_minutes=idle_minutes, final_backup=final_backup)
    if idle is not None:
        await check_watchable(account, target, idle)
    done, at = "", None
    if hours_from_now is not None:
        async with changing_life(account, policy, target.id, hours_from_now):
            at = account.lium.now() + timedelta(hours=hours_from_now)
            await account.lium.pods.schedule_removal(target.id, at=at)
        await _forget_removal_time(account, target)
        done = f"Lium accepted that {target.pod_name} ({target.id}) is removed at {at:%Y-%m-%dT%H:%M:%SZ}"
    if idle is not None:
        await set_idle_removal(account, target, idle, effect=f"{done}." if done else NOTHING_CHANGED)
    with after_change(f"{done or 'Its removal when idle is set'}."):
        schedule = await _read(account, target)
    if at is not None and (schedule.removal_at is None or abs(schedule.removal_at - at) > REMOVAL_TOLERANCE):
        raise _not_confirmed(schedule, done)
    works = await say_what_works(account, target) if hours_from_now is not None else None
    said = on_last_backup(earlier, idle, is_named=final_backup is not None)
    return schedule.model_copy(update={"next": " ".join(filter(None, (works, said, schedule.next))) or None})


async def cancel_removal(
    account: Account, policy: Policy, agreed: Question | None, named: str, *, only_when_idle: bool
) -> RemovalSchedule:
    """Let a pod be removed neither at a time nor when it is idle, or only not when it is idle.

    Raises:
        Failure: there is no such pod, Lium still shows a time, or a removal that nobody was asked about is set by now.
        PolicyRefused, AccountUnknown, LiumError, LedgerUnavailable: as `changing_life`.
    """
    if only_when_idle or agreed is NOTHING_TO_ASK:
        target = await find_pod(account, named)
        if await has_idle_removal(account, target) or (target.has_removal and not only_when_idle):
            refuse_unasked(agreed, f"A removal of {target.pod_name} ({target.id}) has just been set.")
        was_set = await end_idle_removal(account, target, "cancelled")
        none = f"No removal{' when idle' if only_when_idle else ''} was set."
        said = "It is not removed when idle any more." if was_set else none
        with after_change(said):
            schedule = await _read(account, target)
        ends = schedule.removal_at is not None or target.has_removal
        bills = schedule.next or (None if ends else "It bills until remove_pod or schedule_pod_removal.")
        return schedule.model_copy(update={"next": " ".join(filter(None, (said, bills)))})
    try:
        async with changing_life(account, policy, named, None) as target:
            was_idle = await end_idle_removal(account, target, "cancelled")
            answered = f"Lium accepted that {target.pod_name} ({target.id}) is not removed by schedule"
            try:
                await account.lium.pods.cancel_removal(target.id)
            except NotFound:  # of the schedule or of the pod, which a look at the pod tells
                answered = f"Lium finds no scheduled removal of {target.pod_name} ({target.id})"
    except PolicyRefused as refused:
        target = await find_pod(account, named)
        if not await end_idle_removal(account, target, "cancelled"):
            raise
        with after_change("It is not removed when idle any more."):
            schedule = await _read(account, target)
        kept = f"It is not removed when idle any more. Its removal time stays: {refused}"
        return schedule.model_copy(update={"next": kept})
    await _forget_removal_time(account, target)
    with after_change(f"{answered}."):
        schedule = await _read(account, target)
    if schedule.removal_at is not None or (schedule.removal_unreadable and not target.says_removal_hours):
        raise _not_confirmed(schedule, answered)
    at = target.removal_scheduled_at
    when = f"at {at:%Y-%m-%dT%H:%M:%SZ}" if at else UNREADABLE_TIME if target.has_unreadable_removal else None
    before = [*([when] if when else []), *(["when idle"] if was_idle else [])]
    was = f"It was to be removed {' and '.join(before)}, and is not any more. " if before else ""
    bills = schedule.next or "It bills until remove_pod or schedule_pod_removal."
    return schedule.model_copy(update={"next": f"{was}{bills}"})


async def _forget_removal_time(account: Account, target: Pod) -> None:
    """Note that somebody replaced the removal time of a rent; not before the pod has booted.

    At the boot Lium sets the whole hours of the rent, whatever was set before: the exact time is still to be set then.
    """
    if target.termination_hours is None:
        await account.rents.forget_removal_time(target.id)


async def _read(account: Account, target: Pod) -> RemovalSchedule:
    """Read when Lium will remove a pod.

    Raises:
        LiumError: the pod cannot be read.
    """
    pod = await account.lium.pods.get(target.id)
    at: datetime | None = pod.removal_scheduled_at
    hours = max((at - account.lium.now()).total_seconds(), 0) / 3600 if at else None
    idle = (await idle_states(account)).get(target.id, IdleState()).removal
    return RemovalSchedule(
        idle_minutes=idle.idle_minutes if idle else None,
        final_backup=(idle.final_backup or None) if idle else None,
        pod_id=pod.id,
        name=pod.pod_name or "",
        removal_at=at,
        removal_unreadable=pod.has_unreadable_removal or None,
        hours_left=rounded(hours, 2) if hours is not None else None,
        # At the boot another time is set.
        cost_until_then_usd=pod.price * hours
        if hours is not None and pod.price is not None and not pod.says_removal_hours
        else None,
        next=" ".join(filter(None, (warn_of_boot(pod), _warn_of_idle(pod, idle)))) or None,
    )


def _not_confirmed(schedule: RemovalSchedule, answered: str) -> Failure:
    """Say that Lium shows another removal time than it accepted: what it shows is what counts."""
    if schedule.removal_unreadable:
        shown, effect = "shows a removal time that cannot be read", "When Lium removes the pod is not known."
    elif schedule.removal_at is None:
        shown, effect = "shows no removal time of it", "The pod may bill until it is removed by hand."
    else:
        shown = f"shows its removal at {schedule.removal_at:%Y-%m-%dT%H:%M:%SZ}"
        effect = "As it stands, the pod bills until then and is removed then."
    return Failure(
        "schedule_not_confirmed",
        f"{answered}, but {shown}.",
        "Call get_pod to look again; if that stays, call this again, or remove_pod when the work is done.",
        effect=effect,
    )


def _warn_of_idle(pod: Pod, idle: IdleRemoval | None) -> str | None:
    if idle is None:
        return None
    bills = "" if pod.has_removal else " Until then it bills: hours_from_now sets an end that Lium itself keeps."
    return f"{WHAT_IS_IDLE} {ONLY_WITH_A_SERVER}{bills}"


def warn_of_boot(pod: Pod) -> str | None:
    """Say that a removal time which is set before the boot does not last."""
    # Until the boot Lium keeps the hours of the rent. At the boot it sets the removal by them, whatever was set before.
    if pod.termination_hours is None:
        return None
    later = counted(pod.termination_hours, "hour")
    return f"When the pod starts, Lium sets its removal to {later} later: call again once it runs."
