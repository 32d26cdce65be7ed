"""The restore that a rent ordered with its pod: Lium begins it as the pod starts."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.restores import Restore
from lium_mcp.rentals import Entry
from lium_mcp.results import Result
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import plain_path
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.polling import Poller

_EVERY_SECONDS: Final = 4.0
_FIRST_READ_SECONDS: Final = 5.0


class StartupRestore(Result):
    """The restore of a backup into a pod that was rented with it."""

    outcome: Outcome
    restore_id: str | None = None
    path: str
    progress_percent: float | None = None
    partial: bool | None = None
    problem: str | None = None


def ordered_restore(entry: Entry) -> tuple[str, str] | None:
    """The backup that a rent ordered to be restored, and where to; None where it ordered none."""
    request = entry.order.get("request")
    fields = request if isinstance(request, dict) else {}
    backup_id, path = fields.get("backup_log_id"), fields.get("restore_path")
    return (backup_id, path) if isinstance(backup_id, str) and isinstance(path, str) else None


async def wait_for_restore(
    account: Account, poller: Poller, pod_id: str, ordered: tuple[str, str], *, wait_seconds: float
) -> StartupRestore:
    """Wait until the restore that a pod was rented with is over, or the time is, and say how it stands."""
    backup_id, path = ordered

    async def read() -> Restore | None:
        return _find(await account.lium.restores.list(pod_id), backup_id, path)

    first: Restore | None = None
    with suppress(LiumError), anyio.move_on_after(_FIRST_READ_SECONDS):
        first = await read()
    restore = await poller.until(
        first,
        read,
        lambda restore: restore is not None and restore.is_final,
        wait_seconds=wait_seconds,
        describe=lambda restore: f"The backup is being restored{_done(restore)}",
        every_seconds=_EVERY_SECONDS,
    )
    if restore is None:
        return StartupRestore(outcome="pending", path=path, problem="Lium does not list the restore yet.")
    done: Outcome = "done" if restore.is_completed else "failed"
    return StartupRestore(
        outcome=done if restore.is_final else "pending",
        restore_id=restore.id,
        path=restore.restore_path or path,
        progress_percent=None if restore.is_final else restore.progress,
        partial=restore.is_partial or None,
        problem=(restore.problem or "")[:300] or None,
    )


def what_to_do(restore: StartupRestore) -> str | None:
    """What to do about a restore of which not all is there; None where it is."""
    if restore.outcome == "pending":
        return (
            f"The pod runs and bills; its backup is being restored into {restore.path}: leave that alone, and call "
            "list_restores until it is over."
        )
    if restore.outcome == "failed":
        return (
            f"The pod runs and bills, but the restore into {restore.path} failed and may have left a part there. "
            "restore_backup with another path tries again; remove_pod ends the billing."
        )
    return None


def _find(restores: Iterable[Restore], backup_id: str, path: str) -> Restore | None:
    """The restore of a backup into a directory; Lium may not say of a restore which backup it is of, or where to."""
    of_backup = [one for one in restores if one.backup_id is None or one.backup_id.casefold() == backup_id.casefold()]
    there = [one for one in of_backup if one.restore_path is None or plain_path(one.restore_path) == path]
    return min(there, key=lambda one: (one.restore_path is None, one.backup_id is None), default=None)


def _done(restore: Restore | None) -> str:
    return f", {restore.progress:.0f} %" if restore is not None and restore.progress else ""
