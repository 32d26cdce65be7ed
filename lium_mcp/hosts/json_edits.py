"""Changes single values of a JSON text, and leaves every other byte of it as it is.

The text must be JSON, which the caller has seen to. What is written follows the indentation and the
line ends around it.
"""

import json
import re
from collections.abc import Sequence
from json.decoder import JSONDecoder
from typing import Any, Final, NamedTuple

from lium_mcp.hosts.host_facts import Item, Step, Steps

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_INDENT: Final = re.compile(r"\n([ \t]+)\S")
_DECODER: Final = JSONDecoder(strict=False)


class _Member(NamedTuple):
    """A member of an object, or an item of a list: from where to where, where its value begins, and what it is."""

    start: int
    value_start: int
    end: int
    name: str
    value: Any


def with_value(text: str, steps: Steps, value: object) -> str:
    """The text with this value there; containers on the way to it are made."""
    start = _skip(text, 0)
    if start == len(text):
        return f"{_dumped(_nested(steps, value), text, '')}\n"
    return _with_value(text, start, steps, value)


def without(text: str, steps: Steps) -> str:
    """The text without what stands there, if anything does."""
    at = _skip(text, 0)
    for step in steps[:-1]:
        member = _find(_members(text, at), step)
        if member is None or text[member.value_start] not in "{[":
            return text
        at = member.value_start
    members = _members(text, at)
    gone = _find(members, steps[-1])
    if gone is None:
        return text
    place = members.index(gone)
    if place + 1 < len(members):
        start, end = gone.start, members[place + 1].start
    elif place:
        start, end = members[place - 1].end, gone.end
    else:
        start, end = at + 1, _skip(text, gone.end)
    return text[:start] + text[end:]


def _with_value(text: str, at: int, steps: Steps, value: object) -> str:
    members = _members(text, at)
    found = _find(members, steps[0])
    if found is None:
        return _with_member(text, at, members, steps, value)
    if len(steps) > 1 and text[found.value_start] in "{[":
        return _with_value(text, found.value_start, steps[1:], value)
    dumped = _dumped(_nested(steps[1:], value), text, _indent_of_line(text, found.start))
    return text[: found.value_start] + dumped + text[found.end :]


def _with_member(text: str, at: int, members: Sequence[_Member], steps: Steps, value: object) -> str:
    end_of_line = _end_of_line(text)
    outer = _indent_of_line(text, at)
    if not members:
        close = _skip(text, at + 1)
        inner = outer + _unit(text)
        member = _member_text(text, steps, value, inner)
        return f"{text[: at + 1]}{end_of_line}{inner}{member}{end_of_line}{outer}{text[close:]}"
    last = members[-1]
    if "\n" in text[at : members[0].start]:
        inner = _indent_of_line(text, last.start)
        return f"{text[: last.end]},{end_of_line}{inner}{_member_text(text, steps, value, inner)}{text[last.end :]}"
    member = json.dumps(_nested(steps, value), ensure_ascii=False)[1:-1]
    return f"{text[: last.end]}, {member}{text[last.end :]}"


def _member_text(text: str, steps: Steps, value: object, indent: str) -> str:
    dumped = _dumped(_nested(steps[1:], value), text, indent)
    return dumped if isinstance(steps[0], Item) else f"{json.dumps(steps[0], ensure_ascii=False)}: {dumped}"


def _nested(steps: Steps, value: object) -> object:
    """The value in the containers that the steps name."""
    for step in reversed(steps):
        value = [value] if isinstance(step, Item) else {step: value}
    return value


def _dumped(value: object, text: str, indent: str) -> str:
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return f"{_end_of_line(text)}{indent}".join(lines)


def _members(text: str, at: int) -> list[_Member]:
    close, members = "}" if text[at] == "{" else "]", []
    place = _skip(text, at + 1)
    while text[place] != close:
        start, name = place, ""
        if close == "}":
            name, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)
        value, end = _DECODER.raw_decode(text, place)
        members.append(_Member(start, place, end, name, value))
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)
    return members


def _find(members: Sequence[_Member], step: Step) -> _Member | None:
    """The last one that is meant, as readers take it where there are several."""
    if isinstance(step, Item):
        return next((one for one in reversed(members) if _is_item(one.value, step)), None)
    return next((one for one in reversed(members) if one.name == step), None)


def _is_item(value: object, item: Item) -> bool:
    return isinstance(value, dict) and value.get(item.key) == item.value


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _indent_of_line(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(text: str) -> str:
    found = _INDENT.search(text)
    return found[1] if found else "  "


def _end_of_line(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
