"""The last backup before a removal: taken, waited for until it is really complete, and only then is a pod let go.

A backup that takes longer than one call may wait is remembered, so that the next call goes on with it instead of
starting over; not for long, since what is written to the pod later is not in it.
"""

from typing import Final

from lium_mcp.api import Backup, LiumError, Pod
from lium_mcp.tools.backup_runs import start_backup, wait_for_backup
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure, from_api

_FRESH_SECONDS: Final = 1800.0


async def take_final_backup(call: Call, pod: Pod, *, wait_seconds: float) -> Backup:
    """Take a last backup of a pod, or go on with the one that an earlier call began.

    Returns:
        The backup, completed or still running.

    Raises:
        ToolFailure: there is no complete backup; the pod was not touched.
    """
    memory = call.runtime.final_backups
    now = call.runtime.clock.monotonic()
    backup_id, begun = memory.get(pod.id, (None, now))
    try:
        if backup_id is None or now - begun > _FRESH_SECONDS:
            backup_id = await begin_final_backup(call, pod, wait_seconds=wait_seconds)
            memory[pod.id] = (backup_id, now)
        backup = await wait_for_backup(call, await call.lium.backups.get(backup_id), wait_seconds=wait_seconds)
    except LiumError as error:
        said = from_api(error)
        raise ToolFailure(said.code, said.happened, _ADVICE, effect=_stays(pod), request_id=error.request_id) from error
    except ToolFailure as failure:
        if failure.effect != _stays(pod):
            failure.effect = f"{_stays(pod)} {failure.effect}"
        raise
    if backup.is_final and not backup.is_completed:
        memory.pop(pod.id, None)
        reason = f": {backup.error_message[:300]}" if backup.error_message else ""
        raise ToolFailure("final_backup_failed", f"The backup is {backup.state}{reason}.", _ADVICE, effect=_stays(pod))
    return backup


def describe_pending(pod: Pod) -> str:
    """Say what a removal waits for, and what that costs."""
    return f"The backup is still running. {_stays(pod)} Call remove_pod with final_backup again to wait on."


_ADVICE: Final = (
    "Try again, look at get_backup_schedule and list_backups, or call remove_pod without final_backup to lose the data."
)


async def begin_final_backup(call: Call, pod: Pod, *, wait_seconds: float) -> str:
    """Begin a backup that holds all that is written by now; return its id.

    Raises:
        ToolFailure: another one is still running, or none could be begun.
        LiumError: Lium refused.
    """
    started = await start_backup(call, pod, name="final")
    if started.joined:
        # It began before this call and may miss what was written since: let it end, then take one of our own.
        await wait_for_backup(call, await call.lium.backups.get(started.backup_id), wait_seconds=wait_seconds)
        started = await start_backup(call, pod, name="final")
    if started.joined:
        raise ToolFailure(
            "backup_running",
            f"Another backup of {pod.pod_name} is still running.",
            "Call get_backup to wait for it, then remove_pod with final_backup again.",
            effect=_stays(pod),
        )
    return started.backup_id


def _stays(pod: Pod) -> str:
    price = f" and bills ${pod.price:.2f} an hour" if pod.price is not None and pod.is_billing else ""
    return f"The pod was not removed{price}."
