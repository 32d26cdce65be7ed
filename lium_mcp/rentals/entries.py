"""One rent as the ledger has it. Knows no database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

Status = Literal[
    "admitted", "sending", "unknown", "rented", "removing", "refused", "removed", "absent", "withdrawn", "closed"
]
"""The first five are open. An `admitted` rent is one of several that were admitted together: its turn to be sent has
not come, and its own server alone may send it. While one is `sending`, its own server waits for the answer. It is
`unknown` once some server takes the answer for lost: the request may be repeated from then on, so that a refusal of the
first one proves nothing. The pods of one that is `removing` must go. An `absent` one made no pod, since several lists
showed none. A `withdrawn` one was admitted, and never sent. A person closed one that is `closed`."""

UNSETTLED: Final[frozenset[Status]] = frozenset({"sending", "unknown"})
"""A rent with such a status may have made a pod that nobody knows of."""
CLOSED: Final[frozenset[Status]] = frozenset({"refused", "removed", "absent", "withdrawn", "closed"})

GIVEN_BACK: Final = "given back: "
"""How the note of a rent begins if a look found that its pods must go."""
FAILED_TO_START: Final = "failed to start on node "
"""How the note of a rent begins whose pod did not come to run; the node's id follows."""
REFUSED_BY: Final = "refused by node "
"""How the note of a rent begins that its node refused; the node's id follows, a colon, and what Lium said."""
NOT_SENT_AGAIN: Final = "not sent again: "
"""How the note of a rent begins if the server that looked last may not send it again."""

TaskKind = Literal["follow_up", "standing_order", "idle_watch", "job_run"]
"""Which code does a task, see `between_calls.py`."""
TaskStatus = Literal["open", "stopping", "done", "failed", "gone", "expired", "cancelled"]
"""The first two are open; somebody asked to stop one that is `stopping`. The subject of a task that is `gone` is not
there any more, so that nothing is left to do. The time for one that is `expired` is over. Somebody did not want one any
more that is `cancelled`, and nothing was done."""
TaskOutcome = Literal["done", "failed", "gone", "expired"]
WorkKind = Literal["command", "upload", "download", "job_start", "removal"]
"""What a server does in a pod while somebody waits for it; a removal is the last."""


class LedgerUnavailable(Exception):
    """The ledger cannot be read or written; nothing of what was to be written was."""


class PodNameTaken(Exception):
    """A living pod has the name already, and another request rented it, or a standing order waits; nothing was sent.

    Attributes:
        removing: Whether it is being removed, so that the name may soon be free.
        is_ordered: Whether there is no such pod, but an open standing order of the account that may rent one.
    """

    def __init__(
        self, pod_name: str, pod_ids: Sequence[str] = (), *, removing: bool = False, is_ordered: bool = False
    ) -> None:
        super().__init__(f"{'A standing order' if is_ordered else 'A pod'} named {pod_name} exists already")
        self.pod_name = pod_name
        self.pod_ids = pod_ids
        self.removing = removing
        self.is_ordered = is_ordered


class BeingRemoved(Exception):
    """A server is removing the pod in this moment, so nothing may begin in it."""


