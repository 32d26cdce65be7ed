"""The time at which Lium removes a pod by itself: set with the rent, made exact once the pod runs, and read back.

A rent carries whole hours, which the API counts from boot, and at boot it replaces whatever was scheduled meanwhile. So
the exact time can only be set once the pod runs. It depends on the boot alone, so every server sets the same.
"""

from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError
from lium_mcp.api.permits import undoing
from lium_mcp.api.pods.models import Pod, PodDetail, own_events

REMOVAL_TOLERANCE: Final = timedelta(minutes=2)
_AT_ONCE: Final = timedelta(minutes=1)


async def keep_removal_time(
    lium: LiumClient, pod: Pod, hours: float, rented_at: datetime
) -> tuple[PodDetail | None, bool]:
    """Make the removal time of a pod what was asked for, as far as its state allows.

    Returns:
        The pod as it was read back, if a time was set, and whether the API shows a time that is not later than asked.

    Raises:
        LiumError: it could not be set or read back.
    """
    if pod.is_ready:
        due = await _boot(lium, pod, rented_at) + timedelta(hours=hours)
    elif pod.termination_hours is None and pod.removal_scheduled_at is None and not pod.is_terminal:
        due = rented_at + timedelta(hours=hours)  # the API did not take the hours of the rent
    else:
        return None, False
    # A time that is over by now is refused, and setting a later one again and again would put it off for ever.
    if _holds(pod, max(due, lium.now())):
        return None, pod.is_ready
    with undoing():
        await lium.pods.schedule_removal(pod.id, at=max(due, lium.now() + _AT_ONCE))
    newest = await lium.pods.get(pod.id)
    return newest, newest.is_ready and _holds(newest, max(due, lium.now()))


def _holds(pod: Pod, due: datetime) -> bool:
    # An earlier time is somebody's decision, and costs less.
    return pod.removal_scheduled_at is not None and pod.removal_scheduled_at <= due + REMOVAL_TOLERANCE


async def _boot(lium: LiumClient, pod: Pod, rented_at: datetime) -> datetime:
    try:
        for event in own_events(pod, await lium.pods.events(pod.id)):
            if event.state == "RUNNING" and event.created_at:
                return event.created_at
    except LiumError:
        pass  # older servers have no events
    return rented_at
