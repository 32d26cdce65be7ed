"""Every example of the documents is run: commands in a shell of their own, entries of hosts as the host starts them."""

import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client, StdioServerParameters
from ruamel.yaml import YAML

from lium_mcp.guard.limits import read_policy_file
from lium_mcp.hosts.documents import Document
from lium_mcp.hosts.host_entries import read_entry
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.sandbox import API_KEY
from tests.compat.installs import OFFICIAL, installed
from tests.compat.simulated import simulating
from tests.docs.documents import DOCS, DOCUMENTS, ROOT, Block, blocks, console_lines, examples
from tests.docs.host_pages import SCRIPT
from tests.docs.terminal import Terminal
from tests.harness import write_ssh_key

_LANGUAGES: Final = {"console", "json", "toml", "yaml", "python", "text", "nginx", "{toctree}"}
_MOST_REASONS: Final = 4
# Of the machine, or other people's.
_OTHER_PROGRAMS: Final = {"curl", "lium", "openssl", "ssh-keygen"}
_ALL: Final = [block for document in DOCUMENTS for block in blocks(document)]


def _words(document: Path) -> set[str]:
    return {word for block in blocks(document, "console") for line in console_lines(block) for word in line.split()}


def _with_commands() -> Iterator[Any]:
    for document in DOCUMENTS:
        if words := _words(document):
            name = document.relative_to(ROOT).as_posix()
            is_external = not words.isdisjoint(_OTHER_PROGRAMS)
            yield pytest.param(document, id=name, marks=[pytest.mark.external] if is_external else [])


@pytest.mark.timeout(600)  # some documents have dozens of commands, each of which starts a program
@pytest.mark.parametrize("document", list(_with_commands()))
def test_every_command_does_what_it_is_for(document: Path, tmp_path: Path) -> None:
    for name, text in examples(document).items():
        (tmp_path / name).write_text(text)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "lium-mcp").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lium_mcp "$@"\n')
    (programs / "lium-mcp").chmod(0o755)
    path = [programs, *([installed(OFFICIAL) / "bin"] if "lium" in _words(document) else []), os.environ["PATH"]]
    home = tmp_path / "newcomer"
    home.mkdir()
    if "ssh-keygen" not in _words(document):
        write_ssh_key(home)
    variables = {
        "PATH": os.pathsep.join(map(str, path)),
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "LIUM_API_KEY": API_KEY,
    }
    with simulating() as lium:
        lium.begin()
        lium.run_at(60)
        with Terminal(tmp_path, variables | {"LIUM_BASE_URL": lium.base_url}) as terminal:
            for block in blocks(document, "console"):
                for line in console_lines(block) if block.not_run_because is None else ():
                    terminal.type(line)


def test_every_example_is_of_a_kind_that_is_run() -> None:
    others = [
        str(block) for block in _ALL if block.language not in _LANGUAGES and block.document.name != "ARCHITECTURE.md"
    ]
    assert others == []
    assert [str(block) for block in blocks(DOCS / "index.md") if block.language != "{toctree}"] == []


def test_what_is_not_run_says_why_and_is_little() -> None:
    reasons = {block.not_run_because for block in _ALL if block.not_run_because is not None}
    assert len(reasons) <= _MOST_REASONS, reasons
    assert all(len(reason.split()) > 3 for reason in reasons)


@pytest.mark.parametrize("block", [block for block in _ALL if block.language in ("json", "toml", "yaml")], ids=str)
def test_every_file_that_is_shown_can_be_read(block: Block) -> None:
    readers: dict[str, Callable[[str], Any]] = {
        "json": json.loads,
        "toml": tomllib.loads,
        "yaml": YAML(typ="safe").load,
    }
    assert readers[block.language](block.text)


@pytest.mark.parametrize("block", [block for block in _ALL if block.labelled("host")], ids=str)
async def test_every_entry_of_a_host_starts_the_server(block: Block, tmp_path: Path) -> None:
    host = HOSTS[block.labelled("host") or ""]
    entry = read_entry(host, Document(block.text.encode(), host.file_format).value(host.entry_path()))
    assert entry is not None
    assert entry.command[0] == SCRIPT
    given = entry.environment(host, {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]})
    started = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lium_mcp", *entry.command[1:]],
        env=given | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    async with Client(started) as client:
        assert len((await client.list_tools()).tools) > 30


def test_the_policy_file_that_is_shown_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(examples(DOCS / "limits.md")["policy.toml"])
    limits, mode = read_policy_file(file)
    assert limits.any
    assert mode is None
