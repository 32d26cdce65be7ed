"""A plan of a rent, carried out, and what came of it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import anyio

from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.figures import counted
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.remote.banner import SshAnswer
from lium_mcp.rentals import Expected, LedgerUnavailable, Rental, is_anothers, is_its_own, still_expected
from lium_mcp.services.accounts import Account
from lium_mcp.services.open_rents import pods_given_back
from lium_mcp.services.pods.login_keys import describe_keys, register_public_keys
from lium_mcp.services.pods.pod_details import PodView, describe_start, gone_view, pod_view
from lium_mcp.services.pods.pod_states import ObservedPod, is_over, judge, judge_gone
from lium_mcp.services.pods.readiness import read_pod, wait_for_ssh
from lium_mcp.services.pods.removal_problems import lacks_removal_time
from lium_mcp.services.polling import Poller
from lium_mcp.services.rents.other_nodes import rent_on_some_node
from lium_mcp.services.rents.rent_plan import Plan, expected_of, make_plan
from lium_mcp.services.rents.rent_terms import (
    give_back,
    given_back,
    maybe_not_ours,
    not_stated,
    outcome_unknown,
    refuse_dearer,
)
from lium_mcp.services.rents.rented_pods import RentedPod, came_out, rented_node
from lium_mcp.services.rents.request_total import most_usd, total_of
from lium_mcp.services.rents.startup_restores import StartupRestore, ordered_restore, wait_for_restore, what_to_do
from lium_mcp.services.rents.wish import Wish

_APPEARS_WITHIN_SECONDS = 20.0
_FIRST_READ_SECONDS = 5.0
_SCHEDULE_SECONDS = 10.0


async def agreed_plan(account: Account, policy: Policy, agreed: Question | None, wish: Wish) -> Plan:
    """The plan that a person has agreed to; where nobody was asked, one that is made now.

    Raises:
        Failure, PolicyRefused, LiumError: as `make_plan`, and where it costs more than was agreed to.
    """
    plan = agreed.subject if agreed is not None else None
    if not isinstance(plan, Plan):
        plan = await make_plan(account, policy, wish, await total_of(account, wish), priced=agreed is not None)
    refuse_dearer(agreed, plan.price_per_hour_usd)
    return plan


async def rent(
    account: Account,
    policy: Policy,
    poller: Poller,
    agreed: Question | None,
    plan: Plan,
    wait_seconds: float,
    *,
    may_be_cut_short: bool,
) -> RentedPod:
    """Carry a plan out, on another node where its own refuses it, and wait until the pod runs.

    A dearer node may have fewer hours than were asked for only where it `may_be_cut_short`.

    Raises:
        Failure: it was refused, or came out as something that must not stay, or nobody knows what came of it.
        PolicyRefused, PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as `Renter.rent`.
    """
    try:
        renting = rent_on_some_node(account, policy, agreed, plan, may_be_cut_short=may_be_cut_short)
        async with renting as (rental, placed):
            if not rental.earlier:
                await register_public_keys(account)
            # A pod of an earlier call has its own terms.
            mine = None if rental.earlier else (placed, expected_of(policy, agreed, placed))
            return await follow_rental(account, poller, rental, plan.wish, mine, wait_seconds)
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(plan.wish.name, unknown) from unknown


async def follow_rental(
    account: Account,
    poller: Poller,
    rental: Rental,
    wish: Wish,
    mine: tuple[Plan, Expected] | None,
    wait_seconds: float,
) -> RentedPod:
    """Show what came of a rent. From here on a pod bills: whatever fails, the answer names it.

    `mine` is None where an earlier call rented it, which had terms of its own; what that could not check is checked.

    Raises:
        Failure: it is given back, by this call or by a look beside it.
        RentOutcomeUnknown: the pod is another's.
    """
    plan, expected = mine or (None, still_expected(rental.entry))
    seen = await _see_it_through(account, poller, rental, expected, wait_seconds)
    if seen is None or seen.is_gone or seen.pod.is_being_removed:
        because = (await pods_given_back(account)).get(rental.pod_id)
        if because is not None:
            raise given_back(f"Pod {wish.name} ({rental.pod_id})", because)
    if seen is None:
        return RentedPod(
            outcome="pending",
            pod_id=rental.pod_id,
            already_rented=rental.earlier or None,
            next="The pod is rented, but it could not be read. It may bill: call get_pod with this pod_id.",
        )
    pod = seen.pod
    if pod.has_failed_to_start:
        await account.rents.note_failed_to_start(pod)
    warnings = []
    if not rental.confirmed:
        warnings.append("The answer was lost; this pod was found by its name. Check that it is yours.")
    if seen.contradiction:
        warnings.append(maybe_not_ours(seen.contradiction))
    if plan is not None:
        warnings += came_out(plan, pod)
    if not seen.is_gone:
        await account.rents.note_checked([pod])
        if unverified := expected.unverified(pod):
            warnings.append(not_stated(unverified))
    warnings += seen.removal_warnings
    if rental.entry.hours is None and not pod.has_removal and not seen.is_gone and not pod.is_terminal:
        warnings.append("No removal time is set: it bills until remove_pod or schedule_pod_removal.")
    observed = await _shown(account, seen)
    view = _but(observed.pod, seen.removal_warnings)
    outcome, advice = _with_restore(observed, seen.restore)
    node = pod.executor or (plan.node if plan and pod.executor_id in (None, plan.node.id) else None)
    hours, price = rental.entry.hours, _price_of(rental, pod)
    warnings = [warning for warning in warnings if warning not in (view.warnings or ())]
    return RentedPod(
        outcome=outcome,
        pod_id=pod.id,
        already_rented=rental.earlier or None,
        lost_answer_settled=(rental.was_lost and rental.confirmed) or None,
        hours=hours,
        total_usd=price * hours if price is not None and hours else None,
        left_of_total_usd=await _left_of_total(account, plan, wish, most_usd(price, hours)),
        **rented_node(node),
        ssh_keys=None if seen.is_gone else await describe_keys(account, rental.entry.public_keys) or None,
        pod=_lean(view) if outcome in ("done", "pending") else view,
        restore=seen.restore,
        warnings=warnings or None,
        next=advice,
    )


def _but(view: PodView, said: Sequence[str]) -> PodView:
    """A pod without the warnings that the answer gives beside it."""
    left = [warning for warning in view.warnings or () if warning not in said]
    return view.model_copy(update={"warnings": left or None})


def _lean(view: PodView) -> PodView:
    """What somebody acts on who has just rented a pod; get_pod shows the rest."""
    return view.model_copy(update={"huid": None})


def _price_of(rental: Rental, pod: Pod) -> float | None:
    return pod.price if pod.price is not None else rental.entry.price_per_hour_usd


async def _left_of_total(account: Account, plan: Plan | None, wish: Wish, most_usd: float | None) -> float | None:
    """What a rental leaves of the total that may be spent, if it lasts the whole hours that Lium took."""
    total = plan.total if plan else None
    if plan is None:
        with suppress(LedgerUnavailable):
            total = await total_of(account, wish)
    return total.left_after(most_usd) if total else None


def _with_restore(
    observed: ObservedPod, restore: StartupRestore | None
) -> tuple[Literal["done", "failed", "pending"], str | None]:
    """What a rent came to, together with the restore that it ordered, and what to do now."""
    outcome = "failed" if observed.outcome == "removed" else observed.outcome
    if restore is None or restore.outcome == "done":
        return outcome, observed.next
    if outcome == "done":
        return restore.outcome, what_to_do(restore)
    then = "Its backup is restored as it starts: list_restores shows how that stands." if outcome == "pending" else ""
    return outcome, f"{observed.next or ''} {then}".strip() or None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a call rented, as it was read last: what the answer says is said of this.

    Attributes:
        pod: The pod.
        is_gone: It was there, and is not any more.
        ssh: What came of the last look at its SSH server.
        contradiction: What is not as asked of a pod that may not be this rent's.
        removal_warnings: What is to be known of its removal time.
        restore: How the restore stands that the rent ordered; None where it ordered none, or will not come to it.
    """

    pod: PodDetail
    is_gone: bool
    ssh: SshAnswer | None = None
    contradiction: str | None = None
    removal_warnings: Sequence[str] = ()
    restore: StartupRestore | None = None


