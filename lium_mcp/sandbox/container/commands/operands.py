"""What commands share: reading their options and their input."""

import errno
import re
from collections.abc import Awaitable, Callable
from typing import Final

from lium_mcp.sandbox.container.files import Directory, FileNode, failure, walk
from lium_mcp.sandbox.container.shell import CHUNK_BYTES, CommandCall, Usage
from lium_mcp.sandbox.container.streams import FileStream, Stream

ENTRIES_PER_STEP: Final = 10
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
            if letter not in flags + valued:
                raise Usage(f"invalid option -- '{letter}' (the sandbox knows -{flags}{valued})")
            found[letter] = ""
            if letter in valued:
                if not letters and not left:
                    raise Usage(f"option '{letter}' takes an argument")
                found[letter], letters = letters or left.pop(0), ""
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


async def each(call: CommandCall, paths: list[str], action: Callable[[str], Awaitable[None] | None]) -> int:
    """Do something with each path, and complain of those where it fails."""
    if not paths:
        raise Usage("missing operand")
    for path in paths:
        try:
            if (work := action(path)) is not None:
                await work
        except OSError as error:
            await call.fail(f"{path[:200]}: {error.strerror}")
    return call.status


def opened(call: CommandCall, path: str) -> Stream:
    """Open a file to be read, or standard input for ``-``."""
    if path == "-":
        return call.process.streams[0]
    return FileStream(call.process.files.open_file(path, call.process.cwd), call.process.files.now)


async def read(call: CommandCall, path: str) -> bytes:
    """Read one file, or standard input for ``-``, unless it is too large to be taken apart."""
    stream, found = opened(call, path), bytearray()
    while chunk := await stream.read(CHUNK_BYTES):
        call.process.budget.spend_on(len(chunk))
        found += chunk
        if len(found) > PARTED_BYTES:
            raise failure(errno.EFBIG)
    return bytes(found)


def below(call: CommandCall, node: FileNode | None) -> list[tuple[str, FileNode]]:
    """Return everything below a node, and count the work against the budget."""
    found = list(walk(node)) if isinstance(node, Directory) else []
    call.process.budget.spend(len(found) // ENTRIES_PER_STEP)
    return found


def lines_of(data: bytes) -> list[bytes]:
    """Split data into lines, each with its end."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)
