"""The tasks between calls: rows of the ledger, each done by one server at a time.

A server claims a task with a lease, which it prolongs while it works. When a server dies, its lease runs out, and
another goes on from the progress that was written. Nothing here knows what a task is about. Importing this imports
SQLAlchemy, as with the ledger itself.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, insert, or_, select, update

from lium_mcp.rentals.claimants import new_claim_id, read_claimant
from lium_mcp.rentals.database import Database
from lium_mcp.rentals.entries import Entry, Task, TaskKind, TaskOutcome, is_expired
from lium_mcp.rentals.ledger import KEPT_FOR, open_entries_of
from lium_mcp.rentals.logged_in import has_login, refuse_ended
from lium_mcp.rentals.tables import MAY_HAVE_RENTED, OPEN_TASK, RENTALS, TASKS, storable

_MOST_READ: Final = 200
_NAMES: Final = tuple(field.name for field in fields(Task))
# As those of the ledger, what nearly every call reads.
_MADE: Final = (
    select(TASKS)
    .where(TASKS.c.account == bindparam("account"), TASKS.c.kind == bindparam("kind"))
    .order_by(TASKS.c.created_at.desc())
    .limit(_MOST_READ)
)
_MADE_BY_KEY: Final = _MADE.where(TASKS.c.key_tag == bindparam("key_tag"))
_MADE_BY_LOGINS: Final = _MADE.where(TASKS.c.by_login)


class Tasks:
    """The tasks of all accounts."""

    def __init__(self, database: Database, redact: Callable[[str], str] = str) -> None:
        """Take the ledger's database; `redact` takes secrets out of what others said of a task."""
        self._database = database
        self._redact = redact

    async def add(
        self,
        task: Task,
        check: Callable[[Sequence[Entry]], None] = lambda _: None,
        *,
        login_id: str | None = None,
    ) -> tuple[Task, bool]:
        """Write a new task, unless one of its name is open; return the one that is open, and whether it is new.

        It is not written where `check` raises when it sees the account's open rents; no rent is admitted meanwhile.
        One whose time is over is closed, if nothing was rented for it: whoever made it may never look again.

        Raises:
            LoginEnded: it is for a login that has ended.
            LedgerUnavailable: nothing was written.
        """
        now, same = task.created_at, OPEN_TASK
        expired = {"status": "expired", "closed_at": now, "note": "its time was over when its name was wanted again"}
        for name in ("account", "kind", "subject", "name"):
            same &= TASKS.c[name] == getattr(task, name)

        def work(connection: Connection) -> tuple[Task, bool]:
            self._database.take_turn(connection, task.account)
            refuse_ended(connection, login_id)
            found = connection.execute(select(TASKS).where(same)).first()
            if found is not None and not (is_expired(found.payload, now) and _close(connection, found.id, expired)):
                return task_of(found), False
            check(open_entries_of(connection, task.account))
            connection.execute(delete(TASKS).where(TASKS.c.closed_at < now - KEPT_FOR))
            row = {name: getattr(task, name) for name in _NAMES} | {"id": str(uuid4())}
            connection.execute(insert(TASKS).values(row))
            return Task(**row), True

        return await self._database.run(work)

    async def is_any_due(self, kinds: Collection[TaskKind], *, now: datetime, by_login: bool = False) -> bool:
        """Whether a task of some account could be claimed: one that somebody who logged in asked for, or another.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        row = select(TASKS.c.id).where(_due(kinds, now, by_login=by_login)).limit(1)
        return await self._database.read(lambda connection: connection.execute(row).first() is not None)

    async def claim(
        self,
        account: str | None,
        kinds: Collection[TaskKind],
        *,
        now: datetime,
        lease: timedelta,
        without: Collection[str] = (),
    ) -> Task | None:
        """Claim the account's task that was due first, if one is due; nobody else gets it before the lease is over.

        Args:
            account: Whose tasks; None for those, of whichever account, that somebody who logged in asked for.
            kinds: Which kinds of task.
            now: The time.
            lease: How long the claim holds, unless it is prolonged.
            without: The ids of tasks to leave alone.

        Raises:
            LedgerUnavailable: nothing was claimed.
        """
        wanted = _due(kinds, now, by_login=account is None) & TASKS.c.id.not_in(without)
        if account is not None:
            wanted &= TASKS.c.account == account
        # PostgreSQL passes over a row that another server claims at this moment; SQLite lets servers take turns.
        first = select(TASKS).where(wanted).order_by(TASKS.c.next_at).limit(1).with_for_update(skip_locked=True)

        def work(connection: Connection) -> Task | None:
            found = connection.execute(first).first()
            if found is None:
                return None
            values: dict[str, Any] = {"lease_owner": new_claim_id(), "lease_until": now + lease}
            connection.execute(update(TASKS).where(TASKS.c.id == found.id).values(values))
            return replace(task_of(found), **values)

        return await self._database.run(work)

    async def free_of_the_dead(self) -> None:
        """Give back what servers had claimed that have surely ended, before their lease is over.

        That is certain only of processes of this machine, and only where the ledger is a file of it.

        Raises:
            LedgerUnavailable: their claims hold until their lease is over.
        """
        if not self._database.is_file:
            return
        claimed = select(TASKS).where(OPEN_TASK & TASKS.c.lease_owner.is_not(None))
        for task in await self._database.read(lambda connection: [task_of(row) for row in connection.execute(claimed)]):
            if read_claimant(task.lease_owner).is_dead:
                await self.put_off(task, task.next_at)

    async def keep(
        self,
        task: Task,
        *,
        now: datetime,
        lease: timedelta,
        progress: Mapping[str, Any] | None = None,
        attempts: int | None = None,
    ) -> Task | None:
        """Prolong a claim, and write what was done; return the task as it is now, or None if another server has it.

        None also where somebody asked for it whose login has ended, and nobody else is logged in for the account.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        values: dict[str, Any] = {"lease_until": now + lease}
        if progress is not None:
            values["progress"] = dict(progress)
        if attempts is not None:
            values["attempts"] = attempts
        mine = _mine(task) & or_(~TASKS.c.by_login, has_login(TASKS.c.account))

        def work(connection: Connection) -> Task | None:
            if not connection.execute(update(TASKS).where(mine).values(values)).rowcount:
                return None
            # Somebody may have asked to stop it meanwhile.
            return task_of(connection.execute(select(TASKS).where(TASKS.c.id == task.id)).one())

        return await self._database.run(work)

    async def put_off(self, task: Task, next_at: datetime) -> bool:
        """Give a claim back; any server may claim the task from `next_at` on. False if another server has it.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        return await self._change(task, {"lease_owner": None, "lease_until": None, "next_at": next_at})

    async def finish(
        self,
        task: Task,
        outcome: TaskOutcome,
        *,
        now: datetime,
        note: str = "",
        progress: Mapping[str, Any] | None = None,
    ) -> bool:
        """Close a task that this server has claimed, or that nobody has; False if another server has it.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        values: dict[str, Any] = {"status": outcome, "closed_at": now, "note": storable(self._redact(note))}
        if progress is not None:
            values["progress"] = dict(progress)
        return await self._change(task, values | {"lease_owner": None, "lease_until": None})

    async def ask_to_stop(self, task: Task) -> None:
        """Note that an open task is to be stopped, whoever does it now.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        change = update(TASKS).where((TASKS.c.id == task.id) & OPEN_TASK).values(status="stopping")
        await self._database.run(lambda connection: connection.execute(change))

    async def cancel(self, task: Task, *, now: datetime, note: str) -> bool:
        """Close an open task, whoever does it now, so that nothing is rented for it any more.

        Returns:
            False where it is over, or something may have been rented for it: then it stays as it is.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        values = {"status": "cancelled", "closed_at": now, "note": storable(self._redact(note))}
        return await self._database.run(lambda connection: _close(connection, task.id, values))

    async def of_key(self, account: str, key_tag: str, kind: TaskKind) -> list[Task]:
        """The tasks of a kind that a key made for an account, newest first, closed ones too.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self._read(_MADE_BY_KEY, account=account, kind=kind, key_tag=key_tag)

    async def of_logins(self, account: str, kind: TaskKind) -> list[Task]:
        """The same of all who logged in for an account.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self._read(_MADE_BY_LOGINS, account=account, kind=kind)

    async def _read(self, rows: Select[Any], **values: str) -> list[Task]:
        return await self._database.read(lambda connection: [task_of(row) for row in connection.execute(rows, values)])

    async def newest(self, limit: int) -> list[Task]:
        """The newest tasks of all accounts, open ones first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        rows = select(TASKS).order_by(TASKS.c.closed_at.isnot(None), TASKS.c.created_at.desc()).limit(limit)
        return await self._database.read(lambda connection: [task_of(row) for row in connection.execute(rows)])

    async def _change(self, task: Task, values: dict[str, Any]) -> bool:
        change = update(TASKS).where(_mine(task)).values(values)
        return await self._database.run(lambda connection: connection.execute(change).rowcount > 0)


def _close(connection: Connection, task_id: str, values: dict[str, Any]) -> bool:
    """Close an open task, whoever does it now; False where it is over, or something may have been rented for it."""
    open_one = (TASKS.c.id == task_id) & OPEN_TASK
    # A rent for it that is being written now is written first, or finds it closed.
    is_open = connection.execute(select(TASKS.c.id).where(open_one).with_for_update()).first() is not None
    rented = select(RENTALS.c.id).where((RENTALS.c.task_id == task_id) & MAY_HAVE_RENTED)
    if not is_open or connection.execute(rented).first() is not None:
        return False
    values = values | {"lease_owner": None, "lease_until": None}
    return connection.execute(update(TASKS).where(open_one).values(values)).rowcount > 0


def _mine(task: Task) -> ColumnElement[bool]:
    """The condition that a task is open, and claimed by nobody else than when it was read."""
    return (TASKS.c.id == task.id) & OPEN_TASK & TASKS.c.lease_owner.is_not_distinct_from(task.lease_owner)


def _due(kinds: Collection[TaskKind], now: datetime, *, by_login: bool) -> ColumnElement[bool]:
    is_free = or_(TASKS.c.lease_until.is_(None), TASKS.c.lease_until <= now)
    return (
        OPEN_TASK
        & (TASKS.c.by_login if by_login else ~TASKS.c.by_login)
        & TASKS.c.kind.in_(kinds)
        & (TASKS.c.next_at <= now)
        & is_free
    )


def task_of(row: Row[Any]) -> Task:
    """A task of its row."""
    return Task(**{name: row._mapping[name] for name in _NAMES})  # noqa: SLF001 - SQLAlchemy's public name for it
