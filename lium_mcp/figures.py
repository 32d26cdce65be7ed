"""How figures are worked out, rounded and written: no more digits than anybody acts on, and no 0 for what is more."""

import math
from datetime import datetime, timedelta

_DIGITS = 5
_DIGITS_IN_WORDS = 2
# Decimals beyond these are what arithmetic leaves over.
_MOST_DECIMALS = 12
# By so much two machines may read the time differently.
_CLOCKS_DIFFER = timedelta(minutes=1)


def rounded(value: float, decimals: int = 4) -> float:
    """Round to so many decimals, or to more where fewer than five digits would be left of a small figure."""
    return round(value, _decimals(value, decimals, _DIGITS))


def in_usd(value: float, decimals: int = 2) -> str:
    """An amount or price in words, with so many decimals, or more where it is small."""
    return f"${value:.{_decimals(value, decimals, _DIGITS_IN_WORDS)}f}"


def hours_since(moment: datetime | None, now: datetime) -> float | None:
    """The hours that have gone by; None where nobody says since when, or where that is yet to come."""
    if moment is None or moment - now > _CLOCKS_DIFFER:
        return None
    return max((now - moment).total_seconds(), 0) / 3600


def _decimals(value: float, least: int, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return least
    return min(max(least, digits - 1 - math.floor(math.log10(abs(value)))), _MOST_DECIMALS)
