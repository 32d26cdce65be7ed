"""What is left to do for those who logged in over HTTP, and what of it has to end since nobody is logged in any more.

Importing this imports SQLAlchemy, as with the ledger itself.
"""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Text, cast, func, or_, select, update

from lium_mcp.rentals.database import Database
from lium_mcp.rentals.entries import Entry, Task, has_something_left
from lium_mcp.rentals.ledger import entry_of
from lium_mcp.rentals.logged_in import has_login
from lium_mcp.rentals.tables import ACCOUNTS, MAY_HAVE_RENTED, OPEN, OPEN_TASK, RENTALS, TASKS
from lium_mcp.rentals.tasks import task_of

_MOST_AT_ONCE: Final = 100
_MOST_ACCOUNTS: Final = 1_000
_LOGIN_ENDED: Final = "the login that it was for has ended, and nobody else is logged in for its account"
_PLACE_ANEW: Final = f"{_LOGIN_ENDED}: log in again, and ask for it anew"
_IS_SENT: Final = f"{_LOGIN_ENDED}; its rent was sent before, and may have made a pod that bills: look at lium.io"

# A rent whose account was not known when it was written is its key's.
_ACCOUNT: Final = func.coalesce(
    select(ACCOUNTS.c.account)
    .where(ACCOUNTS.c.key_tag == RENTALS.c.account)
    .correlate_except(ACCOUNTS)
    .scalar_subquery(),
    RENTALS.c.account,
)


class LoginWork:
    """What is left to do for logins. Each method raises LedgerUnavailable where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        """Take the ledger's database."""
        self._database = database

    async def end_without_login(self, *, now: datetime) -> list[Task]:
        """Close tasks that nobody can do any more, since nobody is logged in for their account; return them.

        Of several servers, one closes each.
        """
        found = select(TASKS).where(OPEN_TASK & TASKS.c.by_login & ~has_login(TASKS.c.account)).limit(_MOST_AT_ONCE)

        def work(connection: Connection) -> list[Task]:
            tasks = map(task_of, connection.execute(found.with_for_update(skip_locked=True)).all())
            return [_ended(connection, task, now) for task in tasks]

        if await self._database.read(lambda connection: connection.execute(found.limit(1)).first()) is None:
            return []
        return await self._database.run(work)

    async def kept_accounts(self, key_tag: str | None) -> set[str]:
        """The accounts, as rents have them, that somebody is logged in for, and that of a key."""
        own = or_(RENTALS.c.key_tag == key_tag, _account_of(key_tag) == _ACCOUNT)
        rows = select(RENTALS.c.account).where(OPEN & or_(has_login(_ACCOUNT), own)).distinct()
        return await self._database.read(lambda connection: set(connection.execute(rows).scalars()))

    async def accounts_with_rents_left(self) -> list[str]:
        """The accounts that somebody is logged in for, and for whose rents something may be left to do."""
        accounts = select(_ACCOUNT).where(_may_have_something_left() & has_login(_ACCOUNT)).distinct()
        rows = accounts.limit(_MOST_ACCOUNTS)
        return await self._database.read(lambda connection: list(connection.execute(rows).scalars()))

    async def rents_without_login(self, *, without: Collection[str]) -> list[Entry]:
        """Rents for which something is left to do that nobody can, but for some by their ids.

        Whoever logged in rented them, and nobody is logged in for their account any more.
        """
        wanted = RENTALS.c.by_login & _may_have_something_left() & ~has_login(_ACCOUNT) & RENTALS.c.id.not_in(without)
        rows = select(RENTALS).where(wanted).order_by(RENTALS.c.created_at.desc()).limit(_MOST_AT_ONCE)
        entries = await self._database.read(lambda connection: list(map(entry_of, connection.execute(rows))))
        return [entry for entry in entries if has_something_left(entry)]


def _account_of(key_tag: str | None) -> ColumnElement[str | None]:
    return select(ACCOUNTS.c.account).where(ACCOUNTS.c.key_tag == key_tag).correlate_except(ACCOUNTS).scalar_subquery()


def _may_have_something_left() -> ColumnElement[bool]:
    """The condition that `has_something_left` may hold of a rent; it does not where this does not."""
    has_removal_to_set = RENTALS.c.hours.is_not(None) & or_(
        RENTALS.c.pod_count > 1, cast(RENTALS.c.kept_pod_ids, Text) == "[]"
    )
    is_to_see = or_(RENTALS.c.expected.is_not(None), RENTALS.c.pod_count > 1)
    return OPEN & or_(RENTALS.c.status != "rented", RENTALS.c.unwanted, is_to_see, has_removal_to_set)


def _ended(connection: Connection, task: Task, now: datetime) -> Task:
    rents = select(RENTALS.c.pod_ids).where((RENTALS.c.task_id == task.id) & MAY_HAVE_RENTED)
    rented = connection.execute(rents).scalar_one_or_none()
    values: dict[str, Any] = {"status": "failed", "note": _PLACE_ANEW if rented is None else _IS_SENT}
    if rented:
        progress = {**task.progress, "pod_id": rented[0]}
        values = {"status": "done", "note": f"rented pod {rented[0]}", "progress": progress}
    values |= {"closed_at": now, "lease_owner": None, "lease_until": None}
    connection.execute(update(TASKS).where(TASKS.c.id == task.id).values(values))
    return replace(task, **values)
