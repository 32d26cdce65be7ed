"""What is on offer, read once for all standing orders that are looked at around the same time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from lium_mcp.api.executors.models import Executor
    from lium_mcp.services.accounts import Account

_FRESH: Final = timedelta(seconds=20)


class SharedMarket:
    """The market as it was read last.

    Attributes:
        turn: Orders are looked at one after the other, so that many of them ask Lium no more at once than one does.
    """

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self._nodes: Sequence[Executor] = ()
        self._read_at: datetime | None = None

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
