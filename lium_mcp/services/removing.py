"""Removing pods, now or at a time."""

from contextlib import suppress
from datetime import datetime

import anyio

from lium_mcp.api.errors import BadRequest, Conflict, LiumError, NotFound
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import rounded
from lium_mcp.results import Result, Usd, UtcTime, state_in_words
from lium_mcp.services.accounts import Account
from lium_mcp.services.idle_removals import ONLY_WITH_A_SERVER, WHAT_IS_IDLE, IdleRemoval, idle_removals
from lium_mcp.services.readiness import read_pod

_LOOK_SECONDS = 10.0


class RemovalSchedule(Result):
    """When a pod will be removed: by Lium, as the API says it now, and by this server when it is idle."""

    pod_id: str
    name: str
    removal_at: UtcTime | None = None
    hours_left: float | None = None
    cost_until_then_usd: Usd | None = None
    idle_minutes: int | None = None
    final_backup: bool | None = None
    next: str | None = None


async def forget_removal_time(account: Account, target: Pod) -> None:
    """Note that somebody replaced the removal time of a rent; not before the pod has booted.

    At the boot Lium sets the whole hours of the rent, whatever was set before: the exact time is still to be set then.
    """
    if target.termination_hours is None:
        await account.rents.forget_removal_time(target.id)


async def start_removal(account: Account, target: Pod) -> bool:
    """Order the removal of a pod, unless that is under way already. The pod's name is free once it is gone.

    Returns:
        False where Lium says that it has no such pod, or none for this key.

    Raises:
        Failure: Lium refuses to remove it now.
        LiumError: the order failed, or what became of it is not known.
    """
    accepted = target.is_being_removed or await _order_removal(account, target)
    await account.rents.note_removal(target.id)
    return accepted


async def _order_removal(account: Account, target: Pod) -> bool:
    try:
        await account.lium.pods.remove(target.id)
    except NotFound:
        return False
    except (BadRequest, Conflict) as error:
        starting = (
            "A pod that is still starting can be removed once it runs: wait with get_pod, then call remove_pod again; "
            "or call schedule_pod_removal now."
        )
        raise Failure(
            "removal_refused",
            f"Lium refused to remove {target.pod_name} ({target.id}), which is {state_in_words(target.status)}: "
            f"{error}.",
            error.advice if target.runs else starting,
            effect="The pod is still there.",
            request_id=error.request_id,
        ) from error
    except LiumError as error:
        came = False
        if error.effect == "unknown":
            with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
                pod = await read_pod(account, target.id)
                came = pod is None or not pod.is_alive
        if not came:
            raise
    return True


async def is_gone(account: Account, pod_id: str) -> bool:
    """Whether Lium says of the pod itself that it is gone: a list may lack it before, while it may bill."""
    pod = await read_pod(account, pod_id)
    return pod is None or pod.is_removed


async def read_end(account: Account, target: Pod) -> tuple[bool, float | None]:
    """Whether Lium's record says that a pod is gone, and what it was charged; None where Lium does not say it yet."""
    # The removal is what matters; get_spending has the figure later.
    with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
        if await account.lium.supports("run_record"):
            record = await account.lium.pods.record(target.id)
            return record.removed is True, record.total or (record.total if target.has_not_started else None)
    return False, None


async def read_removal_schedule(account: Account, target: Pod) -> RemovalSchedule:
    """Read when Lium will remove a pod.

    Raises:
        LiumError: the pod cannot be read.
    """
    pod = await account.lium.pods.get(target.id)
    at: datetime | None = pod.removal_scheduled_at
    hours = max((at - account.lium.now()).total_seconds(), 0) / 3600 if at else None
    idle = (await idle_removals(account)).get(target.id)
    return RemovalSchedule(
        idle_minutes=idle.idle_minutes if idle else None,
        final_backup=(idle.final_backup or None) if idle else None,
        pod_id=pod.id,
        name=pod.pod_name or "",
        removal_at=at,
        hours_left=rounded(hours, 2) if hours is not None else None,
        cost_until_then_usd=pod.price * hours if hours is not None and pod.price is not None else None,
        next=" ".join(filter(None, (_warn_of_boot(pod), _warn_of_idle(pod, idle)))) or None,
    )


def not_confirmed(schedule: RemovalSchedule, answered: str) -> Failure:
    """Say that Lium shows another removal time than it accepted: what it shows is what counts."""
    if schedule.removal_at is None:
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
    ends = pod.removal_scheduled_at is not None or pod.termination_hours is not None
    bills = "" if ends else " Until then it bills: hours_from_now sets an end that Lium itself keeps."
    return f"{WHAT_IS_IDLE} {ONLY_WITH_A_SERVER}{bills}"


def _warn_of_boot(pod: Pod) -> str | None:
    # Until the boot Lium keeps the hours of the rent. At the boot it sets the removal by them, whatever was set before.
    if pod.termination_hours is None:
        return None
    return (
        f"When the pod starts, Lium sets its removal to {pod.termination_hours} hours later: call again once it runs."
    )
