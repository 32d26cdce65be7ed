"""Tells whose a pod is. Even one that Lium names for a rent, or lists under its name, may be another's."""

from collections.abc import Iterable

from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals.entries import Entry


class NamedAnothers(LiumError):
    """Lium answered a rent with pods that cannot have come of it."""


def is_anothers(entry: Entry, pod: Pod) -> bool:
    """Whether a pod cannot have come of a rent: it was there before, or has another name.

    What Lium does not state of it proves nothing.
    """
    if pod.id in entry.known_pod_ids or (pod.pod_name and pod.pod_name.strip() != entry.pod_name.strip()):
        return True
    return pod.was_made_since(entry.created_at) is False


def of_its_name(entry: Entry, pods: Iterable[Pod]) -> list[str]:
    """The ids of pods that have the rent's name and are not known to be another's."""
    return [pod.id for pod in pods if pod.pod_name == entry.pod_name and not is_anothers(entry, pod)]


def missing_members(entry: Entry, pods: Iterable[Pod]) -> list[str]:
    """The ids of listed pods that came of a rent beside those that Lium has named for it; none if they are too many.

    They are in the cluster of those, or have the rent's name and one of its nodes, or were made since where Lium does
    not say on which node.
    """
    listed = list(pods) if entry.missing_count else []
    clusters = {pod.cluster_id for pod in listed if pod.id in entry.pod_ids and pod.cluster_id}
    request = entry.order.get("request")
    nodes = request.get("executor_uuids", ()) if isinstance(request, dict) else ()

    def is_member(pod: Pod) -> bool:
        if clusters and pod.cluster_id:
            return pod.cluster_id in clusters
        node = pod.executor_id or (pod.executor.id if pod.executor else None)
        is_there = node in nodes if node else pod.was_made_since(entry.created_at) is True
        return pod.pod_name == entry.pod_name and is_there

    others = [pod for pod in listed if pod.id not in entry.pod_ids and not is_anothers(entry, pod)]
    found = [pod.id for pod in others if is_member(pod)]
    return found if len(found) <= entry.missing_count else []


def anothers(entry: Entry, pods: Iterable[Pod]) -> list[str]:
    """The ids of a rent's pods, as the entry has them, that are another's by what Lium states of them."""
    return [pod.id for pod in pods if pod.id in entry.pod_ids and is_anothers(entry, pod)]


def not_its_own(entry: Entry, pod_ids: Iterable[str]) -> RentOutcomeUnknown:
    """Return the error for an answer that names another's pods, since it proves nothing about the rent."""
    named = " and ".join(pod_ids)
    cause = NamedAnothers(
        f"Lium named {named} for it, which was there before or has another name, and was left alone", effect="unknown"
    )
    return RentOutcomeUnknown(idempotency_key=entry.idempotency_key, pod_name=entry.pod_name, cause=cause)
