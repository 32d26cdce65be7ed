"""The lenient field types that models are made of, and the base of every model. Knows no resource and no HTTP.

The API's answers are untrusted, and may change before this client does: a field that cannot be read becomes `None`, an
unknown field is left out, and only a missing id makes a row unreadable.
"""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticOmit, core_schema, from_json

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
_MAX_NUMBER_CHARS = 64
_MAX_INT = 2**63 - 1
_MAX_FIGURE = 10**15
# How deep, and how many items far, a reason or a notice that is no text is read.
_MAX_DEPTH = 5
_MAX_ITEMS = 20
_REASON_NAMES = ("message", "msg", "detail", "error", "reason")
_CODE_NAMES = ("code", "error_code")

T = TypeVar("T")
F = TypeVar("F", int, float)


class ApiModel(BaseModel):
    """A frozen view of one JSON object of the API, without what this client does not know of it."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        defer_build=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )


class RequestModel(BaseModel):
    """What a caller fills in for a request; a misspelled field is an error, not an extra."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True)


@dataclass(frozen=True)
class _OrElse:
    """Hands a value to `read` only if it does not fit the type as it is.

    Nearly all values fit, and are read without running Python code: a list of nodes has thousands of them.
    """

    read: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        otherwise = core_schema.no_info_plain_validator_function(self.read)
        return core_schema.union_schema([handler(source), otherwise], mode="left_to_right")


def read_float(value: object) -> float | None:
    """Read a finite number from a number or a numeric string; anything else is `None`."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(text):
            return None
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _within_reason(number: F | None) -> F | None:
    # What is counted, measured or charged by the hour is never below zero, and nothing here comes near the bound.
    return number if number is not None and 0 <= number <= _MAX_FIGURE else None


def _read_figure(value: object) -> float | None:
    return _within_reason(read_float(value))


def _read_count(value: object) -> int | None:
    return _within_reason(read_int(value))


def read_int(value: object) -> int | None:
    """Read a 64-bit whole number from a number or a numeric string, dropping a fraction; anything else is `None`."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS and _WHOLE_NUMBER.fullmatch(value.strip()):
        number = int(value.strip())
    else:
        parsed = read_float(value)
        if parsed is None:
            return None
        number = int(parsed)
    return number if abs(number) <= _MAX_INT else None


def read_time(value: object) -> datetime | None:
    """Read an ISO 8601 time as aware UTC; a time without a zone is UTC; anything else is `None`."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip().upper())
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def read_text(value: object) -> str | None:
    """Read a string; a number becomes its text; anything else is `None`."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # more digits than Python converts
            return None
    return None


def _text_or_empty(value: object) -> str:
    return read_text(value) or ""


def read_bool(value: object) -> bool | None:
    """Read a truth value, or the word for one; anything else is `None`."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def _nothing(_: object) -> None:
    return None


def _no_items(_: object) -> tuple[Any, ...]:
    return ()


def _leave_out(_: object) -> NoReturn:
    raise PydanticOmit


def _readable_strings(value: object) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    texts = {key: read_text(item) for key, item in value.items() if isinstance(key, str)}
    return {key: text for key, text in texts.items() if text is not None}


def read_reason(value: object) -> str | None:
    """Read what went wrong: a text, or the message and the code of an object or of each object in a list."""
    if not isinstance(value, dict | list | tuple):
        return read_text(value)
    return _reason_in(value, _MAX_DEPTH) or _words_of(value, _MAX_DEPTH) or None


def _reason_in(value: object, depth: int) -> str:
    if isinstance(value, list | tuple):
        said = (_reason_in(item, depth - 1) for item in value[:_MAX_ITEMS]) if depth else ()
        return "; ".join(dict.fromkeys(filter(None, said)))
    if not isinstance(value, dict):
        return read_text(value) or ""
    said = (_reason_in(value.get(name), depth - 1) for name in _REASON_NAMES) if depth else ()
    reason = next(filter(None, said), "")
    code = next(filter(None, (read_text(value.get(name)) for name in _CODE_NAMES)), "")
    return f"{reason} ({code})" if reason and code and code not in reason else reason or code


def _words_of(value: object, depth: int) -> str:
    """Put a value of unknown shape into words, without what is `null` or empty in it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        words = (_words_of(item, depth - 1) for item in value[:_MAX_ITEMS]) if depth else ()
        return "; ".join(filter(None, words))
    if isinstance(value, dict):
        items = list(value.items())[:_MAX_ITEMS] if depth else ()
        named = ((name, _words_of(item, depth - 1)) for name, item in items)
        return ", ".join(f"{name}: {words}" for name, words in named if words)
    return read_text(value) or ""


def _joined_lines(value: object) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(text for text in map(read_reason, value) if text is not None)
    return read_reason(value) or ""


def _read_notice(value: object) -> str | None:
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        with suppress(ValueError):  # or it is a text that begins so
            value = from_json(value)
    text = _words_of(value, _MAX_DEPTH).strip()
    return text if text.strip("0.") and not isinstance(value, bool) else None


def _object_or_none(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


ApiId = Annotated[str, BeforeValidator(read_text), Field(min_length=1)]
"""An id: the one field without which a row is unreadable."""
_Text = Annotated[str, Field(strict=True)]
ApiStr = Annotated[_Text | None, _OrElse(read_text)]
ApiText = Annotated[_Text, _OrElse(_text_or_empty)]
"""A string the contract requires; read as empty where a server leaves it out."""
ApiInt = Annotated[Annotated[int, Field(strict=True, ge=0, le=_MAX_FIGURE)] | None, _OrElse(_read_count)]
"""A count or size; one that is below zero or beyond all reason is `None`."""
ApiFloat = Annotated[
    Annotated[float, Field(strict=True, ge=0, le=_MAX_FIGURE, allow_inf_nan=False)] | None, _OrElse(_read_figure)
]
"""A measure, price or rate, within the same bounds."""
ApiSigned = Annotated[Annotated[float, Field(strict=True, allow_inf_nan=False)] | None, _OrElse(read_float)]
"""A number that may be below zero: a balance, what was charged less what was given back, a coordinate."""
ApiBool = Annotated[Annotated[bool, Field(strict=True)] | None, _OrElse(read_bool)]
ApiTime = Annotated[datetime | None, BeforeValidator(read_time)]
ApiStrings = Annotated[dict[str, str] | None, BeforeValidator(_readable_strings)]
ApiReason = Annotated[_Text | None, _OrElse(read_reason)]
"""Why something failed, or how it stands: a text; some servers send an object or a list of objects instead."""
ApiLines = Annotated[str, BeforeValidator(_joined_lines)]
"""Text that servers send whole or as a list of lines."""
ApiObject = Annotated[dict[str, Any] | None, BeforeValidator(_object_or_none)]
"""A JSON object whose shape no source shows."""
ApiNotice = Annotated[str | None, BeforeValidator(_read_notice)]
"""What somebody announces, in a shape that no source shows; `None` where it is nothing, such as 0 or ""."""
ApiNested = Annotated[T | None, _OrElse(_nothing)]
"""A nested model; one that cannot be read is `None` and does not cost the row."""
ApiTuple = Annotated[tuple[Annotated[T, _OrElse(_leave_out)], ...], _OrElse(_no_items)]
"""A list whose unreadable items are left out."""
ApiTupleOrNone = Annotated[tuple[Annotated[T, _OrElse(_leave_out)], ...] | None, _OrElse(_nothing)]
"""The same, for lists that mean something when they are empty: `None` where the API gives no list."""
