"""How figures are rounded and money is written: no more digits than anybody acts on, and never a 0 that is none."""

import math

_DIGITS = 5
_DIGITS_IN_WORDS = 2
# Less than this is what arithmetic leaves over.
_MOST_DECIMALS = 12


def rounded(value: float, decimals: int = 4) -> float:
    """Round to so many decimals, or to more where fewer than five digits would be left of a small figure."""
    return round(value, _decimals(value, decimals, _DIGITS))


def in_usd(value: float, decimals: int = 2) -> str:
    """An amount or price in words, with so many decimals, or more where it is small."""
    return f"${value:.{_decimals(value, decimals, _DIGITS_IN_WORDS)}f}"


def _decimals(value: float, least: int, digits: int) -> int:
    if value == 0 or not math.isfinite(value):
        return least
    return min(max(least, digits - 1 - math.floor(math.log10(abs(value)))), _MOST_DECIMALS)
