"""Toolset `account`: money."""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import Annotated, Final

from pydantic import Field

from lium_mcp.api.account import BillingStatement, StatementPod
from lium_mcp.failures import Failure
from lium_mcp.figures import counted, rounded
from lium_mcp.inputs import ShortText
from lium_mcp.results import Result, Usd, UtcTime
from lium_mcp.services.balance import Balance, read_balance
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import Cursor, Limit, page
from lium_mcp.toolkit.registry import READS, Toolset

toolset = Toolset("account")

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_CENT: Final = 0.01
_COVERS: Final = (
    "Lium lists charges by pod, some minutes late. Whether the storage of volumes and backups is in them, it does not "
    "say."
)


class DaySpending(Result):
    """What was charged on one UTC day."""

    day: str
    total_usd: Usd


class PodSpending(Result):
    """What one pod was charged."""

    pod_id: str
    name: str | None = None
    gpu: str | None = None
    total_usd: Usd | None = None
    billed_hours: float | None = None
    running: bool | None = None
    created_at: UtcTime | None = None
    removed_at: UtcTime | None = None
    days: list[DaySpending] | None = None


class Spending(Result):
    """Charges of a period, largest first."""

    start_day: str
    end_day: str
    as_of: UtcTime
    total_usd: Usd | None = None
    beyond_pods_usd: Usd | None = None
    running_pods: int | None = None
    note: str
    days: list[DaySpending] | None = None
    pods: list[PodSpending]
    total: int
    incomplete: str | None = None
    next_cursor: str | None = None


@toolset.tool(title="Get balance", hints=READS, search_hint="how much money is left, credit, burn rate")
async def get_balance(call: Call) -> Balance:
    """Read the account's balance in USD, what the living pods burn per hour, for how many hours the balance lasts, and
    the limits of this server with what is used and left of each. get_spending shows past charges.
    """
    return await read_balance(call.account, call.policy, await call.lium.account.me(), await call.lium.pods.lately())


@toolset.tool(title="Get spending", hints=READS, search_hint="what did I pay, costs of last week, bill")
async def get_spending(
    call: Call,
    days: Annotated[int, Field(ge=1, le=366, description="UTC days back, with the last.")] = 30,
    start_day: Annotated[ShortText, Field(description="In place of days: first UTC day, 2026-01-31.")] = "",
    end_day: Annotated[ShortText, Field(description="Last UTC day; default today.")] = "",
    by_day: Annotated[bool, Field(description="Also say what each day cost, in all and per pod.")] = False,
    limit: Limit = 20,
    cursor: Cursor = "",
) -> Spending:
    """Read what was charged over the last days or between two days, in total and per pod, with removed pods and which
    still run. get_balance shows what is left.
    """
    now = call.lium.now()
    end = _day(end_day, "end_day") or now.date()
    start = _day(start_day, "start_day") or _days_before(end, days - 1)
    if start > end:
        raise Failure("invalid_argument", f"start_day {start} is after end_day {end}.", "Exchange them.")
    statement = await call.lium.account.billing_statement(start_day=start, end_day=end)
    rows = sorted(statement.pods, key=lambda pod: (-(pod.total or 0), pod.pod_id))
    shown, next_cursor = page(rows, limit=limit, cursor=cursor)
    return Spending(
        start_day=(statement.start_day.date() if statement.start_day else start).isoformat(),
        end_day=(statement.end_day.date() if statement.end_day else end).isoformat(),
        as_of=now,
        total_usd=statement.total,
        beyond_pods_usd=_beyond_pods(statement),
        running_pods=sum(1 for pod in rows if pod.is_removed is False) or None,
        note=_COVERS,
        days=_by_day(rows) if by_day else None,
        pods=[
            PodSpending(
                pod_id=pod.pod_id,
                name=pod.pod_name,
                gpu=f"{pod.gpu_count or '?'}x {pod.gpu_name}" if pod.gpu_name else None,
                total_usd=pod.total,
                billed_hours=rounded(pod.billed_seconds / 3600, 2) if pod.billed_seconds is not None else None,
                running=True if pod.is_removed is False else None,
                created_at=pod.created_at,
                removed_at=pod.removed_at,
                days=(_by_day([pod]) or None) if by_day else None,
            )
            for pod in shown
        ],
        total=len(rows),
        incomplete=_incomplete(statement, by_day=by_day),
        next_cursor=next_cursor,
    )


def _day(text: str, parameter: str) -> date | None:
    if not text:
        return None
    if _DAY.fullmatch(text):  # other forms of the standard, such as 2026W05, are nothing that anybody means
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise Failure("invalid_argument", f"{parameter} is no day.", "Write it as 2026-01-31.")


def _days_before(end: date, days: int) -> date:
    try:
        return end - timedelta(days=days)
    except OverflowError:  # before the year 1
        return date.min


def _by_day(pods: Sequence[StatementPod]) -> list[DaySpending]:
    """The days on which pods were charged, as far as Lium says of each charge on which days."""
    totals: dict[date, float] = defaultdict(float)
    for row in (row for pod in pods for row in pod.days):
        if row.billing_day is not None and row.amount is not None:
            totals[row.billing_day.date()] += row.amount
    return [DaySpending(day=day.isoformat(), total_usd=total) for day, total in sorted(totals.items())]


def _incomplete(statement: BillingStatement, *, by_day: bool) -> str | None:
    """What is not known of the charges, in words; None where nothing is missing."""
    uncharged = sum(1 for pod in statement.pods if pod.total is None)
    missing = []
    if statement.unreadable_pods:
        missing.append(f"{counted(statement.unreadable_pods, 'row')} of Lium's statement could not be read")
    if uncharged:
        missing.append(f"of {counted(uncharged, 'pod')} it does not say the charge")
    undated = sum(1 for pod in statement.pods if pod.total and not _says_days(pod))
    if by_day and undated:
        missing.append(f"of {counted(undated, 'pod')} it does not say on which days")
    if not missing:
        return None
    told = " and ".join(missing)
    whole = "the total is Lium's own" if statement.total is not None else "Lium states no total"
    return f"{told[0].upper()}{told[1:]}: what the rows add up to may be too low; {whole}."


def _says_days(pod: StatementPod) -> bool:
    said = [row.amount for row in pod.days if row.billing_day is not None]
    return None not in said and abs(sum(amount or 0 for amount in said) - (pod.total or 0)) < _CENT


def _beyond_pods(statement: BillingStatement) -> float | None:
    """What the total holds beside the pods, below zero where it was given back; None where nothing, or not told."""
    of_pods = [pod.total for pod in statement.pods]
    if statement.total is None or None in of_pods:
        return None
    beyond = statement.total - sum(total or 0 for total in of_pods)
    return beyond if abs(beyond) >= _CENT else None
