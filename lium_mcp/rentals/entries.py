"""One rent as the ledger has it. Knows no database."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

Status = Literal["sending", "unknown", "rented", "removing", "refused", "removed", "absent", "closed"]
"""Open are the first four. While it is sending, its own server waits for the answer; once it is unknown the answer is
lost, whoever says so, and a refusal of the first request alone proves nothing any more. One that is removing has a pod
that must go. Absent is a rent that made no pod as far as several lists say; closed is one that a person closed."""

UNSETTLED: Final[frozenset[Status]] = frozenset({"sending", "unknown"})
"""May have made a pod that nobody knows of."""
CLOSED: Final[frozenset[Status]] = frozenset({"refused", "removed", "absent", "closed"})


TaskKind = Literal["follow_up"]
TaskStatus = Literal["open", "done", "failed", "gone"]
"""Gone is a task whose subject is not there any more, so that nothing is left to do."""
TaskOutcome = Literal["done", "failed", "gone"]


class LedgerUnavailable(Exception):
    """The ledger cannot be read or written; what was to be journaled was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One rent, as the ledger has it.

    Attributes:
        account: A digest that stands for the account.
        key_tag: An HMAC that stands for the key that rented it; never the key. Its 404 for a pod says that it is gone.
        order: The whole request, see `orders.to_json`.
        asked: Digest of what the caller asked for.
        known_pod_ids: The account's pods before the rent.
        pod_ids: What it rented, once that is known.
        price_per_hour_usd: What was quoted for all pods together, later what the API says.
        expected: What its pods have to be to be kept, see `Expected`; None once they were held against it.
        hours: When Lium is to remove the pods, in hours from boot.
        kept_pod_ids: Its pods whose removal time was read back from the API, or replaced by somebody's choice.
        confirmed: The API itself named the pods as the answer to this request.
        handed_out: Another call than the one that rented it was told of its pods.
        unwanted: The call that rented it was cancelled while nobody knew what came of it: what does is removed.
        removal_accepted: Lium has accepted to remove its pods: from then on it has known them, and its 404 says that
            they are gone.
        looks: How often somebody asked Lium about it, since it is unknown or since its pods are not listed.
        next_look_at: Nobody asks again before that.
        missed_lists: How many complete lists lacked a pod of it, some time apart, while it is unknown.
        missed_at: When the last of them was asked for.
    """

    account: str
    key_tag: str
    pod_name: str
    order: dict[str, Any]
    asked: str
    idempotency_key: str
    known_pod_ids: Sequence[str]
    pod_count: int
    created_at: datetime
    price_per_hour_usd: float | None = None
    expected: dict[str, Any] | None = None
    hours: float | None = None
    status: Status = "sending"
    pod_ids: Sequence[str] = ()
    kept_pod_ids: Sequence[str] = ()
    confirmed: bool = False
    handed_out: bool = False
    unwanted: bool = False
    removal_accepted: bool = False
    looks: int = 0
    next_look_at: datetime | None = None
    missed_lists: int = 0
    missed_at: datetime | None = None
    note: str = ""
    settled_at: datetime | None = None
    closed_at: datetime | None = None
    id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether its name is taken."""
        return self.closed_at is None

    @property
    def volume_id(self) -> str | None:
        """The volume that its pod was to have."""
        request = self.order.get("request")
        volume_id = request.get("volume_id") if isinstance(request, dict) else None
        return volume_id if isinstance(volume_id, str) else None

    @property
    def removal_is_set(self) -> bool:
        """Whether nobody has to set a removal time any more."""
        return self.hours is None or (bool(self.pod_ids) and set(self.pod_ids) <= set(self.kept_pod_ids))

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody knows yet what became of it."""
        return self.is_open and self.status in UNSETTLED


@dataclass(frozen=True, slots=True)
class PastCost:
    """What a closed rent may still be charged for: its pods, their price, and when they lived."""

    pod_ids: Sequence[str]
    price_per_hour_usd: float | None
    created_at: datetime
    closed_at: datetime


@dataclass(frozen=True, slots=True)
class Extension:
    """A later removal time that was admitted for a pod, which Lium may not show yet."""

    pod_id: str
    removal_at: datetime
    admitted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something that is to be done for an account between calls, as the ledger has it.

    Attributes:
        account: A digest that stands for the account. Any server of it may do the task.
        key_tag: An HMAC that stands for the key that made it: what it is about may be shown to no other key.
        kind: What is to be done. Whoever does it knows what the payload and the progress mean.
        subject: What it is about, for instance the id of a pod.
        name: Which one of its kind about its subject it is; at most one of a name is open.
        payload: What was asked for. It is never changed.
        progress: What has been done of it, for whoever goes on with it.
        attempts: How often it failed.
        next_at: Nobody claims it before that.
        lease_owner: Names the claim of the server that does it now.
        lease_until: From then on another server may claim it.
        note: What became of it, in a sentence or a code.
    """

    account: str
    key_tag: str
    kind: TaskKind
    subject: str
    name: str
    payload: dict[str, Any]
    created_at: datetime
    next_at: datetime
    progress: dict[str, Any] = field(default_factory=dict)
    status: TaskStatus = "open"
    attempts: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = None
    note: str = ""
    closed_at: datetime | None = None
    id: str = ""
