"""From the words of a command to its arguments: parameters, substitutions, splitting, wildcards."""

import fnmatch
import glob
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from lium_mcp.sandbox.container.arithmetic import evaluate
from lium_mcp.sandbox.container.files import PATH_BYTES, Directory, FileSystem
from lium_mcp.sandbox.container.tree import Arithmetic, List, Parameter, Substitution, Text, Word

LONGEST: Final = 4 * 1024 * 1024
MOST_FIELDS: Final = 10_000
_WILD: Final = frozenset("*?[")


class ExpansionFault(Exception):
    """A word that cannot be expanded."""


@dataclass
class Scope:
    """Where values come from."""

    files: FileSystem
    cwd: str
    variables: dict[str, str]
    special: dict[str, str]
    arguments: list[str]
    substitute: Callable[[List], Awaitable[str]]
    is_strict: bool = False


@dataclass
class _Fields:
    """Fields in the making: each is a list of pieces, quoted or not; the last may still be none."""

    done: list[list[tuple[str, bool]]] = field(default_factory=list)
    open: list[tuple[str, bool]] | None = None
    size: int = 0

    def add(self, text: str, *, quoted: bool) -> None:
        self.size += len(text) + 1
        if self.size > LONGEST or len(self.done) > MOST_FIELDS:
            raise ExpansionFault("argument list too long")
        if self.open is None:
            if not text and not quoted:
                return
            self.open = []
        self.open.append((text, quoted))

    def split(self) -> None:
        if self.open is not None:
            self.done.append(self.open)
            self.open = None

    def add_split(self, text: str) -> None:
        for number, piece in enumerate(text.split()):
            if number or text[0].isspace():
                self.split()
            self.add(piece, quoted=False)
        if text and text[-1].isspace():
            self.split()


async def fields(words: Iterable[Word], scope: Scope) -> list[str]:
    """Expand words to as many arguments as they make."""
    found: list[str] = []
    for word in words:
        made = await _expanded(word, scope)
        made.split()
        for pieces in made.done:
            found.extend(_matched(pieces, scope))
            if len(found) > MOST_FIELDS:
                raise ExpansionFault("argument list too long")
    if sum(map(len, found)) > LONGEST:
        raise ExpansionFault("argument list too long")
    return found


async def text(word: Word, scope: Scope) -> str:
    """Expand a word to one text, without splitting and wildcards."""
    made = _Fields()
    for number, part in enumerate(word):
        for value, _ in await _values(part, scope, is_first=number == 0):
            made.add(value, quoted=True)
    return "".join(piece for piece, _ in made.open or ())


async def _expanded(word: Word, scope: Scope) -> _Fields:
    made = _Fields()
    for number, part in enumerate(word):
        for position, (value, quoted) in enumerate(await _values(part, scope, is_first=number == 0)):
            if position:
                made.split()
            if quoted or isinstance(part, Text):
                made.add(value, quoted=quoted)
            else:
                made.add_split(value)
    return made


async def _values(
    part: Text | Parameter | Substitution | Arithmetic, scope: Scope, *, is_first: bool
) -> list[tuple[str, bool]]:
    """Return what a part stands for; several values are several fields."""
    match part:
        case Text(value, quoted):
            if is_first and not quoted and (value == "~" or value.startswith("~/")):
                return [(scope.variables.get("HOME", "/root") + value[1:], False)]
            return [(value, quoted)]
        case Substitution(body, quoted):
            return [(await scope.substitute(body), quoted)]
        case Arithmetic(expression, quoted):
            return [(str(evaluate(await text(expression, scope), scope.variables)), quoted)]
        case Parameter("@", True, ""):
            return [(argument, True) for argument in scope.arguments]
    return [(await _parameter(part, scope), part.quoted)]


async def _parameter(part: Parameter, scope: Scope) -> str:
    value = _value(part.name, scope)
    operator, argument = part.operator, part.argument or ()
    if operator == "length":
        return str(len(value or ""))
    is_there = value is not None and (bool(value) or not operator.startswith(":"))
    match operator[-1:]:
        case "+":
            return await text(argument, scope) if is_there else ""
        case "-" if not is_there:
            return await text(argument, scope)
        case "=" if not is_there:
            value = scope.variables[part.name] = await text(argument, scope)
    if value is None and scope.is_strict and part.name not in {"@", "*"}:
        raise ExpansionFault(f"{part.name}: unbound variable")
    return value or ""


def _value(name: str, scope: Scope) -> str | None:
    if name in {"@", "*"}:
        return " ".join(scope.arguments)
    if name == "#":
        return str(len(scope.arguments))
    if name.isdigit() and name != "0":
        number = int(name)
        return scope.arguments[number - 1] if number <= len(scope.arguments) else None
    if name in scope.special:
        return scope.special[name]
    return scope.variables.get(name)


def _matched(pieces: list[tuple[str, bool]], scope: Scope) -> list[str]:
    plain = "".join(piece for piece, _ in pieces)
    is_wild = any(not quoted and _WILD & set(piece) for piece, quoted in pieces)
    if not is_wild or len(plain) > PATH_BYTES:
        return [plain]
    pattern = "".join(glob.escape(piece) if quoted else piece for piece, quoted in pieces)
    return _paths(pattern, scope) or [plain]


def _paths(pattern: str, scope: Scope) -> list[str]:
    found = ["/" if pattern.startswith("/") else ""]
    parts = [part for part in pattern.split("/") if part]
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        found = [below for path in found for below in _entries(path, part, scope, is_last=is_last)]
    return sorted(found)


def _entries(path: str, part: str, scope: Scope, *, is_last: bool) -> list[str]:
    try:
        directory = scope.files.get(path or ".", scope.cwd)
    except OSError:
        return []
    if not isinstance(directory, Directory):
        return []
    if part in {".", ".."}:
        names = [part]
    else:
        names = [name for name in directory.entries if fnmatch.fnmatchcase(name, part)]
        names = [name for name in names if part.startswith(".") or not name.startswith(".")]
    return [f"{path}{name}" if is_last else f"{path}{name}/" for name in names]
