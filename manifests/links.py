"""The links that install the server in a host, without a key. A test decodes each again."""

import base64
import json
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import quote, urlencode

from lium_mcp.hosts.host_entries import make_entry
from lium_mcp.hosts.host_facts import ENTRY_NAME
from manifests.host_files import SHIPPED, wish_of
from manifests.source import Source

_RUN_BY_GOOSE: Final = frozenset({"cu", "docker", "jbang", "npx", "uvx", "goosed"})
"""The only commands that Goose takes from a link."""


class Link(NamedTuple):
    """A link, and the host that it is for."""

    host: str
    url: str


def links(source: Source) -> Iterator[Link]:
    """Make the link of each host that has such."""
    for name, begin in (("cursor", "https://cursor.com/en/install-mcp"), ("lm-studio", "lmstudio://add_mcp")):
        config = base64.b64encode(_entry(source, name).encode()).decode()
        yield Link(name, f"{begin}?{urlencode({'name': ENTRY_NAME, 'config': config})}")
    inputs = {"inputs": [dict(item) for item in SHIPPED["vscode"].inputs]}
    config = json.dumps({"name": ENTRY_NAME, **json.loads(_entry(source, "vscode")), **inputs})
    yield Link("vscode", f"vscode:mcp/install?{quote(config, safe='')}")
    program, *arguments = source.command
    if program in _RUN_BY_GOOSE:
        words = [("cmd", program), *(("arg", argument) for argument in arguments), ("id", ENTRY_NAME)]
        told = urlencode([*words, ("name", source.title), ("description", source.summary)], quote_via=quote)
        yield Link("goose", f"goose://extension?{told}")


def _entry(source: Source, host: str) -> str:
    return json.dumps(make_entry(SHIPPED[host], wish_of(source, SHIPPED[host], "stdio")))
