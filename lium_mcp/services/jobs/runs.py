"""Runs as the ledger has them: one pod for one job, each a task whose progress says how far it is.

The command is part of the progress until it was started, since another server may have to start it, and of nothing
else: neither a log nor an answer repeats it.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import uuid4

import anyio
from pydantic import BaseModel, ConfigDict

from lium_mcp.api.errors import LiumError
from lium_mcp.failures import Failure
from lium_mcp.guard.consent import Question
from lium_mcp.rentals import LEASE, AccountUnknown, AccountWorker, LedgerUnavailable, Task, digest, read_claimant
from lium_mcp.services.accounts import Account
from lium_mcp.services.backups.transfer_details import open_folders
from lium_mcp.services.jobs.run_order import RunOrder
from lium_mcp.services.pods.pod_connections import pod_access
from lium_mcp.services.polling import Poller
from lium_mcp.services.rents.rent_plan import Plan
from lium_mcp.services.templates.what_runs import digest_of_what_runs

RunState = Literal["renting", "booting", "uploading", "starting", "running", "following", "removing"]
RunStatus = Literal[
    "succeeded",
    "failed",
    "timed_out",
    "stopped",
    "budget_exhausted",
    "rent_failed",
    "boot_failed",
    "error",
]
BEFORE_THE_COMMAND: Final[frozenset[RunState]] = frozenset({"renting", "booting", "uploading", "starting"})
_NEVER_BEGAN: Final[frozenset[RunStatus]] = frozenset({"rent_failed", "boot_failed"})
_LOOK_SECONDS: Final = 2.0
# A command that ends within that is told with its result.
_QUICK_SECONDS: Final = 5.0
# Whoever does a run writes something sooner than that.
_SILENT_FOR: Final = timedelta(seconds=45)
_CALLING_OFF_SECONDS: Final = 5.0


class RunProgress(BaseModel):
    """How far a run is, and what came of it.

    Attributes:
        state: What is to be done next.
        since: When that began.
        status: What came of the command, or why it never ran; None while that is not known.
        problem: Why what was to follow has not, or not yet.
        problem_said: The same in words.
        kept_because: What works in the pod, where that holds off its removal.
        log: The end of what the command wrote.
        pod_stays: Of a run that is over, whether its pod was left to its removal time.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    state: RunState
    since: datetime
    command: str | None = None
    pod_id: str | None = None
    price_per_hour_usd: float | None = None
    warnings: list[str] | None = None
    ready_since: datetime | None = None
    removal_at: datetime | None = None
    started_at: datetime | None = None
    stops_at: datetime | None = None
    status: RunStatus | None = None
    exit_code: int | None = None
    finished_at: datetime | None = None
    log: str | None = None
    backup_id: str | None = None
    path: str | None = None
    downloaded_files: int | None = None
    downloaded_bytes: int | None = None
    problem: str | None = None
    problem_said: str | None = None
    kept_because: str | None = None
    pod_stays: bool | None = None
    charged_usd: float | None = None
    missing_since: datetime | None = None


def read_progress(task: Task) -> RunProgress:
    """How far a run is."""
    return RunProgress.model_validate(task.progress)


def read_order(task: Task) -> RunOrder:
    """What a run is to do; its command only before it was started."""
    return RunOrder.model_validate({**task.payload["order"], "command": task.progress.get("command") or "(started)"})


async def find_earlier(account: Account, order: RunOrder) -> Task | None:
    """The run that an earlier call with the same arguments began, unless it ended before its pod ran.

    Raises:
        Failure: another call has begun a run of that name, whose result is still known.
        LedgerUnavailable: the ledger cannot be read.
    """
    task = await find_run(account, order.name)
    if task is None:
        return None
    if not _is_same_call(account, task, order):
        if not never_began(task):
            raise _another_run(order.name, task)
        return None
    return None if never_began(task) else task


def _is_same_call(account: Account, task: Task, order: RunOrder) -> bool:
    # An earlier version of this program wrote the digest itself.
    return task.payload.get("call") in (account.lium.keyed_digest(order.digest), order.digest)


def never_began(task: Task) -> bool:
    """Whether a run ended before its pod ran: its name may be used again."""
    return task.closed_at is not None and read_progress(task).status in _NEVER_BEGAN


async def find_run(account: Account, name: str = "", pod: str = "") -> Task | None:
    """The newest run of a name, or of a pod that goes by this name or id; None where there is none.

    Raises:
        LedgerUnavailable: the ledger cannot be read.
    """
    for task in await account.rents.tasks("job_run"):
        is_its_pod = not pod or pod in (task.name, task.progress.get("pod_id"))
        if is_its_pod and name in ("", task.name):
            return task
    return None


async def begin_run(account: Account, order: RunOrder, *, plan: Plan, agreed: Question | None) -> Task:
    """Write a run down; from then on a server of the account does it, most likely this one.

    Args:
        account: Whose money is spent.
        order: What it is to do.
        plan: Its rent, as it was planned before it was written down.
        agreed: What a person agreed to, with this plan; None where nobody was asked.

    Raises:
        Failure: it cannot be written down, or another run has the name.
    """
    worker, now = own_worker(account), account.lium.now()
    payload: dict[str, Any] = {
        "order": order.model_dump(mode="json", exclude={"command"}) | _whole_paths(account, order),
        "hours": plan.hours,
        # A command may hold what could be guessed from a digest that anybody can make.
        "call": account.lium.keyed_digest(order.digest),
        # Its own, so that no rent of another call counts as this one's.
        "asked": digest([order.digest, str(uuid4())]),
        "ceiling_per_hour_usd": agreed.price_per_hour_usd if agreed else None,
    }
    if agreed is not None:
        payload["shown"] = {"gpu_name": plan.node.gpu_name, "tier": plan.node.tier}
    if agreed is not None and plan.template is not None and order.template:
        payload["template_id"] = plan.template.id
        payload["template_digest"] = digest_of_what_runs(account, plan.template)
    if order.local_path or order.download_path:
        payload["machine"] = await pod_access(account).machine()
    progress = RunProgress(state="renting", since=now, command=order.command)
    try:
        task, is_new = await worker.add("job_run", order.name, order.name, payload, progress=as_written(progress))
    except (AccountUnknown, LedgerUnavailable, LiumError) as error:
        raise Failure("run_not_kept", f"The run cannot be written down: {error}", "Call again in a minute.") from error
    if not is_new and not _is_same_call(account, task, order):
        raise _another_run(order.name, task)
    return task


