"""Templates as code: plan, apply, again, prune; and values of the environment that are never printed."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.main import main
from lium_mcp.cli.template_file import BadFile, read_file
from lium_mcp.cli.templates import sync
from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from tests.harness import TurnedClock
from tests.wires import Wire, answering, ask, editing, rent, truth

SECRET = "planted-s3cret-value"
FILE = f"""
[[template]]
name = "trainer"
image = "daturaai/pytorch:2.8.0-py3.12-cuda12.8.0-devel-ubuntu22.04"
ports = [8888]
environment = {{ PROJECT = "search", TOKEN = "{SECRET}" }}
environment_from = {{ API_KEY = "CI_API_KEY" }}

[[template]]
name = "pinned"
image = "registry.example.com:5000/team/server@sha256:{"0" * 64}"
description = "Inference"
volumes = ["/data"]
startup_commands = "serve"
entrypoint = "/bin/sh"
category = "DOCKER"
"""
PLANTED = "another-planted-value"

Row = dict[str, Any]


class Ci:
    """One checkout with its file, run again and again on one account."""

    def __init__(self, sandbox: Sandbox, path: Path) -> None:
        self.sandbox = sandbox
        self.path = path
        self.transport: Any = sandbox.transport()
        self.printed = self.told = ""

    async def run(self, text: str | None = None, **options: Any) -> int:
        """One run; what it printed is in `printed`, and what it said aside in `told`."""
        if text is not None:
            self.path.write_text(text)
        out, aside = io.StringIO(), io.StringIO()
        clock = TurnedClock(self.sandbox)
        async with LiumClient(
            api_key="sk_sandbox", base_url="http://127.0.0.1/api", transport=self.transport, clock=clock
        ) as lium:
            with redirect_stderr(aside):
                status = await sync(lium, clock, self.path, out=out, **options)
        self.printed, self.told = out.getvalue(), aside.getvalue()
        for secret in (SECRET, PLANTED):
            assert secret not in self.printed + self.told
        return status

    @property
    def own(self) -> dict[str, Row]:
        """The account's own templates, by name, as the sandbox has them."""
        owner = truth(self.sandbox, "accounts")[0]["id"]
        return {row["body"]["name"]: row for row in truth(self.sandbox, "templates") if row["user_id"] == owner}

    @property
    def changes(self) -> list[str]:
        """Every request so far that was to change something."""
        return [
            f"{note['method']} {note['path']}" for note in truth(self.sandbox, "requests") if note["method"] != "GET"
        ]


