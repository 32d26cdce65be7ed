"""The interpreter: it walks the tree of a script and runs commands, which are functions over the container.

Each process has one shell. Pipelines, subshells, substitutions and background commands are processes of their own.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from lium_mcp.sandbox.container.arithmetic import ArithmeticFault
from lium_mcp.sandbox.container.files import PATH_BYTES, Device, Directory, File
from lium_mcp.sandbox.container.kernel import Process
from lium_mcp.sandbox.container.streams import FileStream, Given, Null, Pipe, Stream, Taken
from lium_mcp.sandbox.container.syntax import SyntaxFault, parse
from lium_mcp.sandbox.container.tree import Chain, Command, For, Group, If, List, Pipeline, Redirect, Simple, While
from lium_mcp.sandbox.container.words import ExpansionFault, Scope, fields, text

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
SYNTAX_ERROR: Final = 2
MOST_NESTED: Final = 12
TAKEN_BYTES: Final = 1024 * 1024
PROGRAM_FOLDERS: Final = ("/bin/", "/usr/bin/", "/usr/local/bin/", "/usr/sbin/", "/sbin/")


class Exit(Exception):
    """``exit``: the shell ends."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class LoopControl(Exception):
    """``break`` or ``continue``, for so many loops."""

    def __init__(self, *, is_break: bool, levels: int) -> None:
        super().__init__(levels)
        self.is_break = is_break
        self.levels = levels


@dataclass
class Call:
    """One command that runs: its arguments, and the process and shell it runs in."""

    shell: "Shell"
    name: str
    arguments: list[str]

    @property
    def process(self) -> Process:
        """The process it runs in."""
        return self.shell.process

    async def out(self, text: str) -> None:
        """Write to standard output."""
        await self.process.write(text)

    async def fail(self, text: str, code: int = 1) -> int:
        """Write a line to standard error that says which command fails, and return the exit code."""
        await self.process.complain(f"{self.name}: {text}")
        return code


