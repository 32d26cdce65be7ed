"""Telling hosts of the server, and taking it out again: shown, asked, kept, and nothing else touched."""

import asyncio
import json
import os
import re
import stat
import sys
import venv
from pathlib import Path

import pytest

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.hosts.host_table import HOSTS
from tests.cli.at_terminal import at_a_terminal
from tests.cli.conftest import Lium
from tests.processes import environment

OTHERS = (
    '{\n  "mcpServers": {\n    "gh": {"command": "gh", "args": ["mcp", "x"], "env": {"GH_TOKEN": "abcd1234"}}\n  }\n}\n'
)


def put(home: Path, path: str, text: str) -> Path:
    file = home / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def program(home: Path, name: str, script: str) -> None:
    put(home, f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)


def backups(file: Path) -> list[str]:
    return [path.read_text() for path in sorted(file.parent.glob(f"{file.name}.*.bak"))]


@pytest.mark.parametrize(
    ("words", "ends_with"),
    [(["--dry-run", "--yes"], ExitStatus.DIFFERS), ([], ExitStatus.UNUSABLE)],
    ids=["dry run", "no terminal"],
)
def test_without_a_yes_the_change_is_shown_and_not_made(
    lium: Lium, home: Path, words: list[str], ends_with: ExitStatus
) -> None:
    file = put(home, ".cursor/mcp.json", OTHERS)
    status, out, err = lium("install", "cursor", "--max-pods", "2", *words)
    assert status == ends_with
    assert '+        "LIUM_MCP_MAX_PODS": "2"' in out
    assert "Nothing was written" in err
    assert file.read_text() == OTHERS
    assert backups(file) == []


def test_a_diff_shows_no_secret_of_another_server(lium: Lium, home: Path) -> None:
    servers = [
        '"a": {"env": {"GH_TOKEN": "secret-1"}}',
        '"b": {"args": ["--api-key", "secret-2"], "headers": {"Authorization": "Bearer secret-3"}}',
        '"c": {"api_keys": ["secret-5", "secret-6"]}',
    ]
    for server in servers:
        put(home, ".cursor/mcp.json", f'{{\n  "mcpServers": {{\n    {server}\n  }}\n}}')
        _, out, _ = lium("install", "cursor", "--dry-run")
        assert "(not shown)" in out
        assert "secret-" not in out
        assert '"LIUM_API_KEY": "${env:LIUM_API_KEY}"' in out
    assert '"LIUM_API_KEY": "${LIUM_API_KEY:-}"' in lium("install", "claude-code", "--dry-run")[1]
    put(home, ".codex/config.toml", 'token = "secret-4"\n')
    _, out, _ = lium("install", "codex", "--dry-run")
    assert "secret-" not in out
    assert 'env_vars = ["LIUM_API_KEY", "LIUM_BASE_URL", ' in out


def test_a_diff_shows_what_is_no_secret(lium: Lium, home: Path) -> None:
    assert '"password": true' in lium("install", "vscode", "--dry-run")[1]
    for server in ('"a": {"auth": false}', '"a": {"key": null, "tokens": []}', '"a": {"keys": ["${A_KEY}"]}'):
        put(home, ".cursor/mcp.json", f'{{\n  "mcpServers": {{\n    {server}\n  }}\n}}')
        _, out, _ = lium("install", "cursor", "--dry-run")
        assert server in out
        assert "(not shown)" not in out


def test_all_else_stays_and_the_file_as_it_was_is_kept(lium: Lium, home: Path) -> None:
    file = put(home, ".cursor/mcp.json", OTHERS)
    file.chmod(0o640)
    status, out, err = lium("install", "cursor", "--yes", "--sandbox")
    assert (status, err) == (ExitStatus.OK, "")
    assert file.read_text().startswith(OTHERS.rstrip("}\n ").removesuffix("}"))
    [kept] = backups(file)
    assert kept == OTHERS
    assert str(file) in out
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    # It may hold keys of other servers.
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.glob("mcp.json.*.bak")} == {0o600}
    again = lium("install", "cursor", "--yes", "--sandbox")
    assert (again[0], "nothing to change" in again[1], len(backups(file))) == (ExitStatus.OK, True, 1)
    assert lium("uninstall", "cursor", "--yes")[0] == ExitStatus.OK
    assert file.read_text() == OTHERS
    assert lium("uninstall", "cursor", "--yes")[1].strip().endswith("nothing to change.")


