"""Commands that change the shell they run in: cd, export, set, exit, read and their like; and ``test``."""

import operator
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.commands.inputs import Usage, options, whole_number
from lium_mcp.sandbox.container.commands.trees import size_of
from lium_mcp.sandbox.container.files import Directory, File, Link, Node
from lium_mcp.sandbox.container.shell import Call, Exit, LoopControl, Program
from lium_mcp.sandbox.container.syntax import NAME

LONGEST_LINE: Final = 64 * 1024
NUMBER_DIGITS: Final = 18
NOT_A_TEST: Final = 2
BYTES_READ_PER_STEP: Final = 100
_FILE_TESTS: Final = frozenset(f"-{letter}" for letter in "efdsrwxLh")
_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "-eq": operator.eq,
    "-ne": operator.ne,
    "-lt": operator.lt,
    "-le": operator.le,
    "-gt": operator.gt,
    "-ge": operator.ge,
}


async def true(_: Call) -> int:
    """Succeed."""
    return 0


async def false(_: Call) -> int:
    """Fail."""
    return 1


async def cd(call: Call) -> int:
    """Change the directory."""
    process = call.process
    _, paths = options(call.arguments, "LP") if call.arguments != ["-"] else ({}, ["-"])
    target = paths[0] if paths else process.variables.get("HOME", "/root")
    if target == "-":
        target = process.variables.get("OLDPWD", process.cwd)
    try:
        process.files.directory(target, process.cwd)
        path = process.files.find(target, process.cwd).path
    except OSError as error:
        return await call.fail(f"{target[:200]}: {error.strerror}")
    process.variables["OLDPWD"], process.cwd = process.cwd, path
    return 0


async def pwd(call: Call) -> int:
    """Print the directory."""
    await call.out(f"{call.process.cwd}\n")
    return 0


async def export(call: Call) -> int:
    """Give variables to the commands that are started."""
    for word in call.arguments:
        name, equals, value = word.partition("=")
        if word in {"-n", "-p"}:
            continue
        if not NAME.fullmatch(name):
            return await call.fail(f"`{word[:100]}': not a valid identifier")
        if equals:
            call.process.variables[name] = value
        call.process.exported.add(name)
    return 0


async def unset(call: Call) -> int:
    """Forget variables."""
    for name in call.arguments:
        call.process.variables.pop(name, None)
        call.process.exported.discard(name)
    return 0


async def set_(call: Call) -> int:
    """Set options (e, u, x, pipefail) or the shell's arguments."""
    words = list(call.arguments)
    if not words:
        names = sorted(call.process.variables)
        await call.out("".join(f"{name}='{call.process.variables[name]}'\n" for name in names))
        return 0
    while words and words[0][:1] in {"-", "+"} and words[0] != "--":
        option = words.pop(0)
        change = call.shell.options.add if option.startswith("-") else call.shell.options.discard
        for letter in option[1:]:
            if letter == "o":
                change(_long_option(words.pop(0) if words else ""))
            elif letter in "eux":
                change(letter)
            elif letter not in "m+h":
                raise Usage(f"-{letter}: invalid option")
    if words:
        call.shell.arguments = words[words[0] == "--" :]
    return 0


def _long_option(name: str) -> str:
    letters = {"errexit": "e", "nounset": "u", "xtrace": "x", "pipefail": "pipefail"}
    if name not in letters:
        raise Usage(f"{name[:40]}: invalid option name")
    return letters[name]


async def exit_(call: Call) -> int:
    """End the shell."""
    raise Exit(_status(call))


def _status(call: Call) -> int:
    if not call.arguments:
        return call.shell.last_status
    return whole_number(call.arguments[0]) & 255


async def loop_control(call: Call) -> int:
    """Leave loops, or begin the next turn."""
    levels = whole_number(call.arguments[0]) if call.arguments else 1
    if not call.shell.loops:
        return await call.fail("only meaningful in a loop", 0)
    raise LoopControl(is_break=call.name == "break", levels=max(1, levels))


async def shift(call: Call) -> int:
    """Drop the first arguments."""
    count = whole_number(call.arguments[0]) if call.arguments else 1
    if count > len(call.shell.arguments):
        return 1
    del call.shell.arguments[:count]
    return 0


async def wait(call: Call) -> int:
    """Wait for background processes."""
    wanted = [whole_number(word) for word in call.arguments]
    status = 0
    for child in list(call.process.children):
        if not wanted or child.pid in wanted:
            await call.process.end_of(child)
            status = child.exit_code or 0
    return status if wanted else 0


