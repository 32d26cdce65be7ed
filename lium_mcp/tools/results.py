"""How an answer is written: one small typed model, rendered the same as text and as structured content.

Some hosts show a model only the text, some only the structured half, so both say the same. Absent values are left
out. Strings may come from the API or from other people: what could steer a terminal or break the transport is
removed here, in one place, for every tool.
"""

import json
import math
import re
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, JsonValue, PlainSerializer

from lium_mcp.guard.redaction import redact as redact_fields
from lium_mcp.guard.redaction import redact_text

# C0 and C1 controls except tab and newline, escape sequences with what belongs to them, bidirectional controls,
# zero-width and other invisible characters (they hide text from a person but not from a model), and lone surrogates
# (not encodable). An escape sequence that is never ended takes nothing else with it: it could hide what follows.
_UNSAFE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]?[0-~])?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e0fff]"
)


def _utc_seconds(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


UtcTime = Annotated[datetime, PlainSerializer(_utc_seconds, return_type=str)]
"""An instant in UTC, written to the second: finer is never acted upon."""

Usd = Annotated[float, PlainSerializer(lambda value: round(value, 4), return_type=float)]


class Result(BaseModel):
    """Base of every answer. Fields that are None are left out of the answer."""

    model_config = ConfigDict(frozen=True)


def clean(text: str) -> str:
    """Remove control characters, escape sequences and invisible characters, keeping tabs and newlines."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n"))


def shortened(text: str, most_characters: int) -> str:
    """A text of at most so many characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= most_characters else text[: most_characters - 1] + "\u2026"


def render(result: Result, redact: Callable[[str], str] = redact_text) -> CallToolResult:
    """Write a result as compact JSON text and as the same structured content, with `redact` applied to every string."""
    data = _data(result, redact)
    return CallToolResult(content=[TextContent(type="text", text=_json(data))], structured_content=data)


def as_json(result: Result, redact: Callable[[str], str] = redact_text) -> str:
    """Write a result as compact JSON text, with `redact` applied to every string."""
    return _json(_data(result, redact))


def _data(result: Result, redact: Callable[[str], str]) -> dict[str, JsonValue]:
    data = redact_fields(_cleaned(result.model_dump(mode="json", exclude_none=True)), redact)
    if not isinstance(data, dict):
        raise TypeError("a result is an object")
    return data


def _json(data: dict[str, JsonValue]) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        # Sums of absurd figures: JSON has no infinity, and one such row must not cost the whole answer.
        return math.copysign(sys.float_info.max, value)
    return value
