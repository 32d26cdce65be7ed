"""Reads streams of lines, such as logs, and keeps their newest lines. Knows no resource and sends nothing."""

from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx2

from lium_mcp.api.answers import WEB_PAGE
from lium_mcp.api.errors import NotLium
from lium_mcp.values import without_mark

MAX_LINE_BYTES = 256 * 2**10
_PAGE_STARTS = (b"<!doctype html", b"<html")
_PAGE_START_BYTES = max(map(len, _PAGE_STARTS))


class Tail(NamedTuple):
    """The newest lines of a stream.

    `is_cut` says that there was no room for all the lines that were asked for; `has_ended` says that the stream came to
    its end, rather than going quiet or sending on and on.
    """

    lines: list[str]
    is_cut: bool
    has_ended: bool


class Newest:
    """Keeps the newest lines of a stream, at most `most_lines`, together not longer than `max_bytes`."""

    def __init__(self, most_lines: int, max_bytes: int) -> None:
        self._most_lines = most_lines
        self._max_bytes = max_bytes
        self._lines: deque[tuple[str, int]] = deque()
        self._kept_bytes = self._seen = 0

    def add(self, text: str, size_bytes: int) -> None:
        """Take the next line."""
        self._lines.append((text, size_bytes))
        self._kept_bytes += size_bytes
        self._seen += 1
        while self._kept_bytes > self._max_bytes or len(self._lines) > self._most_lines:
            self._kept_bytes -= self._lines.popleft()[1]

    def tail(self, *, has_ended: bool) -> Tail:
        """Return the lines kept so far."""
        is_cut = len(self._lines) < min(self._seen, self._most_lines)
        return Tail([text for text, _ in self._lines], is_cut, has_ended)


async def sized_lines(response: httpx2.Response) -> AsyncIterator[tuple[str, int]]:
    """Yield each line with its size in bytes; a very long line comes in pieces.

    Raises:
        NotLium: it is a web page.
    """
    is_page = "html" in response.headers.get("Content-Type", "").lower()
    pending = head = b""
    async for chunk in response.aiter_bytes():
        head = head or without_mark(chunk).lstrip()[:_PAGE_START_BYTES].lower()
        if is_page or head.startswith(_PAGE_STARTS):
            raise NotLium(WEB_PAGE, status=response.status_code)
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > MAX_LINE_BYTES:
            lines.append(pending)
            pending = b""
        for line in lines:
            for start in range(0, len(line) or 1, MAX_LINE_BYTES):
                piece = line[start : start + MAX_LINE_BYTES]
                yield piece.decode("utf-8", "replace").rstrip("\r"), len(piece) + 1
    if pending:
        yield pending.decode("utf-8", "replace").rstrip("\r"), len(pending)
