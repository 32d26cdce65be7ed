"""How many hours a rental may bill for, and how many a sum pays for: in the worst case, it costs no more.

A rent carries whole hours, and the exact time is set by a second request once the pod runs. Where nobody comes to send
that, the whole hours stand: money is reckoned by them from the start.
"""

import math
from typing import Final

from lium_mcp.settings_table import MOST_HOURS

LATE_HOURS: Final = 0.1
"""Lium removes pods periodically, and so some minutes late; it states no bound. A total has to pay for that too."""
# What arithmetic leaves over must not take an hour away that is paid for to the cent.
_NOISE: Final = 1e-9


def whole_hours(hours: float) -> int:
    """The hours that a rent carries: the API takes whole ones, at least one."""
    return max(math.ceil(hours), 1)


def most_hours(hours: float) -> float:
    """The most hours that a rental for so many bills until Lium removes it, counted from the boot on."""
    return whole_hours(hours) + LATE_HOURS


def hours_paid_for(total_usd: float, price_per_hour_usd: float) -> int:
    """The most whole hours that a total pays for, with those by which Lium may be late."""
    return math.floor(min(total_usd / price_per_hour_usd - LATE_HOURS, MOST_HOURS) + _NOISE)
