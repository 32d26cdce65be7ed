"""Processes of a container: coroutines that run until they wait, and go on when the world's time is there.

There is no event loop in it. A process that sleeps is an entry of the world's event queue, so that jobs, removals and
backups happen in the order of their times however far the clock is turned at once.
"""

import errno
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from lium_mcp.sandbox.container.files import File, FileSystem, failure
from lium_mcp.sandbox.container.host import Host

HANGUP: Final = 1
KILLED: Final = 9
TERMINATED: Final = 15
BROKEN_PIPE: Final = 13
PIPE_BYTES: Final = 64 * 1024
PROCESSES: Final = 64
STEPS: Final = 50_000
LONGEST_SLEEP_SECONDS: Final = 10.0 * 365 * 86400


class Time(Protocol):
    """The world, as far as a process knows it."""

    now: datetime

    def at(self, due: datetime, action: Callable[[], None]) -> None:
        """Let something happen at a time."""


class Signalled(BaseException):
    """Raised in a process that was sent a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@dataclass
class Budget:
    """What a session or job may still do, with all processes it starts: no command text keeps the sandbox busy."""

    steps: int = STEPS

    def spend(self) -> None:
        """Count one command or turn of a loop; beyond the limit the process is killed."""
        self.steps -= 1
        if self.steps < 0:
            raise Signalled(KILLED)


class Stream:
    """What a file descriptor leads to. It is closed when the last process that holds it lets go."""

    def __init__(self) -> None:
        self.holders = 0

    async def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes; nothing at the end."""
        raise failure(errno.EBADF)

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for room."""
        raise failure(errno.EBADF)

    def hold(self) -> "Stream":
        """Count another holder."""
        self.holders += 1
        return self

    def release(self) -> None:
        """Count one holder less."""
        self.holders -= 1
        if self.holders == 0:
            self.closed()

    def closed(self) -> None:
        """Do what is to be done when nobody holds it."""


class Null(Stream):
    """Swallows what is written; reading gives zeros or nothing."""

    def __init__(self, fill: bytes = b"") -> None:
        super().__init__()
        self._fill = fill

    async def read(self, size: int) -> bytes:
        return self._fill * min(size, PIPE_BYTES)

    async def write(self, data: bytes) -> None:
        pass


class FileStream(Stream):
    """An open file."""

    def __init__(self, file: File, now: Callable[[], float], *, appends: bool = False) -> None:
        super().__init__()
        self._file, self._now, self._appends = file, now, appends
        self._offset = 0

    async def read(self, size: int) -> bytes:
        data = bytes(self._file.data[self._offset : self._offset + size])
        self._offset += len(data)
        return data

    async def write(self, data: bytes) -> None:
        offset = len(self._file.data) if self._appends else self._offset
        self._file.write_at(offset, data, self._now())
        self._offset = offset + len(data)


class Given(Stream):
    """Input that is there from the start: a here-document."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = data

    async def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data


