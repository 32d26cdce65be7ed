"""server.json: valid, and within the rules that the MCP Registry applies when it publishes but has in no schema."""

import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lium_mcp import __version__
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import load
from lium_mcp.settings_table import LIMITS, SETTINGS
from manifests.directories import registry_entry
from manifests.release import release
from manifests.source import HERE, PROJECT, ROOT, read
from tests.manifests.validation import SCHEMAS, problems

SCHEMA = "mcp-registry-server-2025-12-11"
HASH = sha256(b"a bundle").hexdigest()
ASKED_LIMITS = {"max_price_per_hour_usd", "max_pods", "max_hours", "budget_usd"}
SOURCE = read()
HOSTED = SOURCE.model_copy(update={"owner": "Some-One", "remote": "https://gpu.example.com/mcp"})
ENTRIES = {
    "as it is checked in": json.loads((HERE / "server.json").read_text()),
    "of a release": registry_entry(SOURCE, HASH),
    "of a release, with a hosted server": registry_entry(HOSTED, HASH),
}
every_entry = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)


def package(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    [found] = [package for package in entry["packages"] if package["registryType"] == kind]
    return dict(found)


@every_entry
def test_the_entry_is_valid(entry: dict[str, Any]) -> None:
    assert problems(entry, SCHEMA) == []
    assert problems(entry | {"description": "x" * 101}, SCHEMA) != []


def test_it_names_each_way_to_get_the_server_as_soon_as_there_is_one() -> None:
    kinds = {name: [package["registryType"] for package in entry["packages"]] for name, entry in ENTRIES.items()}
    assert kinds["as it is checked in"] == ["pypi", "oci"], "the hash of a bundle is known when it is built"
    assert kinds["of a release"] == ["pypi", "oci", "mcpb"]
    assert ["remotes" in entry for entry in ENTRIES.values()] == [bool(SOURCE.remote), bool(SOURCE.remote), True]


@every_entry
def test_the_entry_has_no_key_that_the_registry_would_silently_ignore(entry: dict[str, Any]) -> None:
    known = json.loads((SCHEMAS / f"{SCHEMA}.schema.json").read_text())["definitions"]
    asked = known["Input"]["properties"].keys() | {"name"}
    assert entry.keys() <= known["ServerDetail"]["properties"].keys()
    assert all(icon.keys() <= known["Icon"]["properties"].keys() for icon in entry["icons"])
    for package in entry["packages"]:
        assert package.keys() <= known["Package"]["properties"].keys()
        assert all(variable.keys() <= asked for variable in package.get("environmentVariables", []))
        assert package["transport"] == {"type": "stdio"}
    for remote in entry.get("remotes", []):
        assert remote.keys() <= known["StreamableHttpTransport"]["properties"].keys()
        assert all(header.keys() <= asked for header in remote["headers"])


@every_entry
def test_the_name_is_one_that_the_owner_of_the_repository_may_publish(entry: dict[str, Any]) -> None:
    edge, inner = "[A-Za-z0-9]", "[A-Za-z0-9._-]*"
    assert re.fullmatch(rf"{edge}{inner}{edge}/{edge}{inner}{edge}", entry["name"])
    _, _, account = entry["name"].split("/")[0].split(".", 2)
    assert entry["repository"]["url"].split("/")[3:] == [account, PROJECT["name"]]
    assert re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", entry["repository"]["url"])


@every_entry
def test_every_version_is_the_one_of_the_package(entry: dict[str, Any]) -> None:
    assert entry["version"] == __version__
    assert package(entry, "pypi")["version"] == __version__
    assert package(entry, "oci")["identifier"].endswith(f":{__version__}")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)


@every_entry
def test_the_package_is_one_of_the_public_pypi_whose_readme_names_the_entry(entry: dict[str, Any]) -> None:
    pypi = package(entry, "pypi")
    assert pypi["identifier"] == "lium-mcp"
    assert not pypi.keys() & {"fileSha256", "registryBaseUrl"}
    if entry["name"] == SOURCE.registry_name:
        assert f"mcp-name: {entry['name']}" in (ROOT / "README.md").read_text()


@every_entry
def test_the_image_names_its_registry_and_its_version_in_one(entry: dict[str, Any]) -> None:
    image = package(entry, "oci")
    assert not image.keys() & {"version", "fileSha256", "registryBaseUrl"}
    assert re.fullmatch(r"ghcr\.io/[a-z0-9-]+/lium-mcp:\S+", image["identifier"])


