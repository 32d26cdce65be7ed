"""What file descriptors stand for: files, pipes, and the ends of a session."""

import errno
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.files import File, failure
from lium_mcp.sandbox.container.waiting import BROKEN_PIPE, Signalled, Waiting

PIPE_BYTES: Final = 64 * 1024


class Stream:
    """What a file descriptor stands for. It is closed when the last process that holds it releases it."""

    def __init__(self) -> None:
        self.holders = 0

    async def read(self, size: int) -> bytes:  # noqa: ARG002
        """Return up to ``size`` bytes; nothing at the end."""
        raise failure(errno.EBADF)

    async def write(self, data: bytes) -> None:  # noqa: ARG002
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
        """Clean up, once nobody holds it any more."""


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


class Given(Stream):
    """Input that is there from the start, or none at all."""

    def __init__(self, data: bytes = b"") -> None:
        super().__init__()
        self._data = data

    async def read(self, size: int) -> bytes:
        """Return what is left."""
        data, self._data = self._data[:size], self._data[size:]
        return data


class Taken(Stream):
    """Output that somebody reads when it is all there, up to a limit."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self.data = bytearray()
        self._limit = limit_bytes

    async def write(self, data: bytes) -> None:
        """Keep it."""
        if len(self.data) + len(data) > self._limit:
            raise failure(errno.ENOSPC)
        self.data += data


class Pipe:
    """Two streams: what is written to one is read from the other. One end may be outside of the container."""

    def __init__(self, *, limit_bytes: int = PIPE_BYTES, on_change: Callable[[], None] | None = None) -> None:
        self._on_change = on_change
        self.limit_bytes = limit_bytes
        self.buffer = bytearray()
        self.waiting = Waiting()
        self.is_finished = self.is_broken = False
        self.reader: Stream = _Reader(self)
        self.writer: Stream = _Writer(self)

    def changed(self) -> None:
        """Wake whoever waits."""
        self.waiting.wake()
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
            await pipe.waiting.wait()
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
            await pipe.waiting.wait()
        if pipe.is_broken:
            raise Signalled(BROKEN_PIPE)
        pipe.buffer += data
        pipe.changed()

    def closed(self) -> None:
        self._pipe.finish()
