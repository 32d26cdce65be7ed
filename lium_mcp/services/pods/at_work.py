"""Who works in a pod now: whatever would remove a pod asks here, and whatever works in one says so here.

A server knows of its own work from memory, of that of other servers on its ledger from there, and of jobs and of what
commands left in the background from the pod itself. Nothing begins in a pod whose removal is being ordered.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import anyio

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote.commands import has_left_something
from lium_mcp.remote.jobs import Job, list_jobs
from lium_mcp.rentals import BeingRemoved, LedgerUnavailable, PodWork, Work, WorkKind
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.pod_connections import pod_access

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

log = logging.getLogger(__name__)

# To connect, and to stop what does not end when it is asked to, comes on top of the time that a call gives.
_MORE_SECONDS: Final = 120.0
_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 5.0
# As long as an order of a removal may take.
_REMOVAL: Final = timedelta(seconds=90)
_IN_WORDS: Final[dict[WorkKind, str]] = {
    "command": "a command of run_command",
    "upload": "an upload",
    "download": "a download",
    "job_start": "the start of a job",
    "removal": "its removal",
}
LEFT_BY_A_COMMAND: Final = "something that a command of run_command left in the background"


@asynccontextmanager
async def working_in(account: Account, pod: Pod, kind: WorkKind, *, seconds: float) -> AsyncIterator["Connection"]:
    """A connection to a pod for what somebody waits for; until it is done, whoever would remove the pod sees it.

    Args:
        account: Whose pod it is.
        pod: The pod.
        kind: What is done.
        seconds: How long it takes at most.

    Raises:
        Failure: the pod is being removed in this moment, or as `PodAccess.to`.
    """
    access = pod_access(account)
    now = account.lium.now()
    work = None
    try:
        work = await account.rents.work_log.begin(
            pod.id, kind, now=now, until=now + timedelta(seconds=seconds + _MORE_SECONDS)
        )
    except BeingRemoved:
        raise _being_removed(pod) from None
    except LedgerUnavailable as error:
        log.warning("Other servers cannot be told of work in pod %s: %s", pod.id, error)
    try:
        async with access.work_on(pod) as connection:
            yield connection
    finally:
        await _end(account, work)


@dataclass(frozen=True, slots=True)
class AtWork:
    """Who works in a pod, by one look.

    Attributes:
        is_own: Whether this server works in it, by its own memory.
        work: What servers on this ledger do there, and what they began last.
        jobs: Its jobs; None where nobody looked, or could.
        left_by_commands: Whether something that a command left in the background runs on.
    """

    is_own: bool
    work: PodWork
    jobs: Sequence[Job] | None = None
    left_by_commands: bool = False

    @property
    def running(self) -> list[Job]:
        """The jobs that run, or left something in the background."""
        return [job for job in self.jobs or () if not job.is_quiet]

    @property
    def job_names(self) -> list[str]:
        """The names of its jobs."""
        return sorted(job.name for job in self.jobs or ())

    @property
    def why(self) -> str | None:
        """What works there, for somebody who would remove it; None where nothing is known to."""
        named = [f"job {job.name} runs" for job in self.running]
        named += [f"{_IN_WORDS[work.kind]} goes on" for work in self.work.going_on]
        if not named and self.is_own:
            named.append("this server works in it")
        if not named and self.left_by_commands:
            named.append(f"{LEFT_BY_A_COMMAND} runs on")
        return named[0] if named else None


async def servers_at_work(account: Account, pod: Pod) -> AtWork:
    """What servers do in a pod, without a look into it.

    Raises:
        LedgerUnavailable: nobody can tell what other servers do.
    """
    access = account.pod_access
    return AtWork(access is not None and access.is_at_work(pod.id), await account.rents.work_in(pod.id))


async def all_at_work(account: Account, pod: Pod, connection: "Connection") -> AtWork:
    """What works in a pod, servers and what runs in it by itself.

    Raises:
        Failure: the pod did not answer.
        LedgerUnavailable: nobody can tell what other servers do.
    """
    jobs, left = await _on_pod(account, connection)
    # Last, so that whoever began something meanwhile is seen here or there.
    by_servers = await servers_at_work(account, pod)
    return AtWork(by_servers.is_own, by_servers.work, jobs, left)


async def _on_pod(account: Account, connection: "Connection") -> tuple[list[Job], bool]:
    """The jobs of a pod, and whether something that a command left in the background runs on."""
    return await list_jobs(connection, now=account.lium.now()), await has_left_something(connection)


async def seen_at_work(account: Account, pod: Pod) -> AtWork:
    """The same, as far as it can be read within some seconds."""
    is_own, work, access = False, PodWork(), account.pod_access
    with suppress(LedgerUnavailable):
        by_servers = await servers_at_work(account, pod)
        is_own, work = by_servers.is_own, by_servers.work
    if access is None or not pod.is_ready or not access.is_promising(pod.id):
        return AtWork(is_own, work)
    try:
        with anyio.fail_after(_LOOK_SECONDS):
            async with access.to(pod) as connection:
                return AtWork(is_own, work, *await _on_pod(account, connection))
    except (Failure, TimeoutError):
        access.note_failure(pod.id)
        return AtWork(is_own, work)


@asynccontextmanager
async def removing(account: Account, pod_id: str, *, since: int) -> AsyncIterator[bool]:
    """Let nothing begin in a pod while its removal is ordered in the body; gives False where something has begun.

    Args:
        account: Whose pod it is.
        pod_id: The pod.
        since: The id of the last change in it that is known to be saved.

    Raises:
        LedgerUnavailable: nobody can tell.
    """
    now = account.lium.now()
    removal = await account.rents.work_log.begin_removal(pod_id, now=now, until=now + _REMOVAL, since=since)
    try:
        yield removal is not None
    finally:
        await _end(account, removal)


@asynccontextmanager
async def letting_nothing_begin(account: Account, pod_id: str) -> AsyncIterator[None]:
    """Let nothing begin in a pod that goes in the body, whatever works in it: that ends the billing, ledger or not."""
    now, removal = account.lium.now(), None
    with suppress(LedgerUnavailable):
        removal = await account.rents.work_log.begin_removal(pod_id, now=now, until=now + _REMOVAL, since=None)
    try:
        yield
    finally:
        await _end(account, removal)


async def _end(account: Account, work: Work | None) -> None:
    """Write that something is over, whatever ends it."""
    if work is not None:
        with anyio.move_on_after(_END_SECONDS, shield=True), suppress(LedgerUnavailable):
            await account.rents.work_log.end(work, now=account.lium.now())


async def refuse_being_removed(account: Account, pod: Pod) -> None:
    """Refuse to begin something in a pod that a server is removing, as far as the ledger tells.

    Raises:
        Failure: one is.
    """
    with suppress(LedgerUnavailable):
        if any(work.kind == "removal" for work in (await account.rents.work_in(pod.id)).going_on):
            raise _being_removed(pod)


def _being_removed(pod: Pod) -> Failure:
    return Failure(
        "pod_being_removed",
        f"{pod.pod_name} ({pod.id}) is being removed in this moment: on request, by what follows a job, or since it "
        "was idle.",
        "Call get_pod: if it still runs in a minute, call again.",
        effect="Nothing was done in it.",
    )


def in_words(work: Work) -> str:
    """What a server does, with the time when it began."""
    return f"{_IN_WORDS[work.kind]} (since {_minute(work.began_at)})"


def job_in_words(job: Job) -> str:
    """A job that runs, with the time when it began."""
    since = f" (since {_minute(job.started_at)})" if job.started_at else ""
    return f"job {job.name}{since}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
