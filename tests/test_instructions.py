"""The server's instructions promise no tool that it does not offer."""

import re

import pytest

from lium_mcp.instructions import MOST_CHARACTERS
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.tools.catalog import TOOLSETS

TOOLS = {spec.name for toolset in TOOLSETS for spec in toolset.specs}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(read_only=True),
        Settings(toolsets=frozenset({"account"})),
        Settings(deny_tools=frozenset({"rent_pod", "remove_pod"})),
        Settings(toolsets=frozenset(toolset.name for toolset in TOOLSETS)),
    ],
)
async def test_only_offered_tools_are_named_within_the_length(settings: Settings) -> None:
    server = build_server(settings)
    offered = {tool.name for tool in await server.list_tools()}
    text = server.instructions or ""
    assert 0 < len(text) <= MOST_CHARACTERS
    named = set(re.findall(r"[a-z]+(?:_[a-z]+)+", text)) & TOOLS
    assert named <= offered
    assert ("only reads" in text) == ("rent_pod" not in offered and "remove_pod" not in offered)
