"""What is on offer, read once for all standing orders that are looked at around the same time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

import anyio

if TYPE_CHECKING:
    from lium_mcp.api.executors.models import Executor
    from lium_mcp.services.accounts import Account

_FRESH: Final = timedelta(seconds=20)


class SharedMarket:
    """The market as it was read last.

    Orders of an account are looked at one after the other, so that many of them ask Lium no more at once than one does.
    """

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._nodes: Sequence[Executor] = ()
        self._read_at: datetime | None = None

    @asynccontextmanager
    async def turn(self, account: "Account") -> AsyncIterator[None]:
        """Look at an order, while no other of the account is looked at here."""
        async with self._turns.setdefault(account.renter.key_tag, anyio.Lock()):
            yield

    async def nodes(self, account: "Account") -> "Sequence[Executor]":
        """The nodes that could be rented some seconds ago at most.

        Raises:
            LiumError: they cannot be read.
        """
        now = account.lium.now()
        if self._read_at is None or not timedelta() <= now - self._read_at < _FRESH:
            self._nodes = await account.lium.executors.list()
            self._read_at = now
        return self._nodes
