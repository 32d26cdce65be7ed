"""What the tools that work on a pod share: the way in, failures in words, progress while something is under way."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import anyio

from lium_mcp.api import LiumError, Pod
from lium_mcp.failures import NOTHING_CHANGED, ToolFailure
from lium_mcp.remote import PodAccess, RemoteError
from lium_mcp.remote.gpus import Gpu, read_gpus
from lium_mcp.services.accounts import Account
from lium_mcp.services.polling import Poller

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

_PROGRESS_SECONDS: Final = 3.0
_GPU_SECONDS: Final = 6.0
_LOOK_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 5.0


def pod_access(account: Account) -> PodAccess:
    """The way into the pods of this call's account.

    Raises:
        MissingApiKey: the caller has no key, so no pods.
        ToolFailure: the caller is elsewhere, so their SSH key is not on this machine.
    """
    access = account.pod_access
    if access is None:
        account.lium.check_api_key()
        raise ToolFailure(
            "no_ssh_for_callers",
            "This server cannot log in to your pods: your SSH key is on your machine, and its own is not for you.",
            "Log in with the SSH command that get_pod shows, or run this server on your machine.",
        )
    return access


@asynccontextmanager
async def connected(account: Account, pod: Pod) -> AsyncIterator["Connection"]:
    """A connection to a running pod.

    Raises:
        ToolFailure: there is none, or what is done over it fails.
    """
    access = pod_access(account)
    try:
        async with access.to(pod) as connection:
            yield connection
    except RemoteError as error:
        raise from_remote(error) from error


def from_remote(error: RemoteError) -> ToolFailure:
    """Put a failure of work on a pod into the words of a tool."""
    return ToolFailure(error.code, error.happened, error.advice, effect=error.effect or NOTHING_CHANGED)


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
            # What is not seen now is still told by the pod's events later.
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

    failure: RemoteError | ToolFailure | LiumError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(report)
        try:
            yield
        except (RemoteError, ToolFailure, LiumError) as error:  # the group would wrap it
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def gpus_of(account: Account, pod: Pod) -> list[Gpu] | None:
    """What the GPUs of a pod do, where SSH works; a pod is worth showing without it."""
    access = account.pod_access
    if access is None or not access.is_promising(pod.id):
        return None
    try:
        with anyio.fail_after(_GPU_SECONDS):
            async with access.to(pod) as connection:
                return await read_gpus(connection, timeout_seconds=_GPU_SECONDS)
    except (RemoteError, TimeoutError):
        access.note_failure(pod.id)
        return None
