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
from lium_mcp.settings_table import LIMITS
from manifests.bundle import build
from manifests.source import PROJECT, ROOT
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
        f"user_config.{name}": str(value).lower() if isinstance(value, bool) else str(value)
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
    assert {name for name in names if "/" not in name} == {
        *("manifest.json", "pyproject.toml", "main.py", "icon.png", "LICENSE")
    }
    assert {Path(name).parts[0] for name in names if "/" in name} == {"lium_mcp"}
    assert not [name for name in names if "__pycache__" in name]
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "lium_mcp").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("lium_mcp/")} == package


def test_everything_that_is_asked_for_is_used_and_the_key_is_hidden(manifest: dict[str, Any]) -> None:
    used = re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(manifest["server"]))
    assert sorted(used) == sorted(manifest["user_config"])
    assert [name for name, item in manifest["user_config"].items() if item.get("sensitive")] == ["api_key"]


def test_nothing_has_to_be_filled_in_and_limits_can_be(manifest: dict[str, Any]) -> None:
    questions = manifest["user_config"]
    assert not any(item["required"] for item in questions.values())
    limits = {name: item["type"] for name, item in questions.items() if name in LIMITS}
    assert limits == dict.fromkeys(("max_price_per_hour_usd", "max_pods", "max_hours", "budget_usd"), "number")
    assert "`lium-mcp login`" in questions["api_key"]["description"]


def test_it_installs_what_the_project_needs_in_the_versions_that_are_tested(unpacked: Path) -> None:
    described = tomllib.loads((unpacked / "pyproject.toml").read_text())
    assert described["project"]["dependencies"] == PROJECT["dependencies"]
    assert described["project"]["requires-python"] == PROJECT["requires-python"]
    bound = {line.split("==")[0] for line in described["tool"]["uv"]["constraint-dependencies"]}
    # A lock file writes a name with hyphens where the project may have dots.
    assert {re.split(r"[<>=[]", line)[0].replace(".", "-") for line in PROJECT["dependencies"]} <= bound


def started(manifest: dict[str, Any], unpacked: Path, path: str, lium: Simulated, **filled_in: Any) -> Client:
    """Start an unpacked bundle as its manifest says."""
    command = expanded(manifest, unpacked, filled_in)
    # uv would install what is named in the bundle: here it takes the packages that are installed already.
    no_network = {"UV_OFFLINE": "1", "UV_NO_SYNC": "1", "UV_PROJECT_ENVIRONMENT": sys.prefix}
    around = get_default_environment() | no_network | {"PATH": path, "LIUM_BASE_URL": lium.base_url}
    return Client(StdioServerParameters(command=command["command"], args=command["args"], env=around | command["env"]))


async def test_the_unpacked_bundle_starts_by_the_command_of_its_manifest(
    manifest: dict[str, Any], unpacked: Path, host_path: str, simulated: Simulated
) -> None:
    # What answers must be the bundle's own copy, and not this checkout.
    marked = "9.9.9"
    package = unpacked / "lium_mcp" / "__init__.py"
    package.write_text(package.read_text().replace(__version__, marked))
    async with started(manifest, unpacked, host_path, simulated, api_key="sk_sandbox") as client:
        assert client.server_info is not None
        assert client.server_info.version == marked
        assert [tool.name for tool in (await client.list_tools()).tools] == [tool["name"] for tool in manifest["tools"]]
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content
    assert answer.structured_content["balance_usd"] == 100


@pytest.mark.parametrize(
    "left_open", [{}, {"max_pods": "", "budget_usd": " ", "api_key": ""}], ids=["names", "nothing"]
)
async def test_fields_that_stay_empty_set_nothing(
    left_open: dict[str, str], manifest: dict[str, Any], unpacked: Path, host_path: str, simulated: Simulated
) -> None:
    """A host hands over the name of such a field, or nothing; the server alone would refuse every call then."""
    async with started(manifest, unpacked, host_path, simulated, **left_open) as client:
        answer = await client.call_tool("get_gpu_prices", {})
    assert not answer.is_error, answer.content


async def test_what_is_switched_on_is_on(
    manifest: dict[str, Any], unpacked: Path, host_path: str, simulated: Simulated
) -> None:
    async with started(manifest, unpacked, host_path, simulated, read_only=True, sandbox=True) as client:
        assert "rent_pod" not in [tool.name for tool in (await client.list_tools()).tools]
        answer = await client.call_tool("get_balance", {})
    assert not answer.is_error, "the sandbox needs no key"


async def test_a_limit_that_is_filled_in_holds(
    manifest: dict[str, Any], unpacked: Path, host_path: str, simulated: Simulated
) -> None:
    filled_in = {"api_key": "sk_sandbox", "max_price_per_hour_usd": 0.01, "max_pods": 2}
    async with started(manifest, unpacked, host_path, simulated, **filled_in) as client:
        answer = await client.call_tool("rent_pod", {"name": "trial", "gpu_type": "A100", "hours": 1})
    assert (answer.meta or {})["lium-mcp/error"]["code"] == "policy_refused", answer.content
