"""Commands that change or ask the shell they run in, and those that start, stop and list processes."""

import operator
import re
from collections.abc import Callable
from functools import partial
from typing import Final

from lium_mcp.sandbox.container import job_runner
from lium_mcp.sandbox.container.commands.operands import for_each_path, read, seconds, split_arguments, whole_number
from lium_mcp.sandbox.container.files import Directory, File, FileNode, size_of
from lium_mcp.sandbox.container.parse import NAME
from lium_mcp.sandbox.container.processes import SIGNALS, TERMINATED
from lium_mcp.sandbox.container.shell import NOT_FOUND, CommandCall, Exit, Program, Shell, Usage, Work

_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-lt": operator.lt, "-le": operator.le, "-gt": operator.gt,
    "-ge": operator.ge,
}  # fmt: skip


async def true(_: CommandCall) -> None:
    """Succeed."""


async def false(call: CommandCall) -> None:
    """Fail."""
    call.status = 1


@for_each_path(default="~")
async def cd(call: CommandCall, path: str) -> None:
    """Change the directory."""
    process = call.process
    path = path if call.operands else process.variables["HOME"]
    process.files.directory(path, process.cwd)
    process.cwd = process.variables["PWD"] = process.files.find(path, process.cwd).path


async def pwd(call: CommandCall) -> None:
    """Print the directory."""
    await call.out(f"{call.process.cwd}\n")


async def export(call: CommandCall) -> None:
    """Set variables: commands that are started have all of them anyway."""
    for word in call.arguments:
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            raise Usage(f"`{word[:100]}': not a valid identifier")
        if equals:
            call.process.variables[name] = value


async def exit_(call: CommandCall) -> None:
    """End the shell."""
    raise Exit(whole_number((call.arguments or [call.process.variables["?"]])[0]) & 255)


async def echo(call: CommandCall) -> None:
    """Print the arguments."""
    words, end = list(call.arguments), "\n"
    if words[:1] == ["-n"]:
        words, end = words[1:], ""
    elif words and re.fullmatch("-[neE]+", words[0]):
        raise Usage("the sandbox's echo knows -n alone")
    await call.out(" ".join(words) + end)


async def test(call: CommandCall) -> None:
    """Check files, texts and numbers."""
    words = list(call.arguments)
    if call.name == "[" and (not words or words.pop() != "]"):
        raise Usage("missing `]'")
    is_negated = len(words) > 1 and words[0] == "!"
    call.status = int(_holds(call, words[is_negated:]) == is_negated)


def _holds(call: CommandCall, words: list[str]) -> bool:
    match words:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["-z" | "-n" as kind, text]:
            return bool(text) == (kind == "-n")
        case ["-e" | "-f" | "-d" | "-s" as kind, path]:
            try:
                node = call.node(path)
            except OSError:
                return False
            wanted = {"-f": File, "-d": Directory}.get(kind, FileNode)
            return isinstance(node, wanted) and (kind != "-s" or size_of(node) > 0)
        case [left, "=" | "==" | "!=" as kind, right]:
            return (left == right) != (kind == "!=")
        case [left, kind, right] if kind in _COMPARISONS:
            return _COMPARISONS[kind](_number(left), _number(right))
    raise Usage(f"{' '.join(words)[:100]}: not a test the sandbox knows")


def _number(text: str) -> int:
    if not re.fullmatch("[-+]?[0-9]{1,18}", text.strip(), re.ASCII):
        raise Usage(f"{text[:40]}: integer expression expected")
    return int(text)


async def sh(call: CommandCall) -> None:
    """Run a script: -c TEXT, a file, or what comes in. A job runner's part is played by Python instead."""
    words, letters, name = list(call.arguments), "", call.name
    work: Work = Shell.run_input
    while words and words[0].startswith("-"):
        letters += words.pop(0)
    if set(letters) - set("-cl") or ("c" in letters and not words):
        raise Usage("the sandbox knows -c TEXT and -l")
    if "c" in letters:
        script = words.pop(0)
        name, *words = words or [name]
        work = partial(Shell.run_text, script=script)
    elif words:
        name, *words = words
        try:
            data = await read(call, name)
        except OSError as error:
            await call.fail(f"{name[:200]}: {error.strerror}", NOT_FOUND)
            return
        if job_runner.is_runner(data):
            call.status = await job_runner.play(call, name, whole_number(words[0] if words else "", largest=10**9))
            return
        work = partial(Shell.run_text, script=data.decode("utf-8", "surrogateescape"))
    call.status = await call.shell.run_within(name, words, work)


async def setsid(call: CommandCall) -> None:
    """Run a command in a session of its own."""
    if not call.arguments:
        raise Usage("no command specified")
    if call.process.group != call.process.pid:
        call.process.group = call.process.pid
        call.status = await call.shell.run_words(call.arguments)
    else:
        # A group leader cannot leave its group: the command runs in a child.
        call.shell.start(partial(Shell.run_words, words=call.arguments), own_group=True)


async def nohup(call: CommandCall) -> None:
    """Run a command as it is: no process here ends with its connection."""
    if not call.arguments:
        raise Usage("missing operand")
    call.status = await call.shell.run_words(call.arguments)


async def sleep(call: CommandCall) -> None:
    """Wait on the sandbox's clock."""
    if not call.arguments:
        raise Usage("missing operand")
    await call.process.sleep(sum(1e9 if word == "infinity" else seconds(word) for word in call.arguments))


async def kill(call: CommandCall) -> None:
    """Send a signal to processes, or with a minus to groups."""
    words, number, kernel = list(call.arguments), TERMINATED, call.process.kernel
    if words and words[0].startswith("-") and words[0] != "--":
        name = words.pop(0)[1:].upper().removeprefix("SIG")
        numbers = {str(each): each for each in (0, *SIGNALS.values())} | SIGNALS
        if name not in numbers:
            raise Usage(f"{name[:40]}: invalid signal specification (the sandbox knows {', '.join(SIGNALS)} and 0)")
        number = numbers[name]
    words = words[words[:1] == ["--"] :]
    if not words or not all(re.fullmatch("-?[0-9]{1,10}", word, re.ASCII) for word in words):
        raise Usage("usage: kill [-signal] [--] pid...")
    for word in words:
        target = int(word)
        found = kernel.group(-target) if word[0] == "-" else [p for p in kernel.processes.values() if p.pid == target]
        if not found:
            await call.fail(f"({target}) - No such process")
        elif number:
            kernel.signal(found, number)


async def ps(call: CommandCall) -> None:
    """List processes."""
    split_arguments(call, "efauxw")
    if set("".join(call.operands)) - set("aux"):
        raise Usage("the sandbox's ps takes aux or -ef")
    rows = ["    PID    PGID ELAPSED COMMAND\n", "      1       1   00:00 /usr/sbin/sshd -D\n"]
    for process in call.process.kernel.processes.values():
        minutes, left = divmod(int((process.now - process.started_at).total_seconds()), 60)
        rows.append(
            f"{process.pid:>7} {process.group:>7}   {minutes:02d}:{left:02d} {' '.join(process.title.split())[:200]}\n"
        )
    await call.out("".join(rows))


PROGRAMS: Final[dict[str, Program]] = {
    "true": true, "false": false, "cd": cd, "pwd": pwd, "export": export, "exit": exit_, "echo": echo, "test": test,
    "[": test, "sh": sh, "bash": sh, "setsid": setsid, "nohup": nohup, "sleep": sleep, "kill": kill, "ps": ps,
}  # fmt: skip
