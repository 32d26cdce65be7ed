"""The ready-made files: each is what its host reads, and starts or reaches the server as the host would."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from lium_mcp.hosts.documents import Document
from lium_mcp.hosts.host_entries import KEY_TO_FILL_IN, InstalledEntry, read_entry
from lium_mcp.hosts.host_facts import Host
from lium_mcp.settings_reading import load
from manifests.host_files import LOCAL_URL, SHIPPED, Variant, host_files, path_of, variants
from manifests.source import HERE, read
from tests.compat.simulated import Simulated
from tests.http_server import Served, calling, serving
from tests.manifests.validation import host_problems

SOURCE = read()
KEY = "sk_sandbox"
ASKED = "${input:lium_api_key}"
every_host = pytest.mark.parametrize("host", SHIPPED.values(), ids=SHIPPED)
every_file = pytest.mark.parametrize(
    ("host", "variant"),
    [pytest.param(host, variant, id=path_of(host, variant)) for host in SHIPPED.values() for variant in variants(host)],
)


def document_of(host: Host, text: str) -> Document:
    return Document(text.encode(), host.file_format)


def entry_of(host: Host, text: str) -> InstalledEntry:
    entry = read_entry(host, document_of(host, text).value(host.entry_path()))
    assert entry is not None
    return entry


def shipped(host: Host, variant: Variant, *, filled_in: str = "") -> str:
    """The text of a file; with a key where a person puts one, or types one when asked."""
    text = (HERE / path_of(host, variant)).read_text()
    return text.replace(KEY_TO_FILL_IN, filled_in).replace(ASKED, filled_in) if filled_in else text


def starting(host: Host, entry: InstalledEntry, path: str, home: Path, **more: str) -> StdioServerParameters:
    """What a host of this kind does with an entry, where these variables are in its own environment."""
    environment = entry.environment(host, {"PATH": path, "HOME": str(home), "UNRELATED": "1"} | more)
    program, *arguments = entry.command
    return StdioServerParameters(command=program, args=arguments, env=environment, cwd=home)


def test_the_sixteen_hosts_have_their_files() -> None:
    assert len(SHIPPED) == 16
    assert [host.name for host in SHIPPED.values() if "http" not in variants(host)] == ["claude-desktop"]


@every_file
def test_a_file_is_what_its_host_reads(host: Host, variant: Variant) -> None:
    content = document_of(host, shipped(host, variant)).content
    assert host_problems(content, host.name) == []
    misspelt = copy.deepcopy(content)
    servers = misspelt[host.servers]
    server = servers[0] if host.is_list else servers["lium"]
    server["comand"] = server.pop(next(iter(server)))
    assert host_problems(misspelt, host.name) != []


@every_host
async def test_a_host_starts_the_server_and_its_key_arrives(host: Host, host_path: str, tmp_path: Path) -> None:
    entry = entry_of(host, shipped(host, "stdio", filled_in=KEY))
    async with Client(starting(host, entry, host_path, tmp_path, LIUM_API_KEY=KEY)) as client:
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content
    assert answer.structured_content["balance_usd"] == 100


@every_host
async def test_the_sandbox_needs_no_key(host: Host, host_path: str, tmp_path: Path) -> None:
    text = shipped(host, "sandbox")
    assert "LIUM_API_KEY" not in text
    async with Client(starting(host, entry_of(host, text), host_path, tmp_path)) as client:
        answer = await client.call_tool("get_balance", {})
    assert answer.structured_content is not None, answer.content


@pytest.fixture(scope="module")
def served(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), LIUM_BASE_URL=_simulated.base_url) as served:
        yield served


@pytest.mark.parametrize("host", [host for host in SHIPPED.values() if host.http], ids=lambda host: host.name)
async def test_a_host_sends_its_key_to_a_server_that_runs(host: Host, simulated: Simulated, served: Served) -> None:
    entry = entry_of(host, shipped(host, "http", filled_in=KEY))
    assert entry.url == LOCAL_URL, "where `lium-mcp serve --transport http` is"
    headers = entry.sent_headers({"LIUM_API_KEY": KEY})
    assert headers == {"X-API-Key": KEY}
    # The port of the test is another one: somebody may use that of the file.
    async with calling(served.url, "modern", headers) as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100


@every_host
def test_a_placeholder_that_is_left_as_it_is_counts_as_no_key(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in entry_of(host, shipped(host, "stdio")).variables.items():
        monkeypatch.setenv(variable, value)
    assert load({}).find_api_key() is None


@every_host
def test_no_text_to_be_replaced_stands_in_the_way_of_a_key_that_comes_by_itself(host: Host) -> None:
    assert (KEY_TO_FILL_IN in shipped(host, "stdio")) == (not host.passes_key)


@pytest.mark.parametrize(
    ("published", "command"), [(False, ("lium-mcp",)), (True, ("uvx", "lium-mcp"))], ids=["before", "after"]
)
def test_hosts_are_told_to_start_what_is_there_before_and_after_a_release(
    published: bool, command: tuple[str, ...]
) -> None:
    """Until the package is on PyPI uvx would find none."""
    made = dict(host_files(SOURCE.model_copy(update={"published": published})))
    for host in SHIPPED.values():
        assert entry_of(host, made[path_of(host, "stdio")]).command == command
        assert entry_of(host, made[path_of(host, "sandbox")]).command == (*command, "--sandbox")


@pytest.mark.parametrize("host", [SHIPPED["claude-code"], SHIPPED["codex"]], ids=lambda host: host.name)
async def test_what_a_release_lets_them_start_answers(host: Host, host_path: str, tmp_path: Path) -> None:
    released = dict(host_files(SOURCE.model_copy(update={"published": True})))
    entry = entry_of(host, released[path_of(host, "stdio")])
    async with Client(starting(host, entry, host_path, tmp_path, LIUM_API_KEY=KEY)) as client:
        assert not (await client.call_tool("get_balance", {})).is_error


@pytest.mark.parametrize("variant", ["stdio", "sandbox", "http"])
def test_codex_waits_and_the_file_says_why(variant: Variant) -> None:
    text = shipped(SHIPPED["codex"], variant)
    assert re.search(r"\A(#.*\n)+mcp_optional_startup_grace_ms = 5000\n", text)


@pytest.mark.parametrize("variant", ["stdio", "sandbox", "http"])
def test_copilot_shows_its_model_every_tool(variant: Variant) -> None:
    assert json.loads(shipped(SHIPPED["copilot-cli"], variant))["mcpServers"]["lium"]["deferTools"] == "never"


def test_the_limits_that_the_readme_shows_are_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = re.findall(r"```json\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    shown = json.loads(block)
    for variable, value in shown.items():
        monkeypatch.setenv(variable, value)
    limits = load({})
    assert (limits.max_price_per_hour_usd, limits.max_pods, limits.max_hours, limits.budget_usd) == (3, 2, 12, 50)
    assert len(shown) == 4
