"""Types of what callers give: bounded text that holds nothing invisible."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

from lium_mcp.text import clean

_MOST_CHARACTERS: Final = 200
_MOST_PATH_CHARACTERS: Final = 2048
_MOST_LINE_CHARACTERS: Final = 32_768
_MOST_ITEMS: Final = 500


def _visible(text: str) -> str:
    if clean(text) != text or "\n" in text or "\t" in text:
        raise ValueError("holds control or invisible characters")
    return text


ShortText = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=_MOST_CHARACTERS), AfterValidator(_visible)
]
FilePath = Annotated[str, Field(max_length=_MOST_PATH_CHARACTERS), AfterValidator(_visible)]
Line = Annotated[str, Field(max_length=_MOST_LINE_CHARACTERS)]
Few: Final = Field(max_length=_MOST_ITEMS)


UNLISTED: Final = "x-unlisted"
"""Marks a parameter that is taken but not listed: `Field(json_schema_extra={UNLISTED: True})`."""


LEAST_HOURS = 0.1
"""The shortest life to rent for: within less, a pod that has to boot is of no use to anybody."""


# Parameters of the official MCP server: what works there works here, without costing everybody tokens.
OFFICIAL = Field(json_schema_extra={UNLISTED: True})
