"""One SSH connection to a pod, as all its sessions share it."""

import asyncssh

from lium_mcp.sandbox.container.containers import Container
from lium_mcp.sandbox.world import World


class PodLine:
    """A connection's container, and how much it may still carry."""

    def __init__(self, world: World, container: Container) -> None:
        self.world = world
        self.container = container
        self.connection: asyncssh.SSHServerConnection | None = None
        self._bytes_left: int | None = None

    def begin(self) -> None:
        """Note that a session begins; a fault that drops connections strikes here."""
        facts = {"pod_id": self.container.pod.id, "pod_name": self.container.pod.name}
        with self.world.lock:
            fault = self.world.faults.strike("ssh_drops", **facts)
        if fault is not None:
            self._bytes_left = fault.bytes if "bytes" in fault.model_fields_set else 0

    def carry(self, size: int) -> None:
        """Count what goes over the line; drop it when the fault says so.

        Raises:
            ConnectionResetError: the line was dropped.
        """
        if self._bytes_left is None:
            return
        self._bytes_left -= size
        if self._bytes_left <= 0:
            if self.connection is not None:
                self.connection.abort()
            raise ConnectionResetError
