"""The policy in force as people and agents read it: what is offered, each limit, what is used of it, what is left."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.figures import rounded
from lium_mcp.guard.consent import ConfirmMode
from lium_mcp.guard.policy import Policy, Standing
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import as_failure
from lium_mcp.services.limits_left import read_spending
from lium_mcp.services.polling import READ_LIMIT_SECONDS


@dataclass(frozen=True, slots=True)
class Offered:
    """What the settings offer; the lists are None where they choose nothing.

    Attributes:
        sandbox: Whether Lium is simulated, so that no money is real.
    """

    sandbox: bool
    read_only: bool
    toolsets: Sequence[str]
    allow_tools: Sequence[str] | None
    deny_tools: Sequence[str] | None
    tool_count: int


class LimitView(Result):
    """One limit: a figure, or names or a day; used and left where it adds up and what is used could be read."""

    limit: str
    allowed: float | None = None
    only: str | None = None
    used: float | None = None
    left: float | None = None


class PolicyView(Result):
    """What a server offers and refuses. Only the person who runs it can change that."""

    sandbox: bool | None = None
    read_only: bool
    toolsets: list[str]
    allow_tools: list[str] | None = None
    deny_tools: list[str] | None = None
    tool_count: int
    confirm: str
    asks_person: bool | None = None
    mode: str | None = None
    limits: list[LimitView] | None = None
    note: str | None = None
    unbounded: list[str] | None = None
    unread_because: str | None = None


@dataclass(frozen=True, slots=True)
class Standings:
    """The limits in force, and what is to be said of them.

    Attributes:
        limits: Each limit, used and left where that could be read; None where no limit is set.
        note: Why the budget does not count yet, if it does not.
        unbounded: The pods that no removal time bounds, where a budget has to bear them.
        unread_because: Why nobody knows what is used, where that could not be read.
    """

    limits: list[LimitView] | None
    note: str | None
    unbounded: list[str] | None
    unread_because: str | None


InWords = Callable[[LiumError | LedgerUnavailable], str]
"""Says what failed, and what can be done, for whoever reads it."""


def for_agents(error: LiumError | LedgerUnavailable) -> str:
    """What failed, in the words of a tool."""
    failure = as_failure(error)
    return f"{failure.happened} {failure.advice}".strip()


async def read_standings(
    account: Account, policy: Policy, listed: Rows[Pod] | None = None, *, in_words: InWords = for_agents
) -> Standings:
    """Read the limits, and how far they are used where there is a key and Lium answers.

    Args:
        account: Whose pods count.
        policy: The limits.
        listed: The pods, where they were just read.
        in_words: Says why they could not be.
    """
    limits = policy.limits
    standings: dict[str, Standing] = {}
    unbounded: list[str] = []
    unread_because = None
    until = "" if policy.shadow else " Nothing is rented before."
    begins_on = policy.budget_begins_on(account.lium.now())
    if limits.any:
        try:
            with anyio.fail_after(READ_LIMIT_SECONDS):
                room = await read_spending(account, policy)
                pods = await account.lium.pods.list() if listed is None else listed
                admitted = await account.rents.standing()
        except (LiumError, LedgerUnavailable, TimeoutError) as error:
            unread_because = "Lium did not answer in time." if isinstance(error, TimeoutError) else in_words(error)
        else:
            standings = {standing.limit: standing for standing in room.standings(pods, *admitted)}
            if begins_on is not None:
                standings.pop("budget_usd", None)
            unbounded = [item.name for item in room.committed(pods, *admitted) if item.hours_left is None]
    return Standings(
        limits=[_limit(name, value, standings.get(name)) for name, value in limits.in_force().items()] or None,
        note=None if begins_on is None else f"The budget has not begun: its first day is {begins_on}.{until}",
        unbounded=unbounded if unbounded and limits.budget_usd is not None else None,
        unread_because=unread_because,
    )


async def policy_view(
    account: Account,
    policy: Policy,
    confirm: ConfirmMode,
    offered: Offered,
    *,
    asks_person: bool | None = None,
    in_words: InWords = for_agents,
) -> PolicyView:
    """Show what is offered, the limits, and how far they are used; `in_words` says why that could not be read.

    `asks_person` tells whoever reads it through a client whether a person behind that client is asked.
    """
    standings = await read_standings(account, policy, in_words=in_words)
    return PolicyView(
        sandbox=offered.sandbox or None,
        read_only=offered.read_only,
        toolsets=list(offered.toolsets),
        allow_tools=list(offered.allow_tools) if offered.allow_tools else None,
        deny_tools=list(offered.deny_tools) if offered.deny_tools else None,
        tool_count=offered.tool_count,
        confirm=confirm,
        asks_person=asks_person,
        mode=("shadow" if policy.shadow else "enforce") if policy.limits.any else None,
        limits=standings.limits,
        note=standings.note,
        unbounded=standings.unbounded,
        unread_because=standings.unread_because,
    )


def _limit(name: str, value: float | str | frozenset[str], standing: Standing | None) -> LimitView:
    used, left = (standing.used, standing.left) if standing else (None, None)
    return LimitView(
        limit=name,
        allowed=value if isinstance(value, int | float) else None,
        only=", ".join(sorted(value)) if isinstance(value, frozenset) else value if isinstance(value, str) else None,
        used=None if used is None else rounded(used),
        left=None if left is None else rounded(left),
    )
