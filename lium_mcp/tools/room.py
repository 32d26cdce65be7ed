"""What the limits leave room for now: what the account has spent and is committed to, beside the policy."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, time

from lium_mcp.api import BillingStatement, Pod, Rows
from lium_mcp.guard.policy import Ask, Commitment, Policy, Standing, commitments, hours_left, spent_usd
from lium_mcp.rentals import Entry, Judge
from lium_mcp.tools.call import Call
from lium_mcp.tools.targets import find_pod


@dataclass(frozen=True, slots=True)
class Room:
    """The account's spending at one moment, as far as the policy needs it."""

    policy: Policy
    now: datetime
    since: datetime
    statement: BillingStatement | None
    removed: Sequence[Entry]

    def check(self, ask: Ask, pods: Sequence[Pod], entries: Sequence[Entry]) -> None:
        """Refuse a rent that passes a limit together with pods that live and rents of the ledger.

        Raises:
            PolicyRefused: it does.
        """
        self.policy.check_room(ask, commitments(pods, entries, self.now), self.spent_usd(pods))

    def check_extension(self, pod: Pod, hours: float | None, pods: Sequence[Pod], entries: Sequence[Entry]) -> None:
        """Refuse to let a pod live for so many hours from now where the budget does not bear it; None is for ever.

        Raises:
            PolicyRefused: it does not.
        """
        others = commitments(_but(pod, pods), _without(pod, entries), self.now)
        name = pod.pod_name or pod.id
        self.policy.check_extension(name, Ask(pod.price, hours), others, self.spent_usd(pods))

    def standings(self, pods: Sequence[Pod], entries: Sequence[Entry]) -> list[Standing]:
        """How far each limit is used."""
        return self.policy.standings(self.committed(pods, entries), self.spent_usd(pods))

    def committed(self, pods: Sequence[Pod], entries: Sequence[Entry]) -> list[Commitment]:
        """What lives, or may."""
        return commitments(pods, entries, self.now)

    def spent_usd(self, pods: Sequence[Pod]) -> float | None:
        """What was spent in the period of the budget, None where Lium does not say; 0 where no budget is set."""
        if self.statement is None:
            return 0
        return spent_usd(self.statement, pods, self.removed, self.since, self.now)


async def make_room(call: Call) -> Room:
    """Read what the policy has to know.

    Raises:
        PolicyRefused: no budget is set for now.
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    policy, now = call.policy, call.lium.now()
    day = policy.budget_since(now)
    since = datetime.combine(day, time(), UTC)
    if not policy.wants_spending:
        return Room(policy, now, since, None, ())
    policy.check_budget_has_begun(now)
    statement = await call.lium.account.billing_statement(start_day=day, end_day=now.date())
    return Room(policy, now, since, statement, await call.renter.removed_since(since))


async def find_judge(call: Call, ask: Ask) -> Judge:
    """Whether the limits leave room for a rent beside living pods and open rents.

    Raises:
        As `make_room`.
    """
    room = await make_room(call)
    return lambda pods, entries: room.check(ask, pods, entries)


async def refuse_without_room(call: Call, ask: Ask) -> None:
    """Refuse a rent for which the limits leave no room now, before anybody is asked about it.

    Raises:
        PolicyRefused: they leave none.
        LiumError: the pods, or what was spent, cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    judge = await find_judge(call, ask)
    judge(await call.lium.pods.list(), await call.renter.open_entries())


async def check_life(call: Call, pod: Pod, hours: float | None) -> None:
    """Refuse a removal time so many hours from now, or none, that the limits do not bear.

    What ends a pod earlier than now is never refused.

    Raises:
        PolicyRefused: they do not.
        LiumError: what was spent cannot be read.
        LedgerUnavailable: the ledger cannot be read.
    """
    policy, now = call.policy, call.lium.now()
    earlier = hours_left(pod, now)
    is_shown = not (pod.is_ready and pod.termination_hours)  # that is for pods that have not booted
    ends_earlier = hours is not None and earlier is not None and hours <= earlier and is_shown
    # Of the whole hours of a rent, a part may be taken off once the pod runs.
    if ends_earlier and not await call.renter.has_removal_to_set(pod.id):
        return
    lived = max((now - pod.created_at).total_seconds() / 3600, 0) if pod.created_at else None
    # A first removal time bounds a life of which nobody knows the beginning; a later one only makes it longer.
    policy.check_life(pod.pod_name or pod.id, 0 if lived is None and earlier is None else lived, hours)
    if policy.wants_spending:
        room = await make_room(call)
        room.check_extension(pod, hours, await call.lium.pods.list(), await call.renter.open_entries())


@asynccontextmanager
async def changing_life(call: Call, named: str, hours: float | None) -> AsyncIterator[Pod]:
    """Find a pod and hold its new life against the limits, as `check_life`; the body sets it.

    Where a budget is set, nothing else is rented or let live longer meanwhile: what fits alone may not fit together.

    Raises:
        ToolFailure: there is no such pod.
        PolicyRefused, LiumError, LedgerUnavailable: as `check_life`.
    """
    async with call.renter.turn() if call.policy.wants_spending else nullcontext():
        pod = await find_pod(call, named)
        await check_life(call, pod, hours)
        yield pod


def _but(pod: Pod, pods: Sequence[Pod]) -> Sequence[Pod]:
    """All but one, with what is known to be missing from them."""
    others = [other for other in pods if other.id != pod.id]
    return Rows(others, skipped=pods.skipped) if isinstance(pods, Rows) else others


def _without(pod: Pod, entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if pod.id not in entry.pod_ids]
