"""Lets restores into one pod begin one after the other, each into a directory that no unfinished one writes to."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import anyio

from lium_mcp.api.pods.models import Pod
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import is_inside, plain_path

# So long Lium may take to list a restore that it was asked for.
_LISTED_WITHIN: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Unfinished:
    """A restore into a pod that may still write; the path is None where Lium does not say it, the id likewise."""

    path: str | None
    restore_id: str | None = None

    @property
    def title(self) -> str:
        """What it is called in a sentence."""
        return f"restore {self.restore_id or 'that was just ordered'} into {self.path or 'a directory not known'}"

    def may_write_to(self, path: str) -> bool:
        """Whether it may write to a plain path, below it, or above it."""
        return self.path is None or is_inside(self.path, path) or is_inside(path, self.path)


@dataclass(slots=True)
class _Order:
    pod_id: str
    ordered_at: datetime
    restore: Unfinished


class RestoreTurns:
    """The restores that this server begins, pod by pod."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._orders: list[_Order] = []

    @asynccontextmanager
    async def taking(self, pod: Pod) -> AsyncIterator[None]:
        """Look and order for a pod, while nobody else on this server does."""
        turn = self._turns.setdefault(pod.id, anyio.Lock())
        async with turn:
            yield

    def note(self, account: Account, pod: Pod, restore: Unfinished) -> None:
        """Remember an order until Lium lists it."""
        self._orders.append(_Order(pod.id, account.lium.now(), restore))

    def forget(self, restore: Unfinished) -> None:
        """Forget an order that Lium refused."""
        self._orders = [order for order in self._orders if order.restore is not restore]

    async def unfinished(self, account: Account, pod: Pod) -> list[Unfinished]:
        """The restores that may still write into a pod: those that Lium lists, and what was just ordered here.

        Raises:
            LiumError: they could not be listed.
        """
        since = account.lium.now() - _LISTED_WITHIN
        listed = await account.lium.restores.list(pod.id)
        self._orders = [order for order in self._orders if order.ordered_at > since]
        known = {restore.id for restore in listed}
        found = [
            Unfinished(plain_path(restore.restore_path) if restore.restore_path else None, restore.id)
            for restore in listed
            if not restore.is_final and restore.completed_at is None
        ]
        if listed.skipped or listed.truncated:
            found.append(Unfinished(None))
        return found + [
            order.restore for order in self._orders if order.pod_id == pod.id and order.restore.restore_id not in known
        ]


def first_writing_to(path: str, unfinished: Iterable[Unfinished]) -> Unfinished | None:
    """The first restore that may write to a path."""
    return next((restore for restore in unfinished if restore.may_write_to(path)), None)
