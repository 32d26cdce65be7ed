"""Commands over text: echo, printf, cat, head, tail, wc, grep, tee, seq, yes, sort, uniq, cut, tr and checksums."""

import hashlib
from collections.abc import Callable
from typing import Any, Final

from lium_mcp.sandbox.container.commands.inputs import (
    CHUNK_BYTES,
    Usage,
    options,
    read_all,
    read_one,
    whole_number,
    write_bytes,
)
from lium_mcp.sandbox.container.commands.patterns import Pattern
from lium_mcp.sandbox.container.commands.printing import formatted, unescape
from lium_mcp.sandbox.container.files import BLOCK_BYTES
from lium_mcp.sandbox.container.shell import Call, Program, open_stream

MOST_LINES: Final = 100_000
GREP_WORK: Final = 1_000_000
GREP_WORK_PER_STEP: Final = 100
MISMATCH: Final = 1
TROUBLE: Final = 2


async def echo(call: Call) -> int:
    """Print the arguments."""
    words, ends, escapes = list(call.arguments), True, False
    while words and words[0] in {"-n", "-e", "-E", "-ne", "-en"}:
        flag = words.pop(0)
        ends, escapes = ends and "n" not in flag, escapes or "e" in flag
    line = " ".join(words)
    await call.out((unescape(line) if escapes else line) + "\n" * ends)
    return 0


async def printf(call: Call) -> int:
    """Print by a template."""
    if not call.arguments:
        raise Usage("usage: printf format [arguments]")
    try:
        await call.out(formatted(call.arguments[0], call.arguments[1:]))
    except ValueError as error:
        return await call.fail(str(error))
    return 0


async def cat(call: Call) -> int:
    """Print files, or what comes in."""
    found, paths = options(call.arguments, "nu")
    status, number = 0, 1
    for path in paths or ["-"]:
        if path == "-" and "n" not in found:
            await _pass_on(call)
            continue
        try:
            data = await read_one(call, path)
        except OSError as error:
            status = await call.fail(f"{path}: {error.strerror}")
            continue
        if "n" in found:
            lines = data.splitlines(keepends=True)
            data = b"".join(b"%6d\t%b" % (number + at, line) for at, line in enumerate(lines))
            number += len(lines)
        await write_bytes(call, data)
    return status


async def _pass_on(call: Call) -> None:
    source = call.process.streams.get(0)
    while source is not None and (chunk := await source.read(CHUNK_BYTES)):
        await write_bytes(call, chunk)


async def head(call: Call) -> int:
    """Print the first lines or bytes."""
    found, paths = options(_dashed_number(call.arguments), "q", "nc")
    if "c" not in found:
        count = whole_number(found.get("n", "10"))
        return await _each(call, paths, lambda data: b"".join(data.splitlines(keepends=True)[:count]))
    size = _size(found["c"])
    status = 0
    for path in paths or ["-"]:
        # Not read whole: the input may have no end.
        if path == "-":
            stream = call.process.streams.get(0)
        else:
            stream = open_stream(call.process.files.open_file(path, call.process.cwd), call.process.files.now)
        left = size
        while stream is not None and left and (chunk := await stream.read(min(left, CHUNK_BYTES))):
            await write_bytes(call, chunk)
            left -= len(chunk)
    return status


async def tail(call: Call) -> int:
    """Print the last lines or bytes; ``-n +K`` prints from line K on."""
    found, paths = options(_dashed_number(call.arguments), "qfF", "nc")
    if "f" in found or "F" in found:
        return await call.fail("the sandbox's tail does not follow", TROUBLE)
    given = found.get("c", found.get("n", "10"))
    count, from_start = whole_number(given.lstrip("+-")), given.startswith("+")

    def cut(data: bytes) -> bytes:
        units: Any = data if "c" in found else data.splitlines(keepends=True)
        kept = units[max(0, count - 1) :] if from_start else units[max(0, len(units) - count) :]
        return bytes(kept) if "c" in found else b"".join(kept)

    return await _each(call, paths, cut)


async def _each(call: Call, paths: list[str], cut: Callable[[bytes], bytes]) -> int:
    status = 0
    for number, path in enumerate(paths or ["-"]):
        try:
            data = await read_one(call, path)
        except OSError as error:
            status = await call.fail(f"cannot open '{path}' for reading: {error.strerror}")
            continue
        if len(paths) > 1:
            await call.out(f"{chr(10) * (number > 0)}==> {path} <==\n")
        await write_bytes(call, cut(data))
    return status


def _dashed_number(arguments: list[str]) -> list[str]:
    if arguments and arguments[0][:1] == "-" and arguments[0][1:].isdigit():
        return ["-n", arguments[0][1:], *arguments[1:]]
    return arguments


