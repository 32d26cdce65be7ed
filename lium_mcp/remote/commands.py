"""Runs commands on a pod, with bounded output and a time limit, and says whether a command still runs."""

import codecs
import math
import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from shlex import quote
from typing import TYPE_CHECKING, Final, Literal

import anyio

from lium_mcp.failures import Failure

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection, Ended

# The login shell says its process group first, so that it can be killed: sshd lets no client signal what runs as root.
# What it starts may leave that group (setsid, set -m, a daemon), so all of it carries a mark in its environment, and
# holds a file of that name open. In the pod a watch keeps the time limit, for when this server or the connection is
# gone. It begins before the mark, in a session and an environment of its own, and so is nothing that the command left.
# Its script is in a variable, where it fills no list of processes. A sandbox has no processes to look at, and no `env`.
_GROUP_LINE: Final = b"lium-mcp-group="
_FIRST: Final = (
    "echo lium-mcp-group=$$ >&2\n"
    '(env -i PATH="$PATH" LIUM_WATCH={watch} setsid sh -c \'eval "$LIUM_WATCH"\' lium-mcp $$ '
    "</dev/null >/dev/null 2>&1 &)\n"
    "export LIUM_COMMAND={mark}\n"
    "[ -e /proc/self/fd ] && (: >{file}) 2>/dev/null && \\exec 9>{file} && rm -f {file}\n"
)
_WATCH: Final = "{processes}\ngroup=$1\nmark='{pattern}'\nwatch {seconds}"
_MARKED_FILE: Final = "/tmp/.LIUM_COMMAND={mark}"  # noqa: S108 - in the pod, and nobody guesses the mark
# How long after its time limit the pod itself ends a command: this server has tried before.
_WATCH_LATER_SECONDS: Final = 10
_GROUP_WITHIN_BYTES: Final = 8192
_GRACE_SECONDS: Final = 3.0
_KILL_SECONDS: Final = 10.0
_SHORT_BYTES: Final = 65_536
# Whoever is gone, or called this off, waits for nothing. A server that is asked to end has some three seconds in all,
# and a pod that is busy or far away may take longer to kill what does not end: the pod does that by itself.
_HURRIED_GRACE_SECONDS: Final = 1.0
_KILL_LATER: Final = "(trap '' HUP; kill_later {seconds:g}) </dev/null >/dev/null 2>&1 &"
_FOUND: Final = re.compile(r"\b[0-9]+:[0-9]+\b")
# In no environment.
_NOTHING: Final = "^$"
# Where no process can be looked at, there is the group, which no process of that number and start stands for.
_SOMETHING: Final = "0:0"

State = Literal["ended", "stopped", "running", "unknown"]


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What came of a command.

    Attributes:
        state: It ended by itself; it was stopped at the time limit; it would not stop and runs on; or nobody knows.
        status: The exit code, if it ended by itself and not by a signal.
        left_running: Something that it started still runs and holds its output open.
    """

    state: State
    status: int | None
    signal: str | None
    stdout: "Output"
    stderr: "Output"
    left_running: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """What a command started.

    Attributes:
        group: Its process group; nothing once that has ended, since its number may be another's then.
        mark: A pattern of what stands in the environment of all that it started, also of what left the group.
    """

    group: int | None
    mark: str | None = None


class Output:
    """The beginning and the end of a stream, however long it is; what is between is dropped as it comes."""

    def __init__(self, *, head_bytes: int, tail_bytes: int) -> None:
        self._head = bytearray()
        self._head_bytes = head_bytes
        self._tail: deque[bytes] = deque()
        self._tail_bytes = tail_bytes
        self._held_bytes = 0
        self.total_bytes = 0

    def add(self, data: bytes) -> None:
        """Take the next piece of the stream."""
        self.total_bytes += len(data)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data[-self._tail_bytes :])
        self._held_bytes += len(self._tail[-1])
        while self._held_bytes - len(self._tail[0]) >= self._tail_bytes:
            self._held_bytes -= len(self._tail.popleft())

    @property
    def cut_bytes(self) -> int:
        """How much was dropped."""
        return max(self.total_bytes - len(self._head) - self._tail_bytes, 0)

    def text(self) -> str:
        """Return what is kept as text, with a line in the place of what was dropped."""
        head, tail = bytes(self._head), b"".join(self._tail)[-self._tail_bytes :]
        if not self.cut_bytes:
            return (head + tail).decode(errors="replace")
        first = without_cut_end(head).decode(errors="replace")
        return f"{first}\n[... {self.cut_bytes} bytes cut ...]\n{text_of_tail(tail)}"


def without_cut_end(data: bytes) -> bytes:
    """Text without the beginning of a character that was cut in two at its end."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    decoder.decode(data)
    return data[: len(data) - len(decoder.getstate()[0])]


