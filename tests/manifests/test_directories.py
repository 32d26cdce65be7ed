"""What Docker's catalog, Glama and Smithery are told, by the rules that each applies."""

import json
import re
from typing import Any

import yaml

from lium_mcp.settings_reading import load
from lium_mcp.settings_table import SETTINGS
from manifests.directories import catalog_entry, smithery_questions
from manifests.generate import as_yaml
from manifests.source import HERE, ROOT, read
from tests.manifests.validation import problems

SOURCE = read()
COMMIT = "0123456789" * 4


def catalog() -> dict[str, Any]:
    return dict(yaml.safe_load(as_yaml(catalog_entry(SOURCE, COMMIT))))


def test_the_entry_for_docker_is_valid_once_it_has_its_commit() -> None:
    assert problems(catalog(), "docker-mcp-server") == []
    checked_in = yaml.safe_load((HERE / "catalog" / "server.yaml").read_text())
    assert [problem.rpartition(":")[2] for problem in problems(checked_in, "docker-mcp-server")] == [
        " 'commit' is a required property"
    ]
    checked_in["source"]["commit"] = COMMIT
    assert checked_in == catalog()


def test_its_title_and_its_parameters_are_as_docker_wants_them() -> None:
    entry = catalog()
    assert all(word[0].isupper() for word in entry["about"]["title"].split())
    parameters = entry["config"]["parameters"]["properties"]
    named = re.findall(r"\{\{lium\.(\w+)\}\}", json.dumps(entry))
    assert set(named) == parameters.keys()
    assert all(parameter["description"] for parameter in parameters.values())


def test_what_docker_sets_are_settings_that_can_be_read(monkeypatch: Any) -> None:
    for variable in catalog()["config"]["env"]:
        assert variable["name"] in {setting.variable for setting in SETTINGS.values()}
        monkeypatch.setenv(variable["name"], variable.get("example", variable["value"]))
    settings = load({})
    assert (settings.max_pods, str(settings.ssh_key_path)) == (2, "/ssh/id")


def test_the_secret_that_docker_does_not_have_counts_as_none(monkeypatch: Any) -> None:
    [secret] = catalog()["config"]["secrets"]
    for left_open in (secret["example"], "<UNKNOWN>"):
        monkeypatch.setenv(secret["env"], left_open)
        assert load({}).find_api_key() is None


def test_glama_is_told_who_maintains_it() -> None:
    assert problems(json.loads((ROOT / "glama.json").read_text()), "glama") == []


def test_smithery_is_told_of_a_hosted_server_and_how_its_callers_send_their_key() -> None:
    told = yaml.safe_load((ROOT / "smithery.yaml").read_text())
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_-]{2,38}", told["name"])
    assert told["target"] == "remote"
    text = (HERE / "smithery.json").read_text()
    assert json.loads(text) == smithery_questions(SOURCE)
    assert len(text.encode()) <= 1024
    [key] = json.loads(text)["properties"].values()
    assert key["x-from"] == {"header": "X-API-Key"}
