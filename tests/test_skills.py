"""Skills: of the format that hosts read, in words that the server keeps, and offered where their tools are."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from mcp import MCPError
from mcp.types import TextResourceContents

import lium_mcp
from evals.grading import grade
from evals.playing import play, reference_claims
from evals.tasks import Task, load_tasks
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.sandbox import Sandbox
from lium_mcp.settings_table import DEFAULT_TOOLSETS
from lium_mcp.skills import Skill, read_skills
from lium_mcp.toolkit.listing import read_listing
from tests.harness import Agent, Mode, agent_on

PACKAGE = Path(lium_mcp.__file__).parent
FOLDER = PACKAGE / "skills"
SKILLS = {skill.name: skill for skill in read_skills()}
INDEX = "skill://index.md"
TOOLS = {item.name: item for item in read_listing()}
# What agents meet in answers: the names of fields, and the codes of failures, which are words of the source.
FIELDS = set(re.findall(r'"([a-z_]+)":', json.dumps([item.tool.output_schema for item in TOOLS.values()])))
CODES = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', "".join(path.read_text() for path in PACKAGE.rglob("*.py"))))
# Programs and options, which are no words of ours, and an environment variable.
OTHERS = {"rsync", "ffmpeg", "latest", "cd", "ls", "name"}
every_skill = pytest.mark.parametrize("skill", SKILLS.values(), ids=SKILLS)
both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


def parameters(tool: str) -> dict[str, Any]:
    return dict(TOOLS[tool].tool.input_schema["properties"])


def calls(skill: Skill) -> list[tuple[str, dict[str, str | None]]]:
    """The calls that a skill names: tool, and its parameters, with a value where one is given."""
    found = []
    for tool, inside in re.findall(r"`([a-z_]+)\(([^`]*)\)`", skill.text):
        parts = [part.strip().partition("=") for part in inside.split(",") if part.strip()]
        found.append((tool, {name: value or None for name, _, value in parts}))
    return found


def test_there_is_a_skill_for_each_thing_that_people_come_for() -> None:
    assert list(SKILLS) == [
        "diagnose-pod-start",
        "keep-pod-data",
        "pod-templates-from-ci",
        "rent-gpus-safely",
        "run-gpu-job",
    ]


@every_skill
def test_a_skill_is_of_the_agent_skills_format(skill: Skill) -> None:
    assert (FOLDER / skill.name / "SKILL.md").read_text() == skill.text
    head = yaml.safe_load(skill.text.split("---\n")[1])
    assert head == {"name": skill.name, "description": skill.description}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", skill.name)
    assert len(skill.name) <= 64
    assert " Use it " in skill.description
    assert len(skill.description) <= 500, "hosts show all descriptions to the model all the time"
    assert len(skill.text.splitlines()) < 80


@every_skill
def test_a_skill_names_tools_and_parameters_that_there_are(skill: Skill) -> None:
    named = calls(skill)
    assert len(named) >= 5
    for tool, given in named:
        assert TOOLS[tool].toolset in DEFAULT_TOOLSETS, f"{tool} is not offered by default"
        assert given.keys() <= parameters(tool).keys(), f"{tool} has no such parameters"
        for name, value in given.items():
            if value is not None and parameters(tool)[name]["type"] == "boolean":
                assert value in ("true", "false")
    of_tools = {name for tool in skill.words_in_code() & TOOLS.keys() for name in parameters(tool)}
    # Other words in code are tools, their parameters, or words of their answers.
    words = set(re.findall(r"`([a-z_]+)`", skill.text))
    assert words - TOOLS.keys() - of_tools - FIELDS - CODES - OTHERS == set()


@every_skill
def test_a_skill_that_names_another_names_one_that_there_is(skill: Skill) -> None:
    assert set(re.findall(r"skill ([a-z]+(?:-[a-z]+)+)", skill.text)) <= SKILLS.keys() - {skill.name}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("`rent_gpu(name)`", "rent_gpu"), ("`rent_pod(name, max_price)`", "max_price"), ("`max_price`", "max_price")],
)
def test_a_skill_with_a_wrong_name_would_be_found(text: str, wrong: str) -> None:
    skill = SKILLS["rent-gpus-safely"]
    with pytest.raises((AssertionError, KeyError), match=wrong):
        test_a_skill_names_tools_and_parameters_that_there_are(skill._replace(text=f"{skill.text}{text}"))


async def text_at(agent: Agent, address: str) -> str:
    (content,) = (await agent.client.read_resource(address)).contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "text/markdown"
    return content.text


async def listed(agent: Agent) -> dict[str, Any]:
    resources = (await agent.client.list_resources()).resources
    return {item.uri: item for item in resources if item.uri.startswith("skill:")}


@both_eras
async def test_the_skills_are_resources_and_an_index_leads_to_them(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, api_key=None) as agent:
        found = await listed(agent)
        assert found.keys() == {INDEX, *(f"skill://{name}/SKILL.md" for name in SKILLS)}
        for skill in SKILLS.values():
            item = found[skill.address]
            assert (item.name, item.title, item.description) == (skill.name, skill.title, skill.description)
            assert item.mime_type == "text/markdown"
            assert await text_at(agent, skill.address) == skill.text
        index = await text_at(agent, INDEX)
    assert dict(re.findall(r"\((skill://.+)\): (.+)", index)) == {
        skill.address: skill.description for skill in SKILLS.values()
    }


@both_eras
async def test_a_skill_is_there_where_its_tools_are(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, deny_tools=frozenset({"run_job"})) as agent:
        assert SKILLS["run-gpu-job"].address not in await listed(agent)
        assert "run-gpu-job/" not in await text_at(agent, INDEX)
        with pytest.raises(MCPError):
            await agent.client.read_resource(SKILLS["run-gpu-job"].address)
    async with agent_on(sandbox, mode=mode, read_only=True) as agent:
        assert list(await listed(agent)) == [INDEX]
        assert "skill://" not in await text_at(agent, INDEX)


def test_the_commands_for_ci_do_what_the_skill_says(tmp_path: Path) -> None:
    text = SKILLS["pod-templates-from-ci"].text
    (file,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "templates.toml").write_text(file)
    (commands,) = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    dry, real = [line.removeprefix("$ lium-mcp ").split() for line in commands.splitlines()]
    for words, status in ((dry, ExitStatus.DIFFERS), (real, ExitStatus.OK)):
        done = subprocess.run(
            [sys.executable, "-m", "lium_mcp", *words, "--sandbox", "--sandbox-speed", "600"],
            cwd=tmp_path,
            env={"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, "trainer" in done.stdout) == (status, True), done.stdout + done.stderr
    for status in (ExitStatus.OK, ExitStatus.DIFFERS, ExitStatus.FAILED, ExitStatus.UNUSABLE):
        assert re.search(rf"\b{int(status)}\b", text.split("exit status is")[1])


# --- what they lead to -----------------------------------------------------------------------------------------------

TASKS = load_tasks(Path(__file__).parent / "hosts" / "skill_tasks")
# The one that waits for a job is for `make test-all`.
PLAYED = [
    pytest.param(task, id=name, marks=[pytest.mark.external] if name == "run-gpu-job" else [])
    for name, task in TASKS.items()
]


@every_skill
def test_the_steps_of_its_task_are_those_of_the_skill(skill: Skill) -> None:
    named: dict[str, set[str]] = defaultdict(set)
    for tool, given in calls(skill):
        named[tool].update(given)
    told = set(re.findall(r"`([a-z_]+)`", skill.text))
    steps = TASKS[skill.name].reference
    assert len(steps) >= 5
    for step in steps:
        assert step.tool in named, f"the skill does not say to call {step.tool}"
        assert step.arguments.keys() <= named[step.tool] | told | {"wait_seconds"}, step


@pytest.mark.parametrize("task", PLAYED)
async def test_the_steps_of_a_skill_reach_the_goal_of_its_task(task: Task, tmp_path: Path) -> None:
    played = await play(task, tmp_path, task.reference, reference_claims(task))
    assert grade(task, played.facts, played.claims) == []
