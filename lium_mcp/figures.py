"""How figures are worked out, rounded and written: no more digits than anybody acts on, and no 0 for what is more."""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

_DIGITS = 5
_DIGITS_IN_WORDS = 2
_DIGITS_OF_A_RATE = 10
_NOISE = 1e-9
_LEAST_GB = 0.0001
_MOST_IN_CENTS_USD = 1e9
# Decimals beyond these are what arithmetic leaves over.
_MOST_DECIMALS = 12
# By so much two machines may read the time differently.
_CLOCKS_DIFFER = timedelta(minutes=1)


def rounded(value: float, decimals: int = 4) -> float:
    """Round to so many decimals, or to more where fewer than five digits would be left of a small figure."""
    return round(value, _decimals(value, decimals, _DIGITS))


def rounded_gb(value: float) -> float:
    """A size in GB, rounded; less than the least that is read at a glance is rounded up to it."""
    return _LEAST_GB if 0 < value < _LEAST_GB else rounded(value, 3)


def stated(rate: float) -> float:
    """A rate with all the digits that somebody states: one that is shown as less would not pass its own ceiling."""
    return float(f"{rate:.{_DIGITS_OF_A_RATE}g}")


def in_usd(value: float, decimals: int = 2) -> str:
    """An amount in words, with so many decimals, or more where it is small."""
    return f"${value:.{_decimals(value, decimals, _DIGITS_IN_WORDS)}f}"


def rate_in_usd(rate: float, decimals: int = 2) -> str:
    """A rate in words, with so many decimals, or more where it is stated with more."""
    exponent = Decimal(repr(stated(rate))).as_tuple().exponent
    said = -exponent if isinstance(exponent, int) else 0
    return f"${stated(rate):.{max(decimals, said)}f}"


def at_most_usd(value: float) -> float:
    """An amount or rate that nothing of it may exceed, in whole cents."""
    return value if value > _MOST_IN_CENTS_USD else math.ceil(round(value * 100, 6)) / 100


def is_above(value: float, ceiling: float) -> bool:
    """Whether a figure is above a ceiling, be it by the last digit that is stated; noise of arithmetic is not."""
    return value > ceiling and not math.isclose(value, ceiling, rel_tol=_NOISE, abs_tol=_NOISE)


def counted(number: float, unit: str) -> str:
    """So many of a unit, in words: one hour is no hours."""
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"


def hours_since(moment: datetime | None, now: datetime) -> float | None:
    """The hours that have gone by; None where nobody says since when, or where that is yet to come."""
    if moment is None or moment - now > _CLOCKS_DIFFER:
        return None
    return max((now - moment).total_seconds(), 0) / 3600


def known_sum(figures: Iterable[float | None]) -> float | None:
    """The sum of figures; None where nobody knows one of them."""
    all_of_them = list(figures)
    return None if None in all_of_them else sum(figure or 0 for figure in all_of_them)


def known_most(figures: Iterable[float | None]) -> float | None:
    """The highest of figures; None where one of them has no bound, or there is none."""
    all_of_them = list(figures)
    return None if None in all_of_them else max((figure or 0 for figure in all_of_them), default=None)


def _decimals(value: float, least: int, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return least
    return min(max(least, digits - 1 - math.floor(math.log10(abs(value)))), _MOST_DECIMALS)
