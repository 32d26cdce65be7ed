"""The ledger: one table of rents, in SQLite by default, in PostgreSQL where several servers serve one account.

It is what survives this process. That a name is rented once while it lives is held by the database, not by this code,
and admission is one transaction that no other server interleaves. Importing this imports SQLAlchemy, so it is imported
when a rent is first needed. Statements run in a worker thread, and none takes longer than its time limit.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar
from uuid import uuid4

import anyio
import anyio.to_thread
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    Index,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlalchemy.types import TypeDecorator

from lium_mcp.rentals.entries import CLOSED, UNSETTLED, Entry, LedgerUnavailable, Status

T = TypeVar("T")

_BUSY_SECONDS: Final = 10
_BUSY_PAUSE_SECONDS: Final = 0.02
_CONNECT_SECONDS: Final = 5
# A server that vanishes in a transaction must not keep the others waiting.
_POSTGRES_OPTIONS: Final = (
    "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=15000"
)
_MAX_NOTE_CHARACTERS: Final = 500


class _UtcDateTime(TypeDecorator[datetime]):
    """An instant, which SQLite would give back without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


_METADATA: Final = MetaData()
_RENTALS: Final = Table(
    "rentals",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("pod_name", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("order", JSON, nullable=False),
    Column("asked", String(64), nullable=False),
    Column("idempotency_key", String(36), nullable=False, unique=True),
    Column("known_pod_ids", JSON, nullable=False),
    Column("pod_ids", JSON, nullable=False),
    Column("pod_count", Float, nullable=False),
    Column("price_per_hour_usd", Float),
    Column("ceiling_per_hour_usd", Float),
    Column("hours", Float),
    Column("kept_pod_ids", JSON, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("note", String(_MAX_NOTE_CHARACTERS), nullable=False),
    Column("created_at", _UtcDateTime, nullable=False),
    Column("settled_at", _UtcDateTime),
    Column("closed_at", _UtcDateTime),
)
_OPEN: Final = _RENTALS.c.closed_at.is_(None)
Index(
    "one_open_rental_per_name",
    _RENTALS.c.account,
    _RENTALS.c.pod_name,
    unique=True,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)


_NAMES: Final = tuple(field.name for field in fields(Entry))
Judge = Callable[[Sequence[Entry]], None]


class Ledger:
    """The table of rents. Nothing is opened before it is first used."""

    def __init__(self, url: str, redact: Callable[[str], str] = str) -> None:
        """Take the address of a database: `sqlite:///PATH`, `sqlite://` (in memory) or `postgresql://...`.

        `redact` takes secrets out of notes, in which others may have said anything.

        Raises:
            LedgerUnavailable: the address cannot be read.
        """
        self._redact = redact
        self._url = _parse(url)
        self._engine: Engine | None = None
        self._opening = Lock()

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    async def admit(self, entry: Entry, judge: Judge) -> Entry:
        """Write a new rent, unless `judge` raises at the sight of the account's open ones.

        Both happen in one transaction that no other server's admission interleaves.

        Raises:
            LedgerUnavailable: nothing was written.
        """

        def work(connection: Connection) -> Entry:
            self._take_turn(connection, entry.account)
            judge(_open_entries(connection, entry.account))
            row = {name: getattr(entry, name) for name in _NAMES} | {"id": str(uuid4())}
            row |= {name: list(row[name]) for name in ("known_pod_ids", "pod_ids", "kept_pod_ids")}
            connection.execute(insert(_RENTALS).values(row))
            return Entry(**row)

        return await self._run(work)

    async def open_entries(self, account: str) -> list[Entry]:
        """The account's open rents, oldest first.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        return await self._run(lambda connection: _open_entries(connection, account))

    async def closed_since(self, account: str, moment: datetime) -> list[Entry]:
        """The account's rents that made pods and were closed after a moment.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        wanted = (_RENTALS.c.account == account) & (_RENTALS.c.closed_at >= moment)
        rows = select(_RENTALS).where(wanted & (_RENTALS.c.status == "removed")).order_by(_RENTALS.c.created_at)
        return await self._run(lambda connection: [_entry(row) for row in connection.execute(rows)])

    async def newest(self, limit: int, *, account: str | None = None) -> list[Entry]:
        """Open rents first, then the newest closed ones; of every account where none is named.

        Raises:
            LedgerUnavailable: they cannot be read.
        """
        rows = select(_RENTALS).order_by(_RENTALS.c.closed_at.isnot(None), _RENTALS.c.created_at.desc()).limit(limit)
        if account is not None:
            rows = rows.where(_RENTALS.c.account == account)
        return await self._run(lambda connection: [_entry(row) for row in connection.execute(rows)])

    async def change(
        self,
        entry: Entry,
        status: Status,
        *,
        now: datetime,
        only_from: Collection[Status] | None = None,
        **values: Any,  # noqa: ANN401 - columns of the table
    ) -> bool:
        """Let a rent, if it is open, take a status, and set other columns with it.

        Returns:
            False where it was closed, or had none of the statuses `only_from`.

        Raises:
            LedgerUnavailable: nothing was written.
        """
        values |= {"status": status}
        if status in CLOSED:
            values["closed_at"] = now
        if status != "sending" and entry.settled_at is None and status not in UNSETTLED:
            values["settled_at"] = now
        if "note" in values:
            values["note"] = _storable(self._redact(str(values["note"]))[:_MAX_NOTE_CHARACTERS])
        wanted = (_RENTALS.c.id == entry.id) & _OPEN
        if only_from is not None:
            wanted &= _RENTALS.c.status.in_(only_from)

        def work(connection: Connection) -> bool:
            return connection.execute(update(_RENTALS).where(wanted).values(values)).rowcount > 0

        return await self._run(work)

    async def aclose(self) -> None:
        """Close the connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with anyio.CancelScope(shield=True):  # a server that is stopped closes them too
                await anyio.to_thread.run_sync(engine.dispose)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with _failures():
                engine = self._open()
                with engine.begin() as connection:
                    return work(connection)

        return await anyio.to_thread.run_sync(run)

    def _open(self) -> Engine:
        with self._opening:
            if self._engine is None:
                engine = _sqlite(self._url) if self._is_sqlite else _postgres(self._url)
                try:
                    with engine.begin() as connection:
                        # Two servers that create the table at once would trip over each other.
                        self._take_turn(connection, "schema")
                        _METADATA.create_all(connection)
                except BaseException:
                    engine.dispose()  # the next attempt makes another
                    raise
                self._engine = engine
            return self._engine

    def _take_turn(self, connection: Connection, account: str) -> None:
        """Let no other server's admission run beside this one; SQLite's transactions never do."""
        if not self._is_sqlite:
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            connection.execute(lock, {"name": f"lium-mcp {account}"})


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise LedgerUnavailable("its address cannot be read") from None  # no word of it: there is a password in it
    if "@" in (parsed.host or ""):
        # The rest of the password would be taken for a host, which errors name.
        raise LedgerUnavailable("an @ in the password of its address has to be written as %40")
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _storable(note: str) -> str:
    """What somebody else's server said, without characters that a database would refuse."""
    return "".join(character if character.isprintable() else " " for character in note)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        # Another server's rent of that name, which a server that took no turn has written.
        raise LedgerUnavailable("the database refused a second open rent of that name") from error
    except (SQLAlchemyError, OSError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise LedgerUnavailable(lines[0]) from error


def _open_entries(connection: Connection, account: str) -> list[Entry]:
    rows = select(_RENTALS).where(_OPEN & (_RENTALS.c.account == account)).order_by(_RENTALS.c.created_at)
    return [_entry(row) for row in connection.execute(rows)]


def _entry(row: Row[Any]) -> Entry:
    return Entry(**{name: row._mapping[name] for name in _NAMES})  # noqa: SLF001 - SQLAlchemy's public name for it


def _sqlite(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS, "check_same_thread": False}}
    if url.database in {None, "", ":memory:"}:
        # Another connection would have a memory of its own, and one cannot be in two transactions: threads take turns.
        options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": _BUSY_SECONDS}
    else:
        _make_private(Path(url.database or ""))
    engine = create_engine(url, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:  # noqa: ANN401 - the driver's own
        connection.isolation_level = None  # transactions begin below, where they take the lock at once
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; while others do the same to a new file, SQLite refuses at once instead of waiting.

    Raises:
        sqlite3.OperationalError: it was not possible in time.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return


def _make_private(path: Path) -> None:
    """Make the file before SQLite does: what else it writes beside it gets the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    with suppress(PermissionError):  # somebody else's file that we may write
        path.chmod(0o600)


def _postgres(url: URL) -> Engine:
    arguments = {"connect_timeout": _CONNECT_SECONDS, "options": _POSTGRES_OPTIONS, "tcp_user_timeout": 10_000}
    return create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=4, connect_args=arguments)