@pytest.fixture
def ci(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ci:
    monkeypatch.setenv("CI_API_KEY", PLANTED)
    return Ci(sandbox, tmp_path / "templates.toml")


# --- plan and apply --------------------------------------------------------------------------------------------------


async def test_a_file_is_planned_applied_and_then_in_sync(ci: Ci) -> None:
    assert await ci.run(FILE, dry_run=True) == ExitStatus.DIFFERS
    assert ci.printed == "+ create trainer\n+ create pinned\n"
    assert ci.changes == []

    assert await ci.run() == ExitStatus.OK
    assert "done: create trainer\n" in ci.printed
    trainer, pinned = ci.own["trainer"], ci.own["pinned"]
    assert trainer["status"] == pinned["status"] == "VERIFY_SUCCESS", "it waits until they can be used"
    assert trainer["body"]["environment"] == {"PROJECT": "search", "TOKEN": SECRET, "API_KEY": PLANTED}
    assert trainer["body"]["internal_ports"] == [22, 8888]
    assert pinned["body"]["docker_image"] == "registry.example.com:5000/team/server"
    assert pinned["body"]["docker_image_digest"] == f"sha256:{'0' * 64}"
    assert pinned["body"]["volumes"] == ["/data"]

    made = len(ci.changes)
    for options in ({}, {"dry_run": True}, {"prune": True}):
        assert await ci.run(None, **options) == ExitStatus.OK
        assert ci.printed == "= same   trainer\n= same   pinned\nEverything is as the file wants it.\n"
    assert len(ci.changes) == made, "running it again changes nothing"


CHANGES: list[tuple[str, str, str, Callable[[Row], Any], Any]] = [
    ("image", "2.8.0-py3.12", "2.7.0-py3.12", lambda body: body["docker_image_tag"][:5], "2.7.0"),
    (
        "image",
        f"@sha256:{'0' * 64}",
        ":1.4",
        lambda body: (body["docker_image_tag"], body["docker_image_digest"]),
        ("1.4", ""),
    ),
    (
        "image",
        "sha256:" + "0" * 64,
        "sha256:" + "1" * 64,
        lambda body: body["docker_image_digest"],
        f"sha256:{'1' * 64}",
    ),
    ("ports", "[8888]", "[9999, 22]", lambda body: body["internal_ports"], [22, 9999]),
    ("environment", '"search"', '"other"', lambda body: body["environment"]["PROJECT"], "other"),
    ("environment", 'PROJECT = "search", ', "", lambda body: sorted(body["environment"]), ["API_KEY", "TOKEN"]),
    ("volumes", '["/data"]', '["/cache"]', lambda body: body["volumes"], ["/cache"]),
    ("startup_commands", '"serve"', '""', lambda body: body["startup_commands"], ""),
    ("entrypoint", 'entrypoint = "/bin/sh"', "", lambda body: body["entrypoint"], ""),
    ("description", '"Inference"', '"New"', lambda body: body["description"], "New"),
    ("category", '"DOCKER"', '"PYTORCH"', lambda body: body["category"], "PYTORCH"),
    (
        "is_private",
        'category = "DOCKER"',
        'category = "DOCKER"\nprivate = false',
        lambda body: body["is_private"],
        False,
    ),
]


@pytest.mark.parametrize(("field", "old", "new", "read", "want"), CHANGES)
async def test_one_changed_field_is_one_update(
    ci: Ci, field: str, old: str, new: str, read: Callable[[Row], Any], want: Any
) -> None:
    assert await ci.run(FILE) == ExitStatus.OK
    before = {name: row["body"] for name, row in ci.own.items()}
    changed = FILE.replace(old, new)
    assert changed != FILE
    assert await ci.run(changed) == ExitStatus.OK
    name = "trainer" if before["trainer"] != ci.own["trainer"]["body"] else "pinned"
    assert f"~ update {name}: {field}\n" in ci.printed
    assert read(ci.own[name]["body"]) == want
    (put,) = [change for change in ci.changes if change.startswith("PUT")]
    assert put.endswith(ci.own[name]["id"])
    assert await ci.run(dry_run=True) == ExitStatus.OK


async def test_the_plan_names_the_pods_that_an_update_reboots(ci: Ci, sandbox: Sandbox) -> None:
    await ci.run(FILE)
    await rent(sandbox, "worker", template_id=ci.own["trainer"]["id"])
    await rent(sandbox, "bystander")
    assert await ci.run(FILE.replace("[8888]", "[9999]"), dry_run=True) == ExitStatus.DIFFERS
    assert "~ update trainer: ports; reboots worker\n" in ci.printed
    assert {pod["status"] for pod in truth(sandbox, "pods")} == {"RUNNING"}


async def test_templates_of_others_are_not_touched_and_take_no_name(ci: Ci, sandbox: Sandbox) -> None:
    body = {"name": "trainer", "docker_image": "evil/image", "is_private": False}
    theirs = (await ask(sandbox, "POST", "/templates", body, **{"X-API-KEY": OTHER_API_KEY}))["id"]
    assert await ci.run(FILE, prune=True) == ExitStatus.OK
    assert "+ create trainer" in ci.printed
    row = next(row for row in truth(sandbox, "templates") if row["id"] == theirs)
    assert row["body"]["docker_image"] == "evil/image"


async def test_two_templates_of_one_name_are_never_guessed_at(ci: Ci, sandbox: Sandbox) -> None:
    for _ in range(2):
        await ask(sandbox, "POST", "/templates", {"name": "trainer", "docker_image": "a"})
    made = len(ci.changes)
    assert await ci.run(FILE) == ExitStatus.UNUSABLE
    assert "2 of your templates are named trainer" in ci.told
    assert len(ci.changes) == made


async def test_a_registry_login_is_named_by_its_user(ci: Ci, sandbox: Sandbox) -> None:
    text = '[[template]]\nname = "a"\nimage = "ghcr.io/team/a:1"\nregistry_credential = "bot"\n'
    assert await ci.run(text) == ExitStatus.UNUSABLE
    assert "no registry logins are stored for bot" in ci.told
    login = {"docker_username": "bot", "docker_password": SECRET}
    login_id = (await ask(sandbox, "POST", "/docker-credentials/", login))["id"]
    assert await ci.run() == ExitStatus.OK
    assert ci.own["a"]["body"]["docker_credential_id"] == login_id
    assert await ci.run(dry_run=True) == ExitStatus.OK


# --- what fails ------------------------------------------------------------------------------------------------------


async def test_a_template_that_fails_its_check_fails_the_run_and_the_next_one_too(ci: Ci, sandbox: Sandbox) -> None:
    sandbox.add_fault("template_verify_fails", message=f"TOKEN={SECRET} {PLANTED}: no such image")
    assert await ci.run(FILE) == ExitStatus.FAILED
    assert "failed: create trainer" in ci.printed
    assert "TOKEN=[redacted] [redacted]: no such image" in ci.printed
    assert "done: create pinned" in ci.printed, "the others are made all the same"
    for options in ({"dry_run": True}, {}):
        assert await ci.run(None, **options) == ExitStatus.FAILED
        assert "= same   trainer (VERIFY_FAILED)" in ci.printed
    assert await ci.run(FILE.replace("2.8.0-py3.12", "2.6.0-py3.12")) == ExitStatus.OK


async def test_a_template_that_is_still_verified_is_waited_for(ci: Ci, sandbox: Sandbox) -> None:
    body = {"name": "a", "docker_image": "b", "docker_image_tag": "1", "description": "a"}
    await ask(sandbox, "POST", "/templates", body)
    text = '[[template]]\nname = "a"\nimage = "b:1"\n'
    assert await ci.run(text, dry_run=True) == ExitStatus.OK
    assert await ci.run() == ExitStatus.OK
    assert ci.own["a"]["status"] == "VERIFY_SUCCESS"


async def test_a_refusal_that_repeats_a_value_is_told_without_it(ci: Ci, sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on(
        "POST", "/templates", answering(422, {"detail": [{"loc": ["body"], "msg": f"bad: {PLANTED}", "type": "x"}]})
    )
    ci.transport = wire
    assert await ci.run(FILE) == ExitStatus.FAILED
    assert "[redacted]" in ci.printed
    assert ci.own == {}


async def test_lium_that_cannot_be_reached_is_a_failure_that_changes_nothing(ci: Ci, sandbox: Sandbox) -> None:
    sandbox.add_fault("unauthorized", times=None)
    assert await ci.run(FILE) == ExitStatus.FAILED
    assert ci.changes == []


# --- prune -----------------------------------------------------------------------------------------------------------


async def test_prune_deletes_what_the_file_does_not_name_and_nothing_else_does(ci: Ci) -> None:
    await ci.run(FILE)
    rest = FILE[: FILE.index('[[template]]\nname = "pinned"')]
    assert await ci.run(rest) == ExitStatus.OK
    assert set(ci.own) == {"trainer", "pinned"}
    assert await ci.run(rest, prune=True, dry_run=True) == ExitStatus.DIFFERS
    assert f"- delete pinned (registry.example.com:5000/team/server@sha256:{'0' * 64})\n" in ci.printed
    assert set(ci.own) == {"trainer", "pinned"}
    assert await ci.run(rest, prune=True) == ExitStatus.OK
    assert set(ci.own) == {"trainer"}


async def test_prune_refuses_a_template_that_pods_run_on(ci: Ci, sandbox: Sandbox) -> None:
    await ci.run(FILE)
    await rent(sandbox, "worker", template_id=ci.own["trainer"]["id"])
    rest = FILE[FILE.index('[[template]]\nname = "pinned"') :]
    assert await ci.run(rest, prune=True, dry_run=True) == ExitStatus.DIFFERS
    assert "refused, pods run on it: worker" in ci.printed
    assert await ci.run(rest, prune=True) == ExitStatus.FAILED
    assert "failed: delete trainer: pods run on it: worker" in ci.printed
    assert "trainer" in ci.own
    assert not [change for change in ci.changes if change.startswith("DELETE")]


async def test_a_pod_that_is_rented_after_the_plan_keeps_its_template(ci: Ci, sandbox: Sandbox) -> None:
    await ci.run(FILE)
    template_id = ci.own["trainer"]["id"]
    rest = FILE[FILE.index('[[template]]\nname = "pinned"') :]
    wire = Wire(sandbox)
    looks = 0

    async def rented_between(request: Any, forward: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            await rent(sandbox, "late", template_id=template_id)
        return await forward(request)

    wire.on("GET", "/pods", rented_between)
    ci.transport = wire
    assert await ci.run(rest, prune=True) == ExitStatus.FAILED
    assert "pods run on it: late" in ci.printed
    assert "trainer" in ci.own


@pytest.mark.parametrize("by_itself", [None, {}, {"name": "trainer"}], ids=["null", "empty", "no id"])
async def test_prune_keeps_a_template_that_a_pod_may_run_on(ci: Ci, sandbox: Sandbox, by_itself: Row | None) -> None:
    await ci.run(FILE)
    pod_id = await rent(sandbox, "worker", template_id=ci.own["trainer"]["id"])
    rest = FILE[FILE.index('[[template]]\nname = "pinned"') :]
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"template": None} for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"template": by_itself}))
    ci.transport = wire
    unknown = f"not known: Lium does not say which template these run on: worker ({pod_id})"
    assert await ci.run(rest, prune=True, dry_run=True) == ExitStatus.DIFFERS
    assert f"; refused, whether pods run on it is {unknown}" in ci.printed
    assert await ci.run(rest, prune=True) == ExitStatus.FAILED
    assert f"failed: delete trainer: whether pods run on it is {unknown}" in ci.printed
    assert "trainer" in ci.own
    assert not [change for change in ci.changes if change.startswith("DELETE")]
    wire.behave()
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"template": None} for pod in pods]))
    assert await ci.run(rest, prune=True) == ExitStatus.FAILED
    assert "failed: delete trainer: pods run on it: worker" in ci.printed


