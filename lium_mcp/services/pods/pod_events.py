"""What happened to a pod: its events as they are shown, and what they say of a failure."""

from collections.abc import Sequence

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import PodEvent
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.text import quotation

_MOST_QUOTED_CHARACTERS = 200
_LAST_EVENTS = 5


class EventView(Result):
    """Something that happened to a pod."""

    at: UtcTime | None = None
    event: str | None = None
    status: str | None = None
    reason: str | None = None
    detail: str | None = None
    failure: str | None = None
    error: str | None = None


async def read_events(account: Account, pod_id: str) -> Sequence[PodEvent]:
    """A pod's events, oldest first; none where Lium has none to tell."""
    try:
        return await account.lium.pods.events(pod_id)
    except LiumError:
        return ()  # older servers have no events; a pod is worth showing without them


def last_events(history: Sequence[PodEvent]) -> list[EventView]:
    """The last events, and before them the one that says why a start failed, where more came after it."""
    events = [_event(item) for item in history]
    last = events[-_LAST_EVENTS:]
    failed = [event for event in happened_since_it_ran(events) if event.error][-1:]
    return last if any(event is one for event in last for one in failed) else [*failed, *last]


def quoted(events: Sequence[EventView]) -> list[str | None]:
    """The texts of events that others may have written."""
    return [text for event in events for text in (event.reason, event.detail, event.failure, event.error)]


def _event(event: PodEvent) -> EventView:
    return EventView(
        at=event.created_at,
        event=event.sub_event_type or event.event_type,
        status=event.to_status,
        reason=event.reason,
        detail=event.detail if event.detail != event.error else None,
        failure=event.failure_step or event.failure_code,
        error=event.error,
    )


def happened_since_it_ran(events: Sequence[EventView]) -> Sequence[EventView]:
    """The events after a pod last came to run: an error from before that is over."""
    runs = [number for number, event in enumerate(events, 1) if (event.status or "").upper() == "RUNNING"]
    return events[runs[-1] :] if runs else events


def cause_of(events: Sequence[EventView]) -> str:
    """The API's own word on why a pod failed, if it left one: a quotation, since images and nodes have a say in it."""
    late = happened_since_it_ran(events)
    errors = [event.error for event in late if event.error]
    reasons = [event.reason for event in late if event.reason]
    said = quotation(next(reversed(errors or reasons), None) or "", _MOST_QUOTED_CHARACTERS)
    return f"; Lium says {said}" if said else ""