def _whole_paths(account: Account, order: RunOrder) -> dict[str, str]:
    """The local paths of a run, so that they mean the same to a server that has other folders first."""
    if not order.local_path and not order.download_path:
        return {}
    folders = open_folders(pod_access(account).local_folders)
    given = {"local_path": order.local_path, "to_path": order.download_path and order.target}
    return {name: f"{folders.locate(path)}{'/' if path.endswith('/') else ''}" for name, path in given.items() if path}


@asynccontextmanager
async def calling_off(account: Account, task: Task) -> AsyncIterator[None]:
    """Call a run off if the call that began it is cancelled: nobody may have heard of what it rents."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(_CALLING_OFF_SECONDS, shield=True), suppress(LedgerUnavailable):
            await own_worker(account).stop(task)
        raise


def as_written(progress: RunProgress) -> dict[str, Any]:
    """The progress as the ledger has it."""
    return progress.model_dump(mode="json", exclude_none=True)


def own_worker(account: Account) -> AccountWorker:
    """What does the runs of this account.

    Raises:
        Failure: nothing does.
    """
    if account.worker is None or (account.worker.is_login and account.pod_access is None):
        account.lium.check_api_key()
        raise Failure(
            "no_work_for_callers",
            "This server logs in to no pods for callers elsewhere, and does nothing in them when a call is over.",
            "Call rent_pod, upload_files and start_job one after the other, or run this server on your machine.",
        )
    return account.worker


def _another_run(name: str, task: Task) -> Failure:
    """Say that a name is taken by another run."""
    is_open, status = task.closed_at is None, read_progress(task).status
    how = "is under way" if is_open else f"has ended ({status})"
    end = ", end it with stop_job" if is_open else ""
    return Failure(
        "run_exists",
        f"A run named {name} {how}, from a call with other arguments.",
        f"Look at it with get_job (pod={name}, name={name}){end}, or choose another name.",
    )


async def watch_run(
    account: Account, poller: Poller, task: Task, done: Callable[[Task], bool], *, wait_seconds: float
) -> Task:
    """Wait until something holds of a run that some server does, or the time is over; return the run as it is then."""
    worker = account.worker
    ends_at = anyio.current_time() + wait_seconds
    while True:
        changed = anyio.Event() if worker is None else worker.changed
        task = await _read_again(account, task)
        left = min(poller.left(wait_seconds), ends_at - anyio.current_time())
        if done(task) or task.closed_at is not None or left <= 0 or poller.stop.asked:
            return task
        if poller.report is not None:
            await poller.report(wait_seconds - left, wait_seconds, f"{task.name} is {read_progress(task).state}")
        with anyio.move_on_after(min(left, _LOOK_SECONDS)):
            await changed.wait()


async def watch_start(account: Account, poller: Poller, task: Task, *, wait_seconds: float) -> Task:
    """Wait until the command of a run was started and, if it is a quick one, for what follows it too."""
    runs_since: float | None = None

    def is_told(seen: Task) -> bool:
        nonlocal runs_since
        if not is_at_its_command(seen):
            return False
        runs_since = anyio.current_time() if runs_since is None else runs_since
        is_quick = read_progress(seen).state in ("following", "removing")
        return not is_quick and anyio.current_time() - runs_since >= _QUICK_SECONDS

    return await watch_run(account, poller, task, is_told, wait_seconds=wait_seconds)


def describe_silence(task: Task, now: datetime) -> str | None:
    """Say that the server that does a run has written nothing for long, or has ended; None where neither is known."""
    if task.closed_at is not None or task.lease_owner is None or task.lease_until is None:
        return None
    claimant, written_at = read_claimant(task.lease_owner), task.lease_until - LEASE
    where = "another one" if claimant.process_id is None else f"process {claimant.process_id} of this machine"
    wrote = f"last wrote at {written_at:%Y-%m-%dT%H:%M:%SZ}"
    takes_over = f"another takes over at {task.lease_until:%Y-%m-%dT%H:%M:%SZ} at the latest"
    if claimant.is_dead:
        return f"The server that did this run ({where}) has ended; it {wrote}. If a server runs, {takes_over}."
    if now - written_at >= _SILENT_FOR:
        return f"The server that does this run ({where}) {wrote}. If it has ended and a server runs, {takes_over}."
    return None


async def _read_again(account: Account, task: Task) -> Task:
    try:
        return next((one for one in await account.rents.tasks("job_run") if one.id == task.id), task)
    except LedgerUnavailable:
        return task


def is_at_its_command(task: Task) -> bool:
    """Whether the command of a run was started, or never will be."""
    return task.closed_at is not None or read_progress(task).state not in BEFORE_THE_COMMAND


def is_called_off(task: Task) -> bool:
    """Whether a run that is to be stopped has done what it can now: it is over, has begun, or its pod stays for now."""
    return is_at_its_command(task) or read_progress(task).kept_because is not None