async def test_an_empty_file_prunes_nothing(ci: Ci) -> None:
    await ci.run(FILE)
    assert await ci.run("", prune=True) == ExitStatus.UNUSABLE
    assert "refusing to delete all" in ci.told
    assert set(ci.own) == {"trainer", "pinned"}


async def test_one_time_and_temporary_templates_are_not_pruned(ci: Ci, sandbox: Sandbox) -> None:
    for field in ("one_time_template", "is_temporary"):
        await ask(sandbox, "POST", "/templates", {"name": field, "docker_image": "a", field: True})
    assert await ci.run(FILE, prune=True) == ExitStatus.OK
    assert set(ci.own) == {"trainer", "pinned", "one_time_template", "is_temporary"}


# --- bad files -------------------------------------------------------------------------------------------------------

TEMPLATE = '[[template]]\nname = "a"\nimage = "b:1"\n'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"{TEMPLATE}ports = [0]", "template.0.ports.0"),
        (f"{TEMPLATE}ports = [true]", "template.0.ports.0"),
        (f'{TEMPLATE}ports = "{SECRET}"', "template.0.ports"),
        (f"{TEMPLATE}environment = {{ A = 1 }}", "template.0.environment.A"),
        (f'{TEMPLATE}environment = {{ A = ["{SECRET}"] }}', "template.0.environment.A"),
        (f'{TEMPLATE}environment = {{ "1A" = "x" }}', "template.0.environment"),
        (
            f'{TEMPLATE}environment = {{ A = "x" }}\nenvironment_from = {{ A = "B" }}',
            "both environment and environment_from",
        ),
        (f'{TEMPLATE}environment_from = {{ A = "NOT_SET_ANYWHERE" }}', "NOT_SET_ANYWHERE"),
        (f'{TEMPLATE}volumes = ["relative"]', "template.0.volumes.0"),
        (f"{TEMPLATE}volumes = []", "template.0.volumes"),
        (f'{TEMPLATE}category = "GAMES"', "template.0.category"),
        (f'{TEMPLATE}imgae = "{SECRET}"', "template.0.imgae"),
        ('[[template]]\nname = "a"', "template.0.image"),
        ('[[template]]\nname = ""\nimage = "b"', "template.0.name"),
        ('[[template]]\nname = "a\\u001b[31m"\nimage = "b"', "template.0.name"),
        (f"{TEMPLATE}{TEMPLATE}", "named twice: a"),
        (f'{TEMPLATE}environment = {{ A = "{SECRET}', "Unterminated string"),
        ("templates = []", "templates"),
        ("template = 7", "template"),
    ],
)
async def test_a_bad_file_names_the_field_and_asks_nobody(ci: Ci, sandbox: Sandbox, text: str, named: str) -> None:
    assert await ci.run(text) == ExitStatus.UNUSABLE
    assert named in ci.told
    assert (ci.printed, len(ci.told.splitlines())) == ("", 1)
    assert truth(sandbox, "requests") == []


