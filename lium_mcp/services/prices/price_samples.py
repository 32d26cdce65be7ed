"""Samples of the market, and what is told of them. The file of them is opened by who needs it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from lium_mcp.api.paging import Rows

SLOT_SECONDS: Final = 600
"""One reading of a market is kept in each slot of so many seconds, whichever process makes it."""


class PriceFileUnusable(Exception):
    """The file cannot be read or written; the text says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One GPU type in one reading of the market, USD per GPU-hour."""

    gpu_type: str
    lowest_usd: float
    median_usd: float
    gpus: int
    nodes: int


class Summary(NamedTuple):
    """The lowest price of one GPU type over a time: of how many samples, its range and median, and the newest time."""

    gpu_type: str
    samples: int
    min_usd: float
    median_usd: float
    max_usd: float
    last_at: int


class First(NamedTuple):
    """When a GPU type was first sampled, in UNIX seconds."""

    gpu_type: str
    at: int


class Point(NamedTuple):
    """One sample, and when it was taken, in UNIX seconds."""

    gpu_type: str
    at: int
    lowest_usd: float
    median_usd: float
    gpus: int
    nodes: int


def is_whole(market: "Rows[Any]") -> bool:
    """Whether a reading tells what is on offer; of an empty one nobody knows whether nothing is, or it went wrong."""
    return bool(market) and not market.skipped and not market.truncated
