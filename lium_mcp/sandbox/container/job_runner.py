"""Background jobs: does on the sandbox's clock what a job runner script would do.

A client puts ``command`` and a runner script into a folder of its own under ``.lium-mcp/jobs`` and starts the runner
with a time limit. The runner keeps ``pid``, ``started_at`` and ``log`` there, and at the end ``ended_by``,
``finished_at`` and, last of all, ``exit_code``.
"""

import posixpath
import re
from typing import Final

from lium_mcp.sandbox.container.processes import Process
from lium_mcp.sandbox.container.run import CommandCall
from lium_mcp.sandbox.container.streams import FileStream, Given
from lium_mcp.sandbox.container.waiting import TERMINATED, Signalled

SECOND_LINE: Final = b"# lium-mcp job runner, version 1"
TIMED_OUT: Final = 124
GRACE_SECONDS: Final = 10.0


def is_runner(script: bytes) -> bool:
    """Whether a script is the runner that clients bring along."""
    return script[:1000].split(b"\n")[1:2] == [SECOND_LINE]


async def play(call: CommandCall, path: str, arguments: list[str]) -> int:
    """Run the command of the job's folder, not longer than the first argument says."""
    process = call.process
    folder = posixpath.dirname(process.files.find(path, process.cwd).path)
    if not arguments or not re.fullmatch("[0-9]{1,9}", arguments[0]):
        return await call.fail("usage: run max_seconds", 2)

    def note(name: str, text: str) -> None:
        process.files.write_file(posixpath.join(folder, name), f"{text}\n".encode())

    note("pid", str(process.group))
    note("started_at", str(int(process.now.timestamp())))
    child = _start(call, folder)
    ended_by = "itself"
    try:
        if not await process.end_of(child, within_seconds=int(arguments[0])):
            ended_by = "time_limit"
            _end(process, TERMINATED)
            await process.end_of(child, within_seconds=GRACE_SECONDS)
    except Signalled as signalled:
        if signalled.number != TERMINATED:
            raise
        ended_by = "stop"
        _end(process, TERMINATED)
        await process.end_of(child, within_seconds=GRACE_SECONDS)
    code = TIMED_OUT if ended_by == "time_limit" else child.exit_code or 0
    if process.files.find(posixpath.join(folder, "ended_by")).node is None:
        note("ended_by", ended_by)
    note("finished_at", str(int(process.now.timestamp())))
    note("exit_code.new", str(code))
    process.files.rename(posixpath.join(folder, "exit_code.new"), posixpath.join(folder, "exit_code"))
    return code


def _start(call: CommandCall, folder: str) -> Process:
    process = call.process
    log = process.files.open_file(posixpath.join(folder, "log"), create=True, truncate=True)
    stream = FileStream(log, process.files.now, appends=True)
    before, process.streams = process.streams, {0: Given(), 1: stream, 2: stream}
    try:
        child = call.shell.start(["bash", posixpath.join(folder, "command")])
    finally:
        process.streams = before
    child.cwd = process.variables.get("HOME", "/root")
    return child


def _end(process: Process, number: int) -> None:
    others = [each for each in process.kernel.group(process.group) if each is not process]
    process.kernel.signal(others, number)
