"""A run that this server has claimed: what is read and written of it, and how it ends where its pod is gone."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from lium_mcp.api.pods.models import PodDetail
from lium_mcp.failures import Failure
from lium_mcp.guard.policy import Policy
from lium_mcp.rentals import OTHERS_SECONDS, Claim, Entry, NotNow
from lium_mcp.services.accounts import Account
from lium_mcp.services.jobs.run_order import RunOrder
from lium_mcp.services.jobs.runs import RunProgress, RunState, RunStatus, as_written, read_order, read_progress
from lium_mcp.services.open_rents import find_given_back
from lium_mcp.services.pods.at_work import seen_at_work
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.pods.pod_details import past_view
from lium_mcp.services.pods.pod_states import judge_gone
from lium_mcp.services.pods.readiness import read_pod
from lium_mcp.services.pods.removing import MISSING_FOR, start_removal
from lium_mcp.services.polling import Poller

_AGAIN_SECONDS: Final = 15.0
_REMOVAL_SECONDS: Final = 60.0
_ENDS_BY_SCHEDULE: Final = timedelta(seconds=90)


def not_now(reason: str) -> NotNow:
    """Leave a run alone for some seconds; any other server may go on with it."""
    return NotNow(reason, seconds=_AGAIN_SECONDS)


class Run:
    """A run that this server does."""

    def __init__(
        self, account: Account, policy: Policy, poller: Poller, claim: Claim, redact: Callable[[str], str]
    ) -> None:
        """Take the account that pays, its limits, what waits, the claim, and what takes secrets out of a text."""
        self.account = account
        self.policy = policy
        self.poller = poller
        self.claim = claim
        self.redact = redact

    @property
    def name(self) -> str:
        """The name of the run, its pod and its job."""
        return self.claim.task.name

    @property
    def order(self) -> RunOrder:
        """What it is to do."""
        return read_order(self.claim.task)

    @property
    def progress(self) -> RunProgress:
        """How far it is."""
        return read_progress(self.claim.task)

    @property
    def now(self) -> datetime:
        """The time by Lium's clock."""
        return self.account.lium.now()

    @property
    def is_unwanted(self) -> bool:
        """Whether somebody asked to stop it."""
        return self.claim.task.status == "stopping"

    async def note(self, state: RunState | None = None, **values: Any) -> None:  # noqa: ANN401 - fields of `RunProgress`
        """Write what was done, and keep the claim.

        Raises:
            LeaseLost, LedgerUnavailable: as `Claim.keep`.
        """
        if state is not None:
            values |= {"state": state, "since": self.now}
        if "problem" in values:
            values = {"problem_said": None} | values
        await self.claim.keep(progress=as_written(self.progress.model_copy(update=values)))

    async def over(self, status: RunStatus, said: str, *, problem: str | None = None, pod_stays: bool = False) -> None:
        """Close the run; where its pod stays, whoever looks is told what that costs.

        Raises:
            LeaseLost, LedgerUnavailable: as `Claim.finish`.
        """
        is_done = status in ("succeeded", "stopped") and problem is None
        values = {"status": status, "problem": problem, "command": None, "pod_stays": pod_stays or None}
        progress = self.progress.model_copy(update=values)
        await self.claim.finish("done" if is_done else "failed", said, progress=as_written(progress))

    async def rents(self) -> list[Entry]:
        """What was rented for it, newest first.

        Raises:
            LedgerUnavailable: the ledger cannot be read.
        """
        task = self.claim.task
        return await self.account.rents.made_for(task, task.payload["asked"], task.created_at)

    async def refuse_elsewhere(self) -> None:
        """Leave a run whose files are on another machine to a server there.

        Raises:
            NotNow: they are.
        """
        if self.claim.task.payload.get("machine") != await pod_access(self.account).machine():
            raise NotNow("its files are on another machine", seconds=OTHERS_SECONDS)

    async def read_pod(self) -> PodDetail | None:
        """Its pod; None where there is none any more, which ends the run.

        That is believed where Lium keeps a record of its end, else the second time.
        """
        progress = self.progress
        pod = await read_pod(self.account, progress.pod_id or "")
        if pod is not None and not pod.is_removed:
            if progress.missing_since is not None:
                await self.note(missing_since=None)
            return pod
        is_believed = progress.missing_since is not None and self.now - progress.missing_since >= MISSING_FOR
        if is_believed or await past_view(self.account, progress.pod_id or "") is not None:
            await self.end_gone()
        elif progress.missing_since is None:
            await self.note(missing_since=self.now)
        return None

    async def read_ready_pod(self) -> PodDetail | None:
        """Its pod, if one can work on it now; the run is closed where one never will again."""
        pod = await self.read_pod()
        if pod is None or pod.is_being_removed:
            return None
        if pod.is_terminal:
            status = self.progress.status or "error"
            await self.over(status, f"its pod is {pod.state}", problem="pod_failed", pod_stays=True)
            return None
        return pod if pod.is_ready else None

    async def end_gone(self) -> None:
        """Close the run, since its pod is gone."""
        progress = self.progress
        pod_id = progress.pod_id or ""
        _, given_back = await find_given_back(self.account, pod_id) or ("", None)
        past = await past_view(self.account, pod_id)
        await self.note(charged_usd=past.cost_so_far_usd if past else None)
        reason = (past.removed_because if past else None) or ""
        if progress.status is not None:
            is_ordered = self.claim.task.progress.get("removal_ordered") is True
            problem = None if is_ordered or progress.state == "removing" else "pod_gone_before_what_was_to_follow"
            await self.over(progress.status, "its pod is gone", problem=problem)
        elif given_back is not None:
            await self.over("rent_failed", given_back)
        elif self.is_unwanted or await self._was_removed_on_request():
            await self.over("stopped", "its pod was removed before the command had ended")
        elif progress.state == "booting":
            said = judge_gone(past).next if past else None
            await self.over("boot_failed", said or "its pod is gone before it ran")
        elif _ended_by_money(progress, self.now, reason):
            await self.over("budget_exhausted", "its pod was removed at its time before the command had ended")
        else:
            said = f"Lium says: {reason[:200]}" if reason else "Lium does not say why"
            await self.over("error", f"its pod is gone before the command had ended; {said}", problem="pod_gone")

    async def _was_removed_on_request(self) -> bool:
        return any(entry.status in ("removing", "removed") and entry.removal_accepted for entry in await self.rents())

    async def give_up(self, status: RunStatus, said: str, *, problem: str | None = None) -> None:
        """Close a run whose command has not run, and remove the pod that it rented, once nobody else works in it.

        Raises:
            NotNow: the pod cannot be removed yet.
            LiumError: what became of its removal is not known.
        """
        pod = await self.read_pod()
        if pod is None:
            if not self.claim.is_over:
                raise not_now("Lium does not show the pod, nor say that it is gone")
            return
        seen = await seen_at_work(self.account, pod)
        by_others = replace(seen, jobs=[job for job in seen.jobs or () if job.name != self.name])
        if by_others.why != self.progress.kept_because:
            await self.note(kept_because=by_others.why)
        if by_others.why is not None:
            raise not_now(by_others.why)
        try:
            with anyio.fail_after(_REMOVAL_SECONDS):
                await start_removal(self.account, pod)
        except Failure as failure:
            if pod.is_billing or not pod.is_terminal:
                raise not_now(failure.code) from failure
        await self.over(status, said, problem=problem)


def _ended_by_money(progress: RunProgress, now: datetime, reason: str) -> bool:
    """Whether a pod was ended by its removal time, or by what Lium says of the money."""
    is_time = progress.removal_at is not None and now >= progress.removal_at - _ENDS_BY_SCHEDULE
    return is_time or any(word in reason.casefold() for word in ("budget", "balance"))