class TaskOver(Exception):
    """The task that a rent was for is over, for instance since it was cancelled; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One rent, as the ledger has it.

    Attributes:
        account: A digest that stands for the account.
        key_tag: An HMAC that stands for the key that rented it. A 404 to this key means that its pod is gone.
        order: The whole request, see `orders.to_json`.
        asked: A digest of what the caller asked for.
        pod_count: How many pods it is to have: as many as were ordered, less those that are known to go or to be gone.
        known_pod_ids: Pods that are not of this rent: the account's before it, and those that proved to be another's.
        pod_ids: What it rented, once that is known.
        price_per_hour_usd: What was quoted for all pods together.
        expected: What its pods have to be to be kept, see `Expected`, less what was checked while they ran; None once
            nothing is left to check.
        hours: Lium is to remove the pods so many hours after they boot; None for never.
        kept_pod_ids: Its pods whose removal time is done with: the API showed it, or somebody chose another.
        confirmed: The API itself named the pods as the answer to this request.
        handed_out: A call other than the one that rented it was told of its pods.
        unwanted: The call that rented it was cancelled: its pods are removed once they are known.
        removal_accepted: Lium has accepted to remove its pods. It knew them, so a 404 now means that they are gone.
        looks: How often Lium was asked about it since its status last changed.
        next_look_at: Nobody asks again before then.
        missed_lists: How many complete lists, some time apart, have shown no pod of it while it was unknown.
        missed_at: When the last of these lists was asked for.
        note: What became of it, in words.
        settled_at: When its outcome was known.
        task_id: The task that it is for; None where a call rented it. A task rents once, unless that was refused.
        by_login: The key is that of a login which is kept, so that a server goes on with it for as long as one is.
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
    task_id: str | None = None
    by_login: bool = False
    id: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is not closed, so that no other rent can have its pod name."""
        return self.closed_at is None

    @property
    def ordered_count(self) -> int:
        """How many pods were ordered."""
        request = self.order.get("request")
        nodes = request.get("executor_uuids") if isinstance(request, dict) else None
        return len(nodes) if isinstance(nodes, list) and nodes else 1

    @property
    def price_per_pod_hour_usd(self) -> float | None:
        """What was quoted for each of its pods, if all cost the same; None where nothing was."""
        return None if self.price_per_hour_usd is None else self.price_per_hour_usd / self.ordered_count

    @property
    def volume_id(self) -> str | None:
        """The volume that its pod was to have."""
        request = self.order.get("request")
        volume_id = request.get("volume_id") if isinstance(request, dict) else None
        return volume_id if isinstance(volume_id, str) else None

    @property
    def public_keys(self) -> list[str]:
        """The SSH keys that log in to its pods, kind and base64 of each."""
        request = self.order.get("request")
        keys = request.get("user_public_key") if isinstance(request, dict) else None
        return [key for key in keys if isinstance(key, str) and key.strip()] if isinstance(keys, list) else []

    @property
    def missing_count(self) -> int:
        """How many of its pods Lium has neither named nor listed yet, though it has named others: they may bill too."""
        return max(self.pod_count - len(self.pod_ids), 0) if self.pod_ids else 0

    @property
    def removal_is_set(self) -> bool:
        """Whether no removal time is left to set."""
        return self.hours is None or (bool(self.pod_ids) and set(self.pod_ids) <= set(self.kept_pod_ids))

    @property
    def given_back_because(self) -> str | None:
        """Why a look gave its pods back, if one did."""
        is_over = self.status in ("removing", "removed") and self.note.startswith(GIVEN_BACK)
        return self.note.removeprefix(GIVEN_BACK) if is_over else None

    @property
    def failed_node_id(self) -> str | None:
        """The node on which its pod did not come to run, if it did not."""
        return self.note.removeprefix(FAILED_TO_START) if self.note.startswith(FAILED_TO_START) else None

    @property
    def refusing_node_id(self) -> str | None:
        """The node that refused it, if that was for what the node is."""
        is_so = self.status == "refused" and self.note.startswith(REFUSED_BY)
        return self.note.removeprefix(REFUSED_BY).partition(":")[0] if is_so else None

    @property
    def not_sent_again_because(self) -> str | None:
        """Why the server that looked last did not send it again, if it may not."""
        is_so = self.is_unsettled and self.note.startswith(NOT_SENT_AGAIN)
        return self.note.removeprefix(NOT_SENT_AGAIN) if is_so else None

    @property
    def is_unsettled(self) -> bool:
        """Whether nobody knows yet what became of it."""
        return self.is_open and self.status in UNSETTLED

    @property
    def is_doubtful(self) -> bool:
        """Whether its pods were found only by name, and are to be removed once Lium says that they are its own."""
        return self.status == "rented" and self.unwanted and not self.confirmed and not self.handed_out

    @property
    def known_since(self) -> datetime:
        """The moment soon after which Lium may not yet list its pods, or know them by their ids."""
        return self.settled_at or self.created_at


def offered_per_hour_usd(entries: Sequence[Entry]) -> dict[str, float]:
    """What pods were offered at, by their id; without members of clusters, of which the ledger has the sum alone."""
    return {
        pod_id: entry.price_per_hour_usd
        for entry in entries
        if entry.ordered_count == 1 and entry.price_per_hour_usd is not None
        for pod_id in entry.pod_ids
    }


def has_something_left(entry: Entry) -> bool:
    """Whether something is left to do for an open rent."""
    return _is_to_see(entry) or _is_to_change(entry)


def is_only_to_check(entry: Entry) -> bool:
    """Whether all that is left for an open rent is to see what Lium has not stated of its pods yet."""
    return _is_to_see(entry) and not _is_to_change(entry)


def _is_to_see(entry: Entry) -> bool:
    return entry.expected is not None or entry.missing_count > 0


def _is_to_change(entry: Entry) -> bool:
    is_under_way = entry.is_unsettled or entry.status in ("admitted", "removing")
    return is_under_way or not entry.removal_is_set or entry.is_doubtful


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
    """Something to do for an account between calls, as the ledger has it.

    Attributes:
        account: A digest that stands for the account. Any of the account's servers may do the task.
        key_tag: An HMAC that stands for the key that made it. No other key may be shown what it is about.
        kind: What is to be done. Whoever does it knows what the payload and the progress mean.
        subject: What it is about, for instance the id of a pod.
        name: Tells it from others of its kind about its subject; at most one of a name is open.
        payload: What was asked for. It never changes. Its `expires_at`, where it has one, is when it is given up.
        progress: What was done so far, for the server that goes on. Of a run, also its command, until that was started.
        attempts: How often it failed.
        next_at: Nobody claims it before then.
        lease_owner: The id of the claim under which a server does it now.
        lease_until: From then on another server may claim it.
        note: What became of it, in a sentence or a code.
        by_login: Whoever logged in asked for it: it is done, and shown, with any login of the account that is kept.
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
    by_login: bool = False
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Something that a server does in a pod while somebody waits for it, as the ledger has it.

    Attributes:
        pod_id: In which pod.
        kind: What it is.
        owner: The id of a claim of the server that does it.
        began_at: When it began.
        until: It counts no longer than until then, whatever became of its server.
        ended_at: When it ended.
        id: Higher than that of whatever began before.
    """

    pod_id: str
    kind: WorkKind
    owner: str
    began_at: datetime
    until: datetime
    ended_at: datetime | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class PodWork:
    """What servers do in a pod, by one reading of the ledger.

    Attributes:
        going_on: What is not over.
        newest: The id of what began last; 0 where the ledger knows of nothing.
        newest_change: The same, of what may have changed files of the pod.
    """

    going_on: tuple[Work, ...] = ()
    newest: int = 0
    newest_change: int = 0


def is_expired(payload: Mapping[str, Any], now: datetime) -> bool:
    """Whether the time of a task is over, by its payload; an earlier version of this program wrote no time down."""
    written = payload.get("expires_at")
    return isinstance(written, str) and datetime.fromisoformat(written) <= now
