"""Whether a rent whose answer was lost may be sent again: that may do the work for the first time, so it is a rent."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from lium_mcp.api.errors import LiumError
from lium_mcp.api.paging import Rows
from lium_mcp.api.pods.models import Pod
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.rentals import Entry, Expected, LedgerUnavailable, NotSentAgain, of_its_name, still_expected
from lium_mcp.services.accounts import Account
from lium_mcp.services.limits_left import ask_of, find_judge

_AGREED_FOR: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Readmission:
    """What a server holds a rent against before it sends it again.

    Attributes:
        policy: The limits in force.
        offered: The tools that this server offers.
        is_person_asked: Whether a person would be asked about a rent now.
    """

    policy: Policy
    offered: Collection[str]
    is_person_asked: Callable[[], bool]

    async def judge(self, account: Account, entry: Entry, pods: Rows[Pod], in_its_call: bool) -> Expected:
        """Judge a rent of the ledger, as `rentals.Readmit` does.

        Raises:
            NotSentAgain: it may not leave from here now.
        """
        tool = "rent_cluster" if entry.order.get("kind") == "cluster" else "rent_pod"
        if tool not in self.offered:
            raise NotSentAgain(f"this server does not offer {tool}")
        # In its own call, a person has agreed to it, or to the task that it is for.
        is_asked = not in_its_call and entry.task_id is None and self.is_person_asked()
        if is_asked and not self._is_as_agreed(account, entry, pods):
            raise NotSentAgain("a person is asked before each rent here, and nobody was asked about sending this again")
        try:
            expected = self._check_alone(entry)
            if self.policy.adds_up:
                await self._check_room(account, entry, pods)
        except PolicyRefused as refused:
            raise NotSentAgain(f"the limit {refused.limit} of this server refuses it ({refused.happened})") from refused
        except (LiumError, LedgerUnavailable) as error:
            raise NotSentAgain("what the limits of this server leave room for cannot be read now") from error
        return expected

    @staticmethod
    def _is_as_agreed(account: Account, entry: Entry, pods: Rows[Pod]) -> bool:
        """Whether a person agreed to it minutes ago, and a pod of its name is there: then it asks whose that is.

        Its server may have died, and nobody else would hold the pod to what was agreed to.
        """
        is_agreed = still_expected(entry).is_agreed
        is_fresh = account.lium.now() - entry.created_at <= _AGREED_FOR
        return is_agreed and is_fresh and any(pod.pod_name == entry.pod_name for pod in pods)

    def _check_alone(self, entry: Entry) -> Expected:
        """Check the limits on single pods by what the row has of the rent, and hold what comes out to them too.

        Raises:
            PolicyRefused: one of them does not allow it, or the row does not tell.
        """
        policy, limits = self.policy, self.policy.limits
        expected = still_expected(entry)
        policy.check_price(entry.price_per_hour_usd, entry.pod_count)
        policy.check_life(entry.pod_name, 0, entry.hours)
        # What was on a list that was no longer than this one is on this one too.
        if not expected.allowed_gpu_types or not limits.allow_gpu_types.issuperset(expected.allowed_gpu_types):
            for gpu_type in expected.gpu_types or ("unknown",):
                policy.check_gpu_type(gpu_type, expected.min_vram_gb)
        for country in expected.countries or (None,):
            policy.check_country(country)
        request = entry.order.get("request")
        policy.check_template(request.get("template_id") if isinstance(request, dict) else None)
        if policy.shadow:
            return expected
        together = policy.most_per_hour_usd(entry.price_per_hour_usd, entry.pod_count)
        ceilings = [ceiling for ceiling in (expected.ceiling_per_hour_usd, together) if ceiling is not None]
        return replace(
            expected,
            allowed_gpu_types=tuple(sorted(limits.allow_gpu_types)) or expected.allowed_gpu_types,
            ceiling_per_hour_usd=min(ceilings, default=None),
        )

    async def _check_room(self, account: Account, entry: Entry, pods: Rows[Pod]) -> None:
        """Check the limits that add up; what it may have made already counts once.

        Raises:
            PolicyRefused: they leave no room.
            LiumError: what runs, or what was spent, cannot be read.
            LedgerUnavailable: the ledger cannot be read.
        """
        judge = await find_judge(account, self.policy, ask_of([entry]))
        own = {*entry.pod_ids, *of_its_name(entry, pods)}
        entries, extensions = await account.rents.standing()
        others = [other for other in entries if other.id != entry.id]
        judge(pods.where(lambda pod: pod.id not in own), others, extensions)
