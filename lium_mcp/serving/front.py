"""What stands between a host and the server over standard input and output, and answers before the server is there.

The imports of a server take most of a second, and a host shows its model what has answered within about one. So a
thread answers the handshake and the lists from `prepared.py` while the main thread imports. Whatever else comes, and
whatever is not of exactly the form that is known here, waits for the server, in order. Standard library only.
"""

import _thread
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence

from lium_mcp.page import is_shown
from lium_mcp.serving.front_messages import Message, UnknownForm, check_params, extensions_of, read_message
from lium_mcp.serving.front_settings import find_offer
from lium_mcp.serving.prepared import CURRENT, HANDSHAKE, Prepared, read_file, read_records

try:
    import fcntl
    import select
except ImportError:  # on Windows, where nobody answers before the server
    CAN_ANSWER = False
else:
    CAN_ANSWER = hasattr(select, "poll")

CLOSED_PIPE = 141
_CANNOT_WRITE = 1
_READ_BYTES = 65_536
_FIRST_PRIVATE = 3
_INIT = 1
_LAST_LINE_SECONDS = 1.0
_MOST_UNSENT_BYTES = 2**23
_SWITCH_SECONDS = 0.0005


class Wire:
    """Standard input and output, taken away from everybody else: what strays to them must not reach the host.

    From then on others in the process and its children read nothing, and what they print goes to standard error.

    Attributes:
        parent: The process that started this one; 0 where it has died already.
    """

    def __init__(self) -> None:
        self.parent = _living_parent()
        self.input = _taken_away(0)
        self.output = _taken_away(1)
        self._left = b""
        self._is_read = False
        self._writing = _thread.allocate_lock()

    def put_back(self, data: bytes, *, is_all: bool) -> None:
        """Let `read_line` begin with what was read already; nothing follows where it is all."""
        self._left, self._is_read = data, is_all

    def read_line(self) -> bytes:
        """Wait for the next line; empty at the end."""
        parts = []
        while True:
            line, line_break, self._left = self._left.partition(b"\n")
            parts.append(line + line_break)
            if line_break or self._is_read:
                return b"".join(parts)
            try:
                self._left = os.read(self.input, _READ_BYTES)
            except OSError:  # it has been closed
                self._left = b""
            self._is_read = not self._left

    def write(self, data: bytes) -> None:
        """Write all of it, and wait until that is done.

        Raises:
            OSError: nobody reads any longer.
        """
        with self._writing:
            while data:
                data = data[os.write(self.output, data) :]

    def hold(self) -> None:
        """Let every `write` wait until `let_go`: something is to be written before."""
        self._writing.acquire()

    def let_go(self) -> None:
        """Let `write` go on."""
        self._writing.release()


def _living_parent() -> int:
    parent = os.getppid()
    if parent != _INIT or not CAN_ANSWER:
        return parent
    # The first process takes over whom another left behind; whom it started itself is in no dead process's group.
    group = os.getpgrp()
    try:
        os.kill(group, 0)
    except ProcessLookupError:
        return 0
    except PermissionError:
        pass
    return parent


def _taken_away(number: int) -> int:
    """A private descriptor in place of a standard one, which then leads elsewhere; that one itself where it cannot."""
    try:
        private = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE) if CAN_ANSWER else os.dup(number)
        elsewhere = os.dup(2) if number else os.open(os.devnull, os.O_RDONLY)
        try:
            os.dup2(elsewhere, number)
        finally:
            os.close(elsewhere)
    except OSError:
        return number
    return private


def begin(words: Sequence[str], environment: Mapping[str, str]) -> "Front | None":
    """Begin to answer, if a host starts a server whose answers are known; else nothing is touched.

    Args:
        words: The command line, without the program.
        environment: The variables.
    """
    if not CAN_ANSWER or os.isatty(0):
        return None
    try:
        records = read_records()
    except (OSError, ValueError):
        return None
    offer = find_offer(words, environment, records.tools(), read_file) if records.are_of_this_sdk() else None
    if offer is None:
        return None
    front = Front(Wire(), Prepared(records, offer))
    # At once, and not as an exception among the imports.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: front.end(128 + number))
    front.start()
    return front


