"""How an answer is written: one small typed model, rendered the same as text and as structured content.

Some hosts show a model only the text, some only the structured half, so both say the same. Absent values are left
out. Strings may come from the API or from other people: what could steer a terminal or break the transport is
removed here, in one place, for every tool.
"""

import json
import math
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from mcp.types import CallToolResult, TextContent
from pydantic import JsonValue

from lium_mcp.failures import Failure
from lium_mcp.guard.redaction import names_secret, redact_text
from lium_mcp.guard.redaction import redact as redact_fields
from lium_mcp.results import Result
from lium_mcp.secret_forms import holds_hidden
from lium_mcp.text import clean, shortened
from lium_mcp.toolkit.official_commands import without_commands

META_KEY: Final = "lium-mcp/error"
_MAX_SENTENCES_CHARACTERS = 1500
# What happened may hold a server's text; what it means and what to do next must not be cut off after it.
_MAX_HAPPENED_CHARACTERS = 1000
_MAX_REQUEST_ID_CHARACTERS = 100
# Bounds of an answer that no honest one meets: of a list, of a name, and of fields that are longer by their nature.
_MOST_ITEMS: Final = 1000
_MOST_NAME_CHARACTERS: Final = 500
_MOST_CHARACTERS: Final = {
    **dict.fromkeys(
        ("path", "problem", "problems", "warnings", "next", "next_cursor", "url", "jupyter_url", "only"), 4096
    ),
    **dict.fromkeys(("lines", "stdout", "stderr", "log", "content", "startup_commands", "entrypoint"), 65_536),
}
# Where Lium's own words on what went wrong are shown, alone or in a sentence.
_OF_FAILURES: Final = frozenset(
    ("problem", "warnings", "next", "message", "reason", "detail", "failure", "error", "removed_because")
)


def render(result: Result, redact: Callable[[str], str] = redact_text) -> CallToolResult:
    """Write a result as compact JSON text and as the same structured content, with `redact` applied to every string."""
    data = _data(result, redact)
    return CallToolResult(content=[TextContent(type="text", text=_json(data))], structured_content=data)


def as_json(result: Result, redact: Callable[[str], str] = redact_text) -> str:
    """Write a result as compact JSON text, with `redact` applied to every string."""
    return _json(_data(result, redact))


def _data(result: Result, redact: Callable[[str], str]) -> dict[str, JsonValue]:
    data: JsonValue = result.model_dump(mode="json", exclude_none=True)
    if not _is_plain(data, redact):
        data = _bounded(redact_fields(_cleaned(data), redact))
    if not isinstance(data, dict):
        raise TypeError("a result is an object")
    return data


def _json(data: dict[str, JsonValue]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _is_plain(data: JsonValue, redact: Callable[[str], str]) -> bool:
    """Whether nothing below would change the data, told by one look at all its texts together, as nearly always."""
    texts: set[str] = set()
    names: set[str] = set()
    waiting: list[JsonValue] = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            texts.add(value)
        elif isinstance(value, list | dict):
            if len(value) > _MOST_ITEMS:
                return False
            if isinstance(value, dict):
                names.update(value)
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, float) and not math.isfinite(value):
            return False
    if any(map(names_secret, names)):
        return False
    texts |= names
    if max(map(len, texts), default=0) > _MOST_NAME_CHARACTERS:
        return False
    # Apart from each other, what stands in one of them stands in all; but escapes could hide what follows.
    joined = " ".join(texts)
    return not holds_hidden(joined) and without_commands(joined) == redact(joined) == joined


def _cleaned(value: JsonValue, field: str = "") -> JsonValue:
    if isinstance(value, str):
        # What is cleaned away may be most of it, but the end of an endless text is not looked at.
        text = clean(value[: 4 * _most_characters(field)])
        return without_commands(text) if field in _OF_FAILURES else text
    if isinstance(value, list):
        return [_cleaned(item, field) for item in value[:_MOST_ITEMS]]
    if isinstance(value, dict):
        items = islice(value.items(), _MOST_ITEMS)
        return {clean(key[: 4 * _MOST_NAME_CHARACTERS]): _cleaned(item, key) for key, item in items}
    if isinstance(value, float) and not math.isfinite(value):
        # Sums of absurd figures: JSON has no infinity, and one such row must not cost the whole answer.
        return math.copysign(sys.float_info.max, value)
    return value


def _bounded(value: JsonValue, field: str = "") -> JsonValue:
    # After redaction, which a secret that was cut in two would escape.
    if isinstance(value, str):
        return shortened(value, _most_characters(field))
    if isinstance(value, list):
        return [_bounded(item, field) for item in value]
    if isinstance(value, dict):
        return {shortened(key, _MOST_NAME_CHARACTERS): _bounded(item, key) for key, item in value.items()}
    return value


def _most_characters(field: str) -> int:
    return _MOST_CHARACTERS.get(field, _MOST_NAME_CHARACTERS)


def render_failure(failure: Failure, redact: Callable[[str], str] = redact_text) -> CallToolResult:
    """Write a failure as text for the model, with code and request id for programs as metadata."""
    details: dict[str, Any] = {"code": failure.code}
    if failure.request_id:
        details["request_id"] = redact(clean(failure.request_id))[:_MAX_REQUEST_ID_CHARACTERS]
    happened = shortened(without_commands(redact(clean(failure.happened))), _MAX_HAPPENED_CHARACTERS)
    rest = (without_commands(redact(clean(part))) for part in (failure.effect, failure.advice))
    text = shortened(" ".join(part for part in (happened, *rest) if part), _MAX_SENTENCES_CHARACTERS)
    suffix = ", ".join(f"{key}: {value}" for key, value in details.items())
    return CallToolResult(
        content=[TextContent(type="text", text=f"{text} ({suffix})")], is_error=True, _meta={META_KEY: details}
    )
