"""The configs for MCP hosts: what is checked in is what is generated, valid, without a key, and starts the server."""

import base64
import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from mcp import Client, StdioServerParameters

from lium_mcp.settings_reading import load
from manifests.generate import files
from manifests.source import HERE, Host, read
from tests.compat.simulated import Simulated
from tests.manifests.validation import problems

SOURCE = read()
KEY = "sk_sandbox"
every_host = pytest.mark.parametrize("host", SOURCE.host, ids=lambda host: host.file)


def config_of(host: Host) -> dict[str, Any]:
    text = (HERE / host.file).read_text()
    return tomllib.loads(text) if host.file.endswith(".toml") else json.loads(text)


def server_of(host: Host) -> dict[str, Any]:
    [(name, server)] = config_of(host)[host.facts.servers].items()
    assert name == "lium"
    return dict(server)


def test_what_is_checked_in_is_what_is_generated() -> None:
    readme = (HERE / "README.md").read_text()
    for path, text in files(SOURCE, readme).items():
        assert (HERE / path).read_text() == text, f"{path}: `make manifests` writes it"


def test_every_config_that_is_checked_in_is_generated() -> None:
    by_hand = {"README.md", "source.toml"}
    configs = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*.*") if path.suffix in {".json", ".toml"}}
    assert configs - by_hand == files(SOURCE, (HERE / "README.md").read_text()).keys() - by_hand


def test_nothing_that_is_shipped_holds_a_key() -> None:
    shipped = [path for path in HERE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(shipped) > len(SOURCE.host)
    for path in shipped:
        assert not re.search(r"sk_[A-Za-z0-9]{4}", path.read_text()), path


@every_host
def test_a_config_is_what_its_host_reads(host: Host) -> None:
    config = config_of(host)
    assert problems(config, host.schema_name) == []
    misspelt = copy.deepcopy(config)
    server = misspelt[host.facts.servers]["lium"]
    server["comand"] = server.pop("command")
    assert problems(misspelt, host.schema_name) != []


@every_host
def test_a_placeholder_that_is_left_as_it_is_counts_as_no_key(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in server_of(host).get("env", {}).items():
        monkeypatch.setenv(variable, value)
    assert load({}).find_api_key() is None


@every_host
async def test_a_host_starts_the_server_and_its_key_arrives(
    host: Host, host_path: str, simulated: Simulated, tmp_path: Path
) -> None:
    server = server_of(host)
    # What hosts do: put the key where the config says it belongs, or pass on what the config names.
    given = dict.fromkeys(server.get("env", {}), KEY) | dict.fromkeys(server.get("env_vars", []), KEY)
    assert given == {"LIUM_API_KEY": KEY}
    started = StdioServerParameters(
        command=server["command"],
        args=server["args"],
        env={**given, "PATH": host_path, "LIUM_BASE_URL": simulated.base_url},
        cwd=tmp_path,
    )
    async with Client(started) as client:
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content
    assert answer.structured_content["balance_usd"] == 100


def links() -> list[str]:
    text = (HERE / "README.md").read_text().split("<!-- links:begin -->")[1].split("<!-- links:end -->")[0]
    return re.findall(r"(?:https|vscode):[^\s)]+", text)


def host_named(name: str) -> Host:
    [host] = [host for host in SOURCE.host if host.name == name]
    return host


def test_the_cursor_link_holds_the_server_of_the_config() -> None:
    [link] = [link for link in links() if link.startswith("https://cursor.com/")]
    query = parse_qs(urlsplit(link).query, strict_parsing=True)
    assert query["name"] == ["lium"]
    assert json.loads(base64.b64decode(query["config"][0], validate=True)) == server_of(host_named("Cursor"))


def test_the_vs_code_link_holds_the_server_and_the_inputs_of_the_config() -> None:
    [link] = [link for link in links() if link.startswith("vscode:")]
    host = host_named("VS Code")
    linked = json.loads(unquote(link.removeprefix("vscode:mcp/install?")))
    assert linked.pop("name") == "lium"
    assert linked.pop("inputs") == config_of(host)["inputs"]
    assert linked == server_of(host)


def test_vs_code_asks_for_each_input_that_its_server_takes() -> None:
    host = host_named("VS Code")
    taken = re.findall(r"\$\{input:(\w+)\}", json.dumps(server_of(host)))
    assert taken == [item["id"] for item in config_of(host)["inputs"] if item["password"]]
