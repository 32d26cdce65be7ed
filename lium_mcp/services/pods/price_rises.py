"""Pods that cost more per hour than they were offered at: at the rent already, or since Lium raised the price."""

from collections.abc import Sequence
from contextlib import suppress

from lium_mcp.api.pods.models import Pod
from lium_mcp.figures import rate_in_usd
from lium_mcp.rentals import PRICE_TOLERANCE_USD, LedgerUnavailable, offered_per_hour_usd
from lium_mcp.services.accounts import Account


def came_out_dearer(offered_usd: float | None, price_per_hour_usd: float | None, removal: str) -> str | None:
    """Say that what was rented costs more per hour than it was offered at, and which tool stops that."""
    if offered_usd is None or price_per_hour_usd is None or price_per_hour_usd <= offered_usd + PRICE_TOLERANCE_USD:
        return None
    costs, offered = rate_in_usd(price_per_hour_usd, 4), rate_in_usd(offered_usd, 4)
    return f"It costs {costs} an hour, more than the {offered} it was offered at: {removal} stops it."


async def price_rises(account: Account, pods: Sequence[Pod]) -> dict[str, str]:
    """What to know of pods that cost more than the ledger says, by the id of the pod, as far as it can be read."""
    said: dict[str, str] = {}
    with suppress(LedgerUnavailable):
        offered = offered_per_hour_usd(await account.rents.open_entries())
        for pod in pods:
            if dearer := came_out_dearer(offered.get(pod.id), pod.price, "remove_pod"):
                said[pod.id] = dearer
    return said
