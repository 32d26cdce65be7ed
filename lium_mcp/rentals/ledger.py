"""The ledger: what was rented, for which account, and how long pods may live. It is what survives this process.

The database, not this code, makes sure that a pod name is rented once while it lives. Admission is one transaction that
no other server interleaves. Importing this imports SQLAlchemy, so it is imported when a rent is first needed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, delete, insert, or_, select, update

from lium_mcp.rentals.database import Database
from lium_mcp.rentals.entries import (
    CLOSED,
    FAILED_TO_START,
    GIVEN_BACK,
    REFUSED_BY,
    UNSETTLED,
    Entry,
    Extension,
    PastCost,
    PodNameTaken,
    Status,
    Task,
    TaskOver,
    is_expired,
)
from lium_mcp.rentals.logged_in import has_login, refuse_ended
from lium_mcp.rentals.tables import ACCOUNTS, EXTENSIONS, MAY_HAVE_RENTED, OPEN, OPEN_TASK, RENTALS, TASKS, storable

KEPT_FOR: Final = timedelta(days=90)
"""How long a closed rent stays in the ledger: as long as Lium's own audit log."""
# By then Lium has long shown them.
_EXTENSIONS_KEPT_FOR: Final = timedelta(hours=1)
_MOST_OF_A_NAME: Final = 20
_NAMES: Final = tuple(field.name for field in fields(Entry))

# That a rent is an account's, which includes those rented when only the key was known.
_OF: Final = RENTALS.c.account.in_(bindparam("accounts", expanding=True))


def _newest(wanted: ColumnElement[bool]) -> Select[Any]:
    """An account's rents of which something holds, newest first."""
    return select(RENTALS).where(_OF & wanted).order_by(RENTALS.c.created_at.desc())


# What nearly every call reads. To make such a statement takes many times as long as to run it.
_ACCOUNT_OF: Final = select(ACCOUNTS.c.account).where(ACCOUNTS.c.key_tag == bindparam("key_tag"))
_KEYS_OF: Final = select(ACCOUNTS.c.key_tag).where(ACCOUNTS.c.account == bindparam("account"))
_OPEN_OF: Final = select(RENTALS).where(OPEN & _OF).order_by(RENTALS.c.created_at)
_GIVEN_BACK_OF: Final = _newest(RENTALS.c.status.in_(("removing", "removed")) & RENTALS.c.note.startswith(GIVEN_BACK))
_EXTENSIONS_OF: Final = select(EXTENSIONS.c.pod_id, EXTENSIONS.c.removal_at, EXTENSIONS.c.admitted_at).where(
    EXTENSIONS.c.account == bindparam("account")
)

StandingCheck = Callable[[Sequence[Entry], Sequence[Extension]], None]
"""Raises where the account's open rents and admitted extensions leave no room for what is to be admitted."""


