"""What the limits leave room for now, given what the account has spent and is committed to."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from lium_mcp.api.account import BillingStatement
from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.figures import hours_since, known_most, known_sum
from lium_mcp.guard.commitments import FIRST_CHARGES, Commitment, commitments, hours_left, spent_usd
from lium_mcp.guard.policy import Ask, Policy, Standing
from lium_mcp.rentals import LATE_HOURS, Entry, Extension, Judge, PastCost, most_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.targets import find_pod


@dataclass(frozen=True, slots=True)
class LimitsLeft:
    """The account's spending at one moment, as far as the policy needs it."""

    policy: Policy
    now: datetime
    since: datetime
    statement: BillingStatement | None
    removed: Sequence[PastCost]

    def check(self, ask: Ask, pods: Rows[Pod], entries: Sequence[Entry], extensions: Sequence[Extension]) -> None:
        """Refuse a rent that passes a limit together with pods that live and what the ledger has admitted.

        Raises:
            PolicyRefused: it does.
        """
        self.policy.check_room(ask, self.committed(pods, entries, extensions), self.spent_usd(pods))

    def check_extension(
        self,
        pod: Pod,
        hours: float | None,
        pods: Rows[Pod],
        entries: Sequence[Entry],
        extensions: Sequence[Extension],
        *,
        is_longer: bool,
    ) -> None:
        """Refuse to let a pod live for so many hours from now where the limits do not bear it; None is for ever.

        Raises:
            PolicyRefused: it does not.
        """
        others = self.committed(pods.where(lambda other: other.id != pod.id), _without(pod, entries), extensions)
        name, most = pod.pod_name or pod.id, None if hours is None else hours + LATE_HOURS
        self.policy.check_extension(name, Ask(pod.price, most), others, self.spent_usd(pods), is_longer=is_longer)

    def standings(self, pods: Rows[Pod], entries: Sequence[Entry], extensions: Sequence[Extension]) -> list[Standing]:
        """How far each limit is used."""
        return self.policy.standings(self.committed(pods, entries, extensions), self.spent_usd(pods))

    def committed(self, pods: Rows[Pod], entries: Sequence[Entry], extensions: Sequence[Extension]) -> list[Commitment]:
        """The pods that live, and the rents that may have made some."""
        return commitments(pods, entries, extensions, self.now)

    def spent_usd(self, pods: Sequence[Pod]) -> float | None:
        """What was spent in the period of the budget, None where Lium does not say; 0 where no budget is set."""
        if self.statement is None:
            return 0
        return spent_usd(self.statement, pods, self.removed, self.since, self.now)


async def read_limits_left(account: Account, policy: Policy) -> LimitsLeft:
    """Read what the policy has to know before something is spent.

    Raises:
        PolicyRefused: no budget is set for now.
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    policy.check_budget_has_begun(account.lium.now())
    return await read_spending(account, policy)


async def read_spending(account: Account, policy: Policy) -> LimitsLeft:
    """Read the same to show it, also before the first day of the budget.

    Raises:
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    now = account.lium.now()
    day = policy.budget_since(now)
    since = datetime.combine(day, time(), UTC)
    if not policy.wants_spending:
        return LimitsLeft(policy, now, since, None, ())
    statement = await account.lium.account.billing_statement(start_day=day, end_day=now.date())
    # Of what was closed before, nothing is charged any more that the statement does not have.
    return LimitsLeft(policy, now, since, statement, await account.rents.removed_since(max(since, now - FIRST_CHARGES)))


def ask_of(entries: Sequence[Entry]) -> Ask:
    """What rents of the ledger would add together, if all lived as long as the longest."""
    hours = known_most(entry.hours for entry in entries)
    return Ask(
        known_sum(entry.price_per_hour_usd for entry in entries),
        None if hours is None else most_hours(hours),
        sum(entry.pod_count for entry in entries),
    )


