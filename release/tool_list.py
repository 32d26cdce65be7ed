"""The tool list of the release: what it costs, and what it changes for those who use the last one."""

import re
from collections.abc import Iterator
from typing import Final

from mcp.types import Tool
from packaging.version import Version

from lium_mcp.settings import Settings
from release.candidate import CHANGELOG, Candidate, Finding
from release.tool_budget import over_budget
from release.tool_changes import as_markdown, compare

NOTES: Final = "notes.md"


def listed_by_default(candidate: Candidate) -> list[Tool]:
    """The tools that the wheel lists without any setting."""
    shown = Settings.model_construct().toolsets
    return [Tool.model_validate(row["tool"]) for row in candidate.listing() if row["toolset"] in shown]


def stays_within_its_budget(candidate: Candidate) -> Iterator[Finding]:
    """Every user pays for the list on every turn."""
    every_tool = [Tool.model_validate(row["tool"]) for row in candidate.listing()]
    for said in over_budget(every_tool, listed_by_default(candidate)):
        yield Finding(said, "cut words that no agent needs, or fold the tool into another")


def notes(candidate: Candidate) -> str:
    """The notes of the release: what the changelog says of it, and what became of the tools since the last one."""
    last = candidate.last_release
    if last is None:
        tools = f"## Tools\n\nThe first release: {len(candidate.listing())} tools.\n"
    else:
        tools = as_markdown(compare(candidate.listing(last), candidate.listing()), last)
    changelog = (candidate.export / CHANGELOG).read_text()
    own = re.search(
        rf"^## \[?{re.escape(candidate.version)}\]?.*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return f"{own[1].strip()}\n\n{tools}" if own else tools


def breaks_only_with_a_new_number(candidate: Candidate) -> Iterator[Finding]:
    """What no longer works is told by the version: by its first number, or by the second while the first is 0."""
    last = candidate.last_release
    if last is None:
        return
    changes = compare(candidate.listing(last), candidate.listing())
    before, now = Version(last.removeprefix("v")).release, Version(candidate.version).release
    told_by = 2 if now[0] == 0 else 1
    if changes.is_breaking and now[:told_by] == before[:told_by]:
        yield Finding(
            f"{candidate.version} does not say that it breaks what worked in {last}:\n{as_markdown(changes, last)}",
            f"raise the {'second' if now[0] == 0 else 'first'} number of the version, or keep what worked",
            waits=True,
        )
