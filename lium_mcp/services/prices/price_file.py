"""The file of past prices: SQLite, one row for each GPU type and reading of the market that was kept.

Several processes share it. It is opened for each piece of work, which is short, and nothing waits long for another
process. Every method blocks: call them in a thread, one at a time.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TypeVar, get_type_hints

from lium_mcp.services.prices.price_samples import SLOT_SECONDS, First, Point, PriceFileUnusable, Sample, Summary
from lium_mcp.sqlite_files import make_private, write_ahead

R = TypeVar("R", Summary, First, Point)

_VERSION: Final = 1
_BUSY_SECONDS: Final = 0.5
# A month shows whether the week itself is dear. What is older says nothing of the prices of a rent.
_KEPT_SECONDS: Final = 30 * 86_400
_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS markets (id INTEGER PRIMARY KEY, base_url TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS samples (
    market INTEGER NOT NULL REFERENCES markets (id),
    at INTEGER NOT NULL,
    gpu_type TEXT NOT NULL,
    lowest_usd REAL NOT NULL,
    median_usd REAL NOT NULL,
    gpus INTEGER NOT NULL,
    nodes INTEGER NOT NULL,
    PRIMARY KEY (market, at, gpu_type)
) WITHOUT ROWID;
PRAGMA user_version = {_VERSION};
COMMIT;
"""
# Each query answers in one row of JSON: for each row that Python takes, it would wait for all other threads anew.
# The median is the middle row, or lies in the middle of two.
_SUMMARY: Final = """
WITH ranked AS (
    SELECT gpu_type, at, lowest_usd,
        ROW_NUMBER() OVER (PARTITION BY gpu_type ORDER BY lowest_usd) AS place,
        COUNT(*) OVER (PARTITION BY gpu_type) AS samples
    FROM samples
    WHERE market = (SELECT id FROM markets WHERE base_url = :market) AND at >= :since AND at < :until
)
SELECT json_group_array(json_array(gpu_type, samples, lowest, middle, highest, last_at)) FROM (
    SELECT gpu_type, MAX(samples) AS samples, MIN(lowest_usd) AS lowest,
        AVG(CASE WHEN place IN ((samples + 1) / 2, (samples + 2) / 2) THEN lowest_usd END) AS middle,
        MAX(lowest_usd) AS highest, MAX(at) AS last_at
    FROM ranked GROUP BY gpu_type
)
"""
_FIRST: Final = """
SELECT json_group_array(json_array(gpu_type, at)) FROM (
    SELECT gpu_type, MIN(at) AS at FROM samples
    WHERE market = (SELECT id FROM markets WHERE base_url = :market) AND at >= 0 AND at < :until GROUP BY gpu_type
)
"""
# A type is thinned only where it has more samples than points, evenly over the time that it was seen. Of each stretch
# stands the cheapest sample, since a price that was there must not vanish from a chart of the lowest, and the newest
# stands for itself. Beside MIN, SQLite takes the other columns from the very row that has it.
_SERIES: Final = """
WITH wanted AS (
    SELECT gpu_type, at, lowest_usd, median_usd, gpus, nodes FROM samples
    WHERE market = (SELECT id FROM markets WHERE base_url = :market) AND at >= :since AND at < :until
        AND gpu_type IN (SELECT value FROM json_each(:types))
), stretches AS (
    SELECT gpu_type, MIN(at) AS first_at, MAX(at) AS last_at,
        CASE WHEN COUNT(*) <= :most THEN 1
            ELSE ((MAX(at) - MIN(at)) / (:most - 1) / :slot + 1) * :slot END AS step
    FROM wanted GROUP BY gpu_type
)
SELECT json_group_array(json_array(gpu_type, at, lowest_usd, median_usd, gpus, nodes)) FROM (
    SELECT gpu_type, at, MIN(lowest_usd) AS lowest_usd, median_usd, gpus, nodes
    FROM wanted JOIN stretches USING (gpu_type)
    GROUP BY gpu_type, at = last_at, (at - first_at) / step ORDER BY gpu_type, at
)
"""


