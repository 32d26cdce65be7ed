"""Rents as the ledger takes them. Imports little: processes that tests start wait for it."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from lium_mcp.rentals.entries import Entry, Extension, Task

if TYPE_CHECKING:
    from lium_mcp.rentals.ledger import Ledger, StandingCheck

ACCOUNT: Final = "a" * 64
KEY_TAG: Final = "k" * 64
NOW: Final = datetime(2026, 10, 25, 2, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))


def an_entry(pod_name: str = "train", **fields: Any) -> Entry:
    wanted: dict[str, Any] = {
        "account": ACCOUNT,
        "key_tag": KEY_TAG,
        "pod_name": pod_name,
        "order": {"kind": "spec", "request": {"gpu_type": "A100", "deep": [1, {"é": None}]}, "body": "x"},
        "asked": "b" * 64,
        "idempotency_key": str(uuid4()),
        "known_pod_ids": ["one", "two"],
        "pod_count": 1,
        "created_at": NOW,
        "price_per_hour_usd": 1.2345,
        "hours": 2.5,
    }
    return Entry(**wanted | fields)


async def admit(ledger: "Ledger", entry: Entry, check: "StandingCheck") -> Entry:
    """Write one new rent, unless the check raises."""
    [admitted] = await ledger.admit([entry], check)
    return admitted


def a_task(name: str = "j", **fields: Any) -> Task:
    wanted: dict[str, Any] = {
        "account": ACCOUNT,
        "key_tag": KEY_TAG,
        "kind": "follow_up",
        "subject": "pod",
        "name": name,
        "payload": {"then": "backup"},
        "created_at": NOW,
        "next_at": NOW,
    }
    return Task(**wanted | fields)


def allow(_entries: Sequence[Entry], _extensions: Sequence[Extension]) -> None:
    """Judge that nothing stands against it."""
