"""The database of the ledger: SQLite by default, PostgreSQL where several servers serve one account.

It opens itself when it is first used, and brings its tables up to date then. Statements run in a worker thread, each
piece of work in one transaction, and none takes longer than its time limit.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from lium_mcp.observing import Work, observed
from lium_mcp.rentals.entries import LedgerUnavailable
from lium_mcp.rentals.tables import prepare
from lium_mcp.sqlite_files import make_private, write_ahead

T = TypeVar("T")

_ONLY_READS: Final = "only_reads"
_BUSY_SECONDS: Final = 10
_CONNECT_SECONDS: Final = 5
# Longer than PostgreSQL itself lets a statement take: one that is frozen keeps no limit of its own.
_ANSWER_SECONDS: Final = 12.0
# A server that vanishes in a transaction must not keep the others waiting.
_POSTGRES_OPTIONS: Final = (
    "-c statement_timeout=10000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=15000"
)


class _TimeLimit:
    """Ends what one transaction waits for at PostgreSQL, by cutting its connections: a thread cannot be cancelled."""

    def __init__(self) -> None:
        self.is_over = False
        self._connections: list[Any] = []

    def __enter__(self) -> None:
        """Begin the transaction."""

    def __exit__(self, *_: object) -> None:
        """Let go of its connections, which others use from now on."""
        self._connections = []

    def begin(self, connection: Any) -> None:  # noqa: ANN401 - the driver's own
        """Let a connection be cut when the time is over.

        Raises:
            TimeoutError: it is over.
        """
        self._connections.append(connection)
        if self.is_over:
            raise TimeoutError(errno.ETIMEDOUT, "no more time")

    def cut(self) -> None:
        """End the time."""
        self.is_over = True
        for connection in self._connections:
            # One that is closed has no socket any more.
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as its:
                its.shutdown(socket.SHUT_RDWR)


_time_limit: ContextVar[_TimeLimit] = ContextVar("_time_limit")


class Database:
    """One database. Nothing is opened before it is first used."""

    def __init__(self, url: str) -> None:
        """Take an address: `sqlite:///PATH`, `sqlite://` (in memory) or `postgresql://...`.

        Raises:
            LedgerUnavailable: the address cannot be read.
        """
        self._url = _parse(url)
        self._engine: Engine | None = None
        self._opening = Lock()

    @property
    def is_file(self) -> bool:
        """Whether only servers of this machine use it, since it is a file."""
        return self._url.get_backend_name() == "sqlite"

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work in one transaction.

        Raises:
            LedgerUnavailable: nothing of it was written.
        """
        return await self._run(work, only_reads=False)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Do work that only reads; it waits for nobody who writes, and keeps nobody from writing.

        Raises:
            LedgerUnavailable: it cannot be read.
        """
        return await self._run(work, only_reads=True)

    async def _run(self, work: Callable[[Connection], T], *, only_reads: bool) -> T:
        def run() -> T:
            with _failures(), limit:
                engine = self._open()
                pool = engine.pool
                try:
                    with engine.execution_options(**{_ONLY_READS: only_reads}).begin() as connection:
                        return work(connection)
                finally:
                    # Who was left behind by a cancelled call may end after the rest was closed.
                    if self._engine is not engine:
                        pool.dispose()

        limit = _TimeLimit()
        with observed(Work("transaction", "read" if only_reads else "write")) as told:
            _time_limit.set(limit)  # the thread has it too
            # A file has no connection to cut: what waits for its lock has a limit of its own, and says so.
            timer = None if self.is_file else asyncio.get_running_loop().call_later(_ANSWER_SECONDS, limit.cut)
            # Nobody waits for what is only read once they were cancelled; what writes is seen through.
            leaves = only_reads and not self.is_file
            try:
                result = await anyio.to_thread.run_sync(run, abandon_on_cancel=leaves)
            except asyncio.CancelledError:
                limit.cut()
                raise
            except LedgerUnavailable as error:
                told.outcome = "unavailable"
                if limit.is_over:
                    seconds = f"{_ANSWER_SECONDS:.0f} seconds"
                    raise LedgerUnavailable(f"the database did not answer within {seconds}") from error
                raise
            except Exception:
                told.outcome = "refused"  # by what the work was to look at: nothing of it was written
                raise
            finally:
                if timer is not None:
                    timer.cancel()
            told.outcome = "ok"
            return result

    async def check(self) -> None:
        """See whether PostgreSQL answers and takes writes.

        Raises:
            LedgerUnavailable: it does not, as a standby.
        """

        def work(connection: Connection) -> None:
            if connection.scalar(text("SHOW transaction_read_only")) != "off":
                raise LedgerUnavailable("the database takes no writes now")

        await self.read(work)

    def take_turn(self, connection: Connection, name: str) -> None:
        """Keep all other work that takes a turn of this name waiting until this transaction ends.

        SQLite lets only one transaction write at a time anyhow.
        """
        if not self.is_file:
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            connection.execute(lock, {"name": f"lium-mcp {name}"})

    async def aclose(self) -> None:
        """Close the connections."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with anyio.CancelScope(shield=True):  # a server that is stopped closes them too
                await anyio.to_thread.run_sync(engine.dispose)

    def _open(self) -> Engine:
        with self._opening:
            if self._engine is None:
                engine = _sqlite(self._url) if self.is_file else _postgres(self._url)
                try:
                    with engine.begin() as connection:
                        # Two servers that make or change the tables at once would trip over each other.
                        self.take_turn(connection, "schema")
                        prepare(connection)
                except BaseException:
                    engine.dispose()  # the next attempt makes another
                    raise
                self._engine = engine
            return self._engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise LedgerUnavailable("its address cannot be read") from None  # it is not quoted: it may hold a password
    if "@" in (parsed.host or ""):
        # The rest of the password would be taken for the host, and errors name hosts.
        raise LedgerUnavailable("an @ in the password of its address has to be written as %40")
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        # A server that took no turn has written a rent of that name meanwhile.
        raise LedgerUnavailable("the database refused a second open rent of that name") from error
    except (SQLAlchemyError, OSError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise LedgerUnavailable(lines[0]) from error


def _sqlite(url: URL) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS, "check_same_thread": False}}
    if url.database in {None, "", ":memory:"}:
        # Each connection has a database of its own, and cannot be in two transactions: threads take turns with one.
        options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": _BUSY_SECONDS}
    else:
        make_private(Path(url.database or ""))
    engine = create_engine(url, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def prepare_connection(connection: Any, _: Any) -> None:  # noqa: ANN401 - the driver's own
        connection.isolation_level = None  # transactions begin below, where those that write take the lock at once
        write_ahead(connection, busy_seconds=_BUSY_SECONDS)
        connection.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        only_reads = connection.get_execution_options().get(_ONLY_READS, False)
        connection.exec_driver_sql("BEGIN DEFERRED" if only_reads else "BEGIN IMMEDIATE")

    return engine


def _postgres(url: URL) -> Engine:
    arguments = {"connect_timeout": _CONNECT_SECONDS, "options": _POSTGRES_OPTIONS, "tcp_user_timeout": 10_000}
    engine = create_engine(url, hide_parameters=True, pool_size=4, pool_timeout=_BUSY_SECONDS, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:  # noqa: ANN401 - the driver's own
        _time_limit.get().begin(connection)

    @event.listens_for(engine, "checkout")
    def taken(connection: Any, *_: Any) -> None:  # noqa: ANN401 - as above
        _time_limit.get().begin(connection)
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error  # the pool takes another

    return engine
