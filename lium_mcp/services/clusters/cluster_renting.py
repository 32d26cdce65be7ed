"""Carries the plan of a cluster out, and shows what came of it."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import anyio

from lium_mcp.api.errors import Conflict, LiumError, RentOutcomeUnknown
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import counted
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import ClusterOrder, Expected, Rental, is_its_own, still_expected
from lium_mcp.results import Result, UsdRate
from lium_mcp.services.accounts import Account
from lium_mcp.services.clusters.cluster_plan import ClusterPlan, expected_of_members
from lium_mcp.services.failure_words import as_failure
from lium_mcp.services.limits_left import find_judge
from lium_mcp.services.pods.dropped_settings import dropped_settings
from lium_mcp.services.pods.price_rises import came_out_dearer
from lium_mcp.services.rents.rent_terms import (
    give_back,
    maybe_not_ours,
    not_all_named,
    not_stated,
    outcome_unknown,
)

_READ_BACK_SECONDS: Final = 10.0


class RentedCluster(Result):
    """The pods of a cluster that was rented. Each bills by itself."""

    pod_ids: list[str]
    already_rented: bool | None = None
    cluster_id: str | None = None
    price_per_hour_usd: UsdRate | None = None
    warnings: list[str] | None = None
    next: str


async def rent_members(
    account: Account, policy: Policy, agreed: Question | None, plan: ClusterPlan, asked: str
) -> RentedCluster:
    """Carry a plan out; `asked` is a digest of what the caller asked for.

    Raises:
        Failure: it was refused, or came out as something that must not stay, or nobody knows what came of it.
        PolicyRefused, PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as `Renter.rent`.
    """
    expected = expected_of_members(policy, agreed, plan)
    try:
        async with account.renter.rent(
            ClusterOrder(plan.request),
            asked=asked,
            price_per_hour_usd=plan.price_per_hour_usd,
            expected=expected,
            hours=plan.hours,
            find_judge=lambda _: find_judge(account, policy, plan.ask),
        ) as rental:
            # Pods of an earlier call have their own terms.
            return await show_members(account, rental, None if rental.earlier else (plan, expected))
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(plan.request.pod_name, unknown) from unknown
    except Conflict as refused:
        # It may have come as a success of HTTP, which says no more than that Lium answered.
        raise Failure(
            as_failure(refused).code,
            f"{str(refused).rstrip('.')}.",
            "Look at list_clusters again: a node may have been taken.",
            effect="Nothing was rented.",
            request_id=refused.request_id,
        ) from refused


async def show_members(
    account: Account, rental: Rental, mine: tuple[ClusterPlan, Expected] | None = None
) -> RentedCluster:
    """Show the members; `mine` is None where an earlier call rented them, and what that could not check is checked.

    Raises:
        Failure: they are not as they must be, and are given back.
        RentOutcomeUnknown: they are another's.
    """
    members: list[Pod] = []
    # The pods bill: whatever fails now, the answer names them.
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        members = [pod for pod in await account.lium.pods.list() if pod.id in rental.pod_ids]
    plan, expected = mine or (None, still_expected(rental.entry))
    warnings = await _hold_against(account, rental, members, plan, expected)
    if not rental.confirmed:
        warnings.append("The answer was lost; the pods were found by name. Check them.")
    unnamed = not_all_named(rental)
    if unnamed:
        warnings.append(unnamed)
    if not members:
        warnings.append("Lium does not list the pods yet.")
    hours = plan.hours if plan else None
    if hours is not None and not await _keep_removal_times(account, rental, members, hours):
        warnings.append(
            f"The removal after {counted(hours, 'hour')} is not confirmed: call list_pods once all members run."
        )
    prices = [pod.price for pod in members if pod.price is not None]
    planned = plan.price_per_hour_usd if plan else None
    return RentedCluster(
        pod_ids=list(rental.pod_ids),
        already_rented=rental.earlier or None,
        cluster_id=next((pod.cluster_id for pod in members if pod.cluster_id), None),
        price_per_hour_usd=sum(prices) if len(prices) == len(rental.pod_ids) and not unnamed else planned,
        warnings=warnings or None,
        next="Call list_pods until all members run. Remove them together with remove_cluster.",
    )


async def _hold_against(
    account: Account, rental: Rental, members: Sequence[Pod], plan: ClusterPlan | None, expected: Expected
) -> list[str]:
    """Hold the members against what they have to be, and return what to know of them.

    Raises:
        Failure: they are not as they must be, and are given back.
        RentOutcomeUnknown: they are another's.
    """
    # What an earlier call has checked is its own.
    if not rental.earlier or rental.entry.expected is not None:
        await account.renter.refuse_anothers(rental, members)
    warnings = plan.warnings if plan else []
    contradiction = next(filter(None, map(expected.contradiction, members)), None)
    if contradiction or expected.is_dearer(members):
        contradiction = contradiction or "they cost more than allowed together"
        if rental.confirmed:
            what = f"The cluster {rental.entry.pod_name}"
            raise await give_back(account, rental, what, contradiction, expected, members)
        warnings.append(maybe_not_ours(contradiction))
    together = sum(pod.price for pod in members if pod.price is not None)
    if plan and (dearer := came_out_dearer(plan.price_per_hour_usd, together, "remove_cluster")):
        warnings.append(dearer)
    if unverified := sorted({what for pod in members for what in expected.unverified(pod)}):
        warnings.append(not_stated(unverified))
    if members:
        await account.rents.note_checked(members)
    if plan:
        warnings += dropped_settings(plan.template)
    if plan and len(rental.pod_ids) > plan.pod_count:
        warnings.append(f"Lium named {len(rental.pod_ids)} pods where {plan.pod_count} were ordered: see list_pods.")
    return warnings


async def _keep_removal_times(account: Account, rental: Rental, members: Sequence[Pod], hours: float) -> bool:
    """Set a removal time on each member, since a cluster's rent carries no hours; return whether all have one."""
    is_set = [False]
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        own = [pod for pod in members if is_its_own(rental.entry, pod)]
        is_set = [(await account.renter.keep_removal_time(rental, pod, hours))[1] for pod in own]
    return len(is_set) == len(rental.pod_ids) and all(is_set) and not rental.entry.missing_count
