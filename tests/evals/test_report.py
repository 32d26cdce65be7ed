"""What is written down of runs."""

import json
from pathlib import Path

from evals.report import BEFORE, TOOL_LIST, Result, add_run, read_ways
from lium_mcp import __version__


def test_runs_are_added_to_the_results_of_the_version(tmp_path: Path) -> None:
    lost = Result(
        success=False, calls=3, answer_tokens=500, model_tokens=9000, usd=0.25, problems=["rent_count is 2 | not 1"]
    )
    add_run("some/model", "ours", {"lost_answer": lost, "top_up": Result(True, 1, 65, 800, 0.0)}, tmp_path)
    add_run("reference", "official", {"first_look": Result(True, 4, 490, 0, 0.01)}, tmp_path)
    add_run("some/model", "ours", {"top_up": Result(True, 2, 70, 900, 0.0)}, tmp_path)
    runs = json.loads((tmp_path / f"{__version__}.json").read_text())
    assert runs["some/model, ours"]["top_up"]["calls"] == 2
    assert runs["some/model, ours"]["lost_answer"]["problems"] == ["rent_count is 2 | not 1"]
    page = (tmp_path / f"{__version__}.md").read_text()
    assert "1 of 2 done, 0.25 USD of the sandbox." in page
    assert "| lost_answer | no: rent_count is 2 / not 1 | 3 | 500 | 9000 | 0.25 |" in page
    [row] = [line for line in page.splitlines() if line.startswith("| first_look | ") and "yes" not in line]
    assert row.endswith("| 4 / 490 |")


def test_what_was_before_is_of_tasks_that_there_are() -> None:
    before = read_ways(BEFORE)
    assert set(before) <= set(read_ways())
    assert before[TOOL_LIST].calls == 40
