"""The shell: it walks the tree of a script and runs commands, which are functions over the container.

Each process has one shell. Pipelines, subshells, substitutions and background commands are processes of their own.
"""

import posixpath
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from lium_mcp.sandbox.container.files import PATH_BYTES, File, FileNode
from lium_mcp.sandbox.container.parse import (
    MISUSED,
    NAME,
    Chain,
    For,
    If,
    Part,
    Redirect,
    ShellCommand,
    ShellFault,
    ShellScript,
    ShellVariable,
    Simple,
    Subshell,
    Substitution,
    Text,
    Unfinished,
    parse,
)
from lium_mcp.sandbox.container.processes import Main, Process
from lium_mcp.sandbox.container.streams import FileStream, Pipe, Stream, Streams, hold, release
from lium_mcp.sandbox.container.words import PIECES_PER_STEP, fields, text

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
NOT_STARTED: Final = 254
MOST_NESTED: Final = 12
TAKEN_BYTES: Final = 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024
PARSED_PER_STEP: Final = 100
BIN: Final = frozenset({"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"})


class Exit(Exception):
    """``exit``: the shell ends."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Usage(Exception):
    """Arguments that the command does not take."""


@dataclass
class CommandCall:
    """One command that runs: its arguments, its exit status so far, and the shell that runs it."""

    shell: "Shell"
    name: str
    arguments: list[str]
    # What the command has split its arguments into, if it has.
    options: dict[str, str] = field(default_factory=dict)
    operands: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def process(self) -> Process:
        """The process it runs in."""
        return self.shell.process

    def node(self, path: str) -> FileNode:
        """Return what is at a path."""
        return self.process.files.get(path, self.process.cwd)

    async def write(self, data: bytes) -> None:
        """Write bytes to standard output, in pieces."""
        for start in range(0, len(data), CHUNK_BYTES):
            piece = data[start : start + CHUNK_BYTES]
            self.process.budget.spend_on(len(piece))
            await self.process.streams[1].write(piece)

    async def out(self, text: str) -> None:
        """Write text to standard output."""
        await self.write(text.encode("utf-8", "surrogateescape"))

    async def fail(self, text: str, code: int = 1) -> None:
        """Write a line to standard error that names the command, and note its exit code."""
        await self.process.complain(f"{self.name}: {text}")
        self.status = code


Program = Callable[[CommandCall], Coroutine[Any, Any, None]]
Work = Callable[["Shell"], Coroutine[Any, Any, int]]


def shell_doing(work: Work, programs: Mapping[str, Program]) -> Main:
    """Return the main function of a process in which a shell does some work."""

    async def main(process: Process) -> int:
        return await Shell(process, programs).to_end(work)

    return main


def positional(name: str, arguments: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables of a shell that begins: ``$0``, ``$1`` and so on, ``$#``, ``$?`` and ``$!``."""
    numbered = {str(number): each for number, each in enumerate([name, *arguments])}
    return numbered | {"#": str(len(numbered) - 1), "?": "0", "!": ""}


