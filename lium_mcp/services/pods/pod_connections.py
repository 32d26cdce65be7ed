"""What all work inside a pod shares: the way in, new host keys after a restart, progress, and a look inside."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import VOLUME_PATH, Pod
from lium_mcp.failures import Failure
from lium_mcp.remote import PodAccess
from lium_mcp.remote.inside import Inside, look_inside
from lium_mcp.remote.jobs import refuse_taken
from lium_mcp.services.accounts import Account
from lium_mcp.services.polling import Poller

_PROGRESS_SECONDS: Final = 3.0
_INSIDE_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 5.0
_TAKEN_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0


def pod_access(account: Account) -> PodAccess:
    """The way into the pods of this call's account.

    Raises:
        MissingApiKey: the caller has no key, so no pods.
        Failure: the caller is elsewhere, so their SSH key is not on this machine.
    """
    access = account.pod_access
    if access is None:
        account.lium.check_api_key()
        raise Failure(
            "no_ssh_for_callers",
            "This server cannot log in to your pods: your SSH key is on your machine, and its own is not for you.",
            "Log in with the SSH command that get_pod shows, or run this server on your machine.",
        )
    return access


async def refuse_taken_job(account: Account, pod: Pod, name: str) -> None:
    """Refuse a job's name that its pod has already, before anybody is asked; where nobody can look, the start tells.

    Raises:
        Failure: it has.
    """
    with anyio.move_on_after(_TAKEN_SECONDS):
        try:
            async with pod_access(account).to(pod) as connection:
                await refuse_taken(connection, name)
        except Failure as failure:
            if failure.code == "job_exists":
                raise


@asynccontextmanager
async def replacing_container(account: Account, *pod_ids: str) -> AsyncIterator[None]:
    """Let go of pods if the body makes Lium replace their containers, and note what Lium then shows of them.

    A request alone proves nothing: their host keys stay pinned until Lium says that there is another container.
    """
    refused = False
    try:
        yield
    except LiumError as error:
        refused = error.effect != "unknown"
        raise
    finally:
        access = account.pod_access
        if access is not None and not refused:
            for pod_id in pod_ids:
                with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await access.drop(pod_id)
            # If this look sees no other container yet, the pod's events will tell of it later.
            with suppress(LiumError), anyio.move_on_after(_LOOK_SECONDS):
                for pod_id in pod_ids:
                    await access.note(await account.lium.pods.get(pod_id))


@asynccontextmanager
async def reporting(poller: Poller, total_seconds: float, describe: Callable[[], str]) -> AsyncIterator[None]:
    """Report progress while the body runs, so that a host sees that something is under way."""
    say = poller.report
    if say is None:
        yield
        return

    async def report() -> None:
        elapsed = 0.0
        while True:
            await anyio.sleep(_PROGRESS_SECONDS)
            elapsed += _PROGRESS_SECONDS
            await say(elapsed, total_seconds, describe())

    failure: Failure | LiumError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(report)
        try:
            yield
        except (Failure, LiumError) as error:  # the group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def inside_of(account: Account, pod: Pod) -> Inside | None:
    """What a pod's container says of itself; None where SSH does not work: a pod is worth showing without it."""
    access = account.pod_access
    if access is None or not access.is_promising(pod.id):
        return None
    try:
        with anyio.fail_after(_INSIDE_SECONDS):
            async with access.to(pod) as connection:
                return await look_inside(connection, timeout_seconds=_INSIDE_SECONDS)
    except (Failure, TimeoutError):
        access.note_failure(pod.id)
        return None


def is_volume_mounted(pod: Pod, inside: Inside | None) -> bool | None:
    """Whether an attached volume is there; None where nobody could look, or a mount says nothing of it."""
    is_mounted = inside.has_mounted(VOLUME_PATH) if inside else None
    # Where the local volume lies there, it may be that.
    return None if is_mounted and pod.volume_root.rstrip("/") == VOLUME_PATH else is_mounted