def text_of_tail(tail: bytes) -> str:
    """Decode text whose beginning was cut off, without the rest of a character that was cut in two."""
    rest = next((at for at, byte in enumerate(tail[:4]) if byte & 0xC0 != 0x80), 0)  # noqa: PLR2004 - continuation
    return tail[rest:].decode(errors="replace")


class _Streams:
    """Sorts output into its streams, and takes out the line in which the shell says its process group."""

    def __init__(self, stdout: Output, stderr: Output) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.group: int | None = None
        self._begun: bytearray | None = bytearray()

    def __call__(self, data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            self.stdout.add(data)
        elif self._begun is None:
            self.stderr.add(data)
        else:
            self._begun += data
            self._look_for_group(self._begun)

    def finish(self) -> None:
        """Take what was held back for the line of the group."""
        if self._begun is not None:
            self.stderr.add(bytes(self._begun))
            self._begun = None

    def _look_for_group(self, begun: bytearray) -> None:
        at = begun.find(_GROUP_LINE)
        end = begun.find(b"\n", at) if at >= 0 else -1
        if end < 0:
            if len(begun) > _GROUP_WITHIN_BYTES:
                self.finish()
            return
        number = bytes(begun[at + len(_GROUP_LINE) : end])
        if number.isdigit() and len(number) < 10 and int(number) > 1:  # noqa: PLR2004 - what a process group can be
            self.group = int(number)
            del begun[at : end + 1]
        self.finish()


async def run_command(
    connection: "Connection", command: str, *, mark: str, timeout_seconds: float, stdout: Output, stderr: Output
) -> CommandOutcome:
    """Run a command in the pod's login shell, and stop all that it started at the time limit or on cancellation.

    Args:
        connection: To the pod.
        command: For the login shell.
        mark: Of hexadecimal digits, for what it starts to carry; no other command has the same.
        timeout_seconds: It is stopped after so many seconds; what it left in the background when it ended stays.
        stdout: Takes its output.
        stderr: Takes its errors.

    Raises:
        Failure: the connection broke, or the pod refuses to run anything.
    """
    streams = _Streams(stdout, stderr)
    ended: Ended | None = None
    over = anyio.Event()
    problem: Failure | None = None
    state: State = "ended"

    async def execute() -> None:
        nonlocal ended, problem
        try:
            ended = await connection.execute(_first(mark, timeout_seconds) + command, streams)
        except Failure as error:
            problem = error
        over.set()

    async with anyio.create_task_group() as group:
        group.start_soon(execute)
        try:
            with anyio.move_on_after(timeout_seconds):
                await over.wait()
            if not over.is_set():
                state = await _stop(connection, Started(streams.group, _pattern(mark)), over, _GRACE_SECONDS)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                started = Started(streams.group, _pattern(mark))
                await _stop(connection, started, over, _HURRIED_GRACE_SECONDS, in_pod=True)
            raise
        finally:
            group.cancel_scope.cancel()
    streams.finish()
    if problem is not None:
        if problem.code == "connection_lost":
            problem.effect = (
                "The command may run on: the pod itself ends what it finds of it soon after its time limit of "
                f"{timeout_seconds:g} seconds."
            )
        raise problem
    return CommandOutcome(
        state,
        ended.status if ended and state == "ended" else None,
        ended.signal if ended and state == "ended" else None,
        stdout,
        stderr,
        left_running=ended is not None and ended.output_open,
    )


async def stop_lost(connection: "Connection", mark: str) -> bool:
    """Stop all that a command started whose connection was lost; whether it is gone.

    Raises:
        Failure: this connection broke too.
    """
    return await stop_all(connection, Started(None, _pattern(mark)), grace_seconds=_GRACE_SECONDS)


async def has_left_something(connection: "Connection") -> bool:
    """Whether something that any command started still runs, of whichever server.

    Raises:
        Failure: the connection broke.
    """
    return await is_alive(connection, Started(None, _pattern("[0-9a-f]")))


async def run_short(
    connection: "Connection", command: str, *, timeout_seconds: float, reserved: bool = False
) -> tuple[int, str]:
    """Run one of this server's own short commands; return its exit status and what it said.

    Raises:
        Failure: the connection broke, the pod refuses to run anything, or the time is over.
    """
    said = Output(head_bytes=_SHORT_BYTES, tail_bytes=1)

    def sink(data: bytes, is_stderr: bool) -> None:
        if not is_stderr:
            said.add(data)

    try:
        with anyio.fail_after(timeout_seconds):
            ended = await connection.execute(command, sink, reserved=reserved)
    except TimeoutError as error:
        raise Failure("timed_out", f"{connection.address} did not answer in time.", "Try again in a minute.") from error
    return ended.status if ended.status is not None else -1, said.text()


async def stop_all(connection: "Connection", started: Started, *, grace_seconds: float, in_pod: bool = False) -> bool:
    """Ask all that a command started to end, and kill what does not; return whether nothing is found of it any more.

    Args:
        connection: To the pod.
        started: What to end.
        grace_seconds: What has not ended so much later is killed.
        in_pod: Whether the pod is to kill it also if this server, or the connection, is gone by then.

    Raises:
        Failure: the connection broke.
    """
    found, kill_later = "", _KILL_LATER.format(seconds=grace_seconds) if in_pod else ""
    for signal, seconds, afterwards in (("TERM", grace_seconds, kill_later), ("KILL", _GRACE_SECONDS, "")):
        found = await _act(connection, started, found, signal, afterwards)
        # Looking takes its time too, on a pod that is busy or far away.
        until, pause = anyio.current_time() + seconds, 0.05
        while anyio.current_time() < until:
            found = await _act(connection, started, found)
            if not found:
                return True
            await anyio.sleep(pause)
            if signal == "KILL":
                found = await _act(connection, started, found, signal)  # also to what was just being started
            pause = min(2 * pause, 0.5)
    return not await _act(connection, started, found)


async def is_alive(connection: "Connection", started: Started) -> bool:
    """Whether something that a command started is found there.

    Raises:
        Failure: the connection broke.
    """
    return bool(await _act(connection, started, ""))


@cache
def processes_script() -> str:
    """The part of a shell script that finds what was started, and sends it signals."""
    return files(__package__).joinpath("processes.sh").read_text()


async def _act(
    connection: "Connection", started: Started, found: str, signal: str | None = None, afterwards: str = ""
) -> str:
    """Look for all that a command started, and send it a signal if that is wanted; return what was found alive.

    Args:
        connection: To the pod.
        started: What to look for.
        found: What an earlier look has found.
        signal: Its name.
        afterwards: What the shell that has looked is to do then.
    """
    group = started.group or ""
    script = [processes_script(), f"group={group} mark='{started.mark or _NOTHING}' found=' {found} '"]
    script.append(f"send {signal}" if signal else "look")
    script += ['echo "$found"', afterwards]
    without = f"kill -{signal or 0} -{group} 2>/dev/null && echo {_SOMETHING}" if group else "true"
    command = f"if [ -e /proc/self/stat ]; then sh -c {quote(chr(10).join(script))}; else {without}; fi"
    _, said = await run_short(connection, command, timeout_seconds=_KILL_SECONDS, reserved=True)
    return " ".join(_FOUND.findall(said))


def _first(mark: str, timeout_seconds: float) -> str:
    """What runs in the login shell before a command."""
    seconds = math.ceil(timeout_seconds) + _WATCH_LATER_SECONDS
    watch = _WATCH.format(processes=processes_script(), pattern=_pattern(mark), seconds=seconds)
    return _FIRST.format(watch=quote(watch), mark=mark, file=_MARKED_FILE.format(mark=mark))


def _pattern(mark: str) -> str:
    # The environment of the shell that looks may hold its command, which the pattern does not match.
    return f"LIUM[_]COMMAND={mark}"


async def _stop(
    connection: "Connection", started: Started, over: anyio.Event, grace_seconds: float, *, in_pod: bool = False
) -> State:
    """Stop a command; return whether it ended by itself just now, was stopped, runs on, or nobody knows."""
    if over.is_set():
        return "ended"
    try:
        with anyio.fail_after(3 * _KILL_SECONDS):
            gone = await stop_all(connection, started, grace_seconds=grace_seconds, in_pod=in_pod)
    except (Failure, TimeoutError):
        return "unknown"
    with anyio.move_on_after(_GRACE_SECONDS):
        await over.wait()  # for the last of the output
    # Dead processes stay in their group where nobody reaps them, so it counts too that the command itself has ended.
    return "stopped" if gone or over.is_set() else "running"
