"""Commands that change or ask the shell they run in, and those that only print: cd, export, exit, test, echo."""

import operator
import re
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.commands.operands import whole_number
from lium_mcp.sandbox.container.file_listing import size_of
from lium_mcp.sandbox.container.files import Directory, File, FileNode
from lium_mcp.sandbox.container.parse import NAME
from lium_mcp.sandbox.container.shell import CommandCall, Exit, Program, Usage

_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "-eq": operator.eq, "-ne": operator.ne, "-lt": operator.lt, "-le": operator.le, "-gt": operator.gt,
    "-ge": operator.ge,
}  # fmt: skip


async def true(_: CommandCall) -> int:
    """Succeed."""
    return 0


async def false(_: CommandCall) -> int:
    """Fail."""
    return 1


async def cd(call: CommandCall) -> int:
    """Change the directory."""
    process = call.process
    target = (call.arguments or [process.variables["HOME"]])[0]
    if target == "-":
        target = process.variables.get("OLDPWD", process.cwd)
    try:
        process.files.directory(target, process.cwd)
    except OSError as error:
        return await call.fail(f"{target[:200]}: {error.strerror}")
    before, process.cwd = process.cwd, process.files.find(target, process.cwd).path
    process.variables |= {"OLDPWD": before, "PWD": process.cwd}
    return 0


async def pwd(call: CommandCall) -> int:
    """Print the directory."""
    await call.out(f"{call.process.cwd}\n")
    return 0


async def export(call: CommandCall) -> int:
    """Set variables: commands that are started have all of them anyway."""
    for word in call.arguments:
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            return await call.fail(f"`{word[:100]}': not a valid identifier")
        if equals:
            call.process.variables[name] = value
    return 0


async def exit_(call: CommandCall) -> int:
    """End the shell."""
    raise Exit(whole_number((call.arguments or [call.process.variables["?"]])[0]) & 255)


async def echo(call: CommandCall) -> int:
    """Print the arguments."""
    words, end = list(call.arguments), "\n"
    if words[:1] == ["-n"]:
        words, end = words[1:], ""
    elif words and re.fullmatch("-[neE]+", words[0]):
        raise Usage("the sandbox's echo knows -n alone")
    await call.out(" ".join(words) + end)
    return 0


async def test(call: CommandCall) -> int:
    """Check files, texts and numbers."""
    words = list(call.arguments)
    if call.name == "[" and (not words or words.pop() != "]"):
        raise Usage("missing `]'")
    is_negated = len(words) > 1 and words[0] == "!"
    return int(_holds(call, words[is_negated:]) == is_negated)


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
                node = call.process.files.get(path, call.process.cwd)
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


PROGRAMS: Final[dict[str, Program]] = {
    "true": true, "false": false, "cd": cd, "pwd": pwd, "export": export, "exit": exit_, "echo": echo, "test": test,
    "[": test,
}  # fmt: skip
