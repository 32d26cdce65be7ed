"""Parameters that several tools have, so that one idea is spelled and described one way."""

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, Field

from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.results import clean

T = TypeVar("T")

DEFAULT_WAIT_SECONDS: Final = 45

_MOST_CHARACTERS: Final = 200
_MOST_PATH_CHARACTERS: Final = 2048
_MOST_CURSOR_DIGITS: Final = 9


def _short(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"longer than {_MOST_CHARACTERS} characters")
    text = text.strip()
    if clean(text) != text or "\n" in text or "\t" in text:
        raise ValueError("holds control or invisible characters")
    return text


def _path(text: str) -> str:
    if len(text) > _MOST_PATH_CHARACTERS:
        raise ValueError(f"longer than {_MOST_PATH_CHARACTERS} characters")
    if clean(text) != text or "\n" in text or "\t" in text:
        raise ValueError("holds control or invisible characters")
    return text


# The bound is left out of the schema: it costs tokens on every turn, and only a mistake ever meets it.
ShortText = Annotated[str, AfterValidator(_short)]
FilePath = Annotated[str, AfterValidator(_path)]

PodName = Annotated[ShortText, Field(min_length=1, description="Pod id, or a name that only one pod has.")]
WaitSeconds = Annotated[int, Field(ge=0, le=600, description="0 returns at once.")]
Limit = Annotated[int, Field(ge=1, le=100, description="Rows.")]
Cursor = Annotated[ShortText, Field(description="next_cursor.")]


def page(rows: Sequence[T], *, limit: int, cursor: str) -> tuple[list[T], str | None]:
    """The rows from `cursor` on, at most `limit`, and the cursor of the next page if there is one.

    Raises:
        ToolFailure: the cursor is not one that a page returned.
    """
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MOST_CURSOR_DIGITS):
        raise ToolFailure("invalid_argument", "cursor is not one that a page returned.", "Leave it out to start again.")
    start = int(cursor or 0)
    end = start + limit
    return list(rows[start:end]), str(end) if end < len(rows) else None
