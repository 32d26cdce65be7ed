"""Commands over text: cat, head, tail, wc, grep and sha256sum."""

import hashlib
import math
import re
import warnings
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
from lium_mcp.sandbox.container.files import Directory
from lium_mcp.sandbox.container.shell import CHUNK_BYTES, CommandCall, Program, Usage

LONGEST_PATTERN: Final = 200
MOST_WAYS_PER_LINE: Final = 10**7
WAYS_PER_STEP: Final = 1250


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
    if "r" in found:
        paths = [file for path in paths for file in _files_below(call, path)]

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

    for path in paths:
        await attempt(call, path, search(path))
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


def _files_below(call: CommandCall, path: str) -> list[str]:
    inner = below(call, call.process.files.find(path, call.process.cwd).node)
    return [f"{path}/{name}" for name, node in inner if not isinstance(node, Directory)] if inner else [path]


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
    "cat": cat, "head": head, "tail": tail, "wc": wc, "grep": grep, "sha256sum": sha256sum,
}  # fmt: skip
