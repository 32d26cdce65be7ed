"""The plugin in real hosts: `make test-hosts`, or this alone with `python -m tests.hosts.plugins`.

Each host gets an empty home and installs the plugin by the commands of its page, and by nothing else. Its model is
shown the tools and the skills; a key arrives by each way that there is; and each skill is loaded, and its steps played
against the sandbox in which its task takes place.
"""

import json
import os
import re
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple, get_args

from evals.grading import claims_in, grade
from evals.staging import PYTHON, Stage, variables
from evals.tasks import Task, load_tasks
from lium_mcp.settings_table import DEFAULT_TOOLSETS
from lium_mcp.skills import Skill, read_skills
from lium_mcp.toolkit.listing import read_listing
from manifests.generate import with_generated
from manifests.plugin_files import FOLDER
from tests.compat.simulated import simulating
from tests.hosts.files import KEY, with_our_command
from tests.hosts.hosts import ClaudeCode, Codex, GeminiCli, Host
from tests.hosts.installs import CALLED, DOCUMENT
from tests.hosts.programs import ROOT, Program, install_hosts, install_ours
from tests.hosts.scripted_model import Step, scripted_model, serving_scripted
from tests.hosts.tasks import TaskModel

PAGE: Final = ROOT / FOLDER / "README.md"
TASKS: Final = load_tasks(Path(__file__).parent / "skill_tasks")
OFFERED: Final = {item.name for item in read_listing() if item.toolset in DEFAULT_TOOLSETS}
KeyFrom = Literal["the environment", "the host's own question", "`lium-mcp login`"]
_TOLD_CHARACTERS: Final = 60
"""Hosts may shorten a description."""


class Plugged(Host):
    """A host that has the plugin.

    Attributes:
        asks_key: Whether it asks for a key and keeps it.
    """

    asks_key: ClassVar[bool] = True

    def install(self) -> None:
        """Do with its own commands what the page says."""
        for words in self._commands(self.program):
            self.run(*words, *self._answers())

    def add_entry(self, script: Program) -> None:
        """Do what the page says with our command: give the server an entry of its own."""
        for words in self._commands("lium-mcp"):
            self.run(*words, "--sandbox", "--yes", program=script.command[0])

    def validates(self) -> bool | None:
        """Whether the host's own check takes the plugin; None where it has no check."""
        return None

    def _commands(self, program: str) -> Iterator[list[str]]:
        """What the page says in the part for this host, of a program."""
        [part] = re.findall(rf"^### {self.name}\n(.*?)^##", PAGE.read_text(), re.DOTALL | re.MULTILINE)
        for command in re.findall(r"^\$ (.+)", part, re.MULTILINE):
            first, *words = command.replace(" ./", f" {ROOT}/").split()
            if first == program:
                yield words

    def _answers(self) -> Sequence[str]:
        """What a person would answer to the host's questions, as options."""
        return ()

    @abstractmethod
    def keep_key(self) -> None:
        """Answer the host's question for a key."""

    @classmethod
    def named(cls, skill: str) -> str:
        """How a prompt names a skill."""
        return ""

    @classmethod
    def loads(cls, skill: str) -> list[Step]:
        """What its model does to load a skill."""
        return []


class PluggedClaudeCode(ClaudeCode, Plugged):
    prefix = "mcp__plugin_lium_lium__"
    allowed: ClassVar = "mcp__plugin_lium_lium,Skill"

    def validates(self) -> bool | None:
        checks = [(str(ROOT / FOLDER), "--profile", "directory"), (str(ROOT),)]
        return all("Validation passed" in self.run("plugin", "validate", *check, "--strict") for check in checks)

    def keep_key(self) -> None:
        self.run("plugin", "configure", "lium@lium", "--values-stdin", typed=json.dumps({"api_key": KEY}))

    @classmethod
    def loads(cls, skill: str) -> list[Step]:
        return [Step("Skill", {"skill": f"lium:{skill}"})]


