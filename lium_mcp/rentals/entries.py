"""One rent as the ledger has it. Knows no database."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

Status = Literal["sending", "repeated", "unknown", "rented", "removing", "refused", "removed", "absent", "closed"]
"""Open are the first five: the first three may have made a pod, one that is removing has a pod that must go. While
it is sending, only the server that sends it knows of its request; once it is repeated, another has asked again with its
key, and a refusal of the first request alone proves nothing. Absent is a rent that made no pod as far as the pod list
says; closed is one that a person closed."""

UNSETTLED: Final[frozenset[Status]] = frozenset({"sending", "repeated", "unknown"})
CLOSED: Final[frozenset[Status]] = frozenset({"refused", "removed", "absent", "closed"})


class LedgerUnavailable(Exception):
    """The ledger cannot be read or written; what was to be journaled was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One rent, as the ledger has it.

    Attributes:
        account: An HMAC that stands for the account; never its key.
        order: The whole request, see `orders.to_json`.
        asked: Digest of what the caller asked for.
        known_pod_ids: The account's pods before the rent.
        pod_ids: What it rented, once that is known.
        price_per_hour_usd: What was quoted for all pods together, later what the API says.
        ceiling_per_hour_usd: The most that all its pods together may cost; None where anything goes, and once that is
            checked.
        hours: When Lium is to remove the pods, in hours from boot.
        kept_pod_ids: Its pods whose removal time was read back from the API, or replaced by somebody's choice.
        confirmed: The API itself named the pods as the answer to this request.
    """

    account: str
    pod_name: str
    order: dict[str, Any]
    asked: str
    idempotency_key: str
    known_pod_ids: Sequence[str]
    pod_count: int
    created_at: datetime
    price_per_hour_usd: float | None = None
    ceiling_per_hour_usd: float | None = None
    hours: float | None = None
    status: Status = "sending"
    pod_ids: Sequence[str] = ()
    kept_pod_ids: Sequence[str] = ()
    confirmed: bool = False
    note: str = ""
    settled_at: datetime | None = None
    closed_at: datetime | None = None
    id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether its name is taken."""
        return self.closed_at is None

    @property
    def removal_is_set(self) -> bool:
        """Whether nobody has to set a removal time any more."""
        return self.hours is None or (bool(self.pod_ids) and set(self.pod_ids) <= set(self.kept_pod_ids))

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody knows yet what became of it."""
        return self.is_open and self.status in UNSETTLED