class Front:
    """Answers what it knows, until the server takes over."""

    def __init__(self, wire: Wire, prepared: Prepared) -> None:
        self.wire = wire
        self._prepared = prepared
        self._poll = select.poll()
        self._turn = _thread.allocate_lock()
        self._knows_all = True  # until something comes that is not of a form known here
        self._is_over = False
        self._is_end = False
        self._era = ""
        self._shows_page = False
        self._opening: tuple[bytes, bytes] | None = None
        self._waiting: list[bytes] = []
        self._owed: set[str] = set()  # requests that wait
        self._left = bytearray()
        self._unsent = bytearray()

    def start(self) -> None:
        """Begin to answer, in a thread of its own."""
        sys.setswitchinterval(_SWITCH_SECONDS)  # a request must not wait long for a turn between the imports
        self._poll.register(self.wire.input, select.POLLIN)
        _thread.start_new_thread(self._answer_all, ())

    def end(self, status: int) -> None:
        """End the process; an answer that is being written is written to its end, if the host reads it."""
        deadline = time.monotonic() + _LAST_LINE_SECONDS
        while time.monotonic() < deadline and self._turn.acquire(timeout=_LAST_LINE_SECONDS):
            if not self._unsent:
                break
            self._turn.release()
            time.sleep(0.001)
        os._exit(status)

    def opening(self) -> tuple[bytes, bytes] | None:
        """The first request that was answered, which the server has to hear too, and the answer that the host has.

        Where there is none, nothing is answered any more.
        """
        with self._turn:
            self._is_over = self._opening is None
            return self._opening

    def take_over(self) -> list[bytes]:
        """Answer nothing more, and return the lines that wait; those that follow are read from the wire."""
        with self._turn:
            self._is_over = True
            self.wire.put_back(bytes(self._left), is_all=self._is_end)
            sys.setswitchinterval(0.005)
            return self._waiting

    def _answer_all(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                with self._turn:
                    if descriptor == self.wire.output:
                        if self._unsent:  # what came at the same moment may have sent it
                            self._send_some()
                    elif self._is_over:
                        self._poll.unregister(descriptor)
                    else:
                        self._read()
            if self._unsent:
                continue
            if self._is_end and not self._owed and not self._left:
                os._exit(0)
            if self._is_end or self._is_over:
                return

    def _read(self) -> None:
        try:
            data = os.read(self.wire.input, _READ_BYTES)
        except OSError:  # it has been closed
            data = b""
        if not data:
            self._is_end = True
            self._poll.unregister(self.wire.input)
        self._left += data
        if b"\n" not in data:
            return
        *lines, self._left = self._left.split(b"\n")
        for line in map(bytes, lines):
            answer = self._answer(line) if self._knows_all else None
            if answer is None:
                self._waiting.append(line)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if not self._unsent:
            self.wire.hold()
            self._poll.register(self.wire.output, select.POLLOUT)
        self._unsent += answer
        if len(self._unsent) > _MOST_UNSENT_BYTES:
            self._leave_to_the_server()
        # A host that writes before it reads must find its messages read: so nothing is written that may have to wait.
        output = select.poll()
        output.register(self.wire.output, select.POLLOUT)
        while self._unsent and output.poll(0):
            self._send_some()

    def _send_some(self) -> None:
        try:
            written = os.write(self.wire.output, self._unsent[: select.PIPE_BUF])
        except BrokenPipeError:
            os._exit(CLOSED_PIPE)  # nobody reads any longer
        except OSError as error:
            os.write(2, f"lium-mcp: standard output: {error.strerror}\n".encode())
            os._exit(_CANNOT_WRITE)
        del self._unsent[:written]
        if not self._unsent:
            self._poll.unregister(self.wire.output)
            self.wire.let_go()

    def _answer(self, line: bytes) -> bytes | None:
        """The answer to a line, if it is a request whose answer is known; else it waits."""
        try:
            message = read_message(line)
            return self._answer_request(line, message) if message.request_id is not None else None
        except (ValueError, RecursionError):
            self._leave_to_the_server()
            return None

    def _leave_to_the_server(self) -> None:
        self._knows_all = False
        self._owed.add("")

    def _answer_request(self, line: bytes, message: Message) -> bytes | None:
        request_id, method = message.request_id, message.method
        if str(request_id) in self._owed:
            raise UnknownForm
        era = self._era or (HANDSHAKE if method == "initialize" else CURRENT)
        if not self._prepared.knows(era, method):
            if not self._era:
                raise UnknownForm
            self._owed.add(str(request_id))
            return None
        if self._era and method == "initialize":
            raise UnknownForm
        version = check_params(era, message)
        if era == CURRENT or method == "initialize":  # with each request, or once for all of them
            self._shows_page = is_shown(extensions_of(message))
        known_id = json.dumps(request_id).encode()
        answer = self._prepared.answer(era, method, known_id, version, shows_page=self._shows_page)
        if not self._era:
            self._era, self._opening = era, (line, answer)
        return answer
