"""What one server needs to work on pods: keys, pins, a pool of connections, local folders. Costs nothing until used."""

import math
import os
import re
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError
from lium_mcp.api.pods.models import Pod, PodEvent
from lium_mcp.remote.host_keys import CLOCKS_DIFFER_SECONDS, HostKeys, Pin
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.local_files import LocalFolders
from lium_mcp.remote.ssh_addresses import Address, address_of

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection, Connections

_TRY_AGAIN_SECONDS: Final = 120.0
_EVENTS_SECONDS: Final = 10.0
_GONE: Final = frozenset({"DELETING", "DELETED", "REMOVED", "TERMINATED"})
_REPLACING: Final = "REBOOT_PENDING"
# The events by which Lium says that a pod has a new container. A restart of the same container is none of them.
_REPLACED: Final = re.compile(r"pod-(reboot|edit|switch-template)\.success")


class PodAccess:
    """Access to the account's pods, with this machine's key.

    Args:
        keys: Where the private key is.
        state_directory: Where host keys are kept; None keeps them in memory.
        local_folders: Folders whose files may be read and written; None where the caller is elsewhere.
        lium: Tells what became of a pod that shows another host key than before; None where nobody can tell.
    """

    def __init__(
        self,
        keys: KeySource,
        state_directory: Path | None,
        local_folders: LocalFolders | None,
        lium: LiumClient | None = None,
    ) -> None:
        self.keys = keys
        self.local_folders = local_folders
        self._lium = lium
        self._state_directory = state_directory
        self._host_keys = HostKeys(state_directory / "host-keys" if state_directory else None)
        self._connections: Connections | None = None
        self._failed_at: dict[str, float] = {}
        self._at_work: Counter[str] = Counter()

    @asynccontextmanager
    async def to(self, pod: Pod) -> AsyncIterator["Connection"]:
        """A connection to a running pod, which stays open for a while.

        Raises:
            Failure: the pod does not run, cannot be reached, refuses the key, or shows another host key.
        """
        await self.note(pod)
        address = address_of(pod)
        if self._connections is None:
            from lium_mcp.remote.connections import Connections  # noqa: PLC0415 - see the package's docstring

            self._connections = Connections(self.keys, self._host_keys, self._is_replaced, self._now)
        async with self._connections.to(address) as connection:
            yield connection

    @asynccontextmanager
    async def work_on(self, pod: Pod) -> AsyncIterator["Connection"]:
        """The same, for what somebody waits for: until it is done, the pod counts as at work.

        Raises:
            Failure: as `to`.
        """
        self._at_work[pod.id] += 1
        try:
            async with self.to(pod) as connection:
                yield connection
        finally:
            self._at_work[pod.id] -= 1

    def is_at_work(self, pod_id: str) -> bool:
        """Whether somebody waits for what this server does in a pod now."""
        return self._at_work[pod_id] > 0

    def is_connected(self, pod_id: str) -> bool:
        """Whether there is a connection to a pod already, as far as is known."""
        return self._connections is not None and self._connections.has(pod_id)

    def is_promising(self, pod_id: str) -> bool:
        """Whether it is worth connecting for what can be done without: not if that failed a moment ago."""
        failed_at = self._failed_at.get(pod_id)
        return failed_at is None or time.monotonic() - failed_at > _TRY_AGAIN_SECONDS

    def note_failure(self, pod_id: str) -> None:
        """Note that connecting failed, or took too long."""
        self._failed_at[pod_id] = time.monotonic()

    async def note(self, pod: Pod) -> None:
        """Act on what a pod's row shows: that Lium replaces its container, or removes or has removed the pod."""
        if pod.state in _GONE:
            await self.gone(pod.id)
        if pod.state != _REPLACING:
            return
        await self.drop(pod.id)
        now = self._now()

        def write() -> None:
            with suppress(OSError):
                if pin := self._host_keys.read(pod.id):
                    self._host_keys.note(pod.id, pin, replace(pin, replaced_at=now))

        await anyio.to_thread.run_sync(write)

    async def drop(self, pod_id: str) -> None:
        """Close the connection to a pod whose container may be about to end. Its host key stays pinned."""
        self._failed_at.pop(pod_id, None)
        if self._connections is not None:
            await self._connections.drop(pod_id)

    async def machine(self) -> str:
        """A name for the machine whose files and key these are, which another one does not have."""
        path = self._state_directory / "machine" if self._state_directory else None
        return socket.gethostname() if path is None else await anyio.to_thread.run_sync(_named_in, path)

    async def gone(self, pod_id: str) -> None:
        """Forget a pod that is gone for good, by Lium's word."""
        await self.drop(pod_id)
        await anyio.to_thread.run_sync(self._host_keys.forget, pod_id)

    def _now(self) -> float:
        return self._lium.now().timestamp() if self._lium is not None else time.time()

    async def _is_replaced(self, address: Address, pin: Pin) -> bool:
        """Whether the container that showed a pinned key is known to be gone, so that another key is to be expected."""
        if address.template_id and pin.template_id and address.template_id != pin.template_id:
            return True
        events: Sequence[PodEvent] = ()
        if self._lium is not None:
            with suppress(LiumError), anyio.move_on_after(_EVENTS_SECONDS):
                events = await self._lium.pods.events(address.pod_id)
        ran_at = [at for event in events if event.state == "RUNNING" and (at := _at(event)) is not None]

        def ran_again(after: float) -> float:
            return min((at for at in ran_at if at >= after), default=math.inf)

        # One clock tells the times of all events, and ours when a state was seen.
        told = [
            (at, at, event.state == _REPLACING) for event in events if (at := _at(event)) and _tells_of_another(event)
        ]
        if (seen := pin.replaced_at) is not None:
            told.append((seen, seen - CLOCKS_DIFFER_SECONDS, False))
        return any(pin.is_outlived_by(at, ran_again(after), had_begun=begun) for at, after, begun in told)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()


def _named_in(path: Path) -> str:
    """The name that a file holds, which is made where there is none."""
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{uuid4()}")
        new.write_text(str(uuid4()))
        try:
            os.link(new, path)  # whole or not at all, and only where nobody was faster
        finally:
            new.unlink()
    return path.read_text().strip()


def _tells_of_another(event: PodEvent) -> bool:
    """Whether an event says that a container is replaced by another."""
    says_so = any(_REPLACED.fullmatch(kind) for kind in (event.sub_event_type or "", event.event_type))
    was_replaced = event.state == "RUNNING" and (event.from_status or "").strip().upper() == _REPLACING
    return not event.error and (says_so or event.state == _REPLACING or was_replaced)


def _at(event: PodEvent) -> float | None:
    return None if event.created_at is None else event.created_at.timestamp()
