"""Notes that the servers of one ledger leave for one another, for minutes: what holds for a call and for the next one.

Importing this imports SQLAlchemy, as with the ledger itself.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from lium_mcp.rentals.database import Database
from lium_mcp.rentals.tables import NOTES

# Servers may have different clocks, and Lium another one.
_KEPT_FOR: Final = timedelta(days=1)


class Notes:
    """The notes of all accounts; whoever writes one puts the account into its name where it belongs to one."""

    def __init__(self, database: Database) -> None:
        """Take the ledger's database."""
        self._database = database

    async def claim(self, name: str, value: Any = None, *, now: datetime, until: datetime) -> bool:  # noqa: ANN401 - JSON
        """Write a note, unless there is one of that name; tell whether this call wrote it.

        Of several servers that claim a name at the same moment, one does.

        Args:
            name: Of any length; it is not kept, only its digest.
            value: What the note says, as JSON.
            now: The time.
            until: When its time is over; some time later it is deleted.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        key = hashlib.sha256(name.encode()).hexdigest()

        def work(connection: Connection) -> bool:
            self._database.take_turn(connection, f"note {key}")
            own, old = (NOTES.c.name == key) & (NOTES.c.until <= now), NOTES.c.until <= now - _KEPT_FOR
            connection.execute(delete(NOTES).where(own | old))
            if connection.execute(select(NOTES.c.name).where(NOTES.c.name == key)).first() is not None:
                return False
            connection.execute(insert(NOTES).values(name=key, value=value, until=until))
            return True

        return await self._database.run(work)

    async def keep(self, name: str, value: Any, *, now: datetime, until: datetime) -> None:  # noqa: ANN401 - JSON
        """Write a note, in the place of the one of that name; the arguments are as in `claim`.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        key = hashlib.sha256(name.encode()).hexdigest()

        def work(connection: Connection) -> None:
            self._database.take_turn(connection, f"note {key}")
            connection.execute(delete(NOTES).where((NOTES.c.name == key) | (NOTES.c.until <= now - _KEPT_FOR)))
            connection.execute(insert(NOTES).values(name=key, value=value, until=until))

        await self._database.run(work)

    async def read(self, name: str, *, now: datetime) -> Any:  # noqa: ANN401 - JSON
        """What the note of a name says; None where there is none.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        key = hashlib.sha256(name.encode()).hexdigest()
        row = select(NOTES.c.value).where((NOTES.c.name == key) & (NOTES.c.until > now))
        return await self._database.read(lambda connection: connection.execute(row).scalar_one_or_none())
