"""``lium-mcp status``: one glance at an account: pods, money, limits, open rents, work between calls.

It only reads. ``--watch`` looks again and again, ``--json`` is for programs.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.cli.console import clear, say, show_table, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.limits_table import say_unbounded, say_whose, show_limits
from lium_mcp.cli.output import say_wrong
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.readied import read, start_log
from lium_mcp.figures import in_usd, rate_in_usd
from lium_mcp.guard.limits import Limits
from lium_mcp.server import make_runtime
from lium_mcp.services.balance import ALL_RUN_ON, NO_LIMITS, Balance
from lium_mcp.services.open_rents import UnsettledRent
from lium_mcp.services.overview import Overview, PodGlance, read_overview
from lium_mcp.services.policy_view import LimitView
from lium_mcp.settings import Settings
from lium_mcp.toolkit.call import Runtime

_LOOK_SECONDS: Final = 60.0
_MAY_BILL: Final = "it may have made a pod that bills: a server that runs settles it, else look at lium.io"
_TO_DO: Final = {
    "admitted": "its turn to be sent comes",
    "sending": _MAY_BILL,
    "unknown": f"{_MAY_BILL}, and then: lium-mcp rentals close {{name}}",
    "removing": "its pod must go: remove it at lium.io if it stays",
    "not_listed": "Lium does not list all of its pods, which may bill: look at lium.io",
}


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    own = {name: options.pop(name) for name in ("watch", "json")}
    settings = read(options)
    start_log(settings)
    return anyio.run(_show, settings, own["watch"], own["json"])


async def _show(settings: Settings, every_seconds: float | None, as_json: bool) -> int:
    runtime, accounts = make_runtime(settings, ())
    try:
        status = await _look(settings, runtime, as_json=as_json)
        while every_seconds is not None:
            await anyio.sleep(every_seconds)
            clear()
            status = await _look(settings, runtime, as_json=as_json)
        return status
    finally:
        await accounts.aclose()


async def _look(settings: Settings, runtime: Runtime, *, as_json: bool) -> int:
    try:
        with working("Asking Lium"), anyio.fail_after(_LOOK_SECONDS):
            overview = await read_overview(runtime.account(), runtime.policy, in_words=in_words)
    except TimeoutError:
        say_wrong(f"Lium did not answer within {_LOOK_SECONDS:.0f} seconds.")
        return ExitStatus.FAILED
    except LiumError as error:
        say_wrong(in_words(error))
        return ExitStatus.FAILED
    if as_json:
        say(overview.model_dump_json(indent=2, exclude_none=True))
    else:
        _say(settings, overview, runtime.policy.limits)
    return ExitStatus.FAILED if overview.unread else ExitStatus.OK


def _say(settings: Settings, overview: Overview, limits: Limits) -> None:
    now = overview.now
    say(f"Acting for {overview.account}; the key is from {settings.find_key().place}.")
    say(_money(overview.balance), style="bold")
    # That there are no limits is said below, with what follows from it; the other is in the line above.
    if note := (overview.balance.note or "").replace(NO_LIMITS, "").replace(ALL_RUN_ON, "").strip():
        say(note, style="yellow")
    say()
    if overview.pods:
        show_table(
            ("POD", "STATE", "GPU", "PER HOUR", "COST", "AGE", "REMOVED", "LAST BACKUP"),
            [_pod_cells(pod, now) for pod in overview.pods],
            numbers=("PER HOUR", "COST", "AGE"),
        )
    else:
        say("No pods.")
    for pod in overview.pods:
        if pod.problem:
            say(f"\n{pod.name}: {pod.problem}", style="yellow")
    _say_limits(overview.balance.limits)
    say_unbounded(overview.balance.pods_without_removal_time, refuses=overview.balance.limits_refuse is not False)
    say_whose(limits)
    _say_section(
        ("OPEN RENT", "STATUS", "SINCE", "WHAT TO DO"),
        [(rent.name, rent.status, f"{_span(rent.since, now)} ago", _to_do(rent)) for rent in overview.open_rents],
    )
    _say_section(
        ("STANDING ORDER", "STATUS", "WANTS", "ENDS", "BECAUSE"),
        [
            (order.name, order.status, order.wants, _when(order.expires_at, now), order.because or "")
            for order in overview.orders
        ],
    )
    _say_section(
        ("WORK", "KIND", "STATUS", "SINCE", "NOTE"),
        [(one.name, one.kind, one.status, f"{_span(one.since, now)} ago", one.note or "") for one in overview.work],
    )
    for problem in overview.unread:
        say(f"\nNot read: {problem}", style="yellow")


def _money(balance: Balance) -> str:
    left = "The balance is not known" if balance.balance_usd is None else f"{in_usd(balance.balance_usd)} left"
    burns = f"{rate_in_usd(balance.burn_per_hour_usd)} an hour burns"
    if balance.unpriced_pods:
        burns += f", and {balance.unpriced_pods} pods of which nobody says the price"
    lasts = ""
    if balance.runway_hours is not None:
        ends = f", until {balance.runs_out_at:%Y-%m-%d %H:%M} UTC" if balance.runs_out_at else ""
        run_on = ", if pods run on past their removal times" if ALL_RUN_ON in (balance.note or "") else ""
        lasts = f"; it lasts {balance.runway_hours:g} hours{ends}{run_on}"
    return f"{left}; {burns}{lasts}."


def _pod_cells(pod: PodGlance, now: datetime) -> Sequence[str]:
    count = "" if pod.gpu_count is None else f"{pod.gpu_count} x "
    after_boot = f"{pod.removal_hours_after_boot} h after its start" if pod.removal_hours_after_boot else "never"
    removed = "at a time that cannot be read" if pod.removal_unreadable else after_boot
    removed = removed if pod.removal_at is None else _when(pod.removal_at, now)
    if pod.idle_minutes is not None:
        removed += f", or after {pod.idle_minutes} idle minutes"
    return (
        pod.name,
        pod.status,
        f"{count}{pod.gpu_type or '?'}",
        "?" if pod.price_per_hour_usd is None else rate_in_usd(pod.price_per_hour_usd),
        "?" if pod.cost_estimate_usd is None else in_usd(pod.cost_estimate_usd),
        "?" if pod.age_hours is None else f"{pod.age_hours:.1f} h",
        removed,
        "none" if pod.last_backup_at is None else f"{_span(pod.last_backup_at, now)} ago",
    )


def _say_limits(limits: Sequence[LimitView] | None) -> None:
    if limits is None:
        say("\nNo limits are set: whoever calls can spend the whole balance.", style="yellow")
        return
    say()
    show_limits(limits)


def _say_section(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        say()
        show_table(headers, rows)


def _to_do(rent: UnsettledRent) -> str:
    """What a person can do about a rent; for agents it says which tool to call."""
    return _TO_DO.get(rent.status, rent.next).replace("{name}", rent.name)


def _when(moment: datetime, now: datetime) -> str:
    return f"in {_span(now, moment)}" if moment > now else f"{_span(moment, now)} ago"


def _span(since: datetime, until: datetime) -> str:
    """A time between two moments, in its largest unit."""
    seconds = max((until - since).total_seconds(), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
