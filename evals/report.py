"""The results of a version in `results/`: a file with the figures, and the same as tables for people."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from lium_mcp import __version__

HERE: Final = Path(__file__).parent
WAYS: Final = HERE / "ways.tsv"
RESULTS: Final = HERE / "results"
# What the ways cost with the tools of before, which had neither `run_job` nor standing orders.
BEFORE: Final = RESULTS / "before.tsv"
TOOL_LIST: Final = "tools/list"


class Cost(NamedTuple):
    """What a way costs."""

    calls: int
    tokens: int


@dataclass(frozen=True)
class Result:
    """What came of a task.

    Attributes:
        success: Whether it was done.
        calls: How many tools were called.
        answer_tokens: What their answers weigh.
        model_tokens: What the model took and gave, where it counts.
        usd: What was charged in the world.
        problems: What was wrong with the end.
    """

    success: bool
    calls: int
    answer_tokens: int
    model_tokens: int
    usd: float
    problems: list[str] = field(default_factory=list)


def read_ways(path: Path = WAYS) -> dict[str, Cost]:
    """What the ways cost, by task, as it is written down; `tools/list` is the list of tools and what it weighs."""
    rows = (line.split("\t") for line in path.read_text().splitlines()[1:])
    return {name: Cost(int(calls), int(tokens)) for name, calls, tokens, *_ in rows}


def add_run(model: str, server: str, results: Mapping[str, Result], folder: Path = RESULTS) -> None:
    """Add what a model did with a server to the results of this version; a task that was done again counts anew."""
    file = folder / f"{__version__}.json"
    runs: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    run = runs.setdefault(f"{model}, {server}", {})
    run |= {name: asdict(result) for name, result in results.items()}
    file.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")
    file.with_suffix(".md").write_text("\n".join(_tables(runs)) + "\n")


def _tables(runs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    ways, before = read_ways(), read_ways(BEFORE)
    official = {
        name: Cost(result["calls"], result["answer_tokens"])
        for name, result in runs.get("reference, official", {}).items()
        if result["success"]
    }
    yield f"# Results of {__version__}"
    yield ""
    yield "## The reference ways"
    yield ""
    yield (
        f"The tool list: {ways[TOOL_LIST].calls} tools, {ways[TOOL_LIST].tokens:,} tokens; before, "
        f"{before[TOOL_LIST].calls} tools, {before[TOOL_LIST].tokens:,} tokens. Calls / tokens of answers with the "
        "tools of before, with those of now, and through the official server; `-` where it cannot be done."
    )
    yield ""
    yield "| task | before | now | official |"
    yield "|---|---|---|---|"
    names = [name for name in ways if name != TOOL_LIST]
    for name in names:
        yield f"| {name} | {_cell(before.get(name))} | {_cell(ways[name])} | {_cell(official.get(name))} |"
    both = [name for name in names if name in before]
    yield f"| sum of the {len(both)} that could be done before | {_sum(before, both)} | {_sum(ways, both)} | |"
    yield f"| median of these | {_median(before, both)} | {_median(ways, both)} | |"
    more = [name for name in both if before[name].calls > 1]
    yield f"| sum of the {len(more)} that took several calls before | {_sum(before, more)} | {_sum(ways, more)} | |"
    theirs = [name for name in both if name in official]
    figures = " | ".join(_sum(costs, theirs) for costs in (before, ways, official))
    yield f"| sum of the {len(theirs)} that the official server can do | {figures} |"
    for run, results in sorted(runs.items()):
        yield ""
        yield from _run(run, results)


def _run(run: str, results: Mapping[str, Any]) -> Iterator[str]:
    done = sum(result["success"] for result in results.values())
    usd = sum(result["usd"] for result in results.values())
    yield f"## {run}"
    yield ""
    yield f"{done} of {len(results)} done, {usd:.2f} USD of the sandbox."
    yield ""
    yield "| task | done | calls | tokens of answers | tokens of the model | USD |"
    yield "|---|---|---|---|---|---|"
    for name, result in sorted(results.items()):
        verdict = "yes" if result["success"] else f"no: {result['problems'][0]}".replace("|", "/")
        figures = (result["calls"], result["answer_tokens"], result["model_tokens"] or "-", f"{result['usd']:.2f}")
        yield f"| {name} | {verdict} | {' | '.join(map(str, figures))} |"


def _cell(cost: Cost | None) -> str:
    return "-" if cost is None else f"{cost.calls} / {cost.tokens:,}"


def _sum(costs: Mapping[str, Cost], names: list[str]) -> str:
    return _cell(Cost(sum(costs[name].calls for name in names), sum(costs[name].tokens for name in names)))


def _median(costs: Mapping[str, Cost], names: list[str]) -> str:
    calls, tokens = (median(costs[name][place] for name in names) for place in (0, 1))
    return f"{calls:g} / {tokens:g}"
