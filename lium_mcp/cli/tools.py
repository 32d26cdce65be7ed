"""``lium-mcp tools``: the tools that the settings offer, and what each costs in tokens."""

import sys
from typing import Any

import anyio

from lium_mcp.cli.readied import read, start_log
from lium_mcp.server import build_server, select_tools
from lium_mcp.toolkit.token_cost import tokens


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    settings = read(options)
    start_log(settings)
    listed = anyio.run(build_server(settings).list_tools)
    toolsets = {item.name: item.toolset for item in select_tools(settings)}
    for tool in listed:
        print(f"{tokens(tool):5}  {tool.name:24}{toolsets[tool.name]:13}{tool.title}")  # noqa: T201
    print(f"{sum(map(tokens, listed)):5}  tokens in {len(listed)} tools (bytes / 4 of name, description, parameters)")  # noqa: T201
    sys.stdout.flush()
    return 0
