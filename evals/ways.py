"""What each reference way costs, in calls and in tokens of answers: `python -m evals.ways` writes `ways.tsv` anew.

Whoever makes a way longer or an answer heavier sees it in the diff of that file.
"""

import asyncio
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from evals.grading import grade
from evals.playing import Play, play, reference_claims
from evals.report import TOOL_LIST, WAYS, Cost
from evals.tasks import Task, load_tasks
from lium_mcp.settings_table import DEFAULT_TOOLSETS
from lium_mcp.toolkit.listing import read_listing
from lium_mcp.toolkit.token_cost import tokens


def cost_of(played: Play) -> Cost:
    """What a way cost that was played."""
    return Cost(len(played.calls), sum(played.tokens))


def write_ways(costs: Mapping[str, tuple[Cost, list[str]]], path: Path = WAYS) -> None:
    """Write down what the ways cost, with the tools that they call."""
    lines = ["task\tcalls\ttokens\ttools"]
    lines += [
        f"{name}\t{cost.calls}\t{cost.tokens}\t{' '.join(tools)}" for name, (cost, tools) in sorted(costs.items())
    ]
    path.write_text("\n".join(lines) + "\n")


async def _measured(task: Task) -> tuple[Cost, list[str]]:
    with tempfile.TemporaryDirectory() as home:
        played = await play(task, Path(home), task.reference, reference_claims(task))
    for problem in grade(task, played.facts, played.claims):
        sys.stderr.write(f"{task.name}: {problem}\n")
    return cost_of(played), played.calls


def main(path: Path = WAYS) -> int:
    """Play all references, and write what they cost."""
    logging.disable(logging.CRITICAL)
    costs = {name: asyncio.run(_measured(task)) for name, task in load_tasks().items()}
    listed = [tokens(item.tool) for item in read_listing() if item.toolset in DEFAULT_TOOLSETS]
    write_ways(costs | {TOOL_LIST: (Cost(len(listed), sum(listed)), [])}, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