class Ledger:
    """The rents of all accounts. Nothing is opened before it is first used."""

    def __init__(self, url: str, redact: Callable[[str], str] = str) -> None:
        """Take the address of a database, see `Database`; `redact` takes secrets out of what others said of a rent.

        Raises:
            LedgerUnavailable: the address cannot be read.
        """
        self.database: Final = Database(url)
        self._redact = redact

    async def account_of(self, key_tag: str) -> str | None:
        """The account that a key acts for, if that was learned.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        return await self.database.read(
            lambda connection: connection.execute(_ACCOUNT_OF, {"key_tag": key_tag}).scalar_one_or_none()
        )

    async def note_account(self, key_tag: str, account: str, *, now: datetime) -> str:
        """Keep which account a key acts for, unless that is known already; return the account that is known now.

        Raises:
            LedgerUnavailable: nothing was written.
        """

        def work(connection: Connection) -> str:
            self.database.take_turn(connection, key_tag)
            known = connection.execute(_ACCOUNT_OF, {"key_tag": key_tag}).scalar()
            if known is not None:
                return str(known)
            row = {"key_tag": key_tag, "account": account, "learned_at": now}
            connection.execute(insert(ACCOUNTS).values(row))
            return account

        return await self.database.run(work)

    async def admit(
        self, entries: Sequence[Entry], check: StandingCheck, *, login_id: str | None = None
    ) -> list[Entry]:
        """Write new rents of an account, unless `check` raises when it sees its open ones and its admitted extensions.

        All are written, or none, in the transaction of the check, which no other server's admission interleaves. It
        also deletes the account's rents that were closed more than `KEPT_FOR` ago.

        Raises:
            LoginEnded: they are for a login that has ended.
            TaskOver: one is for a task that is over.
            PodNameTaken: as `refuse_ordered`, but for the order that a rent is for.
            LedgerUnavailable: nothing was written.
        """
        account, now = entries[0].account, entries[0].created_at

        def work(connection: Connection) -> list[Entry]:
            self.database.take_turn(connection, account)
            refuse_ended(connection, login_id)
            check(open_entries_of(connection, account), _extensions(connection, account))
            for entry in entries:
                _check_task(connection, entry.task_id)
                _refuse_ordered(connection, account, [entry.pod_name], now=now, task_id=entry.task_id)
            closed = RENTALS.c.account == account, RENTALS.c.closed_at < now - KEPT_FOR
            connection.execute(delete(RENTALS).where(*closed))
            rows = [_row(entry) for entry in entries]
            connection.execute(insert(RENTALS), rows)
            return [Entry(**row) for row in rows]

        return await self.database.run(work)

    async def refuse_ordered(self, account: str, pod_names: Sequence[str], *, now: datetime) -> None:
        """Refuse names for which a standing order waits that may still rent, whichever key of the account placed it.

        Raises:
            PodNameTaken: one waits.
            LedgerUnavailable: it cannot be read.
        """
        await self.database.read(lambda connection: _refuse_ordered(connection, account, pod_names, now=now))

    async def admit_extension(
        self, account: str, extension: Extension, check: StandingCheck, *, login_id: str | None = None
    ) -> None:
        """Write that a pod may live until a later time, unless `check` raises; both in one transaction, as in `admit`.

        Raises:
            LoginEnded: it is for a login that has ended.
            LedgerUnavailable: nothing was written.
        """

        def work(connection: Connection) -> None:
            self.database.take_turn(connection, account)
            refuse_ended(connection, login_id)
            check(open_entries_of(connection, account), _extensions(connection, account))
            own = EXTENSIONS.c.account == account
            old = EXTENSIONS.c.admitted_at < extension.admitted_at - _EXTENSIONS_KEPT_FOR
            connection.execute(delete(EXTENSIONS).where(own, or_(EXTENSIONS.c.pod_id == extension.pod_id, old)))
            row = {"account": account, "pod_id": extension.pod_id, "removal_at": extension.removal_at}
            connection.execute(insert(EXTENSIONS).values(row | {"admitted_at": extension.admitted_at}))

        await self.database.run(work)

    async def forget_extension(self, account: str, pod_id: str) -> None:
        """Delete a pod's admitted extension: Lium refused it, or the pod ends earlier.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        same = (EXTENSIONS.c.account == account) & (EXTENSIONS.c.pod_id == pod_id)
        await self.database.run(lambda connection: connection.execute(delete(EXTENSIONS).where(same)))

    async def open_entries(self, account: str) -> list[Entry]:
        """The account's open rents, oldest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self.database.read(lambda connection: open_entries_of(connection, account))

    async def standing(self, account: str) -> tuple[list[Entry], list[Extension]]:
        """The account's open rents and admitted extensions at one moment.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self.database.read(
            lambda connection: (open_entries_of(connection, account), _extensions(connection, account))
        )

    async def closed_since(self, account: str, moment: datetime) -> list[PastCost]:
        """The costs of the account's rents whose pods were removed since a moment.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        columns = (RENTALS.c.pod_ids, RENTALS.c.price_per_hour_usd, RENTALS.c.created_at, RENTALS.c.closed_at)
        wanted = (RENTALS.c.closed_at >= moment) & (RENTALS.c.status == "removed")

        def work(connection: Connection) -> list[PastCost]:
            rows = select(*columns).where(_OF & wanted)
            return [PastCost(*row) for row in connection.execute(rows, _whose(connection, account))]

        return await self.database.read(work)

    async def given_back(self, account: str) -> list[Entry]:
        """The account's rents, newest first, whose pods were given back by a look.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self._rents_of(account, _GIVEN_BACK_OF)

    async def failed_on_nodes(self, account: str, since: datetime) -> list[Entry]:
        """The account's rents since a moment that a node refused, or whose pods did not come to run, newest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        has_failed = or_(*map(RENTALS.c.note.startswith, (REFUSED_BY, FAILED_TO_START)))
        return await self._rents_of(account, _newest((RENTALS.c.created_at >= since) & has_failed))

    async def removed(self, account: str, pod_name: str) -> list[Entry]:
        """The account's rents of a name whose pods were removed, newest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        wanted = (RENTALS.c.status == "removed") & (RENTALS.c.pod_name == pod_name)
        return await self._rents_of(account, _newest(wanted).limit(_MOST_OF_A_NAME))

    async def gone(self, account: str, pod_names: Sequence[str], since: datetime) -> list[Entry]:
        """The account's rents of some names whose pods go now, or were closed since a moment, newest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        closed = RENTALS.c.status.in_(("removed", "closed")) & (RENTALS.c.closed_at >= since)
        had_pods = or_(closed, RENTALS.c.status == "removing")
        return await self._rents_of(account, _newest(RENTALS.c.pod_name.in_(pod_names) & had_pods))

    async def _rents_of(self, account: str, rows: Select[Any]) -> list[Entry]:
        return await self.database.read(lambda connection: _entries(connection, rows, account))

    async def made_for(self, task: Task, asked: str, since: datetime) -> list[Entry]:
        """The rents that are for a task, or by which calls asked for the same pod since a moment, newest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        same = (RENTALS.c.pod_name == task.name) & (RENTALS.c.asked == asked) & (RENTALS.c.created_at >= since)

        wanted = or_(RENTALS.c.task_id == task.id, _OF & same)
        return await self._rents_of(task.account, select(RENTALS).where(wanted).order_by(RENTALS.c.created_at.desc()))

    async def newest(self, limit: int, account: str | None = None) -> list[Entry]:
        """The newest rents of an account, or of all accounts, open ones first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        rows = select(RENTALS).order_by(RENTALS.c.closed_at.isnot(None), RENTALS.c.created_at.desc()).limit(limit)
        if account is not None:
            rows = rows.where(RENTALS.c.account == account)
        return await self.database.read(lambda connection: [entry_of(row) for row in connection.execute(rows)])

    async def change(
        self,
        entry: Entry,
        status: Status,
        *,
        now: datetime,
        only_from: Collection[Status] | None = None,
        only_if: Mapping[str, Any] | None = None,
        login_id: str | None = None,
        **values: Any,  # noqa: ANN401 - columns of the table
    ) -> bool:
        """Set the status of an open rent, and other columns with it.

        Returns:
            False where it is closed, its status is not in `only_from`, or its values are not those of `only_if`.

        Raises:
            LoginEnded: it is for a login that has ended.
            LedgerUnavailable: nothing was written.
        """
        values |= {"status": status}
        if status in CLOSED:
            values["closed_at"] = now
        if entry.settled_at is None and status not in UNSETTLED:
            values["settled_at"] = now
        if status != entry.status:  # Lium is asked something else from then on
            values |= {"looks": 0, "next_look_at": None}
        if "note" in values:
            values["note"] = storable(self._redact(str(values["note"])))
        wanted = (RENTALS.c.id == entry.id) & OPEN
        if only_from is not None:
            wanted &= RENTALS.c.status.in_(only_from)
        for name, value in (only_if or {}).items():
            wanted &= RENTALS.c[name] == value

        def work(connection: Connection) -> bool:
            refuse_ended(connection, login_id)
            return connection.execute(update(RENTALS).where(wanted).values(values)).rowcount > 0

        return await self.database.run(work)

    async def mark_unwanted(self, entry: Entry) -> None:
        """Note that nobody waits for a rent any more, whatever its status.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        row = update(RENTALS).where((RENTALS.c.id == entry.id) & OPEN).values(unwanted=True)
        await self.database.run(lambda connection: connection.execute(row))

    async def claim_look(self, entry: Entry, *, now: datetime, pause_after: Callable[[int], timedelta]) -> bool:
        """Reserve the next question to Lium about an open rent; one that was being sent is unknown from then on.

        Args:
            entry: The rent.
            now: The moment of the question.
            pause_after: How long nobody may ask again, given how many questions came before this one.

        Returns:
            False where it is too early to ask, or somebody has settled it or closed it meanwhile.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        known = UNSETTLED if entry.is_unsettled else {entry.status}
        same = (RENTALS.c.id == entry.id) & OPEN & RENTALS.c.status.in_(known)
        status: Status = "unknown" if entry.is_unsettled else entry.status

        def work(connection: Connection) -> bool:
            row = connection.execute(select(RENTALS.c.looks, RENTALS.c.next_look_at).where(same)).one_or_none()
            if row is None or (row.next_look_at is not None and row.next_look_at > now):
                return False
            values = {"status": status, "looks": row.looks + 1, "next_look_at": now + pause_after(row.looks)}
            # Where two servers read the same count, the second one does not find it any more.
            unclaimed = same & (RENTALS.c.looks == row.looks)
            return connection.execute(update(RENTALS).where(unclaimed).values(values)).rowcount > 0

        return await self.database.run(work)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.database.aclose()


def _check_task(connection: Connection, task_id: str | None) -> None:
    """Refuse a rent for a task that is over, or whose login is; an open one stays so until this transaction ends.

    Raises:
        TaskOver: it is.
    """
    has_key = or_(~TASKS.c.by_login, has_login(TASKS.c.account))
    open_one = select(TASKS.c.id).where((TASKS.c.id == task_id) & OPEN_TASK & has_key).with_for_update()
    if task_id is not None and connection.execute(open_one).first() is None:
        raise TaskOver


def _refuse_ordered(
    connection: Connection, account: str, pod_names: Sequence[str], *, now: datetime, task_id: str | None = None
) -> None:
    """Refuse names that open orders hold, but for that of the order itself.

    Raises:
        PodNameTaken: one is held.
    """
    has_rented = select(RENTALS.c.id).where((RENTALS.c.task_id == TASKS.c.id) & MAY_HAVE_RENTED).exists()
    wanted = OPEN_TASK & (TASKS.c.account == account) & (TASKS.c.kind == "standing_order") & ~has_rented
    columns = select(TASKS.c.id, TASKS.c.name, TASKS.c.payload)
    for row in connection.execute(columns.where(wanted & TASKS.c.name.in_(pod_names))):
        if row.id != task_id and not is_expired(row.payload, now):
            raise PodNameTaken(row.name, is_ordered=True)


def _whose(connection: Connection, account: str) -> dict[str, list[str]]:
    """What `_OF` compares with: the account, and the keys that stood for it."""
    return {"accounts": [account, *connection.execute(_KEYS_OF, {"account": account}).scalars()]}


def _entries(connection: Connection, rows: Select[Any], account: str) -> list[Entry]:
    return [entry_of(row) for row in connection.execute(rows, _whose(connection, account))]


def open_entries_of(connection: Connection, account: str) -> list[Entry]:
    """The account's open rents, oldest first."""
    return _entries(connection, _OPEN_OF, account)


def _extensions(connection: Connection, account: str) -> list[Extension]:
    return [Extension(*row) for row in connection.execute(_EXTENSIONS_OF, {"account": account})]


def _row(entry: Entry) -> dict[str, Any]:
    """A new row, with an id of its own."""
    row = {name: getattr(entry, name) for name in _NAMES} | {"id": str(uuid4())}
    return row | {name: list(row[name]) for name in ("known_pod_ids", "pod_ids", "kept_pod_ids")}


def entry_of(row: Row[Any]) -> Entry:
    """A rent of its row."""
    return Entry(**{name: row._mapping[name] for name in _NAMES})  # noqa: SLF001 - SQLAlchemy's public name for it
