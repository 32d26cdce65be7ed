"""What a task is: a file that says who asks for what in which world, how the end is judged, and one good way there.

Like `facts.py` and `grading.py`, this file imports the standard library alone: two environments use it.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from evals.paths import picked

TASKS: Final = Path(__file__).parent / "tasks"
TOOLSETS: Final = ("marketplace", "pods", "templates", "volumes", "backups", "account", "remote", "clusters", "extras")
KINDS: Final = ("do", "tell", "refuse")
WORKFLOWS: Final = ("watch", "job", "backup", "templates")
_KEYS: Final = {
    *("title", "toolsets", "kind", "workflow", "request", "settings", "files", "world", "after_minutes"),
    *("state", "claims", "reference", "official"),
}


class TaskError(Exception):
    """A task's file says something that nobody understands; the sentence says what."""


@dataclass(frozen=True)
class ToolCall:
    """A call of a way; an argument `$1/offers/0/executor_id` is taken from the answer to the first call."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A field of the final answer.

    Attributes:
        about: What the agent is told that it is.
        expected: What it must be, as `grading.holds` reads it.
        reference: Where the reference way has it from.
        official: Where the way through the official server has it from.
    """

    about: str
    expected: Any
    reference: Any
    official: Any = None


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        file: Its file.
        title: What it is about, in a line.
        toolsets: The toolsets that its reference way needs.
        workflow: Which of the four workflows it is of, if any.
        kind: Whether something is to be done, only told, or refused: then the right end is to say why not.
        request: What the user says, with `{work}` for the folder of the local files.
        settings: What the server is set to, by variable.
        files: What the local folder holds, by path.
        world: What has happened before, in order; see `world.py`.
        after_minutes: How long the world goes on after the last word.
        state: What must hold of the facts in the end, by path.
        claims: What the final answer must say.
        reference: A short way there.
        official: The same through the official server, where it has the tools.
    """

    file: Path
    title: str
    toolsets: tuple[str, ...]
    workflow: str | None
    kind: str
    request: str
    settings: dict[str, str]
    files: dict[str, str]
    world: tuple[dict[str, Any], ...]
    after_minutes: float
    state: dict[str, Any]
    claims: dict[str, Claim]
    reference: tuple[ToolCall, ...]
    official: tuple[ToolCall, ...]

    @property
    def name(self) -> str:
        """What it is called: as its file is."""
        return self.file.stem

    def prompt(self, work: str) -> str:
        """What the agent is asked: the request, and in which form it is to answer."""
        fields = "\n".join(f'- "{name}": {claim.about}' for name, claim in self.claims.items())
        return (
            f"{self.request.strip().replace('{work}', work)}\n\nThe tools of Lium are all that you have; nobody can be "
            "asked meanwhile. When you are done, end your last message with one JSON object that has exactly these "
            f"fields, with null for what there is not:\n{fields}\n"
        )


def load_tasks(folder: Path = TASKS) -> dict[str, Task]:
    """All tasks of a folder, by name."""
    return {path.stem: load_task(path) for path in sorted(folder.glob("*.toml"))}


def load_task(path: Path) -> Task:
    """Read one task.

    Raises:
        TaskError: its file is not one.
    """
    read = tomllib.loads(path.read_text())
    unknown = set(read) - _KEYS
    if unknown or set(read["toolsets"]) - set(TOOLSETS):
        raise TaskError(f"{path.name}: unknown keys {sorted(unknown)} or toolsets")
    if read["kind"] not in KINDS or read.get("workflow") not in (None, *WORKFLOWS):
        raise TaskError(f"{path.name}: unknown kind or workflow")
    claims = {
        name: Claim(claim["about"], claim["is"], claim.get("reference"), claim.get("official"))
        for name, claim in read["claims"].items()
    }
    return Task(
        file=path,
        title=read["title"],
        toolsets=tuple(read["toolsets"]),
        workflow=read.get("workflow"),
        kind=read["kind"],
        request=read["request"],
        settings={name: str(value) for name, value in read.get("settings", {}).items()},
        files=read.get("files", {}),
        world=tuple(read.get("world", [])),
        after_minutes=read.get("after_minutes", 10),
        state=read.get("state", {}),
        claims=claims,
        reference=way_of(read["reference"]),
        official=way_of(read.get("official", [])),
    )


def way_of(calls: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    """Read the calls of a way."""
    return tuple(ToolCall(call["tool"], dict(call.get("arguments", {}))) for call in calls)


def filled(value: Any, answers: Sequence[Any], work: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """An argument or a claim with what earlier answers say in place of `$1/...`, and the local folder for `{work}`."""
    match value:
        case str() if value.startswith("$"):
            number, _, path = value[1:].partition("/")
            return picked(answers[int(number) - 1], path)
        case str():
            return value.replace("{work}", work)
        case dict():
            return {name: filled(item, answers, work) for name, item in value.items()}
        case list():
            return [filled(item, answers, work) for item in value]
    return value
