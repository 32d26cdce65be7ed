"""What an account must hold before Lium rents to it; a rent that its balance surely does not bear is no question."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lium_mcp.api.errors import LiumError, PermissionDenied
from lium_mcp.api.executors.models import Executor
from lium_mcp.failures import IN_EXTRAS, Failure
from lium_mcp.figures import at_most_usd, in_usd, is_above
from lium_mcp.services.accounts import Account

_HOURS_AHEAD: Final = 0.25
"""A balance has to be above what so many hours of all open pods cost, of the new ones too."""


@dataclass(frozen=True, slots=True)
class NewPod:
    """A pod that is to be rented: where, and what it costs, if anybody knows."""

    node: Executor
    gpu_count: int | None
    price_per_hour_usd: float | None


async def read_bearing_balance(account: Account, pods: Sequence[NewPod]) -> float | None:
    """The balance, which bears renting these pods as far as anybody knows; None where Lium does not say it.

    Raises:
        Failure: it surely does not bear them.
        LiumError: it cannot be read.
    """
    balance_usd: float | None = None
    with suppress(PermissionDenied):  # not to this key
        balance_usd = (await account.renter.me()).balance
    if balance_usd is None:
        return None
    needed_usd = await _needed_usd(account, pods)
    if needed_usd is None or is_above(balance_usd, needed_usd):
        return balance_usd
    these, fewer = ("this one", "") if len(pods) == 1 else (f"these {len(pods)}", " or fewer pods")
    raise Failure(
        "insufficient_balance",
        f"The balance is {in_usd(-at_most_usd(-balance_usd))}, and for this rent it has to be above "
        f"{in_usd(at_most_usd(needed_usd))}: what {_HOURS_AHEAD * 60:.0f} minutes of all open pods and {these} cost.",
        f"Add funds on lium.io, to which create_top_up_link makes a page {IN_EXTRAS}; or choose a cheaper node{fewer}.",
    )


async def _needed_usd(account: Account, pods: Sequence[NewPod]) -> float | None:
    """What the balance must be above, as Lium quotes it for the first; None where it does not say that.

    Each that is rented is an open pod for the next one. One without a price counts for nothing.
    """
    first, *others = pods
    try:
        quote = await account.lium.executors.quote(first.node.id, hours=1, gpu_count=first.gpu_count)
    except LiumError:
        return None
    needed_usd = quote.rent_balance_required_usd
    if not needed_usd or needed_usd < 0:  # 0 is for accounts that are exempt
        return None
    return needed_usd + _HOURS_AHEAD * sum(pod.price_per_hour_usd or 0 for pod in others)
