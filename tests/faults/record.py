"""What really is: the sandbox's own record, and the ledger's rows past our program's code.

The ledger is read by its columns' names alone; columns and tables that are not named here may come and go.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from lium_mcp.sandbox import Sandbox

Row = dict[str, Any]

_SQLITE: Final = "sqlite:///"
_ROWS: Final = (
    "SELECT idempotency_key, account, pod_name, status, pod_ids, hours, created_at, closed_at, note FROM rentals"
)


def rows_of(url: str) -> list[Row]:
    """Every row of the ledger at an address; none while there is no table yet."""
    try:
        rows = _from_sqlite(Path(url.removeprefix(_SQLITE))) if url.startswith(_SQLITE) else _from_postgres(url)
    except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
        return []
    return [row | {"pod_ids": _list(row["pod_ids"]), "created_at": instant(row["created_at"])} for row in rows]


def _from_sqlite(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(_ROWS)]


def _from_postgres(url: str) -> list[Row]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return list(connection.execute(_ROWS))


def _list(value: Any) -> list[str]:
    return list(json.loads(value) if isinstance(value, str) else value or ())


def is_open(row: Row) -> bool:
    """Whether a row of the ledger has its name still."""
    return row["closed_at"] is None


def is_unsettled(row: Row) -> bool:
    """Whether the ledger itself does not know what became of a rent, whatever it calls that."""
    return is_open(row) and not row["pod_ids"]


def is_alive(pod: Row) -> bool:
    """Whether a pod of the sandbox's record bills, or will."""
    return pod["removed_at"] is None and pod["status"] not in {"DELETING", "CREATION_FAILED"}


def forgotten(sandbox: Sandbox, rows: Iterable[Row]) -> list[Row]:
    """Pods that live and were rented with an idempotency key, and that no open row of the ledger accounts for."""
    open_keys = {row["idempotency_key"] for row in rows if is_open(row)}
    state = sandbox.state("pods", "rents")
    keys = {rent["pod_id"]: rent["idempotency_key"] for rent in state["rents"]}
    return [pod for pod in state["pods"] if is_alive(pod) and keys[pod["id"]] not in open_keys | {None}]


def instant(value: str | datetime) -> datetime:
    """A time as rows write it: UTC where it does not say so."""
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def hours_left(pod: Row, now: datetime) -> float | None:
    """How long Lium will let a pod live; None for ever."""
    if pod["termination_hours"] is not None:
        return float(pod["termination_hours"])
    if pod["removal_scheduled_at"] is None:
        return None
    return max((instant(pod["removal_scheduled_at"]) - now).total_seconds() / 3600, 0)
