"""Background jobs: does on the sandbox's clock what a job runner script would do.

A client puts ``command`` and a runner script into a folder of its own under ``.lium-mcp/jobs`` and starts the runner
with a time limit. The runner keeps ``container``, ``pid``, ``started_at`` and ``log`` there, and at the end
``ended_by``, ``finished_at`` and, last of all, ``exit_code``.
"""

import posixpath
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from lium_mcp.sandbox.container.processes import TERMINATED, Process
from lium_mcp.sandbox.container.shell import CommandCall, Shell
from lium_mcp.sandbox.container.streams import FileStream, Signalled, Stream

SECOND_LINE: Final = b"# lium-mcp job runner, version 1"
TIMED_OUT: Final = 124
GRACE_SECONDS: Final = 10.0


def is_runner(script: bytes) -> bool:
    """Whether a script is the runner that clients bring along."""
    return script[:1000].split(b"\n")[1:2] == [SECOND_LINE]


async def play(call: CommandCall, path: str, max_seconds: int) -> int:
    """Run the command of the job's folder; return when what it put in the background has ended too, or time is over."""
    process, files = call.process, call.process.files
    folder = posixpath.dirname(files.find(path, process.cwd).path)

    taken = posixpath.join(folder, "taken")
    if files.find(taken).node is not None:
        return 0
    files.make_directory(taken)

    def note(name: str, text: str) -> None:
        files.write_file(posixpath.join(folder, name), f"{text}\n".encode())

    note("container", str(process.kernel.host.started_ticks))
    note("pid", str(process.group))
    note("started_at", str(int(process.now.timestamp())))
    log = FileStream(
        files.open_file(posixpath.join(folder, "log"), create=True, truncate=True), files.now, appends=True
    )
    command = partial(Shell.run_words, words=["bash", posixpath.join(folder, "command")])
    child = call.shell.start(command, streams={0: Stream(), 1: log, 2: log})
    try:
        ended_by = "itself" if await _is_in_time(call, child, note, max_seconds) else "time_limit"
    except Signalled as signalled:
        if signalled.number != TERMINATED:
            raise
        ended_by = "stop"
    process.kernel.signal(_others(call), TERMINATED)
    code = await child.end(within_seconds=GRACE_SECONDS) or 0
    if files.find(posixpath.join(folder, "ended_by")).node is None:
        note("ended_by", ended_by)
    if files.find(posixpath.join(folder, "command_ended")).node is None:
        note("finished_at", str(int(process.now.timestamp())))
    note("exit_code.new", str(TIMED_OUT if ended_by == "time_limit" else code))
    files.rename(posixpath.join(folder, "exit_code.new"), posixpath.join(folder, "exit_code"))
    return code


async def _is_in_time(call: CommandCall, child: Process, note: Callable[[str, str], None], max_seconds: int) -> bool:
    """Wait for the command and for what it put in the background; whether the command has ended in time."""
    ends_at = call.process.now + timedelta(seconds=max_seconds)
    code = await child.end(within_seconds=max_seconds)
    if code is not None and _others(call):
        note("finished_at", str(int(call.process.now.timestamp())))
        note("command_ended", str(code))
    for each in _others(call):
        await each.end(within_seconds=max((ends_at - call.process.now).total_seconds(), 0))
    return code is not None


def _others(call: CommandCall) -> list[Process]:
    return [each for each in call.process.kernel.group(call.process.group) if each is not call.process]
