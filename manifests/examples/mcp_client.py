# /// script
# requires-python = ">=3.11"
# dependencies = ["mcp>=2.3,<3"]
# ///
"""Call Lium's tools yourself, with the plain `mcp` client: print the cheapest GPU types.

Run it with `uv run mcp_client.py`; add `--sandbox` to try it without a key.
"""

import asyncio
import os
import sys

from mcp import Client, MCPError, StdioServerParameters

SERVER = StdioServerParameters(
    command="lium-mcp",
    args=sys.argv[1:],
    # The client passes on next to nothing of its own environment: what the server needs is named here.
    env={"LIUM_API_KEY": os.environ.get("LIUM_API_KEY", "")},
)


async def main() -> str | None:
    """List the tools, then call one; return what it said where it failed."""
    async with Client(SERVER) as lium:
        tools = (await lium.list_tools()).tools
        print(f"{len(tools)} tools: {', '.join(tool.name for tool in tools)}")
        result = await lium.call_tool("get_gpu_prices", {})
        if result.is_error or result.structured_content is None:
            return "\n".join(getattr(part, "text", "") for part in result.content)
        for gpu in result.structured_content["gpu_types"][:5]:
            print(f"{gpu['gpu_type']:24} {gpu['free_gpus']:4} free, from ${gpu['min_usd']:.2f} per GPU and hour")
    return None


problem = None
try:
    problem = asyncio.run(main())
except* OSError as group:
    problem = f"{SERVER.command} cannot be started: {group.exceptions[0]}"
except* MCPError:
    problem = f"{SERVER.command} ended before it answered; `{SERVER.command} doctor` says why"
sys.exit(problem)
