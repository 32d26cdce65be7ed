"""What one server needs to work on pods: keys, pins, a pool of connections, local folders. Costs nothing until used."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from lium_mcp.api import Pod
from lium_mcp.remote.addresses import address_of
from lium_mcp.remote.follow_ups import FollowUps
from lium_mcp.remote.host_keys import HostKeys
from lium_mcp.remote.keys import KeySource
from lium_mcp.remote.local_files import LocalFolders

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection, Connections


class PodAccess:
    """Access to the pods of the account that this machine's key logs in to.

    Args:
        keys: Where the private key is.
        state_directory: Where host keys and follow-ups are kept; None keeps them in memory.
        local_folders: Folders whose files may be read and written; None where the caller is elsewhere.
    """

    def __init__(self, keys: KeySource, state_directory: Path | None, local_folders: LocalFolders | None) -> None:
        self.keys = keys
        self.local_folders = local_folders
        self.follow_ups = FollowUps(state_directory / "follow-ups" if state_directory else None)
        self._host_keys = HostKeys(state_directory / "host-keys" if state_directory else None)
        self._connections: Connections | None = None

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

    async def replaced(self, pod_id: str) -> None:
        """Note that the platform replaces or removes a pod's container, and with it the host key."""
        await anyio.to_thread.run_sync(self._host_keys.forget, pod_id)
        if self._connections is not None:
            await self._connections.drop(pod_id)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()
