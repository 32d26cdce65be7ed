"""The money of an account at a moment: what is left, what burns, how long it lasts, and what of which limit is used."""

from datetime import datetime, timedelta
from typing import Final

from lium_mcp.api.account import Me
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.figures import rounded
from lium_mcp.guard.policy import Policy
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.pod_details import unknown_billing, unpriced
from lium_mcp.services.policy_view import InWords, LimitView, for_agents, read_standings

NO_LIMITS: Final = "No limits are set."
ALL_RUN_ON: Final = "runs_out_at assumes that pods run on past their removal times."


class Balance(Result):
    """What is left, how long it lasts at the present rate, where every billing pod has a price, and of which limits."""

    balance_usd: Usd | None = None
    burn_per_hour_usd: Usd
    unpriced_pods: int | None = None
    unknown_billing_pods: int | None = None
    billing_pods: int
    starting_pods: int
    runway_hours: float | None = None
    runs_out_at: UtcTime | None = None
    limits: list[LimitView] | None = None
    limits_refuse: bool | None = None
    note: str | None = None
    pods_without_removal_time: list[str] | None = None


async def read_balance(
    account: Account, policy: Policy, me: Me, pods: Rows[Pod], *, in_words: InWords = for_agents
) -> Balance:
    """Show the money of an account, given what was just read of it; `in_words` says why limits could not be."""
    standings = await read_standings(account, policy, pods, in_words=in_words)
    unread = standings.unread_because and f"What is used of the limits is not known: {standings.unread_because}"
    unlimited = None if standings.limits else NO_LIMITS
    burning = [pod for pod in pods if pod.is_billing]
    burn = sum(pod.price or 0 for pod in burning)
    missing = unpriced(pods)
    # A pod whose price nobody says shortens it by nobody knows how much.
    is_known = burn > 0 and missing is None
    runway = max(me.balance, 0) / burn if is_known and me.balance is not None else None
    is_longer = runway is not None and any(pod.has_removal for pod in burning)
    assumed = ALL_RUN_ON if is_longer else None
    return Balance(
        balance_usd=me.balance,
        burn_per_hour_usd=burn,
        unpriced_pods=missing,
        unknown_billing_pods=unknown_billing(pods),
        billing_pods=len(burning),
        starting_pods=sum(1 for pod in pods if pod.has_not_started and not pod.is_terminal),
        runway_hours=rounded(runway, 2) if runway is not None else None,
        runs_out_at=_later(account.lium.now(), runway),
        limits=standings.limits,
        limits_refuse=False if standings.limits and policy.shadow else None,
        note=" ".join(filter(None, (standings.note, unread, unlimited, assumed))) or None,
        pods_without_removal_time=standings.unbounded,
    )


def _later(now: datetime, hours: float | None) -> datetime | None:
    # A century is as good as never, and far enough from what a datetime can hold.
    return now + timedelta(hours=hours) if hours is not None and hours < 24 * 365 * 100 else None
