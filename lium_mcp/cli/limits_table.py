"""The limits in force as a table: what is allowed, used and left."""

from collections.abc import Sequence

from lium_mcp.cli.console import show_table
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


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
