"""What a pod's state means for who waits for it: it runs, it failed and why, it is on its way, or it was removed."""

from typing import Final, Literal

from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.remote.banner import SshAnswer
from lium_mcp.remote.ssh_addresses import after_failure
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.pod_details import (
    PodView,
    describe_start,
    failure_cause,
    gone_view,
    happened_since_it_ran,
    pod_view,
)
from lium_mcp.services.polling import Poller
from lium_mcp.services.readiness import describe_ssh, may_be_starting, read_pod, wait_for_ssh
from lium_mcp.services.start_failures import Meaning, explain

_UNEXPLAINED: Final = Meaning("", "Rent another node.")

PodOutcome = Literal["done", "failed", "pending", "removed"]


class ObservedPod(Result):
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
    return ObservedPod(outcome="pending", pod=view, next="Not running yet: call get_pod with this pod_id to wait on.")


def judge_gone(view: PodView) -> ObservedPod:
    """Say what it means that a pod, of which this is left, is not there any more."""
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


def settled(pod: Pod | None) -> bool:
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


async def observe(
    account: Account, poller: Poller, pod: PodDetail, *, wait_seconds: float, volume_id: str | None = None
) -> ObservedPod:
    """Wait until a pod runs or failed, and show it; `volume_id` is the volume that it was just given."""
    newest, ssh = await wait_until_ready(account, poller, pod, wait_seconds=wait_seconds)
    if newest is None:
        return judge_gone(await gone_view(account, pod))
    return judge(await pod_view(account, newest, volume_id=volume_id, ssh=ssh), newest, ssh)


async def wait_until_ready(
    account: Account, poller: Poller, pod: PodDetail, *, wait_seconds: float
) -> tuple[PodDetail | None, SshAnswer | None]:
    """Wait until a pod runs and answers SSH, or failed; None for a pod that is gone, and for SSH that nobody saw."""
    newest: PodDetail | None = await poller.until(
        pod, lambda: read_pod(account, pod.id), settled, wait_seconds=wait_seconds, describe=describe_start
    )
    if newest is None or not newest.is_ready or not wait_seconds:
        return newest, None
    is_starting = may_be_starting(account, pod)
    return await wait_for_ssh(account, poller, newest, wait_seconds=wait_seconds, is_starting=is_starting)
