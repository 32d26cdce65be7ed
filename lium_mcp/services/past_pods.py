"""What is shown under the name or id of a pod: the pod, what is left of it, or the order that is to rent it."""

from typing import Final

from lium_mcp.failures import Failure
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.open_rents import find_given_back
from lium_mcp.services.orders.standing_orders import describe, find_lately
from lium_mcp.services.pods.pod_details import PodView, past_view
from lium_mcp.services.pods.pod_states import ObservedPod, PodOutcome, judge_gone
from lium_mcp.services.removed_pods import PodRemoved
from lium_mcp.services.rents.order_view import StandingOrder
from lium_mcp.services.targets import is_id

_NOT_THERE: Final = frozenset({"pod_not_found", "pod_not_known_yet"})


class FoundPod(Result):
    """A pod after a wait, or the standing order of that name."""

    outcome: PodOutcome
    pod: PodView | None = None
    order: StandingOrder | None = None
    warnings: list[str] | None = None
    next: str | None = None


def found_pod(observed: ObservedPod, why: str | None, order: StandingOrder | None = None) -> FoundPod:
    """Show a pod, say why a look removed it, if one did, and which order it came of."""
    warnings = [*(observed.warnings or ()), *([why] if why else ())]
    return FoundPod(
        outcome=observed.outcome, pod=observed.pod, order=order, warnings=warnings or None, next=observed.next
    )


async def find_past(account: Account, named: str, not_found: Failure) -> FoundPod:
    """What is left of a pod that is not there, or the standing order of that name.

    Raises:
        Failure: `not_found`, where nothing is left, or something else was wrong.
        LiumError: it cannot be read.
    """
    if not_found.code not in _NOT_THERE:
        raise not_found
    order = await find_lately(account, named)
    ordered = order.pod_id if order and order.pod_id else named
    if order is None and isinstance(not_found, PodRemoved) and len(not_found.pods) == 1:
        ordered = not_found.pods[0].pod_id
    pod_id, why = await find_given_back(account, named) or (ordered, None)
    past = await past_view(account, pod_id) if is_id(pod_id) else None
    if past is not None:
        return found_pod(judge_gone(past), why, order)
    if order is None:
        raise not_found
    outcome: PodOutcome = "pending" if order.is_open else "removed" if order.status == "cancelled" else "failed"
    return FoundPod(outcome=outcome, order=order, next=describe(account, order))
