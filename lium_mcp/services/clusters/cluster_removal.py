"""Removes all pods of a cluster, and says of each what became of it."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

import anyio

from lium_mcp.api.errors import Conflict, LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.results import Result, note_on
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.at_work import letting_nothing_begin
from lium_mcp.services.pods.pod_details import Outcome
from lium_mcp.services.pods.removing import is_gone
from lium_mcp.services.polling import Poller

_LIST_SECONDS: Final = 8.0


class ClusterMember(Result):
    """What became of one pod of a cluster."""

    pod_id: str
    rank: int | None = None
    outcome: Outcome
    message: str | None = None


class RemovedCluster(Result):
    """What a removal came to, pod by pod."""

    outcome: Outcome
    members: list[ClusterMember]
    note: str | None = None
    next: str | None = None


async def find_members(account: Account, cluster_id: str) -> list[Pod]:
    """The pods that Lium lists of a cluster, within a few seconds; none where it does not say."""
    # The answer of the removal names the members, too; and no host waits for both as long as each may take.
    with suppress(LiumError), anyio.move_on_after(_LIST_SECONDS):
        return [pod for pod in await account.lium.pods.list() if pod.cluster_id == cluster_id]
    return []


async def remove_members(
    account: Account, poller: Poller, cluster_id: str, listed: Sequence[Pod], wait_seconds: float
) -> RemovedCluster:
    """Remove every pod of a cluster, and wait until those are gone whose removal Lium has accepted.

    Args:
        account: Whose cluster it is.
        poller: What waits.
        cluster_id: The cluster.
        listed: Its pods, as far as Lium lists them: nothing begins in them meanwhile.
        wait_seconds: How long to wait.

    Raises:
        Failure: Lium refuses to remove the cluster now.
        LiumError: the order failed, or what became of it is not known.
    """
    try:
        async with AsyncExitStack() as stack:
            for pod in listed:
                await stack.enter_async_context(letting_nothing_begin(account, pod.id))
            answer = await account.lium.clusters.remove(cluster_id)
    except Conflict as error:
        raise Failure(
            "removal_refused",
            f"Lium refused to remove the cluster: {error}.",
            "A member is still starting: call list_pods until all run, then remove_cluster again.",
            request_id=error.request_id,
        ) from error
    going = [row.pod_id for row in answer.pods if row.success]
    for pod_id in going:
        await account.rents.note_removal(pod_id)
    left = await _wait_until_gone(account, poller, going, wait_seconds)
    members = [
        ClusterMember(
            pod_id=row.pod_id,
            rank=row.cluster_node_index,
            outcome="failed"
            if row.success is False
            else "pending"
            if row.pod_id in left or not row.success
            else "done",
            message=row.message,
        )
        for row in answer.pods
    ]
    named = {member.pod_id for member in members}
    members += [ClusterMember(pod_id=pod.id, outcome="pending") for pod in listed if pod.id not in named]
    if not members:
        return RemovedCluster(
            outcome="pending", members=[], next="Lium named no members: call list_pods to see whether any is left."
        )
    outcomes = [member.outcome for member in members]
    failed, untold = outcomes.count("failed"), outcomes.count("pending") - len(left)
    advice = (
        f"{failed} members still bill: call remove_cluster again." if failed else "",
        f"Lium does not say of {untold} whether it removed them: call list_pods to see which are left."
        if untold
        else "",
        f"{len(left)} are being removed and may still bill: get_pod with their pod_id shows their end." if left else "",
    )
    return RemovedCluster(
        outcome="failed" if failed else "pending" if untold or left else "done",
        members=members,
        note=note_on(*(member.message for member in members)),
        next=" ".join(filter(None, advice)) or None,
    )


async def _wait_until_gone(
    account: Account, poller: Poller, going: Sequence[str], wait_seconds: float
) -> Sequence[str]:
    """Wait for the end of pods whose removal Lium has accepted; those that are left when the time is over."""
    left = list(going)

    async def read() -> int:
        for pod_id in tuple(left):
            if await is_gone(account, pod_id):
                left.remove(pod_id)
                await account.rents.note_gone(pod_id)
        return len(left)

    await poller.until(
        len(left),
        read,
        lambda count: not count,
        wait_seconds=wait_seconds,
        describe=lambda count: f"{count} members are being removed",
    )
    return left
