"""Runs `lium-mcp` as a later version would be, whose ledger has more in it: what a migration may add, and no more."""

import sys
from typing import Final

from sqlalchemy import Column, Connection, Index, Integer, String, Table, text

from lium_mcp.cli.main import main
from lium_mcp.rentals import tables

NEWER_VERSION: Final = tables.LEDGER_VERSION + 1


def _migrate(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE rentals ADD COLUMN region VARCHAR(40)",
        "ALTER TABLE rentals ADD COLUMN tries INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE tasks ADD COLUMN region VARCHAR(40)",
        "CREATE INDEX rentals_by_region ON rentals (account, region)",
    ):
        connection.execute(text(statement))


def _become_newer() -> None:
    tables.RENTALS.append_column(Column("region", String(40)))
    tables.RENTALS.append_column(Column("tries", Integer, nullable=False, server_default=text("0")))
    tables.TASKS.append_column(Column("region", String(40)))
    Index("rentals_by_region", tables.RENTALS.c.account, tables.RENTALS.c.region)
    Table("regions", tables.RENTALS.metadata, Column("name", String(40), primary_key=True))
    tables._MIGRATIONS = (*tables._MIGRATIONS, _migrate)  # type: ignore[misc, assignment]
    tables.LEDGER_VERSION = NEWER_VERSION  # type: ignore[misc]


if __name__ == "__main__":
    _become_newer()
    sys.exit(main(sys.argv[1:]))