class Taken(Stream):
    """Output that somebody reads when it is all there, up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.data = bytearray()
        self._limit = limit_bytes

    async def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > self._limit:
            raise failure(errno.ENOSPC)
        self.data += data


class Pipe:
    """Two streams: what is written to one is read from the other. One end may be outside of the container."""

    def __init__(
        self, kernel: "Kernel", *, limit_bytes: int = PIPE_BYTES, on_change: Callable[[], None] | None = None
    ) -> None:
        self._kernel = kernel
        self._on_change = on_change
        self.limit_bytes = limit_bytes
        self.buffer = bytearray()
        self.waiting: list[Process] = []
        self.is_finished = self.is_broken = False
        self.reader: Stream = _Reader(self)
        self.writer: Stream = _Writer(self)

    async def change(self) -> None:
        """Wait until something about the pipe has changed."""
        await wait_in(self.waiting)

    def changed(self) -> None:
        """Wake whoever waits."""
        waiting, self.waiting = self.waiting, []
        for process in waiting:
            self._kernel.make_ready(process)
        if self._on_change is not None:
            self._on_change()

    def take(self) -> bytes:
        """Take all that is there, from outside."""
        data = bytes(self.buffer)
        if data:
            self.buffer.clear()
            self.changed()
        return data

    def put(self, data: bytes) -> None:
        """Put more in, from outside, whatever the limit."""
        if not self.is_broken:
            self.buffer += data
            self.changed()

    def finish(self) -> None:
        """Say that no more will come."""
        self.is_finished = True
        self.changed()

    def break_off(self) -> None:
        """Say that nobody reads any more."""
        self.is_broken = True
        self.buffer.clear()
        self.changed()


class _Reader(Stream):
    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    async def read(self, size: int) -> bytes:
        pipe = self._pipe
        while not pipe.buffer and not pipe.is_finished:
            await pipe.change()
        data = bytes(pipe.buffer[:size])
        del pipe.buffer[:size]
        pipe.changed()
        return data

    def closed(self) -> None:
        self._pipe.break_off()


class _Writer(Stream):
    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    async def write(self, data: bytes) -> None:
        pipe = self._pipe
        while len(pipe.buffer) >= pipe.limit_bytes and not pipe.is_broken:
            await pipe.change()
        if pipe.is_broken:
            raise Signalled(BROKEN_PIPE)
        pipe.buffer += data
        pipe.changed()

    def closed(self) -> None:
        self._pipe.finish()


Main = Callable[["Process"], Coroutine[Any, Any, int]]


@dataclass(eq=False)
class Process:
    """One process. Its streams are those of its parent unless it was given others."""

    kernel: "Kernel"
    pid: int
    group: int
    title: str
    started_at: datetime
    budget: Budget
    cwd: str
    variables: dict[str, str]
    exported: set[str]
    streams: dict[int, Stream]
    exit_code: int | None = None
    ignores_hangup: bool = False
    nested: int = 0
    children: "list[Process]" = field(default_factory=list)
    waiters: "list[Process]" = field(default_factory=list)
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

    async def write(self, text: str, *, to: int = 1) -> None:
        """Write text to a stream."""
        if to in self.streams:
            await self.streams[to].write(text.encode("utf-8", "surrogateescape"))

    async def complain(self, text: str) -> None:
        """Write a line to standard error."""
        await self.write(f"{text}\n", to=2)

    async def sleep(self, seconds: float) -> None:
        """Wait for the world's time."""
        due = self._after(seconds)
        while self.now < due:
            self._alarm(due)
            await _pause()

    async def end_of(self, child: "Process", *, within_seconds: float | None = None) -> bool:
        """Wait until a process has ended; False when that took longer."""
        due = None if within_seconds is None else self._after(within_seconds)
        while child.exit_code is None:
            if due is not None:
                if self.now >= due:
                    return False
                self._alarm(due)
            await wait_in(child.waiters)
        return True

    def _after(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=min(max(seconds, 0.0), LONGEST_SLEEP_SECONDS))

    def _alarm(self, due: datetime) -> None:
        turn = self.turn
        self.kernel.time.at(due, lambda: self.kernel.wake(self, turn))


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield None


@types.coroutine
def _me() -> Generator[str, "Process", "Process"]:
    return (yield "me")


async def wait_in(waiting: list[Process]) -> None:
    """Wait until whoever keeps the list makes the processes in it ready."""
    waiting.append(await _me())
    await _pause()


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

    def spawn(  # a process is a handful of facts
        self,
        main: Main,
        title: str,
        *,
        streams: dict[int, Stream],
        parent: Process | None = None,
        budget: Budget | None = None,
        own_group: bool = False,
        cwd: str = "/",
        variables: dict[str, str] | None = None,
        exported: set[str] | None = None,
    ) -> Process:
        """Start a process; it first runs when the one that runs now waits or ends."""
        if len(self.processes) >= PROCESSES:
            raise failure(errno.EAGAIN)
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        process = Process(
            kernel=self,
            pid=pid,
            group=pid if parent is None or own_group else parent.group,
            title=title,
            started_at=self.time.now,
            budget=budget or (parent.budget if parent is not None else Budget()),
            cwd=cwd if parent is None else parent.cwd,
            variables=dict(variables or {}) if parent is None else dict(parent.variables),
            exported=set(exported or ()) if parent is None else set(parent.exported),
            streams={number: stream.hold() for number, stream in streams.items()},
            ignores_hangup=parent is not None and parent.ignores_hangup,
            nested=0 if parent is None else parent.nested,
        )
        process.coroutine = main(process)
        self.processes[pid] = process
        if parent is not None:
            parent.children.append(process)
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
                self.kill_all()
            while self._ready:
                self._step(self._ready.popleft())
        finally:
            self._is_running = False

    def signal(self, processes: list[Process], number: int) -> None:
        """Send a signal; each takes it at its next turn."""
        for process in processes:
            if process.exit_code is None and not (number == HANGUP and process.ignores_hangup):
                process.pending = KILLED if process.pending == KILLED else number
                self.make_ready(process)

    def group(self, number: int) -> list[Process]:
        """Return the living processes of a group."""
        return [process for process in self.processes.values() if process.group == number]

    def kill_all(self) -> None:
        """End everything, as when the container is gone."""
        self.signal(list(self.processes.values()), KILLED)

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
            while asked == "me":
                asked = process.coroutine.send(process)
        except StopIteration as end:
            self._finish(process, int(end.value) & 255)
        except Signalled as signalled:
            self._finish(process, 128 + signalled.number)
        except OSError:
            # Output with nowhere to go.
            self._finish(process, 1)
        except RecursionError:
            self._finish(process, 128 + 11)

    def _finish(self, process: Process, exit_code: int) -> None:
        process.exit_code = exit_code
        process.coroutine = None
        del self.processes[process.pid]
        for stream in process.streams.values():
            stream.release()
        process.streams = {}
        waiters, process.waiters = process.waiters, []
        for waiter in waiters:
            self.make_ready(waiter)
