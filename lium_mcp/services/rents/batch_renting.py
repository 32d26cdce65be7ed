"""Carries the plan of several pods out, and shows what came of each: one that fails voids no other."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, Literal

import anyio

from lium_mcp.api.errors import LiumError, RentOutcomeUnknown
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.figures import known_most
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import (
    BatchedRent,
    Entry,
    Expected,
    Judge,
    LedgerUnavailable,
    Rental,
    is_anothers,
    is_of_its_node,
    still_expected,
)
from lium_mcp.services.accounts import Account
from lium_mcp.services.failure_words import as_failure
from lium_mcp.services.limits_left import ask_of, find_judge, refuse_beyond_limits
from lium_mcp.services.open_rents import pods_given_back
from lium_mcp.services.pods.login_keys import register_public_keys
from lium_mcp.services.pods.pod_states import is_over
from lium_mcp.services.polling import READ_LIMIT_SECONDS, Poller, time_limit
from lium_mcp.services.rents.balance_needed import NewPod, read_bearing_balance
from lium_mcp.services.rents.batch_plan import (
    BatchPlan,
    Spares,
    look_again_at_all,
    make_batch_plan,
    of_some,
    question_about_batch,
    wanted_of,
)
from lium_mcp.services.rents.other_counts import refuse_counted_otherwise
from lium_mcp.services.rents.rent_plan import Plan
from lium_mcp.services.rents.rent_terms import outcome_unknown, refuse_dearer
from lium_mcp.services.rents.rented_pods import PodOfBatch, RentedPod, foreseen
from lium_mcp.services.rents.renting import follow_rental
from lium_mcp.services.rents.request_total import most_usd_of, total_of
from lium_mcp.services.rents.wish import Wish

Outcome = Literal["done", "partly_done", "failed", "pending"]

_APPEAR_WITHIN_SECONDS: Final = 20.0
# Lium bears about one reading of pods a second.
_FOLLOWED_AT_ONCE: Final = 5
_AGAIN: Final = "The same call again rents what is missing, and shows the others."
_TEMPLATES_DIFFER: Final = "Their templates differ, since each node has its own default: name one with template."


@dataclass(frozen=True, slots=True)
class _Followed:
    """A pod of the batch that bills, and the terms of its rent; those of an earlier call's are its own."""

    rental: Rental
    wish: Wish
    plan: Plan | None = None
    expected: Expected | None = None

    @property
    def mine(self) -> tuple[Plan, Expected] | None:
        return None if self.plan is None or self.expected is None else (self.plan, self.expected)

    def is_unfit(self, pod: Pod) -> bool:
        """Whether it must not be waited for: it is not as asked, or another's."""
        expected = self.expected or still_expected(self.rental.entry)
        return expected.contradiction(pod) is not None or is_anothers(self.rental.entry, pod)


async def ask_to_rent_missing(account: Account, policy: Policy, wish: Wish, asked: Question | None) -> Question | None:
    """What a person is asked before what is missing of a batch is rented; None where nothing is.

    After an answer, the plan that they were asked about is looked at again.

    Raises:
        Failure, PolicyRefused, LiumError, LedgerUnavailable: as `make_batch_plan`, and where the limits leave no room,
            or the balance does not bear them.
    """
    earlier = await account.renter.earlier_of(wish.pod_names, wish.digest)
    missing = _missing(wish, earlier)
    if not missing:
        return None
    await refuse_counted_otherwise(account, wish)
    if asked is not None and isinstance(asked.subject, BatchPlan):
        return question_about_batch(await look_again_at_all(account, policy, asked.subject))
    batch = await make_batch_plan(account, policy, wish, missing, _entries(earlier))
    await refuse_beyond_limits(account, policy, batch.ask)
    pods = [NewPod(plan.node, plan.gpu_count, plan.price_per_hour_usd) for plan in batch.plans]
    balance_usd = await read_bearing_balance(account, pods)
    await account.renter.refuse_in_vain(missing)
    return question_about_batch(replace(batch, balance_usd=balance_usd))


