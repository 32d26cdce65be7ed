"""Each task can be done, in as many calls and tokens as `evals/ways.tsv` says, and not by doing nothing or by lying."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evals.facts import facts_of
from evals.grading import claims_in, grade, holds
from evals.playing import play, reference_claims
from evals.report import TOOL_LIST, read_ways
from evals.tasks import TASKS, TOOLSETS, WORKFLOWS, Task, TaskError, load_task, load_tasks
from evals.ways import cost_of
from evals.world import World
from lium_mcp.toolkit.listing import read_listing

ALL = load_tasks()
# `make test-all` plays all tasks, `make test` these.
QUICK = ("backup_never_works", "budget_of_dollars", "hostile_output", "three_workers", "two_of_one_name")
PLAYED = [pytest.param(task, id=name, marks=pytest.mark.external) for name, task in ALL.items()]


@pytest.mark.parametrize("task", PLAYED)
async def test_the_reference_way_does_the_task_at_the_cost_that_is_written_down(task: Task, tmp_path: Path) -> None:
    played = await play(task, tmp_path, task.reference, reference_claims(task))
    assert grade(task, played.facts, played.claims) == []
    for name, value in played.claims.items():
        assert grade(task, played.facts, played.claims | {name: _wrong(value)}), f"any {name} is right"
        assert grade(task, played.facts, {key: each for key, each in played.claims.items() if key != name})
    assert grade(task, played.facts, None)
    assert cost_of(played) == read_ways()[task.name], f"{played.calls} {played.tokens}: `make ways` writes it down"


@pytest.mark.parametrize("name", QUICK)
async def test_some_references_do_their_tasks(name: str, tmp_path: Path) -> None:
    played = await play(ALL[name], tmp_path, ALL[name].reference, reference_claims(ALL[name]))
    assert grade(ALL[name], played.facts, played.claims) == []


@pytest.mark.parametrize("task", PLAYED)
async def test_doing_nothing_is_not_doing_the_task(task: Task, tmp_path: Path) -> None:
    world = World(task, tmp_path)
    try:
        before = await world.begin()
        world.sandbox.clock.advance(minutes=math.ceil(task.after_minutes))
        (tmp_path / "work").mkdir()
        facts = facts_of(world.sandbox.state(), before, tmp_path / "work")
    finally:
        await world.aclose()
    facts |= {"told": before}
    problems = grade(task, facts, dict.fromkeys(task.claims))
    about_claims = [problem for problem in problems if "is claimed" in problem]
    if task.kind == "do":
        assert problems != about_claims, "the world is already as it is to become"
    else:
        assert about_claims, "nothing need be known"


def test_the_tasks_are_of_all_toolsets_and_workflows() -> None:
    assert len(ALL) >= 30
    assert {toolset for task in ALL.values() for toolset in task.toolsets} == set(TOOLSETS)
    assert Counter(task.workflow for task in ALL.values()).keys() >= set(WORKFLOWS)
    assert set(read_ways()) == {*ALL, TOOL_LIST}


def test_the_ways_go_through_tools_that_there_are() -> None:
    toolsets = {item.name: item.toolset for item in read_listing()}
    for task in ALL.values():
        used = {toolsets[call.tool] for call in task.reference}
        assert used <= set(task.toolsets) | {"marketplace", "pods", "remote"}, task.name


@pytest.mark.parametrize(
    ("actual", "expected", "is_so"),
    [
        (1, 1.0, True),
        ("1", 1, True),
        (True, 1, False),
        (None, None, True),
        (None, "", False),
        ("RTX  4090", "rtx 4090", True),
        (["b", "a"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (1.01, {"about": 1.0}, True),
        (1.1, {"about": 1.0}, False),
        (None, {"about": 1.0}, False),
        (True, {"at_least": 0}, False),
        (5, {"at_most": 5, "at_least": 5}, True),
        ("a", {"in": "$list"}, True),
        ("c", {"in": "$list"}, False),
        ("a", {"in": "$nothing"}, False),
        ("it says: No Space", {"has": "no space"}, True),
        (["a", "b"], {"has": ["a"]}, True),
        (None, {"has": "a"}, False),
        ("a", {"not": "$list/0"}, False),
        (None, {"not": "$list/0"}, True),
        ("x", "$nested/row/n=2/v", True),
        ("x", "$nested/row/5", False),
    ],
)
def test_what_is_as_expected(actual: Any, expected: Any, is_so: bool) -> None:
    facts = {"list": ["a", "b"], "nested": {"row": [{"n": 1}, {"n": 2, "v": "x"}]}}
    assert holds(actual, expected, facts) is is_so


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("", None),
        ("No braces { here", None),
        ('Done.\n```json\n{"a": {"b": 1}}\n```', {"a": {"b": 1}}),
        ('First {"a": 1}, then {"a": 2}.', {"a": 2}),
        ("[1, 2]", None),
    ],
)
def test_the_last_object_of_a_message_is_what_is_claimed(text: str, claims: Any) -> None:
    assert claims_in(text) == claims


@pytest.mark.parametrize(
    ("line", "problem"),
    [("colour = 1\n", "colour"), ('workflow = "none"\n', "workflow"), ('toolsets = ["pod"]\n', "toolsets")],
)
def test_a_file_that_nobody_understands_is_no_task(tmp_path: Path, line: str, problem: str) -> None:
    text = (TASKS / "lost_answer.toml").read_text()
    kept = "".join(each for each in text.splitlines(keepends=True) if not each.startswith(line.partition(" ")[0]))
    (tmp_path / "odd.toml").write_text(line + kept)
    with pytest.raises(TaskError, match=problem):
        load_task(tmp_path / "odd.toml")


def _wrong(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 2 + 1
        case str():
            return "something else"
        case list():
            return [*value[1:], "something else"]
    return "something"
