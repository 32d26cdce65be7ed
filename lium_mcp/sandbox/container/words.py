"""Expands the words of a command to its arguments: variables, ``$(...)``, splitting, wildcards."""

import fnmatch
import glob
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lium_mcp.sandbox.container.files import PATH_BYTES, Directory, FileSystem
from lium_mcp.sandbox.container.tree import Part, ShellScript, Substitution, Text, Word

LONGEST: Final = 4 * 1024 * 1024
MOST_FIELDS: Final = 10_000

# Text, and whether it is quoted, so that wildcards in it mean nothing.
Piece = tuple[str, bool]


class ExpansionFault(Exception):
    """A word cannot be expanded."""


@dataclass
class Scope:
    """Where values come from."""

    files: FileSystem
    cwd: str
    variables: dict[str, str]
    arguments: list[str]
    output_of: Callable[[ShellScript], Awaitable[str]]
    is_strict: bool = False


async def fields(words: Iterable[Word], scope: Scope) -> list[str]:
    """Expand words to arguments, of which a word may give none or several."""
    found: list[str] = []
    size = 0
    for word in words:
        for pieces in await _expanded(word, scope):
            found += _matching(pieces, scope)
            size += sum(len(piece) for piece, _ in pieces)
            if len(found) > MOST_FIELDS or size > LONGEST:
                raise ExpansionFault("argument list too long")
    return found


async def text(word: Word, scope: Scope) -> str:
    """Expand a word to one text, without splitting and wildcards."""
    values = [value for number, part in enumerate(word) for value, _ in await _values(part, scope, is_first=not number)]
    if sum(map(len, values)) > LONGEST:
        raise ExpansionFault("argument list too long")
    return "".join(values)


async def _expanded(word: Word, scope: Scope) -> list[list[Piece]]:
    made: list[list[Piece]] = [[]]
    for number, part in enumerate(word):
        for position, (value, quoted) in enumerate(await _values(part, scope, is_first=not number)):
            if position:
                made.append([])
            if quoted or isinstance(part, Text):
                made[-1].append((value, quoted))
                continue
            for piece in re.split(r"([ \t\n]+)", value):
                if piece.isspace():
                    made.append([])
                elif piece:
                    made[-1].append((piece, False))
            if len(made) > MOST_FIELDS or sum(len(piece) for piece, _ in made[-1]) > LONGEST:
                raise ExpansionFault("argument list too long")
    return [pieces for pieces in made if pieces]


async def _values(part: Part, scope: Scope, *, is_first: bool) -> list[Piece]:
    """Return what a part stands for; several values are several fields."""
    match part:
        case Text(value, quoted):
            if is_first and not quoted and (value == "~" or value.startswith("~/")):
                return [(scope.variables.get("HOME", "/root") + value[1:], False)]
            return [(value, quoted)]
        case Substitution(script, quoted):
            return [(await scope.output_of(script), quoted)]
    if part.name in {"@", "*"}:
        return [(argument, part.quoted) for argument in scope.arguments]
    numbered = {"#": str(len(scope.arguments))} | {str(n): each for n, each in enumerate(scope.arguments, 1)}
    found = numbered.get(part.name, scope.variables.get(part.name))
    if found is None and scope.is_strict:
        raise ExpansionFault(f"{part.name}: unbound variable")
    return [(found or "", part.quoted)]


def _matching(pieces: list[Piece], scope: Scope) -> list[str]:
    """Return the paths that fit a word with wildcards, or the word itself."""
    plain = "".join(piece for piece, _ in pieces)
    if len(plain) > PATH_BYTES or not any(not quoted and glob.has_magic(piece) for piece, quoted in pieces):
        return [plain]
    pattern = "".join(glob.escape(piece) if quoted else piece for piece, quoted in pieces)
    found = ["/" if pattern.startswith("/") else ""]
    parts = [part for part in pattern.split("/") if part]
    for number, part in enumerate(parts, 1):
        end = "" if number == len(parts) else "/"
        found = [f"{path}{name}{end}" for path in found for name in _names(path, part, scope)]
    return sorted(found) or [plain]


def _names(path: str, part: str, scope: Scope) -> list[str]:
    if part in {".", ".."}:
        return [part]
    try:
        node = scope.files.get(path or ".", scope.cwd)
    except OSError:
        return []
    names = node.entries if isinstance(node, Directory) else []
    return [name for name in names if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")]