async def rent_missing(
    account: Account,
    policy: Policy,
    poller: Poller,
    agreed: Question | None,
    wish: Wish,
    wait_seconds: float,
    *,
    dry_run: bool,
) -> RentedPod:
    """Rent what is missing of a batch, and wait until all its pods run, also those that earlier calls rented.

    Raises:
        Failure: it cannot be rented so, costs more than was agreed to, or none was rented.
        PolicyRefused, PodNameTaken, RentUnsettled, AccountUnknown, LedgerUnavailable, LiumError: as
            `Renter.rent_several`, and none was sent.
    """
    with time_limit(READ_LIMIT_SECONDS):
        if dry_run:
            return _would_rent(await make_batch_plan(account, policy, wish, wish.pod_names))
        earlier = await account.renter.earlier_of(wish.pod_names, wish.digest)
        missing = _missing(wish, earlier)
        if missing:
            await refuse_counted_otherwise(account, wish)
        batch = agreed.subject if agreed is not None else None
        if missing and not isinstance(batch, BatchPlan):
            batch = await make_batch_plan(account, policy, wish, missing, _entries(earlier))
    if not missing or not isinstance(batch, BatchPlan):
        return await _follow_all(account, poller, wish, earlier, [], [], wait_seconds)
    refuse_dearer(agreed, batch.price_per_hour_usd)
    planned = {plan.wish.name for plan in batch.plans}
    gone = [
        PodOfBatch(name=name, outcome="failed", code="changed_meanwhile", problem="Its earlier pod has just gone.")
        for name in missing
        if name not in planned
    ]
    others = {name: rental for name, rental in earlier.items() if name not in planned}
    return await _rent(account, policy, poller, agreed, batch, others, gone, wait_seconds)


def _missing(wish: Wish, earlier: dict[str, Rental]) -> list[str]:
    """The names of a batch that have no pod."""
    return [name for name in wish.pod_names if name not in earlier]


def _entries(earlier: dict[str, Rental]) -> list[Entry]:
    return [rental.entry for rental in earlier.values()]


def _would_rent(batch: BatchPlan) -> RentedPod:
    """Show a plan that is not carried out."""
    price, hours = batch.price_per_hour_usd, batch.hours
    rows = [
        PodOfBatch(
            name=plan.wish.name,
            outcome="dry_run",
            executor_id=plan.node.id,
            gpu_type=plan.node.gpu_type,
            tier=plan.node.tier,
            country=plan.node.country_code,
            template=plan.template.name if plan.template else None,
            price_per_hour_usd=plan.price_per_hour_usd,
        )
        for plan in batch.plans
    ]
    rows, warnings = _warn(rows, {plan.wish.name: foreseen(plan, plan.node) for plan in batch.plans})
    return RentedPod(
        outcome="dry_run",
        gpu_count=batch.plans[0].gpu_count,
        price_per_hour_usd=price,
        total_usd=price * hours if hours else None,
        left_of_total_usd=batch.total.left_after(batch.most_usd) if batch.total else None,
        hours=hours,
        pods=rows,
        warnings=warnings or None,
        next="Nothing was rented. Call again without dry_run to rent.",
    )


async def _rent(
    account: Account,
    policy: Policy,
    poller: Poller,
    agreed: Question | None,
    batch: BatchPlan,
    earlier: dict[str, Rental],
    gone: Sequence[PodOfBatch],
    wait_seconds: float,
) -> RentedPod:
    async def find_the_judge(entries: Sequence[Entry]) -> Judge:
        return await find_judge(account, policy, ask_of(entries))

    make_wanted = partial(wanted_of, policy, agreed)
    spares = Spares(batch.spares, make_wanted)
    async with account.renter.rent_several(
        [make_wanted(plan) for plan in batch.plans],
        asked=batch.wish.digest,
        find_judge=find_the_judge,
        find_another=spares.find_another,
    ) as rents:
        if any(rent.rental is not None and not rent.rental.earlier for rent in rents):
            await register_public_keys(account)
        followed, failed = [], list(gone)
        for plan, rent in zip(batch.plans, rents, strict=True):
            if rent.rental is None:
                failed.append(_not_rented(plan.wish.name, rent))
            elif rent.rental.earlier:
                followed.append(_Followed(rent.rental, plan.wish))
            else:
                placed = spares.taken.get(plan.wish.name, plan)
                followed.append(_Followed(rent.rental, placed.wish, placed, rent.wanted.expected))
        if not followed and not earlier:
            raise _nothing_rented(rents)
        shown = await _follow_all(account, poller, batch.wish, earlier, followed, failed, wait_seconds)
        return _with_what_to_mend(shown, rents)


def _with_what_to_mend(shown: RentedPod, rents: Sequence[BatchedRent]) -> RentedPod:
    """Say what has to be done first, where Lium refused a rent for what the same call again does not change."""
    for rent in rents:
        if isinstance(rent.failure, RentOutcomeUnknown) or not isinstance(rent.failure, LiumError):
            continue
        if not is_of_its_node(rent.failure) and shown.next:
            return shown.model_copy(update={"next": f"{as_failure(rent.failure).advice} After that: {shown.next}"})
    return shown


