"""What an account is committed to and what it has spent, as far as the limits count it. It computes; it reads nothing.

What is committed is counted from the pods that live and from the rents of the ledger that Lium does not list yet, so
that two servers of one account cannot pass a limit together.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lium_mcp.api.account import BillingStatement
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import LATE_HOURS, Entry, Extension, PastCost, most_hours, of_its_name, offered_per_hour_usd

_OVERDUE = timedelta(hours=1)
# How long charges may take to appear in the statement: of a pod that is in it, and of one that is not yet.
_LAST_CHARGES = timedelta(minutes=15)
_LATE_CHARGES = timedelta(hours=1)
FIRST_CHARGES = timedelta(days=1)
# How long Lium may go on listing the removal time that it had before a later one was admitted.
_SHOWN_WITHIN = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Commitment:
    """A pod that lives, or a rent that may have made some.

    Attributes:
        price_per_hour_usd: None where nobody knows.
        hours_left: Until its removal, with those by which Lium may be late; None where none is set.
    """

    name: str
    pods: int
    price_per_hour_usd: float | None
    hours_left: float | None


def commitments(
    pods: Rows[Pod], entries: Sequence[Entry], extensions: Sequence[Extension], now: datetime
) -> list[Commitment]:
    """What lives, and what the ledger says may live without being listed: a list may be older than it, or short.

    Rows of the list that cannot be read are pods too. A pod lives as long as was admitted lately, if that is longer,
    and costs what it was admitted at, if Lium lists less.
    """
    alive = [pod for pod in pods if pod.is_alive]
    listed = {pod.id for pod in pods}
    lately = {item.pod_id: item for item in extensions if pods.asked_at < item.admitted_at + _SHOWN_WITHIN}
    admitted_usd = offered_per_hour_usd(entries)
    items = [
        Commitment(
            pod.pod_name or pod.id,
            1,
            None if pod.price is None else max(pod.price, admitted_usd.get(pod.id, 0)),
            _admitted_hours_left(pod, lately.get(pod.id), now),
        )
        for pod in alive
    ]
    if pods.skipped:
        items.append(Commitment("(unreadable)", pods.skipped, None, None))
    for entry in entries:
        unlisted = entry.pod_count if not entry.pod_ids else len(set(entry.pod_ids) - listed) + entry.missing_count
        if unlisted and not _is_listed_by_name(entry, alive):
            price = None if entry.price_per_pod_hour_usd is None else entry.price_per_pod_hour_usd * unlisted
            hours = None if entry.hours is None else most_hours(entry.hours)
            items.append(Commitment(entry.pod_name, unlisted, price, hours))
    return items


def _admitted_hours_left(pod: Pod, extension: Extension | None, now: datetime) -> float | None:
    hours = hours_left(pod, now)
    if hours is None:
        return None
    admitted = 0 if extension is None else (extension.removal_at - now).total_seconds() / 3600
    return max(hours, admitted) + LATE_HOURS


def hours_left(pod: Pod, now: datetime) -> float | None:
    """The hours until a pod's removal; the whole hours of its rent while it has not booted.

    None where no removal is set, where it cannot be read, and where one was due long ago: nobody knows when such a pod
    goes.
    """
    if pod.has_unreadable_removal:
        return None
    if pod.termination_hours is not None and pod.termination_hours > 0:
        return float(pod.termination_hours)
    if pod.removal_scheduled_at is None or pod.removal_scheduled_at < now - _OVERDUE:
        return None
    return max((pod.removal_scheduled_at - now).total_seconds(), 0) / 3600


def spent_usd(
    statement: BillingStatement, pods: Sequence[Pod], removed: Sequence[PastCost], since: datetime, now: datetime
) -> float | None:
    """What was charged in a period, and what will be: charges reach the statement late. None where Lium does not say.

    A pod that lives counts for at least its price since it was made. A rent that was closed lately counts for its price
    until then, or where the statement has charges for it already, for the last minutes that may be missing there.
    """
    if statement.total is None:
        return None
    charged: dict[str, float] = defaultdict(float)
    for row in statement.pods:
        charged[row.pod_id] += max(row.total or 0.0, 0.0)
    total = max(statement.total, sum(charged.values()))
    for pod in pods:
        # One that starts over bills on while it is pending.
        if pod.is_alive and pod.created_at is not None:
            total += max(_cost(pod.price, max(pod.created_at, since), now) - charged.get(pod.id, 0.0), 0)
    for entry in removed:
        total += _late_charges(entry, sum(charged.get(pod_id, 0.0) for pod_id in entry.pod_ids), since, now)
    return total


def _late_charges(entry: PastCost, charged_usd: float, since: datetime, now: datetime) -> float:
    """What may have been charged for a closed rent beside what the statement has."""
    if now - entry.closed_at > (_LATE_CHARGES if charged_usd else FIRST_CHARGES):
        return 0
    cost = _cost(entry.price_per_hour_usd, max(entry.created_at, since), entry.closed_at)
    if charged_usd:
        cost = min(cost - charged_usd, (entry.price_per_hour_usd or 0) * _LAST_CHARGES.total_seconds() / 3600)
    return max(cost, 0)


def _cost(price_per_hour_usd: float | None, begin: datetime, end: datetime) -> float:
    return (price_per_hour_usd or 0) * max((end - begin).total_seconds(), 0) / 3600


def committed_usd(items: Sequence[Commitment]) -> float | None:
    """What the commitments may still cost; None where nobody knows, or one has no end."""
    total = 0.0
    for item in items:
        if item.hours_left is None or item.price_per_hour_usd is None:
            return None
        total += item.hours_left * item.price_per_hour_usd
    return total


def _is_listed_by_name(entry: Entry, alive: Sequence[Pod]) -> bool:
    """Whether an unsettled rent's pod is in the list already: counted there, with the API's own price."""
    return not entry.pod_ids and len(of_its_name(entry, alive)) >= entry.pod_count
