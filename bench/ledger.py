"""What a ledger that has served for months costs a rent: 30,000 closed rents beside 300, in the same run.

`python -m bench.ledger` prints, for the questions that a rent with a budget asks, the time on a large and on a small
ledger and their ratio. Only charges that Lium may still make are read, so the large one should take hardly longer.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, insert

from lium_mcp.guard.commitments import FIRST_CHARGES
from lium_mcp.rentals.entries import Entry
from lium_mcp.rentals.ledger import KEPT_FOR, Ledger
from lium_mcp.rentals.tables import RENTALS

LARGE: Final = 30_000
SMALL: Final = 300
ROUNDS: Final = 15
ACCOUNT: Final = "a" * 64
NOW: Final = datetime.now(UTC)


def an_entry(name: str) -> Entry:
    order = {"kind": "spec", "request": {"gpu_type": "A100", "user_public_key": ["ssh-ed25519 " + "A" * 60] * 2}}
    return Entry(
        account=ACCOUNT,
        key_tag="k" * 64,
        pod_name=name,
        order=order,
        asked="b" * 64,
        idempotency_key=str(uuid4()),
        known_pod_ids=[str(uuid4()) for _ in range(4)],
        pod_count=1,
        created_at=NOW,
        price_per_hour_usd=1.5,
        hours=2.0,
    )


async def fill(ledger: Ledger, count: int) -> None:
    """Write closed rents, evenly spread over the time for which they are kept."""
    [template] = await ledger.admit([an_entry("template")], lambda _entries, _extensions: None)
    await ledger.change(template, "removed", now=NOW - KEPT_FOR / 2, pod_ids=["p"])
    [entry] = await ledger.newest(1)
    row: dict[str, Any] = {column.name: getattr(entry, column.name) for column in RENTALS.columns}

    def write(connection: Connection) -> None:
        for number in range(count):
            closed_at = NOW - KEPT_FOR * (number / count)
            names = {"id": str(uuid4()), "idempotency_key": str(uuid4()), "pod_name": f"pod-{number}"}
            times = {"created_at": closed_at - timedelta(hours=1), "closed_at": closed_at, "settled_at": closed_at}
            connection.execute(insert(RENTALS).values(row | names | times | {"pod_ids": [str(uuid4())]}))

    await ledger.database.run(write)


async def milliseconds(work: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await work()
        times.append((time.perf_counter() - started) * 1000)
    return median(times)


async def measure(ledger: Ledger) -> Sequence[tuple[str, float]]:
    numbers = iter(range(10**6))

    async def admit() -> None:
        await ledger.admit([an_entry(f"new-{next(numbers)}")], lambda _entries, _extensions: None)

    return (
        ("past charges for a budget", await milliseconds(lambda: ledger.closed_since(ACCOUNT, NOW - FIRST_CHARGES))),
        ("open rents", await milliseconds(lambda: ledger.standing(ACCOUNT))),
        ("admission of a rent", await milliseconds(admit)),
    )


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledgers = [Ledger(f"sqlite:///{Path(folder) / f'{count}.db'}") for count in (SMALL, LARGE)]
        await fill(ledgers[0], SMALL)
        await fill(ledgers[1], LARGE)
        small, large = [await measure(ledger) for ledger in ledgers]
        print(f"ledger of {LARGE:,} closed rents beside {SMALL}, median of {ROUNDS}:")
        for (name, base_ms), (_, ms) in zip(small, large, strict=True):
            print(f"  {name:28} {ms:7.1f} ms  {base_ms:7.1f} ms  ratio {ms / base_ms:5.2f}")
        for ledger in ledgers:
            await ledger.aclose()


if __name__ == "__main__":
    asyncio.run(main())
