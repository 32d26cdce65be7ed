"""What goes to standard error: one line for each record, of which none holds what a call was about.

Our own records say what happened, in words that hold no argument, value, result or body. What a library logs, and what
an exception says, may hold any of these: of a library's record it is told where in its code it was made, of an
exception its type and where it was raised. Either is enough to find it in the source.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from lium_mcp.guard.redaction import redact
from lium_mcp.observing import reference
from lium_mcp.serving.log_writer import LogWriter
from lium_mcp.text import shortened

_OURS: Final = "lium_mcp"
_MOST_CHARACTERS: Final = 2000
_MOST_FRAMES: Final = 12
_MOST_EXCEPTIONS: Final = 8

log = logging.getLogger(__name__)


def log_to_stderr(level: str, redact_text: Callable[[str], str], *, as_json: bool) -> None:
    """Write all that this process logs, warns of or dies of to standard error.

    Libraries are heard from warnings up, or at the level DEBUG in all they do.
    """
    handler = LogWriter(sys.stderr)
    handler.setFormatter(Lines(redact_text, as_json=as_json))
    logging.basicConfig(level=logging.WARNING if level == "INFO" else level, handlers=[handler], force=True)
    logging.getLogger(_OURS).setLevel(level)
    logging.captureWarnings(capture=True)
    # A record that cannot be written would be shown with all its arguments.
    logging.raiseExceptions = False
    sys.excepthook = _log_end
    sys.unraisablehook = lambda event: _log_stray(event.exc_value)
    threading.excepthook = lambda event: _log_stray(event.exc_value)


def _log_end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.critical("The process ends", exc_info=(kind, error, traceback))


def _log_stray(error: BaseException | None) -> None:
    log.error("An exception reached nobody", exc_info=error)


class Lines(logging.Formatter):
    """Writes one line for each record, as text or as JSON, without a secret or a control character in it."""

    def __init__(self, redact_text: Callable[[str], str], *, as_json: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s")
        self._redact = redact_text
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its end."""
        is_ours = record.name.partition(".")[0] == _OURS
        fields: dict[str, Any] = getattr(record, "fields", {}) if is_ours else {}
        message = _message(record) if is_ours else f"(said at {record.module}:{record.lineno} {record.funcName})"
        error = record.exc_info[1] if record.exc_info else None
        if not self._as_json:
            head = f"{self.formatTime(record)} {record.levelname} {record.name}"
            tail = f" exception={_outline(error)}" if error else ""
            return _escaped(self._short(f"{head} {message}") + self._short(tail))
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            **({"request": request} if (request := reference()) else {}),
            **(fields or {"message": message}),
        }
        if error:
            line["exception"] = _outline(error)
        return json.dumps(redact(line, self._short)).replace("\x7f", "\\u007f")

    def _short(self, text: str) -> str:
        return shortened(self._redact(text), _MOST_CHARACTERS)


def _message(record: logging.LogRecord) -> str:
    """The words of a record of ours; of an exception in them only its name."""
    words = _without_words(record.msg)
    arguments = record.args
    return words % tuple(map(_without_words, arguments)) if arguments and isinstance(arguments, tuple) else str(words)


def _without_words(item: Any) -> Any:  # noqa: ANN401 - whatever a record was made of
    return _named(item) if isinstance(item, BaseException) else item


def _named(error: BaseException) -> str:
    """What an exception is, without what it says: it may repeat anything. Of the ledger's, the words are our own."""
    from lium_mcp.api.errors import LiumError  # noqa: PLC0415 - a command that logs nothing need not pay for the client
    from lium_mcp.rentals import LedgerUnavailable  # noqa: PLC0415 - as above

    name = type(error).__qualname__
    if isinstance(error, LiumError):
        facts = {"status": error.status, "request_id": error.request_id}
        known = [f"{key}={value!r}" for key, value in facts.items() if value is not None]
        return f"{name}({', '.join(known)})"
    return f"{name}({error})" if isinstance(error, LedgerUnavailable) else name


def _outline(error: BaseException) -> str:
    """The types of an exception and of those that led to it, and where each was raised."""
    return "; from ".join(" at ".join(filter(None, (_named(item), _places(item)))) for item in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, those that it groups, and the causes of each; so many at most."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_EXCEPTIONS:
        item = waiting.pop(0)
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, BaseExceptionGroup):
            waiting += item.exceptions
        waiting.append(item.__cause__ or (None if item.__suppress_context__ else item.__context__))


def _places(error: BaseException) -> str:
    """Where an exception passed, innermost first."""
    places = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        places.append(f"{step.tb_frame.f_globals.get('__name__', '?')}:{step.tb_lineno} {code.co_qualname}")
        step = step.tb_next
    return " < ".join(reversed(places[-_MOST_FRAMES:]))


def _escaped(text: str) -> str:
    """A text of one line that steers no terminal and hides nothing: what is not printable is spelt out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
