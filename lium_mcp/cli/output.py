"""What becomes of a command's output where it cannot be written, and of a command that cannot be done."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class OutputLost(Exception):
    """What a command says could not be written, as where the disk is full; the text is the system's reason."""


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
        raise OutputLost(f"standard output: {error.strerror or 'it cannot be written'}") from None


def flush() -> None:
    """Write what is left of the answer.

    Raises:
        OutputLost, BrokenPipeError: it could not be written.
    """
    with written():
        sys.stdout.flush()


def write_no_more() -> None:
    """Let what is left go nowhere, so that the flush at exit does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_wrong(error: Exception | str) -> None:
    """Say on standard error why a command cannot be done."""
    print(f"lium-mcp: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's answer


def say_usage(program: str, problems: Iterable[str]) -> None:
    """Say on standard error what of a command line cannot be understood, a line each."""
    for problem in problems:
        print(f"{program}: {problem}", file=sys.stderr, flush=True)  # noqa: T201 - the command line's answer
