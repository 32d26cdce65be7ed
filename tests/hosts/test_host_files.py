"""Each host on each platform, by faked folders: where its file is, what is written there, read back, and taken away."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lium_mcp.hosts.config_changes import Change, plan_install, plan_uninstall
from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN, Wish
from lium_mcp.hosts.host_facts import KEY_VARIABLE, Host, Scope
from lium_mcp.hosts.host_machine import Machine, Platform
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.hosts.installed_entries import ConfigUnusable, config_file, is_here, read_installed
from tests.manifests.validation import host_problems

PLATFORMS: tuple[Platform, ...] = ("linux", "macos", "windows")
COMMAND = ("/opt/lium/bin/lium-mcp", "--sandbox")
STARTED = Wish(command=COMMAND, variables={"LIUM_MCP_MAX_PODS": "2"})
AT = Wish(url="https://gpu.example.com/mcp")
every_host = pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
every_platform = pytest.mark.parametrize("platform", PLATFORMS)

# Where the files are, in the words of the hosts' own documents.
USER_FILES: dict[str, tuple[str, ...]] = {
    "claude-code": (".claude.json",) * 3,
    "claude-desktop": (
        ".config/Claude/claude_desktop_config.json",
        "Library/Application Support/Claude/claude_desktop_config.json",
        "AppData/Roaming/Claude/claude_desktop_config.json",
    ),
    "cursor": (".cursor/mcp.json",) * 3,
    "vscode": (
        ".config/Code/User/mcp.json",
        "Library/Application Support/Code/User/mcp.json",
        "AppData/Roaming/Code/User/mcp.json",
    ),
    "vscode-insiders": (
        ".config/Code - Insiders/User/mcp.json",
        "Library/Application Support/Code - Insiders/User/mcp.json",
        "AppData/Roaming/Code - Insiders/User/mcp.json",
    ),
    "vscodium": (
        ".config/VSCodium/User/mcp.json",
        "Library/Application Support/VSCodium/User/mcp.json",
        "AppData/Roaming/VSCodium/User/mcp.json",
    ),
    "codex": (".codex/config.toml",) * 3,
    "gemini-cli": (".gemini/settings.json",) * 3,
    "opencode": (".config/opencode/opencode.json",) * 3,
    "windsurf": (".codeium/windsurf/mcp_config.json",) * 3,
    "zed": (".config/zed/settings.json", ".config/zed/settings.json", "AppData/Roaming/Zed/settings.json"),
    "cline": tuple(
        f"{folder}/Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"
        for folder in (".config", "Library/Application Support", "AppData/Roaming")
    ),
    "roo": tuple(
        f"{folder}/Code/User/globalStorage/rooveterinaryinc.roo-cline/settings/mcp_settings.json"
        for folder in (".config", "Library/Application Support", "AppData/Roaming")
    ),
    "goose": (
        ".config/goose/config.yaml",
        ".config/goose/config.yaml",
        "AppData/Roaming/Block/goose/config/config.yaml",
    ),
    "lm-studio": (".lmstudio/mcp.json",) * 3,
    "continue": (".continue/mcpServers/lium.yaml",) * 3,
    "copilot-cli": (".copilot/mcp-config.json",) * 3,
    "jetbrains": (".junie/mcp/mcp.json",) * 3,
}


def machine(home: Path, platform: Platform = "linux", **more: str) -> Machine:
    named = {"windows": "USERPROFILE"}.get(platform, "HOME")
    project = home / "project"
    project.mkdir(exist_ok=True)
    return Machine(platform, {named: str(home), "PATH": str(home / "bin")} | more, project)


def read(path: Path) -> Any:
    text = path.read_text()
    match path.suffix:
        case ".toml":
            return tomllib.loads(text)
        case ".yaml":
            return YAML(typ="safe").load(text)
        case _:
            return json.loads(text)


def install(host: Host, on: Machine, wish: Wish = STARTED, scope: Scope = "user") -> Change:
    change = plan_install(host, on, scope, wish)
    change.make()
    return change


@every_platform
@every_host
def test_the_file_of_each_host_is_where_the_host_looks(host: Host, platform: Platform, tmp_path: Path) -> None:
    expected = USER_FILES[host.name][PLATFORMS.index(platform)]
    found = config_file(host, machine(tmp_path, platform), "user")
    assert found is not None
    assert found.relative_to(tmp_path).as_posix() == expected


@every_platform
@every_host
@pytest.mark.parametrize("scope", ["user", "project"])
@pytest.mark.parametrize("wish", [STARTED, AT], ids=["stdio", "http"])
def test_what_is_written_is_what_the_host_reads(
    host: Host, platform: Platform, scope: Scope, wish: Wish, tmp_path: Path
) -> None:
    on = machine(tmp_path, platform)
    if scope not in host.scopes or (wish.url and not host.http):
        with pytest.raises(ConfigUnusable, match=host.title):
            plan_install(host, on, scope, wish)
        return
    change = install(host, on, wish, scope)
    content = read(change.path)
    assert host_problems(content, host.name) == []
    installed = read_installed(host, on, scope)
    assert installed is not None
    assert installed.path == change.path
    entry = installed.entries["lium"]
    assert (entry.command, entry.url) == (wish.command, wish.url)
    if not wish.url:
        assert entry.variables["LIUM_MCP_MAX_PODS"] == "2"
    assert plan_install(host, on, scope, wish).is_nothing
    plan_uninstall(host, on, scope).make()
    left = read_installed(host, on, scope)
    assert left is not None
    assert left.entries == {}
    assert "lium-mcp" not in (change.path.read_text() if change.path.exists() else "")
    assert plan_uninstall(host, on, scope).is_nothing


@every_host
def test_a_key_is_never_in_clear_and_the_server_gets_it_where_the_host_can_pass_it(host: Host, tmp_path: Path) -> None:
    on = machine(tmp_path)
    change = install(host, on)
    assert "sk_" not in change.path.read_text()
    installed = read_installed(host, on, "user")
    assert installed is not None
    entry = installed.entries["lium"]
    got = entry.environment(host, {"PATH": "/bin", KEY_VARIABLE: "sk_of_the_shell"})
    if host.asks_key:
        assert entry.variables[KEY_VARIABLE] == "${input:lium_api_key}"
    elif host.passes_key:
        assert got[KEY_VARIABLE] == "sk_of_the_shell"
    else:
        assert KEY_VARIABLE not in got
    assert got["LIUM_MCP_MAX_PODS"] == "2"
    assert KEY_VARIABLE not in entry.environment(host, {"PATH": "/bin"}) or host.asks_key


@every_host
def test_the_sandbox_needs_no_key(host: Host, tmp_path: Path) -> None:
    change = install(host, machine(tmp_path), Wish(command=COMMAND, needs_key=False))
    assert KEY_VARIABLE not in change.path.read_text()


def test_an_address_without_a_reference_gets_what_the_server_takes_for_no_key(tmp_path: Path) -> None:
    entry = plan_install(HOSTS["zed"], machine(tmp_path), "user", AT).entry
    assert entry is not None
    assert entry["headers"] == {"X-API-Key": KEY_TO_FILL_IN}


def test_a_host_asks_for_no_key_that_is_saved(tmp_path: Path) -> None:
    change = install(HOSTS["vscode"], machine(tmp_path), Wish(command=COMMAND, key_saved=True))
    assert read(change.path) == {"servers": {"lium": {"type": "stdio", "command": COMMAND[0], "args": ["--sandbox"]}}}


def test_what_a_host_asks_for_goes_with_the_entry(tmp_path: Path) -> None:
    on = machine(tmp_path)
    path = config_file(HOSTS["vscode"], on, "user")
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text('{"inputs": [{"id": "theirs"}]}')
    install(HOSTS["vscode"], on)
    assert [item["id"] for item in read(path)["inputs"]] == ["theirs", "lium_api_key"]
    path.write_text(path.read_text().replace("theirs", "other"))
    plan_uninstall(HOSTS["vscode"], on, "user").make()
    assert read(path) == {"inputs": [{"id": "other"}]}


def test_what_others_write_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    on = machine(tmp_path)
    change = plan_install(HOSTS["cursor"], on, "user", STARTED)
    change.path.parent.mkdir()
    change.path.write_text('{"mcpServers": {"other": {}}}')
    with pytest.raises(ConfigUnusable, match="another program has changed it meanwhile"):
        change.make()
    assert read(change.path) == {"mcpServers": {"other": {}}}
    assert [path.name for path in change.path.parent.iterdir()] == ["mcp.json"]


JSON_STYLES = {
    "tabs": '{\n\t"a": 1.0e5,\n\t"mcpServers": {\n\t\t"x": {"command": "y", "args": ["1", "2"]}\n\t}\n}\n',
    "one line": '{"mcpServers": {"x": {"command": "y"}}, "a": [1,2]}',
    "lines of Windows": '\ufeff{\r\n    "mcpServers": {\r\n        "\u00e9": {}\r\n    }\r\n}\r\n',
    "a key twice": '{\n  "mcpServers": {},\n  "mcpServers": {\n    "x": {}\n  }\n}\n',
    "others after": '{\n  "mcpServers": {\n    "x": {}\n  },\n  "z": {"lium": 1}\n}\n',
}


@pytest.mark.parametrize("text", JSON_STYLES.values(), ids=JSON_STYLES)
def test_installing_and_taking_away_leaves_every_byte(text: str, tmp_path: Path) -> None:
    on = machine(tmp_path)
    file = tmp_path / ".cursor" / "mcp.json"
    file.parent.mkdir()
    file.write_bytes(text.encode())
    install(HOSTS["cursor"], on)
    assert (b"\r\n" in file.read_bytes()) == ("\r\n" in text)
    assert file.read_bytes().count(b"\n") > text.count("\n") or text == JSON_STYLES["one line"]
    assert json.loads(file.read_text("utf-8-sig"))["mcpServers"]["lium"]["command"] == COMMAND[0]
    plan_uninstall(HOSTS["cursor"], on, "user").make()
    assert file.read_bytes() == text.encode()


CODEX_FILE = """\
# mine
model = "x" # c
mcp_optional_startup_grace_ms = 1

