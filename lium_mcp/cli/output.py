"""What becomes of a command's output where it cannot be written, and of a command that cannot be done."""

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from lium_mcp.text import in_a_line


class OutputLost(Exception):
    """What a command says could not be written, as where the disk is full; the text is the system's reason."""


def open_closed_streams() -> None:
    """Open the standard streams that this process was started without.

    Their numbers would else be those of the next files and connections, which would get what is printed. What is
    written to standard output is still lost, and says so.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: those before it are open by now. Programs that are started get it too.
            os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - as long as the process lives
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as above
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - as above


@contextmanager
def written() -> Iterator[None]:
    """Tell a write that failed from anything else that the system refuses.

    Raises:
        OutputLost, BrokenPipeError: the body could not write.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or "it cannot be written"
        raise OutputLost(f"standard output: {reason}") from None


def flush() -> None:
    """Write what is left of the answer.

    Raises:
        OutputLost, BrokenPipeError: it could not be written.
    """
    with written():
        sys.stdout.flush()


def check_output() -> None:
    """Find out whether anything can be written, before a server begins that has nothing else to answer with.

    Raises:
        OutputLost: standard output is closed.
    """
    with written():
        os.write(sys.stdout.fileno(), b"")


def write_no_more(stream: TextIO | None = None) -> None:
    """Let what is left for a stream go nowhere, so that the flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def say_wrong(error: Exception | str) -> None:
    """Say on standard error why a command cannot be done, after what was logged before it."""
    logging = sys.modules.get("logging")  # not imported for this: where nobody has, nothing was logged
    for handler in logging.getLogger().handlers if logging else ():
        handler.flush()
    say_usage("lium-mcp", [str(error)])


def say_usage(program: str, problems: Iterable[str]) -> None:
    """Say on standard error what of a command line cannot be understood, a line each."""
    try:
        for problem in problems:
            print(f"{program}: {in_a_line(problem)}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's answer
    except OSError:  # the exit status says it too
        write_no_more(sys.stderr)
