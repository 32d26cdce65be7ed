"""Lists as the API gives them: rows, pages, and the walk over all pages. Knows no resource."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

PAGE_SIZE = 100
MAX_PAGES = 100
_NOBODY_KNOWS_WHEN = datetime.min.replace(tzinfo=UTC)


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_Identified)


class Rows(list[T]):
    """A list of rows that remembers what is missing from it, and which moment it is of.

    `skipped` counts rows that could not be read; `truncated` says that more pages exist than were fetched. `asked_at`
    is a time before the request left: the list knows nothing of what happened later, however late it came.
    """

    def __init__(
        self,
        rows: Iterable[T] = (),
        *,
        skipped: int = 0,
        truncated: bool = False,
        asked_at: datetime = _NOBODY_KNOWS_WHEN,
    ) -> None:
        super().__init__(rows)
        self.skipped = skipped
        self.truncated = truncated
        self.asked_at = asked_at

    def where(self, keep: Callable[[T], bool]) -> "Rows[T]":
        """Return the rows that `keep` accepts, with the same account of what is missing."""
        kept = (row for row in self if keep(row))
        return Rows(kept, skipped=self.skipped, truncated=self.truncated, asked_at=self.asked_at)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list."""

    items: Rows[T] = field(default_factory=Rows)
    has_next: bool = False


def once_each(rows: Rows[R]) -> Rows[R]:
    """Keep the first row of each id, with the same account of what is missing."""
    first = {id(row) for row in {row.id: row for row in reversed(rows)}.values()}
    return rows.where(lambda row: id(row) in first)


async def collect_pages(fetch: Callable[[int], Awaitable[Page[R]]], *, max_pages: int = MAX_PAGES) -> Rows[R]:
    """Fetch pages from 1 to the last, at most `max_pages`; keep each row once, however many pages show it.

    A page that shows nothing new, and is not the last, ends the walk too: the server would only repeat itself.
    """
    rows: Rows[R] = Rows()
    seen: set[str] = set()
    for number in range(1, max_pages + 1):
        page = await fetch(number)
        new = {row.id: row for row in page.items if row.id not in seen}
        seen.update(new)
        rows.extend(new.values())
        rows.skipped += page.items.skipped
        if not page.has_next or not (page.items or page.items.skipped):
            return rows
        if not new:
            break
    rows.truncated = True
    return rows
