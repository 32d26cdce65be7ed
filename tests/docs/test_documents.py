"""What the documents name is there: targets, commands, settings, links, files of the source."""

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import get_args

import pytest

from lium_mcp.cli.parser import make_parser
from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.sandbox.faults import OPTIONS, WIRE_KINDS, WorldKind
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS
from lium_mcp.skills import read_skills
from manifests.host_files import SHIPPED, VARIANTS, variants
from tests.docs.documents import DOCS, ROOT, blocks, every_document
from tests.hosts.hosts import HOSTS
from tests.hosts.plugins import KINDS


@every_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text())) <= targets


@every_document
def test_every_command_that_is_named_in_a_sentence_can_be_read(document: Path) -> None:
    for words in re.findall(r"`lium-mcp ([^`\n]*)`", document.read_text()):
        typed = (
            words.replace(" HOST", " cursor")
            .replace("rentals close", "rentals close 1")
            .replace("sync", "sync FILE")
            .removesuffix(" --help")
        )
        make_parser().parse_args(shlex.split(typed))


@every_document
def test_every_variable_that_is_named_is_a_setting(document: Path) -> None:
    of_lium = {"LIUM_MCP_REGISTRY_", "LIUM_SESSION_TOKEN", "LIUM_WORKSPACE"}
    known = {SETTINGS[name].variable for name in Settings.model_fields} | of_lium
    named = set(re.findall(r"\bLIUM_[A-Z_]+", document.read_text())) - {"LIUM_MCP_"}
    assert named <= known


@every_document
def test_every_file_that_is_linked_to_exists(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@every_document
def test_every_python_example_runs_as_written_and_prints_what_it_says(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(document, "python"):
        example = tmp_path / "example.py"
        example.write_text(block.text)
        runpy.run_path(str(example), run_name="__main__")
        said = re.findall(r"^ *print\(.*\)  # (.*)$", block.text, re.MULTILINE)
        assert capsys.readouterr().out.splitlines() == said


def test_the_map_of_the_house_names_what_is_there() -> None:
    [_, house, *_] = (ROOT / "ARCHITECTURE.md").read_text().split("```")
    for name in re.findall(r"[a-z_]+\.py\b|^  [a-z_]+/", house, re.MULTILINE):
        assert list((ROOT / "lium_mcp").rglob(name.strip())), name


def rows(document: Path, heading: str) -> dict[str, list[str]]:
    """The first two columns of a table: what its rows are about, and the words in code that follow."""
    [_, table] = document.read_text().split(f"| {heading} |", 1)
    found: dict[str, list[str]] = {}
    for line in table.split("\n\n")[0].splitlines()[2:]:
        first, second, *_ = line[1:-1].split("|")
        words = [word for quoted in re.findall("`([^`]+)`", second) for word in quoted.split()]
        found |= {name: words for quoted in re.findall("`([^`]+)`", first) for name in quoted.split()}
    return found


def test_the_faults_and_commands_of_the_sandbox_are_those_that_are_documented() -> None:
    document = DOCS / "sandbox.md"
    for heading, kinds in (("Wire fault", WIRE_KINDS), ("World fault", get_args(WorldKind))):
        documented = {kind: frozenset(options) for kind, options in rows(document, heading).items()}
        assert documented == {kind: OPTIONS.get(kind, frozenset()) for kind in kinds}
    assert rows(document, "Commands").keys() - {"-c"} == PROGRAMS.keys()


def test_what_was_seen_of_the_hosts_is_of_the_versions_that_are_run() -> None:
    text = (DOCS / "clients.md").read_text()
    seen = text.split("<!-- hosts:begin -->")[1].split("<!-- hosts:end -->")[0]
    missing = [host.title() for host in HOSTS if seen.count(f"\n| {host.title()} |") < 2]
    assert missing == [], "`make test-hosts` writes it"
    assert "FAILS" not in seen


def test_the_matrix_says_of_every_ready_made_file_whether_it_was_run() -> None:
    text = (DOCS / "clients.md").read_text()
    part = text.split("<!-- files:begin -->")[1].split("<!-- files:end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][1:]
    in_tests = {host.typed: host.title() for host in HOSTS}
    titles = [in_tests.get(name, host.title) for name, host in SHIPPED.items()]
    assert [title for title, *_ in rows] == titles, "`make test-hosts` writes it"
    for (title, *verdicts), host in zip(rows, SHIPPED.values(), strict=True):
        expected = "run" if title in in_tests.values() else "schema only"
        assert verdicts == [expected if variant in variants(host) else "-" for variant in VARIANTS]


def test_the_plugin_was_run_with_each_skill_in_the_versions_that_are_run() -> None:
    text = (DOCS / "clients.md").read_text()
    part = text.split("<!-- plugins:begin -->")[1].split("<!-- plugins:end -->")[0]
    head, *rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    assert head == [kind.title() for kind in KINDS], "`make test-hosts` writes it"
    assert [what.split("`")[1] for what, *_ in rows if what.startswith("skill ")] == [
        skill.name for skill in read_skills()
    ]
    for what, *verdicts in rows:
        possible = {"run", "-"} if "question" in what or "check" in what else {"run"}
        assert {"run"} <= set(verdicts) <= possible


def test_the_versions_of_clients_that_are_documented_are_those_that_are_installed() -> None:
    compat = ROOT / "tests" / "compat"
    pinned = {host.package for host in HOSTS}
    for package in compat.glob("clients/*/package.json"):
        pinned |= {f"{name}@{version}" for name, version in json.loads(package.read_text())["dependencies"].items()}
    files = (
        compat / "requirements-lium.txt",
        compat / "clients/python/requirements.txt",
        ROOT / "requirements/run.txt",
    )
    found = "".join(file.read_text() for file in files)
    pinned |= {f"{name}@{version}" for name, version in re.findall(r"^(mcp|lium-io)==(\S+)", found, re.MULTILINE)}
    documented = " ".join((DOCS / name).read_text() for name in ("clients.md", "compatibility.md"))
    missing = [name for name in pinned if not re.search(rf"\b{re.escape(name.rpartition('@')[2])}\b", documented)]
    assert [name for name in missing if not name.startswith("node")] == []
