"""JSON schemas in the plain subset that every MCP host reads.

No titles (hosts ignore them and users pay for their tokens), no references, no unions with null: a parameter that is
not given is absent.
"""

from typing import Any, Final

JsonSchema = dict[str, Any]

UNLISTED: Final = "x-unlisted"
"""Marks a parameter that is taken but not listed: `Field(json_schema_extra={UNLISTED: True})`."""

_NULL: JsonSchema = {"type": "null"}


def plain(schema: JsonSchema, *, closed: bool = False) -> JsonSchema:
    """Rewrite a schema made by pydantic into the plain subset. Not for recursive models.

    Args:
        schema: A schema with an object at its root.
        closed: Say `additionalProperties: false`, for arguments.
    """
    slim: JsonSchema = _plain(schema, schema.get("$defs", {}))
    if closed:
        slim["additionalProperties"] = False
    slim.setdefault("properties", {})
    return slim


def _plain(node: Any, definitions: JsonSchema) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(node, list):
        return [_plain(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return _plain({**definitions[node["$ref"].removeprefix("#/$defs/")], **siblings}, definitions)
    alternatives = node.get("anyOf")
    if isinstance(alternatives, list) and _NULL in alternatives:
        rest = [item for item in alternatives if item != _NULL]
        siblings = {key: value for key, value in node.items() if key not in {"anyOf", "default"}}
        return _plain({**rest[0], **siblings} if len(rest) == 1 else {"anyOf": rest, **siblings}, definitions)
    return {
        key: {name: _plain(item, definitions) for name, item in value.items() if not item.get(UNLISTED)}
        if key == "properties"
        else _plain(value, definitions)
        for key, value in node.items()
        if not _is_noise(key, value, node)
    }


def _is_noise(key: str, value: object, node: JsonSchema) -> bool:
    """Tell what no model needs to read, and every user would pay for on every turn. It is enforced all the same."""
    if key == "default":
        # Nothing says no more than that the parameter is optional; the first choice is the usual one.
        return not value or value == node.get("enum", [None])[0]
    if key in {"minimum", "exclusiveMinimum", "minLength"}:
        return value in (0, 1)
    # `title` may also name a property, which never gets here because properties are walked by name.
    return key in {"$defs", "title"}
