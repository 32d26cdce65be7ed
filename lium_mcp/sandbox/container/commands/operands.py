"""What commands share: reading their options and their input."""

import errno
import getopt
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Final

from lium_mcp.sandbox.container.files import FileNode, failure, walk
from lium_mcp.sandbox.container.shell import CHUNK_BYTES, CommandCall, Program, Usage
from lium_mcp.sandbox.container.streams import FileStream, Stream

PathAction = Callable[[CommandCall, str], Coroutine[Any, Any, None]]

ENTRIES_PER_STEP: Final = 10
PARTED_BYTES: Final = 4 * 1024 * 1024


def split_arguments(call: CommandCall, letters: str) -> None:
    """Split arguments into single-letter options and operands; a colon behind a letter says that it takes a value.

    Raises:
        Usage: an option is not among them, or lacks its value.
    """
    arguments = call.arguments
    if "n:" in letters:
        arguments = [re.sub("^-(?=[0-9]+$)", "-n", word) for word in arguments]
    try:
        found, call.operands = getopt.gnu_getopt(arguments, letters)
    except getopt.GetoptError as error:
        raise Usage(f"{error}; the sandbox knows -{letters.replace(':', '')}") from None
    call.options = {name.removeprefix("-"): value for name, value in found}


def for_each_path(letters: str = "", *, default: str = "") -> Callable[[PathAction], Program]:
    """Make a command of what it does with each path that it is given; it complains of those where that fails."""

    def made(action: PathAction) -> Program:
        @wraps(action)
        async def program(call: CommandCall) -> None:
            split_arguments(call, letters)
            if not call.operands and not default:
                raise Usage("missing operand")
            for path in call.operands or [default]:
                await attempt(call, path, action(call, path))

        return program

    return made


async def attempt(call: CommandCall, path: str, work: Awaitable[None]) -> None:
    """Do something with a path, or complain of it."""
    try:
        await work
    except OSError as error:
        await call.fail(f"{path[:200]}: {error.strerror}")


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


def below(call: CommandCall, path: str) -> list[tuple[str, FileNode]]:
    """Return what is at a path and everything below it, each with its path, and count the work against the budget."""
    base = path.rstrip("/")
    found = [(f"{base}/{name}" if name else path, each) for name, each in walk(call.node(path))]
    call.process.budget.spend(len(found) // ENTRIES_PER_STEP)
    return found


def lines_of(data: bytes) -> list[bytes]:
    """Split data into lines, each with its end."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)
