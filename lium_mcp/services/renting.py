"""What comes before and after a rent: the question to a person, the plan carried out, and what came of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import anyio

from lium_mcp.api.errors import LiumError, NoExecutorMatches, RentOutcomeUnknown
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.failures import Failure
from lium_mcp.figures import at_most_usd, in_usd, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.remote.banner import SshAnswer
from lium_mcp.rentals import Expected, NodeOrder, Rental, is_anothers, is_its_own
from lium_mcp.results import Result, Usd, UsdRate, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.dropped_settings import SSH_PORT, dropped_settings
from lium_mcp.services.limits_left import find_judge, refuse_beyond_limits
from lium_mcp.services.login_keys import register_public_keys
from lium_mcp.services.node_warnings import node_warnings
from lium_mcp.services.offers import has_price
from lium_mcp.services.open_rents import find_given_back
from lium_mcp.services.pod_details import PodView, describe_start, gone_view, pod_view
from lium_mcp.services.pod_states import ObservedPod, is_over, judge, judge_gone
from lium_mcp.services.polling import Poller
from lium_mcp.services.questions import quoted
from lium_mcp.services.readiness import read_pod, wait_for_ssh
from lium_mcp.services.rent_plan import Plan, expected_of, look_again, make_plan
from lium_mcp.services.rent_terms import (
    came_out_dearer,
    give_back,
    maybe_not_ours,
    not_stated,
    outcome_unknown,
    refuse_dearer,
)
from lium_mcp.services.standing_orders import StandingOrder
from lium_mcp.services.wish import Wish

_APPEARS_WITHIN_SECONDS = 20.0
_FIRST_READ_SECONDS = 5.0
_SCHEDULE_SECONDS = 10.0
_IN_DOLLARS_FROM_USD = 100.0


class PodOfBatch(Result):
    """What came of one of several pods."""

    name: str
    outcome: Literal["done", "failed", "pending", "unknown", "dry_run"]
    pod_id: str | None = None
    already_rented: bool | None = None
    executor_id: str | None = None
    gpu_type: str | None = None
    price_per_hour_usd: UsdRate | None = None
    code: str | None = None
    problem: str | None = None


class RentedPod(Result):
    """What a rent came to: the pod as the API shows it, or on a dry run the node that would be rented.

    Of several pods it has a row each, and what they cost and how many there are of each outcome.
    """

    outcome: Literal["done", "partly_done", "failed", "pending", "dry_run"]
    pod_id: str | None = None
    already_rented: bool | None = None
    executor_id: str | None = None
    gpu_type: str | None = None
    gpu_count: int | None = None
    price_per_hour_usd: UsdRate | None = None
    total_usd: Usd | None = None
    pod: PodView | None = None
    pods: list[PodOfBatch] | None = None
    pods_done: int | None = None
    pods_pending: int | None = None
    pods_failed: int | None = None
    pods_unknown: int | None = None
    removal_at: UtcTime | None = None
    order: StandingOrder | None = None
    warnings: list[str] | None = None
    next: str | None = None


async def plan_to_ask(account: Account, policy: Policy, wish: Wish, asked: Question | None) -> Plan:
    """Plan a rent that a person is to be asked about, or look again at the plan that they have been asked about.

    Raises:
        Failure, PolicyRefused, LiumError, LedgerUnavailable: as `make_plan`, and where the limits leave no room
            now, since what they refuse is no question.
    """
    if asked is not None and isinstance(asked.subject, Plan):
        return await look_again(account, policy, asked.subject)
    plan = await make_plan(account, policy, wish, priced=True)
    await refuse_beyond_limits(account, policy, plan.ask)
    return replace(plan, balance_usd=(await account.renter.me()).balance)


def question_about(plan: Plan) -> Question:
    """What a person is asked before a rent."""
    wish, node = plan.wish, plan.node
    price = None if plan.price_per_hour_usd is None else at_most_usd(plan.price_per_hour_usd)
    # Where the caller left the choice to the market, it may fall on another node by the time of the answer.
    where, known = "the cheapest node that fits", list[str]()
    if wish.executor_id:
        where = f"node {node.id} ({quoted(node.country_code or 'country unknown')})"
        known = node_warnings(node)
    cost = f"at most {in_usd(price)} an hour" if price is not None else "a price that Lium does not say"
    text = f"Rent pod {quoted(wish.name)}: {plan.gpu_count}x {node.gpu_type} on {where} for {cost}? "
    if wish.hours is None:
        text += "It has no removal time: it bills until somebody removes it."
    else:
        text += f"Lium removes it {wish.hours:g} hours after it starts"
        text += f": at most {in_usd(at_most_usd(price * wish.hours))} in all." if price is not None else "."
    text += balance_after(plan.balance_usd, price, wish.hours)
    return Question(" ".join((text, *known, *plan.warnings)), price_per_hour_usd=price, subject=plan)


def balance_after(balance_usd: float | None, price_per_hour_usd: float | None, hours: float | None) -> str:
    """Say what the balance is and will be, as far as Lium says it."""
    if balance_usd is None:
        return ""
    now = f" The balance is about {_about(balance_usd)}"
    if price_per_hour_usd is None or hours is None:
        return f"{now}."
    return f"{now}, and about {_about(balance_usd - price_per_hour_usd * hours)} after that."


def _about(usd: float) -> str:
    """A sum that moves by cents all the time: in dollars where those are enough, so that a question stays the same."""
    return f"${usd:.0f}" if usd >= _IN_DOLLARS_FROM_USD else in_usd(-at_most_usd(-usd))


async def agreed_plan(account: Account, policy: Policy, agreed: Question | None, wish: Wish) -> Plan:
    """The plan that a person has agreed to; where nobody was asked, one that is made now.

    Raises:
        Failure, PolicyRefused, LiumError: as `make_plan`, and where it costs more than was agreed to.
    """
    plan = agreed.subject if agreed is not None else None
    if not isinstance(plan, Plan):
        plan = await make_plan(account, policy, wish, priced=agreed is not None)
    refuse_dearer(agreed, plan.price_per_hour_usd)
    return plan


async def rent(
    account: Account, policy: Policy, poller: Poller, agreed: Question | None, plan: Plan, wait_seconds: float
) -> RentedPod:
    """Carry a plan out, and wait until the pod runs.

    Raises:
        Failure: it was refused, or came out as something that must not stay, or nobody knows what came of it.
        PolicyRefused, PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as `Renter.rent`.
    """
    wish, expected = plan.wish, expected_of(policy, agreed, plan)
    try:
        async with account.renter.rent(
            plan.order,
            asked=wish.digest,
            price_per_hour_usd=plan.price_per_hour_usd,
            expected=expected,
            hours=wish.hours,
            find_judge=lambda _: find_judge(account, policy, plan.ask),
        ) as rental:
            if not rental.earlier:
                await register_public_keys(account)
            # A pod of an earlier call has its own terms.
            mine = None if rental.earlier else (plan, expected)
            return await follow_rental(account, poller, rental, wish, mine, wait_seconds)
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(wish.name, unknown) from unknown
    except NoExecutorMatches as taken:
        if not plan.is_pinned:
            raise
        raise Failure(
            "price_changed",
            f"The node that was found for {rate_in_usd(plan.price_per_hour_usd or 0, 4)} an hour was taken in this "
            "moment, and no other costs as little.",
            "Call again: the next one is held against the limits anew.",
            request_id=taken.request_id,
        ) from taken


async def follow_rental(
    account: Account,
    poller: Poller,
    rental: Rental,
    wish: Wish,
    mine: tuple[Plan, Expected] | None,
    wait_seconds: float,
) -> RentedPod:
    """Show what came of a rent. From here on a pod bills: whatever fails, the answer names it.

    `mine` is None where an earlier call rented it, which had terms of its own.
    """
    plan, expected = mine or (None, Expected())
    seen = await _see_it_through(account, poller, rental, wish, expected, wait_seconds)
    if seen is None:
        return RentedPod(
            outcome="pending",
            pod_id=rental.pod_id,
            already_rented=rental.earlier or None,
            next="The pod is rented, but it could not be read. It may bill: call get_pod with this pod_id.",
        )
    pod = seen.pod
    warnings = []
    if not rental.confirmed:
        warnings.append("The answer was lost; this pod was found by its name. Check that it is yours.")
    if seen.contradiction:
        warnings.append(maybe_not_ours(seen.contradiction))
    if plan is not None:
        warnings += _came_out(plan, pod)
    if plan is not None and not seen.is_gone:
        await account.rents.note_checked([pod])
        if unverified := expected.unverified(pod):
            warnings.append(not_stated(unverified))
    restore = plan.order.request.restore_path if plan and isinstance(plan.order, NodeOrder) else None
    if restore:
        warnings.append(f"The backup is being restored into {restore}: leave it alone until list_restores says done.")
    warnings += seen.removal_warnings
    if wish.hours is None and pod.removal_scheduled_at is None and not seen.is_gone and not pod.is_terminal:
        warnings.append("No removal time is set: it bills until remove_pod or schedule_pod_removal.")
    observed = await _shown(account, seen)
    if (seen.is_gone or pod.is_being_removed) and (why := await find_given_back(account, pod.id)):
        warnings.append(why[1])
    return RentedPod(
        outcome="failed" if observed.outcome == "removed" else observed.outcome,
        pod_id=pod.id,
        already_rented=rental.earlier or None,
        price_per_hour_usd=pod.price,
        pod=observed.pod,
        warnings=warnings or None,
        next=observed.next,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a call rented, as it was read last: what the answer says is said of this.

    Attributes:
        pod: The pod.
        is_gone: It was there, and is not any more.
        ssh: What came of the last look at its SSH server.
        contradiction: What is not as asked of a pod that may not be this rent's.
        removal_warnings: What is to be known of its removal time.
    """

    pod: PodDetail
    is_gone: bool
    ssh: SshAnswer | None = None
    contradiction: str | None = None
    removal_warnings: Sequence[str] = ()