[mcp_servers.a]
command = "b"

[tui]
x=1
"""
GOOSE_FILE = """\
# mine
extensions:
  dev:
    enabled: true   # yes
    args:
      - 'a'
GOOSE_MODEL: "x"
"""


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("codex", CODEX_FILE),
        ("codex", 'mcp_optional_startup_grace_ms = 1\nmcp_servers = { a = { command = "b" } }\n'),
        ("goose", GOOSE_FILE),
        ("goose", "extensions:\n    dev:\n        args:\n        - a\n"),
        ("goose", "extensions:\n    dev:\n        args:\n            - a\n"),
    ],
)
def test_comments_and_layout_of_toml_and_yaml_stay(host: str, text: str, tmp_path: Path) -> None:
    on = machine(tmp_path)
    path = config_file(HOSTS[host], on, "user")
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_text(text)
    install(HOSTS[host], on)
    assert set(text.splitlines()) - set(path.read_text().splitlines()) <= {'mcp_servers = { a = { command = "b" } }'}
    plan_uninstall(HOSTS[host], on, "user").make()
    assert path.read_text() == text


def test_a_host_is_here_by_its_program_or_its_folder(tmp_path: Path) -> None:
    on = machine(tmp_path)
    assert not any(is_here(host, on) for host in HOSTS.values())
    (tmp_path / ".cursor").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "claude").touch()
    assert [host.name for host in HOSTS.values() if is_here(host, on)] == ["claude-code", "cursor"]
    on_windows = machine(tmp_path, "windows")
    assert not is_here(HOSTS["claude-code"], on_windows)
    (tmp_path / "bin" / "claude.cmd").touch()
    assert is_here(HOSTS["claude-code"], on_windows)


def test_folders_that_people_name_are_kept_to(tmp_path: Path) -> None:
    named = machine(tmp_path, CODEX_HOME=str(tmp_path / "c"), XDG_CONFIG_HOME=str(tmp_path / "x"))
    assert config_file(HOSTS["codex"], named, "user") == tmp_path / "c" / "config.toml"
    assert config_file(HOSTS["goose"], named, "user") == tmp_path / "x" / "goose" / "config.yaml"
    on_windows = machine(tmp_path, "windows", APPDATA=str(tmp_path / "Roaming"))
    assert config_file(HOSTS["zed"], on_windows, "user") == tmp_path / "Roaming" / "Zed" / "settings.json"


def test_of_several_places_the_one_in_use_is_taken(tmp_path: Path) -> None:
    on = machine(tmp_path)
    used = tmp_path / ".cline" / "data" / "settings"
    used.mkdir(parents=True)
    assert config_file(HOSTS["cline"], on, "user") == used / "cline_mcp_settings.json"
    jsonc = tmp_path / ".config" / "opencode" / "opencode.jsonc"
    jsonc.parent.mkdir(parents=True)
    jsonc.write_text("{}")
    assert config_file(HOSTS["opencode"], on, "user") == jsonc