async def find_judge(account: Account, policy: Policy, ask: Ask) -> Judge:
    """Find what the policy has to know, and return what judges a rent beside living pods and open rents.

    Raises:
        As `read_limits_left`.
    """
    left = await read_limits_left(account, policy)
    return lambda pods, entries, extensions: left.check(ask, pods, entries, extensions)


async def refuse_beyond_limits(account: Account, policy: Policy, ask: Ask) -> None:
    """Refuse a rent for which the limits leave no room now, before anybody is asked about it.

    Raises:
        PolicyRefused: they leave none.
        LiumError: the pods, or what was spent, cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    if not policy.adds_up:
        return
    judge = await find_judge(account, policy, ask)
    pods, _ = await account.renter.look()
    judge(pods, *await account.rents.standing())


async def check_life(account: Account, policy: Policy, pod: Pod, hours: float | None) -> None:
    """Refuse, before anybody is asked, a removal in so many hours (None: no removal) that the limits do not bear.

    What ends a pod earlier than now is never refused.

    Raises:
        PolicyRefused: they do not.
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    judge = await _judge_life(account, policy, pod, hours)
    if judge is not None:
        judge(*await account.rents.standing())


async def _judge_life(
    account: Account, policy: Policy, pod: Pod, hours: float | None
) -> Callable[[Sequence[Entry], Sequence[Extension]], None] | None:
    """Check a new life of a pod against the limits of a single pod, and return what judges it by the budget, if any.

    Raises:
        PolicyRefused, LiumError, LedgerUnavailable: as `check_life`.
    """
    now = account.lium.now()
    earlier = hours_left(pod, now)
    is_shown = not (pod.is_ready and pod.termination_hours)  # that is for pods that have not booted
    ends_earlier = hours is not None and earlier is not None and hours <= earlier and is_shown
    # Of the whole hours of a rent, a part may be taken off once the pod runs.
    if ends_earlier and not await account.rents.has_removal_to_set(pod.id):
        return None
    lived = hours_since(pod.created_at, now)
    # A first removal time bounds a life of which nobody knows the beginning; a later one only makes it longer.
    policy.check_life(pod.pod_name or pod.id, 0 if lived is None and earlier is None else lived, hours)
    is_longer = hours is None or (earlier is not None and hours > earlier)
    if is_longer:  # its price may have risen since it was rented
        policy.check_price(pod.price)
    if not policy.wants_spending and not (is_longer and policy.limits.max_burn_per_hour_usd is not None):
        return None
    left, (pods, _) = await read_limits_left(account, policy), await account.renter.look()
    return lambda entries, extensions: left.check_extension(pod, hours, pods, entries, extensions, is_longer=is_longer)


@asynccontextmanager
async def changing_life(account: Account, policy: Policy, named: str, hours: float | None) -> AsyncIterator[Pod]:
    """Find a pod and hold its new life against the limits; the body sets it.

    What a budget has to bear is written into the ledger in the transaction that holds it against the budget: what
    fits alone but not together is not admitted twice, here or on another server.

    Raises:
        Failure: there is no such pod.
        PolicyRefused: the limits do not bear it.
        AccountUnknown: a budget is set, and Lium does not say whose.
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read or written.
    """
    pod = await find_pod(account, named)
    judge = await _judge_life(account, policy, pod, hours)
    if judge is not None:
        now = account.lium.now()
        # Without a removal time a budget refuses it, so what is written there never counts.
        removal_at = now + timedelta(hours=hours or 0)
        await account.rents.admit_extension(Extension(pod.id, removal_at, now), judge)
    try:
        yield pod
    except LiumError as error:
        if judge is not None and error.effect == "none":
            await account.rents.forget_extension(pod.id)
        raise
    if judge is None and policy.wants_spending:
        await account.rents.forget_extension(pod.id)


def _without(pod: Pod, entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if pod.id not in entry.pod_ids]