async def _see_it_through(
    account: Account, poller: Poller, rental: Rental, wish: Wish, expected: Expected, wait_seconds: float
) -> _Seen | None:
    """Wait until the pod runs, has its removal time and answers SSH, and hold it against what it must be at each look.

    Returns:
        The pod as it was read last; None where it never was.

    Raises:
        Failure, RentOutcomeUnknown: as `_hold_against`.
    """
    pod, is_gone = await _wait_until_runs(account, poller, rental, expected, wait_seconds)
    if pod is None or is_gone:
        return None if pod is None else _Seen(pod, is_gone)
    contradiction = await _hold_against(account, rental, expected, pod)
    removal_warnings: list[str] = []
    if wish.hours and not pod.is_terminal and not rental.earlier:
        pod, removal_warnings = await _fix_removal(account, rental, pod, wish.hours)
        contradiction = await _hold_against(account, rental, expected, pod)
    ssh = None
    if pod.is_ready and wait_seconds:
        newest, ssh = await wait_for_ssh(
            account, poller, pod, wait_seconds=wait_seconds, is_unfit=lambda pod: _is_unfit(rental, expected, pod)
        )
        if newest is None:
            return _Seen(pod, is_gone=True)
        pod = newest
        contradiction = await _hold_against(account, rental, expected, pod)
    return _Seen(pod, False, ssh, contradiction, removal_warnings)


