"""Processes of a container: coroutines that run until they wait, and go on when the world's time has come.

No event loop runs them. A process that sleeps is an entry of the world's event queue, so that jobs, removals and
backups happen in the order of their times however far the clock is turned at once.
"""

import errno
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol

from lium_mcp.sandbox.container.files import FileSystem, failure
from lium_mcp.sandbox.container.host import Host
from lium_mcp.sandbox.container.streams import Stream
from lium_mcp.sandbox.container.waiting import KILLED, Signalled, Waiting, pause

ABORTED: Final = 6
PROCESSES: Final = 64
STEPS: Final = 50_000
BYTES_PER_STEP: Final = 16 * 1024
LONGEST_SLEEP_SECONDS: Final = 10.0 * 365 * 86400

_log = logging.getLogger(__name__)


class Time(Protocol):
    """The world, as far as a process knows it."""

    now: datetime

    def at(self, due: datetime, action: Callable[[], None]) -> None:
        """Let something happen at a time."""


@dataclass
class CommandBudget:
    """How much a session or job, with all processes it starts, may still do, so that no command blocks the sandbox."""

    steps: int = STEPS

    def spend(self, steps: int = 1) -> None:
        """Count a command, a turn of a loop, or other work by what it costs; beyond the limit the process is killed."""
        self.steps -= steps
        if self.steps < 0:
            raise Signalled(KILLED)

    def spend_on(self, size_bytes: int) -> None:
        """Count the work of moving data."""
        self.spend(size_bytes // BYTES_PER_STEP)


Main = Callable[["Process"], Coroutine[Any, Any, int]]


@dataclass(eq=False)
class Process:
    """One process. Its streams are those of its parent unless it was given others."""

    kernel: "Kernel"
    pid: int
    group: int
    title: str
    started_at: datetime
    budget: CommandBudget
    cwd: str
    variables: dict[str, str]
    exported: set[str]
    streams: dict[int, Stream]
    nested: int = 0
    exit_code: int | None = None
    children: "list[Process]" = field(default_factory=list)
    end: Waiting = field(default_factory=Waiting)
    turn: int = 0
    coroutine: Coroutine[Any, Any, int] | None = None
    pending: int | None = None

    @property
    def files(self) -> FileSystem:
        """The container's files."""
        return self.kernel.files

    @property
    def now(self) -> datetime:
        """The time."""
        return self.kernel.time.now

    async def complain(self, text: str) -> None:
        """Write a line to standard error."""
        if 2 in self.streams:  # noqa: PLR2004 - standard error
            await self.streams[2].write(f"{text}\n".encode("utf-8", "surrogateescape"))

    async def sleep(self, seconds: float) -> None:
        """Wait for the world's time."""
        due = self._after(seconds)
        while self.now < due:
            self._alarm(due)
            await pause()

    async def end_of(self, child: "Process", *, within_seconds: float | None = None) -> bool:
        """Wait until a process has ended; False when that took longer."""
        due = None if within_seconds is None else self._after(within_seconds)
        while child.exit_code is None:
            if due is not None and self.now >= due:
                return False
            if due is not None:
                self._alarm(due)
            await child.end.wait()
        return True

    def _after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=min(max(seconds, 0.0), LONGEST_SLEEP_SECONDS))

    def _alarm(self, due: datetime) -> None:
        turn = self.turn
        self.kernel.time.at(due, lambda: self.kernel.wake(self, turn))


class Kernel:
    """All processes of a container."""

    def __init__(self, files: FileSystem, host: Host, time: Time, is_up: Callable[[], bool]) -> None:
        self.files = files
        self.host = host
        self.time = time
        self.processes: dict[int, Process] = {}
        self._is_up = is_up
        self._next_pid = 100
        self._ready: deque[Process] = deque()
        self._is_running = False

    def begin(
        self, main: Main, title: str, *, streams: dict[int, Stream], cwd: str, variables: dict[str, str]
    ) -> Process:
        """Start a process that no other process starts; it first runs when the kernel does."""
        pid, now = self._next_pid, self.time.now
        return self._started(
            main, Process(self, pid, pid, title, now, CommandBudget(), cwd, variables, set(variables), streams)
        )

    def fork(self, parent: Process, main: Main, title: str, *, streams: dict[int, Stream], own_group: bool) -> Process:
        """Start a process from another; it first runs when the one that runs now waits or ends."""
        pid = self._next_pid
        group = pid if own_group else parent.group
        variables, exported = dict(parent.variables), set(parent.exported)
        child = Process(
            self,
            pid,
            group,
            title,
            self.time.now,
            parent.budget,
            parent.cwd,
            variables,
            exported,
            streams,
            parent.nested,
        )
        parent.children.append(self._started(main, child))
        return child

    def _started(self, main: Main, process: Process) -> Process:
        if len(self.processes) >= PROCESSES:
            raise failure(errno.EAGAIN)
        self._next_pid += 1
        process.streams = {number: stream.hold() for number, stream in process.streams.items()}
        process.coroutine = main(process)
        self.processes[process.pid] = process
        self._ready.append(process)
        return process

    def wake(self, process: Process, turn: int) -> None:
        """Let a process that slept go on, unless it was woken meanwhile."""
        if process.turn == turn and process.exit_code is None:
            self.make_ready(process)
            self.run()

    def make_ready(self, process: Process) -> None:
        """Let a process run when its turn comes."""
        if process.exit_code is None and process not in self._ready:
            self._ready.append(process)

    def run(self) -> None:
        """Run everything that can run, until all wait."""
        if self._is_running:
            return
        self._is_running = True
        try:
            if not self._is_up():
                self.signal(list(self.processes.values()), KILLED)
            while self._ready:
                self._step(self._ready.popleft())
        finally:
            self._is_running = False

    def signal(self, processes: list[Process], number: int) -> None:
        """Send a signal; each takes it at its next turn."""
        for process in processes:
            if process.exit_code is None:
                process.pending = KILLED if process.pending == KILLED else number
                self.make_ready(process)

    def group(self, number: int) -> list[Process]:
        """Return the living processes of a group."""
        return [process for process in self.processes.values() if process.group == number]

    def _step(self, process: Process) -> None:
        if process.exit_code is not None or process.coroutine is None:
            return
        process.turn += 1
        try:
            if (number := process.pending) is not None:
                process.pending = None
                asked = process.coroutine.throw(Signalled(number))
            else:
                asked = process.coroutine.send(None)
            while asked == "waker":
                asked = process.coroutine.send(partial(self.make_ready, process))
        except StopIteration as end:
            self._finish(process, int(end.value) & 255)
        except Signalled as signalled:
            self._finish(process, 128 + signalled.number)
        except OSError:
            # Its output had nowhere to go.
            self._finish(process, 1)
        except Exception:  # noqa: BLE001 - logged, with where it comes from
            # A defect of the sandbox in one command must not stop its world.
            _log.exception("a command of a simulated pod failed for an unknown reason")
            self._finish(process, 128 + ABORTED)

    def _finish(self, process: Process, exit_code: int) -> None:
        process.exit_code = exit_code
        process.coroutine = None
        del self.processes[process.pid]
        for stream in process.streams.values():
            stream.release()
        process.streams = {}
        process.end.wake()
