"""JSON schemas in the plain subset that every MCP host reads, and every validator compiles.

No titles (hosts ignore them and users pay for their tokens), no references, no unions: a parameter that is not given is
absent. A schema of answers is for programs, and says no more than which fields there are.
"""

from dataclasses import dataclass
from typing import Any

from lium_mcp.inputs import UNLISTED

JsonSchema = dict[str, Any]

_NULL: JsonSchema = {"type": "null"}


def plain(schema: JsonSchema, *, closed: bool = False) -> JsonSchema:
    """Rewrite a schema made by pydantic into the plain subset. Not for recursive models.

    Args:
        schema: A schema with an object at its root.
        closed: Whether it is of arguments: then keep what a model reads, and say `additionalProperties: false`.

    Raises:
        TypeError: something may be of several types, which the plain subset cannot say.
    """
    slim: JsonSchema = _Rewriter(schema.get("$defs", {}), closed).rewrite(schema)
    if closed:
        slim["additionalProperties"] = False
    slim.setdefault("properties", {})
    return slim


@dataclass(frozen=True, slots=True)
class _Rewriter:
    definitions: JsonSchema
    of_arguments: bool

    def rewrite(self, node: Any) -> Any:  # noqa: ANN401 - any JSON value
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            siblings = {key: value for key, value in node.items() if key != "$ref"}
            return self.rewrite({**self.definitions[node["$ref"].removeprefix("#/$defs/")], **siblings})
        if "anyOf" in node:
            siblings = {key: value for key, value in node.items() if key not in {"anyOf", "default"}}
            return self.rewrite({**self._one_of(node["anyOf"]), **siblings})
        if "const" in node:
            return self.rewrite({"enum": [node["const"]], **{k: v for k, v in node.items() if k != "const"}})
        return {
            key: {name: self.rewrite(item) for name, item in value.items() if not item.get(UNLISTED)}
            if key == "properties"
            else self.rewrite(value)
            for key, value in node.items()
            if not self._is_noise(key, value, node)
        }

    def _one_of(self, alternatives: list[JsonSchema]) -> JsonSchema:
        rest = [item for item in alternatives if item != _NULL]
        if len(rest) == 1:
            return rest[0]
        choices = [self.rewrite(item) for item in rest]
        if any("enum" not in item or item.get("type") != "string" for item in choices):
            raise TypeError(f"no plain schema says that something is one of {rest}")
        return {"type": "string", "enum": list(dict.fromkeys(choice for item in choices for choice in item["enum"]))}

    def _is_noise(self, key: str, value: object, node: JsonSchema) -> bool:
        """Whether nobody needs to read a key, for which every user would pay."""
        if not self.of_arguments and key in {"default", "description", "format"}:
            return True
        if key == "default":
            # Nothing says no more than that the parameter is optional; the first choice is the usual one.
            return not value or value == node.get("enum", [None])[0]
        # `title` may also name a property, which never gets here because properties are walked by name.
        return key in {"$defs", "title"}
