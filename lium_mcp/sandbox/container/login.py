"""A shell that reads its commands from its input: what a session without a command gets."""

from typing import Final

from lium_mcp.sandbox.container.kernel import Main, Process
from lium_mcp.sandbox.container.shell import Exit, Program, Shell
from lium_mcp.sandbox.container.syntax import SyntaxFault, parse
from lium_mcp.sandbox.container.waiting import INTERRUPTED, Signalled

LONGEST_INPUT: Final = 1024 * 1024


def interactive(programs: dict[str, Program], *, is_terminal: bool) -> Main:
    """Return the main function of a process that runs line after line."""

    async def main(process: Process) -> int:
        shell = Shell(process, programs, name="bash")
        if is_terminal:
            await process.write("Simulated pod of the Lium sandbox: nothing runs for real.\n")
        while True:
            if is_terminal:
                await process.write(f"root@{process.kernel.host.hostname}:{_shown(process)}# ")
            try:
                script = await _next(process)
                if script is None:
                    return shell.last_status
                await shell.run_text(script, ends=False)
            except Exit as end:
                return end.code
            except Signalled as signalled:
                if signalled.number != INTERRUPTED or not is_terminal:
                    raise

    return main


def _shown(process: Process) -> str:
    home = process.variables.get("HOME", "/root")
    return "~" + process.cwd.removeprefix(home) if process.cwd.startswith(home) else process.cwd


async def _next(process: Process) -> str | None:
    """Read lines until they make whole commands; None at the end of the input."""
    script, stream = "", process.streams.get(0)
    while len(script) < LONGEST_INPUT:
        line, byte = bytearray(), b""
        while stream is not None and (byte := await stream.read(1)) and byte != b"\n":
            line += byte
        script += line.decode("utf-8", "surrogateescape") + "\n" * bool(byte)
        if not byte:
            return script or None
        try:
            parse(script)
        except SyntaxFault as fault:
            if "unexpected end of file" in str(fault):
                continue
        return script
    return script
