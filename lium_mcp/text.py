"""Text that others wrote, made fit to be shown."""

import re
from collections.abc import Callable
from typing import Final

from lium_mcp.secret_forms import UNSAFE, redacted

Redact = Callable[[str], str]

_MOST_READ: Final = 2**16
_TAG: Final = re.compile(r"<[^<>]*>")
# A notebook's address lets whoever has it run anything in the pod.
_TOKEN_IN_ADDRESS: Final = re.compile(r"[?&]token=([^&\s\"']+)", re.IGNORECASE)


def clean(text: str) -> str:
    """Remove control characters, escape sequences and invisible characters, keeping tabs and newlines."""
    return UNSAFE.sub("", text.replace("\r\n", "\n"))


def in_a_line(text: str) -> str:
    """A cleaned text on one line, for a sentence or a cell."""
    return " ".join(clean(text).split())


def shortened(text: str, most_characters: int) -> str:
    """A text of at most so many characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= most_characters else text[: most_characters - 1] + "\u2026"


def one_line(text: str, redact: Redact, *, most_characters: int = 300) -> str:
    """A part of a sentence: cleaned, on one line, without markup and secrets, and bounded."""
    # Far more than is kept, but never the whole of a large body; and cut after the search for secrets, which finds no
    # half of one.
    text = redact(text[:_MOST_READ])[: most_characters * 20]
    text = clean("".join(" " if character.isspace() else character for character in text))
    text = redact("".join(filter(str.isprintable, text)))
    text = " ".join(redact(_TAG.sub(" ", text)).replace("<", " ").replace(">", " ").split())
    text = redacted(text, lambda plain: (match.span(1) for match in _TOKEN_IN_ADDRESS.finditer(plain)))
    return shortened(text, most_characters)


def quotation(text: str, most_characters: int) -> str:
    """A text in quotation marks, which it cannot end itself; nothing where it has no words."""
    words = in_a_line(text).replace('"', "'")[:most_characters]
    return f'"{words}"' if words else ""
