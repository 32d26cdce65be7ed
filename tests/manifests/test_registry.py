"""server.json: valid, and within the rules that the MCP Registry applies when it publishes but has in no schema."""

import json
import re
from typing import Any

import pytest

from lium_mcp import __version__
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS
from manifests.source import HERE, PROJECT, read
from tests.manifests.validation import problems

SCHEMA = "mcp-registry-server-2025-12-11"


@pytest.fixture
def entry() -> dict[str, Any]:
    return dict(json.loads((HERE / "server.json").read_text()))


def test_the_entry_is_valid(entry: dict[str, Any]) -> None:
    assert problems(entry, SCHEMA) == []
    assert problems(entry | {"description": "x" * 101}, SCHEMA) != []


def test_the_entry_has_no_key_that_the_registry_would_silently_ignore(entry: dict[str, Any]) -> None:
    schema = json.loads((HERE.parent / "tests" / "manifests" / "schemas" / f"{SCHEMA}.schema.json").read_text())
    known = schema["definitions"]
    asked = known["Input"]["properties"].keys() | {"name"}
    [package] = entry["packages"]
    assert entry.keys() <= known["ServerDetail"]["properties"].keys()
    assert package.keys() <= known["Package"]["properties"].keys()
    assert all(variable.keys() <= asked for variable in package["environmentVariables"])
    assert package["transport"] == {"type": "stdio"}


def test_the_name_is_one_that_the_owner_of_the_repository_may_publish(entry: dict[str, Any]) -> None:
    edge, inner = "[A-Za-z0-9]", "[A-Za-z0-9._-]*"
    assert re.fullmatch(rf"{edge}{inner}{edge}/{edge}{inner}{edge}", entry["name"])
    assert entry["name"] == f"io.github.{read().owner}/{PROJECT['name']}"
    assert entry["repository"]["url"].split("/")[3:] == [read().owner, PROJECT["name"]]


def test_every_version_is_the_one_of_the_package(entry: dict[str, Any]) -> None:
    [package] = entry["packages"]
    assert {entry["version"], package["version"]} == {__version__}
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)


def test_the_package_is_one_of_the_public_pypi(entry: dict[str, Any]) -> None:
    [package] = entry["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", "lium-mcp")
    assert not package.keys() & {"fileSha256", "registryBaseUrl"}


def test_installers_ask_for_settings_that_exist_hide_the_secret_one_and_insist_on_none(entry: dict[str, Any]) -> None:
    [package] = entry["packages"]
    asked = {variable["name"]: variable for variable in package["environmentVariables"]}
    assert asked.keys() <= {SETTINGS[name].variable for name in Settings.model_fields}
    assert [name for name, variable in asked.items() if variable.get("isSecret")] == ["LIUM_API_KEY"]
    assert not any(variable.get("isRequired") for variable in asked.values()), "it runs without a key"


def test_the_defaults_that_installers_show_are_the_servers_own(
    entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    [package] = entry["packages"]
    untouched = Settings()
    shown = {item["name"]: item["default"] for item in package["environmentVariables"] if "default" in item}
    assert shown
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    assert Settings() == untouched
