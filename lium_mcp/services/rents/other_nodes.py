"""What is rented where a node refuses at the rent itself, since it was taken meanwhile: the next one that fits.

Each try is a rent of its own, with a row in the ledger, held against every limit anew. Only what was surely refused is
tried elsewhere, and never for more than a person has agreed to.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from lium_mcp.api.errors import LiumError, NoExecutorMatches
from lium_mcp.api.executors.models import Executor
from lium_mcp.failures import Failure
from lium_mcp.figures import is_above, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask, Policy
from lium_mcp.rentals import FindJudge, NodeOrder, Rental, is_of_its_node
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import FAILURES, NODES_TAKEN, as_failure, says_taken
from lium_mcp.services.limits_left import find_judge
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.services.rents.rent_plan import Plan, expected_of, make_plan
from lium_mcp.services.rents.rent_terms import refuse_dearer
from lium_mcp.services.rents.total_ceiling import say_cut_short

_MOST_NODES: Final = 3


@asynccontextmanager
async def rent_on_some_node(
    account: Account,
    policy: Policy,
    agreed: Question | None,
    plan: Plan,
    *,
    asked: str | None = None,
    task_id: str | None = None,
    judging: Callable[[Ask], FindJudge] | None = None,
    may_be_cut_short: bool = True,
) -> AsyncIterator[tuple[Rental, Plan]]:
    """Rent by a plan, and give the block the rental and the plan that was carried out at last.

    Args:
        account: Whose money is spent.
        policy: The limits that hold.
        agreed: What a person agreed to; None where nobody was asked.
        plan: What is rented first.
        asked: Stands for the request in the ledger; None for the wish itself.
        task_id: The task that the rent is for.
        judging: Judges each try right before it is sent; None for the limits alone.
        may_be_cut_short: Whether another node may have fewer hours than were asked for, since a total pays for no more.

    Raises:
        Failure: nodes refused it, and no other one fits what was agreed to; each is named with its reason.
        PolicyRefused, PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as `Renter.rent`.
    """
    first, refusals = plan, dict[str, LiumError]()
    rental: Rental | None = None
    async with AsyncExitStack() as stack:
        while rental is None:
            rent = account.renter.rent(
                plan.order,
                asked=asked or first.wish.digest,
                price_per_hour_usd=plan.price_per_hour_usd,
                expected=expected_of(policy, agreed, plan),
                hours=plan.hours,
                task_id=task_id,
                find_judge=judging(plan.ask) if judging else _judging(account, policy, plan.ask),
            )
            try:
                rental = await stack.enter_async_context(rent)
            except LiumError as refusal:
                if not _is_of_its_node(plan, refusal):
                    raise
                refusals[plan.node.id] = refusal
                plan = await _plan_elsewhere(account, policy, agreed, first, refusals)
                if not may_be_cut_short and say_cut_short(first.wish.hours, plan.hours):
                    raise _refused(refusals, "Another one would not last as long as asked for.") from refusal
        yield rental, plan


def _judging(account: Account, policy: Policy, ask: Ask) -> FindJudge:
    return lambda _: find_judge(account, policy, ask)


def _is_of_its_node(plan: Plan, refusal: LiumError) -> bool:
    """Whether the market chose the node of a plan, and Lium surely refused that one alone."""
    if isinstance(refusal, NoExecutorMatches):  # under a price that the caller did not name
        return plan.is_pinned and not refusal.replayed
    return isinstance(plan.order, NodeOrder) and not plan.wish.executor_id and is_of_its_node(refusal)


async def _plan_elsewhere(
    account: Account, policy: Policy, agreed: Question | None, first: Plan, refusals: Mapping[str, LiumError]
) -> Plan:
    """Plan the same on a node that has not refused it; after a person's yes, it differs in nothing they were told.

    Raises:
        Failure: there is none.
    """
    if len(refusals) >= _MOST_NODES:
        raise _refused(refusals, "More are not tried in one call.")
    wish = first.wish
    if agreed is not None:
        bound: dict[str, Any] = {
            "gpu_count": first.gpu_count,
            "hours": first.hours,
            "max_usd_per_hour": _most_usd(agreed, first),
        }
        if first.template is not None:
            bound["template"] = first.template.id
        wish = wish.model_copy(update=bound)

    def admits(node: Executor) -> bool:
        is_same = agreed is None or (node.gpu_name == first.node.gpu_name and node.tier == first.node.tier)
        return is_same and node.id not in refusals

    try:
        with time_limit(READ_LIMIT_SECONDS):
            plan = await make_plan(account, policy, wish, first.total, priced=True, admits=admits)
            refuse_dearer(agreed, plan.price_per_hour_usd)
    except FAILURES as error:
        raise _refused(refusals, f"No other one will do: {as_failure(error).happened}") from error
    if agreed is not None and plan.hours != first.hours:
        raise _refused(refusals, "Another one would last for other hours than were agreed to.")
    dearer = None if agreed is not None else _say_dearer(first, plan)
    told = (*plan.warnings, *say_cut_short(first.wish.hours, plan.hours), *_said(refusals), dearer)
    warnings = dict.fromkeys(filter(None, told))
    return replace(plan, wish=first.wish, warnings=tuple(warnings), balance_usd=first.balance_usd)


def _say_dearer(first: Plan, plan: Plan) -> str | None:
    """Say that another node costs more than the one that was planned first."""
    before, now = first.price_per_hour_usd, plan.price_per_hour_usd
    if before is None or now is None or not is_above(now, before):
        return None
    return (
        f"Node {plan.node.id} is rented instead, for {rate_in_usd(now)} an hour in place of {rate_in_usd(before)}: "
        "remove_pod ends it if that is too much, and max_usd_per_hour bounds the next one."
    )


def _most_usd(agreed: Question, first: Plan) -> float | None:
    ceilings = (agreed.price_per_hour_usd, first.wish.max_usd_per_hour)
    return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)


def _refused(refusals: Mapping[str, LiumError], why_no_other: str) -> Failure:
    """Say which nodes refused a rent and why, and why no other one was taken."""
    last = list(refusals.values())[-1]
    is_taken = all(isinstance(one, NoExecutorMatches) or says_taken(one) for one in refusals.values())
    return Failure(
        NODES_TAKEN if is_taken else as_failure(last).code,
        " ".join((*_said(refusals), why_no_other)),
        "Call again: what is free by then is held against the limits, and a person is asked anew where one is.",
        request_id=last.request_id,
    )


def _said(refusals: Mapping[str, LiumError]) -> list[str]:
    return [
        # Its own words name a ceiling that is not the caller's.
        f"Node {node_id} was taken in this moment, and no other costs as little."
        if isinstance(refusal, NoExecutorMatches)
        else f"Node {node_id}: {as_failure(refusal).happened}"
        for node_id, refusal in refusals.items()
    ]
