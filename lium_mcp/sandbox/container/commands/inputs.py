"""What commands share: reading their options and their input."""

import errno
from typing import Final

from lium_mcp.sandbox.container.files import Device, Directory, Node, failure, walk
from lium_mcp.sandbox.container.shell import Call

CHUNK_BYTES: Final = 64 * 1024
ENTRIES_PER_STEP: Final = 10
INPUT_BYTES: Final = 256 * 1024 * 1024


class Usage(Exception):
    """Arguments that the command does not take."""


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
                if not letters and not left:
                    raise Usage(f"option requires an argument -- '{letter}'")
                found[letter], letters = (letters or left.pop(0)), ""
            elif letter in flags:
                found[letter] = ""
            else:
                raise Usage(f"invalid option -- '{letter}' (the sandbox knows -{flags}{valued})")
    return found, operands


def whole_number(text: str, *, largest: int = 10**9) -> int:
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
    scale = {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(text[-1:], 0)
    digits = text[:-1] if scale else text
    whole, _, fraction = digits.partition(".")
    if not (digits.isascii() and (whole + fraction).isdigit() and len(digits) <= 12):  # noqa: PLR2004 - 30,000 years
        raise Usage(f"invalid time interval '{text[:40]}'")
    return float(digits) * (scale or 1)


async def read_all(call: Call, paths: list[str]) -> bytes:
    """Read files, or standard input where none is named, one after the other."""
    parts = []
    for path in paths or ["-"]:
        parts.append(await read_one(call, path))
        if sum(map(len, parts)) > INPUT_BYTES:
            raise failure(errno.EFBIG)
    return b"".join(parts)


async def read_one(call: Call, path: str) -> bytes:
    """Read one file, or standard input for ``-``."""
    if path == "-":
        return await _read_input(call)
    node = call.process.files.open_file(path, call.process.cwd)
    if isinstance(node, Device):
        if node.kind != "null":
            raise failure(errno.EFBIG)
        return b""
    call.process.budget.spend_on(len(node.data))
    return bytes(node.data)


async def _read_input(call: Call) -> bytes:
    stream = call.process.streams.get(0)
    found = bytearray()
    while stream is not None and (chunk := await stream.read(CHUNK_BYTES)):
        found += chunk
        if len(found) > INPUT_BYTES:
            raise failure(errno.EFBIG)
    return bytes(found)


async def write_bytes(call: Call, data: bytes) -> None:
    """Write bytes to standard output, in pieces."""
    stream = call.process.streams.get(1)
    for start in range(0, len(data), CHUNK_BYTES):
        call.process.budget.spend_on(CHUNK_BYTES)
        if stream is not None:
            await stream.write(data[start : start + CHUNK_BYTES])


def below(call: Call, directory: Directory) -> list[tuple[str, Node]]:
    """Return everything below a directory, at the price of looking at it."""
    found = list(walk(directory))
    call.process.budget.spend(len(found) // ENTRIES_PER_STEP)
    return found
