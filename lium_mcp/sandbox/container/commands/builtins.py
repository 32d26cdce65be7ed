"""Commands that change or ask the shell they run in, and those that only print: cd, export, set, test, echo, printf."""

import operator
import re
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.commands.operands import whole_number
from lium_mcp.sandbox.container.file_listing import size_of
from lium_mcp.sandbox.container.files import Directory, File
from lium_mcp.sandbox.container.parse import NAME
from lium_mcp.sandbox.container.run import MISUSED, CommandCall, Exit, Program, Usage

MOST_NUMBERS: Final = 100_000
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
    target = (call.arguments or [process.variables.get("HOME", "/root")])[0]
    if target == "-":
        target = process.variables.get("OLDPWD", process.cwd)
    try:
        process.files.directory(target, process.cwd)
    except OSError as error:
        return await call.fail(f"{target[:200]}: {error.strerror}")
    process.variables["OLDPWD"], process.cwd = process.cwd, process.files.find(target, process.cwd).path
    return 0


async def pwd(call: CommandCall) -> int:
    """Print the directory."""
    await call.out(f"{call.process.cwd}\n")
    return 0


async def export(call: CommandCall) -> int:
    """Give variables to the commands that are started."""
    for word in call.arguments:
        name, equals, value = word.partition("=")
        if not NAME.fullmatch(name):
            return await call.fail(f"`{word[:100]}': not a valid identifier")
        if equals:
            call.process.variables[name] = value
        call.process.exported.add(name)
    return 0


async def set_(call: CommandCall) -> int:
    """Let the shell end at a failure (-e), refuse unknown variables (-u), and look at all of a pipe (-o pipefail)."""
    words = list(call.arguments)
    while words:
        letters = words.pop(0)
        if not re.fullmatch("[-+][euo]+", letters) or ("o" in letters and words[:1] != ["pipefail"]):
            raise Usage("the sandbox's set knows -e, -u and -o pipefail")
        names = {"pipefail" if letter == "o" else letter for letter in letters[1:]}
        del words[: "o" in letters]
        call.shell.options = call.shell.options | names if letters[0] == "-" else call.shell.options - names
    return 0


async def exit_(call: CommandCall) -> int:
    """End the shell."""
    raise Exit(whole_number(call.arguments[0]) & 255 if call.arguments else call.shell.last_status)


async def wait(call: CommandCall) -> int:
    """Wait for background processes."""
    wanted = [whole_number(word) for word in call.arguments]
    status = 0
    for child in list(call.process.children):
        if not wanted or child.pid in wanted:
            await call.process.end_of(child)
            status = child.exit_code or 0
    return status if wanted else 0


async def which(call: CommandCall) -> int:
    """Print where commands are."""
    for name in call.arguments:
        if name in call.shell.programs:
            await call.out(f"/usr/bin/{name}\n")
        else:
            call.status = 1
    return call.status


async def echo(call: CommandCall) -> int:
    """Print the arguments."""
    words = list(call.arguments)
    if words and re.fullmatch("-[neE]*e[neE]*", words[0]):
        raise Usage("the sandbox's echo knows -n; printf knows \\n")
    ends = "" if words[:1] == ["-n"] else "\n"
    await call.out(" ".join(words[not ends :]) + ends)
    return 0


async def printf(call: CommandCall) -> int:
    """Print by a template, which is used again until no argument is left."""
    if not call.arguments:
        raise Usage("usage: printf format [arguments]")
    template, *left = call.arguments
    pieces = re.split(r"(%.?|\\x[0-9A-Fa-f]{2}|\\.)", template, flags=re.DOTALL)
    known = {"%%": "%", "\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\", "\\e": "\x1b"}
    while True:
        before, shown = len(left), ""
        for piece in pieces:
            if piece in {"%s", "%d"}:
                shown += left.pop(0) if left else ("0" if piece == "%d" else "")
            elif piece.startswith("%") and piece not in known:
                raise Usage(f"the sandbox's printf knows %s, %d and %%, not {piece}")
            elif len(piece) == len("\\xff") and piece.startswith("\\x"):
                shown += bytes.fromhex(piece[2:]).decode("utf-8", "surrogateescape")
            else:
                shown += known.get(piece, piece)
        await call.out(shown)
        call.process.budget.spend()
        if not left or len(left) == before:
            return 0


async def seq(call: CommandCall) -> int:
    """Print whole numbers."""
    numbers = [whole_number(word, largest=10**9) for word in call.arguments]
    if not 1 <= len(numbers) <= 2:  # noqa: PLR2004 - first and last
        raise Usage("the sandbox's seq takes [FIRST] LAST")
    counted = range(numbers[0] if len(numbers) > 1 else 1, numbers[-1] + 1)
    if len(counted) > MOST_NUMBERS:
        raise Usage(f"the sandbox's seq prints at most {MOST_NUMBERS} numbers")
    await call.out("".join(f"{number}\n" for number in counted))
    return 0


async def yes(call: CommandCall) -> int:
    """Print a line again and again, until nobody reads on or the session has done all that it may."""
    line = (" ".join(call.arguments)[:1000] or "y") + "\n"
    while True:
        await call.out(line * 1000)


async def test(call: CommandCall) -> int:
    """Check files, texts and numbers."""
    words = list(call.arguments)
    if call.name == "[" and (not words or words.pop() != "]"):
        return await call.fail("missing `]'", MISUSED)
    is_negated = len(words) > 1 and words[0] == "!"
    try:
        holds = _holds(call, words[is_negated:])
    except ValueError as error:
        return await call.fail(str(error), MISUSED)
    return int(holds == is_negated)


def _holds(call: CommandCall, words: list[str]) -> bool:
    match words:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["-z" | "-n" as kind, text]:
            return bool(text) == (kind == "-n")
        case ["-e" | "-f" | "-d" | "-s" | "-x" | "-r" | "-w" as kind, path]:
            return _file_test(call, kind, path)
        case [left, "=" | "==" | "!=" as kind, right]:
            return (left == right) != (kind == "!=")
        case [left, kind, right] if kind in _COMPARISONS:
            return _COMPARISONS[kind](_number(left), _number(right))
    raise ValueError(f"{' '.join(words)[:100]}: not a test the sandbox knows")


def _file_test(call: CommandCall, kind: str, path: str) -> bool:
    try:
        node = call.process.files.get(path, call.process.cwd)
    except OSError:
        return False
    match kind:
        case "-s":
            return size_of(node) > 0
        case "-x":
            return bool(node.mode & 0o111)
    return isinstance(node, {"-f": File, "-d": Directory}.get(kind, object))


def _number(text: str) -> int:
    if not re.fullmatch("[-+]?[0-9]{1,18}", text.strip(), re.ASCII):
        raise ValueError(f"{text[:40]}: integer expression expected")
    return int(text)


PROGRAMS: Final[dict[str, Program]] = {
    "true": true, "false": false, "cd": cd, "pwd": pwd, "export": export, "set": set_,
    "exit": exit_, "wait": wait, "which": which, "echo": echo, "printf": printf, "seq": seq, "yes": yes, "test": test,
    "[": test,
}  # fmt: skip
