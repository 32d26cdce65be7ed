"""Tells whose a pod is. Even one that Lium names for a rent, or lists under its name, may be another's."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.fields import read_int
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals.entries import Entry
from lium_mcp.rentals.expected import Expected, still_expected


class NamedAnothers(LiumError):
    """Lium answered a rent with pods that cannot have come of it."""


def is_anothers(entry: Entry, pod: Pod) -> bool:
    """Whether a pod cannot have come of a rent: it was there before, has another name, or is not what was asked for.

    What Lium itself named as the answer is held against the name and the time alone. What it does not state of a pod
    proves nothing.
    """
    if pod.id in entry.known_pod_ids or (pod.pod_name and pod.pod_name.strip() != entry.pod_name.strip()):
        return True
    if pod.was_made_since(entry.created_at) is False:
        return True
    return not entry.confirmed and contradiction_of_request(entry, pod) is not None


def contradiction_of_request(entry: Entry, pod: Pod) -> str | None:
    """Say in words what Lium states of a pod that is not what a rent asked for; None if nothing contradicts."""
    keys = _keys(_request(entry).get("user_public_key"))
    if keys and pod.ssh_keys and keys.isdisjoint(_keys(pod.ssh_keys)):
        return "it has another SSH key"
    return _wanted(entry).other_than_asked(pod)


def is_its_own(entry: Entry, pod: Pod) -> bool:
    """Whether a pod is a rent's by more than its name, so that it may be changed.

    Lium named it as the answer; or it is on the very node that was ordered, or for a rent that left the node to Lium,
    has its SSH key or is stated to be all that was asked for.
    """
    if entry.confirmed:
        return True
    if is_anothers(entry, pod):
        return False
    wanted, request = _wanted(entry), _request(entry)
    if wanted.executor_ids:
        return pod.node_id is not None and (entry.order.get("kind") != "cluster" or pod.cluster_id is not None)
    has_key = not _keys(request.get("user_public_key")).isdisjoint(_keys(pod.ssh_keys))
    return has_key or not wanted.unverified(pod)


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
    nodes = _request(entry).get("executor_uuids", ())

    def is_member(pod: Pod) -> bool:
        if clusters and pod.cluster_id:
            return pod.cluster_id in clusters
        is_there = pod.node_id in nodes if pod.node_id else pod.was_made_since(entry.created_at) is True
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
        f"Lium showed {named} for it, which was there before, has another name or is not what was asked for, and was "
        "left alone",
        effect="unknown",
    )
    return RentOutcomeUnknown(idempotency_key=entry.idempotency_key, pod_name=entry.pod_name, cause=cause)


def _wanted(entry: Entry) -> Expected:
    """What the pods of a rent have to be by its request, and by what is still to be checked of them."""
    expected, request, order = still_expected(entry), _request(entry), entry.order
    nodes = request.get("executor_uuids") if order.get("kind") == "cluster" else [order.get("executor_id")]
    gpu_type = request.get("gpu_type")
    return replace(
        expected,
        executor_ids=tuple(node for node in nodes or () if isinstance(node, str)),
        gpu_types=expected.gpu_types or ((gpu_type,) if isinstance(gpu_type, str) and gpu_type else ()),
        gpu_count=expected.gpu_count or read_int(request.get("gpu_count")),
    )


def _request(entry: Entry) -> dict[str, Any]:
    request = entry.order.get("request")
    return request if isinstance(request, dict) else {}


def _keys(lines: object) -> set[tuple[str, ...]]:
    """SSH public keys without their comments."""
    if not isinstance(lines, list | tuple):
        return set()
    return {tuple(line.split()[:2]) for line in lines if isinstance(line, str)}
