"""The page in the conversation: hosts that show pages hear which tools carry it, and all others hear nothing of it."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import pytest
from mcp import Client
from mcp.client.extension import advertise
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextResourceContents

from lium_mcp.page import ADDRESS, CARRIED, CARRIED_BY, EXTENSION, MIME_TYPE, read_page
from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.harness import ALL_TOOLSETS, Mode, agent_on
from tests.http_server import Served, serving
from tests.processes import cold, environment
from tests.serving.recording import SHOWS_PAGES, answers_of, plain_requests, request

SHOWS: Final = [advertise(EXTENSION, {"mimeTypes": [MIME_TYPE]})]
# Of each version of the protocol one.
ERAS: Final = ("2024-11-05", "2025-11-25", "2026-07-28")
SHOW_NO_PAGE: Final[list[dict[str, Any]]] = [
    {},
    {"extensions": {}},
    {"extensions": {EXTENSION: {}}},
    {"extensions": {EXTENSION: {"mimeTypes": []}}},
    {"extensions": {EXTENSION: {"mimeTypes": ["text/html"]}}},
    {"extensions": {EXTENSION: {"mimeTypes": MIME_TYPE}}},
    {"extensions": {"io.example/ui": {"mimeTypes": [MIME_TYPE]}}},
    {"experimental": {EXTENSION: {"mimeTypes": [MIME_TYPE]}}},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served"), LIUM_MCP_SANDBOX="true") as server:
        yield server


@asynccontextmanager
async def connected(way: str, served: Served, *, shows: bool) -> AsyncIterator[Client]:
    """A client of the SDK that reaches a server in one of the ways there are."""
    transport, _, era = way.partition(" ")
    mode: Any = "legacy" if era == "legacy" else "auto"
    extensions = SHOWS if shows else None
    async with httpx2.AsyncClient(headers={"X-API-Key": API_KEY}, timeout=30, trust_env=False) as http:
        server: Any
        if transport == "memory":
            server = build_server(Settings(sandbox=True, toolsets=ALL_TOOLSETS))
        elif transport == "sse":
            server = sse_client(f"{served.url}/sse", headers={"X-API-Key": API_KEY})
        else:
            server = streamable_http_client(f"{served.url}/mcp", http_client=http)
        async with Client(server, mode=mode, extensions=extensions, cache=None) as client:
            yield client


@pytest.mark.parametrize("way", ["memory", "memory legacy", "http", "http legacy", "sse legacy"])
async def test_tools_carry_the_page_for_those_who_show_it(way: str, served: Served) -> None:
    async with connected(way, served, shows=True) as client:
        tools = (await client.list_tools()).tools
        carried = {tool.name for tool in tools if (tool.meta or {}).items() >= CARRIED.items()}
        assert carried == CARRIED_BY
        assert {tool.name for tool in tools if "ui" in str(tool.meta)} == CARRIED_BY
        [content] = (await client.read_resource(ADDRESS)).contents
        assert isinstance(content, TextResourceContents)
        assert (content.mime_type, content.text) == (MIME_TYPE, read_page())
        assert content.meta == {"ui": {"csp": {"connectDomains": [], "resourceDomains": []}, "prefersBorder": True}}


@pytest.mark.parametrize("way", ["memory", "memory legacy", "http", "http legacy", "sse legacy"])
async def test_nobody_else_hears_of_it(way: str, served: Served) -> None:
    async with connected(way, served, shows=False) as client:
        tools = (await client.list_tools()).tools
        assert not any(CARRIED.keys() & (tool.meta or {}).keys() for tool in tools)
        listed = (await client.list_resources()).resources
    assert not any(item.uri.startswith("ui:") for item in listed)
    async with connected(way, served, shows=True) as client:
        shown = (await client.list_tools()).tools
        assert (await client.list_resources()).resources == listed, "hosts find the page by the tools that name it"
    without = [tool.model_copy(update={"meta": _less_page(tool.meta)}) for tool in shown]
    assert without == tools


def _less_page(meta: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (meta or {}).items() if name not in CARRIED}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("capabilities", SHOW_NO_PAGE, ids=str)
async def test_who_shows_no_page_gets_the_same_bytes(capabilities: dict[str, Any], era: str) -> None:
    server = build_server(Settings())
    plain = await answers_of(server, plain_requests(era))
    assert await answers_of(server, plain_requests(era, capabilities)) == plain
    assert not any(b"ui://" in line for line in plain)
    assert not any(EXTENSION.encode() in line for line in plain)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("capabilities", [*SHOW_NO_PAGE, SHOWS_PAGES], ids=str)
async def test_the_front_says_what_the_server_says_to_each(capabilities: dict[str, Any], era: str) -> None:
    asked = plain_requests(era, capabilities)[:2]
    async with cold("--sandbox") as front:
        early = [await front.ask(message) for message in asked]
        assert await front.end() == 0
    assert "ERROR" not in front.stderr
    later = await answers_of(build_server(Settings(sandbox=True)), asked)
    assert [json.dumps(answer) for answer in early] == [json.dumps(json.loads(line)) for line in later]
    assert ("ui://" in json.dumps(early)) == (capabilities is SHOWS_PAGES)


async def test_each_request_of_the_current_protocol_says_for_itself_who_shows_pages() -> None:
    asked = [
        request("tools/list", 1, ERAS[-1], SHOWS_PAGES),
        request("tools/list", 2, ERAS[-1]),
        request("tools/list", 3, ERAS[-1], SHOWS_PAGES),
    ]
    async with cold("--sandbox") as front:
        early = ["ui://" in json.dumps(await front.ask(message)) for message in asked]
        assert await front.end() == 0
    assert early == [True, False, True]
    later = await answers_of(build_server(Settings()), asked)
    assert [b"ui://" in line for line in later] == early


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_host_over_standard_input_and_output_sees_it(mode: Mode) -> None:
    program = StdioServerParameters(command=sys.executable, args=["-m", "lium_mcp", "--sandbox"], env=environment())
    async with Client(stdio_client(program), mode=mode, extensions=SHOWS) as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools if "ui" in (tool.meta or {})} == CARRIED_BY
        assert (await client.read_resource(ADDRESS)).contents[0].mime_type == MIME_TYPE


async def test_it_is_there_where_a_tool_is_that_carries_it(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, allow_tools=frozenset({"get_balance", "rent_pod"})) as agent:
        assert (await agent.client.read_resource(ADDRESS)).contents
    async with agent_on(sandbox, allow_tools=frozenset({"rent_pod"})) as agent:
        with pytest.raises(Exception, match="Unknown resource"):
            await agent.client.read_resource(ADDRESS)


async def test_lists_that_are_not_the_same_for_all_are_kept_by_nobody_for_others(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        assert (await agent.client.list_tools()).cache_scope == "private"
        assert (await agent.client.list_resources()).cache_scope == "public"
