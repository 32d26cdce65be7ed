"""What the market cost before: readings that are made anyhow leave a sample in ten minutes, and nobody waits for that.

Only readings without a key are kept, which all accounts may know of, and only whole ones. Where the file cannot be
used, the log says so once, and calls go on without a history.
"""

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread

from lium_mcp.api.clock import Clock
from lium_mcp.services.prices.price_samples import SLOT_SECONDS, Point, PriceFileUnusable, Summary, is_whole

if TYPE_CHECKING:
    from lium_mcp.api.executors.models import Executor
    from lium_mcp.api.paging import Rows
    from lium_mcp.services.prices.price_file import PriceFile

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_DAYS: Final = 30
_DAY_SECONDS: Final = 86_400
# A file that hangs is waited for no longer, and not asked again before it has answered.
_PATIENCE_SECONDS: Final = 2.0
# Fewer samples than in an hour say nothing of a day.
_LEAST_SAMPLES: Final = 6
_MOST_POINTS: Final = 200
_MOST_POINTS_IN_ALL: Final = 2000
_LEAST_POINTS: Final = 20


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of one GPU type before now.

    Attributes:
        since: When it was first sampled.
        last_at: When it was last sampled.
        day: Its lowest price over the last day; None where too few samples say anything.
        week: The same over the last week; None also where that says no more than the day does.
    """

    since: datetime
    last_at: datetime
    day: Summary | None = None
    week: Summary | None = None


@dataclass(slots=True)
class _Remembered:
    """What was remembered in a slot of ten minutes, in which it does not change."""

    slot: int = -1
    past: Mapping[str, Past] = field(default_factory=dict)


class PriceHistory:
    """Past prices of the market at one address."""

    def __init__(self, path: Path | None, market: str, clock: Clock | None) -> None:
        """Nothing is opened yet.

        Args:
            path: The file; None to remember in memory alone.
            market: The base address of the API.
            clock: What time a reading is of; None where that is what the answer says, as of a simulated Lium, whose
                time may run ahead. One answer with a wrong date must not clear a month away.
        """
        self._path = path
        self._market = market
        self._clock = clock
        self._file: PriceFile | None = None
        self._sampled_slot = -1
        self._read_at: datetime | None = None
        self._remembered = _Remembered()
        self._turn = anyio.Lock()
        self._is_at_work = False
        self._is_told = False

    def due(self, nodes: "Rows[Executor]", at: datetime) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """What keeps a reading, if it is to be kept: a whole one, the first of this server in its ten minutes.

        Args:
            nodes: What was read.
            at: What time it is of, as the answer says.
        """
        at = self._clock.now() if self._clock else at
        self._read_at = at
        slot = int(at.timestamp()) // SLOT_SECONDS
        if slot == self._sampled_slot or not is_whole(nodes):
            return None
        self._sampled_slot = slot
        return partial(self._keep, nodes, int(at.timestamp()))

    async def _keep(self, nodes: "Rows[Executor]", at: int) -> None:
        def work(file: "PriceFile") -> None:
            from lium_mcp.services.prices.market_prices import sample_market  # noqa: PLC0415 - as in _try

            file.add(self._market, at, sample_market(nodes))

        # A server that is stopped right after its only call has seen the market too.
        with anyio.CancelScope(shield=True):
            await self._try(work, None)

    async def recall(self, now: datetime) -> Mapping[str, Past]:
        """What is remembered of each GPU type of the last week, up to the ten minutes that are now. Never fails."""
        until = self._until(now)
        if until == self._remembered.slot:
            return self._remembered.past

        def work(file: "PriceFile") -> Mapping[str, Past]:
            if until == self._remembered.slot:
                return self._remembered.past  # another call was first
            day = {row.gpu_type: row for row in file.summaries(self._market, since=until - _DAY_SECONDS, until=until)}
            week = file.summaries(self._market, since=until - 7 * _DAY_SECONDS, until=until)
            since = file.first_seen(self._market, until=until)
            return {row.gpu_type: _past(day.get(row.gpu_type), row, since[row.gpu_type]) for row in week}

        nothing: Mapping[str, Past] = {}
        past = await self._try(work, nothing)
        if not self._is_at_work:
            # Also where it cannot be read: no call should find out again.
            self._remembered = _Remembered(until, past)
        return past

    async def series(self, now: datetime, days: int, gpu_types: Collection[str]) -> Mapping[str, list[Point]] | None:
        """Samples of the last days before these ten minutes; where there are too many, fewer of each type.

        Returns:
            Those of each type; None where they cannot be read.
        """
        until = self._until(now)
        points = min(_MOST_POINTS, max(_MOST_POINTS_IN_ALL // max(len(gpu_types), 1), _LEAST_POINTS))

        def work(file: "PriceFile") -> Mapping[str, list[Point]]:
            found: dict[str, list[Point]] = {}
            since = until - days * _DAY_SECONDS
            rows = file.series(self._market, gpu_types, since=since, until=until, most=points)
            for row in rows:
                found.setdefault(row.gpu_type, []).append(row)
            return found

        return await self._try(work, None)

    def _until(self, now: datetime) -> int:
        """The begin of the ten minutes that the newest reading is of, or that are now where there was none."""
        seconds = int((self._read_at or now).timestamp())
        return seconds - seconds % SLOT_SECONDS

    async def _try(self, work: "Callable[[PriceFile], T]", otherwise: T) -> T:
        """Do work on the file in a thread, in turn and within a bound; what goes wrong is told once."""

        def run() -> T:
            try:
                if self._file is None:
                    from lium_mcp.services.prices.price_file import PriceFile  # noqa: PLC0415 - nor for SQLite

                    self._file = PriceFile(self._path)
                return work(self._file)
            finally:
                self._is_at_work = False

        try:
            with anyio.fail_after(_PATIENCE_SECONDS):
                async with self._turn:
                    # Somebody gave up on it, or was cancelled.
                    if self._is_at_work:
                        return otherwise
                    self._is_at_work = True
                    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
        except TimeoutError:
            self._tell("it did not answer in time")
        except PriceFileUnusable as error:
            self._tell(str(error))
        return otherwise

    def _tell(self, problem: str) -> None:
        if not self._is_told:
            self._is_told = True
            log.warning(
                "No past prices are kept or shown, since %s cannot be used: %s", self._path or "memory", problem
            )


def _past(day: Summary | None, week: Summary, since: int) -> Past:
    return Past(
        since=_at(since),
        last_at=_at(week.last_at),
        day=day if day is not None and day.samples >= _LEAST_SAMPLES else None,
        week=week if week.samples >= _LEAST_SAMPLES and (day is None or day.samples < week.samples) else None,
    )


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
