"""What file descriptors stand for: nothing, files, and pipes, whose other end may be outside of the container.

Whoever must wait here says for what: its process goes on when that holds.
"""

import types
from collections.abc import Callable, Generator
from typing import Final

from lium_mcp.sandbox.container.files import File

PIPE_BYTES: Final = 64 * 1024
BROKEN_PIPE: Final = 13

Condition = Callable[[], bool]


class Signalled(BaseException):
    """Raised in a process that was sent a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@types.coroutine
def until(holds: Condition) -> Generator[Condition, None, None]:
    """Wait until something holds."""
    if not holds():
        yield holds


class Stream:
    """What a file descriptor stands for, and here nothing: there is nothing to read, and what is written is lost.

    It is closed when the last process that holds it releases it.
    """

    def __init__(self) -> None:
        self._holders = 0

    async def read(self, size: int) -> bytes:  # noqa: ARG002
        """Return up to ``size`` bytes; nothing at the end."""
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for room."""

    def hold(self) -> "Stream":
        """Count another holder."""
        self._holders += 1
        return self

    def release(self) -> None:
        """Count one holder less."""
        self._holders -= 1
        if self._holders == 0:
            self.closed()

    def closed(self) -> None:
        """Clean up, once nobody holds it any more."""


Streams = dict[int, Stream]
"""What a process has open, by the number of the descriptor."""


def hold(streams: Streams) -> Streams:
    """Hold all of them, and return a copy to whoever does."""
    return {number: stream.hold() for number, stream in streams.items()}


def release(streams: Streams) -> None:
    """Release all of them."""
    for stream in streams.values():
        stream.release()


class FileStream(Stream):
    """An open file."""

    def __init__(self, file: File, now: Callable[[], float], *, appends: bool = False) -> None:
        super().__init__()
        self._file, self._now, self._appends = file, now, appends
        self._offset = 0

    async def read(self, size: int) -> bytes:
        """Return what comes next in the file."""
        data = bytes(self._file.data[self._offset : self._offset + size])
        self._offset += len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Write where the last write ended, or at the end."""
        offset = len(self._file.data) if self._appends else self._offset
        self._file.write_at(offset, data, self._now())
        self._offset = offset + len(data)


class Pipe(Stream):
    """What is written to its ``writer`` is read from it. Somebody outside of the container may stand for either end."""

    def __init__(self, *, limit_bytes: int = PIPE_BYTES, on_change: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.limit_bytes, self._on_change = limit_bytes, on_change
        self.buffer = bytearray()
        self.is_finished = self.is_broken = False
        self.writer = PipeWriter(self)

    async def read(self, size: int) -> bytes:
        """Wait for something, or for the end."""
        await until(lambda: bool(self.buffer) or self.is_finished)
        return self.take(size)

    def take(self, size: int = -1) -> bytes:
        """Take what is there, all or so many bytes of it."""
        data = bytes(self.buffer if size < 0 else self.buffer[:size])
        if data:
            del self.buffer[: len(data)]
            self._on_change()
        return data

    def put(self, data: bytes) -> None:
        """Put more in, whatever the limit, unless nobody reads any more."""
        if not self.is_broken:
            self.buffer += data
            self._on_change()

    def finish(self) -> None:
        """Say that no more will come."""
        self.is_finished = True
        self._on_change()

    def closed(self) -> None:
        """Say that nobody reads any more."""
        self.is_broken = True
        self.buffer.clear()
        self._on_change()


class PipeWriter(Stream):
    """The end of a pipe that is written to."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    async def write(self, data: bytes) -> None:
        """Wait for room, and write."""
        pipe = self._pipe
        await until(lambda: len(pipe.buffer) < pipe.limit_bytes or pipe.is_broken)
        if pipe.is_broken:
            raise Signalled(BROKEN_PIPE)
        pipe.put(data)

    def closed(self) -> None:
        """Say that no more will come."""
        self._pipe.finish()
