"""Arguments as hosts really send them, read as what they mean.

What is absent comes as null, as an empty text or choice, or as 0 where counting starts at 1. All else is taken at its
word: a name that no parameter has, or a ceiling of 0, is refused, or a limit would vanish without anybody's noticing.
"""

from functools import cache
from typing import Any, Final

from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import ConfigDict, model_validator
from pydantic.fields import FieldInfo

from lium_mcp.toolkit.schema import JsonSchema, plain
from lium_mcp.values import is_decimal

HOST_ADDED: Final = frozenset({"action", "chatInput", "sessionId", "toolCallId"})
"""Names that a host adds to any call by itself: n8n takes these from the workflow that its agent runs in."""


class Arguments(ArgModelBase):
    """Base of the arguments of every tool."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, given: dict[str, Any]) -> dict[str, Any]:
        fields = {field.alias or name: field for name, field in cls.model_fields.items()}
        schemas = listed(cls)["properties"]
        return {
            name: _plain_figure(schemas.get(name, {}), value)
            for name, value in given.items()
            if not (_is_absent(fields[name], schemas.get(name, {}), value) if name in fields else name in HOST_ADDED)
        }


class Metadata(FuncMetadata):
    """Reads arguments as the SDK does, except that the text "null" is no null: a ceiling would vanish.

    What a tool returns was rendered from the model that its schema is of: it is not read again.
    """

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        """Read JSON text as the SDK does, but leave "null" a text."""
        return {name: data[name] if value is None else value for name, value in super().pre_parse_json(data).items()}

    def convert_result(self, result: CallToolResult | InputRequiredResult) -> CallToolResult | InputRequiredResult:
        """Return it as it is."""
        return result


@cache
def listed(arguments: type[Arguments]) -> JsonSchema:
    """The schema that agents see."""
    return plain(arguments.model_json_schema(by_alias=True), closed=True)


def _is_absent(field: FieldInfo, schema: JsonSchema, value: object) -> bool:
    if value is None or field.is_required():
        return value is None
    text = str(value).strip()
    match schema:
        case {"type": "string"}:
            return not text
        case {"type": "integer", "minimum": 1}:
            return text in {"0", "0.0"}
    return False


def _plain_figure(schema: JsonSchema, value: object) -> object:
    """Spoil a value that stands for a figure and is none, so that it is refused: `true` is not 1, "1_0" is not 10."""
    match schema, value:
        case {"type": "integer" | "number"}, bool():
            return str(value).lower()
        case {"type": "integer" | "number"}, str() if value.strip() and not is_decimal(value):
            return repr(value)
        case {"type": "array", "items": {"type": "integer" | "number"} as items}, [*values]:
            return [_plain_figure(items, item) for item in values]
    return value
