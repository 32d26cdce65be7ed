"""What one server needs to work on pods: keys, pins, a pool of connections, local folders. Costs nothing until used."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio

from lium_mcp.api import Pod
from lium_mcp.remote.addresses import address_of
from lium_mcp.remote.host_keys import HostKeys
from lium_mcp.remote.keys import KeySource
from lium_mcp.remote.local_files import LocalFolders

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection, Connections

_TRY_AGAIN_SECONDS: Final = 120.0


class PodAccess:
    """Access to the pods of the account that this machine's key logs in to.

    Args:
        keys: Where the private key is.
        state_directory: Where host keys are kept; None keeps them in memory.
        local_folders: Folders whose files may be read and written; None where the caller is elsewhere.
    """

    def __init__(
        self,
        keys: KeySource,
        state_directory: Path | None,
        local_folders: LocalFolders | None,
    ) -> None:
        self.keys = keys
        self.local_folders = local_folders
        self._host_keys = HostKeys(state_directory / "host-keys" if state_directory else None)
        self._connections: Connections | None = None
        self._failed_at: dict[str, float] = {}

    @asynccontextmanager
    async def to(self, pod: Pod) -> AsyncIterator["Connection"]:
        """A connection to a running pod, which stays open for a while.

        Raises:
            RemoteError: the pod does not run, cannot be reached, refuses the key, or shows another host key.
        """
        address = address_of(pod)
        if self._connections is None:
            from lium_mcp.remote.connections import Connections  # noqa: PLC0415 - see the package's docstring

            self._connections = Connections(self.keys, self._host_keys)
        async with self._connections.to(address) as connection:
            yield connection

    def is_promising(self, pod_id: str) -> bool:
        """Whether it is worth trying to connect for what could be done without: not if that failed a moment ago."""
        failed_at = self._failed_at.get(pod_id)
        return failed_at is None or time.monotonic() - failed_at > _TRY_AGAIN_SECONDS

    def note_failure(self, pod_id: str) -> None:
        """Note that connecting failed, or took too long."""
        self._failed_at[pod_id] = time.monotonic()

    async def replaced(self, pod_id: str) -> None:
        """Note that the platform replaces or removes a pod's container, and with it the host key."""
        self._failed_at.pop(pod_id, None)
        await anyio.to_thread.run_sync(self._host_keys.forget, pod_id)
        if self._connections is not None:
            await self._connections.drop(pod_id)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()
