"""Whether a pod is idle at one moment, as it says itself over SSH. What cannot be read is never idle."""

import hashlib
from dataclasses import dataclass
from typing import Final

from lium_mcp.api.pods.models import Pod
from lium_mcp.remote.commands import has_left_something
from lium_mcp.remote.gpus import Gpu
from lium_mcp.remote.inside import look_inside
from lium_mcp.remote.jobs import list_jobs
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import LEFT_BY_A_COMMAND, servers_at_work
from lium_mcp.services.pods.pod_connections import pod_access

IDLE_BELOW_PERCENT: Final = 5
_COMMAND_SECONDS: Final = 15.0
# More than a server's own looks and a notebook that is open cause, less than a download that somebody waits for.
_BUSY_BYTES_PER_SECOND: Final = 1_000_000
# More than the same causes, less than a program that computes.
BUSY_CPUS: Final = 0.5
# A look itself takes CPU time, which counts for much where the next one follows soon.
_LEAST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class IdleReading:
    """What one look at a pod says.

    Attributes:
        is_idle: Whether nothing works in it.
        why: What works in it, or why nobody knows.
        is_read: Whether all of it could be read.
        moved_bytes: What its network has moved since its start; None where it does not say.
        container: Stands for the container that runs in it; None where it does not say.
        cpu_seconds: How much time of CPUs its programs have used; None where it does not say.
        jobs: Stands for its jobs: one that ran between two readings changes it.
        work: The id of what a server began last in it, see `PodWork`.
    """

    is_idle: bool
    why: str = ""
    is_read: bool = True
    moved_bytes: int | None = None
    container: str | None = None
    cpu_seconds: float | None = None
    jobs: str | None = None
    work: int | None = None

    def follows(self, before: "IdleReading", seconds: float) -> str | None:
        """Why something worked in the pod in the seconds since an earlier reading; None where nothing tells of it."""
        if self.container != before.container:
            return "its container started since"
        if self.jobs != before.jobs:
            return "a job ran since"
        if self.work != before.work:
            return "a command or a transfer ran since"
        if self.moved_bytes is not None and before.moved_bytes is not None:
            moved = self.moved_bytes - before.moved_bytes
            if moved < 0 or moved >= _BUSY_BYTES_PER_SECOND * max(seconds, 1):
                return "its network moves much data"
        if self.cpu_seconds is not None and before.cpu_seconds is not None:
            used = self.cpu_seconds - before.cpu_seconds
            if used < 0 or used >= BUSY_CPUS * max(seconds, _LEAST_SECONDS):
                return "a program computes on its CPUs"
        return None


async def read_idleness(account: Account, pod: Pod) -> IdleReading:
    """Look whether a pod is idle now.

    Raises:
        Failure: the pod did not answer.
    """
    try:
        by_servers = await servers_at_work(account, pod)
    except LedgerUnavailable:
        return IdleReading(False, "what other servers do in it could not be read", is_read=False)
    if by_servers.why is not None:
        return IdleReading(False, by_servers.why, work=by_servers.work.newest)
    async with pod_access(account).to(pod) as connection:
        inside = await look_inside(connection, timeout_seconds=_COMMAND_SECONDS)
        if (problem := _why_unread(pod, inside.gpus)) is not None:
            return IdleReading(False, problem, is_read=False)
        jobs = await list_jobs(connection, now=account.lium.now())
        # Of a server that has ended, too: nobody else knows of its commands.
        is_something_left = await has_left_something(connection)
    running = next((job.name for job in jobs if not job.is_quiet), None)
    busiest = max((gpu.utilization_percent or 0 for gpu in inside.gpus or ()), default=0)
    # Some images list none, and some drivers do not let a container see them: an empty list says nothing.
    process = next((process for gpu in inside.gpus or () for process in gpu.processes), None)
    why = ""
    if running is not None:
        why = f"job {running} runs"
    elif is_something_left:
        why = f"{LEFT_BY_A_COMMAND} runs on"
    elif busiest >= IDLE_BELOW_PERCENT:
        why = f"a GPU is at {busiest} %"
    elif process is not None:
        why = f"process {process.pid} is on a GPU"
    names = "\n".join(sorted(job.name for job in jobs))
    return IdleReading(
        not why,
        why,
        moved_bytes=inside.moved_bytes,
        container=inside.container,
        cpu_seconds=inside.cpu_seconds,
        jobs=hashlib.sha256(names.encode()).hexdigest()[:16],
        work=by_servers.work.newest,
    )


def _why_unread(pod: Pod, gpus: list[Gpu] | None) -> str | None:
    """Why nobody can tell whether every GPU that is billed is idle; None where that can be told."""
    if gpus is None:
        return "it has no nvidia-smi, or one that says nothing that can be read"
    billed = pod.rented_gpu_count
    if not gpus or (billed is not None and len(gpus) < billed):
        return f"{billed or 'its'} GPUs are billed, and nvidia-smi reaches {len(gpus) or 'none'}"
    if any(gpu.utilization_percent is None for gpu in gpus):
        return "nvidia-smi does not say how busy each GPU is"
    return None
