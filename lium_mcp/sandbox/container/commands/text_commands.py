"""Commands over text: cat, head, tail, wc, grep, diff and sha256sum."""

import difflib
import hashlib
import math
import re
import warnings
from collections.abc import Iterator
from typing import Final

from lium_mcp.sandbox.container.commands.operands import (
    attempt,
    below,
    for_each_path,
    lines_of,
    opened,
    read,
    split_arguments,
    whole_number,
)
from lium_mcp.sandbox.container.files import File
from lium_mcp.sandbox.container.shell import CHUNK_BYTES, CommandCall, Program, Usage

LONGEST_PATTERN: Final = 200
MOST_WAYS_PER_LINE: Final = 10**7
WAYS_PER_STEP: Final = 1250
MOST_LINES_COMPARED: Final = 1000
PAIRS_PER_STEP: Final = 100


@for_each_path(default="-")
async def cat(call: CommandCall, path: str) -> None:
    """Print files, or what comes in, as it comes."""
    stream = opened(call, path)
    while chunk := await stream.read(CHUNK_BYTES):
        await call.write(chunk)


@for_each_path("n:", default="-")
async def head(call: CommandCall, path: str) -> None:
    """Print the first lines, and read no more than that."""
    left, stream = whole_number(call.options.get("n", "10")), opened(call, path)
    while left and (chunk := await stream.read(CHUNK_BYTES)):
        shown = b"".join(lines_of(chunk)[:left])
        left -= shown.count(b"\n")
        await call.write(shown)


@for_each_path("n:", default="-")
async def tail(call: CommandCall, path: str) -> None:
    """Print the last lines."""
    count, lines = whole_number(call.options.get("n", "10")), lines_of(await read(call, path))
    await call.write(b"".join(lines[max(0, len(lines) - count) :]))


@for_each_path("lwc", default="-")
async def wc(call: CommandCall, path: str) -> None:
    """Count lines, words and bytes."""
    data = await read(call, path)
    counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
    shown = [str(count) for letter, count in counts.items() if letter in (call.options or counts)]
    await call.out(" ".join(shown + [path] * (path != "-")) + "\n")


async def grep(call: CommandCall) -> None:
    """Print the lines that match."""
    split_arguments(call, "ivncqlEFr")
    found = call.options
    if not call.operands:
        raise Usage("usage: grep [options] pattern [file...]")
    pattern, choices = _pattern(call.operands[0], found)
    paths, matched = call.operands[1:] or ["." if "r" in found else "-"], False

    async def search(path: str) -> None:
        nonlocal matched
        prefix, shown = f"{path}:" if len(paths) > 1 or "r" in found else "", list[str]()
        for number, data in enumerate(lines_of(await read(call, path)), 1):
            line = data.decode("utf-8", "surrogateescape").removesuffix("\n")
            # ``re`` tries one split of a line after the other: it has fewer than so many ways to do it.
            ways = math.comb(len(line) + choices, choices + 1)
            if ways > MOST_WAYS_PER_LINE:
                raise Usage(f"{path}: too long for the sandbox's grep and a pattern that repeats")
            call.process.budget.spend(ways // WAYS_PER_STEP)
            if (pattern.search(line) is None) == ("v" in found):
                shown.append(f"{prefix}{f'{number}:' * ('n' in found)}{line}\n")
        matched = matched or bool(shown)
        if "c" in found:
            shown = [f"{prefix}{len(shown)}\n"]
        elif "l" in found:
            shown = [f"{path}\n"] * bool(shown)
        await call.out("".join(shown) * ("q" not in found))

    async def search_below(path: str) -> None:
        for each, node in below(call, path):
            if isinstance(node, File):
                await attempt(call, each, search(each))

    for path in paths:
        await attempt(call, path, search_below(path) if "r" in found else search(path))
    call.status = 2 if call.status else int(not matched)


def _pattern(text: str, found: dict[str, str]) -> tuple[re.Pattern[str], int]:
    """Return a pattern, and in how many places it leaves a choice.

    Raises:
        Usage: it holds what the sandbox does not match.
    """
    if "F" in found:
        text = re.escape(text)
    else:
        if "E" not in found:
            # In a basic pattern these signs mean something only behind a backslash.
            text = re.sub(r"\\([+?|(){}])|[+?|(){}]", lambda sign: sign[1] or f"\\{sign[0]}", text)
        if re.search(r"(?<!\\)(\\\\)*\(|\[[:.=]|\\[1-9dDAZz]", text):
            raise Usage("the sandbox's grep knows no groups, no [[:classes:]] and no \\d")
    if len(text) > LONGEST_PATTERN:
        raise Usage("the pattern is too long for the sandbox's grep")
    try:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):
            compiled = re.compile(text, re.IGNORECASE if "i" in found else 0)
    except (re.error, OverflowError) as error:
        raise Usage(f"invalid pattern: {error}") from None
    return compiled, 0 if "F" in found else len(re.findall("[*+?{|]", text))


async def diff(call: CommandCall) -> None:
    """Print how two files differ, in the normal format or as -u asks for, or with -q only that they do."""
    split_arguments(call, "uq")
    if len(call.operands) != 2:  # noqa: PLR2004 - old and new
        raise Usage("the sandbox's diff takes two files")
    first, second = call.operands
    contents: list[bytes] = []

    async def take(path: str) -> None:
        contents.append(await read(call, path))

    for path in (first, second):
        await attempt(call, path, take(path))
    if call.status or contents[0] == contents[1]:
        call.status *= 2
        return
    call.status = 1
    if "q" in call.options or b"\0" in b"".join(contents):
        await call.out(f"{'Files' if 'q' in call.options else 'Binary files'} {first} and {second} differ\n")
        return
    if max(data.count(b"\n") for data in contents) > MOST_LINES_COMPARED:
        raise Usage(f"the sandbox's diff compares {MOST_LINES_COMPARED} lines of a file at most; -q any")
    old, new = [[line.decode("utf-8", "surrogateescape") for line in lines_of(data)] for data in contents]
    call.process.budget.spend((len(old) + 1) * (len(new) + 1) // PAIRS_PER_STEP)
    told = _changes(old, new) if "u" not in call.options else difflib.unified_diff(old, new, first, second)
    ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in told)
    await call.out("".join(ended))


def _changes(old: list[str], new: list[str]) -> Iterator[str]:
    """Write changes in the normal format of ``diff``."""

    def lines(start: int, end: int) -> str:
        return f"{start + 1},{end}" if end - start > 1 else str(end)

    for kind, start, end, new_start, new_end in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if kind != "equal":
            letter = {"replace": "c", "delete": "d", "insert": "a"}[kind]
            yield f"{lines(start, end)}{letter}{lines(new_start, new_end)}\n"
            yield from (f"< {line}" for line in old[start:end])
            yield from ["---\n"] * (letter == "c")
            yield from (f"> {line}" for line in new[new_start:new_end])


@for_each_path(default="-")
async def sha256sum(call: CommandCall, path: str) -> None:
    """Print checksums of files."""
    stream, digest = opened(call, path), hashlib.sha256()
    while chunk := await stream.read(CHUNK_BYTES):
        call.process.budget.spend_on(len(chunk))
        digest.update(chunk)
    # Like the real one: an odd name is escaped, and a backslash before the line says so.
    shown = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    await call.out(f"{'' if shown == path else chr(92)}{digest.hexdigest()}  {shown}\n")


PROGRAMS: Final[dict[str, Program]] = {
    "cat": cat, "head": head, "tail": tail, "wc": wc, "grep": grep, "diff": diff, "sha256sum": sha256sum,
}  # fmt: skip
