"""Commands over text: cat, head, tail, wc, grep, tee, diff and sha256sum."""

import difflib
import hashlib
import re
from typing import Final

from lium_mcp.sandbox.container.commands.operands import below, inputs, limited, lines_of, options, read, whole_number
from lium_mcp.sandbox.container.commands.patterns import Pattern
from lium_mcp.sandbox.container.files import Directory
from lium_mcp.sandbox.container.run import CHUNK_BYTES, CommandCall, Program, Usage
from lium_mcp.sandbox.container.streams import FileStream, Stream

TROUBLE: Final = 2
MOST_WAYS_PER_LINE: Final = 10**7
MOST_WAYS: Final = 5 * 10**7
WAYS_PER_STEP: Final = 1250
MOST_LINES_COMPARED: Final = 2000


async def cat(call: CommandCall) -> int:
    """Print files, or what comes in, piece by piece: it may have no end."""
    _, paths = options(call.arguments, "")
    for path in paths or ["-"]:
        try:
            stream = _stream(call, path)
            while chunk := await stream.read(CHUNK_BYTES):
                await call.write(chunk)
        except OSError as error:
            await call.fail(f"{path}: {error.strerror}")
    return call.status


def _stream(call: CommandCall, path: str) -> Stream:
    if path == "-":
        return call.process.streams.get(0) or Stream()
    return FileStream(call.process.files.open_file(path, call.process.cwd), call.process.files.now)


async def head(call: CommandCall) -> int:
    """Print the first lines or bytes, and read no more than that."""
    found, paths = options(_dashed_number(call.arguments), "q", "nc")
    for path in paths or ["-"]:
        left = whole_number(found.get("c", found.get("n", "10")))
        try:
            stream = _stream(call, path)
            if len(paths) > 1:
                await call.out(f"==> {path} <==\n")
            while left and (chunk := await stream.read(CHUNK_BYTES)):
                shown = chunk[:left] if "c" in found else b"".join(lines_of(chunk)[:left])
                left -= len(shown) if "c" in found else shown.count(b"\n")
                await call.write(shown)
        except OSError as error:
            await call.fail(f"{path}: {error.strerror}")
    return call.status


async def tail(call: CommandCall) -> int:
    """Print the last lines or bytes; ``-n +K`` prints from line K on."""
    found, paths = options(_dashed_number(call.arguments), "q", "nc")
    given = found.get("c", found.get("n", "10"))
    count = whole_number(given.lstrip("+"))
    async for path, data in inputs(call, paths):
        if len(paths) > 1:
            await call.out(f"==> {path} <==\n")
        lines = [] if "c" in found else lines_of(data)
        start = max(0, count - 1 if given.startswith("+") else len(lines or data) - count)
        await call.write(b"".join(lines[start:]) if lines else data[start:])
    return call.status


def _dashed_number(arguments: list[str]) -> list[str]:
    if arguments and re.fullmatch("-[0-9]+", arguments[0]):
        return ["-n", arguments[0][1:], *arguments[1:]]
    return arguments


async def wc(call: CommandCall) -> int:
    """Count lines, words and bytes."""
    found, paths = options(call.arguments, "lwc")
    totals = [0, 0, 0]
    wanted = [number for number, letter in enumerate("lwc") if not found or letter in found]

    def counted(counts: list[int], name: str) -> str:
        width = 7 if len(wanted) > 1 else 0
        return " ".join([*(f"{counts[number]:>{width}}" for number in wanted), *([name] if paths else [])]) + "\n"

    async for path, data in inputs(call, paths):
        counts = [data.count(b"\n"), len(limited(data).split()) if 1 in wanted else 0, len(data)]
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        await call.out(counted(counts, path))
    if len(paths) > 1:
        await call.out(counted(totals, "total"))
    return call.status


