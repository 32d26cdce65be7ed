"""The pods of an account, and the rents of which nobody knows yet what became of them."""

import logging
from collections.abc import Sequence

from lium_mcp.api.pods.models import Pod
from lium_mcp.rentals import REPLAY_WINDOW, Entry, LedgerUnavailable, unlisted_pod_ids
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account

log = logging.getLogger(__name__)


class UnsettledRent(Result):
    """A rent of which nobody knows yet whether it made a pod, or whose pod has to go."""

    name: str
    since: UtcTime
    status: str
    next: str


async def list_with_rents(account: Account, read_only: bool) -> tuple[Sequence[Pod], list[UnsettledRent]]:
    """Settle the rents that an earlier call or process left open, and return the pods and the rents still unsettled.

    A server that only reads settles none.
    """
    try:
        if read_only:
            pods, (entries, _) = await account.lium.pods.list(), await account.renter.standing()
        else:
            pods, entries = await account.renter.look()
    except LedgerUnavailable as error:
        log.warning("The ledger of rents cannot be read: %s", error)
        return await account.lium.pods.list(), []
    return pods, [row for entry in entries if (row := _unsettled(account, entry, pods)) is not None]


def _unsettled(account: Account, entry: Entry, pods: Sequence[Pod]) -> UnsettledRent | None:
    status: str = entry.status
    if entry.status == "removing":
        advice = f"Its pod must go ({entry.note}): remove_pod if it stays."
    elif not entry.is_unsettled:
        unlisted = unlisted_pod_ids(entry, pods)
        if not unlisted:
            return None
        status = "not_listed"
        advice = f"Lium does not list its pod {unlisted[0]} now, nor say that it is gone: it may bill. Call get_pod."
    elif account.lium.now() - entry.created_at < REPLAY_WINDOW:
        advice = "It may have made a pod that bills. Call list_pods again in a minute; nothing is rented until then."
    else:
        advice = (
            "Lium no longer tells what became of it. A person has to look at lium.io whether such a pod was made and "
            "billed, and then close it with: lium-mcp rentals close"
        )
    return UnsettledRent(name=entry.pod_name, since=entry.created_at, status=status, next=advice)
