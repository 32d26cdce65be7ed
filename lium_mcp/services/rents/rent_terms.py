"""The terms of a rent, of a pod or of a cluster: what it may cost, and what happens where it comes out otherwise."""

import logging
from collections.abc import Sequence
from contextlib import suppress

import anyio

from lium_mcp.api.errors import LiumError, NotRented, RentOutcomeUnknown
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import in_usd, is_above, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import DEARER, Expected, NamedAnothers, Rental
from lium_mcp.services.accounts import Account
from lium_mcp.services.unasked import refuse_unasked

log = logging.getLogger(__name__)

_GIVE_BACK_SECONDS = 15.0
_NOT_AS_ASKED = "it came out as something else than asked"


def refuse_dearer(agreed: Question | None, price_per_hour_usd: float | None) -> None:
    """Refuse a price above the one that a person has agreed to.

    Raises:
        Failure: it is higher, or nobody was asked because an earlier rent seemed to answer the call.
    """
    refuse_unasked(agreed, "What this call rented earlier has gone in this moment.")
    most_usd = agreed.price_per_hour_usd if agreed else None
    if most_usd is not None and (price_per_hour_usd is None or is_above(price_per_hour_usd, most_usd)):
        now = (
            "Lium says no price any more"
            if price_per_hour_usd is None
            else f"It costs {rate_in_usd(price_per_hour_usd, 4)} now"
        )
        raise Failure(
            "price_changed",
            f"{now}; at most {in_usd(most_usd)} an hour was agreed to.",
            "Call again, so that the person is asked about the new price.",
        )


def ceiling_per_hour_usd(
    policy: Policy, agreed: Question | None, admitted_usd: float | None, own_usd: float | None, pods: int = 1
) -> float | None:
    """The most that pods may cost together: by the limits, by what a person agreed to, by the caller's own ceiling."""
    agreed_usd = agreed.price_per_hour_usd if agreed else None
    ceilings = (own_usd, policy.most_per_hour_usd(admitted_usd, pods), agreed_usd)
    return min((ceiling for ceiling in ceilings if ceiling is not None), default=None)


def outcome_unknown(name: str, unknown: RentOutcomeUnknown) -> Failure:
    """Say that a rent may have gone through."""
    said = isinstance(unknown.cause, NamedAnothers | NotRented)
    named = f" {str(unknown.cause).rstrip('.')}." if said else ""
    return Failure(
        "outcome_unknown",
        f"The rent of {name} got no clear answer, and it could not be established what became of it.{named}",
        f"Do not rent again. Call list_pods, which settles it: it looks for the pod, and where it may, asks Lium once "
        f"more for this very rent, which may still make the pod. If {name} is there and not unsettled, use it; once it "
        "is neither there nor unsettled, none was made.",
        effect="It may exist and bill.",
        request_id=unknown.request_id,
    )


def maybe_not_ours(contradiction: str) -> str:
    """Warn in place of a removal: a name alone is no reason to remove a pod."""
    return f"It is not as asked ({contradiction}): remove it if it is yours."


def not_all_named(rental: Rental) -> str | None:
    """Say that Lium has not named all pods of a cluster, if it has not."""
    if not rental.entry.missing_count:
        return None
    return (
        f"Lium named {len(rental.pod_ids)} of {rental.entry.pod_count} pods, and lists no other of this cluster yet: "
        "the others may bill too. Call list_pods to see them."
    )


def not_stated(unverified: Sequence[str]) -> str:
    """Warn of what nobody could check."""
    return (
        f"Lium does not say {', '.join(unverified)}, so nobody could check that yet: see get_pod, or remove it. A "
        "later look gives it back if it turns out not as asked."
    )


def given_back(what: str, because: str) -> Failure:
    """Say that a look gave a pod back, before the call that rented it read it."""
    is_dearer = because.startswith(DEARER)
    return Failure(
        "dearer_than_allowed" if is_dearer else "not_as_asked",
        f"{what} was given back: {because}."
        if is_dearer
        else f"{what} came out as something else than asked: {because}.",
        "Choose another node.",
        effect="Its removal is ordered: list_pods shows it until it is gone.",
    )


async def give_back(
    account: Account, rental: Rental, what: str, contradiction: str, expected: Expected, pods: Sequence[Pod]
) -> Failure:
    """Remove what came out dearer than allowed or other than asked, and say so."""
    is_dearer = expected.is_dearer(pods)
    reason = DEARER if is_dearer else _NOT_AS_ASKED
    log.warning("Pods %r are removed: %s", rental.pod_ids, reason)
    removed = False
    with suppress(LiumError), anyio.move_on_after(_GIVE_BACK_SECONDS):
        removed = await account.renter.give_back(rental, reason)
    price = sum(pod.price or 0 for pod in pods)
    unnamed = not_all_named(rental)
    ids = " and with ".join(rental.pod_ids)  # lists leave out what is being removed
    return Failure(
        "dearer_than_allowed" if is_dearer else "not_as_asked",
        f"{what} came out at {rate_in_usd(price, 4)} an hour, more than allowed."
        if is_dearer
        else f"{what} came out as something else than asked: {contradiction}.",
        "Choose another node."
        if removed
        else f"Call get_pod with {ids} until it is gone; remove_pod if it stays.{f' {unnamed}' if unnamed else ''}",
        effect="It is being removed." if removed else "It is removed as soon as it can be, and may bill until then.",
    )
