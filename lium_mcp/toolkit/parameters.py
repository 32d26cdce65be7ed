"""Parameters that several tools have, so that one idea is spelled and described one way."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from lium_mcp.api.paging import Rows
from lium_mcp.failures import Failure
from lium_mcp.inputs import ShortText, visible

T = TypeVar("T")

DEFAULT_WAIT_SECONDS: Final = 45

_MOST_CURSOR_DIGITS: Final = 9

PodName = Annotated[ShortText, Field(min_length=1, description="Pod id, or a name that only one pod has.")]
PodNames = Annotated[
    list[Annotated[ShortText, Field(min_length=1)]],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),  # as hosts send one of a list
    Field(min_length=1, max_length=50, description="Pod ids, or names that only one pod has."),
]
VolumeName = Annotated[ShortText, Field(min_length=1, description="Volume id, or a name that only one has.")]
TemplateName = Annotated[ShortText, Field(min_length=1, description="Id, or the name of one of your own.")]
BackupId = Annotated[ShortText, Field(min_length=1, description="From list_backups.")]
WaitSeconds = Annotated[int, Field(ge=0, le=600, description="Longest wait; 0 returns at once.")]
Port = Annotated[int, Field(ge=1, le=65_535)]
Limit = Annotated[int, Field(ge=1, le=100, description="Most rows to show.")]
Cursor = Annotated[ShortText, Field(description="next_cursor of the last page.")]
LiumCursor = Annotated[
    str, Field(max_length=1000, description="next_cursor of the last page."), AfterValidator(visible)
]


def page(rows: Sequence[T], *, limit: int, cursor: str) -> tuple[list[T], str | None]:
    """The rows from `cursor` on, at most `limit`, and the cursor of the next page if there is one.

    Raises:
        Failure: the cursor is not one that a page returned.
    """
    if cursor and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MOST_CURSOR_DIGITS):
        raise Failure("invalid_argument", "cursor is not one that a page returned.", "Leave it out to start again.")
    start = int(cursor or 0)
    end = start + limit
    return list(rows[start:end]), str(end) if end < len(rows) else None


def incomplete(rows: Rows[Any]) -> str | None:
    """What is missing from a list, in words; None where nothing is."""
    missing = ["Lium's list did not come to an end: there may be more."] if rows.truncated else []
    missing += [f"{rows.skipped} rows of it could not be read."] if rows.skipped else []
    return " ".join(missing) or None
