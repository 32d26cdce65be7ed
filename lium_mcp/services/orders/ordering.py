"""Rents one pod or several, or where nothing fits now and the caller wants to wait, places a standing order."""

from dataclasses import replace
from typing import Final

from lium_mcp.failures import Failure
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import Rental, Task
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import FAILURES, as_failure
from lium_mcp.services.orders.order_terms import (
    NewOrder,
    find_terms,
    may_fit_later,
    question_about_order,
    refuse_orders_of_callers,
    refuse_unbounded,
)
from lium_mcp.services.orders.standing_orders import describe, find_same, place, show, show_terms
from lium_mcp.services.polling import READ_LIMIT_SECONDS, Poller, time_limit
from lium_mcp.services.rents.batch_renting import ask_to_rent_missing, rent_missing
from lium_mcp.services.rents.other_counts import refuse_counted_otherwise
from lium_mcp.services.rents.rent_plan import Plan, make_plan
from lium_mcp.services.rents.rent_questions import plan_to_ask, question_about
from lium_mcp.services.rents.rented_pods import RentedPod, would_rent
from lium_mcp.services.rents.renting import agreed_plan, follow_rental, rent
from lium_mcp.services.rents.request_total import total_of
from lium_mcp.services.rents.total_ceiling import refuse_cut_short
from lium_mcp.services.rents.wish import Wish
from lium_mcp.services.templates.what_runs import template_changed

# Of what may fit later, the answers that say by themselves that it does not fit now.
_WAITED_FOR: Final = frozenset({"no_gpu_matches", "node_not_for_rent", "price_above_ceiling"})
_OR_WAIT: Final = "keep_trying_hours, with hours and a ceiling, waits for it."


async def ask_to_rent_or_order(
    account: Account, policy: Policy, wish: Wish, trying_hours: float | None, asked: Question | None
) -> Question | None:
    """Before a rent or a standing order; not where an earlier call with the same request made either.

    Raises:
        As `plan_to_ask`, `find_same` and `find_terms`.
    """
    _check_order(account, policy, wish, trying_hours)
    if wish.is_batch:
        return await ask_to_rent_missing(account, policy, wish, asked)
    began_at = account.lium.now()
    if await find_same(account, wish, trying_hours) is not None:
        return None
    if await account.renter.earlier(wish.name, wish.digest) is not None:
        return None
    await refuse_counted_otherwise(account, wish)
    try:
        # Who was asked about an order has agreed to all that it may rent at once, too.
        if asked is None or not isinstance(asked.subject, NewOrder):
            plan = await plan_to_ask(account, policy, wish, await total_of(account, wish), asked)
            _refuse_if_waiting(plan, trying_hours)
            return question_about(plan)
        because = asked.subject.because
    except FAILURES as error:
        if trying_hours is None or not may_fit_later(error):
            raise
        because = as_failure(error).happened
    terms = await find_terms(account, policy, wish, trying_hours or 0, began_at)
    if asked is not None and isinstance(asked.subject, NewOrder):
        shown = asked.subject.terms
        if shown.template_digest not in (None, terms.template_digest):
            raise template_changed(shown.template_id)
    account.rents.refuse_unmakeable()
    return question_about_order(NewOrder(terms, because))


async def rent_or_order(
    account: Account,
    policy: Policy,
    poller: Poller,
    agreed: Question | None,
    wish: Wish,
    trying_hours: float | None,
    wait_seconds: float,
) -> RentedPod:
    """Rent, or place an order where that may be possible later; show what an earlier call with the same request made.

    Raises:
        As `rent`, `find_same` and `find_terms`.
    """
    _check_order(account, policy, wish, trying_hours)
    if wish.is_batch:
        return await rent_missing(account, policy, poller, agreed, wish, wait_seconds, dry_run=False)
    began_at = account.lium.now()
    try:
        with time_limit(READ_LIMIT_SECONDS):
            if (order := await find_same(account, wish, trying_hours)) is not None:
                return _ordered(account, order)
            earlier = await account.renter.earlier(wish.name, wish.digest)
            if earlier is None and agreed is not None and isinstance(agreed.subject, NewOrder):
                terms = replace(agreed.subject.terms, is_agreed=True)
                return _ordered(account, await place(account, replace(agreed.subject, terms=terms)))
            if earlier is None:
                await refuse_counted_otherwise(account, wish)
            ready = earlier or await agreed_plan(account, policy, agreed, wish)
        if isinstance(ready, Rental):
            return await follow_rental(account, poller, ready, wish, None, wait_seconds)
        _refuse_if_waiting(ready, trying_hours)
        return await rent(account, policy, poller, agreed, ready, wait_seconds, may_be_cut_short=trying_hours is None)
    except FAILURES as error:
        can_wait = trying_hours is None and account.worker is not None
        if can_wait and isinstance(error, Failure) and error.code in _WAITED_FOR:
            error.advice = f"{error.advice} {_OR_WAIT}"
        # A person who was asked has not been asked about an order.
        if trying_hours is None or agreed is not None or not may_fit_later(error):
            raise
        because = as_failure(error).happened
    with time_limit(READ_LIMIT_SECONDS):
        terms = await find_terms(account, policy, wish, trying_hours, began_at)
        return _ordered(account, await place(account, NewOrder(terms, because)))


async def would_rent_or_order(
    account: Account, policy: Policy, poller: Poller, wish: Wish, trying_hours: float | None
) -> RentedPod:
    """Show what would be rented, or the order that would be placed; nothing is.

    Raises:
        As `make_plan`, `rent_missing` and `find_terms`.
    """
    _check_order(account, policy, wish, trying_hours)
    if wish.is_batch:
        return await rent_missing(account, policy, poller, None, wish, 0, dry_run=True)
    with time_limit(READ_LIMIT_SECONDS):
        try:
            plan = await make_plan(account, policy, wish, await total_of(account, wish), priced=True)
            _refuse_if_waiting(plan, trying_hours)
            return would_rent(plan)
        except FAILURES as error:
            if trying_hours is None or not may_fit_later(error):
                raise
            because = as_failure(error).happened
        terms = await find_terms(account, policy, wish, trying_hours, account.lium.now())
    return RentedPod(
        outcome="dry_run",
        order=show_terms(terms).model_copy(update={"because": because}),
        next="Nothing fits now, and nothing was ordered. Call again without dry_run to place the standing order.",
    )


def _check_order(account: Account, policy: Policy, wish: Wish, trying_hours: float | None) -> None:
    if trying_hours is None:
        return
    refuse_orders_of_callers(account)
    if wish.is_batch:
        raise Failure(
            "invalid_argument",
            "A standing order is for one pod, so count and keep_trying_hours do not go together.",
            "Leave out one of them; several orders need a name each.",
        )
    refuse_unbounded(policy, wish)


def _refuse_if_waiting(plan: Plan, trying_hours: float | None) -> None:
    """Refuse a rent for fewer hours than were asked for, of a call that is ready to wait for a cheaper node."""
    if trying_hours is not None:
        refuse_cut_short(plan.wish.hours, plan.hours)


def _ordered(account: Account, task: Task) -> RentedPod:
    order = show(account, task)
    return RentedPod(outcome="pending", order=order, next=describe(account, order))
