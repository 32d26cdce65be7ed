"""``lium-mcp policy explain``: the limits in force, what is used of each, and what is left."""

from collections.abc import Sequence
from typing import Any

import anyio

from lium_mcp.cli.console import say
from lium_mcp.cli.readied import read, start_log
from lium_mcp.server import make_runtime, offered_by, select_tools
from lium_mcp.services.policy_view import LimitView, Offered, policy_view
from lium_mcp.toolkit.call import Runtime

_CONFIRM = {
    "auto": "before money is spent or data destroyed, where the client can ask",
    "always": "before money is spent or data destroyed; where the client cannot ask, it is refused",
    "never": "never",
}
_ADDING_UP = frozenset({"max_pods", "max_burn_per_hour_usd", "budget_usd"})


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    options.pop("action")
    settings = read(options)
    start_log(settings)

    async def explain() -> int:
        runtime, accounts = make_runtime(settings, ())
        try:
            return await explain_policy(runtime, offered_by(settings, len(select_tools(settings))))
        finally:
            await accounts.aclose()

    return anyio.run(explain)


async def explain_policy(runtime: Runtime, offered: Offered) -> int:
    """Print the limits in force, what is used of them, and what is left."""
    view = await policy_view(runtime.account(), runtime.policy, runtime.confirm, offered)
    kind = "only reading tools" if view.read_only else "tools"
    say(f"{view.tool_count} {kind} of {', '.join(view.toolsets)}. A person is asked: {_CONFIRM[view.confirm]}.")
    if not view.limits:
        say("No limits are set: whoever calls can spend the whole balance. README.md, Limits, says how to set some.")
        return 0
    say(
        "Limits are enforced." if view.mode == "enforce" else "Shadow mode: limits refuse nothing, and are only logged."
    )
    say(f"\n{'LIMIT':26}{'ALLOWED':>14}{'USED':>12}{'LEFT':>12}")
    for row in view.limits:
        allowed = row.only if row.allowed is None else row.allowed
        say(f"{row.limit:26}{_figure(allowed):>14}{_figure(row.used):>12}{_figure(row.left):>12}")
    if view.note:
        say(f"\n{view.note}")
    counted = [row for row in view.limits if row.limit != "budget_usd" or not view.note]
    if not any(row.left is not None for row in counted) and _add_up(counted):
        say("\nWhat is used could not be read: Lium did not answer, or no API key is set.")
    if view.unbounded:
        say(
            f"\nWithout a removal time, so without a bounded cost: {', '.join(view.unbounded)}. Nothing more is rented "
            "meanwhile."
        )
    return 0


def _add_up(rows: Sequence[LimitView]) -> bool:
    return any(row.limit in _ADDING_UP for row in rows)


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
