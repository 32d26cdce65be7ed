"""Carries standing orders out: looks at the market time and again, and rents once something fits.

The rent goes the way of any rent, with the terms that were agreed to, and is for the order in the ledger: there the
database lets an order rent once, whatever servers do. A server that goes on with an order first looks whether it has.
"""

import logging
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.executors.models import Executor
from lium_mcp.failures import Failure
from lium_mcp.guard.consent import ConfirmMode, Question
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.rentals import OTHERS_SECONDS, Claim, Entry, Judge, LeaseLost, LedgerUnavailable, NotNow, TaskOver
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import FAILURES, as_failure
from lium_mcp.services.limits_left import find_judge
from lium_mcp.services.orders.order_terms import Terms, check_gpu_type, is_bound_to_its_login
from lium_mcp.services.orders.shared_market import SharedMarket
from lium_mcp.services.orders.standing_orders import seen_of_market
from lium_mcp.services.pods.login_keys import register_public_keys
from lium_mcp.services.rents.offers import NothingFits, cheapest_fitting
from lium_mcp.services.rents.rent_plan import Plan, expected_of, make_plan, may_be_left_to_lium
from lium_mcp.services.rents.rent_terms import refuse_dearer
from lium_mcp.services.rents.request_total import total_of
from lium_mcp.services.rents.total_ceiling import refuse_cut_short
from lium_mcp.services.templates.what_runs import refuse_changed_template

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 45.0
# What fits and is refused all the same is tried less and less often: that takes many more requests than a look.
_MOST_LOOK_SECONDS: Final = 300.0
_MOST_DOUBLINGS: Final = 3
_SETTLING_SECONDS: Final = 15.0
# All requests of a plan; less than the lease, which is prolonged just before.
_PLAN_SECONDS: Final = 60.0


_TEMPLATE_UNKNOWN: Final = (
    "the login that it was placed with has ended, and with another nobody can tell whether the template still runs "
    "what was agreed to: place it anew"
)


class _NothingYet(Exception):
    """Nothing on the market fits an order; it says what is there instead."""


async def carry_out(account: Account, policy: Policy, confirm: ConfirmMode, market: SharedMarket, claim: Claim) -> None:
    """Look once whether something fits an order, and rent it. This is one step of the task, see `Worker`.

    Raises:
        NotNow: this server is not to do it.
        LeaseLost: another server does it, or it was cancelled.
        LedgerUnavailable: nothing was rented that is not in the ledger.
    """
    if not claim.is_own:
        # The pod would be this key's, and be spent from its budget.
        raise NotNow("another key of the account placed it", seconds=OTHERS_SECONDS)
    terms = Terms.of(claim.task)
    if terms is None:
        raise NotNow("another version of this program placed it", seconds=OTHERS_SECONDS)
    async with market.turn(account):
        await claim.keep()
        rents = await account.rents.made_for(claim.task, terms.wish.digest, terms.began_at)
        rent = next((entry for entry in rents if entry.status != "refused"), None)
        if rent is not None:
            await _note_rent(account, claim, rent)
        elif account.lium.now() >= terms.expires_at:
            await claim.finish("expired", _why_expired(claim, terms))
        elif is_bound_to_its_login(claim.task) and claim.task.key_tag != account.renter.key_tag:
            await claim.finish("failed", _TEMPLATE_UNKNOWN)
        else:
            await _try(account, policy, confirm, market, claim, terms)


def _why_expired(claim: Claim, terms: Terms) -> str:
    progress = claim.task.progress
    if progress.get("looked_at") in (None, terms.began_at.isoformat()):
        return "no server looked in time"
    return str(progress.get("because", ""))


async def _note_rent(account: Account, claim: Claim, rent: Entry) -> None:
    """Close an order whose rent is in the ledger; wait where nobody knows yet what became of that."""
    if rent.pod_ids:
        await claim.keep(progress={**claim.task.progress, "pod_id": rent.pod_ids[0]})
        await claim.finish("done", f"rented pod {rent.pod_ids[0]}")
    elif rent.is_open:
        await _wait(account, claim, "its rent was sent, and its answer was lost: it is being settled", is_sent=True)
    else:
        # To send another would be to rent twice, should the first one have come through after all.
        await claim.finish("failed", f"its rent was sent, and no pod of it was found ({rent.status}): place it anew")


async def _try(
    account: Account, policy: Policy, confirm: ConfirmMode, market: SharedMarket, claim: Claim, terms: Terms
) -> None:
    attempts = claim.task.attempts
    try:
        _refuse_unless_agreed(confirm, terms)
        with anyio.fail_after(_PLAN_SECONDS):
            await _refuse_unless_fits(account, policy, terms, await market.nodes(account))
            attempts += 1
            agreed = Question("", price_per_hour_usd=terms.most_per_hour_usd)
            total = await total_of(account, terms.wish)
            plan = await make_plan(account, policy, terms.bound_wish, total, priced=True)
            refuse_changed_template(account, terms.template_digest, terms.template_id, plan.template)
            refuse_dearer(agreed, plan.price_per_hour_usd)
            refuse_cut_short(terms.wish.hours, plan.hours)
        await _rent(account, policy, claim, terms, agreed, plan)
    except _NothingYet as nothing:
        await _wait(account, claim, str(nothing), attempts=0)
    except TaskOver as over:
        raise LeaseLost from over
    except LedgerUnavailable:
        raise
    except RentOutcomeUnknown:
        await _wait(account, claim, "its rent was sent, and its answer was lost: it is being settled", is_sent=True)
    except TimeoutError:
        await _wait(account, claim, "Lium did not answer in time", attempts=attempts)
    except FAILURES as error:
        failure = as_failure(error)
        if failure.code == "template_changed":
            await claim.finish("failed", failure.happened)
            return
        if isinstance(error, PolicyRefused) and await _is_for_ever(account, policy, terms, error):
            await claim.finish("failed", failure.happened)
            return
        log.info("Standing order %r waits: %s", claim.task.name, failure.code)
        await _wait(account, claim, failure.happened, attempts=attempts)


