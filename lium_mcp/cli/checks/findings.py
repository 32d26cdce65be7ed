"""A finding: what was looked at, how it is, and the command or setting that mends it."""

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "untried", "warning", "broken"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "untried", "warning", "broken")


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is.

    Attributes:
        area: What it belongs to, as a heading.
        level: Whether it is well, was not tried, is worth a look, or keeps the server from working.
        what: How it is, in a sentence; no secret is in it.
        cure: What mends it, or shows how it is; empty where all is well.
        run: A line for a shell that does so; empty where there is none.
    """

    area: str
    level: Level
    what: str
    cure: str = ""
    run: str = ""


def ok(area: str, what: str) -> Finding:
    """Something that is well."""
    return Finding(area, "ok", what)


def untried(area: str, what: str, how: str, run: str = "") -> Finding:
    """Something of which nobody knows how it is, with how to find out."""
    return Finding(area, "untried", what, how, run)


def warning(area: str, what: str, cure: str, run: str = "") -> Finding:
    """Something that works, and not as well as it could."""
    return Finding(area, "warning", what, cure, run)


def broken(area: str, what: str, cure: str, run: str = "") -> Finding:
    """Something that keeps the server, or its pods, from working."""
    return Finding(area, "broken", what, cure, run)
