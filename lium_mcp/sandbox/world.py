"""The sandbox's state and its event queue.

The world holds the records, hands out ids, keeps the event log, and knows what is due when. The files that schedule
things (lifecycle, billing, data_transfers, some routes) decide what these do. The world knows nothing of HTTP.
"""

import asyncio
import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol

from pydantic import JsonValue

from lium_mcp.sandbox.faults import Faults
from lium_mcp.sandbox.market import Market
from lium_mcp.sandbox.records import (
    Debit,
    RentRecord,
    StoredAccount,
    StoredApiKey,
    StoredBackupConfig,
    StoredCredential,
    StoredGpuReset,
    StoredLogin,
    StoredPod,
    StoredSshKey,
    StoredTemplate,
    StoredTransfer,
    StoredVolume,
)
from lium_mcp.sandbox.seeded import fraction, identifier
from lium_mcp.sandbox.simulated_clock import SimulatedClock, iso_zulu

REQUESTS_KEPT: Final = 1000
LONGEST_PAUSE_SECONDS: Final = 0.2
# Whoever waits for a frozen clock waits so long, in real time, for somebody to turn it, and then turns it.
PATIENCE_SECONDS: Final = 0.2

# Routes that no feature name announces, but that an old server does not have.
RECENT: Final = "recent"


@dataclass(frozen=True)
class Event:
    """One entry of the event log, with the account that may read it."""

    account_id: str
    api_key_id: str | None
    at: datetime
    body: dict[str, JsonValue]


@dataclass(frozen=True)
class AuditRow:
    """One entry of the audit log."""

    account_id: str
    at: datetime
    body: dict[str, JsonValue]


class Watcher(Protocol):
    """Is told what the world does, while the world's lock is held."""

    def due_changed(self) -> None:
        """Note that something is due before everything else."""

    def caught_up(self) -> None:
        """Note that everything that was due has happened."""


class PodContents(Protocol):
    """The files of pods, which exist where pods answer SSH; amounts are bytes and numbers of files."""

    def measure(self, pod: StoredPod, path: str) -> tuple[int, int]:
        """Count what is under a backup's path."""

    def save(self, pod: StoredPod, run: StoredTransfer) -> tuple[int, int]:
        """Keep what is under a backup's path; return how much it is."""

    def restore(self, pod: StoredPod, run: StoredTransfer) -> str | None:
        """Write a backup's files into a pod; return what went wrong, if anything."""

    def small_files(self, pod: StoredPod) -> dict[str, str]:
        """Read the small files of a running pod, by path."""


