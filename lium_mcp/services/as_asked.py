"""Compares what Lium shows after a change with what was asked: it may accept a change and make another, or none."""

from collections.abc import Mapping

from lium_mcp.failures import Failure


def unlike(pairs: Mapping[str, tuple[object, object]]) -> list[str]:
    """The names of what Lium shows otherwise than asked. None stands for what was not asked, or is not shown.

    Args:
        pairs: By name, what was asked and what Lium shows.
    """
    return [
        name
        for name, (asked, shown) in pairs.items()
        if asked is not None and shown is not None and _plain(asked) != _plain(shown)
    ]


def not_confirmed(changed: str, names: list[str], look: str, also: str = "") -> Failure:
    """Say that Lium accepted a change, and does not show it.

    Args:
        changed: What was to be changed.
        names: What Lium shows otherwise than asked.
        look: The tool that reads it.
        also: A sentence on what the change did besides.
    """
    return Failure(
        "change_not_confirmed",
        f"Lium accepted the change of {changed}, but shows another {' and another '.join(names)} than asked.",
        f"Call {look} to look again; if that stays, call this again.",
        effect=f"As it stands, it is not as asked. {also}".strip(),
    )


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.strip()
    return sorted(value) if isinstance(value, list | tuple) else value
