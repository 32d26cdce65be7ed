"""The shell: it walks the tree of a script and runs commands, which are functions over the container.

Each process has one shell. Pipelines, subshells, substitutions and background commands are processes of their own.
"""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lium_mcp.sandbox.container.files import PATH_BYTES, Directory, File
from lium_mcp.sandbox.container.parse import SyntaxFault, Unfinished, parse
from lium_mcp.sandbox.container.processes import Main, Process
from lium_mcp.sandbox.container.streams import FileStream, Given, Pipe, Stream, Taken
from lium_mcp.sandbox.container.tree import Chain, For, If, Redirect, ShellCommand, ShellScript, Simple, Subshell
from lium_mcp.sandbox.container.words import ExpansionFault, Scope, fields, text

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
MISUSED: Final = 2
NOT_STARTED: Final = 254
MOST_NESTED: Final = 12
TAKEN_BYTES: Final = 1024 * 1024
LONGEST_INPUT: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
PARSED_PER_STEP: Final = 400
_IN_PATH: Final = re.compile(r"(?:/usr|/usr/local)?/s?bin/([^/]+)")


class Exit(Exception):
    """``exit``: the shell ends."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Usage(Exception):
    """Arguments that the command does not take."""


@dataclass
class CommandCall:
    """One command that runs: its arguments, and the process and shell it runs in."""

    shell: "Shell"
    name: str
    arguments: list[str]
    status: int = 0

    @property
    def process(self) -> Process:
        """The process it runs in."""
        return self.shell.process

    async def write(self, data: bytes) -> None:
        """Write bytes to standard output, in pieces."""
        stream = self.process.streams.get(1)
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]
            self.process.budget.spend_on(len(piece))
            if stream is not None:
                await stream.write(piece)

    async def out(self, text: str) -> None:
        """Write text to standard output."""
        await self.write(text.encode("utf-8", "surrogateescape"))

    async def fail(self, text: str, code: int = 1) -> int:
        """Write a line to standard error that names the command, note the exit code, and return it."""
        await self.process.complain(f"{self.name}: {text}")
        self.status = code
        return code


Program = Callable[[CommandCall], Coroutine[Any, Any, int]]


def running(programs: dict[str, Program], script: str | None) -> Main:
    """Return the main function of a process that runs a script, or one that comes line by line."""

    async def main(process: Process) -> int:
        shell = Shell(process, programs, name="bash")
        return await (shell.to_end(shell.run_input()) if script is None else shell.run_text(script))

    return main


@dataclass
class Shell:
    """One shell in one process."""

    process: Process
    programs: dict[str, Program]
    arguments: list[str] = field(default_factory=list)
    name: str = "sh"
    options: set[str] = field(default_factory=set)
    pid: int = 0
    last_status: int = 0
    last_background: int | None = None
    # How many conditions this runs inside; in one, ``set -e`` does not apply.
    conditions: int = 0

    async def run_text(self, script: str) -> int:
        """Run a script to its end, or to its ``exit``."""
        try:
            tree = parse(script)
        except SyntaxFault as fault:
            await self.process.complain(f"{self.name}: {fault}")
            self.last_status = MISUSED
            return MISUSED
        return await self.to_end(self.run_script(tree))

    async def run_input(self) -> int:
        """Run what comes in, each time as soon as its lines make a complete command."""
        stream, script, byte = self.process.streams.get(0) or Stream(), "", b"\n"
        while byte:
            line = bytearray()
            while (byte := await stream.read(1)) and byte != b"\n" and len(line) < LONGEST_INPUT:
                line += byte
            script += line.decode("utf-8", "surrogateescape") + "\n" * bool(byte)
            self.process.budget.spend(len(script) // PARSED_PER_STEP)
            try:
                tree = parse(script)
            except SyntaxFault as fault:
                if isinstance(fault, Unfinished) and byte:
                    continue
                await self.process.complain(f"{self.name}: {fault}")
                self.last_status, tree = MISUSED, ShellScript(())
            script = ""
            await self.run_script(tree)
        return self.last_status

    async def run_words(self, words: list[str]) -> int:
        """Run a command given by its words, as ``nohup`` and ``find -exec`` do."""
        self.process.budget.spend()
        in_path = _IN_PATH.fullmatch(words[0])
        name = in_path.group(1) if in_path else words[0]
        program = self.programs.get(name)
        if program is None:
            return await self._run_file(words)
        title, self.process.title = self.process.title, " ".join(words)[:PATH_BYTES]
        try:
            return await self._nested(program(CommandCall(self, name, words[1:])))
        except Usage as usage:
            await self.process.complain(f"{name}: {usage}")
            return MISUSED
        except OSError as error:
            await self.process.complain(f"{name}: {error.strerror}")
            return 1
        finally:
            self.process.title = title

    def start(self, words: list[str], *, own_group: bool = False) -> Process:
        """Start a command given by its words in a process of its own."""
        return self._spawn(lambda shell: shell.run_words(words), " ".join(words), own_group=own_group)

    def _spawn(
        self,
        work: Callable[["Shell"], Coroutine[Any, Any, int]],
        title: str,
        streams: dict[int, Stream] | None = None,
        *,
        own_group: bool = False,
    ) -> Process:
        """Start a process that does some work in the same shell, as after a fork."""

        async def main(process: Process) -> int:
            shell = Shell(
                process, self.programs, list(self.arguments), self.name, set(self.options),
                self.pid or self.process.pid, self.last_status, self.last_background, self.conditions,
            )  # fmt: skip
            return await shell.to_end(work(shell))

        title = " ".join(title.split())[:PATH_BYTES]
        streams = self.process.streams if streams is None else streams
        return self.process.kernel.fork(self.process, main, title, streams=streams, own_group=own_group)

    async def to_end(self, work: Coroutine[Any, Any, int]) -> int:
        """Do some work until it ends, ``exit`` ends it, or an OSError does, such as one of a process not started."""
        try:
            return await self._nested(work)
        except Exit as end:
            return end.code
        except OSError as error:
            await self.process.complain(f"{self.name}: {error.strerror}")
            return NOT_STARTED

    async def _nested(self, work: Coroutine[Any, Any, int]) -> int:
        """Do some work unless it is nested too deeply, since Python's own stack is limited."""
        self.process.nested += 1
        try:
            if self.process.nested > MOST_NESTED:
                work.close()
                await self.process.complain(f"{self.name}: nested too deeply")
                return NOT_EXECUTABLE
            return await work
        finally:
            self.process.nested -= 1

    # scripts and pipelines

    async def run_script(self, script: ShellScript) -> int:
        """Run chains, one after the other."""
        status = 0
        for chain in script.chains:
            status = await self._chain(chain)
        return status

    async def _chain(self, chain: Chain) -> int:
        if chain.in_background:
            streams = {**self.process.streams, 0: Given()}
            self.last_background = self._spawn(_alone(chain), chain.source, streams).pid
            self.last_status = 0
            return 0
        status, last = 0, len(chain.pipelines) - 1
        is_checked = True
        for number, (operator, commands) in enumerate(chain.pipelines):
            if operator and (operator == "&&") != (status == 0):
                continue
            is_checked = number < last
            self.conditions += is_checked
            self.last_status = status = await (self._piped(commands) if commands[1:] else self.run_command(commands[0]))
            self.conditions -= is_checked
        if status != 0 and not is_checked and "e" in self.options and not self.conditions:
            raise Exit(status)
        return status

    async def _piped(self, commands: tuple[ShellCommand, ...]) -> int:
        started: list[Process] = []
        # The end that the next process reads from; until that process is started, only this holds it.
        reader: Stream | None = None
        try:
            for number, command in enumerate(commands):
                streams, held, reader = dict(self.process.streams), reader, None
                if held is not None:
                    streams[0] = held
                if number < len(commands) - 1:
                    pipe = Pipe()
                    streams[1], reader = pipe.writer, pipe.reader.hold()
                try:
                    started.append(self._spawn(_alone(command), command.source, streams))
                finally:
                    if held is not None:
                        held.release()
        finally:
            if reader is not None:
                reader.release()
        for process in started:
            await self.process.end_of(process)
        codes = [process.exit_code or 0 for process in started]
        return next((code for code in reversed(codes) if code), 0) if "pipefail" in self.options else codes[-1]

    # commands

    async def run_command(self, command: ShellCommand, *, is_all: bool = False) -> int:
        """Run a command; with ``is_all`` the process does nothing else, so that it lets go of what is redirected."""
        self.process.budget.spend()
        before = dict(self.process.streams)
        held: list[Stream] = []
        try:
            for redirect in command.redirects:
                await self._redirect(redirect, held)
            if is_all and command.redirects:
                for stream in self.process.streams.values():
                    stream.hold()
                for stream in before.values():
                    stream.release()
                before = dict(self.process.streams)
            return await self._redirected(command.what)
        except (ExpansionFault, OSError) as fault:
            self.process.streams = before
            await self.process.complain(f"{self.name}: {fault.strerror if isinstance(fault, OSError) else fault}")
            return 1
        finally:
            self.process.streams = before
            for stream in held:
                stream.release()

    async def _redirected(self, what: Simple | Subshell | If | For) -> int:
        match what:
            case Simple():
                return await self._simple(what)
            case Subshell(body):
                child = self._spawn(lambda shell: shell.run_script(body), self.name)
                await self.process.end_of(child)
                return child.exit_code or 0
            case If(branches, otherwise):
                for condition, body in branches:
                    self.conditions += 1
                    status = await self.run_script(condition)
                    self.conditions -= 1
                    if status == 0:
                        return await self.run_script(body)
                return await self.run_script(otherwise) if otherwise is not None else 0
            case For(name, words, body):
                status = 0
                for value in await fields(words, self._scope()):
                    self.process.budget.spend()
                    self.process.variables[name] = value
                    status = await self.run_script(body)
                return status

    async def _simple(self, command: Simple) -> int:
        scope = self._scope()
        if not command.words:
            self.last_status = 0
        words = await fields(command.words, scope)
        values = {name: await text(word, scope) for name, word in command.assignments}
        self.process.budget.spend_on(sum(map(len, words)) + sum(map(len, values.values())))
        variables, exported = self.process.variables, self.process.exported
        if not words:
            variables.update(values)
            return self.last_status
        if not values:
            return await self.run_words(words)
        self.process.variables, self.process.exported = variables | values, exported | values.keys()
        try:
            return await self.run_words(words)
        finally:
            self.process.variables, self.process.exported = variables, exported

    async def _run_file(self, words: list[str]) -> int:
        name = words[0]
        if "/" not in name:
            known = ", ".join(sorted(self.programs))
            await self.process.complain(f"{self.name}: {name[:200]}: command not found; the sandbox has only {known}")
            return NOT_FOUND
        try:
            node = self.process.files.get(name, self.process.cwd)
        except OSError as error:
            await self.process.complain(f"{self.name}: {name[:200]}: {error.strerror}")
            return NOT_FOUND
        if not isinstance(node, File) or not node.mode & 0o111:
            problem = "Is a directory" if isinstance(node, Directory) else "Permission denied"
            await self.process.complain(f"{self.name}: {name[:200]}: {problem}")
            return NOT_EXECUTABLE
        first_line = bytes(node.data[:200]).split(b"\n")[0]
        program = "python3" if first_line.startswith(b"#!") and b"python" in first_line else "sh"
        return await self.run_words([program, *words])

    # values and redirections

    def _scope(self) -> Scope:
        """Return where the values of words come from, now."""
        process = self.process
        process.variables["PWD"] = process.cwd
        special = {
            "?": str(self.last_status),
            "$": str(self.pid or process.pid),
            "0": self.name,
            "!": str(self.last_background or ""),
        }
        variables = process.variables | special
        return Scope(process.files, process.cwd, variables, self.arguments, self._output_of, "u" in self.options)

    async def _output_of(self, script: ShellScript) -> str:
        taken = Taken(TAKEN_BYTES)
        child = self._spawn(lambda shell: shell.run_script(script), self.name, {**self.process.streams, 1: taken})
        await self.process.end_of(child)
        self.last_status = child.exit_code or 0
        return taken.data.decode("utf-8", "surrogateescape").replace("\0", "").rstrip("\n")

    async def _redirect(self, redirect: Redirect, held: list[Stream]) -> None:
        streams = self.process.streams
        target = await text(redirect.target, self._scope())
        if redirect.operator == ">&":
            if not re.fullmatch("[0-9]", target) or int(target) not in streams:
                raise ExpansionFault(f"{target[:200]}: Bad file descriptor")
            streams[redirect.number] = streams[int(target)]
            return
        if redirect.operator == "<<":
            stream: Stream = Given(target.encode("utf-8", "surrogateescape"))
        else:
            stream = self._open(target, redirect.operator.removeprefix("&"))
        held.append(stream.hold())
        streams[redirect.number] = stream
        if redirect.operator.startswith("&"):
            streams[2] = stream

    def _open(self, path: str, operator: str) -> Stream:
        files, cwd = self.process.files, self.process.cwd
        try:
            node = files.open_file(path, cwd, create=operator != "<", truncate=operator == ">")
        except OSError as error:
            raise ExpansionFault(f"{path[:200]}: {error.strerror}") from None
        return FileStream(node, files.now, appends=operator == ">>")


def _alone(what: ShellCommand | Chain) -> Callable[[Shell], Coroutine[Any, Any, int]]:
    """Return the work of a process that does nothing but run this."""
    if isinstance(what, Chain) and len(what.pipelines) == len(what.pipelines[0][1]) == 1:
        what = what.pipelines[0][1][0]
    if isinstance(what, ShellCommand):
        return lambda shell: shell.run_command(what, is_all=True)
    return lambda shell: shell.run_script(ShellScript((replace(what, in_background=False),)))
