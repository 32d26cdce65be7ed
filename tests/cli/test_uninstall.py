"""Taking the server out of a host again: what came with it goes, what was there before stays, byte for byte."""

import json
import re
import stat
from codecs import BOM_UTF8
from pathlib import Path

import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.hosts.host_facts import Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.hosts.installed_entries import config_file
from tests.cli.conftest import Lium

OF_JSON = [host for host in HOSTS.values() if host.file_format == "json"]
every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
NOTHING: dict[str, str | None] = {"nothing": None, "an empty file": ""}
# Each as people and programs leave them; what the format cannot have is left out below.
BEFORE: dict[str, str | None] = {
    **NOTHING,
    "a blank line": "\n",
    "empty settings": "{}",
    "others, and no servers": '{\n  "theirs": 1\n}',
    "an empty list of servers": '{"SERVERS": {}}\n',
    "other servers": '{\n\t"SERVERS": {\n\t\t"gh": {"command": "gh"}\n\t},\n\t"inputs": []\n}\n',
    "a mark and lines of Windows": '\ufeff{\r\n    "theirs": "\u00e9"\r\n}\r\n',
}
BEFORE_TOML: dict[str, str | None] = {
    **NOTHING,
    "others, and no servers": 'model = "x" # mine\n',
    "no end of the line": "model = 'x'",
    "other servers": '# mine\n[SERVERS.gh]\ncommand = "gh"\n\n[tui]\nx=1\n',
    "lines of Windows": "# mine\r\nmodel = 'x'\r\n\r\n[tui]\r\nx = 1\r\n",
}
BEFORE_YAML: dict[str, str | None] = {
    **NOTHING,
    "others, and no servers": "# mine\nGOOSE_MODEL: 'x'   # this one\n",
    "other servers": "SERVERS:\n    gh:   # theirs\n        cmd: gh\n        args:\n        - mcp\n",
    "lines of Windows": "# mine\r\nGOOSE_MODEL: x\r\n",
    "a mark": "\ufeffGOOSE_MODEL: x\n",
}
OF_FORMAT = {"json": BEFORE, "toml": BEFORE_TOML, "yaml": BEFORE_YAML}
CASES = [
    (host, cause)
    for host in HOSTS.values()
    for cause in {"nothing": None, "an empty file": "", **OF_FORMAT[host.file_format]}
    if not (host.is_list and cause not in ("nothing", "an empty file"))
]


def file_of(host: Host) -> Path:
    path = config_file(host, Machine.this(), "user")
    assert path is not None
    return path


def put(host: Host, text: str | None) -> Path:
    path = file_of(host)
    path.parent.mkdir(parents=True, exist_ok=True)
    if text is not None:
        path.write_bytes(text.replace("SERVERS", host.servers).encode())
    return path


@pytest.mark.parametrize(("host", "cause"), CASES, ids=[f"{host.name}, {cause}" for host, cause in CASES])
def test_the_file_is_again_what_it_was(lium: Lium, host: Host, cause: str) -> None:
    path = put(host, OF_FORMAT[host.file_format][cause])
    before = path.read_bytes() if path.exists() else None
    assert lium("install", host.name, "--yes", "--max-pods", "2")[0] == ExitStatus.OK
    written = path.read_bytes()
    assert b"LIUM_MCP_MAX_PODS" in written
    assert (before or b"").startswith(BOM_UTF8) == written.startswith(BOM_UTF8)
    ends = written.count(b"\r\n")
    assert ends == (written.count(b"\n") if b"\r\n" in (before or b"") else 0), "all lines end alike"
    status, out, err = lium("uninstall", host.name, "--yes")
    assert (status, err) == (ExitStatus.OK, "")
    assert (path.read_bytes() if path.exists() else None) == before
    assert f"{path} is " in out
    assert lium("uninstall", host.name, "--yes")[:2] == (
        ExitStatus.OK,
        f"{path} has no entry of ours: nothing to change.\n",
    )


@pytest.mark.parametrize("host", OF_JSON, ids=[host.name for host in OF_JSON])
def test_what_a_person_did_meanwhile_stays(lium: Lium, host: Host) -> None:
    path = put(host, '{"theirs": 1}')
    lium("install", host.name, "--yes")
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"since": 2}))
    assert lium("uninstall", host.name, "--yes")[0] == ExitStatus.OK
    assert json.loads(path.read_text()) == {"theirs": 1, "since": 2}


