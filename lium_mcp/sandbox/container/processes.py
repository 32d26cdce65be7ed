"""Processes of a container: coroutines that run until they wait, and go on when what they wait for holds.

No event loop runs them. A process that waits for a time has an entry in the world's event queue, so that jobs, removals
and backups happen in the order of their times however far the clock is turned at once.
"""

import errno
import itertools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from lium_mcp.sandbox.container.files import FileSystem, failure
from lium_mcp.sandbox.container.host import Host
from lium_mcp.sandbox.container.streams import Condition, Signalled, Streams, hold, release, until
from lium_mcp.sandbox.world import World

ABORTED: Final = 6
KILLED: Final = 9
TERMINATED: Final = 15
SIGNALS: Final = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": KILLED, "TERM": TERMINATED}
PROCESSES: Final = 64
STEPS: Final = 50_000
BYTES_PER_STEP: Final = 16 * 1024
LONGEST_SLEEP_SECONDS: Final = 10.0 * 365 * 86400

_log = logging.getLogger(__name__)


@dataclass
class CommandBudget:
    """How much a session or job, with all processes it starts, may still do, so that no command blocks the sandbox."""

    steps: float = STEPS

    def spend(self, steps: float = 1) -> None:
        """Count a command, a turn of a loop, or other work by what it costs; beyond the limit the process is killed."""
        self.steps -= steps
        if self.steps < 0:
            raise Signalled(KILLED)

    def spend_on(self, size_bytes: int) -> None:
        """Count the work of moving data."""
        self.spend(size_bytes / BYTES_PER_STEP)


@dataclass(eq=False)
class Process:
    """One process."""

    kernel: "Kernel"
    pid: int
    group: int
    started_at: datetime
    budget: CommandBudget
    cwd: str
    variables: dict[str, str]
    streams: Streams
    title: str = "bash"
    nested: int = 0
    exit_code: int | None = None
    pending: int | None = None
    waits_for: Condition = lambda: True
    coroutine: Coroutine[Any, Any, int] | None = None

    @property
    def files(self) -> FileSystem:
        """The container's files."""
        return self.kernel.files

    @property
    def now(self) -> datetime:
        """The time."""
        return self.kernel.world.now

    @property
    def can_go_on(self) -> bool:
        """Whether it has a signal to take, or what it waits for holds."""
        return self.exit_code is None and (self.pending is not None or self.waits_for())

    async def complain(self, text: str) -> None:
        """Write a line to standard error."""
        await self.streams[2].write(f"{text}\n".encode("utf-8", "surrogateescape"))

    async def sleep(self, seconds: float) -> None:
        """Wait for the world's time."""
        due = self.now + timedelta(seconds=min(max(seconds, 0.0), LONGEST_SLEEP_SECONDS))
        self.kernel.world.at(due, self.kernel.run)
        await until(lambda: self.now >= due)

    async def end(self, *, within_seconds: float | None = None) -> int | None:
        """Wait until this process has ended, but only so long if that is given; return its exit code if it has."""
        due = None if within_seconds is None else self.now + timedelta(seconds=within_seconds)
        if due is not None:
            self.kernel.world.at(due, self.kernel.run)
        await until(lambda: self.exit_code is not None or (due is not None and self.now >= due))
        return self.exit_code


Main = Callable[[Process], Coroutine[Any, Any, int]]


class Kernel:
    """All processes of a container."""

    def __init__(self, files: FileSystem, host: Host, world: World, is_up: Callable[[], bool]) -> None:
        self.files = files
        self.host = host
        self.world = world
        self.processes: dict[int, Process] = {}
        self._is_up = is_up
        self._pids = itertools.count(100)

    def start(
        self,
        main: Main,
        *,
        streams: Streams,
        cwd: str,
        variables: dict[str, str],
        budget: CommandBudget | None = None,
        group: int | None = None,
    ) -> Process:
        """Start a process, in a group of its own unless one is given; it first runs when those that run now wait."""
        if len(self.processes) >= PROCESSES:
            raise failure(errno.EAGAIN)
        pid, now = next(self._pids), self.world.now
        process = Process(self, pid, group or pid, now, budget or CommandBudget(), cwd, dict(variables), hold(streams))
        process.coroutine = main(process)
        self.processes[pid] = process
        return process

    def run(self) -> None:
        """Let every process go on that can, until all wait."""
        if not self._is_up():
            self.signal(list(self.processes.values()), KILLED)
        while ready := [process for process in self.processes.values() if process.can_go_on]:
            for process in ready:
                # What one does may concern the next.
                if process.can_go_on:
                    self._step(process)

    def signal(self, processes: list[Process], number: int) -> None:
        """Send a signal; each takes it at its next turn."""
        for process in processes:
            process.pending = KILLED if process.pending == KILLED else number

    def group(self, number: int) -> list[Process]:
        """Return the living processes of a group."""
        return [process for process in self.processes.values() if process.group == number]

    def _step(self, process: Process) -> None:
        coroutine, number, process.pending = process.coroutine, process.pending, None
        if coroutine is None:
            return
        try:
            process.waits_for = coroutine.send(None) if number is None else coroutine.throw(Signalled(number))
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
        release(process.streams)
        process.streams = {}
