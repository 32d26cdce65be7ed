"""The Dockerfile, what it copies and what its document says of it: one tells the same as the other."""

import json
import re
import shlex

import pytest

from lium_mcp.cli.parser import make_parser
from tests.compat.installs import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
DOCUMENT = (ROOT / "docs" / "container.md").read_text()


def instructions(name: str, text: str = DOCKERFILE) -> list[str]:
    joined = text.replace("\\\n", " ")
    return re.findall(rf"^{name} +(.*)$", joined, re.MULTILINE)


def pinned(path: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / path).read_text(), re.MULTILINE))


def runs() -> list[list[str]]:
    """The arguments of each `docker run` of the document that a person or a host carries out whole."""
    typed = [shlex.split(line)[1:] for line in re.findall(r"^\$ (docker run .*)$", DOCUMENT, re.MULTILINE)]
    [entry] = re.findall(r"^```json\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [*typed, json.loads(entry)["mcpServers"]["lium"]["args"]]


def test_every_base_is_one_image_by_its_digest() -> None:
    assert len(instructions("FROM")) == 2
    assert all(base.startswith("${PYTHON_IMAGE}") for base in instructions("FROM"))
    [base] = [value for value in instructions("ARG") if value.startswith("PYTHON_IMAGE")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base)


def test_it_runs_as_a_user_that_is_known_by_number_not_to_be_root() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert any("useradd --uid 10001 " in run for run in instructions("RUN"))


def test_it_names_what_the_registry_looks_for_and_holds_no_secret() -> None:
    [label] = instructions("LABEL")
    assert 'io.modelcontextprotocol.server.name="${SERVER_NAME}"' in label
    assert not re.search(r"KEY|TOKEN|PASSWORD|SECRET", DOCKERFILE)
    workflow = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    given = {value.partition("=")[0] for value in instructions("ARG")} - {"PYTHON_IMAGE"}
    for block in re.findall(r"build-args: \|\n((?: +[A-Z_]+=.*\n)+)", workflow):
        assert set(re.findall(r"^ +([A-Z_]+)=", block, re.MULTILINE)) == given


def test_what_it_copies_reaches_a_build_and_nothing_else_does() -> None:
    ignored, *let_through = (line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#")
    assert ignored == "*"
    copied = {
        source.split("/")[0]
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert {line.removeprefix("!") for line in let_through if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("path", ["image.txt", "build.txt"])
def test_it_installs_the_versions_that_are_tested(path: str) -> None:
    tested = pinned("run.txt") | pinned("dev.txt")
    others = {name: version for name, version in pinned(path).items() if tested.get(name) != version}
    # Windows alone has need of this one.
    assert others.keys() <= {"tzdata"}
    assert pinned(path)


def test_the_image_lacks_nothing_that_the_server_needs() -> None:
    assert pinned("run.txt").keys() <= pinned("image.txt").keys()
    assert "psycopg" in pinned("image.txt")


def test_every_run_that_is_shown_starts_the_server_with_what_it_keeps_in_the_volume() -> None:
    [home] = json.loads(instructions("VOLUME")[0])
    assert len(runs()) == 3
    for run in runs():
        options, arguments = run[: run.index("lium-mcp")], run[run.index("lium-mcp") + 1 :]
        make_parser().parse_args(arguments)
        assert options[:2] == ["run", "--rm"]
        if "demo" not in arguments:
            assert f"lium-mcp-home:{home}" in options
            assert "--read-only" in options


def test_a_host_speaks_to_it_over_standard_input_and_brings_the_key() -> None:
    entry = runs()[-1]
    assert "--interactive" in entry
    assert not {"--tty", "--detach"} & set(entry)
    assert entry[entry.index("LIUM_API_KEY") - 1] == "--env"


def test_the_folder_of_files_is_the_one_that_it_runs_in() -> None:
    assert instructions("WORKDIR")[-1] == "/work"
    assert "$PWD:/work" in DOCUMENT


def test_the_document_has_no_placeholder_of_an_account() -> None:
    assert "OWNER" not in DOCUMENT
