"""What the servers of one ledger note of an account for one another: what holds for a call and for the next one."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from lium_mcp.rentals.identity import Identity
from lium_mcp.rentals.lazy_ledger import LazyLedger


class AccountNotes:
    """The notes of the account that a key acts for."""

    def __init__(self, ledger: LazyLedger, identity: Identity, now: Callable[[], datetime]) -> None:
        """Take the ledger, the key and its account, and Lium's clock."""
        self._ledger = ledger
        self._identity = identity
        self._now = now

    async def claim(self, name: str, *, until: datetime) -> bool:
        """Note something until a moment; whether no server had noted it.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        return await self._ledger.notes().claim(await self._of_account(name), now=self._now(), until=until)

    async def keep(self, name: str, value: Any, *, until: datetime) -> None:  # noqa: ANN401 - JSON
        """Note something until a moment, in the place of what had that name.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        await self._ledger.notes().keep(await self._of_account(name), value, now=self._now(), until=until)

    async def read(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """What was noted under a name; None where nothing holds now.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        return await self._ledger.notes().read(await self._of_account(name), now=self._now())

    async def _of_account(self, name: str) -> str:
        return f"{await self._identity.known()} {name}"
