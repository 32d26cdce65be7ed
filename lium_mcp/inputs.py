"""Types of what callers give: bounded texts that hold nothing invisible, and marks of their parameters."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, StringConstraints

from lium_mcp.text import clean

_MOST_CHARACTERS: Final = 200
_MOST_PATH_CHARACTERS: Final = 2048
_MOST_LINE_CHARACTERS: Final = 32_768
_MOST_ITEMS: Final = 500

UNLISTED: Final = "x-unlisted"
"""Marks, in the schema of a parameter, that it is taken but not listed."""


def visible(text: str) -> str:
    """Return a text of one line.

    Raises:
        ValueError: it holds characters that nobody would see.
    """
    if clean(text) != text or "\n" in text or "\t" in text:
        raise ValueError("holds control or invisible characters")
    return text


ShortText = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=_MOST_CHARACTERS), AfterValidator(visible)
]


def _at_most(characters: int) -> AfterValidator:
    """Refuse what is longer, without a limit in the schema: each costs every user tokens, and nobody gets there."""

    def check(text: str) -> str:
        if len(text) > characters:
            raise ValueError(f"holds more than {characters} characters")
        return text

    return AfterValidator(check)


UnlistedShortText = Annotated[
    str, StringConstraints(strip_whitespace=True), _at_most(_MOST_CHARACTERS), AfterValidator(visible)
]
UnlistedFilePath = Annotated[str, _at_most(_MOST_PATH_CHARACTERS), AfterValidator(visible)]
FilePath = Annotated[str, Field(max_length=_MOST_PATH_CHARACTERS), AfterValidator(visible)]
Line = Annotated[str, Field(max_length=_MOST_LINE_CHARACTERS)]
Few: Final = Field(max_length=_MOST_ITEMS)


def _without_limits(schema: dict[str, Any]) -> None:
    for part in (schema, *schema.get("anyOf", ())):
        for name in ("minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength"):
            part.pop(name, None)


UNLISTED_LIMITS: Final = Field(json_schema_extra=_without_limits)
"""A parameter whose limits hold and are not in the schema: each costs every user tokens."""

OFFICIAL: Final = Field(json_schema_extra={UNLISTED: True})
"""A parameter of the official MCP server, unlisted: what works there works here, and costs nobody tokens."""