@every_entry
def test_a_container_gets_an_ssh_key_and_a_volume_in_which_the_ledger_outlives_it(entry: dict[str, Any]) -> None:
    kept, *mounts = package(entry, "oci")["runtimeArguments"]
    assert (kept["name"], kept["value"]) == ("--volume", "lium-mcp-home:/home/lium")
    assert f"--volume {kept['value']} " in (ROOT / "docs" / "container.md").read_text(), "else there were two ledgers"
    told = [(mount["name"], mount["value"].replace("{ssh_key}", "/home/me/.ssh/id")) for mount in mounts]
    assert told == [
        ("--mount", "type=bind,source=/home/me/.ssh/id,target=/ssh/id,readonly"),
        ("--mount", "type=bind,source=/home/me/.ssh/id.pub,target=/ssh/id.pub,readonly"),
    ]
    assert all(mount["variables"].keys() == {"ssh_key"} for mount in mounts)


@pytest.mark.parametrize("entry", [ENTRIES["of a release"]])
def test_the_bundle_is_an_asset_of_the_release_with_its_hash(entry: dict[str, Any]) -> None:
    bundle = package(entry, "mcpb")
    address = urlsplit(bundle["identifier"])
    assert (address.scheme, address.netloc) == ("https", "github.com")
    assert address.path.endswith(f"/releases/download/v{__version__}/lium-mcp-{__version__}.mcpb")
    assert bundle["fileSha256"] == HASH
    assert not bundle.keys() & {"version", "registryBaseUrl"}


def test_a_hosted_server_is_reached_over_tls_with_the_callers_key() -> None:
    [remote] = ENTRIES["of a release, with a hosted server"]["remotes"]
    assert (remote["type"], remote["url"]) == ("streamable-http", HOSTED.remote)
    assert [(header["name"], header["isSecret"]) for header in remote["headers"]] == [("X-API-Key", True)]


@every_entry
def test_installers_ask_for_settings_that_exist_hide_the_secret_one_and_insist_on_none(entry: dict[str, Any]) -> None:
    asked = {variable["name"]: variable for variable in package(entry, "pypi")["environmentVariables"]}
    assert (
        {SETTINGS[name].variable for name in ASKED_LIMITS}
        <= asked.keys()
        <= {setting.variable for setting in SETTINGS.values()}
    )
    assert [name for name, variable in asked.items() if variable.get("isSecret")] == ["LIUM_API_KEY"]
    assert not any(variable.get("isRequired") for variable in asked.values()), "it runs without a key"
    in_container = {variable["name"]: variable for variable in package(entry, "oci")["environmentVariables"]}
    assert in_container.keys() == asked.keys()
    assert in_container["LIUM_SSH_KEY_PATH"] == {"name": "LIUM_SSH_KEY_PATH", "value": "/ssh/id"}


@every_entry
def test_what_installers_show_is_what_the_server_takes(entry: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    untouched = Settings()
    asked = package(entry, "pypi")["environmentVariables"]
    shown = {item["name"]: item["default"] for item in asked if "default" in item}
    assert shown
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    assert Settings() == untouched
    for item in asked:
        if "placeholder" in item:
            monkeypatch.setenv(item["name"], item["placeholder"])
    assert {name for name in LIMITS if getattr(load({}), name) != getattr(untouched, name)} == ASKED_LIMITS


def test_a_release_writes_what_is_handed_over(tmp_path: Path) -> None:
    bundle, entry, catalog = release(tmp_path, "0" * 40)
    written = json.loads(entry.read_text())
    assert package(written, "mcpb")["fileSha256"] == sha256(bundle.read_bytes()).hexdigest()
    assert package(written, "mcpb")["identifier"].endswith(f"/{bundle.name}")
    assert problems(written, SCHEMA) == []
    assert f"commit: {'0' * 40}" in catalog.read_text().replace('"', "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: DIST, COMMIT"),
        (["COMMIT"], "required: COMMIT"),
        (["DIST", "COMMIT"], "a whole commit id is needed"),
    ],
)
def test_files_of_no_commit_are_not_written(tmp_path: Path, arguments: list[str], said: str) -> None:
    command = [sys.executable, "-m", "manifests.release", *arguments]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "DIST").exists()
