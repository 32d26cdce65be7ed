"""The plugin: one folder in which each host has a manifest of its own, that starts the server with a key or without."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from lium_mcp.settings_reading import load
from lium_mcp.settings_table import OVER_HTTP, SETTINGS
from lium_mcp.skills import read_skills
from manifests.plugin_files import FOLDER, ICON, plugin_configs
from manifests.source import HERE, ROOT, VERSION, read
from tests.manifests.validation import problems

SOURCE = read()
PLUGIN = ROOT / FOLDER
KEY = "sk_sandbox"
CONFIGS = dict(plugin_configs(SOURCE))
MANIFESTS = [path for path in CONFIGS if path.startswith(FOLDER) and "version" in CONFIGS[path]]
# Where each host reads which server to start, and what its entry becomes where nobody has given a key.
SERVERS = {
    "Claude Code": ".claude-plugin/plugin.json",
    "Codex": "codex.mcp.json",
    "Gemini CLI": "gemini-extension.json",
    "others": "mcp.json",
}
every_server = pytest.mark.parametrize("host", SERVERS)


def config(path: str) -> dict[str, Any]:
    return dict(json.loads((PLUGIN / path).read_text()))


def server_of(host: str) -> dict[str, Any]:
    [(name, server)] = config(SERVERS[host])["mcpServers"].items()
    assert name == "lium"
    return dict(server)


def environment(host: str, given: dict[str, str]) -> dict[str, str]:
    """What the server gets where these variables are those of the host, as each host fills its entry in."""
    server = server_of(host)
    if host == "Codex":
        return {name: given[name] for name in server["env_vars"] if name in given}
    key = given.get("LIUM_API_KEY", "")
    option = config(SERVERS["Claude Code"])["userConfig"]["api_key"]["default"]
    filled = {"${user_config.api_key}": option.replace("${LIUM_API_KEY:-}", key), "$LIUM_API_KEY": key}
    own = {name: filled[value] for name, value in server.get("env", {}).items()}
    # Gemini CLI withholds what looks like a secret, the others pass on all that there is.
    passed = {name: value for name, value in given.items() if host != "Gemini CLI" or "KEY" not in name}
    return passed | own


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("plugin.json", "agent-plugins-1.0.0-plugin"),
        ("mcp.json", "agent-plugins-1.0.0-mcp"),
        ("gemini-extension.json", "gemini-extension"),
    ],
)
def test_a_manifest_is_what_its_readers_take(path: str, schema: str) -> None:
    content = config(path)
    assert problems(content, schema) == []
    misspelt = copy.deepcopy(content)
    misspelt["nmae"] = misspelt.pop("name", "lium")
    assert problems(misspelt, schema) != []


@pytest.mark.parametrize("path", MANIFESTS)
def test_all_manifests_are_of_one_plugin(path: str) -> None:
    content = CONFIGS[path]
    assert (content["name"], content["version"], content["description"]) == ("lium", VERSION, SOURCE.summary)


def test_there_is_a_manifest_for_each_host() -> None:
    assert len(MANIFESTS) == 4


@pytest.mark.parametrize("path", [".claude-plugin/marketplace.json", ".agents/plugins/marketplace.json"])
def test_a_marketplace_leads_to_the_folder(path: str) -> None:
    [plugin] = json.loads((ROOT / path).read_text())["plugins"]
    source = plugin["source"] if isinstance(plugin["source"], str) else plugin["source"]["path"]
    assert source.startswith("./")
    manifest = ROOT / source / (".claude-plugin" if "claude" in path else ".codex-plugin") / "plugin.json"
    assert json.loads(manifest.read_text())["name"] == plugin["name"]


def test_what_a_manifest_names_is_in_the_folder() -> None:
    assert (PLUGIN / config(".claude-plugin/plugin.json")["icon"]).read_bytes() == (HERE / "icon.png").read_bytes()
    assert ICON in {path.relative_to(PLUGIN).as_posix() for path in PLUGIN.rglob("*")}
    codex = config(".codex-plugin/plugin.json")
    assert (PLUGIN / codex["mcpServers"]).is_file()
    assert (PLUGIN / codex["skills"]).is_dir()
    # Claude Code would load a file of that name beside what its manifest says.
    assert not (PLUGIN / ".mcp.json").exists()


def test_the_skills_are_those_of_the_server_and_no_others() -> None:
    skills = {path.parent.name: path.read_text() for path in PLUGIN.glob("skills/**/*.md")}
    assert skills == {skill.name: skill.text for skill in read_skills()}
    page = (PLUGIN / "README.md").read_text()
    assert all(f"- `{name}`: " in page for name in skills)


@every_server
async def test_a_host_starts_the_server_and_its_key_arrives(host: str, host_path: str, tmp_path: Path) -> None:
    server = server_of(host)
    given = environment(host, {"LIUM_API_KEY": KEY, "LIUM_MCP_MAX_PODS": "2"})
    started = StdioServerParameters(
        command=server["command"],
        args=server["args"],
        env={**given, "PATH": host_path, "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    async with Client(started) as client:
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content
    assert answer.structured_content["balance_usd"] == 100
    assert [limit["limit"] for limit in answer.structured_content["limits"]] == ["max_pods"]


@every_server
def test_a_key_that_nobody_gave_counts_as_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(host, {}).items():
        monkeypatch.setenv(variable, value)
    assert load({}).find_api_key() is None
    # As a host leaves it that does not know the reference.
    for variable, value in server_of(host).get("env", {}).items():
        monkeypatch.setenv(variable, value)
    assert load({}).find_api_key() is None


def test_once_the_package_is_published_hosts_start_it_from_the_index() -> None:
    released = dict(plugin_configs(SOURCE.model_copy(update={"owner": "Some-One", "published": True})))
    for path in SERVERS.values():
        server = released[f"{FOLDER}/{path}"]["mcpServers"]["lium"]
        assert (server["command"], list(server["args"])) == ("uvx", ["lium-mcp"])
    described = released[f"{FOLDER}/plugin.json"]
    assert described["repository"] == "https://github.com/Some-One/lium-mcp"
    assert problems(described, "agent-plugins-1.0.0-plugin") == []
    assert problems(released[f"{FOLDER}/gemini-extension.json"], "gemini-extension") == []


def test_codex_passes_on_all_that_a_server_without_callers_over_http_reads() -> None:
    named = server_of("Codex")["env_vars"]
    of_http = {SETTINGS[name].variable for name in OVER_HTTP}
    of_http |= {"LIUM_MCP_TRANSPORT", "LIUM_MCP_SERVER_TOKEN", "LIUM_MCP_STATE_KEYS", "LIUM_MCP_OAUTH_KEYS"}
    assert {setting.variable for setting in SETTINGS.values()} - set(named) == of_http
    assert len(named) == len(set(named))