class PriceFile:
    """Past prices of markets, each known by the address of its API. All times are UNIX seconds."""

    def __init__(self, path: Path | None) -> None:
        """Take the path of the file, which is made when something is first written; None keeps it in memory."""
        self._path = path
        self._memory: sqlite3.Connection | None = None

    def add(self, market: str, at: int, samples: Iterable[Sample]) -> None:
        """Keep a reading, unless one is kept in its slot already, and drop what is too old.

        Raises:
            PriceFileUnusable: nothing of it was written.
        """
        slot = at - at % SLOT_SECONDS
        with self._opened(makes=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR IGNORE INTO markets (base_url) VALUES (?)", (market,))
            [market_id] = connection.execute("SELECT id FROM markets WHERE base_url = ?", (market,)).fetchone()
            kept = connection.execute(
                "SELECT 1 FROM samples WHERE market = ? AND at >= ? AND at < ? LIMIT 1",
                (market_id, slot, slot + SLOT_SECONDS),
            )
            if kept.fetchone() is None:
                connection.execute(
                    "DELETE FROM samples WHERE market IN (SELECT id FROM markets) AND at < ?", (at - _KEPT_SECONDS,)
                )
                connection.executemany(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (market_id, at, one.gpu_type, one.lowest_usd, one.median_usd, one.gpus, one.nodes)
                        for one in samples
                    ],
                )
            connection.execute("COMMIT")

    def summaries(self, market: str, *, since: int, until: int) -> list[Summary]:
        """What each GPU type cost at least, from one time to before another.

        Raises:
            PriceFileUnusable: it cannot be read.
        """
        return self._read(Summary, _SUMMARY, market=market, since=since, until=until)

    def first_seen(self, market: str, *, until: int) -> dict[str, int]:
        """When each GPU type was first sampled, before a time, as far back as samples are kept.

        Raises:
            PriceFileUnusable: it cannot be read.
        """
        return {first.gpu_type: first.at for first in self._read(First, _FIRST, market=market, until=until)}

    def series(self, market: str, gpu_types: Collection[str], *, since: int, until: int, most: int) -> list[Point]:
        """Samples of these GPU types, by type and time: of a type with more than `most`, the cheapest of each stretch.

        Raises:
            PriceFileUnusable: it cannot be read.
        """
        types = json.dumps(list(gpu_types))
        times = {"since": since, "until": until, "slot": SLOT_SECONDS}
        return self._read(Point, _SERIES, market=market, types=types, most=most, **times)

    def _read(self, kind: type[R], query: str, **values: str | int) -> list[R]:
        if self._path is not None and not self._path.exists():
            return []
        with self._opened(makes=False) as connection:
            [found] = connection.execute(query, values).fetchone()
        kinds = get_type_hints(kind).values()
        try:
            # Columns of SQLite hold whatever somebody has put there.
            return [kind(*(read(value) for read, value in zip(kinds, row, strict=True))) for row in json.loads(found)]
        except (TypeError, ValueError):
            raise PriceFileUnusable("it holds what is no sample") from None

    @contextmanager
    def _opened(self, *, makes: bool) -> Iterator[sqlite3.Connection]:
        try:
            if self._path is None:
                yield self._in_memory()
                return
            if makes:
                make_private(self._path)
            with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                _make_tables(connection)
                connection.execute("PRAGMA synchronous=NORMAL")  # the newest rows may be lost with the power
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise PriceFileUnusable(str(error) or type(error).__name__) from error

    def _in_memory(self) -> sqlite3.Connection:
        if self._memory is None:
            # Threads take turns with it.
            self._memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            _make_tables(self._memory)
        return self._memory


def _make_tables(connection: sqlite3.Connection) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise PriceFileUnusable("a newer version of Lium MCP has made it")
    if version < _VERSION:
        write_ahead(connection, busy_seconds=_BUSY_SECONDS)  # it stays so; in memory it does nothing
        connection.executescript(_TABLES)
