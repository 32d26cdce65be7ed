"""The tables of the ledger, and the migrations that bring a ledger of an earlier version up to date."""

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.types import TypeDecorator

from lium_mcp.rentals.entries import LedgerUnavailable

MAX_NOTE_CHARACTERS: Final = 500
_METADATA: Final = MetaData()


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, stored in UTC: SQLite would give it back without its zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Return what is stored."""
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, _: Dialect) -> datetime | None:
        """Return the instant that was stored."""
        return value.replace(tzinfo=UTC) if value else None


class WholeNumber(TypeDecorator[int]):
    """A whole number, also where an older ledger has it in a column of floats."""

    impl = Integer
    cache_ok = True

    def process_result_value(self, value: float | None, _: Dialect) -> int | None:
        """Return the number that was stored."""
        return None if value is None else int(value)


RENTALS: Final = Table(
    "rentals",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("key_tag", String(64), nullable=False),
    Column("pod_name", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("order", JSON, nullable=False),
    Column("asked", String(64), nullable=False),
    Column("idempotency_key", String(36), nullable=False, unique=True),
    Column("known_pod_ids", JSON, nullable=False),
    Column("pod_ids", JSON, nullable=False),
    Column("pod_count", WholeNumber, nullable=False),
    Column("price_per_hour_usd", Float),
    Column("expected", JSON(none_as_null=True)),
    Column("hours", Float),
    Column("kept_pod_ids", JSON, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("handed_out", Boolean, nullable=False, server_default=text("false")),
    Column("unwanted", Boolean, nullable=False, server_default=text("false")),
    Column("removal_accepted", Boolean, nullable=False, server_default=text("false")),
    Column("looks", Integer, nullable=False, server_default=text("0")),
    Column("next_look_at", UtcDateTime),
    Column("missed_lists", Integer, nullable=False, server_default=text("0")),
    Column("missed_at", UtcDateTime),
    Column("note", String(MAX_NOTE_CHARACTERS), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    Column("closed_at", UtcDateTime),
    Column("task_id", String(36)),
    Column("by_login", Boolean, nullable=False, server_default=text("false")),
)
OPEN: Final = RENTALS.c.closed_at.is_(None)
Index(
    "one_open_rental_per_name",
    RENTALS.c.account,
    RENTALS.c.pod_name,
    unique=True,
    sqlite_where=OPEN,
    postgresql_where=OPEN,
)
Index("rentals_by_closing", RENTALS.c.account, RENTALS.c.closed_at)
# What was refused, or never sent, rented nothing.
MAY_HAVE_RENTED: Final = RENTALS.c.status.not_in(["refused", "withdrawn"])
Index(
    "one_rental_per_task",
    RENTALS.c.task_id,
    unique=True,
    sqlite_where=MAY_HAVE_RENTED,
    postgresql_where=MAY_HAVE_RENTED,
)

ACCOUNTS: Final = Table(
    "accounts",
    _METADATA,
    Column("key_tag", String(64), primary_key=True),
    Column("account", String(64), nullable=False, index=True),
    Column("learned_at", UtcDateTime, nullable=False),
)

EXTENSIONS: Final = Table(
    "extensions",
    _METADATA,
    Column("account", String(64), primary_key=True),
    Column("pod_id", String(100), primary_key=True),
    Column("removal_at", UtcDateTime, nullable=False),
    Column("admitted_at", UtcDateTime, nullable=False),
)

TASKS: Final = Table(
    "tasks",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("key_tag", String(64), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("name", String(200), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("lease_owner", String(36)),
    Column("lease_until", UtcDateTime),
    Column("note", String(MAX_NOTE_CHARACTERS), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("by_login", Boolean, nullable=False, server_default=text("false")),
)
OPEN_TASK: Final = TASKS.c.closed_at.is_(None)
Index(
    "one_open_task_per_name",
    TASKS.c.account,
    TASKS.c.kind,
    TASKS.c.subject,
    TASKS.c.name,
    unique=True,
    sqlite_where=OPEN_TASK,
    postgresql_where=OPEN_TASK,
)

WORK: Final = Table(
    "work",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("pod_id", String(100), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("owner", String(36), nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    sqlite_autoincrement=True,  # an id is never used again: it tells what began after what
)

NOTES: Final = Table(
    "notes",
    _METADATA,
    Column("name", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("until", UtcDateTime, nullable=False, index=True),
)

# Of callers that log in over HTTP. What is worth a key is sealed, and tokens are kept as digests.
LOGIN_CLIENTS: Final = Table(
    "login_clients",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("registration", JSON, nullable=False),
    Column("sealed_secret", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False, index=True),
)
LOGINS: Final = Table(
    "logins",
    _METADATA,
    Column("ticket", String(64), primary_key=True),
    Column("client_id", String(36), nullable=False),
    Column("request", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("browser", String(64)),
    Column("sealed", Text),
    Column("next_look_at", UtcDateTime),
    Column("grant_id", String(36)),
    Column("until", UtcDateTime, nullable=False, index=True),
)
GRANTS: Final = Table(
    "grants",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("client_id", String(36), nullable=False),
    Column("client_name", String(200), nullable=False),
    Column("account", String(64), nullable=False, index=True),
    Column("sealed", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("renewed_at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False, index=True),
)
GRANT_TOKENS: Final = Table(
    "grant_tokens",
    _METADATA,
    Column("digest", String(64), primary_key=True),
    Column("grant_id", String(36), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("terms", JSON, nullable=False),
    Column("until", UtcDateTime, nullable=False, index=True),
    Column("used_at", UtcDateTime),
)

_VERSION: Final = Table("ledger_version", _METADATA, Column("version", Integer, primary_key=True))


def _from_version_1(connection: Connection) -> None:
    """Version 1 knew an account only by its key, and of what is expected only the price; it had one more status."""
    for statement in (
        "ALTER TABLE rentals ADD COLUMN key_tag VARCHAR(64) NOT NULL DEFAULT ''",
        "UPDATE rentals SET key_tag = account",
        "UPDATE rentals SET status = 'unknown' WHERE status = 'repeated'",
        "ALTER TABLE rentals ADD COLUMN expected JSON",
        "ALTER TABLE rentals ADD COLUMN handed_out BOOLEAN NOT NULL DEFAULT false",
        "ALTER TABLE rentals ADD COLUMN unwanted BOOLEAN NOT NULL DEFAULT false",
        "ALTER TABLE rentals ADD COLUMN removal_accepted BOOLEAN NOT NULL DEFAULT false",
        "ALTER TABLE rentals ADD COLUMN looks INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE rentals ADD COLUMN next_look_at TIMESTAMP",
        "ALTER TABLE rentals ADD COLUMN missed_lists INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE rentals ADD COLUMN missed_at TIMESTAMP",
        "CREATE INDEX rentals_by_closing ON rentals (account, closed_at)",
    ):
        connection.execute(text(statement))
    ceilings = (
        "SELECT id, ceiling_per_hour_usd FROM rentals WHERE ceiling_per_hour_usd IS NOT NULL AND closed_at IS NULL"
    )
    for row in connection.execute(text(ceilings)).all():
        expected = {"ceiling_per_hour_usd": row.ceiling_per_hour_usd}
        connection.execute(update(RENTALS).where(RENTALS.c.id == row.id).values(expected=expected))


def _from_version_2(connection: Connection) -> None:
    """Version 2 knew no rents that are for a task."""
    for statement in (
        "ALTER TABLE rentals ADD COLUMN task_id VARCHAR(36)",
        "CREATE UNIQUE INDEX one_rental_per_task ON rentals (task_id) WHERE status NOT IN ('refused', 'withdrawn')",
    ):
        connection.execute(text(statement))


def _from_version_3(connection: Connection) -> None:
    """Version 3 did nothing between calls for callers who log in over HTTP."""
    # Where there are no tasks yet, their table is made as it is now.
    for table in {"rentals", "tasks"} & set(inspect(connection).get_table_names()):
        connection.execute(text(f"ALTER TABLE {table} ADD COLUMN by_login BOOLEAN NOT NULL DEFAULT false"))


# Each turns a ledger of one version into one of the next. A new table needs none: it is made where it is missing.
# Servers of both versions rent at the same time while replicas are exchanged one by one, so that a migration only adds:
# columns that may be null or have a default, and indexes. What has to go, or mean something else, waits until no server
# of the version before is left: then the version goes up to the next hundred, which older servers refuse.
_MIGRATIONS: Final = (_from_version_1, _from_version_2, _from_version_3)
LEDGER_VERSION: Final = len(_MIGRATIONS) + 1
_ONLY_ADDS_WITHIN: Final = 100


def storable(note: str) -> str:
    """Cut a note to the length of its column, and replace the characters that a database may refuse."""
    return "".join(character if character.isprintable() else " " for character in note[:MAX_NOTE_CHARACTERS])


def prepare(connection: Connection) -> None:
    """Make the tables, or bring those of an earlier version up to this one; those of a later one that only adds stay.

    Raises:
        LedgerUnavailable: a later version has written it, in another way.
    """
    found = _version(connection)
    if found // _ONLY_ADDS_WITHIN > LEDGER_VERSION // _ONLY_ADDS_WITHIN:
        raise LedgerUnavailable(f"a newer version of lium-mcp has written it (version {found}): update this one")
    if found:
        for migrate in _MIGRATIONS[found - 1 :]:
            migrate(connection)
    _METADATA.create_all(connection)
    if found < LEDGER_VERSION:
        connection.execute(delete(_VERSION))
        connection.execute(insert(_VERSION).values(version=LEDGER_VERSION))


def _version(connection: Connection) -> int:
    """The version of the ledger that is there; 0 where there is none."""
    tables = set(inspect(connection).get_table_names())
    if _VERSION.name in tables:
        return int(connection.execute(select(_VERSION.c.version)).scalar_one())
    return 1 if RENTALS.name in tables else 0
