"""What an answer says of earlier prices of a GPU type."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_fits
from lium_mcp.api.paging import Rows
from lium_mcp.results import Result, UsdRate, UtcTime
from lium_mcp.services.prices.market_prices import offered_by_type
from lium_mcp.services.prices.price_history import Past
from lium_mcp.services.prices.price_samples import Point, Summary, is_whole

_MOST_GONE: Final = 20


class LowestPrices(Result):
    """The lowest price per GPU-hour at which a type was on offer, over the samples of a day or a week."""

    min_usd: UsdRate
    median_usd: UsdRate
    max_usd: UsdRate
    samples: int


class PriceSeries(Result):
    """Samples of the market, the oldest first: each list has one entry for each sample."""

    at: list[UtcTime]
    lowest_usd: list[UsdRate]
    median_usd: list[UsdRate]
    gpus: list[int]
    nodes: list[int]


class PastPrices(Result):
    """What this server has seen of a type before now; absent where that says nothing."""

    seen_since: UtcTime | None = None
    lowest_last_day: LowestPrices | None = None
    lowest_last_week: LowestPrices | None = None
    history: PriceSeries | None = None


class GonePrices(Result):
    """A type that was on offer within the last week, and is not now."""

    gpu_type: str
    last_seen: UtcTime
    past: PastPrices


def past_prices(past: Past | None) -> PastPrices | None:
    """What an answer says of this; None where it is too little to say anything."""
    if past is None or (past.day is None and past.week is None):
        return None
    return PastPrices(seen_since=past.since, lowest_last_day=_lowest(past.day), lowest_last_week=_lowest(past.week))


def gone_types(
    market: Rows[Executor], found: Collection[str], gpu_type: str, past: Mapping[str, Past]
) -> list[GonePrices]:
    """The types that the words mean and that are gone from the market, as far as it tells; the one seen last first.

    Args:
        market: The market.
        found: Types that are on offer and that the words mean.
        gpu_type: The words; empty for all types.
        past: What is remembered.
    """
    gone = {name for name in past.keys() - set(found) if not gpu_type or gpu_fits(gpu_type, name)}
    if not gone or not is_whole(market):
        return []
    gone -= offered_by_type(market).keys()
    said = {name: past_prices(past[name]) for name in gone}
    rows = [
        GonePrices(gpu_type=name, last_seen=past[name].last_at, past=of_it) for name, of_it in said.items() if of_it
    ]
    return sorted(rows, key=lambda row: row.last_seen, reverse=True)[:_MOST_GONE]


def with_series(past: PastPrices | None, points: Sequence[Point]) -> PastPrices | None:
    """The same with the samples themselves, if there are any."""
    return (past or PastPrices()).model_copy(update={"history": _series(points)}) if points else past


def _lowest(summary: Summary | None) -> LowestPrices | None:
    if summary is None:
        return None
    return LowestPrices(
        min_usd=summary.min_usd, median_usd=summary.median_usd, max_usd=summary.max_usd, samples=summary.samples
    )


def _series(points: Sequence[Point]) -> PriceSeries:
    return PriceSeries(
        at=[datetime.fromtimestamp(point.at, UTC) for point in points],
        lowest_usd=[point.lowest_usd for point in points],
        median_usd=[point.median_usd for point in points],
        gpus=[point.gpus for point in points],
        nodes=[point.nodes for point in points],
    )