def _size(text: str) -> int:
    scale = {"K": 2**10, "k": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 0)
    return whole_number(text[:-1] if scale else text, largest=10**12) * (scale or 1)


async def wc(call: Call) -> int:
    """Count lines, words and bytes."""
    found, paths = options(call.arguments, "lwcm")
    status, totals = 0, [0, 0, 0]
    wanted = [index for index, letters in enumerate(("l", "w", "cm")) if not found or set(letters) & set(found)]
    for path in paths or ["-"]:
        try:
            data = await read_one(call, path)
        except OSError as error:
            status = await call.fail(f"{path}: {error.strerror}")
            continue
        counts = [data.count(b"\n"), len(data.split()), len(data)]
        totals = [a + b for a, b in zip(totals, counts, strict=True)]
        await call.out(_counted(counts, wanted, path if paths else ""))
    if len(paths) > 1:
        await call.out(_counted(totals, wanted, "total"))
    return status


def _counted(counts: list[int], wanted: list[int], name: str) -> str:
    width = 7 if len(wanted) > 1 else 0
    return " ".join([*(f"{counts[index]:>{width}}" for index in wanted), *([name] if name else [])]) + "\n"


async def grep(call: Call) -> int:
    """Print the lines that match."""
    found, operands = options(call.arguments, "ivncqlLoEFHhxws", "em")
    if "x" in found or "w" in found or "L" in found:
        raise Usage("the sandbox's grep knows no -x, -w and -L")
    if "e" not in found and not operands:
        raise Usage("usage: grep [options] pattern [file...]")
    text = found["e"] if "e" in found else operands.pop(0)
    pattern = Pattern(text, fixed="F" in found, extended="E" in found, ignore_case="i" in found)
    most = whole_number(found.get("m", str(10**9)))
    status, matched = 0, False
    for path in operands or ["-"]:
        try:
            data = await read_one(call, path)
        except OSError as error:
            status = await call.fail(f"{path}: {error.strerror}", TROUBLE)
            continue
        work = 0 if pattern.is_quick else len(data) * (len(text) + 1)
        call.process.budget.spend(min(work, GREP_WORK) // GREP_WORK_PER_STEP)
        if work > GREP_WORK:
            status = await call.fail(f"{path}: too large for the sandbox's grep", TROUBLE)
            continue
        prefix = f"{path}:" if ("H" in found or len(operands) > 1) and "h" not in found else ""
        count = await _grep_one(call, data, pattern, found, prefix, most)
        matched = matched or count > 0
        if "l" in found and count:
            await call.out(f"{path}\n")
        elif "c" in found:
            await call.out(f"{prefix}{count}\n")
    return 0 if matched and "q" in found else status or (0 if matched else MISMATCH)


async def _grep_one(call: Call, data: bytes, pattern: Pattern, found: dict[str, str], prefix: str, most: int) -> int:
    count = 0
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").splitlines(), 1):
        match = pattern.first(line)
        if (match is None) != ("v" in found):
            continue
        count += 1
        if not {"q", "c", "l"} & set(found):
            shown = line if match is None or "o" not in found else line[match[0] : match[1]]
            await call.out(f"{prefix}{f'{number}:' if 'n' in found else ''}{shown}\n")
        if count >= most or "q" in found:
            break
    return count


async def tee(call: Call) -> int:
    """Copy what comes in to files and on."""
    found, paths = options(call.arguments, "a")
    files = call.process.files
    streams = [
        open_stream(
            files.open_file(path, call.process.cwd, create=True, truncate="a" not in found), files.now, appends=True
        )
        for path in paths
    ]
    source = call.process.streams.get(0)
    while source is not None and (chunk := await source.read(CHUNK_BYTES)):
        for stream in streams:
            await stream.write(chunk)
        await write_bytes(call, chunk)
    return 0


async def seq(call: Call) -> int:
    """Print numbers."""
    arguments = call.arguments
    if not 1 <= len(arguments) <= 3:  # noqa: PLR2004 - first, step, last
        raise Usage("usage: seq [first [step]] last")
    try:
        numbers = [int(argument[:20]) for argument in arguments]
    except ValueError:
        raise Usage("the sandbox's seq counts whole numbers") from None
    first, step, last = (
        (1, 1, numbers[0])
        if len(numbers) == 1
        else (numbers[0], 1, numbers[1])
        if len(numbers) == 2  # noqa: PLR2004
        else numbers
    )
    if step == 0:
        raise Usage("invalid Zero increment value: '0'")
    counted = range(first, last + (1 if step > 0 else -1), step)
    if (last - first) // step >= MOST_LINES:
        raise Usage(f"the sandbox's seq prints at most {MOST_LINES} numbers")
    await write_bytes(call, "".join(f"{number}\n" for number in counted).encode())
    return 0


async def yes(call: Call) -> int:
    """Print a line again and again; not for ever, as it would elsewhere."""
    line = (" ".join(call.arguments)[:BLOCK_BYTES] or "y").encode("utf-8", "surrogateescape") + b"\n"
    for _ in range(MOST_LINES // 1000):
        await write_bytes(call, line * 1000)
    return 0


async def sort(call: Call) -> int:
    """Sort lines."""
    found, paths = options(call.arguments, "nru")
    lines = (await read_all(call, paths)).splitlines()
    if "u" in found:
        lines = list(dict.fromkeys(lines))

    def number(line: bytes) -> float:
        text = line.split()[0] if line.split() else b"0"
        try:
            return float(text[:40])
        except ValueError:
            return 0.0

    lines.sort(key=number if "n" in found else None, reverse="r" in found)
    await write_bytes(call, b"".join(line + b"\n" for line in lines))
    return 0


async def uniq(call: Call) -> int:
    """Leave out a line that repeats the one before."""
    found, paths = options(call.arguments, "c")
    runs: list[tuple[bytes, int]] = []
    for line in (await read_all(call, paths)).splitlines():
        if runs and runs[-1][0] == line:
            runs[-1] = (line, runs[-1][1] + 1)
        else:
            runs.append((line, 1))
    await write_bytes(call, b"".join((b"%7d " % n if "c" in found else b"") + line + b"\n" for line, n in runs))
    return 0


async def tr(call: Call) -> int:
    """Replace or delete single characters."""
    found, sets = options(call.arguments, "d")
    if len(sets) != (1 if "d" in found else 2):
        raise Usage("usage: tr set1 set2 | tr -d set1")
    first = _characters(sets[0])
    text = (await read_all(call, [])).decode("utf-8", "surrogateescape")
    if "d" in found:
        table = dict.fromkeys(map(ord, first), "")
    else:
        second = _characters(sets[1]) or " "
        table = {ord(old): second[min(at, len(second) - 1)] for at, old in enumerate(first)}
    await write_bytes(call, text.translate(table).encode("utf-8", "surrogateescape"))
    return 0


def _characters(text: str) -> str:
    text = unescape(text[:BLOCK_BYTES])
    found: list[str] = []
    while text:
        if text[1:2] == "-" and len(text) > 2 and ord(text[0]) <= ord(text[2]) <= 255:  # noqa: PLR2004 - a range of bytes
            found.extend(map(chr, range(ord(text[0]), ord(text[2]) + 1)))
            text = text[3:]
        else:
            found.append(text[0])
            text = text[1:]
    return "".join(found)


async def cut(call: Call) -> int:
    """Print single fields of lines."""
    found, paths = options(call.arguments, "", "df")
    if not found.get("f", "").replace(",", "").isdigit() or len(found.get("d", "\t")) != 1:
        raise Usage("the sandbox's cut takes -d CHARACTER -f NUMBER[,NUMBER...]")
    wanted = [whole_number(number, largest=10**6) for number in found["f"].split(",") if number]
    delimiter = found.get("d", "\t")
    lines = []
    for line in (await read_all(call, paths)).decode("utf-8", "surrogateescape").splitlines():
        fields = line.split(delimiter)
        if len(fields) > 1:
            line = delimiter.join(fields[number - 1] for number in wanted if 0 < number <= len(fields))  # noqa: PLW2901
        lines.append(f"{line}\n")
    await write_bytes(call, "".join(lines).encode("utf-8", "surrogateescape"))
    return 0


def _checksum(algorithm: str) -> Program:
    async def checksum(call: Call) -> int:
        """Print checksums of files."""
        _, paths = options(call.arguments, "b")
        status = 0
        for path in paths or ["-"]:
            try:
                data = await read_one(call, path)
            except OSError as error:
                status = await call.fail(f"{path}: {error.strerror}")
                continue
            digest = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
            # As the real ones do: an odd name is escaped, and the line says so with a backslash.
            shown = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
            await call.out(f"{'' if shown == path else chr(92)}{digest}  {shown}\n")
        return status

    return checksum


PROGRAMS: Final[dict[str, Program]] = {
    "echo": echo, "printf": printf, "cat": cat, "head": head, "tail": tail, "wc": wc, "grep": grep, "tee": tee,
    "seq": seq, "yes": yes, "sort": sort, "uniq": uniq, "tr": tr, "cut": cut,
    "sha256sum": _checksum("sha256"), "sha1sum": _checksum("sha1"), "md5sum": _checksum("md5"),
}  # fmt: skip