async def _see_it_through(
    account: Account, poller: Poller, rental: Rental, expected: Expected, wait_seconds: float
) -> _Seen | None:
    """Wait until the pod runs, has its removal time, answers SSH, and has the backup that it was rented with.

    It is held against what it must be at each look.

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
    hours = rental.entry.hours
    if hours and not pod.is_terminal and not rental.earlier:
        pod, removal_warnings = await _fix_removal(account, rental, pod, hours)
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
    ordered, restore = ordered_restore(rental.entry), None
    if ordered is not None and not pod.is_terminal:
        left = wait_seconds if pod.is_ready else 0
        restore = await wait_for_restore(account, poller, pod.id, ordered, wait_seconds=left)
        if left:
            newest = await _read_again(account, pod)
            if newest is None:
                return _Seen(pod, is_gone=True)
            pod = newest
            contradiction = await _hold_against(account, rental, expected, pod)
    return _Seen(pod, False, ssh, contradiction, removal_warnings, restore)


async def _read_again(account: Account, pod: PodDetail) -> PodDetail | None:
    """The pod as it is now, or else as it was last read; None where it is gone."""
    with suppress(LiumError), anyio.move_on_after(_FIRST_READ_SECONDS):
        return await read_pod(account, pod.id)
    return pod


def _is_unfit(rental: Rental, expected: Expected, pod: Pod) -> bool:
    return expected.contradiction(pod) is not None or is_anothers(rental.entry, pod)


async def _shown(account: Account, seen: _Seen) -> ObservedPod:
    pod, ssh = seen.pod, seen.ssh
    if seen.is_gone:
        return judge_gone(await gone_view(account, pod))
    return judge(await pod_view(account, pod, events=not pod.is_ready or ssh == "silent", ssh=ssh), pod, ssh)


async def _hold_against(account: Account, rental: Rental, expected: Expected, pod: Pod) -> str | None:
    """Hold what this call rented against what it has to be.

    Returns:
        What contradicts that, where nobody can tell whether the pod is this rent's.

    Raises:
        Failure: it contradicts that, and is given back.
        RentOutcomeUnknown: the pod is another's.
    """
    # What an earlier call has checked is its own.
    if not rental.earlier or rental.entry.expected is not None:
        await account.renter.refuse_anothers(rental, [pod])
    contradiction = expected.contradiction(pod)
    if contradiction and rental.confirmed:
        raise await give_back(account, rental, f"Pod {pod.pod_name} ({pod.id})", contradiction, expected, [pod])
    return contradiction


async def _wait_until_runs(
    account: Account, poller: Poller, rental: Rental, expected: Expected, wait_seconds: float
) -> tuple[PodDetail | None, bool]:
    """Wait until a pod runs or cannot; return it as it was last seen, if it ever was, and whether it is gone since."""
    clock = poller.clock
    seen: list[PodDetail] = []
    is_given_back = False
    started = clock.monotonic()

    async def read() -> PodDetail | None:
        nonlocal is_given_back
        pod = await read_pod(account, rental.pod_id)
        if pod is not None:
            seen.append(pod)
        if pod is None or pod.is_being_removed:  # a look between calls may have been quicker
            is_given_back = rental.pod_id in await pods_given_back(account)
        return pod

    def over(pod: PodDetail | None) -> bool:
        # A new pod may take some seconds to be listed; one that was seen and is gone has failed.
        if pod is None:
            return bool(seen) or is_given_back or clock.monotonic() - started > _APPEARS_WITHIN_SECONDS
        return is_given_back or is_over(pod) or _is_unfit(rental, expected, pod)

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
        return pod, [f"The removal after {counted(hours, 'hour')} is not confirmed: call schedule_pod_removal."]
    except LiumError as error:
        return pod, [
            f"The removal after {counted(hours, 'hour')} could not be set ({error}): call schedule_pod_removal."
        ]
    pod = newest or pod
    if is_set:
        return pod, []
    if pod.has_unreadable_removal or not pod.has_removal:
        return pod, [lacks_removal_time(pod)]
    if pod.is_ready:
        return pod, [f"Lium shows a removal time later than {counted(hours, 'hour')}: call schedule_pod_removal."]
    if pod.termination_hours is not None and pod.termination_hours > hours:
        whole = pod.termination_hours
        return pod, [f"It is removed {counted(whole, 'hour')} after it starts, until get_pod sets the exact time."]
    return pod, []
