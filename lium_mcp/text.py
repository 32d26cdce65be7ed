"""Text that others wrote, made fit to be shown."""

from lium_mcp.secret_forms import UNSAFE


def clean(text: str) -> str:
    """Remove control characters, escape sequences and invisible characters, keeping tabs and newlines."""
    return UNSAFE.sub("", text.replace("\r\n", "\n"))


def shortened(text: str, most_characters: int) -> str:
    """A text of at most so many characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= most_characters else text[: most_characters - 1] + "\u2026"
