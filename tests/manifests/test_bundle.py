"""The MCPB bundle: built, read and started as its format prescribes, without a network."""

import json
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import get_default_environment

from lium_mcp import __version__
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import load
from manifests.bundle import build
from manifests.source import PROJECT
from tests.compat.simulated import Simulated
from tests.manifests.validation import problems


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "an extension"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def manifest(unpacked: Path) -> dict[str, Any]:
    return dict(json.loads((unpacked / "manifest.json").read_text()))


def expanded(manifest: dict[str, Any], folder: Path, filled_in: dict[str, Any]) -> dict[str, Any]:
    """Do with the manifest what a host does: known names are replaced, unknown ones stay as they are."""
    values = {name: item["default"] for name, item in manifest["user_config"].items() if "default" in item} | filled_in
    texts = {
        f"user_config.{name}": str(value).lower() if isinstance(value, bool) else value
        for name, value in values.items()
    }
    texts["__dirname"] = str(folder)

    def expand(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{([^}]+)\}", lambda found: texts.get(found[1], found[0]), value)
        if isinstance(value, list):
            return [expand(item) for item in value]
        return {name: expand(item) for name, item in value.items()} if isinstance(value, dict) else value

    return dict(expand(manifest["server"]["mcp_config"]))


def test_the_manifest_is_valid(manifest: dict[str, Any]) -> None:
    assert problems(manifest, "mcpb-manifest-v0.4") == []
    assert problems(manifest | {"user_settings": {}}, "mcpb-manifest-v0.4") != []
    # The schema leaves this out, the format does not.
    assert manifest["manifest_version"] == "0.4"
    assert manifest["version"] == __version__


async def test_the_manifest_lists_the_tools_that_the_server_lists(manifest: dict[str, Any]) -> None:
    async with Client(build_server(Settings())) as client:
        listed = (await client.list_tools()).tools
    assert [(tool["name"], tool["description"]) for tool in manifest["tools"]] == [
        (tool.name, tool.description) for tool in listed
    ]


def test_the_builders_own_settings_do_not_reach_the_bundle(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIUM_MCP_READ_ONLY", "1")
    monkeypatch.setenv("LIUM_API_KEY", "sk_of_the_builder")
    assert build(tmp_path).read_bytes() == bundle.read_bytes()


def test_it_holds_the_server_and_nothing_else(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name for name in names if "/" not in name} == {"manifest.json", "pyproject.toml", "main.py", "LICENSE"}
    assert {Path(name).parts[0] for name in names if "/" in name} == {"lium_mcp"}
    assert not [name for name in names if "__pycache__" in name]
    assert {"lium_mcp/server.py", "lium_mcp/tools/pods.py", "lium_mcp/sandbox/world.py"} <= set(names)


def test_everything_that_is_asked_for_is_used_and_the_key_is_hidden(manifest: dict[str, Any]) -> None:
    used = re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"]))
    assert sorted(used) == sorted(manifest["user_config"])
    assert [name for name, item in manifest["user_config"].items() if item.get("sensitive")] == ["api_key"]


def test_nothing_has_to_be_filled_in(manifest: dict[str, Any], unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = Settings()
    assert not any(item["required"] for item in manifest["user_config"].values())
    for variable, value in expanded(manifest, unpacked, {})["env"].items():
        monkeypatch.setenv(variable, value)
    assert load({}) == untouched


def test_what_is_switched_on_is_on(manifest: dict[str, Any], unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in expanded(manifest, unpacked, {"read_only": True, "sandbox": True})["env"].items():
        monkeypatch.setenv(variable, value)
    assert load({}).read_only
    assert load({}).sandbox


def test_it_installs_what_the_project_needs_in_the_versions_that_are_tested(unpacked: Path) -> None:
    described = tomllib.loads((unpacked / "pyproject.toml").read_text())
    assert described["project"]["dependencies"] == PROJECT["dependencies"]
    assert described["project"]["requires-python"] == PROJECT["requires-python"]
    bound = {line.split("==")[0] for line in described["tool"]["uv"]["constraint-dependencies"]}
    # A lock file writes a name with hyphens where the project may have dots.
    assert {re.split(r"[<>=[]", line)[0].replace(".", "-") for line in PROJECT["dependencies"]} <= bound


async def test_the_unpacked_bundle_starts_by_the_command_of_its_manifest(
    manifest: dict[str, Any], unpacked: Path, host_path: str, simulated: Simulated
) -> None:
    # What answers must be the bundle's own copy, and not this checkout.
    marked = "9.9.9"
    package = unpacked / "lium_mcp" / "__init__.py"
    package.write_text(package.read_text().replace(__version__, marked))
    command = expanded(manifest, unpacked, {"api_key": "sk_sandbox"})
    # uv would install what is named in the bundle: here it takes the packages that are installed already.
    no_network = {"UV_OFFLINE": "1", "UV_NO_SYNC": "1", "UV_PROJECT_ENVIRONMENT": sys.prefix}
    started = StdioServerParameters(
        command=command["command"],
        args=command["args"],
        env=get_default_environment()
        | no_network
        | {"PATH": host_path, "LIUM_BASE_URL": simulated.base_url}
        | command["env"],
    )
    async with Client(started) as client:
        assert client.server_info is not None
        assert client.server_info.version == marked
        assert [tool.name for tool in (await client.list_tools()).tools] == [tool["name"] for tool in manifest["tools"]]
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content
    assert answer.structured_content["balance_usd"] == 100
