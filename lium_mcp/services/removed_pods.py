"""Which pods were removed, as far as the ledger or Lium knows: a caller may name one that is gone."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import PodRecord
from lium_mcp.failures import Failure
from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.services.accounts import Account

# As long as the ledger keeps what is closed.
_LOOKED_BACK: Final = timedelta(days=90)
# It only says more of a failure, which must not take long.
_LONGEST_SECONDS: Final = 10.0
_MOST_NAMED: Final = 5
_BY_ITS_ID: Final = "What is left of a removed pod is read by its id: get_pod, list_backups, list_restores."


@dataclass(frozen=True, slots=True)
class RemovedPod:
    """A pod that is gone, and since when, if that is known."""

    pod_id: str
    name: str
    removed_at: datetime | None = None

    def __str__(self) -> str:
        since = f", removed by {self.removed_at:%Y-%m-%dT%H:%M:%SZ}" if self.removed_at else ", removed"
        return f"{self.pod_id}{since}"


class PodRemoved(Failure):
    """No pod is there by this name or id; there were some, newest first, which are removed."""

    def __init__(self, named: str, pods: Sequence[RemovedPod], advice: str) -> None:
        if len(pods) == 1:
            happened = f"No pod of yours is {pods[0].name or named} any more: it was {pods[0]}."
        else:
            shown = "; ".join(map(str, pods[:_MOST_NAMED]))
            happened = f"No pod of yours is named {named} any more. {len(pods)} had that name, the last ones: {shown}."
        super().__init__("pod_not_found", happened, f"{_BY_ITS_ID} {advice}")
        self.pods = pods


async def find_removed(account: Account, name: str) -> list[RemovedPod]:
    """The removed pods that had a name, newest first; none where nobody knows any."""
    found: dict[str, RemovedPod] = {}
    with suppress(LedgerUnavailable):
        for entry in await account.rents.removed(name):
            found |= {pod_id: RemovedPod(pod_id, name, entry.closed_at) for pod_id in entry.pod_ids}
    now = account.lium.now()
    with anyio.move_on_after(_LONGEST_SECONDS), suppress(LiumError):
        first, last = (now - _LOOKED_BACK).date(), now.date()
        for row in (await account.lium.account.billing_statement(start_day=first, end_day=last)).pods:
            if row.pod_name == name and row.is_removed:
                seen_at = found[row.pod_id].removed_at if row.pod_id in found else None
                found[row.pod_id] = RemovedPod(row.pod_id, name, row.removed_at or seen_at)
    return sorted(found.values(), key=lambda pod: pod.removed_at.timestamp() if pod.removed_at else 0.0, reverse=True)


async def find_removed_by_id(account: Account, pod_id: str) -> RemovedPod | None:
    """The removed pod with an id; None where Lium does not say that it was one."""
    record = await read_record(account, pod_id)
    return RemovedPod(pod_id, record.pod_name or "", record.removed_at) if record and record.removed else None


async def read_record(account: Account, pod_id: str) -> PodRecord | None:
    """What Lium keeps of a pod, also of a removed one; None where it keeps nothing yet, or that cannot be read."""
    with anyio.move_on_after(_LONGEST_SECONDS), suppress(LiumError):
        if await account.lium.supports("run_record"):
            return await account.lium.pods.record(pod_id)
    return None


async def is_kept_by_record(account: Account, pod_id: str) -> bool:
    """Whether Lium's record of a pod says that it is not removed: then an answer that there is none is no proof."""
    record = await read_record(account, pod_id)
    return record is not None and record.removed is False