def test_the_command_that_is_written_is_a_script_by_its_path(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes")
    entry = json.loads((home / ".cursor/mcp.json").read_text())["mcpServers"]["lium"]
    assert Path(entry["command"]).is_absolute()
    assert os.access(entry["command"], os.X_OK)
    assert (Path(entry["command"]).name, entry["args"]) == ("lium-mcp", [])
    assert entry["env"] == {"LIUM_API_KEY": "${env:LIUM_API_KEY}"}


def test_a_host_that_is_not_here_is_said(lium: Lium, home: Path) -> None:
    assert "Cursor was not found" in lium("install", "cursor", "--dry-run")[2]
    (home / ".cursor").mkdir()
    assert "not found" not in lium("install", "cursor", "--dry-run")[2]


@pytest.mark.parametrize(
    ("host", "path", "text", "said"),
    [
        ("cursor", ".cursor/mcp.json", '{"mcpServers": {', "it is no JSON (line 1"),
        ("claude-desktop", ".config/Claude/claude_desktop_config.json", "{} // mine", "does not read"),
        ("codex", ".codex/config.toml", "model = \n", "it is no TOML (line 1"),
        ("goose", ".config/goose/config.yaml", "extensions: [\n", "it is no YAML (line"),
        ("cursor", ".cursor/mcp.json", "[]", "it holds no settings"),
        ("cursor", ".cursor/mcp.json", '{"mcpServers": []}', "not built as expected"),
    ],
)
def test_a_broken_file_is_named_and_left_alone(
    lium: Lium, home: Path, host: str, path: str, text: str, said: str
) -> None:
    file = put(home, path, text)
    for words in (["install", host, "--yes"], ["install", host, "--dry-run"]):
        status, out, err = lium(*words)
        assert (status, out) == (ExitStatus.UNUSABLE, "")
        assert f"{file}: " in err
        assert said in err
    assert file.read_text() == text
    assert backups(file) == []


def test_what_has_comments_is_shown_for_a_person_and_not_written(lium: Lium, home: Path) -> None:
    text = '// mine\n{\n  "proxy": "http://a//b,}", // and this\n  "context_servers": {},\n}\n'
    file = put(home, ".config/zed/settings.json", text)
    status, out, err = lium("install", "zed", "--yes", "--sandbox")
    assert status == ExitStatus.FAILED
    assert "nothing was written" in err
    shown = json.loads(out.partition("\n")[2])
    assert shown["context_servers"]["lium"]["args"] == ["--sandbox"]
    assert file.read_text() == text
    file.write_text(text.replace("{}", json.dumps(shown["context_servers"])))
    assert "nothing to change" in lium("install", "zed", "--yes", "--sandbox")[1]
    status, out, _ = lium("uninstall", "zed", "--yes")
    assert (status, "context_servers.lium" in out) == (ExitStatus.FAILED, True)


def test_a_link_is_written_through(lium: Lium, home: Path) -> None:
    target = put(home, "dotfiles/cursor.json", OTHERS)
    link = home / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(target)
    lium("install", "cursor", "--yes")
    assert link.is_symlink()
    assert "lium-mcp" in target.read_text()
    assert backups(target) == [OTHERS]


def test_a_link_that_leads_in_a_circle_is_said(lium: Lium, home: Path) -> None:
    link = home / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(link)
    status, _, err = lium("install", "cursor", "--yes")
    assert (status, str(link) in err) == (ExitStatus.UNUSABLE, True)


def test_what_a_person_added_stays_with_the_next_install(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes", "--max-pods", "2")
    file = home / ".cursor" / "mcp.json"
    config = json.loads(file.read_text())
    entry = config["mcpServers"]["lium"]
    entry |= {"disabled": True, "command": "/old/bin/lium-mcp"}
    entry["env"] |= {"HTTPS_PROXY": "http://proxy:1", "LIUM_API_KEY": "sk_own"}
    file.write_text(json.dumps(config))
    lium("install", "cursor", "--yes", "--max-pods", "3")
    now = json.loads(file.read_text())["mcpServers"]["lium"]
    assert now["disabled"]
    assert now["command"] != "/old/bin/lium-mcp"
    assert now["env"] == {"LIUM_MCP_MAX_PODS": "3", "HTTPS_PROXY": "http://proxy:1", "LIUM_API_KEY": "sk_own"}


def test_another_name_of_the_same_program_is_no_change(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes", "--sandbox")
    file = home / ".cursor" / "mcp.json"
    config = json.loads(file.read_text())
    link = home / "lium-mcp"
    link.symlink_to(config["mcpServers"]["lium"]["command"])
    file.write_text(file.read_text().replace(config["mcpServers"]["lium"]["command"], str(link)))
    assert "nothing to change" in lium("install", "cursor", "--yes", "--sandbox")[1]


def test_another_server_of_our_name_is_not_taken_away(lium: Lium, home: Path) -> None:
    text = '{"mcpServers": {"lium": {"command": "lium", "args": ["mcp"]}}}'
    file = put(home, ".cursor/mcp.json", text)
    status, _, err = lium("uninstall", "cursor", "--yes")
    assert (status, file.read_text()) == (ExitStatus.UNUSABLE, text)
    assert "does not start lium-mcp" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["install", "curser"], "curser: there is no such host; cursor is one"),
        (["install"], "name the host: claude-code, "),
        (["uninstall"], "lium-mcp install --list shows which have our entry"),
        (["install", "cursor", "--max-pods", "two"], "--max-pods: "),
        (["install", "cursor", "--max-prize", "2"], "--max-prize: there is no such option"),
        (["install", "cursor", "--http", "http://gpu.example.com/mcp"], "--http: "),
        (["install", "cursor", "--http", "https://me:pw@gpu.example.com/mcp"], "--http: "),
        (["install", "cursor", "--http", "https://x.example.com/mcp", "--max-pods", "1"], "--max-pods: this is for"),
        (["install", "claude-desktop", "--http", "https://x.example.com/mcp"], "takes no address"),
        (["install", "windsurf", "--scope", "project"], "no file for the servers of a project"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(lium: Lium, home: Path, words: list[str], said: str) -> None:
    status, out, err = lium(*words)
    assert (status, out, err.count("\n")) == (ExitStatus.UNUSABLE, "", 1)
    assert said in err
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_an_address_is_told_with_a_reference_to_the_key(lium: Lium, home: Path) -> None:
    lium("install", "codex", "--yes", "--http", "https://gpu.example.com/mcp", "--scope", "project")
    text = (home / "project" / ".codex" / "config.toml").read_text()
    assert '[mcp_servers.lium.env_http_headers]\nX-API-Key = "LIUM_API_KEY"' in text


def test_a_host_without_references_is_said_to_want_the_key_itself(lium: Lium, home: Path) -> None:
    _, out, _ = lium("install", "zed", "--yes", "--http", "https://gpu.example.com/mcp")
    assert "put your key into the entry" in out
    assert "<your Lium API key>" in (home / ".config" / "zed" / "settings.json").read_text()


def test_the_list_says_of_each_host_whether_it_is_here_and_has_our_entry(lium: Lium, home: Path) -> None:
    lium("install", "cursor", "--yes", "--scope", "project")
    lium("install", "codex", "--yes")
    put(home, ".lmstudio/mcp.json", "{")
    status, out, _ = lium("install", "--list")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:]}
    assert status == ExitStatus.OK
    assert rows.keys() == HOSTS.keys()
    assert rows["codex"] == ["yes", "lium", str(home / ".codex" / "config.toml")]
    assert rows["cursor"] == ["no", "lium", str(home / "project" / ".cursor" / "mcp.json")]
    assert rows["lm-studio"][:4] == ["yes", "cannot", "be", "read"]
    assert rows["zed"] == ["no", "no", str(home / ".config" / "zed" / "settings.json")]


def test_a_host_that_can_add_a_server_itself_is_asked_to(lium: Lium, home: Path) -> None:
    file = home / ".claude.json"
    adds = f'printf \'{{"mcpServers": {{"%s": %s}}, "theirs": 1}}\' "$3" "$4" > {file}'
    program(home, "claude", f'echo "$@" >> {home}/asked; [ "$2" = add-json ] && {adds} || /bin/rm {file}')
    status, out, _ = lium("install", "claude-code", "--yes", "--sandbox")
    assert (status, json.loads(file.read_text())["theirs"]) == (ExitStatus.OK, 1)
    assert "Claude Code is asked to make it" in out
    lium("uninstall", "claude-code", "--yes")
    added, removed = (home / "asked").read_text().splitlines()
    assert added.startswith("mcp add-json lium {")
    assert added.endswith(" -s user")
    assert removed == "mcp remove lium -s user"
    [kept] = backups(file)
    assert '"theirs": 1' in kept


@pytest.mark.parametrize(
    ("host", "name", "asked"),
    [
        (
            "gemini-cli",
            "gemini",
            r"mcp add -s user --timeout 660000 -e LIUM_MCP_MAX_PODS=2 lium /\S+/lium-mcp -- --sandbox",
        ),
        ("vscode", "code", r'--add-mcp {"name": "lium", "type": "stdio", "command": .*}'),
        ("claude-code", "claude", r'mcp add-json lium {"type": "stdio", .*} -s user'),
    ],
)
def test_what_a_host_is_asked(lium: Lium, home: Path, host: str, name: str, asked: str) -> None:
    program(home, name, f'echo "$@" >> {home}/asked')
    assert lium("install", host, "--yes", "--sandbox", "--max-pods", "2")[0] == ExitStatus.OK
    [words] = (home / "asked").read_text().splitlines()
    assert re.fullmatch(asked, words)
    # An entry that is there is changed in the file, and the rest of it stays.
    assert lium("install", host, "--yes", "--sandbox", "--max-pods", "3")[0] == ExitStatus.OK
    assert len((home / "asked").read_text().splitlines()) == 1


@pytest.mark.parametrize("script", ["echo no login; exit 1", "exit 0", 'echo "{}" > "$HOME/.claude.json"'])
def test_what_a_host_does_not_do_itself_is_written(lium: Lium, home: Path, script: str) -> None:
    program(home, "claude", script)
    status, _, err = lium("install", "claude-code", "--yes", "--sandbox")
    entry = json.loads((home / ".claude.json").read_text())["mcpServers"]["lium"]
    assert (status, entry["args"]) == (ExitStatus.OK, ["--sandbox"])
    assert ("no login" in err) == ("no login" in script)


def test_a_key_that_a_host_does_not_pass_on_is_said(lium: Lium, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIUM_API_KEY", raising=False)
    assert "There is no API key yet: lium-mcp login" in lium("install", "claude-desktop", "--yes")[1]
    monkeypatch.setenv("LIUM_API_KEY", "sk_of_the_shell")
    assert "does not pass LIUM_API_KEY on: lium-mcp login" in lium("install", "claude-desktop", "--yes")[1]
    assert "login" not in lium("install", "codex", "--yes")[1]
    put(home, ".lium/config.ini", "[api]\napi_key = sk_saved\n")
    monkeypatch.delenv("LIUM_API_KEY")
    assert "login" not in lium("install", "claude-desktop", "--yes")[1]


async def test_at_a_terminal_a_no_leaves_the_file(home: Path) -> None:
    file = put(home, ".cursor/mcp.json", OTHERS)
    status, out = await at_a_terminal(home, "\n\n\n\nno\n", "install", "cursor")
    assert (status, file.read_text()) == (ExitStatus.FAILED, OTHERS)
    assert "Nothing was written." in out


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """A Python that has all that the server needs, and no script of it: as `uvx` and a clone have."""
    root = tmp_path / "bare"
    venv.create(root, symlinks=True)
    [packages] = root.glob("lib/python*/site-packages")
    (packages / "all.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    return root / "bin" / "python"


async def run_bare(python: Path, home: Path, *words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(python), "-m", "lium_mcp", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(HOME=str(home), PATH=str(home / "bin")),
        cwd=home,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_from_where_there_is_no_script_one_is_installed_first(home: Path, bare_python: Path) -> None:
    status, out = await run_bare(bare_python, home, "install", "cursor", "--yes")
    assert (status, "uv tool install lium-mcp" in out) == (ExitStatus.UNUSABLE, True)
    tools = home / "tools"
    says_where = f'[ "$2" = dir ] && echo {tools} && exit'
    installs = f'echo "$@" > {home}/asked; /bin/mkdir -p {tools}; : > {tools}/lium-mcp'
    program(home, "uv", f"{says_where}\n{installs}")
    status, out = await run_bare(bare_python, home, "install", "cursor")
    assert status == ExitStatus.UNUSABLE
    assert "first run: " in out
    assert not tools.exists()
    status, _ = await run_bare(bare_python, home, "install", "cursor", "--yes")
    assert status == ExitStatus.OK
    assert (home / "asked").read_text().startswith("tool install ")
    entry = json.loads((home / ".cursor" / "mcp.json").read_text())["mcpServers"]["lium"]
    assert entry["command"] == str(tools / "lium-mcp")


@pytest.mark.parametrize(
    "command",
    [
        '"uvx", "args": ["lium-mcp", ',
        '"uvx", "args": ["--from", "git+https://x.example.com/lium-mcp", "lium-mcp", "serve", ',
        '"/old/bin/lium-mcp", "args": [',
    ],
)
def test_options_of_an_earlier_entry_stay_for_they_may_be_limits(lium: Lium, home: Path, command: str) -> None:
    options = '"--read-only", "--max-pods", "2", "--budget-usd=50", "--sandbox"]'
    file = put(home, ".cursor/mcp.json", f'{{"mcpServers": {{"lium": {{"command": {command}{options}}}}}}}')
    assert lium("install", "cursor", "--yes", "--max-pods", "3")[0] == ExitStatus.OK
    entry = json.loads(file.read_text())["mcpServers"]["lium"]
    assert entry["args"] == ["--read-only", "--budget-usd=50"], "what is set anew is set once"
    assert entry["env"]["LIUM_MCP_MAX_PODS"] == "3"


@pytest.mark.parametrize("entry", ['{"command": "/usr/bin/other", "args": ["x"]}', '"hello"'])
def test_another_program_that_has_our_name_is_left_alone(lium: Lium, home: Path, entry: str) -> None:
    text = f'{{"mcpServers": {{"lium": {entry}}}}}'
    file = put(home, ".cursor/mcp.json", text)
    status, _, err = lium("install", "cursor", "--yes")
    assert status == ExitStatus.UNUSABLE
    assert "starts something else" in err
    assert file.read_text() == text


@pytest.mark.parametrize("kind", ["a pipe", "a device", "nested", "large"])
def test_what_is_no_file_of_settings_is_named_at_once(lium: Lium, home: Path, kind: str) -> None:
    file = home / ".cursor" / "mcp.json"
    file.parent.mkdir(parents=True)
    match kind:
        case "a pipe":
            os.mkfifo(file)
        case "a device":
            file.symlink_to("/dev/zero")
        case "nested":
            file.write_text('{"d": ' + "[" * 100_000 + "]" * 100_000 + "}")
        case _:
            file.write_bytes(b" " * (2**24 + 1))
    status, _, err = lium("install", "cursor", "--yes")
    assert status == ExitStatus.UNUSABLE
    assert str(file) in err
    assert lium("install", "--list")[0] == ExitStatus.OK


def test_what_only_this_shell_sets_is_said(lium: Lium, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_MAX_PODS", "3")
    monkeypatch.setenv("LIUM_BASE_URL", "http://127.0.0.1:9/api")
    status, out, _ = lium("install", "cursor", "--yes", "--max-hours", "2")
    assert status == ExitStatus.OK
    assert "This shell sets LIUM_BASE_URL, LIUM_MCP_MAX_PODS, and the server that Cursor starts may not" in out


@pytest.mark.parametrize(
    ("url", "is_asked"),
    [("http://127.0.0.1:8000", True), ("http://127.0.0.1:8000/", True), ("http://127.0.0.1:8000/mcp", False)],
)
def test_an_address_that_is_no_whole_one_is_asked_about(lium: Lium, url: str, is_asked: bool) -> None:
    status, out, _ = lium("install", "windsurf", "--yes", "--http", url)
    assert (status, "ends with /mcp: http://127.0.0.1:8000/mcp\n" in out) == (ExitStatus.OK, is_asked)
