"""How commands speak to a person: lines, tables and progress, in what a terminal, a pipe or a log can show.

Answers go to standard output, progress and what is wrong to standard error. Names in them may be anybody's: they are
cleaned, and never read as markup. Colour and width follow the terminal (NO_COLOR, TERM=dumb, COLUMNS); a pipe gets
whole lines, and a locale without UTF-8 gets ASCII.
"""

import locale
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lium_mcp.cli.output import written
from lium_mcp.text import clean, in_a_line

_PIPE_WIDTH: Final = 2_000
_PLAIN_LOCALES: Final = ("C", "POSIX")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command end as main has it, and not as rich does."""
        raise BrokenPipeError


def say(line: str = "", *, style: str = "") -> None:
    """Print a line of the command's answer.

    Raises:
        OutputLost, BrokenPipeError: it could not be written.
    """
    _write(_out(sys.stdout), _text(line, style))


def say_aside(line: str) -> None:
    """Print a line on standard error, for a person who watches."""
    _write(_out(sys.stderr), _text(line))


def show_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table; the columns of `numbers` are set to the right.

    Raises:
        OutputLost, BrokenPipeError: it could not be written.
    """
    out = _out(sys.stdout)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(header, justify="right" if header in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(in_a_line(cell)) for cell in row))
    _write(out, table)


def clear() -> None:
    """Begin with an empty screen, where there is one."""
    out = _out(sys.stdout)
    if out.is_terminal:
        out.clear()


def ask(question: str) -> str:
    """Ask a person at the terminal; the answer is without blanks around it.

    Raises:
        KeyboardInterrupt: they want to end it. Nothing is changed before a question.
    """
    # An event loop would wait for the line before it heard of an interrupt.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with written():
            _out(sys.stderr).print(_text(question), end="", soft_wrap=True)
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        say_aside("\nInterrupted: nothing was changed.")
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def agreed(question: str) -> bool:
    """Ask a person at the terminal; anything but a yes is a no."""
    return ask(f"{question} [y/N] ").casefold() in ("y", "yes")


@contextmanager
def working(on: str, *, in_lines: bool = False) -> Iterator[Callable[[str], None]]:
    """Tell a person at a terminal what takes its time, for as long as it does.

    What it yields tells what is done instead by now.

    Args:
        on: What is done.
        in_lines: Tell a log too, a line for each that differs from the one before: for what takes minutes.
    """
    err = _out(sys.stderr)
    if not err.is_terminal or err.is_dumb_terminal:
        yield _lines(on) if in_lines else lambda _: None
        return
    with err.status(_text(on), spinner="line" if err.options.ascii_only else "dots") as status:
        yield lambda text: status.update(_text(text))


def _lines(first: str) -> Callable[[str], None]:
    said: list[str] = []

    def tell(text: str) -> None:
        if text not in said[-1:]:
            said.append(text)
            say_aside(text)

    tell(first)
    return tell


def _write(console: Console, what: Text | Table) -> None:
    with written():
        console.print(what, soft_wrap=isinstance(what, Text))


def _out(file: TextIO) -> Console:
    # Made anew each time: tests and programs that embed this change the streams.
    if locale.setlocale(locale.LC_CTYPE) in _PLAIN_LOCALES and hasattr(file, "reconfigure"):
        file.reconfigure(encoding="ascii", errors="replace")
    width = None if file.isatty() else _PIPE_WIDTH
    return _Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def _text(line: str, style: str = "") -> Text:
    return Text(clean(line), style=style)
