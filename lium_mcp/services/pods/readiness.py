"""Whether somebody can log in to a pod that runs according to Lium: does its SSH server answer this machine?"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from lium_mcp.api.errors import Contradicted, NotFound
from lium_mcp.api.pods.models import Pod, PodDetail
from lium_mcp.failures import Failure
from lium_mcp.remote.banner import SshAnswer, read_banner
from lium_mcp.remote.ssh_addresses import address_of
from lium_mcp.services.accounts import Account
from lium_mcp.services.polling import Poller
from lium_mcp.services.removed_pods import is_kept_by_record

_EVERY_SECONDS: Final = 4.0
# A port is opened a moment after the pod runs. One that stays shut may be shut by this machine's network.
_REFUSED_SECONDS: Final = 20.0
_STARTS_WITHIN: Final = timedelta(minutes=15)

_WHAT_TO_DO: Final = (
    "If that lasts: get_pod_logs shows what its main process does. A container that restarted by itself has no SSH if "
    "its image brings no server of its own; reboot_pod starts it anew with one, but what lies outside the local volume "
    "is lost."
)
_SAID: Final[dict[SshAnswer, str]] = {
    "silent": "It runs and bills, but its SSH port says nothing yet: call get_pod with this pod_id to wait on.",
    "refused": "It runs, but its SSH port refuses connections, as far as this machine can see: no SSH was seen yet.",
    "unreachable": "It runs; whether it answers SSH could not be checked, since this machine got no connection to it.",
}


async def read_pod(account: Account, pod_id: str) -> PodDetail | None:
    """The pod as it is now; None when the API knows no such pod, and its record does not say that it is not removed.

    Raises:
        Contradicted: the record says so; the pod may bill.
        LiumError: the pod cannot be read.
    """
    access = account.pod_access
    try:
        pod = await account.lium.pods.get(pod_id)
    except NotFound as error:
        if await is_kept_by_record(account, pod_id):
            raise Contradicted(
                f"Lium shows no pod {pod_id}, but its record of it says that it is not removed: it may bill.",
                request_id=error.request_id,
            ) from error
        if access is not None:
            await access.gone(pod_id)
        return None
    if access is not None:
        await access.note(pod)
    return pod


async def wait_for_ssh(
    account: Account,
    poller: Poller,
    pod: PodDetail,
    *,
    wait_seconds: float,
    is_starting: bool = True,
    is_unfit: Callable[[Pod], bool] = lambda _: False,
) -> tuple[PodDetail | None, SshAnswer | None]:
    """Wait until the SSH server of a pod that runs answers; only look where it has had its time to start.

    A pod that turns out unfit is not waited for.

    Returns:
        The pod as it was last read, None where it is gone; and what came of the last look, None where nobody looked:
        for callers elsewhere, and where the pod names no address that could be anybody's.
    """
    if account.ssh_keys is None:  # what this machine reaches says nothing of what the caller's reaches
        return pod, None
    if account.pod_access is not None and account.pod_access.is_connected(pod.id):
        return pod, "answers"
    clock = poller.clock
    started = clock.monotonic()
    unreachable = 0

    async def look(pod: PodDetail | None) -> tuple[PodDetail | None, SshAnswer | None]:
        nonlocal unreachable
        answer: SshAnswer | None = None
        if pod is not None and pod.is_ready:
            with suppress(Failure):
                answer = await read_banner(address_of(pod).target)
        unreachable += answer == "unreachable"
        return pod, answer

    def is_over(seen: tuple[PodDetail | None, SshAnswer | None]) -> bool:
        if seen[0] is not None and is_unfit(seen[0]):
            return True
        match seen[1]:
            case "silent":
                return not is_starting
            case "refused":
                return not is_starting or clock.monotonic() - started >= _REFUSED_SECONDS
            case "unreachable":
                return not is_starting or unreachable > 1
        return True

    async def read() -> tuple[PodDetail | None, SshAnswer | None]:
        return await look(await read_pod(account, pod.id))

    return await poller.until(
        await look(pod),
        read,
        is_over,
        wait_seconds=wait_seconds,
        describe=lambda _: f"{pod.pod_name} runs; its SSH server does not answer yet",
        every_seconds=_EVERY_SECONDS,
    )


def may_be_starting(account: Account, pod: Pod) -> bool:
    """Whether a pod may still be on its way to an SSH server that answers."""
    return not pod.is_ready or pod.created_at is None or account.lium.now() - pod.created_at < _STARTS_WITHIN


def describe_ssh(answer: SshAnswer | None) -> str | None:
    """What to know and do where no SSH was seen; None where there is nothing to say."""
    return f"{_SAID[answer]} {_WHAT_TO_DO}" if answer in _SAID else None
