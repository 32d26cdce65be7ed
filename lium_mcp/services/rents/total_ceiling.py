"""How long a rental may last for what may be spent on it: in the worst case, it costs no more."""

from collections.abc import Awaitable, Callable
from typing import Final

from lium_mcp.failures import Failure
from lium_mcp.figures import counted, in_usd, is_above
from lium_mcp.rentals import LATE_HOURS, hours_paid_for, most_hours, whole_hours
from lium_mcp.services.rents.quotes import PricedRental
from lium_mcp.services.rents.request_total import Total
from lium_mcp.settings_table import MOST_HOURS

_MOST_QUOTES: Final = 4


def whole_cost_usd(priced: PricedRental, hours: float) -> float:
    """The most that a rental costs until Lium removes it."""
    late_usd = priced.price_per_hour_usd * LATE_HOURS
    return max(priced.total_usd or 0, priced.price_per_hour_usd * whole_hours(hours)) + late_usd


async def within_total(
    total: Total, priced: PricedRental, hours: float | None, quote: Callable[[float], Awaitable[PricedRental]]
) -> tuple[float, PricedRental]:
    """The most hours that a total pays for, and what they cost.

    Args:
        total: What the whole rental may cost.
        priced: The rental at its price per hour.
        hours: No more than these; None for as many as Lium takes.
        quote: Prices the rental for so many whole hours.

    Raises:
        Failure: it does not pay for one hour.
        LiumError: it cannot be priced.
    """
    one_hour_usd = priced.price_per_hour_usd * most_hours(1)
    most = MOST_HOURS if hours is None else whole_hours(hours)
    whole = min(most, hours_paid_for(total.left_usd, priced.price_per_hour_usd))
    for _ in range(_MOST_QUOTES):
        if whole < 1:
            break
        priced = await quote(whole)
        cost = whole_cost_usd(priced, whole)
        if not is_above(cost, total.left_usd):
            return (hours if hours is not None and whole_hours(hours) <= whole else float(whole)), priced
        one_hour_usd = cost if whole == 1 else priced.price_per_hour_usd * most_hours(1)
        whole = min(whole - 1, hours_paid_for(total.left_usd, cost / most_hours(whole)))
    raise Failure(
        "total_too_low",
        f"{total} does not pay for one hour, which costs {in_usd(one_hour_usd)} with the "
        f"{LATE_HOURS * 60:.0f} minutes by which Lium may remove it late: Lium takes whole hours at the rent, so that "
        "less could cost more.",
        "Raise max_total_usd, choose a cheaper node or fewer GPUs, or bound it by hours alone."
        + (" Another name begins with a whole total." if total.gone_usd else ""),
    )


def say_cut_short(asked_hours: float | None, hours: float | None) -> tuple[str, ...]:
    """Warn where a total pays for fewer hours than were asked for; of a batch, each pod has a share of the total."""
    if asked_hours is None or hours is None or hours >= asked_hours:
        return ()
    asked, spare = counted(asked_hours, "hour"), f"{LATE_HOURS * 60:.0f} minutes spare"
    return (f"{hours:g} of the {asked} asked for fit into max_total_usd, with {spare}.",)


def refuse_cut_short(asked_hours: float | None, hours: float | None) -> None:
    """Refuse fewer hours than were asked for, where the caller would rather wait for a cheaper node.

    Raises:
        Failure: they are fewer.
    """
    if cut_short := say_cut_short(asked_hours, hours):
        raise Failure("total_too_low", f"Only {cut_short[0]}", "Raise max_total_usd, or ask for fewer hours.")
