"""Removing pods, and telling when they are gone."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import BadRequest, Conflict, Contradicted, LiumError, NotFound
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.results import state_in_words
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import letting_nothing_begin
from lium_mcp.services.pods.readiness import read_pod
from lium_mcp.services.removed_pods import read_record

MISSING_FOR: Final = timedelta(seconds=60)
"""After this, a second answer that there is no such pod is believed: the first may be an accident."""
_LOOK_SECONDS: Final = 10.0


async def start_removal(account: Account, target: Pod) -> bool:
    """Order the removal of a pod, unless that is under way already. The pod's name is free once it is gone.

    Returns:
        False where Lium says that it has no such pod, or none for this key.

    Raises:
        Failure: Lium refuses to remove it now.
        LiumError: the order failed, or what became of it is not known.
    """
    if target.is_being_removed:
        accepted = True
    else:
        async with letting_nothing_begin(account, target.id):
            accepted = await _order_removal(account, target)
    await account.rents.note_removal(target.id)
    return accepted


async def _order_removal(account: Account, target: Pod) -> bool:
    try:
        await account.lium.pods.remove(target.id)
    except NotFound:
        return False
    except (BadRequest, Conflict) as error:
        starting = (
            "A pod that is still starting can be removed once it runs: wait with get_pod, then call remove_pod again; "
            "or call schedule_pod_removal now."
        )
        raise Failure(
            "removal_refused",
            f"Lium refused to remove {target.pod_name} ({target.id}), which is {state_in_words(target.status)}: "
            f"{error}.",
            error.advice if target.runs else starting,
            effect="The pod is still there.",
            request_id=error.request_id,
        ) from error
    except LiumError as error:
        came = False
        if error.effect == "unknown":
            with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
                pod = await read_pod(account, target.id)
                came = pod is None or not pod.is_alive
        if not came:
            raise
    return True


async def is_gone(account: Account, pod_id: str) -> bool:
    """Whether Lium says of the pod itself that it is gone: a list may lack it before, while it may bill."""
    try:
        pod = await read_pod(account, pod_id)
    except Contradicted:
        return False
    return pod is None or pod.is_removed


async def read_end(account: Account, target: Pod) -> tuple[bool | None, float | None]:
    """Whether Lium's record says that a pod is gone, and what it was charged; None where Lium does not say it yet."""
    # The removal is what matters; get_spending has the figure later.
    record = await read_record(account, target.id)
    if record is None:
        return None, None
    return record.removed, record.total or (record.total if target.has_not_started else None)