class PluggedCodex(Codex, Plugged):
    asks_key: ClassVar = False

    def __init__(self, home: Path) -> None:
        # The server of the evals is slower than Codex waits for.
        super().__init__(home, more="mcp_optional_startup_grace_ms = 20000")

    def install(self) -> None:
        super().install()
        config = self.home / ".codex" / "config.toml"
        approved = '\n[plugins."lium@lium".mcp_servers.lium]\ndefault_tools_approval_mode = "approve"\n'
        config.write_text(config.read_text() + approved)

    def keep_key(self) -> None:
        raise NotImplementedError

    @classmethod
    def named(cls, skill: str) -> str:
        return f"$lium:{skill} "


class PluggedGeminiCli(GeminiCli, Plugged):
    def _answers(self) -> Sequence[str]:
        return ("--consent", "--skip-settings")

    def validates(self) -> bool | None:
        return "successfully validated" in self.run("extensions", "validate", str(ROOT / FOLDER))

    def keep_key(self) -> None:
        self.run("extensions", "config", "lium", "LIUM_API_KEY", typed=f"{KEY}\n")

    @classmethod
    def loads(cls, skill: str) -> list[Step]:
        return [Step("activate_skill", {"name": skill})]


KINDS: Final[Sequence[type[Plugged]]] = (PluggedClaudeCode, PluggedCodex, PluggedGeminiCli)


class Seen(NamedTuple):
    """What was seen in a host.

    Attributes:
        validates: Whether the host's own check takes it; None where it has none.
        lists: Whether its model was shown all tools and all skills.
        keys: Whether a key arrived, by where it was from; None where there is no such way.
        problems: What was wrong with the end of each task, by the skill.
    """

    validates: bool | None
    lists: bool
    keys: dict[KeyFrom, bool | None]
    problems: dict[str, list[str]]

    @property
    def is_good(self) -> bool:
        """Whether all of it worked."""
        works = self.lists and False not in (self.validates, *self.keys.values())
        return works and not any(self.problems.values())


def main() -> int:
    """Install the plugin in each host, and write down what was seen; the exit status is the verdict."""
    install_hosts([kind.package for kind in KINDS])
    script, *_ = install_ours()
    with tempfile.TemporaryDirectory() as directory:
        seen = plug_all(script, Path(directory))
    write_down(seen)
    return 0 if all(one.is_good for one in seen.values()) else 1


def plug_all(script: Program, homes: Path) -> dict[str, Seen]:
    """Install the plugin in each host, and look what its model can do with it."""
    homes.mkdir(exist_ok=True)
    seen = {}
    with simulating() as lium:
        lium.begin()
        path = with_our_command(script, lium, homes / "bin")
        for kind in KINDS:
            host = kind(homes / f"{kind.program}-lists")
            lists, validates = _shows_all(host, script), host.validates()
            keys = {key_from: _brings_key(kind, key_from, path, homes) for key_from in get_args(KeyFrom)}
            _say(f"{kind.title()} takes the plugin: {validates}; shows all of it: {lists}; keys arrive: {keys}")
            seen[kind.name] = Seen(validates, lists, keys, dict(_play_all(kind, homes)))
    return seen


def _shows_all(host: Plugged, script: Program) -> bool:
    """Whether the model of a host is shown every tool and every skill; some servers come after the first turn."""
    host.add_variables(PATH=os.pathsep.join((str(Path(script.command[0]).parent), os.environ["PATH"])))
    with scripted_model(*host.calls(CALLED)) as model:
        host.prepare(model)
        host.install()
        host.add_entry(script)
        host.prompt(model)
    if not model.turns:
        return False
    shown = host.shown(model.turns[-1])
    told = _told(model.turns[0])
    skills = all(skill.name in told and skill.description[:_TOLD_CHARACTERS] in told for skill in read_skills())
    return shown.in_full | shown.by_name == OFFERED and skills