@dataclass
class Shell:
    """One shell in one process. All that it knows are the process's variables, among them ``?``."""

    process: Process
    programs: Mapping[str, Program]
    # Of the last $(...): the status of an assignment without a command.
    status_of_substitution: int = 0

    async def run_text(self, script: str) -> int:
        """Run a script to its end, or to its ``exit``."""
        return await self.run_script(parse(script))

    async def run_input(self) -> int:
        """Run what comes in, each time as soon as its lines make a complete script."""
        script, chunk = b"", b"\n"
        while chunk:
            chunk = await self.process.streams[0].read(CHUNK_BYTES)
            script += chunk
            self.process.budget.spend(len(script) // PARSED_PER_STEP)
            if chunk and not script.endswith(b"\n"):
                continue
            try:
                await self.run_script(parse(script.decode("utf-8", "surrogateescape")))
            except ShellFault as fault:
                if isinstance(fault, Unfinished) and chunk:
                    continue
                self._note(await self._complain(fault))
            script = b""
        return int(self.process.variables["?"])

    async def run_words(self, words: list[str]) -> int:
        """Run a command given by its words."""
        process = self.process
        process.budget.spend()
        folder, name = posixpath.split(words[0])
        program = self.programs.get(name) if not folder or folder in BIN else None
        if program is None:
            return await self._file(words)
        if process.nested >= MOST_NESTED:
            raise ShellFault(f"{name}: nested too deeply", NOT_EXECUTABLE)
        call, title = CommandCall(self, name, words[1:]), process.title
        process.title, process.nested = " ".join(words)[:PATH_BYTES], process.nested + 1
        try:
            await program(call)
        except Usage as usage:
            await call.fail(str(usage), MISUSED)
        except OSError as error:
            await call.fail(str(error.strerror))
        finally:
            process.title, process.nested = title, process.nested - 1
        return call.status

    async def run_within(self, name: str, arguments: list[str], work: Work) -> int:
        """Do the work of another shell in this process; it leaves this one's variables and directory alone."""
        process = self.process
        before = process.cwd, process.variables
        own = {key: value for key, value in process.variables.items() if NAME.fullmatch(key)}
        process.variables = own | positional(name, arguments)
        try:
            return await Shell(process, self.programs).to_end(work)
        finally:
            process.cwd, process.variables = before

    def start(self, work: Work, *, streams: Streams | None = None, own_group: bool = False) -> Process:
        """Start a process that does some work in the same shell, as after a fork."""
        parent = self.process
        return parent.kernel.start(
            shell_doing(work, self.programs),
            streams=parent.streams if streams is None else streams,
            cwd=parent.cwd,
            variables={"$": str(parent.pid)} | parent.variables,
            budget=parent.budget,
            group=None if own_group else parent.group,
        )

    async def to_end(self, work: Work) -> int:
        """Do some work until it ends, ``exit`` ends it, or it cannot go on, as without room for another process."""
        try:
            return await work(self)
        except Exit as end:
            return end.code
        except ShellFault as fault:
            return await self._complain(fault)
        except OSError as error:
            return await self._complain(ShellFault(str(error.strerror), NOT_STARTED))

    async def _complain(self, fault: ShellFault) -> int:
        await self.process.complain(f"{self.process.variables['0']}: {fault}")
        return fault.status

    def _note(self, status: int) -> int:
        self.process.variables["?"] = str(status)
        return status

    # scripts and pipelines

    async def run_script(self, script: ShellScript) -> int:
        """Run chains, one after the other."""
        status = 0
        for chain in script:
            status = self._begin(chain) if chain.in_background else await self.run_chain(chain)
        return status

    def _begin(self, chain: Chain) -> int:
        """Start a chain in the background."""
        (_, commands), *more = chain.pipelines
        work: Work = partial(Shell.run_chain, chain=chain)
        if not more and len(commands) == 1:
            work = partial(Shell.run_alone, command=commands[0])
        child = self.start(work, streams={**self.process.streams, 0: Stream()})
        self.process.variables["!"] = str(child.pid)
        return self._note(0)

    async def run_chain(self, chain: Chain) -> int:
        """Run pipelines, one after the other."""
        status = 0
        for operator, commands in chain.pipelines:
            if not operator or (operator == "&&") == (status == 0):
                status = await (self._pipeline(commands) if len(commands) > 1 else self._command(commands[0]))
                self._note(status)
        return status

    async def _pipeline(self, commands: Sequence[ShellCommand]) -> int:
        streams, pipes = self.process.streams, [Pipe() for _ in commands[1:]]
        sources = [streams[0], *pipes]
        targets = [*(pipe.writer for pipe in pipes), streams[1]]
        # Held until all are started: if one cannot be, those before it find that nobody reads.
        ends = hold(dict(enumerate([*sources, *targets])))
        try:
            started = [
                self.start(partial(Shell.run_alone, command=command), streams={**streams, 0: source, 1: target})
                for command, source, target in zip(commands, sources, targets, strict=True)
            ]
        finally:
            release(ends)
        for process in started:
            await process.end()
        return started[-1].exit_code or 0

    # commands

    async def _command(self, command: ShellCommand) -> int:
        process, before = self.process, self.process.streams
        process.streams = hold(before)
        try:
            return await self.run_alone(command)
        except ShellFault as fault:
            return await self._complain(fault)
        finally:
            release(process.streams)
            process.streams = before

    async def run_alone(self, command: ShellCommand) -> int:
        """Run a command, and let go for good of the streams that it redirects."""
        self.process.budget.spend()
        for redirect in command.redirects:
            await self._redirect(redirect)
        match command.what:
            case Simple() as simple:
                return await self._simple(simple)
            case Subshell(body):
                child = self.start(partial(Shell.run_script, script=body))
                return await child.end() or 0
            case If(branches):
                for condition, body in branches:
                    if await self.run_script(condition) == 0:
                        return await self.run_script(body)
                return 0
            case For(name, words, body):
                status = 0
                for value in await fields(words, self._value, self.process):
                    self.process.budget.spend()
                    self.process.variables[name] = value
                    status = await self.run_script(body)
                return status

    async def _simple(self, command: Simple) -> int:
        process, self.status_of_substitution = self.process, 0
        words = await fields(command.words, self._value, process)
        values = {name: await text(word, self._value) for name, word in command.assignments}
        process.budget.spend_on(sum(map(len, words)) + sum(map(len, values.values())))
        if not words:
            process.variables.update(values)
            return self.status_of_substitution
        if not values:
            return await self.run_words(words)
        before, process.variables = process.variables, process.variables | values
        try:
            return await self.run_words(words)
        finally:
            process.variables = before

    async def _file(self, words: list[str]) -> int:
        """Run what is no command: a script that is executable."""
        name = words[0]
        if "/" not in name:
            known = ", ".join(sorted(self.programs))
            raise ShellFault(f"{name[:200]}: command not found; the sandbox has only {known}", NOT_FOUND)
        try:
            node = self.process.files.get(name, self.process.cwd)
        except OSError as error:
            raise ShellFault(f"{name[:200]}: {error.strerror}", NOT_FOUND) from None
        if not isinstance(node, File) or not node.mode & 0o111:
            raise ShellFault(f"{name[:200]}: Permission denied", NOT_EXECUTABLE)
        is_python = b"python" in bytes(node.data[:200]).split(b"\n")[0]
        return await self.run_words(["python3" if is_python else "sh", *words])

    # values and redirections

    async def _value(self, part: Part) -> str:
        self.process.budget.spend(1 / PIECES_PER_STEP)
        match part:
            case Text(value):
                return value
            case ShellVariable(name):
                return self.process.variables.get(name, str(self.process.pid) if name == "$" else "")
            case Substitution(script):
                return await self._output_of(script)

    async def _output_of(self, script: ShellScript) -> str:
        pipe, taken = Pipe(), bytearray()
        pipe.hold()
        try:
            streams = {**self.process.streams, 1: pipe.writer}
            child = self.start(partial(Shell.run_script, script=script), streams=streams)
            while chunk := await pipe.read(CHUNK_BYTES):
                taken += chunk
                if len(taken) > TAKEN_BYTES:
                    raise ShellFault("the output of $(...) is too long")
        finally:
            pipe.release()
        self.status_of_substitution = await child.end() or 0
        return taken.decode("utf-8", "surrogateescape").replace("\0", "").rstrip("\n")

    async def _redirect(self, redirect: Redirect) -> None:
        process, target = self.process, await text(redirect.target, self._value)
        before = process.streams.get(redirect.number)
        process.streams[redirect.number] = self._target(redirect.operator, target).hold()
        if before is not None:
            before.release()

    def _target(self, operator: str, target: str) -> Stream:
        process, files = self.process, self.process.files
        if operator == ">&":
            numbered = {str(number): stream for number, stream in process.streams.items()}
            if target not in numbered:
                raise ShellFault(f"{target[:200]}: Bad file descriptor")
            return numbered[target]
        try:
            file = files.open_file(target, process.cwd, create=operator != "<", truncate=operator == ">")
        except OSError as error:
            raise ShellFault(f"{target[:200]}: {error.strerror}") from None
        return FileStream(file, files.now, appends=operator == ">>")
