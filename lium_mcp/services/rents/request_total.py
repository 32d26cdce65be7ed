"""What is left of a total: pods of the same name that are gone have cost some of it.

A caller who gets no further tries again and again, with the same words or others. Each try is a rent of its own, and
none of them may begin with the whole total. Some hours later a pod of that name is another matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.figures import in_usd, known_sum
from lium_mcp.rentals import Entry, most_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.rents.wish import Wish

_REMEMBERED_FOR: Final = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Total:
    """What the pods of a name may cost together, and what is gone of it.

    Attributes:
        usd: As the caller said it.
        gone_usd: The most that its pods have cost which are not there any more.
    """

    usd: float
    gone_usd: float = 0

    @property
    def left_usd(self) -> float:
        """What may still be spent; below 0 where pods cost more than they should."""
        return self.usd - self.gone_usd

    def left_after(self, most_usd: float | None) -> float | None:
        """What is left of it by what costs so much at most; None where nobody knows that."""
        return None if most_usd is None else max(self.left_usd - most_usd, 0)

    def __str__(self) -> str:
        gone = f", less up to {in_usd(self.gone_usd)} for pods of this name that are gone," if self.gone_usd else ""
        return f"max_total_usd={self.usd:g}{gone}"


def most_usd(price_per_hour_usd: float | None, hours: float | None) -> float | None:
    """The most that a rental costs until Lium removes it; None where nobody knows."""
    return None if price_per_hour_usd is None or hours is None else price_per_hour_usd * most_hours(hours)


def most_usd_of(entries: Sequence[Entry]) -> float | None:
    """The most that rents cost together until Lium removes their pods; None where nobody knows."""
    return known_sum(most_usd(entry.price_per_hour_usd, entry.hours) for entry in entries)


async def total_of(account: Account, wish: Wish, living: Sequence[Entry] = ()) -> Total | None:
    """Read what is left of the total of a rent; None where it has none.

    Args:
        account: Whose ledger is read.
        wish: What is asked for.
        living: Its rents whose pods are there: while there are some, those that went before count.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    if wish.max_total_usd is None:
        return None
    now = account.lium.now()
    since = min((now - _REMEMBERED_FOR, *(entry.created_at for entry in living)))
    gone = [entry for entry in await account.rents.gone(wish.all_names, since) if _ended_at(entry, now) >= since]
    return Total(wish.max_total_usd, sum(_cost_usd(entry, now) for entry in gone))


def _cost_usd(entry: Entry, now: datetime) -> float:
    """The most that a pod cost which is gone; one that never came to run was not billed."""
    if entry.failed_node_id is not None:
        return 0
    lived_hours = (_ended_at(entry, now) - entry.created_at) / timedelta(hours=1)
    return (entry.price_per_hour_usd or 0) * max(lived_hours, 0)  # what has a total was rented at a known price


def _ended_at(entry: Entry, now: datetime) -> datetime:
    """When a pod was gone at the latest: seen to be, or removed by Lium long before anybody looked."""
    ended_at = entry.closed_at or now
    if entry.hours is None:
        return ended_at
    return min(ended_at, entry.created_at + timedelta(hours=most_hours(entry.hours)))
