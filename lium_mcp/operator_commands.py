"""What the person who runs a server does by hand: look into the ledger of rents, close a rent, read the policy.

Output is for people, on standard output; nothing here is offered to agents.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from lium_mcp.figures import in_usd
from lium_mcp.rentals import REPLAY_WINDOW, Entry, Journal, LedgerUnavailable, Task, has_something_left
from lium_mcp.tools.call import Call, Runtime
from lium_mcp.tools.policy_view import LimitView, Offered, policy_view
from lium_mcp.tools.results import clean

_MOST_ROWS = 200
_FAILED = 1


async def list_rentals(journal: Journal, *, all_of_them: bool) -> int:
    """Print the open rents and tasks of the ledger, or with `all_of_them` the newest closed ones too."""
    try:
        entries = [] if journal.is_empty else await journal.open().newest(_MOST_ROWS)
        tasks = [] if journal.is_empty else await journal.tasks().newest(_MOST_ROWS)
    except LedgerUnavailable as error:
        return _fail(error)
    shown = [entry for entry in entries if entry.is_open or all_of_them]
    if shown:
        _say_rentals(shown)
    else:
        _say("No open rents. Closed ones are shown with --all." if entries else "The ledger is empty.")
    _say_tasks([task for task in tasks if task.status == "open" or all_of_them])
    return 0


def _say_rentals(entries: Sequence[Entry]) -> None:
    _say(f"{'ID':10}{'STATUS':10}{'NAME':22}{'SINCE (UTC)':18}{'PER HOUR':>9}  PODS")
    for entry in entries:
        price = "?" if entry.price_per_hour_usd is None else f"{in_usd(entry.price_per_hour_usd)}"
        pods = ", ".join(entry.pod_ids) or "-"
        _say(
            f"{entry.id[:8]:10}{entry.status:10}{entry.pod_name:22.21}"
            f"{entry.created_at:%Y-%m-%d %H:%M}  {price:>9}  {pods}"
        )
        if advice := _advice(entry):
            _say(f"{'':10}{advice}")


def _say_tasks(tasks: Sequence[Task]) -> None:
    if tasks:
        _say(f"\n{'TASK':10}{'STATUS':10}{'KIND AND NAME':22}{'SINCE (UTC)':18}  ABOUT")
    for task in tasks:
        _say(
            f"{task.id[:8]:10}{task.status:10}{f'{task.kind} {task.name}':22.21}"
            f"{task.created_at:%Y-%m-%d %H:%M}    {task.subject} {task.note}"
        )


async def close_rental(journal: Journal, named: str, *, confirmed: bool) -> int:
    """Close an open rent, so that its name is free and others may be rented. Nothing is removed."""
    try:
        entries = [] if journal.is_empty else await journal.open().newest(_MOST_ROWS)
        matches = [
            entry for entry in entries if entry.is_open and (entry.pod_name == named or entry.id.startswith(named))
        ]
        if len(matches) != 1:
            found = f"{len(matches)} open rents are" if matches else "No open rent is"
            _say(f"{found} named {named}. `lium-mcp rentals` lists them: name one by its id.")
            return _FAILED
        [entry] = matches
        if not confirmed:
            _say(f"{entry.pod_name} ({entry.status}) of {entry.created_at:%Y-%m-%d %H:%M} UTC.")
            _say(
                "Look at lium.io first: is there a pod of this name, or a charge for one? Remove it there if nobody "
                "wants it. Closing only lets this server rent again; it removes nothing. To close it, add --yes."
            )
            return _FAILED
        await journal.open().change(entry, "closed", now=datetime.now(UTC), note="closed by hand")
    except LedgerUnavailable as error:
        return _fail(error)
    _say(f"Closed {entry.pod_name} ({entry.id[:8]}).")
    return 0


async def explain_policy(runtime: Runtime, offered: Offered) -> int:
    """Print the limits in force, what is used of them, and what is left."""
    view = await policy_view(Call(runtime), offered)
    kind = "only reading tools" if view.read_only else "tools"
    _say(f"{view.tool_count} {kind} of {', '.join(view.toolsets)}. A person is asked: {_CONFIRM[view.confirm]}.")
    if not view.limits:
        _say("No limits are set: whoever calls can spend the whole balance. README.md, Limits, says how to set some.")
        return 0
    _say(
        "Limits are enforced." if view.mode == "enforce" else "Shadow mode: limits refuse nothing, and are only logged."
    )
    _say(f"\n{'LIMIT':26}{'ALLOWED':>14}{'USED':>12}{'LEFT':>12}")
    for row in view.limits:
        _say(f"{row.limit:26}{_figure(row.allowed):>14}{_figure(row.used):>12}{_figure(row.left):>12}")
    if not any(row.left is not None for row in view.limits) and _add_up(view.limits):
        _say("\nWhat is used could not be read: Lium did not answer, or no API key is set.")
    if view.unbounded:
        _say(
            f"\nWithout a removal time, so without a bounded cost: {', '.join(view.unbounded)}. Nothing more is rented "
            "meanwhile."
        )
    return 0


_CONFIRM = {
    "auto": "before money is spent or data destroyed, where the client can ask",
    "always": "before money is spent or data destroyed; where the client cannot ask, it is refused",
    "never": "never",
}
_ADDING_UP = frozenset({"max_pods", "max_burn_per_hour_usd", "budget_usd"})


def _add_up(rows: Sequence[LimitView]) -> bool:
    return any(row.limit in _ADDING_UP for row in rows)


def _advice(entry: Entry) -> str:
    if not entry.is_open:
        return entry.note
    if entry.is_unsettled and datetime.now(UTC) - entry.created_at >= REPLAY_WINDOW:
        return "Look at lium.io for a pod or a charge of this name, then: lium-mcp rentals close ID"
    if entry.is_unsettled:
        return "A running server settles it; list_pods does so at once."
    return "Being attended to by a running server." if has_something_left(entry) else ""


def _figure(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"


def _fail(error: LedgerUnavailable) -> int:
    _say(f"The ledger cannot be used: {error}")
    return _FAILED


def _say(line: str) -> None:
    print(clean(line))  # noqa: T201 - the command's answer
