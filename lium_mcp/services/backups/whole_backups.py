"""What is to remove a pod after a backup of all of its local volume, and fails where its schedule covers a part."""

from contextlib import suppress

from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import is_inside, volume_root
from lium_mcp.services.pods.idle_removals import IdleState, idle_states

_THEN = "backup_and_remove"


async def undone_by(account: Account, pod: Pod, path: str) -> list[str]:
    """Say which removals of a pod fail if its backups hold this path, as far as the ledger can be read."""
    if is_inside(volume_root(pod), path):
        return []
    return [
        f"{what} needs a backup of all of {pod.volume_root}, and fails with this path: the pod then stays, and bills."
        for what in await _removals(account, pod)
    ]


async def _removals(account: Account, pod: Pod) -> list[str]:
    idle = (await idle_states(account)).get(pod.id, IdleState()).removal
    found = ["Its removal when idle"] if idle and idle.final_backup else []
    with suppress(LedgerUnavailable):
        jobs = [task for task in await account.rents.tasks("follow_up") if task.subject == pod.id]
        found += [
            f"{_THEN} after job {job.name}"
            for job in jobs
            if job.closed_at is None and job.payload.get("then") == _THEN
        ]
        runs = [task for task in await account.rents.tasks("job_run") if task.progress.get("pod_id") == pod.id]
        found += [
            f"{_THEN} of run {run.name}"
            for run in runs
            if run.closed_at is None and run.payload["order"]["then"] == _THEN
        ]
    return found
