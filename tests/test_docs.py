"""What the documents say is what the code does: tables are generated, and checked here."""

import json
import os
import re
import runpy
import shlex
from pathlib import Path
from typing import get_args

import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.parser import make_parser
from lium_mcp.guard.limits import read_policy_file
from lium_mcp.hosts.host_table import HOSTS as INSTALLED
from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.sandbox.faults import OPTIONS, WIRE_KINDS, WorldKind
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS
from lium_mcp.tools.catalog import TOOLSETS
from manifests.generate import with_generated
from manifests.host_files import SHIPPED, VARIANTS, variants
from tests.hosts.hosts import HOSTS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    ROOT / "ARCHITECTURE.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "manifests" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def blocks(document: Path, language: str) -> list[str]:
    """The examples in one language that stand by themselves; what is part of a list only quotes."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def console_lines(document: Path) -> list[str]:
    return [line[2:] for block in blocks(document, "console") for line in block.splitlines() if line.startswith("$ ")]


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        if isinstance(default, frozenset | tuple):
            default = ",".join(sorted(default))
        shown = f"`{default}`" if default not in (None, "") else ""
        rows.append(f"| `{SETTINGS[name].variable}` | {shown} | {field.description} |")
    return "\n".join(rows)


def tools_table() -> str:
    rows = ["| toolset | tools |", "|---|---|"]
    for toolset in TOOLSETS:
        names = ", ".join(f"`{spec.name}`" for spec in toolset.specs)
        rows.append(f"| `{toolset.name}` | {names} |")
    return "\n".join(rows)


def hosts_line() -> str:
    *most, last = [f"`{name}`" for name in INSTALLED]
    return f"{', '.join(most)} and {last}."


def statuses_table() -> str:
    return "\n".join(["| status | meaning |", "|---|---|", *(f"| {one:d} | {one.meaning} |" for one in ExitStatus)])


def test_the_readme_lists_the_tools_settings_and_statuses_that_exist() -> None:
    expected = README.read_text()
    for name, table in (
        ("tools", tools_table()),
        ("settings", settings_table()),
        ("statuses", statuses_table()),
        ("hosts", hosts_line()),
    ):
        expected = with_generated(expected, name, table)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        README.write_text(expected)
    assert README.read_text() == expected, "`make snapshots` writes the tables of the README"


def test_the_policy_file_of_the_readme_can_be_used(tmp_path: Path) -> None:
    found = re.search(r"<!-- example:policy.toml -->\n```toml\n(.*?)```", README.read_text(), re.DOTALL)
    assert found
    file = tmp_path / "policy.toml"
    file.write_text(found[1])
    limits, mode = read_policy_file(file)
    assert limits.any
    assert mode is None


def test_the_readme_starts_what_a_clone_has() -> None:
    [entry] = [json.loads(block) for block in blocks(README, "json") if block.startswith("{")]
    server = entry["mcpServers"]["lium"]
    assert server["command"].endswith("/.venv/bin/lium-mcp")
    assert server["args"] == [], "the package is not on PyPI yet, and the command takes no name of one"


@every_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text())) <= targets


@every_document
def test_every_command_line_that_is_shown_can_be_read(document: Path) -> None:
    for line in console_lines(document):
        before, program, options = line.partition("lium-mcp")
        if program and not before.startswith(("make ", "uvx ")):
            make_parser().parse_args(shlex.split(options.removeprefix('"'), comments=True))


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
        example.write_text(block)
        runpy.run_path(str(example), run_name="__main__")
        said = re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE)
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
    document = ROOT / "docs" / "sandbox.md"
    for heading, kinds in (("Wire fault", WIRE_KINDS), ("World fault", get_args(WorldKind))):
        documented = {kind: frozenset(options) for kind, options in rows(document, heading).items()}
        assert documented == {kind: OPTIONS.get(kind, frozenset()) for kind in kinds}
    assert rows(document, "Commands").keys() - {"-c"} == PROGRAMS.keys()


def test_what_was_seen_of_the_hosts_is_of_the_versions_that_are_run() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    seen = text.split("<!-- hosts:begin -->")[1].split("<!-- hosts:end -->")[0]
    missing = [host.title() for host in HOSTS if seen.count(f"\n| {host.title()} |") < 2]
    assert missing == [], "`make test-hosts` writes it"
    assert "FAILS" not in seen


def test_the_matrix_says_of_every_ready_made_file_whether_it_was_run() -> None:
    text = (ROOT / "docs" / "clients.md").read_text()
    part = text.split("<!-- files:begin -->")[1].split("<!-- files:end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][1:]
    in_tests = {host.typed: host.title() for host in HOSTS}
    titles = [in_tests.get(name, host.title) for name, host in SHIPPED.items()]
    assert [title for title, *_ in rows] == titles, "`make test-hosts` writes it"
    for (title, *verdicts), host in zip(rows, SHIPPED.values(), strict=True):
        expected = "run" if title in in_tests.values() else "schema only"
        assert verdicts == [expected if variant in variants(host) else "-" for variant in VARIANTS]


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
    documented = " ".join((ROOT / "docs" / name).read_text() for name in ("clients.md", "compatibility.md"))
    missing = [name for name in pinned if not re.search(rf"\b{re.escape(name.rpartition('@')[2])}\b", documented)]
    assert [name for name in missing if not name.startswith("node")] == []
