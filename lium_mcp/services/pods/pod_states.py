"""What a pod's state means for whoever waits for it: it runs, failed and why, is on its way, or was removed."""

import re
from typing import Final, Literal

from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.remote.banner import SshAnswer
from lium_mcp.remote.ssh_addresses import after_failure
from lium_mcp.results import Timed
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.pod_details import (
    PodView,
    describe_start,
    failure_cause,
    gone_view,
    pod_view,
)
from lium_mcp.services.pods.pod_events import happened_since_it_ran
from lium_mcp.services.pods.readiness import describe_ssh, may_be_starting, read_pod, wait_for_ssh
from lium_mcp.services.pods.start_failures import Meaning, explain
from lium_mcp.services.polling import OrderedChange, Poller

_NOT_SEEN: Final = (
    "Lium accepted it, but still shows the pod as it was before: no sign of the change was seen. Call get_pod in a "
    "minute: its status and last_events tell whether it came. Until then do not order it again."
)
# Events of a restart that has begun; those that end in `requested` are of the order alone.
_RESTARTED: Final = re.compile(r"pod-(reboot|edit|switch-template)\.(?!requested)\w+")
_UNEXPLAINED: Final = Meaning("", "Rent another node.")

PodOutcome = Literal["done", "failed", "pending", "removed"]


class ObservedPod(Timed):
    """A pod after a wait: whether it runs, failed, is still on its way, or was removed."""

    outcome: PodOutcome
    pod: PodView
    warnings: list[str] | None = None
    next: str | None = None


def judge(view: PodView, pod: Pod, ssh: SshAnswer | None) -> ObservedPod:
    """Say what a pod's state means for the caller, and what came of a look at its SSH server."""
    if pod.is_ready:
        return ObservedPod(outcome="pending" if ssh == "silent" else "done", pod=view, next=describe_ssh(ssh))
    if pod.is_removed:
        return judge_gone(view)
    if pod.is_being_removed:
        return ObservedPod(
            outcome="pending",
            pod=view,
            next=f"It is being removed{failure_cause(view)}: there is nothing left to order. It may bill until it is "
            "gone; get_pod with this pod_id shows its end.",
        )
    if pod.is_terminal:
        return ObservedPod(outcome="failed", pod=view, next=_say_failed(view, pod))
    how = "It runs and bills, but Lium names no SSH address for it yet" if pod.runs else "Not running yet"
    return ObservedPod(
        outcome="pending", pod=_while_it_starts(view), next=f"{how}: call get_pod with this pod_id to wait on."
    )


def _while_it_starts(view: PodView) -> PodView:
    """What somebody who waits for a pod acts upon: its events only where something went wrong."""
    if any(event.error for event in view.last_events or ()):
        return view
    return view.model_copy(update={"template": None, "last_events": None, "note": None})


def judge_gone(view: PodView) -> ObservedPod:
    """Say what it means that a pod is not there any more; `view` is what is left of it."""
    gone = view.model_copy(update={"billing": False})
    events = view.last_events or []
    was_ordered = any((event.status or "").upper() == "DELETING" for event in events)
    has_failed = any(event.error for event in happened_since_it_ran(events))
    if was_ordered or (view.removed_at is not None and not has_failed):
        return ObservedPod(
            outcome="removed",
            pod=gone,
            next=f"The pod is gone: it was removed{failure_cause(view)}. It bills no more; list_backups with "
            "its pod_id shows what is kept of it. rent_pod rents another.",
        )
    meaning = _meaning(view)
    return ObservedPod(
        outcome="failed",
        pod=gone,
        next=_sentences(f"The pod is gone{failure_cause(view)}.", meaning.what, meaning.advice),
    )


def is_over(pod: Pod | None) -> bool:
    """Whether waiting for a pod is over: it runs, it never will, or it is gone."""
    return pod is None or pod.is_ready or (pod.is_terminal and not pod.is_being_removed)


def _say_failed(view: PodView, pod: Pod) -> str:
    meaning = _meaning(view)
    # Its billing is unknown where one that waits for a start has run before.
    has_run = not pod.has_not_started or view.billing is None
    to_keep = "" if meaning.is_removal else after_failure(pod, has_run=has_run)
    return _sentences(f"The pod is {view.status}{failure_cause(view)}.", meaning.what, to_keep, meaning.advice)


def _sentences(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _meaning(view: PodView) -> Meaning:
    """What the steps and codes that Lium names mean."""
    events = happened_since_it_ran(view.last_events or [])
    texts = [text for event in reversed(events) for text in (event.failure, event.error, event.reason, event.detail)]
    return explain(text for text in [*texts, view.removed_because] if text) or _UNEXPLAINED


def has_restarted(before: PodDetail, now: PodDetail | None) -> bool:
    """Whether `now` shows a pod in or after a restart that was ordered when it was as `before`."""
    if now is None or differ(before.state, now.state) or differ(before.ssh_connect_cmd, now.ssh_connect_cmd):
        return True
    old, new = before.template, now.template
    if old and new and (differ(old.id, new.id) or differ(old.image, new.image)):
        return True
    event = now.last_event
    if event is None or not differ(before.last_event, event):
        return False
    kind = event.sub_event_type or event.event_type
    # An event with another state than the row's is ahead of the row, which then still shows what was before.
    return event.state == now.state or (not event.state and _RESTARTED.fullmatch(kind) is not None)


def differ(before: object, now: object) -> bool:
    """Whether two values are both known, and not the same."""
    return bool(before and now) and before != now


async def observe(
    account: Account,
    poller: Poller,
    pod: PodDetail,
    change: OrderedChange[PodDetail | None],
    *,
    wait_seconds: float,
    volume_id: str | None = None,
) -> ObservedPod:
    """Wait until a pod that is restarted runs again or failed, and show it.

    Args:
        account: Whose pod it is.
        poller: Waits.
        pod: The pod after the order.
        change: The restart, which `pod` may not show yet.
        wait_seconds: How long to wait.
        volume_id: The volume that it was just given.
    """
    newest, ssh = await wait_until_ready(account, poller, pod, wait_seconds=wait_seconds, change=change)
    if newest is None:
        return judge_gone(await gone_view(account, pod))
    if not change.is_seen:
        view = await pod_view(account, newest, current=False)
        return ObservedPod(outcome="pending", pod=view, next=_NOT_SEEN)
    return judge(await pod_view(account, newest, volume_id=volume_id, ssh=ssh), newest, ssh)


async def wait_until_ready(
    account: Account,
    poller: Poller,
    pod: PodDetail,
    *,
    wait_seconds: float,
    change: OrderedChange[PodDetail | None] | None = None,
) -> tuple[PodDetail | None, SshAnswer | None]:
    """Wait until a pod runs and answers SSH, or failed, after the change that was ordered, if one was.

    Returns:
        The pod, None where it is gone; and what came of a look at its SSH server, None where nobody looked.
    """
    newest: PodDetail | None = await poller.until(
        pod,
        lambda: read_pod(account, pod.id),
        is_over,
        wait_seconds=wait_seconds,
        describe=describe_start,
        change=change,
    )
    is_current = change is None or change.is_seen
    if newest is None or not newest.is_ready or not wait_seconds or not is_current:
        return newest, None
    is_starting = change is not None or may_be_starting(account, pod)
    return await wait_for_ssh(account, poller, newest, wait_seconds=wait_seconds, is_starting=is_starting)
