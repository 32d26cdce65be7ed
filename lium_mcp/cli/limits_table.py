"""The limits in force as a table: what is allowed, used and left; and whose they are."""

from collections.abc import Sequence

from lium_mcp.cli.console import say, show_table
from lium_mcp.guard.limits import Limits
from lium_mcp.hosts.entry_settings import is_simulated, limits_of
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import entries_in_use
from lium_mcp.services.policy_view import LimitView


def show_limits(limits: Sequence[LimitView]) -> None:
    """Print the limits, a row each."""
    show_table(
        ("LIMIT", "ALLOWED", "USED", "LEFT"),
        [
            (row.limit, _figure(row.only if row.allowed is None else row.allowed), _figure(row.used), _figure(row.left))
            for row in limits
        ],
        numbers=("ALLOWED", "USED", "LEFT"),
    )


def say_unbounded(names: Sequence[str] | None, *, refuses: bool) -> None:
    """Say which pods make what is used of a budget unknown, if any do, and what limits that refuse do then."""
    if names:
        unbounded = f"Without a known removal time, so without a bounded cost: {', '.join(names)}."
        say(f"\n{unbounded}{' Nothing more is rented meanwhile.' if refuses else ''}")


def say_whose(limits: Limits) -> None:
    """Say that limits are those of this shell, where hosts here start servers for real money that have others."""
    entries = [entry for entry in entries_in_use(Machine.this()) if not is_simulated(entry.found)]
    read = {entry.title: limits_of(entry.found) for entry in entries}
    none = [title for title, theirs in read.items() if theirs == Limits() != limits]
    others = [title for title, theirs in read.items() if theirs not in (None, Limits(), limits)]
    told = [f"{kind}: {', '.join(titles)}" for kind, titles in (("other limits", others), ("none", none)) if titles]
    if told:
        say(f"\nSo it is in this shell. What hosts start has {'; '.join(told)}. lium-mcp doctor shows each.")


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
