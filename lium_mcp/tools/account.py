"""Toolset `account`: money."""

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from lium_mcp.figures import rounded
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.services.pod_details import unknown_billing, unpriced
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import Cursor, Limit, page
from lium_mcp.toolkit.registry import READS, Toolset

toolset = Toolset("account")


class Balance(Result):
    """What is left, and how long it lasts at the present rate, where every billing pod has a price."""

    balance_usd: Usd | None = None
    burn_per_hour_usd: Usd
    unpriced_pods: int | None = None
    unknown_billing_pods: int | None = None
    billing_pods: int
    starting_pods: int
    runway_hours: float | None = None
    runs_out_at: UtcTime | None = None


class PodSpending(Result):
    """What one pod was charged."""

    pod_id: str
    name: str | None = None
    gpu: str | None = None
    total_usd: Usd | None = None
    billed_hours: float | None = None
    created_at: UtcTime | None = None
    removed_at: UtcTime | None = None


class Spending(Result):
    """Charges of a period, largest first. Charges reach the ledger some minutes late."""

    start_day: str
    end_day: str
    total_usd: Usd | None = None
    pods: list[PodSpending]
    total: int
    next_cursor: str | None = None


@toolset.tool(title="Get balance", hints=READS, search_hint="how much money is left, credit, burn rate")
async def get_balance(call: Call) -> Balance:
    """Read the account's balance in USD, what the living pods burn per hour, and for how many hours the balance lasts.
    get_spending shows past charges.
    """
    me = await call.lium.account.me()
    pods = await call.lium.pods.list()
    burning = [pod for pod in pods if pod.is_billing]
    burn = sum(pod.price or 0 for pod in burning)
    missing = unpriced(pods)
    # A pod whose price nobody says shortens it by nobody knows how much.
    is_known = burn > 0 and missing is None
    runway = max(me.balance, 0) / burn if is_known and me.balance is not None else None
    return Balance(
        balance_usd=me.balance,
        burn_per_hour_usd=burn,
        unpriced_pods=missing,
        unknown_billing_pods=unknown_billing(pods),
        billing_pods=len(burning),
        starting_pods=sum(1 for pod in pods if pod.has_not_started and not pod.is_terminal),
        runway_hours=rounded(runway, 2) if runway is not None else None,
        runs_out_at=_later(call.lium.now(), runway),
    )


@toolset.tool(title="Get spending", hints=READS, search_hint="what did I pay, costs of last week, bill")
async def get_spending(
    call: Call,
    days: Annotated[int, Field(ge=1, le=366, description="UTC days back, with today.")] = 30,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Spending:
    """Read what was charged over the last days, in total and per pod, with removed pods. get_balance shows what is
    left.
    """
    today = call.lium.now().date()
    start = today - timedelta(days=days - 1)
    statement = await call.lium.account.billing_statement(start_day=start, end_day=today)
    rows = sorted(statement.pods, key=lambda pod: (-(pod.total or 0), pod.pod_id))
    shown, next_cursor = page(rows, limit=limit, cursor=cursor)
    return Spending(
        start_day=(statement.start_day.date() if statement.start_day else start).isoformat(),
        end_day=(statement.end_day.date() if statement.end_day else today).isoformat(),
        total_usd=statement.total,
        pods=[
            PodSpending(
                pod_id=pod.pod_id,
                name=pod.pod_name,
                gpu=f"{pod.gpu_count or '?'}x {pod.gpu_name}" if pod.gpu_name else None,
                total_usd=pod.total,
                billed_hours=rounded(pod.billed_seconds / 3600, 2) if pod.billed_seconds is not None else None,
                created_at=pod.created_at,
                removed_at=pod.removed_at,
            )
            for pod in shown
        ],
        total=len(rows),
        next_cursor=next_cursor,
    )


def _later(now: datetime, hours: float | None) -> datetime | None:
    # A century is as good as never, and far enough from what a datetime can hold.
    return now + timedelta(hours=hours) if hours is not None and hours < 24 * 365 * 100 else None
