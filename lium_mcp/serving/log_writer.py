"""Writes the lines of the log from a thread of its own: whoever reads them may stall, and no call waits for that.

What waits to be written is bounded. What comes above that is dropped, counted, and said in one line once there is room;
records of the audit trail have more room than all others.
"""

import errno
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import BinaryIO, Final, TextIO

from lium_mcp.auditing import TRAIL

log = logging.getLogger(__name__)

_MOST_LINES: Final = 2_000
_MOST_WITH_TRAIL: Final = 10_000
_BATCH_LINES: Final = 200
_END_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 0.1
# A disk may have room again, and a pipe that does not wait a reader. Whatever else fails stays so.
_MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EAGAIN})


class LogWriter(logging.Handler):
    """Takes records without waiting, and writes them in order to a stream, past its buffer.

    A buffer would be written once more at the exit of the process, which would fail where nobody reads any longer.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        buffer = stream.buffer
        self._out: BinaryIO = getattr(buffer, "raw", buffer)
        self._encoding = stream.encoding
        self._lines: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_writing = self._is_closed = False
        self._dropped = self._dropped_of_trail = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record, if there is room."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as the handlers of the library: a record that is wrong fails no call
            self.handleError(record)
            return
        is_of_trail = record.name == TRAIL
        with self._changed:
            if self._is_closed:  # the process is at its very end, where threads are over
                if not self._lines and not self._is_writing:
                    with suppress(OSError, ValueError):
                        self._out.write(line)
                return
            if len(self._lines) >= (_MOST_WITH_TRAIL if is_of_trail else 0 if self._dropped else _MOST_LINES):
                self._dropped += 1
                self._dropped_of_trail += is_of_trail
                return
            self._lines.append(line)
            self._changed.notify_all()
            if self._thread is None:
                thread = threading.Thread(target=self._write_on, name="log", daemon=True)
                with suppress(RuntimeError):  # the system has no more threads just now: the next record tries again
                    thread.start()
                    self._thread = thread

    def flush(self) -> None:
        """Wait until all is written; for a moment, since nobody may read it."""
        with self._changed:
            self._changed.wait_for(self._has_written, _END_SECONDS)

    def close(self) -> None:
        """Take no more for the thread, which ends once it has written what it has."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def _has_written(self) -> bool:
        return not (self._lines or self._is_writing or self._dropped)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                while self._has_written():
                    if self._is_closed:
                        return
                    self._changed.wait()
                lines = [self._lines.popleft() for _ in range(min(len(self._lines), _BATCH_LINES))]
                if not lines:
                    lines.append(self._line(self._gap()))
                self._is_writing = True
            self._write(b"".join(lines))

    def _gap(self) -> logging.LogRecord:
        """What is said of the lines that were dropped, which are counted anew from then on."""
        words = "%d lines are missing here, %d of them of the audit trail: nobody took what was logged for too long"
        numbers = self._dropped, self._dropped_of_trail
        self._dropped = self._dropped_of_trail = 0
        return log.makeRecord(log.name, logging.WARNING, __file__, 0, words, numbers, None)

    def _write(self, data: bytes) -> None:
        while data:
            written: int | None = 0
            try:
                written = self._out.write(data)
            except (OSError, ValueError) as error:
                if not isinstance(error, OSError) or error.errno not in _MAY_PASS:
                    return  # nobody reads any longer, so that nobody could be told
            if not written:
                time.sleep(_AGAIN_SECONDS)
            data = data[written or 0 :]
