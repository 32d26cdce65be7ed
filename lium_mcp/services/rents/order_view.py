"""What a standing order shows: a rent that waits for an offer, or what became of one."""

from typing import Literal

from lium_mcp.results import Result, Usd, UsdRate, UtcTime

OrderStatus = Literal["not_placed", "waiting", "renting", "rented", "expired", "failed", "cancelled"]


class StandingOrder(Result):
    """A rent that waits for an offer, or what became of one."""

    name: str
    order_id: str | None = None
    status: OrderStatus
    wants: str
    max_usd_per_hour: UsdRate | None = None
    max_total_usd: Usd | None = None
    hours: float | None = None
    since: UtcTime
    expires_at: UtcTime
    looked_at: UtcTime | None = None
    because: str | None = None
    pod_id: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether something may still be rented for it."""
        return self.status in ("waiting", "renting")