def _is_unfit(rental: Rental, expected: Expected, pod: Pod) -> bool:
    return expected.contradiction(pod) is not None or is_anothers(rental.entry, pod)


async def _shown(account: Account, seen: _Seen) -> ObservedPod:
    pod, ssh = seen.pod, seen.ssh
    if seen.is_gone:
        return judge_gone(await gone_view(account, pod))
    return judge(await pod_view(account, pod, events=not pod.is_ready or ssh == "silent", ssh=ssh), pod, ssh)


def _came_out(plan: Plan, pod: Pod) -> list[str]:
    """What was known before a rent, and what it came out dearer by."""
    is_planned = pod.executor_id in (None, plan.node.id)
    dearer = came_out_dearer(_planned_usd(plan), pod.price, "remove_pod")
    return [*_foreseen(plan, plan.node if is_planned else pod.executor), *([dearer] if dearer else [])]


async def _hold_against(account: Account, rental: Rental, expected: Expected, pod: Pod) -> str | None:
    """Hold what this call rented against what it has to be.

    Returns:
        What contradicts that, where nobody can tell whether the pod is this rent's.

    Raises:
        Failure: it contradicts that, and is given back.
        RentOutcomeUnknown: the pod is another's.
    """
    if not rental.earlier:
        await account.renter.refuse_anothers(rental, [pod])
    contradiction = expected.contradiction(pod)
    if contradiction and rental.confirmed:
        raise await give_back(account, rental, f"Pod {pod.pod_name} ({pod.id})", contradiction, expected, [pod])
    return contradiction


