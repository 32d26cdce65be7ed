"""Reads the tool list from `listing.json`, which is written from the declarations and holds what clients see.

Making the schemas of all tools takes longer than the rest of the start: a server lists its tools from the file, and
imports and binds a tool when it is first called. A test holds the file against the declarations.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from mcp.types import Tool

FILE_NAME: Final = "listing.json"


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as it is listed, and the toolset it belongs to."""

    toolset: str
    tool: Tool

    @property
    def name(self) -> str:
        """The name agents call it by."""
        return self.tool.name

    @property
    def read_only(self) -> bool:
        """Whether it changes nothing and spends nothing."""
        return bool(self.tool.annotations and self.tool.annotations.read_only_hint)


@cache
def read_listing() -> tuple[ListedTool, ...]:
    """Every tool there is, in listing order."""
    rows = json.loads(files(__package__).joinpath(FILE_NAME).read_text(encoding="utf-8"))
    return tuple(ListedTool(row["toolset"], Tool.model_validate(row["tool"])) for row in rows)


def write_listing(tools: Iterable[ListedTool]) -> str:
    """The content of the file for these tools."""
    rows: list[dict[str, Any]] = [
        {"toolset": item.toolset, "tool": item.tool.model_dump(mode="json", by_alias=True, exclude_none=True)}
        for item in tools
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
