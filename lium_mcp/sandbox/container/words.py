"""Expands the words of a command to its arguments: variables, ``$(...)``, splitting, wildcards."""

import fnmatch
import glob
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from lium_mcp.sandbox.container.files import PATH_BYTES
from lium_mcp.sandbox.container.parse import Part, ShellFault, Text, Word
from lium_mcp.sandbox.container.processes import Process

LONGEST: Final = 4 * 1024 * 1024
MOST_FIELDS: Final = 10_000
PIECES_PER_STEP: Final = 20

ValueOf = Callable[[Part], Awaitable[str]]


async def text(word: Word, value_of: ValueOf) -> str:
    """Expand a word to one text, without splitting and wildcards."""
    values = [await value_of(part) for part in word]
    if sum(map(len, values)) > LONGEST:
        raise ShellFault("argument list too long")
    return "".join(values)


async def fields(words: Iterable[Word], value_of: ValueOf, process: Process) -> list[str]:
    """Expand words to arguments, of which a word may give none or several."""
    found: list[str] = []
    size = 0
    for word in words:
        # The fields of this word, each of pieces, which are quoted or not.
        made: list[list[tuple[str, bool]]] = [[]]
        for part in word:
            value = await value_of(part)
            is_split = not part.quoted and not isinstance(part, Text)
            first, *rest = re.split("[ \t\n]+", value, maxsplit=MOST_FIELDS) if is_split else [value]
            made[-1].append((first, part.quoted))
            made += [[(piece, False)] for piece in rest]
            size += len(value)
            process.budget.spend(len(rest) / PIECES_PER_STEP)
            if len(found) + len(made) > MOST_FIELDS or size > LONGEST:
                raise ShellFault("argument list too long")
        for pieces in made:
            plain = "".join(piece for piece, _ in pieces)
            if plain or any(quoted for _, quoted in pieces):
                pattern = "".join(glob.escape(piece) if quoted else piece for piece, quoted in pieces)
                found += _matching(pattern, process) or [plain]
    return found


def _matching(pattern: str, process: Process) -> list[str]:
    """Return the paths that fit a pattern; none where it has no wildcards."""
    if len(pattern) > PATH_BYTES or not glob.has_magic(pattern):
        return []
    found = ["/" if pattern.startswith("/") else ""]
    parts = [part for part in pattern.split("/") if part]
    for number, part in enumerate(parts, 1):
        end = "" if number == len(parts) else "/"
        found = [f"{path}{name}{end}" for path in found for name in _names(path, part, process)]
        if len(found) > MOST_FIELDS:
            raise ShellFault("argument list too long")
    return sorted(found)


def _names(path: str, part: str, process: Process) -> list[str]:
    process.budget.spend()
    if part in {".", ".."}:
        return [part]
    try:
        names = process.files.directory(path or ".", process.cwd).entries
    except OSError:
        return []
    process.budget.spend(len(names) / PIECES_PER_STEP)
    return [name for name in names if fnmatch.fnmatchcase(name, part) and name.startswith(".") <= part.startswith(".")]