async def source(call: Call) -> int:
    """Run a file in this shell."""
    if not call.arguments:
        raise Usage("filename argument required")
    data = call.process.files.read_file(call.arguments[0], call.process.cwd)
    return await call.shell.run_text(data.decode("utf-8", "surrogateescape"), ends=False)


async def eval_(call: Call) -> int:
    """Run the arguments as a script in this shell."""
    return await call.shell.run_text(" ".join(call.arguments), ends=False)


async def exec_(call: Call) -> int:
    """Run a command and end the shell with it."""
    if not call.arguments:
        return 0
    raise Exit(await call.shell.run_words(call.arguments))


async def read(call: Call) -> int:
    """Read one line into variables."""
    _, names = options(call.arguments, "r", "p")
    line, stream = bytearray(), call.process.streams.get(0)
    byte = b""
    while stream is not None and (byte := await stream.read(1)) and byte != b"\n":
        line += byte
        if len(line) > LONGEST_LINE:
            return await call.fail("line too long")
    call.process.budget.spend(len(line) // BYTES_READ_PER_STEP)
    names = names or ["REPLY"]
    if not all(NAME.fullmatch(name) for name in names):
        return await call.fail("not a valid identifier")
    words = line.decode("utf-8", "surrogateescape").split(None, len(names) - 1)
    for number, name in enumerate(names):
        call.process.variables[name] = words[number].rstrip() if number < len(words) else ""
    return 0 if byte else 1


async def test(call: Call) -> int:
    """Check files, texts and numbers."""
    words = list(call.arguments)
    if call.name == "[":
        if words[-1:] != ["]"]:
            return await call.fail("missing `]'", NOT_A_TEST)
        words.pop()
    if len(words) > 100:  # noqa: PLR2004 - nobody writes that many
        return await call.fail("too many arguments", NOT_A_TEST)
    try:
        return 0 if _either(call, words) else 1
    except ValueError as error:
        return await call.fail(str(error), NOT_A_TEST)


def _either(call: Call, words: list[str]) -> bool:
    for joint, combine in (("-o", any), ("-a", all)):
        if joint in words[1:-1] and len(words) > 3:  # noqa: PLR2004 - shorter ones compare the word itself
            at = words.index(joint, 1)
            return combine([_either(call, words[:at]), _either(call, words[at + 1 :])])
    return _single(call, words)


def _single(call: Call, words: list[str]) -> bool:
    match words:
        case []:
            return False
        case [text]:
            return bool(text)
        case ["!", *rest]:
            return not _single(call, rest)
        case ["-z" | "-n" | "-t" as kind, text]:
            return {"-z": not text, "-n": bool(text), "-t": False}[kind]
        case [kind, path] if kind in _FILE_TESTS:
            return _file_test(call, kind[1], path)
        case [left, "=" | "==" | "!=" as kind, right]:
            return (left == right) != (kind == "!=")
        case [left, kind, right] if kind in _COMPARISONS:
            return _COMPARISONS[kind](_number(left), _number(right))
    raise ValueError(f"{' '.join(words)[:100]}: not a test the sandbox knows")


def _file_test(call: Call, kind: str, path: str) -> bool:
    try:
        node: Node | None = call.process.files.find(path, call.process.cwd, follow=kind not in "Lh").node
    except OSError:
        return False
    match kind:
        case "f":
            return isinstance(node, File)
        case "d":
            return isinstance(node, Directory)
        case "L" | "h":
            return isinstance(node, Link)
        case "s":
            return node is not None and size_of(node) > 0
        case "x":
            return node is not None and bool(node.mode & 0o111)
    return node is not None


def _number(text: str) -> int:
    digits = text.strip().lstrip("+-")
    if not (
        digits.isascii()
        and digits.isdigit()
        and len(digits) <= NUMBER_DIGITS
        and text.strip()[1:] in {digits, digits[1:]}
    ):
        raise ValueError(f"{text[:40]}: integer expression expected")
    return int(text)


PROGRAMS: Final[dict[str, Program]] = {
    "true": true, ":": true, "false": false, "cd": cd, "pwd": pwd, "export": export, "unset": unset, "set": set_,
    "exit": exit_, "return": exit_, "break": loop_control, "continue": loop_control, "shift": shift, "wait": wait,
    ".": source, "source": source, "eval": eval_, "exec": exec_, "read": read, "test": test, "[": test,
}  # fmt: skip