async def grep(call: CommandCall) -> int:
    """Print the lines that match."""
    found, operands = options(call.arguments, "ivncqlEFr", "e")
    if "e" not in found and not operands:
        raise Usage("usage: grep [options] pattern [file...]")
    text = found["e"] if "e" in found else operands.pop(0)
    pattern = Pattern(text, is_fixed="F" in found, is_extended="E" in found, ignores_case="i" in found)
    paths = _files_below(call, operands or ["."]) if "r" in found else operands
    ways, matched = 0, False
    async for path, data in inputs(call, paths, TROUBLE):
        prefix, shown = f"{path}:" if len(paths) > 1 or "r" in found else "", list[str]()
        for number, line in enumerate(lines_of(data), 1):
            written = line.decode("utf-8", "surrogateescape").removesuffix("\n")
            line_ways = pattern.ways(written)
            ways += line_ways
            if line_ways > MOST_WAYS_PER_LINE or ways > MOST_WAYS:
                return await call.fail(f"{path}: too long for the sandbox's grep and a pattern that repeats", TROUBLE)
            if (pattern.compiled.search(written) is None) == ("v" in found):
                shown.append(f"{prefix}{f'{number}:' * ('n' in found)}{written}\n")
        call.process.budget.spend(ways // WAYS_PER_STEP)
        matched = matched or bool(shown)
        if "c" in found:
            shown = [f"{prefix}{len(shown)}\n"]
        elif "l" in found:
            shown = [f"{path}\n"] * bool(shown)
        await call.out("".join(shown) * ("q" not in found))
    return 0 if matched and "q" in found else call.status or int(not matched)


def _files_below(call: CommandCall, paths: list[str]) -> list[str]:
    found = []
    for path in paths:
        node = call.process.files.find(path, call.process.cwd).node
        inner = below(call, node) if isinstance(node, Directory) else []
        found += [f"{path}/{name}" for name, each in inner if not isinstance(each, Directory)] if inner else [path]
    return found


async def tee(call: CommandCall) -> int:
    """Copy what comes in to files and on."""
    found, paths = options(call.arguments, "a")
    files, cwd = call.process.files, call.process.cwd
    nodes = [files.open_file(path, cwd, create=True, truncate="a" not in found) for path in paths]
    copies = [FileStream(node, files.now, appends=True) for node in nodes]
    source = _stream(call, "-")
    while chunk := await source.read(CHUNK_BYTES):
        for stream in copies:
            await stream.write(chunk)
        await call.write(chunk)
    return 0


async def diff(call: CommandCall) -> int:
    """Say how two files differ, as ``diff -u`` does; with -q only that they do."""
    found, paths = options(call.arguments, "uq")
    if len(paths) != 2:  # noqa: PLR2004
        raise Usage("the sandbox's diff takes two files")
    contents = [await read(call, path) for path in paths]
    if contents[0] == contents[1]:
        return 0
    lines = [limited(data).decode("utf-8", "surrogateescape").splitlines() for data in contents]
    if "q" in found or b"\0" in b"".join(contents) or max(map(len, lines)) > MOST_LINES_COMPARED:
        await call.out(f"Files {paths[0]} and {paths[1]} differ\n")
        return 1
    call.process.budget.spend(len(lines[0]) + len(lines[1]))
    told = difflib.unified_diff(lines[0], lines[1], paths[0], paths[1], lineterm="")
    await call.out("".join(f"{line}\n" for line in told))
    return 1


async def sha256sum(call: CommandCall) -> int:
    """Print checksums of files."""
    _, paths = options(call.arguments, "b")
    async for path, data in inputs(call, paths):
        # Like the real one: an odd name is escaped, and a backslash before the line says so.
        shown = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        await call.out(f"{'' if shown == path else chr(92)}{hashlib.sha256(data).hexdigest()}  {shown}\n")
    return call.status


PROGRAMS: Final[dict[str, Program]] = {
    "cat": cat, "head": head, "tail": tail, "wc": wc, "grep": grep, "tee": tee, "diff": diff,
    "sha256sum": sha256sum,
}  # fmt: skip
