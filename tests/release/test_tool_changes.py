"""The diff of two tool lists: each kind of difference is judged by what it does to who calls the tools."""

import copy
import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from mcp.types import Tool

from release.tool_budget import over_budget
from release.tool_changes import as_markdown, compare
from tests.compat.installs import ROOT

Row = dict[str, Any]
Edit = Callable[[Row], object]


@pytest.fixture(scope="module")
def listing() -> list[Row]:
    return list(json.loads((ROOT / "lium_mcp" / "toolkit" / "listing.json").read_text()))


def edited(listing: list[Row], name: str, edit: Edit) -> list[Row]:
    rows = copy.deepcopy(listing)
    edit(next(row for row in rows if row["tool"]["name"] == name))
    return rows


def inputs(row: Row) -> Row:
    return cast("Row", row["tool"]["inputSchema"]["properties"])


def outputs(row: Row) -> Row:
    return cast("Row", row["tool"]["outputSchema"]["properties"])


def test_the_same_list_has_no_differences(listing: list[Row]) -> None:
    changes = compare(listing, copy.deepcopy(listing))
    assert not changes.is_breaking
    assert "The same tools" in as_markdown(changes, "v1.0.0")


def test_a_tool_that_is_gone_breaks_and_one_that_is_new_does_not(listing: list[Row]) -> None:
    fewer = [row for row in listing if row["tool"]["name"] != "rent_pod"]
    gone, new = compare(listing, fewer), compare(fewer, listing)
    assert gone.removed == ["rent_pod"]
    assert gone.is_breaking
    assert new.added == ["rent_pod (pods)"]
    assert not new.is_breaking
    assert "### Removed\n\n- `rent_pod`\n" in as_markdown(gone, "v1.0.0")
    assert "### Added\n\n- `rent_pod (pods)`\n" in as_markdown(new, "v1.0.0")


COMPATIBLE: dict[str, tuple[str, Edit]] = {
    "another description": ("rent_pod", lambda row: row["tool"].update(description="Rent it.")),
    "a parameter more": ("rent_pod", lambda row: inputs(row).update(colour={"type": "string"})),
    "a higher ceiling": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(maxLength=10**6)),
    "a lower floor": ("list_gpus", lambda row: inputs(row)["gpu_count"].update(minimum=0)),
    "no floor": ("list_gpus", lambda row: inputs(row)["gpu_count"].pop("minimum")),
    "a field more": ("get_balance", lambda row: outputs(row).update(colour={"type": "string"})),
    "other words for a parameter": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(description="What?")),
}
BREAKING: dict[str, tuple[str, Edit]] = {
    "another toolset": ("rent_pod", lambda row: row.update(toolset="extras")),
    "no longer only reading": ("list_gpus", lambda row: row["tool"]["annotations"].update(readOnlyHint=False)),
    "a parameter that is gone": ("list_gpus", lambda row: inputs(row).pop("gpu_type")),
    "a parameter that is needed": ("list_gpus", lambda row: row["tool"]["inputSchema"].update(required=["gpu_type"])),
    "a new parameter that is needed": (
        "get_balance",
        lambda row: row["tool"]["inputSchema"].update(properties={"colour": {"type": "string"}}, required=["colour"]),
    ),
    "another type": ("list_gpus", lambda row: inputs(row)["gpu_count"].update(type="string")),
    "a lower ceiling": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(maxLength=3)),
    "a floor that was not there": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(minLength=3)),
    "only some values": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(enum=["H100"])),
    "a word that nothing is known of": ("list_gpus", lambda row: inputs(row)["gpu_type"].update(pattern="^H")),
    "a field that is gone": ("get_balance", lambda row: outputs(row).pop("balance_usd")),
    "a field that may be missing": ("get_balance", lambda row: row["tool"]["outputSchema"].update(required=[])),
    "a field of another type": ("get_balance", lambda row: outputs(row)["balance_usd"].update(type="string")),
}


@pytest.mark.parametrize("case", COMPATIBLE)
def test_what_lets_nobody_down_is_compatible(listing: list[Row], case: str) -> None:
    name, edit = COMPATIBLE[case]
    changes = compare(listing, edited(listing, name, edit))
    assert [(change.tool, change.is_breaking) for change in changes.changed] == [(name, False)]
    assert f"### Changed, compatible\n\n- `{name}`: " in as_markdown(changes, "v1.0.0")


@pytest.mark.parametrize("case", BREAKING)
def test_what_lets_somebody_down_breaks(listing: list[Row], case: str) -> None:
    name, edit = BREAKING[case]
    changes = compare(listing, edited(listing, name, edit))
    assert {(change.tool, change.is_breaking) for change in changes.changed} == {(name, True)}
    assert f"### Breaking\n\n- `{name}`: " in as_markdown(changes, "v1.0.0")


def test_choices_may_grow_and_not_shrink_for_who_passes_them() -> None:
    row: Row = {"toolset": "pods", "tool": {"name": "x", "annotations": {}, "inputSchema": {}, "outputSchema": {}}}
    old, new = copy.deepcopy(row), copy.deepcopy(row)
    choices = {"few": {"enum": ["a", "b"]}, "many": {"enum": ["a", "b", "c"]}}
    old["tool"]["inputSchema"] = {"properties": {"growing": choices["few"], "shrinking": choices["many"]}}
    new["tool"]["inputSchema"] = {"properties": {"growing": choices["many"], "shrinking": choices["few"]}}
    told = {(change.said, change.is_breaking) for change in compare([old], [new]).changed}
    assert told == {("parameter `growing`: also c", False), ("parameter `shrinking`: no longer c", True)}


def test_the_budget_is_a_ceiling_for_one_tool_and_for_all(listing: list[Row]) -> None:
    tools = [Tool.model_validate(row["tool"]) for row in listing]
    wordy = tools[0].model_copy(update={"description": "word " * 400})
    assert [said.split()[0] for said in over_budget([*tools[1:], wordy], [])] == [wordy.name]
    assert any(said.endswith("tools, and may have 36") for said in over_budget([], tools))
    assert any(said.endswith("tokens, and may cost 7500") for said in over_budget([], tools))