def _refuse_unless_agreed(confirm: ConfirmMode, terms: Terms) -> None:
    """Refuse an order that another server took from somebody who was not asked.

    Raises:
        _NothingYet: here a person is asked before each rent.
    """
    if confirm == "always" and not terms.is_agreed:
        raise _NothingYet("this server asks a person before each rent, and nobody was asked about this order")


async def _is_for_ever(account: Account, policy: Policy, terms: Terms, refused: PolicyRefused) -> bool:
    """Whether a limit refuses an order whatever the market does."""
    if refused.limit != "allow_gpu_types":
        return refused.limit in ("allow_templates", "max_hours")
    try:
        await check_gpu_type(account, policy, terms.wish)
    except PolicyRefused:
        return True
    except (Failure, LiumError):
        return False
    return False


async def _refuse_unless_fits(account: Account, policy: Policy, terms: Terms, market: Sequence[Executor]) -> None:
    """Refuse what the market has nothing for, before anything else is read.

    Raises:
        _NothingYet: it has nothing.
        PolicyRefused: all that it has is of a kind, or in a country, that a limit does not allow.
    """
    wish = terms.bound_wish.for_one_node
    named, gpu_type = terms.wish.executor_id, terms.wish.gpu_type
    wanted = [node for node in market if (not gpu_type or node.is_gpu(gpu_type)) and named in ("", node.id)]
    if named and not wanted:
        raise _NothingYet(f"node {named} is not for rent")
    allowed = [node for node in wanted if policy.admits_gpu_type(node.gpu_name, node.vram_gb_per_gpu)]
    if wanted and not allowed:
        policy.check_gpu_type(wanted[0].gpu_name, wanted[0].vram_gb_per_gpu)
    admitted = [node for node in allowed if policy.admits_country(node.country_code)]
    if allowed and not admitted:
        policy.check_country(allowed[0].country_code)
    # A rent tries a node that is named, and asks Lium which one it would pick where it may; else it picks what is sure.
    is_tried = bool(named) or await may_be_left_to_lium(account, policy, terms.bound_wish)
    if is_tried and any(wish.fit(node) for node in admitted):
        return
    try:
        cheapest_fitting(admitted, wish)
    except NothingFits as nothing:
        raise _NothingYet(str(nothing)) from nothing


async def _rent(account: Account, policy: Policy, claim: Claim, terms: Terms, agreed: Question, plan: Plan) -> None:
    """Rent as any call does, but for the order: what is rented stays, whatever becomes of this server.

    Raises:
        Failure: its time is over.
        TaskOver, PolicyRefused, PodNameTaken, RentUnsettled, LiumError and so on: as `Renter.rent`.
    """

    async def judge_in_time(_: Sequence[Entry]) -> Judge:
        judge = await find_judge(account, policy, plan.ask)
        if account.lium.now() >= terms.expires_at:
            raise Failure("order_expired", "Its time was over when it was about to rent", "")
        return judge

    await claim.keep()
    async with account.renter.rent(
        plan.order,
        asked=terms.wish.digest,
        price_per_hour_usd=plan.price_per_hour_usd,
        expected=expected_of(policy, agreed, plan),
        hours=plan.hours,
        task_id=claim.task.id,
        find_judge=judge_in_time,
    ) as rental:
        log.info("Standing order %r has rented pod %s", claim.task.name, rental.pod_id)
        await claim.keep(progress={**claim.task.progress, "pod_id": rental.pod_id})
        await register_public_keys(account)
    await claim.finish("done", f"rented pod {rental.pod_id}")


async def _wait(account: Account, claim: Claim, because: str, *, attempts: int = 0, is_sent: bool = False) -> None:
    """Note why an order waits, and leave it for a while to whichever server looks next."""
    now = account.lium.now()
    seconds = _SETTLING_SECONDS
    if not is_sent:
        seconds = min(_LOOK_SECONDS * 2 ** min(max(attempts - 1, 0), _MOST_DOUBLINGS), _MOST_LOOK_SECONDS)
    progress = seen_of_market(account, now, because)
    await claim.keep(progress=progress | ({"is_sent": True} if is_sent else {}), attempts=attempts)
    # Orders that were placed together part ways, so that a market which moves is seen by one of them soon.
    await claim.leave_until(now + timedelta(seconds=seconds * random.uniform(0.8, 1.2)))  # noqa: S311 - no secret
