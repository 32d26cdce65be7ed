"""Lets a model do the tasks, with inspect-ai: `python -m evals.run MODEL [TASK ...] [--server official]`.

MODEL is any that inspect knows, such as `openai/gpt-5`, or `reference`: then a scripted model goes the reference ways.
"""

import argparse
import contextvars
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from inspect_ai import Task as Evaluation
from inspect_ai import eval as evaluate
from inspect_ai.agent import as_solver, react
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import MCPServer, ToolChoice, ToolInfo, mcp_connection, mcp_server_stdio

from evals.grading import claims_in, grade
from evals.report import Result, add_run
from evals.staging import PYTHON, ROOT, Stage, variables
from evals.tasks import Task, filled, load_tasks

OFFICIAL: Final = ROOT / ".cache" / "clients" / "lium.io" / "bin" / "lium"
LOGS: Final = ROOT / ".cache" / "evals"
REFERENCE: Final = "reference"
TASKS: Final = load_tasks()
_BYTES_PER_TOKEN: Final = 4
# Time of the world per second: our server turns the clock too, while a model takes its time; the official one waits.
_SPEEDS: Final = {"ours": 1.0, "official": 60.0}
_MOST_TURNS: Final = 60
_playing: contextvars.ContextVar[tuple[Task, str, str]] = contextvars.ContextVar("_playing")


@solver  # type: ignore[untyped-decorator]  # it is of the other environment
def renter(server: str, *, scripted: bool) -> Solver:
    """An agent with the tools of one server and nothing else, in the world of its task."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        task = TASKS[str(state.sample_id)]
        with tempfile.TemporaryDirectory() as directory:
            home = Path(directory)
            stage = Stage(task, home, 0.0 if scripted and server == "ours" else _SPEEDS[server])
            try:
                _playing.set((task, server, str(stage.work)))
                state.messages = [ChatMessageUser(content=task.prompt(str(stage.work)))]
                tools = _official(home, stage.base_url) if server == "official" else _ours(task, home, stage.base_url)
                async with mcp_connection(tools):  # so that the server lives on after the last word
                    state = await as_solver(react(prompt=None, tools=[tools], submit=False))(state, generate)
                    facts = await anyio.to_thread.run_sync(stage.end)
            finally:
                stage.close()
            state.store.set("problems", grade(task, facts, claims_in(state.output.completion)))
            state.store.set("spent_usd", facts["spent_usd"])
            state.store.set("tokens", [_weight(answer, str(stage.work)) for answer in _answers(state.messages)])
        return state

    return solve


@scorer(metrics=[accuracy()])  # type: ignore[untyped-decorator]  # as above
def end_of_the_world() -> Scorer:
    """Whether nothing is wrong with the end."""

    async def score(state: TaskState, _target: Target) -> Score:
        problems: list[str] = state.store.get("problems", ["it did not come to an end"])
        return Score(value=0 if problems else 1, explanation="; ".join(problems))

    return score


def _ours(task: Task, home: Path, base_url: str) -> MCPServer:
    environment = variables(task, home, base_url)
    return mcp_server_stdio(command=str(PYTHON), args=["-m", "evals.server"], cwd=ROOT, env=environment)


def _official(home: Path, base_url: str) -> MCPServer:
    (home / ".ssh").mkdir()
    (home / ".lium").mkdir()
    for half in ("id_ed25519", "id_ed25519.pub"):
        shutil.copy(home / half, home / ".ssh" / half)
    environment = {
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "LIUM_BASE_URL": base_url,
        "LIUM_API_KEY": "sk_sandbox",
        "LIUM_SELF_UPDATE_DISABLE": "1",
        "LIUM_TELEMETRY": "0",
        "LIUM_SENTRY_DSN": "",
        "LIUM_NONINTERACTIVE": "1",
    }
    return mcp_server_stdio(command=str(OFFICIAL), args=["mcp"], env=environment)


def _scripted(
    messages: list[ChatMessage], _tools: list[ToolInfo], _choice: ToolChoice, _config: GenerateConfig
) -> ModelOutput:
    """The next step of the reference way; without a usage of its own inspect would look for a tokenizer."""
    task, server, work = _playing.get()
    answers = [_read(text) for text in _answers(messages)]
    way = task.reference if server == "ours" else task.official
    if len(answers) < len(way):
        call = way[len(answers)]
        output = ModelOutput.for_tool_call("mockllm", call.tool, filled(call.arguments, answers, work))
    else:
        said = {name: claim.reference if server == "ours" else claim.official for name, claim in task.claims.items()}
        output = ModelOutput.from_content("mockllm", json.dumps(filled(said, answers, work)))
    output.usage = ModelUsage(input_tokens=0, output_tokens=0, total_tokens=0)
    return output


def _answers(messages: list[ChatMessage]) -> list[str]:
    """What a model read of the answers of tools."""
    return [
        message.error.message if message.error else message.text
        for message in messages
        if isinstance(message, ChatMessageTool)
    ]


def _read(text: str) -> Any:  # noqa: ANN401 - whatever a tool says
    try:
        return json.loads(text)
    except ValueError:
        return {"error": text}


def _weight(text: str, work: str) -> int:
    return math.ceil(len(text.replace(work, "/work").encode()) / _BYTES_PER_TOKEN)


def _result(sample: EvalSample) -> Result:
    kept = sample.store
    problems = [str(sample.error.message)] if sample.error else kept.get("problems", ["it did not come to an end"])
    tokens = kept.get("tokens", [])
    used = sum(usage.total_tokens for usage in sample.model_usage.values())
    return Result(
        success=not problems,
        calls=len(tokens),
        answer_tokens=sum(tokens),
        model_tokens=used,
        usd=round(kept.get("spent_usd", 0.0), 4),
        problems=list(problems),
    )


def main() -> int:
    """Run the tasks, and add what came of them to the results of this version."""
    parser = argparse.ArgumentParser(prog="evals.run", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--server", choices=sorted(_SPEEDS), default="ours")
    parser.add_argument("--no-results", action="store_true", help="do not write the results down")
    arguments = parser.parse_args()
    scripted = arguments.model == REFERENCE
    tasks = [
        task
        for task in TASKS.values()
        if (not arguments.tasks or task.name in arguments.tasks) and (arguments.server == "ours" or task.official)
    ]
    model: Model | str = get_model("mockllm/model", custom_outputs=_scripted) if scripted else arguments.model
    [log] = evaluate(
        Evaluation(
            dataset=MemoryDataset([Sample(id=task.name, input=task.title) for task in tasks]),
            solver=renter(arguments.server, scripted=scripted),
            scorer=end_of_the_world(),
            message_limit=2 * _MOST_TURNS,
            name="lium-renter",
        ),
        model=model,
        display="plain",
        log_dir=str(LOGS),
        max_samples=2,
        fail_on_error=False,
    )
    results = {str(sample.id): _result(sample) for sample in log.samples or []}
    for name, result in sorted(results.items()):
        sys.stdout.write(f"{name}: {'done' if result.success else '; '.join(result.problems)}\n")
    if not arguments.no_results:
        add_run(arguments.model, arguments.server, results)
    return 0 if results and all(result.success for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
