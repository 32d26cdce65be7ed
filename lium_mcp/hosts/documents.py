"""A config file of a host as a document: what it says, and its text with single values changed.

All else in the text stays: JSON by edits of the text, TOML by tomlkit, YAML by ruamel.yaml. Each change is read again
and held against what was meant, so that a file which would come out otherwise is left alone.
"""

import json
import re
import tomllib
from collections.abc import Sequence
from copy import deepcopy
from io import StringIO
from typing import Any, Final, NamedTuple

from lium_mcp.hosts.host_facts import Format, Item, Step, Steps
from lium_mcp.hosts.json_edits import with_value, without

_BOM: Final = "\ufeff"
_COMMENTS: Final = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA: Final = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)
_WIDTH: Final = 100_000
GONE: Final = object()
"""The value of what is to be taken away."""


class Unreadable(ValueError):
    """The file is not of its format; the text says what is wrong, and repeats nothing of it."""


class Edit(NamedTuple):
    """A value, or `GONE`, and where it belongs."""

    steps: Steps
    value: Any


class Document:
    """What a file says.

    Attributes:
        content: Its values.
        has_comments: Whether it is JSON with comments, which no library changes without losing some.

    Raises:
        Unreadable: it is not of its format.
    """

    def __init__(self, data: bytes, file_format: Format) -> None:
        self._format = file_format
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise Unreadable("it is not UTF-8") from None
        self._bom = _BOM if text.startswith(_BOM) else ""
        self._text = text.removeprefix(_BOM)
        try:
            self.content, self.has_comments = _read(self._text, file_format)
        except RecursionError:
            raise Unreadable("it is nested too deeply") from None

    def value(self, steps: Steps) -> Any:  # noqa: ANN401 - what the file says
        """What stands there; None where nothing does."""
        found: Any = self.content
        for step in steps:
            found = _below(found, step)
        return found

    def edited(self, edits: Sequence[Edit]) -> bytes:
        """The file with these changes, and with everything else as it was.

        Raises:
            Unreadable: it cannot be changed so.
        """
        # The libraries write the line ends of Unix alone; JSON keeps its own.
        is_of_windows = self._format != "json" and self._text.count("\n") == self._text.count("\r\n") > 0
        text = self._text.replace("\r\n", "\n") if is_of_windows else self._text
        changed = {"json": _edit_json, "toml": _edit_toml, "yaml": _edit_yaml}[self._format](text, edits)
        changed = changed.replace("\n", "\r\n") if is_of_windows else changed
        meant = deepcopy(self.content)
        for edit in edits:
            _apply(meant, edit)
        content, _ = _read(changed, self._format)
        if _told(content, self._format) != _told(meant, self._format):
            raise Unreadable("our entry cannot be changed there without changing something else; change it by hand")
        return (self._bom + changed).encode()


def _told(content: dict[str, Any], file_format: Format) -> dict[str, Any]:
    """What counts of it: a table of tables without any has no line in TOML."""
    return {name: value for name, value in content.items() if file_format != "toml" or value != {}}


def _read(text: str, file_format: Format) -> tuple[dict[str, Any], bool]:
    if not text.strip():
        return {}, False
    has_comments = False
    match file_format:
        case "json":
            content, has_comments = _read_json(text)
        case "toml":
            try:
                content = tomllib.loads(text)
            except tomllib.TOMLDecodeError as error:
                raise Unreadable(f"it is no TOML{_place(str(error))}") from None
        case _:
            content = _read_yaml(text)
    if not isinstance(content, dict):
        raise Unreadable("it holds no settings, but something else")
    return content, has_comments


def _read_json(text: str) -> tuple[Any, bool]:
    try:
        return json.loads(text, strict=False), False
    except ValueError as error:
        place = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
    bare = _TRAILING_COMMA.sub(r"\1", _COMMENTS.sub(r"\1", text))
    try:
        return json.loads(bare or "{}", strict=False), True
    except ValueError:
        raise Unreadable(f"it is no JSON{place}") from None


def _read_yaml(text: str) -> Any:  # noqa: ANN401 - what the file says
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    try:
        return YAML(typ="safe", pure=True).load(text) or {}
    except YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise Unreadable(f"it is no YAML{'' if line is None else f' (line {line + 1})'}") from None


def _edit_json(text: str, edits: Sequence[Edit]) -> str:
    for edit in edits:
        text = without(text, edit.steps) if edit.value is GONE else with_value(text, edit.steps, edit.value)
    return text


def _edit_toml(text: str, edits: Sequence[Edit]) -> str:
    import tomlkit  # noqa: PLC0415

    document = tomlkit.parse(text)
    for edit in edits:
        node: Any = document
        for place, step in enumerate(edit.steps[:-1]):
            if step not in node:
                # A table of tables needs no line of its own.
                node[step] = tomlkit.table(is_super_table=place + 2 == len(edit.steps))
            node = node[step]
        if edit.value is GONE:
            node.remove(edit.steps[-1])
        else:
            node[edit.steps[-1]] = edit.value
    return tomlkit.dumps(document)


def _edit_yaml(text: str, edits: Sequence[Edit]) -> str:
    writer, document = _yaml_like(text)
    document = {} if document is None else document
    for edit in edits:
        _apply(document, edit)
    return _yaml_text(writer, document)


def _yaml_like(text: str) -> tuple[Any, Any]:
    """A writer that indents lists as the text does, and the text as a document."""
    from ruamel.yaml import YAML  # noqa: PLC0415

    found: list[tuple[Any, Any]] = []
    for mapping, sequence, offset in ((2, 2, 0), (2, 4, 2), (4, 2, 0), (4, 4, 2), (4, 6, 4)):
        writer = YAML()
        writer.preserve_quotes = True
        writer.width = _WIDTH
        writer.indent(mapping=mapping, sequence=sequence, offset=offset)
        document = writer.load(text)
        found.append((writer, document))
        if document is not None and _yaml_text(writer, document) == text:
            return writer, document
    return found[0]


def _yaml_text(writer: Any, document: Any) -> str:  # noqa: ANN401 - ruamel's own
    out = StringIO()
    writer.dump(document, out)
    return out.getvalue()


def _apply(content: Any, edit: Edit) -> None:  # noqa: ANN401 - what the file says
    node = content
    for step, following in zip(edit.steps[:-1], edit.steps[1:], strict=True):
        below = _below(node, step)
        if not isinstance(below, dict | list):
            if edit.value is GONE:
                return
            below = [] if isinstance(following, Item) else {}
            _put(node, step, below)
        node = below
    if edit.value is not GONE:
        _put(node, edit.steps[-1], edit.value)
    elif isinstance(last := edit.steps[-1], Item):
        node[:] = [value for value in node if not _is_item(value, last)]
    else:
        node.pop(last, None)


def _below(node: Any, step: Step) -> Any:  # noqa: ANN401 - what the file says
    if isinstance(step, Item):
        items = node if isinstance(node, list) else []
        return next((value for value in reversed(items) if _is_item(value, step)), None)
    return node.get(step) if isinstance(node, dict) else None


def _put(node: Any, step: Step, value: object) -> None:  # noqa: ANN401 - what the file says
    if not isinstance(step, Item):
        node[step] = value
        return
    place = next((at for at, item in reversed(list(enumerate(node))) if _is_item(item, step)), None)
    if place is None:
        node.append(value)
    else:
        node[place] = value


def _is_item(value: object, item: Item) -> bool:
    return isinstance(value, dict) and value.get(item.key) == item.value


def _place(error: str) -> str:
    found = re.search(r"\(at (line \d+)", error)
    return f" ({found[1]})" if found else ""