async def test_a_file_that_is_none_is_said_in_one_line(ci: Ci) -> None:
    assert await ci.run() == ExitStatus.UNUSABLE
    assert "No such file" in ci.told
    ci.path.write_bytes(b"\xff\xff")
    assert await ci.run() == ExitStatus.UNUSABLE
    assert "not UTF-8" in ci.told
    ci.path.write_text(f"# {'x' * 2**20}")
    assert await ci.run() == ExitStatus.UNUSABLE
    assert "larger than" in ci.told


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_plans_in_the_sandbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "templates.toml"
    path.write_text(TEMPLATE)
    assert main(["templates", "sync", str(path), "--dry-run", "--sandbox"]) == ExitStatus.DIFFERS
    assert capsys.readouterr().out == "+ create a\n"
    path.write_text(f"{TEMPLATE}private = false\n")  # is not verified, so nothing is waited for
    assert main(["templates", "sync", str(path), "--sandbox"]) == ExitStatus.OK
    assert "done: create a" in capsys.readouterr().out


def test_the_command_needs_a_key_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "templates.toml"
    path.write_text(TEMPLATE)
    assert main(["templates", "sync", str(path)]) == ExitStatus.FAILED
    assert "No API key is set. To get one: lium-mcp login" in capsys.readouterr().err
    assert main(["templates", "sync", str(tmp_path / "none.toml"), "--sandbox"]) == ExitStatus.UNUSABLE
    assert main(["templates", "--max-pods"]) == ExitStatus.UNUSABLE


