"""A finding: what was looked at, how it is, and the command or setting that mends it."""

from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "warning", "broken"]
LEVELS: Final[tuple[Level, ...]] = ("ok", "warning", "broken")


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is.

    Attributes:
        area: What it belongs to, as a heading.
        level: Whether it is well, worth a look, or keeps the server from working.
        what: How it is, in a sentence; no secret is in it.
        cure: What mends it: a command to type, or what to set; empty where nothing is to be mended.
    """

    area: str
    level: Level
    what: str
    cure: str = ""


def ok(area: str, what: str) -> Finding:
    """Something that is well."""
    return Finding(area, "ok", what)


def warning(area: str, what: str, cure: str) -> Finding:
    """Something that works, and not as well as it could, or that could not be looked at."""
    return Finding(area, "warning", what, cure)


def broken(area: str, what: str, cure: str) -> Finding:
    """Something that keeps the server, or its pods, from working."""
    return Finding(area, "broken", what, cure)
