"""What commands share: reading their options and their input."""

import errno
import re
from collections.abc import AsyncIterator
from typing import Final

from lium_mcp.sandbox.container.files import Directory, FileNode, failure, walk
from lium_mcp.sandbox.container.run import CHUNK_BYTES, CommandCall, Usage

ENTRIES_PER_STEP: Final = 10
INPUT_BYTES: Final = 64 * 1024 * 1024
PARTED_BYTES: Final = 4 * 1024 * 1024


def options(arguments: list[str], flags: str, valued: str = "") -> tuple[dict[str, str], list[str]]:
    """Split arguments into single-letter options and operands.

    Raises:
        Usage: an option is not among ``flags`` and ``valued``, or lacks its value.
    """
    found: dict[str, str] = {}
    operands: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--":
            return found, operands + left
        if not argument.startswith("-") or argument == "-":
            operands.append(argument)
            continue
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in valued:
                if letter in found or not (letters or left):
                    raise Usage(f"option '{letter}' takes one argument, and comes once")
                found[letter], letters = (letters or left.pop(0)), ""
            elif letter in flags:
                found[letter] = ""
            else:
                raise Usage(f"invalid option -- '{letter}' (the sandbox knows -{flags}{valued})")
    return found, operands


def whole_number(text: str, *, largest: int = 10**12) -> int:
    """Read a number of lines, bytes or the like.

    Raises:
        Usage: it is none, or too large.
    """
    if not text.isascii() or not text.isdigit() or len(text) > len(str(largest)) or int(text) > largest:
        raise Usage(f"invalid number: '{text[:40]}'")
    return int(text)


def seconds(text: str) -> float:
    """Read a duration: a number, perhaps with s, m, h or d after it.

    Raises:
        Usage: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", text)
    if match is None:
        raise Usage(f"invalid time interval '{text[:40]}'")
    return float(match[1]) * {"m": 60, "h": 3600, "d": 86400}.get(match[2], 1)


async def inputs(call: CommandCall, paths: list[str], code: int = 1) -> AsyncIterator[tuple[str, bytes]]:
    """Read files, or standard input for ``-`` and where none is named; complain of those that cannot be read."""
    for path in paths or ["-"]:
        try:
            yield path, await read(call, path)
        except OSError as error:
            await call.fail(f"{path}: {error.strerror}", code)


async def read(call: CommandCall, path: str) -> bytes:
    """Read one file, or standard input for ``-``."""
    if path == "-":
        found, stream = bytearray(), call.process.streams.get(0)
        while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
            found += chunk
            if len(found) > INPUT_BYTES:
                raise failure(errno.EFBIG)
        return bytes(found)
    data = call.process.files.read_file(path, call.process.cwd)
    call.process.budget.spend_on(len(data))
    return data


def below(call: CommandCall, directory: Directory) -> list[tuple[str, FileNode]]:
    """Return everything below a directory, and count the work against the budget."""
    found = list(walk(directory))
    call.process.budget.spend(len(found) // ENTRIES_PER_STEP)
    return found


def limited(data: bytes) -> bytes:
    """Refuse data that is too large to be split: the pieces would take much more memory than it does."""
    if len(data) > PARTED_BYTES:
        raise failure(errno.EFBIG)
    return data


def lines_of(data: bytes) -> list[bytes]:
    """Split data into lines, each with its end."""
    return re.findall(rb"[^\n]*\n|[^\n]+", limited(data))