async def _follow_all(
    account: Account,
    poller: Poller,
    wish: Wish,
    earlier: dict[str, Rental],
    followed: Sequence[_Followed],
    failed: Sequence[PodOfBatch],
    wait_seconds: float,
) -> RentedPod:
    """Wait for all pods together, see each through, and show them. From here on pods bill: the answer names them."""
    of_earlier = [_Followed(rental, wish.of_one(name)) for name, rental in earlier.items()]
    rows, removal_times = list(failed), list[datetime]()
    warnings: dict[str, list[str]] = {}
    turns = anyio.CapacityLimiter(_FOLLOWED_AT_ONCE)

    async def see_through(one: _Followed) -> None:
        async with turns:
            try:
                shown = await follow_rental(account, poller, one.rental, one.wish, one.mine, wait_seconds)
            except (Failure, LiumError) as error:
                rows.append(_failed(one, error))
                return
        rows.append(_row(one, shown))
        # A single rent shows the pod, which has warnings of its own; a row does not.
        warnings[one.wish.name] = [*(shown.warnings or ()), *((shown.pod and shown.pod.warnings) or ())]
        if shown.pod is not None and shown.pod.removal_at is not None:
            removal_times.append(shown.pod.removal_at)

    waiting = [*of_earlier, *followed]
    while waiting:
        over = await _wait_for_some(account, poller, waiting, wait_seconds)
        async with anyio.create_task_group() as group:
            for one in over:
                group.start_soon(see_through, one)
        waiting = [one for one in waiting if one not in over]
    order = {name: number for number, name in enumerate(wish.pod_names)}
    rows.sort(key=lambda row: order[row.name])
    rows, shared = _warn(rows, warnings)
    rented = [one.rental.entry for one in [*of_earlier, *followed]]
    return _summary(rows, shared, max(removal_times, default=None)).model_copy(
        update=await _of_all(account, wish, rented)
    )


async def _wait_for_some(
    account: Account, poller: Poller, waiting: Sequence[_Followed], wait_seconds: float
) -> Sequence[_Followed]:
    """Wait until all pods run or cannot, and return them; or those of them that must not stay, as soon as one is seen.

    All are read in one request, however many they are.
    """
    clock, started = poller.clock, poller.clock.monotonic()
    seen: set[str] = set()

    async def read() -> dict[str, Pod]:
        listed = {pod.id: pod for pod in await account.lium.pods.list()}
        seen.update(listed)
        if any(one.rental.pod_id not in listed for one in waiting):  # a look between calls may have given one back
            seen.update(await pods_given_back(account))
        return listed

    def unfit(listed: dict[str, Pod]) -> list[_Followed]:
        return [one for one in waiting if (pod := listed.get(one.rental.pod_id)) is not None and one.is_unfit(pod)]

    def has_ended(one: _Followed, listed: dict[str, Pod]) -> bool:
        pod = listed.get(one.rental.pod_id)
        if pod is None:  # a new pod may take some seconds to be listed
            return one.rental.pod_id in seen or clock.monotonic() - started > _APPEAR_WITHIN_SECONDS
        return is_over(pod)

    listed: dict[str, Pod] = {}
    with suppress(LiumError):
        listed = await read()
    listed = await poller.until(
        listed,
        read,
        lambda listed: bool(unfit(listed)) or all(has_ended(one, listed) for one in waiting),
        wait_seconds=wait_seconds,
        describe=lambda listed: _describe(waiting, listed),
    )
    return unfit(listed) or waiting


def _describe(waiting: Sequence[_Followed], listed: dict[str, Pod]) -> str:
    ready = sum(one.rental.pod_id in listed and listed[one.rental.pod_id].is_ready for one in waiting)
    return f"{ready} of {len(waiting)} pods run"


def _row(one: _Followed, shown: RentedPod) -> PodOfBatch:
    return PodOfBatch(
        name=one.wish.name,
        outcome="done" if shown.outcome == "done" else "failed" if shown.outcome == "failed" else "pending",
        pod_id=shown.pod_id,
        already_rented=shown.already_rented,
        lost_answer_settled=shown.lost_answer_settled,
        gpu_type=shown.pod.gpu_type if shown.pod else None,
        tier=shown.tier,
        template=shown.pod.template.name if shown.pod and shown.pod.template else None,
        country=shown.country,
        executor_id=one.plan.node.id if one.plan else None,
        price_per_hour_usd=shown.pod.price_per_hour_usd if shown.pod else None,
        problem=None if shown.outcome == "done" else shown.next,
    )


