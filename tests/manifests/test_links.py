"""The install links of the README: each decodes to the entry of its host's file, and holds no key."""

import base64
import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from lium_mcp.hosts.host_table import HOSTS
from manifests.host_files import path_of
from manifests.links import links
from manifests.source import HERE, read

SOURCE = read()
RELEASED = SOURCE.model_copy(update={"published": True})


def in_readme() -> list[str]:
    part = (HERE / "README.md").read_text().split("<!-- links:begin -->")[1].split("<!-- links:end -->")[0]
    return re.findall(r"(?:https|lmstudio|vscode|goose):[^\s)]+", part)


def link_to(host: str, source: Any = SOURCE) -> str:
    [link] = [link.url for link in links(source) if link.host == host]
    return link


def file_of(host: str) -> dict[str, Any]:
    return dict(json.loads((HERE / path_of(HOSTS[host], "stdio")).read_text()))


def test_the_readme_has_all_of_them() -> None:
    assert in_readme() == [link.url for link in links(SOURCE)]
    assert not any("sk_" in unquote(link) for link in in_readme())


@pytest.mark.parametrize(("host", "begin"), [("cursor", "https://cursor.com/"), ("lm-studio", "lmstudio://add_mcp?")])
def test_a_link_holds_the_server_of_the_file(host: str, begin: str) -> None:
    assert link_to(host).startswith(begin)
    query = parse_qs(urlsplit(link_to(host)).query, strict_parsing=True)
    assert query["name"] == ["lium"]
    assert json.loads(base64.b64decode(query["config"][0], validate=True)) == file_of(host)["mcpServers"]["lium"]


def test_the_vs_code_link_holds_the_server_and_the_inputs_of_the_file() -> None:
    linked = json.loads(unquote(link_to("vscode").removeprefix("vscode:mcp/install?")))
    assert linked.pop("name") == "lium"
    assert linked.pop("inputs") == file_of("vscode")["inputs"]
    assert linked == file_of("vscode")["servers"]["lium"]


def test_vs_code_asks_for_each_input_that_its_server_takes() -> None:
    file = file_of("vscode")
    taken = re.findall(r"\$\{input:(\w+)\}", json.dumps(file["servers"]["lium"]))
    assert taken == [item["id"] for item in file["inputs"] if item["password"]]


def test_goose_gets_a_link_as_soon_as_it_runs_our_command() -> None:
    """It takes a few programs from a link, of which uvx is one, and an installed command of ours is none."""
    assert [link for link in links(SOURCE.model_copy(update={"published": False})) if link.host == "goose"] == []
    query = parse_qs(urlsplit(link_to("goose", RELEASED)).query, strict_parsing=True)
    assert (query["cmd"], query["arg"]) == (["uvx"], ["lium-mcp"])
    assert query["name"] == ["Lium"]
    assert "+" not in link_to("goose", RELEASED)
