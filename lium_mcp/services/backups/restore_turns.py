"""Lets restores into one pod begin one after the other, each into a directory that no unfinished one writes to.

The servers of one ledger take turns by it. Where it cannot be used, one server's calls still do among themselves.
"""

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import anyio

from lium_mcp.api.clock import Clock
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import is_inside, plain_path

# So long Lium may take to list a restore that it was asked for.
_LISTED_WITHIN: Final = timedelta(minutes=1)
# Longer than the look and the order take together; a server that dies in its turn keeps others out for no longer.
_TURN_LASTS: Final = timedelta(minutes=2)
_PAUSE_SECONDS: Final = 0.5
_ATTEMPTS: Final = 41
_RELEASE_SECONDS: Final = 2.0


@dataclass(slots=True)
class KnownRestore:
    """A restore into a pod; the path is None where Lium does not say it, the id likewise."""

    path: str | None
    restore_id: str | None = None

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"restore {self.restore_id or 'that was just ordered'} into {self.path or 'a directory not known'}"

    def may_write_to(self, path: str) -> bool:
        """Whether it may write, or have written, to a plain path, below it, or above it."""
        return self.path is None or is_inside(self.path, path) or is_inside(path, self.path)


@dataclass(frozen=True, slots=True)
class KnownRestores:
    """The restores into a pod: those that may still write, and those that have written all of theirs."""

    unfinished: list[KnownRestore]
    completed: list[KnownRestore]


@dataclass(slots=True)
class _Order:
    pod_id: str
    ordered_at: datetime
    restore: KnownRestore
    name: str = field(default_factory=lambda: secrets.token_hex(8))


class RestoreTurns:
    """The restores that servers begin, pod by pod."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._claiming = anyio.Lock()
        self._orders: list[_Order] = []

    @asynccontextmanager
    async def taking(self, account: Account, clock: Clock, pod: Pod) -> AsyncIterator[None]:
        """Look and order for a pod, while no other call does, here or on another server of the ledger.

        Raises:
            Failure: another server does so all the time.
        """
        async with self._turns.setdefault(pod.id, anyio.Lock()):
            is_claimed = await self._claim(account, clock, pod)
            try:
                yield
            finally:
                if is_claimed:
                    # Where others cannot be told what was ordered, the turn lasts until Lium surely lists it.
                    with anyio.move_on_after(_RELEASE_SECONDS, shield=True), suppress(LedgerUnavailable):
                        await self._tell_others(account, pod)
                        await account.rents.notes.keep(_turn(pod), None, until=account.lium.now())

    def note(self, account: Account, pod: Pod, restore: KnownRestore) -> None:
        """Remember an order until Lium lists it."""
        self._orders.append(_Order(pod.id, account.lium.now(), restore))

    def forget(self, restore: KnownRestore) -> None:
        """Forget an order that Lium refused."""
        self._orders = [order for order in self._orders if order.restore is not restore]

    async def known(self, account: Account, pod: Pod) -> KnownRestores:
        """The restores into a pod that Lium lists, and of those that were just ordered the others.

        Raises:
            LiumError: they could not be listed.
        """
        since = account.lium.now() - _LISTED_WITHIN
        listed = await account.lium.restores.list(pod.id)
        self._orders = [order for order in self._orders if order.ordered_at > since]
        ids = {restore.id for restore in listed}
        unfinished, completed = [], []
        for restore in listed:
            path = plain_path(restore.restore_path) if restore.restore_path else None
            if not restore.is_final and restore.completed_at is None:
                unfinished.append(KnownRestore(path, restore.id))
            elif restore.state == "COMPLETED" and path is not None:
                completed.append(KnownRestore(path, restore.id))
        if listed.skipped or listed.truncated:
            unfinished.append(KnownRestore(None))
        ordered = {order.name: order.restore for order in self._orders if order.pod_id == pod.id}
        ordered = await _ordered_elsewhere(account, pod, since) | ordered
        unfinished += [restore for restore in ordered.values() if restore.restore_id not in ids]
        return KnownRestores(unfinished, completed)

    async def _claim(self, account: Account, clock: Clock, pod: Pod) -> bool:
        """Claim the turn for a pod among the servers of the ledger; False where that cannot be used.

        Raises:
            Failure: another server has it all the time.
        """
        for attempt in range(_ATTEMPTS):
            try:
                async with self._claiming:  # so that orders leave in the order in which they were asked for
                    if await account.rents.notes.claim(_turn(pod), until=account.lium.now() + _TURN_LASTS):
                        return True
            except LedgerUnavailable:
                return False
            if attempt < _ATTEMPTS - 1:
                await clock.sleep(_PAUSE_SECONDS)
        raise Failure(
            "restore_target_taken",
            f"Another server orders a restore into {pod.pod_name} ({pod.id}), so where that writes is not known yet "
            "(code: restore_target_taken).",
            "Call again in a minute.",
        )

    async def _tell_others(self, account: Account, pod: Pod) -> None:
        """Note what was ordered here for the other servers of the ledger.

        Raises:
            LedgerUnavailable: it cannot be noted.
        """
        ordered = {
            order.name: [order.ordered_at.isoformat(), order.restore.path, order.restore.restore_id]
            for order in self._orders
            if order.pod_id == pod.id
        }
        if ordered:
            noted = dict(await account.rents.notes.read(_orders(pod)) or {}) | ordered
            await account.rents.notes.keep(_orders(pod), noted, until=account.lium.now() + _LISTED_WITHIN)


async def _ordered_elsewhere(account: Account, pod: Pod, since: datetime) -> dict[str, KnownRestore]:
    with suppress(LedgerUnavailable):
        noted = dict(await account.rents.notes.read(_orders(pod)) or {})
        return {
            name: KnownRestore(path, restore_id)
            for name, (ordered_at, path, restore_id) in noted.items()
            if datetime.fromisoformat(ordered_at) > since
        }
    return {}


def _turn(pod: Pod) -> str:
    return f"turn to restore into {pod.id}"


def _orders(pod: Pod) -> str:
    return f"restores ordered into {pod.id}"


def first_writing_to(path: str, restores: Iterable[KnownRestore]) -> KnownRestore | None:
    """The first restore that may write to a path."""
    return next((restore for restore in restores if restore.may_write_to(path)), None)