def _warn(rows: Sequence[PodOfBatch], warnings: Mapping[str, Sequence[str]]) -> tuple[list[PodOfBatch], Sequence[str]]:
    """The rows, each with what to know of its pod alone, and what is to be known of several."""
    told = Counter(warning for of_one in warnings.values() for warning in of_one)
    shared = [warning for warning, count in told.items() if count > 1]
    rows = [_with_warnings(row, [one for one in warnings.get(row.name, ()) if one not in shared]) for row in rows]
    told_of_several = [of_some(warning, told[warning], len(rows)) for warning in shared]
    if len({row.template for row in rows if row.template}) > 1:
        told_of_several.append(_TEMPLATES_DIFFER)
    return rows, told_of_several


def _with_warnings(row: PodOfBatch, warnings: Sequence[str]) -> PodOfBatch:
    """A row that tells what to know of this pod alone."""
    told = " ".join(filter(None, (*warnings, row.problem)))
    return row.model_copy(update={"problem": told}) if told else row


def _failed(one: _Followed, error: Failure | LiumError) -> PodOfBatch:
    """A pod that was given back, or that turned out to be another's."""
    if isinstance(error, RentOutcomeUnknown):
        return _unknown(one.wish.name, error)
    failure = as_failure(error)
    return PodOfBatch(
        name=one.wish.name,
        outcome="failed",
        pod_id=one.rental.pod_id,
        code=failure.code,
        problem=f"{failure.happened} {failure.effect}".strip(),
    )


def _not_rented(name: str, rent: BatchedRent) -> PodOfBatch:
    match rent.failure:
        case RentOutcomeUnknown() as lost:
            return _unknown(name, lost)
        case LiumError() as refusal:
            failure = as_failure(refusal)
            return PodOfBatch(name=name, outcome="failed", code=failure.code, problem=failure.happened)
        case _:
            return PodOfBatch(name=name, outcome="failed", code="not_sent", problem=f"It was not sent: {rent.failure}.")


def _unknown(name: str, lost: RentOutcomeUnknown) -> PodOfBatch:
    failure = outcome_unknown(name, lost)
    return PodOfBatch(
        name=name, outcome="unknown", code=failure.code, problem=f"{failure.happened} {failure.effect}".strip()
    )


def _nothing_rented(rents: Sequence[BatchedRent]) -> Failure:
    """Say why there is no pod of a batch."""
    names = " and ".join(dict.fromkeys((rents[0].entry.pod_name, rents[-1].entry.pod_name)))
    for rent in rents:
        if isinstance(rent.failure, RentOutcomeUnknown):
            return outcome_unknown(f"{len(rents)} pods ({names})", rent.failure)
    first = next((rent.failure for rent in rents if isinstance(rent.failure, LiumError)), None)
    if first is not None:
        return as_failure(first)
    return Failure("not_sent", f"None of {names} was sent: {rents[0].failure}.", "Call again.")


async def _of_all(account: Account, wish: Wish, rented: Sequence[Entry]) -> dict[str, float | None]:
    """How long the pods last, what they cost in all, and what that leaves of the total in the worst case."""
    hours, prices = known_most(entry.hours for entry in rented), [entry.price_per_hour_usd for entry in rented]
    total = None
    with suppress(LedgerUnavailable):
        total = await total_of(account, wish, rented)
    return {
        "hours": hours,
        "total_usd": None
        if hours is None or None in prices
        else sum((entry.price_per_hour_usd or 0) * (entry.hours or 0) for entry in rented),
        "left_of_total_usd": total.left_after(most_usd_of(rented)) if total else None,
    }


def _summary(rows: Sequence[PodOfBatch], warnings: Sequence[str], removal_at: datetime | None) -> RentedPod:
    counts = {outcome: sum(row.outcome == outcome for row in rows) for outcome in ("done", "pending", "unknown")}
    failed = len(rows) - sum(counts.values())
    prices = [row.price_per_hour_usd for row in rows if row.outcome in ("done", "pending") and row.price_per_hour_usd]
    advice = []
    if counts["unknown"]:
        advice.append("Call list_pods, which settles what is unknown, before you rent again.")
    if counts["pending"]:
        advice.append("Those that are pending are rented: call get_pod to wait for one.")
    if failed or counts["unknown"]:
        advice.append(_AGAIN)
    if failed == len(rows):
        outcome: Outcome = "failed"
    elif counts["done"] == len(rows):
        outcome = "done"
    else:
        outcome = "partly_done" if failed else "pending"
    return RentedPod(
        outcome=outcome,
        price_per_hour_usd=sum(prices) if prices else None,
        pods_done=counts["done"],
        pods_pending=counts["pending"] or None,
        pods_failed=failed or None,
        pods_unknown=counts["unknown"] or None,
        removal_at=removal_at,
        pods=list(rows),
        warnings=list(warnings) or None,
        next=" ".join(advice) or None,
    )