def _planned_usd(plan: Plan) -> float | None:
    """What a pod was planned at per hour, or is listed at where Lium picked the node."""
    if plan.price_per_hour_usd is None and has_price(plan.node):
        return (plan.node.price_per_gpu or 0) * plan.gpu_count
    return plan.price_per_hour_usd


async def _wait_until_runs(
    account: Account, poller: Poller, rental: Rental, expected: Expected, wait_seconds: float
) -> tuple[PodDetail | None, bool]:
    """Wait until a pod runs or cannot; return it as it was last seen, if it ever was, and whether it is gone since."""
    clock = poller.clock
    seen: list[PodDetail] = []
    started = clock.monotonic()

    async def read() -> PodDetail | None:
        pod = await read_pod(account, rental.pod_id)
        if pod is not None:
            seen.append(pod)
        return pod

    def over(pod: PodDetail | None) -> bool:
        # A new pod may take some seconds to be listed; one that was seen and is gone has failed.
        if pod is None:
            return bool(seen) or clock.monotonic() - started > _APPEARS_WITHIN_SECONDS
        return is_over(pod) or _is_unfit(rental, expected, pod)

    first: PodDetail | None = None
    with suppress(LiumError), anyio.move_on_after(max(poller.left(wait_seconds), _FIRST_READ_SECONDS)):
        first = await read()
    newest = await poller.until(first, read, over, wait_seconds=wait_seconds, describe=describe_start)
    return newest or (seen[-1] if seen else None), newest is None and bool(seen)


async def _fix_removal(account: Account, rental: Rental, pod: PodDetail, hours: float) -> tuple[PodDetail, list[str]]:
    """Make the removal time exact once the pod runs, read it back, and say loudly where it is not confirmed."""
    if not is_its_own(rental.entry, pod):
        return pod, ["Its removal time was left alone: call schedule_pod_removal if it is yours."]
    try:
        with anyio.fail_after(_SCHEDULE_SECONDS):
            newest, is_set = await account.renter.keep_removal_time(rental, pod, hours)
    except TimeoutError:
        return pod, [f"The removal after {hours:g} hours is not confirmed: call schedule_pod_removal."]
    except LiumError as error:
        return pod, [f"The removal after {hours:g} hours could not be set ({error}): call schedule_pod_removal."]
    pod = newest or pod
    if is_set:
        return pod, []
    if pod.removal_scheduled_at is None and pod.termination_hours is None:
        return pod, ["Lium shows no removal time: the pod may bill until it is removed. Call schedule_pod_removal."]
    if pod.is_ready:
        return pod, [f"Lium shows a removal time later than {hours:g} hours: call schedule_pod_removal."]
    if pod.termination_hours is not None and pod.termination_hours > hours:
        whole = pod.termination_hours
        return pod, [f"It is removed {whole} hours after it starts, until get_pod sets the exact time."]
    return pod, []


def _foreseen(plan: Plan, node: Executor | None) -> list[str]:
    """Warn of what is known before a rent.

    That is what speaks against the node, who could not log in, and which settings of the template the pod will lack.
    """
    sentences = [*(node_warnings(node) if node else []), *plan.warnings]
    if plan.template is None:
        return sentences
    sentences += dropped_settings(plan.template)
    asked, free = len({SSH_PORT, *(plan.template.internal_ports or ())}), node.port_count if node else None
    if free is not None and free < asked:
        sentences.append(f"Its node has {free} free ports and the template asks for {asked}: some will not be open.")
    return sentences


def would_rent(plan: Plan) -> RentedPod:
    """Show a plan that is not carried out."""
    price, hours = plan.price_per_hour_usd, plan.wish.hours
    return RentedPod(
        outcome="dry_run",
        executor_id=plan.node.id,
        gpu_type=plan.node.gpu_type,
        gpu_count=plan.gpu_count,
        price_per_hour_usd=price,
        total_usd=price * hours if price is not None and hours else None,
        warnings=_foreseen(plan, plan.node) or None,
        next="Nothing was rented. Call again without dry_run to rent.",
    )