@dataclass
class World:
    """Everything there is."""

    seed: int
    clock: SimulatedClock
    features: frozenset[str]
    pod_polls_per_minute: int
    is_rough: bool = False
    lookalikes: bool = False
    ids_from: int = 0

    accounts: dict[str, StoredAccount] = field(default_factory=dict)
    keys: dict[str, StoredApiKey] = field(default_factory=dict)
    logins: dict[str, StoredLogin] = field(default_factory=dict)
    pods: dict[str, StoredPod] = field(default_factory=dict)
    templates: dict[str, StoredTemplate] = field(default_factory=dict)
    volumes: dict[str, StoredVolume] = field(default_factory=dict)
    configs: dict[str, StoredBackupConfig] = field(default_factory=dict)
    transfers: dict[str, StoredTransfer] = field(default_factory=dict)
    ssh_keys: dict[str, StoredSshKey] = field(default_factory=dict)
    credentials: dict[str, StoredCredential] = field(default_factory=dict)
    contexts: dict[str, datetime] = field(default_factory=dict)
    resets: dict[str, StoredGpuReset] = field(default_factory=dict)
    ledger: list[Debit] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    audit: list[AuditRow] = field(default_factory=list)
    rents: list[dict[str, JsonValue]] = field(default_factory=list)
    rent_records: dict[tuple[str, str], RentRecord] = field(default_factory=dict)
    requests: deque[dict[str, JsonValue]] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))
    poll_times: dict[str, deque[tuple[float, datetime]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    is_closing: bool = False
    # How often the faults were disarmed: what one of them holds up goes on then.
    calmed: int = 0

    # Set only where pods answer SSH.
    contents: PodContents | None = None
    ssh_ports: dict[str, int] = field(default_factory=dict)
    watchers: list["Watcher"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.clock.now()
        self.market = Market(self.seed, self.clock.start, lookalikes=self.lookalikes)
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ids: dict[str, Iterator[int]] = {}

    def offers(self, feature: str) -> bool:
        """Whether this server has a route or behaviour that older ones lack."""
        return not self.faults.is_armed("old_server") and (feature in self.features or feature == RECENT)

    def at(self, due: datetime, action: Callable[[], None]) -> None:
        """Let the action happen at that time, after everything due earlier."""
        heapq.heappush(self._due, (due, next(self._order), action))
        if self._due[0][0] == due:
            for watcher in self.watchers:
                watcher.due_changed()

    @property
    def next_due(self) -> datetime | None:
        """When the next thing is due, if anything is."""
        return self._due[0][0] if self._due else None

    def after(self, seconds: float, action: Callable[[], None]) -> datetime:
        """Let the action happen that many seconds from now, and return when."""
        due = self.now + timedelta(seconds=seconds)
        self.at(due, action)
        return due

    def catch_up(self) -> None:
        """Let everything happen that is due by the clock, in time order."""
        target = self.clock.now()
        while self._due and self._due[0][0] <= target:
            due, _, action = heapq.heappop(self._due)
            self.now = max(self.now, due)
            action()
        self.now = max(self.now, target)
        for watcher in self.watchers:
            watcher.caught_up()

    async def pause(self, real_seconds: float) -> None:
        """Wait in real time, but not longer than the sandbox is served, nor than until all faults are disarmed."""
        deadline, calmed = time.monotonic() + real_seconds, self.calmed
        # Not an asyncio.Event: that belongs to one event loop, and a sandbox may see several.
        while not self.is_closing and self.calmed == calmed and (left := deadline - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, LONGEST_PAUSE_SECONDS))

    async def let_pass(self, sandbox_seconds: float) -> None:
        """Wait in sandbox time; on a clock that nobody turns meanwhile, turn it."""
        due = self.clock.now() + timedelta(seconds=sandbox_seconds)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_closing and (left := (due - self.clock.now()).total_seconds()) > 0:
            if self.clock.speed:
                await asyncio.sleep(min(left / self.clock.speed, LONGEST_PAUSE_SECONDS))
            elif time.monotonic() < deadline:
                await asyncio.sleep(PATIENCE_SECONDS / 20)
            else:
                self.clock.advance(seconds=left)

    def calm(self) -> None:
        """Disarm all faults, and let the rough profile draw no more; what a slow one holds up goes on."""
        self.is_rough = False
        self.faults.clear()
        self.calmed += 1

    def new_id(self, kind: str) -> str:
        """Return the next id of its kind; the same for the same seed and history."""
        return identifier(self.seed, kind, next(self._ids.setdefault(kind, itertools.count(self.ids_from))))

    def pick(self, low: float, high: float, *name: Hashable) -> float:
        """Return a number between two bounds that follows from the seed and the name."""
        return low + (high - low) * fraction(self.seed, *name)

    def log_event(  # one parameter per field of the API's entry
        self,
        pod: StoredPod,
        sub_event_type: str,
        *,
        actor: dict[str, JsonValue] | None = None,
        from_status: str | None = None,
        to_status: str | None = None,
        reason: str | None = None,
        detail: str | None = None,
        error: str | None = None,
        failure_step: str | None = None,
        exit_code: int | None = None,
    ) -> None:
        """Write an entry into the event log of a pod; without an actor it was the platform itself."""
        body = self._event(sub_event_type, actor) | {
            "pod_id": pod.id,
            "pod_name": pod.name,
            "from_status": from_status,
            "to_status": to_status,
            "reason": reason,
            "detail": detail,
            "error": error,
        }
        if failure_step is not None:  # the platform knows it; whether renters get it is not known
            body["failure_step"] = failure_step
        if exit_code is not None:
            body["exit_code"] = exit_code
        self.events.append(Event(pod.account_id, pod.api_key_id, self.now, body))

    def log_account_event(
        self, account: StoredAccount, key: StoredApiKey | None, sub_event_type: str, *, actor: dict[str, JsonValue]
    ) -> None:
        """Write an entry about something other than a pod into the event log."""
        body = self._event(sub_event_type, actor)
        self.events.append(Event(account.id, None if key is None else key.id, self.now, body))

    def _event(self, sub_event_type: str, actor: dict[str, JsonValue] | None) -> dict[str, JsonValue]:
        told: dict[str, JsonValue] = {
            "id": self.new_id("event"),
            "created_at": iso_zulu(self.now),
            "event_type": sub_event_type.partition(".")[0],
            "sub_event_type": sub_event_type,
            "actor": actor,
        }
        return told | dict.fromkeys(("pod_id", "pod_name", "from_status", "to_status", "reason", "detail", "error"))

    def set_status(self, pod: StoredPod, status: str, *, reason: str | None = None, detail: str | None = None) -> None:
        """Move a pod to another state and say so in its log."""
        before, pod.status, pod.updated_at = pod.status, status, self.now
        self.log_event(pod, "pod-lifecycle.status", from_status=before, to_status=status, reason=reason, detail=detail)

    def open_pods(self, account_id: str) -> list[StoredPod]:
        """Pods of the account that hold GPUs."""
        return [pod for pod in self.pods.values() if pod.account_id == account_id and pod.is_open]

    def charge(self, row: Debit) -> None:
        """Debit an account."""
        self.ledger.append(row)
        self.accounts[row.account_id].balance -= row.amount

    def spent(self, key_id: str, *, since: datetime | None = None) -> Decimal:
        """What the pods of a key were charged."""
        rows = (row for row in self.ledger if row.api_key_id == key_id and (since is None or row.at > since))
        return sum((row.amount for row in rows), Decimal(0))