def test_where_only_reading_is_allowed_nothing_is_synced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "templates.toml"
    path.write_text(TEMPLATE)
    monkeypatch.setenv("LIUM_MCP_READ_ONLY", "true")
    assert main(["templates", "sync", str(path), "--sandbox"]) == ExitStatus.UNUSABLE
    said = capsys.readouterr()
    assert said.out == ""
    assert "LIUM_MCP_READ_ONLY: " in said.err
    assert main(["templates", "sync", str(path), "--sandbox", "--dry-run"]) == ExitStatus.DIFFERS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[template]]\nname = "x"\nimagee = "y"', "template.0.imagee: there is no such key; image is one"),
        ('[[templates]]\nname = "x"', "templates: there is no such key; template is one"),
    ],
)
def test_a_key_that_there_is_not_is_named_with_the_nearest(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "templates.toml"
    path.write_text(text)
    with pytest.raises(BadFile, match=said):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[template]]\nimage = "x"', "template.0.name: it is missing"),
        ('[[template]]\nname = "x"\nimage = 5', "template.0.image: it takes text, in quotes"),
        ('[[template]]\nname = "x"\nimage = "not an image"', "template.0.image: is not the name of an image"),
        (
            '[[template]]\nname = "x"\nimage = "y"\nports = ["22"]',
            "template.0.ports.0: it takes a whole number, without",
        ),
        ('[[template]]\nname = "x"\nimage = "y"\nports = [65536]', "template.0.ports.0: it takes a number up to 65535"),
        (
            '[[template]]\nname = "x"\nimage = "y"\nprivate = "yes"',
            "template.0.private: it takes true or false, without",
        ),
        ('[[template]]\nname = "x"\nimage = "y"\nvolumes = []', "template.0.volumes: it names nothing"),
        ('[[template]]\nname = "x"\nimage = "y"\nenvironment = ["A=1"]', "template.0.environment: it takes names and"),
        ('[[template]]\nname = "x"\nimage = "y"\ncategory = "docker"', "template.0.category: it takes 'DOCKER', "),
        ('[template]\nname = "x"', "template: [[template]], in two pairs of brackets, begins each one"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "templates.toml"
    path.write_text(text)
    assert main(["templates", "sync", str(path), "--sandbox"]) == ExitStatus.UNUSABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"lium-mcp: {path}: {said}")


def test_the_file_that_the_help_shows_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["templates", "sync", "--help"])
    shown = capsys.readouterr().out
    path = tmp_path / "templates.toml"
    path.write_text(shown[shown.index("  [[template]]") :])
    assert main(["templates", "sync", str(path), "--sandbox", "--dry-run"]) == ExitStatus.DIFFERS
    assert capsys.readouterr().out == "+ create trainer\n"


async def test_a_log_shows_what_a_sync_waits_for_a_line_each(ci: Ci, sandbox: Sandbox) -> None:
    sandbox.add_fault("template_verify_fails", message="no such image")
    assert await ci.run(TEMPLATE) == ExitStatus.FAILED
    first, *lines = ci.told.splitlines()
    assert first == "Reading your templates, and which pods run on them"
    assert lines[0] == "create a: asking Lium"
    checking = "create a: Lium checks that the image starts; it is VERIFY_PENDING"
    assert lines[1] == checking
    assert set(lines[2:]) <= {f"{checking}, {minutes} min so far" for minutes in (1, 2)}
    assert len(lines) == len(set(lines)), "what is the same is said once"
