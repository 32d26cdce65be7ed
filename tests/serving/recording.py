"""Records what the SDK answers on our server's behalf, for the front to answer the same before the SDK is imported."""

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

import anyio
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from lium_mcp.page import EXTENSION, MIME_TYPE
from lium_mcp.server import build_server
from lium_mcp.serving.lium_server import LiumServer
from lium_mcp.serving.prepared import (
    CURRENT,
    HANDSHAKE,
    HANDSHAKE_VERSIONS,
    ID,
    INSTRUCTIONS,
    ITEMS,
    PAGE,
    SAID_OF_PAGE,
    VERSION,
)
from lium_mcp.settings import Settings
from lium_mcp.toolkit.listing import read_listing
from tests.harness import ALL_TOOLSETS

LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_PREFIX: Final = "io.modelcontextprotocol/"


SHOWS_PAGES: Final[dict[str, Any]] = {"extensions": {EXTENSION: {"mimeTypes": [MIME_TYPE]}}}
"""The capabilities of a client that shows pages."""


def request(method: str, request_id: int | str, era: str, capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
    """A plain request of an era, which is `CURRENT` or one of the versions that shake hands."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
    if era == CURRENT:
        message["params"] = {
            "_meta": {
                f"{_PREFIX}protocolVersion": CURRENT,
                f"{_PREFIX}clientInfo": {"name": "anybody", "version": "1"},
                f"{_PREFIX}clientCapabilities": capabilities or {},
            }
        }
    elif method == "initialize":
        client = {"name": "anybody", "version": "1"}
        message["params"] = {"protocolVersion": era, "capabilities": capabilities or {}, "clientInfo": client}
    return message


def plain_requests(era: str, capabilities: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """All requests of an era whose answers are prepared, of a client with these capabilities."""
    first = "server/discover" if era == CURRENT else "initialize"
    return [request(method, number, era, capabilities) for number, method in enumerate([first, *LISTS, "ping"])]


async def answers_of(server: LiumServer, messages: Sequence[dict[str, Any]]) -> list[bytes]:
    """What the SDK answers on a connection of its own, one message after the other, as lines."""
    to_server, incoming = create_context_streams[SessionMessage | Exception](0)
    outgoing, from_server = create_context_streams[SessionMessage](0)
    lines = []
    async with anyio.create_task_group() as group:
        lowlevel = server._lowlevel_server
        group.start_soon(lowlevel.run, incoming, outgoing, lowlevel.create_initialization_options())
        for message in messages:
            await to_server.send(SessionMessage(jsonrpc_message_adapter.validate_python(message, by_name=False)))
            if "id" in message:
                answer = await from_server.receive()
                lines.append(answer.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        to_server.close()
        await from_server.aclose()
    return lines


async def record() -> bytes:
    """The content of the file."""
    everything = build_server(Settings(toolsets=ALL_TOOLSETS))
    needs = await _needs()
    rows: list[tuple[str, str, str, str, bytes]] = [("", "sdk", "", "", version("mcp").encode())]
    for era in (HANDSHAKE, CURRENT):
        asked = plain_requests(CURRENT if era == CURRENT else HANDSHAKE_VERSIONS[-1], SHOWS_PAGES)
        for message, line in zip(asked, await answers_of(everything, asked), strict=True):
            method = message["method"]
            answer = json.loads(line)
            text = line.removesuffix(b"\n").replace(b'"id":%d' % message["id"], b'"id":' + ID, 1)
            if "instructions" in answer.get("result", {}):
                text = text.replace(_dumped(answer["result"]["instructions"])[1:-1], INSTRUCTIONS, 1)
            if method == "initialize":
                text = text.replace(_dumped(HANDSHAKE_VERSIONS[-1]), b'"' + VERSION + b'"', 1)
            items = []
            if method in LISTS:
                items = _elements(text, LISTS[method])
                text = text.replace(b",".join(items), ITEMS, 1)
            rows.append((era, method, "", "", _without_page(method, text)))
            named = map(_named, items)
            rows += [(era, method, name, needs[method, name], _without_page(method, item)) for name, item in named]
    return b"".join(b"\t".join((*(part.encode() for part in row[:4]), row[4])) + b"\n" for row in rows)


def _without_page(method: str, text: bytes) -> bytes:
    """With a hole where something is said of the page."""
    return text.replace(SAID_OF_PAGE[method], PAGE) if method in SAID_OF_PAGE else text


async def _needs() -> dict[tuple[str, str], str]:
    """What each item needs: a tool its toolset, others the tools without any one of which they are not listed."""
    listing = read_listing()
    needs = {("tools/list", item.name): f"{item.toolset} {'reads' if item.read_only else 'writes'}" for item in listing}
    everything = await _listed(frozenset())
    missing = {item.name: everything - await _listed(frozenset((item.name,))) for item in listing}
    for item in everything:
        needs[item] = " ".join(tool for tool, gone in missing.items() if item in gone)
    return needs


async def _listed(denied: frozenset[str]) -> set[tuple[str, str]]:
    server = build_server(Settings(toolsets=ALL_TOOLSETS, deny_tools=denied))
    lists: dict[str, Iterable[Any]] = {
        "prompts/list": await server.list_prompts(),
        "resources/list": await server.list_resources(),
        "resources/templates/list": await server.list_resource_templates(),
    }
    return {(method, item.name) for method, items in lists.items() for item in items}


def _elements(line: bytes, key: str) -> list[bytes]:
    """The texts of the elements of a list, as they are written."""
    text = line.decode()
    place = text.index(f'"{key}":[') + len(f'"{key}":[')
    decoder, found = json.JSONDecoder(), []
    while text[place] != "]":
        start = place + (text[place] == ",")
        _, place = decoder.raw_decode(text, start)
        found.append(text[start:place].encode())
    return found


def _named(item: bytes) -> tuple[str, bytes]:
    return str(json.loads(item)["name"]), item


def _dumped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