@every_host
def test_after_several_installs_a_file_that_was_not_there_is_gone(lium: Lium, host: Host) -> None:
    path = file_of(host)
    for count in range(8):
        lium("install", host.name, "--yes", "--max-pods", str(count + 1))
    lium("uninstall", host.name, "--yes")
    lium("install", host.name, "--yes")
    lium("uninstall", host.name, "--yes")
    assert not path.exists()


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [
        ("", "", None),
        ('model = "x"\n', "", 'model = "x"\n'),
        ('model = "x"\n', "# a word of mine\n", '# a word of mine\nmodel = "x"\n'),
        ("", "# a word of mine\n", "# a word of mine\n"),
        ("mcp_optional_startup_grace_ms = 5000\n", "", "mcp_optional_startup_grace_ms = 5000\n"),
        ("mcp_optional_startup_grace_ms = 7\n", "", "mcp_optional_startup_grace_ms = 7\n"),
    ],
    ids=["no file", "others", "others, and a comment since", "a comment since", "as we would", "another patience"],
)
def test_the_patience_that_codex_was_given_goes_with_the_entry(
    lium: Lium, before: str, meanwhile: str, after: str | None
) -> None:
    path = put(HOSTS["codex"], before or None)
    lium("install", "codex", "--yes")
    assert "mcp_optional_startup_grace_ms" in path.read_text()
    path.write_text(meanwhile + path.read_text())
    assert lium("uninstall", "codex", "--yes")[0] == ExitStatus.OK
    # A blank line that an install has put in between may stay behind a comment.
    assert (re.sub(r"\n+", "\n", path.read_text()) if path.exists() else None) == after


def test_a_patience_that_a_person_has_changed_stays(lium: Lium) -> None:
    path = file_of(HOSTS["codex"])
    lium("install", "codex", "--yes")
    path.write_text(path.read_text().replace("5000", "9000"))
    lium("uninstall", "codex", "--yes")
    assert path.read_text().strip() == "mcp_optional_startup_grace_ms = 9000"


def test_what_another_server_asks_for_stays(lium: Lium) -> None:
    path = file_of(HOSTS["vscode"])
    lium("install", "vscode", "--yes")
    said = json.loads(path.read_text())
    said["servers"]["other"] = {"command": "x", "env": {"KEY": "${input:lium_api_key}"}}
    path.write_text(json.dumps(said))
    lium("uninstall", "vscode", "--yes")
    left = json.loads(path.read_text())
    assert (list(left["servers"]), [item["id"] for item in left["inputs"]]) == (["other"], ["lium_api_key"])


def test_what_the_own_command_of_a_host_leaves_behind_goes_too(lium: Lium, home: Path) -> None:
    path = file_of(HOSTS["claude-code"])
    tool = home / "bin" / "claude"
    tool.parent.mkdir()
    adds = f'printf \'{{"mcpServers": {{"%s": %s}}}}\' "$3" "$4" > {path}'
    tool.write_text(f'#!/bin/sh\n[ "$2" = add-json ] && {adds} || echo \'{{"mcpServers": {{}}}}\' > {path}\n')
    tool.chmod(0o755)
    lium("install", "claude-code", "--yes")
    lium("uninstall", "claude-code", "--yes")
    assert not path.exists()
    path.write_text('{"mcpServers": {}, "theirs": 1}')
    lium("install", "claude-code", "--yes")
    lium("uninstall", "claude-code", "--yes")
    assert json.loads(path.read_text()) == {"mcpServers": {}}


def test_an_empty_list_that_was_never_ours_stays(lium: Lium) -> None:
    path = put(HOSTS["cursor"], '{"mcpServers": {}}')
    assert "nothing to change" in lium("uninstall", "cursor", "--yes")[1]
    assert path.read_text() == '{"mcpServers": {}}'


def test_the_newest_copies_are_kept_for_their_owner_alone_and_the_one_from_before(lium: Lium) -> None:
    path = put(HOSTS["cursor"], '{"theirs": 1}\n')
    path.chmod(0o664)
    theirs = path.with_name("mcp.json.of-mine.bak")
    theirs.write_text("not ours")
    told = [lium("install", "cursor", "--yes", "--max-pods", str(count + 1))[1] for count in range(9)]
    copies = sorted(path.parent.glob("mcp.json.2*.bak"))
    assert len(copies) == 6
    assert {stat.S_IMODE(copy.stat().st_mode) for copy in copies} == {0o600}
    assert str(copies[-1]) in told[-1]
    assert copies[0].read_text() == '{"theirs": 1}\n'
    limits = [re.findall(r'MAX_PODS": "(\d)"', copy.read_text()) for copy in copies[1:]]
    assert limits == [["4"], ["5"], ["6"], ["7"], ["8"]]
    lium("uninstall", "cursor", "--yes")
    assert path.read_text() == '{"theirs": 1}\n'
    assert theirs.read_text() == "not ours"
