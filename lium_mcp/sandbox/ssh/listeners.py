"""A listening socket for each running pod, on the event loop that first sees it run.

Pods change when the world catches up, so sockets are opened and closed then. While any is open, a task of the same
event loop lets the world catch up whenever something falls due, so that sessions go on and end. A loop that ends
cancels its tasks and so closes every socket; the next loop opens others.
"""

import asyncio
import importlib
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

from lium_mcp.sandbox.container.containers import Container, Containers
from lium_mcp.sandbox.records import StoredPod
from lium_mcp.sandbox.world import World

ADDRESS: Final = "127.0.0.1"
BACKLOG: Final = 16
MOST_CONNECTIONS: Final = 32
LONGEST_WAIT_SECONDS: Final = 60.0
SHORTEST_WAIT_SECONDS: Final = 0.02


class _SshServerModule(Protocol):
    """The module that imports asyncssh."""

    async def serve_connection(self, world: World, container: Container, sock: socket.socket) -> None: ...


class _TaskOwner(Protocol):
    """Whoever has a task that must end with its event loop."""

    task: asyncio.Task[None]


TaskOwner = TypeVar("TaskOwner", bound=_TaskOwner)


class SshPods:
    """Opens and closes the listeners; a watcher of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._containers = world.contents = Containers(world)
        self._listeners: dict[str, _Listener] = {}
        self._pulses: dict[asyncio.AbstractEventLoop, _Pulse] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        world.watchers.append(self)
        world.clock.watchers.append(self.due_changed)

    def due_changed(self) -> None:
        """Let the pulses find out again how long to wait. Any thread may call this."""
        for pulse in list(self._pulses.values()):
            pulse.wake()

    def caught_up(self) -> None:
        """Bring the listeners in line with the pods."""
        world, ended = self._world, dict[str, _Listener]()
        for pod_id, listener in list(self._listeners.items()):
            if not listener.is_wanted or world.is_closing:
                listener.close()
                ended[pod_id] = self._listeners.pop(pod_id)
        self._containers.tidy()
        for pod_id in [pod_id for pod_id in world.ssh_ports if world.pods[pod_id].removed_at is not None]:
            del world.ssh_ports[pod_id]
        loop = _running_loop()
        if loop is None or world.is_closing:
            return
        for pod in world.pods.values():
            if pod.status == "RUNNING" and pod.id not in self._listeners:
                self._open(pod, loop, ended.get(pod.id))

    def _open(self, pod: StoredPod, loop: asyncio.AbstractEventLoop, before: "_Listener | None") -> None:
        world = self._world
        container = self._containers.of(pod)
        # A pod keeps its port, even if it has rebooted in one turn of the clock while the old socket is still open.
        sock = (before and before.copy_socket()) or _listen(world.ssh_ports.get(pod.id, 0))
        if container is None or sock is None:
            return
        world.ssh_ports[pod.id] = sock.getsockname()[1]
        self._listeners[pod.id] = self._kept(_Listener(world, container, sock, loop))
        if loop not in self._pulses:
            pulse = self._pulses[loop] = self._kept(_Pulse(world, loop, lambda: self._is_used(loop)))
            pulse.task.add_done_callback(lambda _: self._forget(loop, pulse))

    def _kept(self, owner: TaskOwner) -> TaskOwner:
        self._tasks.add(owner.task)
        owner.task.add_done_callback(self._tasks.discard)
        return owner

    def _forget(self, loop: asyncio.AbstractEventLoop, pulse: "_Pulse") -> None:
        if self._pulses.get(loop) is pulse:
            del self._pulses[loop]

    def _is_used(self, loop: asyncio.AbstractEventLoop) -> bool:
        used = any(listener.loop is loop and listener.is_open for listener in self._listeners.values())
        if not used:
            self._pulses.pop(loop, None)
        return used

    def close(self) -> None:
        """Close all listeners and end their connections. Any thread may call this."""
        with self._world.lock:
            for listener in self._listeners.values():
                listener.close()
        self.due_changed()

    async def wait_closed(self) -> None:
        """Wait for what this event loop has still to close."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        await asyncio.gather(*tasks, return_exceptions=True)


class _Listener:
    """One listening socket and its connections."""

    def __init__(
        self, world: World, container: Container, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self._world, self._container, self._socket = world, container, sock
        self._connections: set[asyncio.Task[None]] = set()
        self.task = loop.create_task(self._serve(sock))
        # The task may be cancelled before it begins.
        self.task.add_done_callback(partial(_close, sock))

    @property
    def is_open(self) -> bool:
        """Whether anybody can connect."""
        return not self.task.done() and not self.loop.is_closed()

    @property
    def is_wanted(self) -> bool:
        """Whether the pod still runs this listener's container, and the listener is open."""
        return self._container.is_up and self.is_open

    def copy_socket(self) -> socket.socket | None:
        """Return another handle of the socket, for the pod's next listener; None if it is closed."""
        with suppress(OSError):
            return self._socket.dup()
        return None

    def close(self) -> None:
        """Stop listening and drop all connections."""
        if self.loop is _running_loop():
            self.task.cancel()
        else:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.task.cancel)

    async def _serve(self, sock: socket.socket) -> None:
        try:
            # The import takes a quarter of a second, for which nobody else on the loop should wait.
            server: _SshServerModule = await asyncio.to_thread(
                importlib.import_module, "lium_mcp.sandbox.ssh.ssh_server"
            )
            while True:
                connected, _ = await self.loop.sock_accept(sock)
                if len(self._connections) >= MOST_CONNECTIONS:
                    connected.close()
                    continue
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                task = self.loop.create_task(server.serve_connection(self._world, self._container, connected))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)
                # A task may be cancelled before it begins.
                task.add_done_callback(partial(_close, connected))
        finally:
            sock.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)


class _Pulse:
    """Lets the world catch up when something is due, while somebody listens on this loop."""

    def __init__(self, world: World, loop: asyncio.AbstractEventLoop, is_used: Callable[[], bool]) -> None:
        self._world, self._loop, self._is_used = world, loop, is_used
        self._woken = asyncio.Event()
        self.task = loop.create_task(self._beat())

    def wake(self) -> None:
        """Look again now. Any thread may call this."""
        # The loop may have ended.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken.set)

    async def _beat(self) -> None:
        world = self._world
        while True:
            self._woken.clear()
            with world.lock:
                world.catch_up()
                due, speed = world.next_due, world.clock.speed
                is_over = not self._is_used()
            if is_over:
                return
            wait = LONGEST_WAIT_SECONDS
            if due is not None and speed > 0:
                wait = min(wait, max(SHORTEST_WAIT_SECONDS, (due - world.clock.now()).total_seconds() / speed))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), None if speed == 0 else wait)


def _close(sock: socket.socket, _: object) -> None:
    sock.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _listen(port: int) -> socket.socket | None:
    """Listen at a port, or at any other if that one is taken; None where this machine has none left."""
    for wanted in dict.fromkeys((port, 0)):
        with suppress(OSError):
            sock = socket.create_server((ADDRESS, wanted), backlog=BACKLOG)
            sock.setblocking(False)
            return sock
    return None
