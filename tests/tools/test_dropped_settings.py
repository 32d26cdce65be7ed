"""What the platform would drop of a template without a word is refused when it is made, and said when it is used."""

import json
from pathlib import Path
from typing import Any

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.sandbox import Sandbox
from tests.cli.test_template_files import Ci
from tests.harness import agent_on
from tests.wires import Wire, editing, make_template, offers, truth

Row = dict[str, Any]
SECRET = "planted-s3cret-value"
MANY_PORTS = list(range(1000, 1250))

# What a template asks for, as the API takes it, and what is said of it.
DROPPED: list[tuple[Row, str]] = [
    ({"environment": {"PATH": SECRET}}, "PATH"),
    ({"environment": {"GOOD": "1", "LD_PRELOAD": SECRET, "PYTHONPATH": "/a"}}, "LD_PRELOAD, PYTHONPATH"),
    ({"environment": {"HF_TOKEN": ""}}, "without a value in environment: leave out HF_TOKEN"),
    ({"startup_commands": f"serve '{SECRET}"}, "quote"),
    ({"startup_commands": f"cd /workspace && serve {SECRET}"}, "bash -c"),
    ({"startup_commands": f"serve\ntrain {SECRET}"}, "line break"),
    ({"startup_commands": f"serve {SECRET} > log"}, "its >"),
    ({"startup_commands": f'serve "{SECRET}" "$HOME/data"'}, "its $"),
    ({"startup_commands": f"TOKEN={SECRET} serve"}, "first word"),
    ({"startup_commands": "serve ~/data"}, "its ~"),
    ({"entrypoint": f"python {SECRET}"}, "first word of entrypoint"),
    ({"entrypoint": f"'python {SECRET}"}, "quote"),
    ({"volumes": ["/data/dev"]}, "/dev in it"),
    ({"volumes": ["/bin"]}, "/bin in it"),
    ({"volumes": ["/run/lium/secrets"]}, "/run/lium"),
    ({"volumes": ["/data/../x"]}, "volume_path"),
    ({"volumes": ["/"]}, "volume_path"),
    ({"internal_ports": MANY_PORTS}, "at most 200"),
]
# Only the whole-list API and the file can ask for it.
SECOND_VOLUME: tuple[Row, str] = ({"volumes": ["/data", "/cache"]}, "and not /cache")
KEPT: list[Row] = [
    {"startup_commands": "bash -c 'cd /workspace && serve > log 2>&1'"},
    {"startup_commands": '/bin/bash -lc "serve --home $HOME"'},
    {"startup_commands": "env PYTHONPATH=/a python -m serve --url 'http://x?a=1&b=2' --price '$5' --tag a#1 ./~x"},
    {"entrypoint": "/opt/my\\ tool", "environment": {"MY_PATH": "/a", "OLD_LD_X": "1"}, "volumes": ["/data"]},
]


def arguments(settings: Row) -> Row:
    """The settings as the tools take them."""
    environment = settings.get("environment")
    return {
        name: value
        for name, value in (
            ("environment", [f"{key}={text}" for key, text in environment.items()] if environment else None),
            ("ports", settings.get("internal_ports")),
            ("volume_path", settings.get("volumes", [None])[0]),
            ("startup_commands", settings.get("startup_commands")),
            ("entrypoint", settings.get("entrypoint")),
        )
        if value is not None
    }


def file_of(settings: Row) -> str:
    """The settings as a file has them."""
    names = {"internal_ports": "ports"}
    lines = ["[[template]]", 'name = "a"', 'image = "b:1"']
    plain = {names.get(name, name): value for name, value in settings.items() if name != "environment"}
    lines += [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    lines += [f"environment.{key} = {json.dumps(value)}" for key, value in settings.get("environment", {}).items()]
    return "\n".join(lines)


async def test_what_would_be_dropped_is_refused_when_a_template_is_made_or_changed(sandbox: Sandbox) -> None:
    await make_template(sandbox, "mine")
    before = truth(sandbox, "templates")
    async with agent_on(sandbox, toolsets=frozenset({"templates"})) as agent:
        for settings, said in DROPPED:
            wanted = arguments(settings)
            calls = [("create_template", {"name": "new", "image": "a:1"})]
            if "volumes" not in settings:
                calls.append(("update_template", {"template": "mine"}))
            for tool, more in calls:
                refused = await agent.refused(tool, **more, **wanted)
                assert (refused.code, said in refused.text) == ("invalid_argument", True), (settings, refused.text)
                assert SECRET not in refused.text
        assert truth(sandbox, "templates") == before
        for number, settings in enumerate(KEPT):
            made = await agent.call(
                "create_template", name=f"kept {number}", image="a:1", wait_seconds=0, **arguments(settings)
            )
            assert "warnings" not in made


async def test_a_file_is_held_against_the_same_list(sandbox: Sandbox, tmp_path: Path) -> None:
    ci = Ci(sandbox, tmp_path / "templates.toml")
    for settings, said in [*DROPPED, SECOND_VOLUME]:
        status = await ci.run(file_of(settings))
        assert (status, said in ci.told) == (ExitStatus.UNUSABLE, True), (settings, ci.told)
        assert SECRET not in ci.printed + ci.told
    for settings in KEPT:
        assert await ci.run(file_of(settings), dry_run=True) == ExitStatus.DIFFERS


async def test_what_a_template_that_others_made_would_lose_is_said_where_it_is_used(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    template = await make_template(
        sandbox,
        "theirs",
        environment={"PYTHONPATH": SECRET, "EMPTY": ""},
        volumes=["/data", "/cache"],
        internal_ports=[22, 8000, 9000],
    )
    wire.on("GET", "/templates", editing(lambda rows: [row | {"shm_size": "lots"} for row in rows]))
    [node, *_] = [node for node in await offers(sandbox) if node.get("min_gpu_count_for_rental") == 1]

    def two_ports(rows: list[Row]) -> list[Row]:
        return [row | {"specs": row["specs"] | {"available_port_count": 2}} for row in rows]

    wire.on("GET", "/executors", editing(two_ports))
    said = ("PYTHONPATH", "leave out EMPTY", "and not /cache")
    async with agent_on(sandbox, transport=wire) as agent:
        read = await agent.call("get_template", template=template, wait_seconds=0)
        wanted = {"name": "a", "executor_id": node["id"], "template": template}
        planned = await agent.call("rent_pod", **wanted, dry_run=True)
        rented = await agent.call("rent_pod", **wanted, hours=2, wait_seconds=120)
    for answer in (read, planned, rented):
        text = " ".join(answer["warnings"])
        assert all(part in text for part in said), text
        assert SECRET not in json.dumps(answer)
    for answer in (planned, rented):
        text = " ".join(answer["warnings"])
        assert "2 free ports and the template asks for 3" in text
        assert "shm_size" in text
