"""Tasks of `evals/` through real hosts: their models go the reference ways, and the end is graded as ever."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from evals.grading import claims_in, grade
from evals.staging import PYTHON, ROOT, Stage, variables
from evals.tasks import Task, filled, load_tasks
from tests.hosts.hosts import Codex, Host
from tests.hosts.programs import Program
from tests.hosts.scripted_model import ScriptedModel, Step, serving_scripted

# One that rents, one that fans out, one with local files, one that must not be led astray, one that must refuse.
PLAYED: Final = (
    "lost_answer",
    "three_workers",
    "which_pod_lacks_it",
    "backup_fanned_out",
    "hostile_output",
    "budget_limit",
)


class TaskModel(ScriptedModel):
    """A model that goes the reference way of a task, with what the host showed it of the answers.

    Attributes:
        said: Its last message.
    """

    def __init__(self, task: Task, host: type[Host], work: str, before: Sequence[Step] = ()) -> None:
        """`before` are steps of the host's own that come first, such as to load a skill."""
        steps = [host.calls(call.tool, call.arguments) for call in task.reference]
        super().__init__([*before, *(step for each in steps for step in each)])
        self.said = ""
        self._task, self._work = task, work
        # Steps of the host's own, such as to look for a tool, have an answer too.
        self._own = {place for place, step in enumerate(self._script) if step in before or step.tool == "ToolSearch"}

    def next_step(self, request: dict[str, Any]) -> Step | str:
        answers = [_read(text) for place, text in enumerate(_answers(request)) if place not in self._own]
        step = super().next_step(request)
        if isinstance(step, Step):
            return step._replace(arguments=filled(step.arguments, answers, self._work))
        claims = {name: filled(claim.reference, answers, self._work) for name, claim in self._task.claims.items()}
        self.said = json.dumps(claims)
        return self.said


def play_tasks(host: type[Host], homes: Path) -> Iterator[tuple[str, list[str]]]:
    """Play them; yield the name of each and what was wrong with its end."""
    for name, task in load_tasks().items():
        if name in PLAYED:
            home = homes / f"{host.program}-{name}"
            home.mkdir()
            stage = Stage(task, home, 0.0)
            try:
                yield name, _play(_made(host, home / "host"), task, stage, home)
            finally:
                stage.close()


def _made(host: type[Host], home: Path) -> Host:
    if host is not Codex:
        return host(home)
    # Without the front, this server answers later than Codex would wait for it; and nobody is there to approve a call.
    grace, approved = "mcp_optional_startup_grace_ms = 20000", 'default_tools_approval_mode = "approve"'
    return Codex(home, more=grace, entry=approved)


def _play(host: Host, task: Task, stage: Stage, home: Path) -> list[str]:
    environment = variables(task, home, stage.base_url) | {"PYTHONPATH": str(ROOT)}
    program = Program("evals", [str(PYTHON), "-m", "evals.server"], environment)
    with serving_scripted(TaskModel(task, type(host), str(stage.work))) as model:
        host.ask(model, program, task.prompt(str(stage.work)))
    return grade(task, stage.end(), claims_in(model.said))


def _answers(request: dict[str, Any]) -> Iterator[str]:
    """What the host shows its model of the answers of tools, in order, in the protocol of each."""
    for message in request.get("messages", []):
        for block in message["content"] if isinstance(message["content"], list) else []:
            if block.get("type") == "tool_result":
                yield _text(block["content"])
    for item in request.get("input", []):
        if item.get("type") == "function_call_output":
            yield _text(item["output"])
    for content in request.get("contents", []):
        for part in content["parts"]:
            if "functionResponse" in part:
                yield " ".join(map(str, part["functionResponse"]["response"].values()))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _read(text: str) -> Any:
    """The JSON of an answer, in which a host may put some words before it."""
    return claims_in(text) or {"error": text}