def _brings_key(kind: type[Plugged], key_from: KeyFrom, path: str, homes: Path) -> bool | None:
    """Whether a key arrives where it can come from; its server is over a simulated Lium, which has no other key."""
    asked = key_from == "the host's own question"
    if asked and not kind.asks_key:
        return None
    host = kind(homes / f"{kind.program}-{get_args(KeyFrom).index(key_from)}")
    host.add_variables(PATH=path, NO_PROXY="127.0.0.1")
    with scripted_model(*host.calls(CALLED)) as model:
        host.prepare(model)
        host.install()
        if asked:
            host.keep_key()
        elif key_from == "the environment":
            host.add_variables(LIUM_API_KEY=KEY)
        else:
            host.write(".lium/config.ini", f"[api]\napi_key = {KEY}\n")
        host.prompt(model)
    return len(model.turns) > 1 and '"balance_usd":100' in _told(model.turns[-1])


def _play_all(kind: type[Plugged], homes: Path) -> Iterator[tuple[str, list[str]]]:
    for skill in read_skills():
        home = homes / f"{kind.program}-{skill.name}"
        home.mkdir()
        task = TASKS[skill.name]
        stage = Stage(task, home, 0.0)
        try:
            problems = _play(kind, skill, task, stage, home)
        finally:
            stage.close()
        _say(f"{kind.title()} loads {skill.name} and does {task.title!r}: {'; '.join(problems) or 'done'}")
        yield skill.name, problems


def _play(kind: type[Plugged], skill: Skill, task: Task, stage: Stage, home: Path) -> list[str]:
    host = kind(home / "host")
    host.add_variables(PATH=_with_server_of(task, stage, home), NO_PROXY="127.0.0.1")
    with serving_scripted(TaskModel(task, kind, str(stage.work), kind.loads(skill.name))) as model:
        host.prepare(model)
        host.install()
        host.prompt(model, kind.named(skill.name) + task.prompt(str(stage.work)))
    problems = grade(task, stage.end(), claims_in(model.said))
    _, _, steps = skill.text.partition(f"# {skill.title}\n")
    if not model.turns or steps.strip() not in _told(model.turns[-1]):
        problems.append("its model was not shown the skill")
    return problems


def _with_server_of(task: Task, stage: Stage, home: Path) -> str:
    """A PATH on which `lium-mcp` is the server of a task."""
    folder = home / "bin"
    folder.mkdir()
    environment = variables(task, home, stage.base_url) | {"PYTHONPATH": str(ROOT)}
    set_there = "".join(f"export {name}='{value}'\n" for name, value in environment.items())
    (folder / "lium-mcp").write_text(f'#!/bin/sh\n{set_there}exec "{PYTHON}" -m evals.server\n')
    (folder / "lium-mcp").chmod(0o755)
    return os.pathsep.join((str(folder), os.environ["PATH"]))


def _told(value: Any) -> str:
    """All texts of a request, one after the other."""
    match value:
        case str():
            return value
        case dict():
            return "\n".join(map(_told, value.values()))
        case list():
            return "\n".join(map(_told, value))
    return ""


def write_down(seen: dict[str, Seen]) -> None:
    """Write what was seen into the document."""
    DOCUMENT.write_text(with_generated(DOCUMENT.read_text(), "plugins", "\n".join(_part(seen))))


def _part(seen: dict[str, Seen]) -> Iterable[str]:
    yield f"Seen on {datetime.now(UTC).date().isoformat()}."
    yield ""
    yield f"| | {' | '.join(kind.title() for kind in KINDS)} |"
    yield f"|---|{'---|' * len(KINDS)}"
    hosts = [seen[kind.name] for kind in KINDS]
    yield _row("the host's own check takes the plugin", (host.validates for host in hosts))
    yield _row("the model is shown all tools and skills of the plugin", (host.lists for host in hosts))
    for key_from in get_args(KeyFrom):
        yield _row(f"the key of {key_from} arrives", (host.keys[key_from] for host in hosts))
    for name, task in TASKS.items():
        yield _row(f"skill `{name}`: {task.title}", (not host.problems[name] for host in hosts))


def _row(what: str, verdicts: Iterable[bool | None]) -> str:
    words = {None: "-", True: "run", False: "FAILS"}
    return f"| {what} | {' | '.join(words[verdict] for verdict in verdicts)} |"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