Program = Callable[[Call], Awaitable[int]]


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
    last_substitution: int = 0
    loops: int = 0
    conditions: int = 0

    async def run_text(self, script: str, *, ends: bool = True) -> int:
        """Run a script in this process; with ``ends`` its ``exit`` ends only the script, else it is raised on."""
        try:
            tree = parse(script)
        except SyntaxFault as fault:
            await self.process.complain(f"{self.name}: {fault}")
            return self._ended(SYNTAX_ERROR)
        return await (self.run_whole(tree) if ends else self._list(tree))

    async def run_whole(self, tree: List) -> int:
        """Run a tree to its end, or to its ``exit``."""
        self.process.nested += 1
        try:
            if self.process.nested > MOST_NESTED:
                await self.process.complain(f"{self.name}: nested too deeply")
                return NOT_EXECUTABLE
            return await self._until_exit(self._list(tree))
        finally:
            self.process.nested -= 1

    async def run_all(self, command: Command) -> int:
        """Run the one command that this process is there for."""
        return await self._until_exit(self._command(command, is_all=True))

    async def _until_exit(self, work: Awaitable[int]) -> int:
        try:
            return await work
        except Exit as end:
            return end.code
        except LoopControl:
            return self.last_status

    async def run_words(self, words: list[str]) -> int:
        """Run a command given by its words, as ``env`` and ``timeout`` do."""
        self.process.budget.spend()
        name = words[0]
        for folder in PROGRAM_FOLDERS:
            if name.startswith(folder) and name.removeprefix(folder) in self.programs:
                name = name.removeprefix(folder)
        if program := self.programs.get(name):
            title, self.process.title = self.process.title, " ".join(words)[:PATH_BYTES]
            self.process.nested += 1
            try:
                if self.process.nested > MOST_NESTED:
                    await self.process.complain(f"{self.name}: nested too deeply")
                    return NOT_EXECUTABLE
                return await program(Call(self, name, words[1:]))
            except OSError as error:
                await self.process.complain(f"{name}: {error.strerror}")
                return 1
            finally:
                self.process.nested -= 1
                self.process.title = title
        return await self._run_file(name, words)

    def start(self, words: list[str], *, own_group: bool = False) -> Process:
        """Start a command given by its words in a process of its own."""

        async def main(process: Process) -> int:
            shell = self.inside(process)
            return await shell._until_exit(shell.run_words(words))  # noqa: SLF001 - its own class

        streams = self.process.streams
        title = " ".join(words)[:PATH_BYTES]
        return self.process.kernel.spawn(main, title, streams=streams, parent=self.process, own_group=own_group)

    def inside(self, process: Process) -> "Shell":
        """Return the same shell in another process, as after a fork."""
        return Shell(
            process,
            self.programs,
            list(self.arguments),
            self.name,
            set(self.options),
            self.pid or self.process.pid,
            self.last_status,
            self.last_background,
            conditions=self.conditions,
        )

    # lists and pipelines

    async def _list(self, tree: List) -> int:
        status = 0
        for chain in tree.chains:
            status = await self._chain(chain)
        return status

    async def _chain(self, chain: Chain) -> int:
        if chain.in_background:
            self._start_in_background(chain)
            return self._ended(0)
        status = await self._pipeline(chain.first, is_condition=bool(chain.rest))
        is_last = not chain.rest
        for number, (operator, pipeline) in enumerate(chain.rest):
            if (operator == "&&") == (status == 0):
                is_last = number == len(chain.rest) - 1
                status = await self._pipeline(pipeline, is_condition=not is_last)
            else:
                is_last = False
        is_negated = (chain.rest[-1][1] if chain.rest else chain.first).is_negated
        if status != 0 and "e" in self.options and is_last and not is_negated and not self.conditions:
            raise Exit(status)
        return status

    def _start_in_background(self, chain: Chain) -> None:
        async def main(process: Process) -> int:
            shell = self.inside(process)
            if not chain.rest and len(chain.first.commands) == 1 and not chain.first.is_negated:
                return await shell.run_all(chain.first.commands[0])
            return await shell.run_whole(List((Chain(chain.first, chain.rest, False, chain.source),)))

        streams = {**self.process.streams, 0: Null()}
        self.last_background = self.process.kernel.spawn(
            main, " ".join(chain.source.split())[:PATH_BYTES], streams=streams, parent=self.process
        ).pid

    async def _pipeline(self, pipeline: Pipeline, *, is_condition: bool) -> int:
        self.conditions += is_condition or pipeline.is_negated
        try:
            if len(pipeline.commands) == 1:
                status = await self._command(pipeline.commands[0])
            else:
                status = await self._piped(pipeline.commands)
        finally:
            self.conditions -= is_condition or pipeline.is_negated
        return self._ended(int(not status) if pipeline.is_negated else status)

    async def _piped(self, commands: tuple[Command, ...]) -> int:
        kernel, source = self.process.kernel, self.process.streams.get(0)
        started: list[Process] = []
        held: Stream | None = None
        for number, command in enumerate(commands):
            streams = dict(self.process.streams)
            if source is not None:
                streams[0] = source
            if number < len(commands) - 1:
                pipe = Pipe(kernel)
                streams[1], source = pipe.writer, pipe.reader
            started.append(kernel.spawn(self._alone(command), command.source, streams=streams, parent=self.process))
            if held is not None:
                held.release()
            # Until the next process has it, nobody else holds the reading end.
            held = source.hold() if source is not None and number < len(commands) - 1 else None
        for process in started:
            await self.process.end_of(process)
        codes = [process.exit_code or 0 for process in started]
        return next((code for code in reversed(codes) if code), 0) if "pipefail" in self.options else codes[-1]

    def _alone(self, command: Command) -> Callable[[Process], Any]:
        return lambda process: self.inside(process).run_all(command)

    def _ended(self, status: int) -> int:
        self.last_status = status
        return status

    # commands

    async def _command(self, command: Command, *, is_all: bool = False) -> int:
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
            return await self._redirected_command(command)
        except (ExpansionFault, ArithmeticFault) as fault:
            await self.process.complain(f"{self.name}: {fault}")
            return 1
        except _RedirectFault as fault:
            self.process.streams = before
            await self.process.complain(f"{self.name}: {fault}")
            return 1
        except OSError as error:
            self.process.streams = before
            await self.process.complain(f"{self.name}: {error.strerror}")
            return 1
        finally:
            self.process.streams = before
            for stream in held:
                stream.release()

    async def _redirected_command(self, command: Command) -> int:
        match command:
            case Simple():
                return await self._simple(command)
            case Group(body, True):
                child = self.process.kernel.spawn(
                    lambda process: self.inside(process).run_whole(body),
                    command.source[:PATH_BYTES],
                    streams=self.process.streams,
                    parent=self.process,
                )
                await self.process.end_of(child)
                return child.exit_code or 0
            case Group(body):
                return await self._list(body)
            case If():
                return await self._if(command)
            case For():
                return await self._for(command)
            case While():
                return await self._while(command)

    async def _simple(self, command: Simple) -> int:
        self.last_substitution = 0
        words = await fields(command.words, self.scope())
        values = {name: await text(word, self.scope()) for name, word in command.assignments}
        self.process.budget.spend_on(sum(map(len, words)) + sum(map(len, values.values())))
        if "x" in self.options:
            await self.process.complain(f"+ {' '.join([*(f'{n}={v}' for n, v in values.items()), *words])}")
        variables, exported = self.process.variables, self.process.exported
        if not words:
            variables.update(values)
            return self.last_substitution
        before, exported_before = {name: variables.get(name) for name in values}, set(exported)
        variables.update(values)
        exported.update(values)
        try:
            return await self.run_words(words)
        finally:
            for name, value in before.items():
                if value is None:
                    variables.pop(name, None)
                else:
                    variables[name] = value
            exported.difference_update(set(values) - exported_before)

    async def _condition(self, tree: List) -> bool:
        self.conditions += 1
        try:
            return await self._list(tree) == 0
        finally:
            self.conditions -= 1

    async def _if(self, command: If) -> int:
        for condition, body in command.branches:
            if await self._condition(condition):
                return await self._list(body)
        return await self._list(command.otherwise) if command.otherwise is not None else 0

    async def _for(self, command: For) -> int:
        status = 0
        for value in await fields(command.words, self.scope()):
            self.process.variables[command.name] = value
            goes_on, status = await self._turn(command.body, status)
            if not goes_on:
                break
        return status

    async def _while(self, command: While) -> int:
        status, goes_on = 0, True
        while goes_on and await self._condition(command.condition) != command.until:
            goes_on, status = await self._turn(command.body, status)
        return status

    async def _turn(self, body: List, status: int) -> tuple[bool, int]:
        self.process.budget.spend()
        self.loops += 1
        try:
            return True, await self._list(body)
        except LoopControl as control:
            if control.levels > 1 and self.loops > 1:
                raise LoopControl(is_break=control.is_break, levels=control.levels - 1) from None
            return not control.is_break, status
        finally:
            self.loops -= 1

    async def _run_file(self, name: str, words: list[str]) -> int:
        if "/" not in name:
            await self.process.complain(f"{self.name}: {name[:200]}: command not found")
            return NOT_FOUND
        node = _found(self.process, name)
        if node is None:
            await self.process.complain(f"{self.name}: {name[:200]}: No such file or directory")
            return NOT_FOUND
        if not isinstance(node, File) or not node.mode & 0o111:
            problem = "Is a directory" if isinstance(node, Directory) else "Permission denied"
            await self.process.complain(f"{self.name}: {name[:200]}: {problem}")
            return NOT_EXECUTABLE
        first_line = bytes(node.data[:200]).split(b"\n")[0]
        program = "python3" if first_line.startswith(b"#!") and b"python" in first_line else "sh"
        return await self.run_words([program, *words])

    # values and redirections

    def scope(self) -> Scope:
        """Return where the values of words come from, now."""
        special = {"?": str(self.last_status), "$": str(self.pid or self.process.pid), "0": self.name}
        if self.last_background is not None:
            special["!"] = str(self.last_background)
        variables, process = self.process.variables, self.process
        variables["PWD"] = process.cwd
        return Scope(
            process.files, process.cwd, variables, special, self.arguments, self._substitute, "u" in self.options
        )

    async def _substitute(self, tree: List) -> str:
        taken = Taken(TAKEN_BYTES)
        child = self.process.kernel.spawn(
            lambda process: self.inside(process).run_whole(tree),
            self.name,
            streams={**self.process.streams, 1: taken},
            parent=self.process,
        )
        await self.process.end_of(child)
        self.last_substitution = child.exit_code or 0
        return taken.data.decode("utf-8", "surrogateescape").replace("\0", "").rstrip("\n")

    async def _redirect(self, redirect: Redirect, held: list[Stream]) -> None:
        streams = self.process.streams
        target = await text(redirect.target, self.scope())
        if redirect.operator == ">&":
            if target == "-":
                streams.pop(redirect.number, None)
                return
            if not re.fullmatch("[0-9]", target) or int(target) not in streams:
                raise _RedirectFault(f"{target[:200]}: Bad file descriptor")
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
            raise _RedirectFault(f"{path[:200]}: {error.strerror}") from None
        return open_stream(node, files.now, appends=operator == ">>")


class _RedirectFault(Exception):
    """A redirection that cannot be made."""


def _found(process: Process, path: str) -> object:
    try:
        return process.files.find(path, process.cwd).node
    except OSError:
        return None


def open_stream(node: File | Device, now: Callable[[], float], *, appends: bool = False) -> Stream:
    """Open a file, or one of the devices."""
    if isinstance(node, File):
        return FileStream(node, now, appends=appends)
    return Null({"zero": b"\0", "urandom": b"\x5a"}.get(node.kind, b""))


def run_shell(programs: dict[str, Program], script: str) -> Callable[[Process], Any]:
    """Return the main function of a process that runs a script."""

    async def main(process: Process) -> int:
        return await Shell(process, programs, name="bash").run_text(script)

    return main
