"""What another tool list means for those who call its tools: what is new, what is gone, and what no longer works.

Tool names, parameters and answers are part of the interface. Schemas are in the plain subset that our tools keep to, so
each word of it is judged by what it does to a caller; a word that is not known here counts as breaking.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

_Schema = Mapping[str, Any]
_FLOORS: Final = {"minimum", "exclusiveMinimum", "minLength", "minItems"}
_CEILINGS: Final = {"maximum", "exclusiveMaximum", "maxLength", "maxItems"}
_ONLY_WORDS: Final = {"description", "title", "examples"}
_PARTS: Final = {"properties", "required", "items", "enum", "additionalProperties"}
_INPUT: Final = "parameter"
_OUTPUT: Final = "field"


class Change(NamedTuple):
    """One difference; `said` is a line of release notes, without the tool's name."""

    tool: str
    said: str
    is_breaking: bool


class Changes(NamedTuple):
    """All differences between two lists."""

    added: list[str]
    removed: list[str]
    changed: list[Change]

    @property
    def breaking(self) -> list[Change]:
        """What no longer works, beside what is gone."""
        return [change for change in self.changed if change.is_breaking]

    @property
    def is_breaking(self) -> bool:
        """Whether a caller of the older list may be let down."""
        return bool(self.removed or self.breaking)


def compare(old: Sequence[_Schema], new: Sequence[_Schema]) -> Changes:
    """Compare the rows of two files `listing.json`."""
    before, after = ({row["tool"]["name"]: row for row in rows} for rows in (old, new))
    changed = [change for name in after if name in before for change in _of_tool(name, before[name], after[name])]
    return Changes(
        added=[f"{name} ({after[name]['toolset']})" for name in after if name not in before],
        removed=[name for name in before if name not in after],
        changed=changed,
    )


def as_markdown(changes: Changes, since: str) -> str:
    """Write the differences as a section of release notes."""
    parts = {
        "Removed": [f"- `{name}`" for name in changes.removed],
        "Breaking": [f"- `{change.tool}`: {change.said}" for change in changes.breaking],
        "Added": [f"- `{name}`" for name in changes.added],
        "Changed, compatible": [
            f"- `{change.tool}`: {change.said}" for change in changes.changed if not change.is_breaking
        ],
    }
    lines = [f"## Tools since {since}"]
    for title, items in parts.items():
        if items:
            lines += ["", f"### {title}", "", *items]
    return "\n".join(lines if len(lines) > 1 else [*lines, "", "The same tools, parameters and answers."]) + "\n"


def _of_tool(name: str, old: _Schema, new: _Schema) -> Iterator[Change]:
    if old["toolset"] != new["toolset"]:
        yield Change(name, f"is in the toolset {new['toolset']}, no longer in {old['toolset']}", True)
    before, after = old["tool"], new["tool"]
    if before["annotations"].get("readOnlyHint") and not after["annotations"].get("readOnlyHint"):
        yield Change(name, "is no longer offered to those who only read", True)
    elif before["annotations"] != after["annotations"]:
        yield Change(name, "has other hints", False)
    for word in ("title", "description", "_meta"):
        if before.get(word) != after.get(word):
            yield Change(name, f"has another {word}", False)
    yield from (Change(name, *found) for found in _differences("", before["inputSchema"], after["inputSchema"], _INPUT))
    outputs = (before.get("outputSchema", {}), after.get("outputSchema", {}))
    yield from (Change(name, *found) for found in _differences("", *outputs, _OUTPUT))


def _differences(where: str, old: _Schema, new: _Schema, side: str) -> Iterator[tuple[str, bool]]:
    """Go down two schemas; a parameter must not accept less, a field must not promise less."""
    what = f"{side} `{where}`" if where else f"the {side}s"
    for word in sorted((old.keys() | new.keys()) - _PARTS):
        if old.get(word) != new.get(word):
            yield (
                f"{what}: {word} is {new.get(word, 'gone')}, was {old.get(word, 'absent')}",
                _harms(word, old, new, side),
            )
    yield from _of_choices(what, old.get("enum"), new.get("enum"), side)
    yield from _of_properties(where, old, new, side)
    for word in ("items", "additionalProperties"):
        before, after = old.get(word), new.get(word)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(f"{where}[]", before, after, side)
        elif before != after:
            yield f"{what}: {word} is {after}, was {before}", True


def _harms(word: str, old: _Schema, new: _Schema, side: str) -> bool:
    if word in _ONLY_WORDS:
        return False
    if word in _FLOORS | _CEILINGS:
        if side == _OUTPUT:
            return False
        if word not in new or word not in old:
            return word in new
        return bool(new[word] > old[word] if word in _FLOORS else new[word] < old[word])
    return True


def _of_choices(what: str, old: list[Any] | None, new: list[Any] | None, side: str) -> Iterator[tuple[str, bool]]:
    if old == new:
        return
    if old is None or new is None:
        # Who passes a value is let down by a list of choices, who reads one by its end.
        yield f"{what}: {'any value' if new is None else f'only {new}'}", (new is not None) == (side == _INPUT)
        return
    if gone := [value for value in old if value not in new]:
        yield f"{what}: no longer {', '.join(map(str, gone))}", side == _INPUT
    if more := [value for value in new if value not in old]:
        yield f"{what}: also {', '.join(map(str, more))}", False


def _of_properties(where: str, old: _Schema, new: _Schema, side: str) -> Iterator[tuple[str, bool]]:
    before, after = old.get("properties", {}), new.get("properties", {})
    needed_before, needed_after = set(old.get("required", ())), set(new.get("required", ()))
    for name in [*before, *(name for name in after if name not in before)]:
        path = f"{where}.{name}" if where else name
        needed, was_needed = name in needed_after, name in needed_before
        if name not in after:
            yield f"{side} `{path}` is gone", True
        elif name not in before:
            yield (
                f"{side} `{path}` is new" + (", and needed" if needed and side == _INPUT else ""),
                (needed and side == _INPUT),
            )
        else:
            if needed != was_needed:
                always = {_INPUT: "needed", _OUTPUT: "always there"}[side]
                yield f"{side} `{path}` is {'now' if needed else 'no longer'} {always}", needed == (side == _INPUT)
            yield from _differences(path, before[name], after[name], side)
