"""What an answer says of earlier prices of a GPU type."""

from collections.abc import Sequence
from datetime import UTC, datetime

from lium_mcp.results import Result, UsdRate, UtcTime
from lium_mcp.services.prices.price_file import Point, Summary
from lium_mcp.services.prices.price_history import Past


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


def past_prices(past: Past | None) -> PastPrices | None:
    """What an answer says of this; None where it is too little to say anything."""
    if past is None or (past.day is None and past.week is None):
        return None
    return PastPrices(seen_since=past.since, lowest_last_day=_lowest(past.day), lowest_last_week=_lowest(past.week))


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
