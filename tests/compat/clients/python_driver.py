"""A visit with the Python SDK 1.x. Runs in that SDK's own environment, so it imports nothing of this repository."""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# By name, since this repository's own SDK is another version, with other types.
mcp: Any = importlib.import_module("mcp")
stdio: Any = importlib.import_module("mcp.client.stdio")
sse: Any = importlib.import_module("mcp.client.sse")
http: Any = importlib.import_module("mcp.client.streamable_http")


@asynccontextmanager
async def streams(target: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
    if target["transport"] == "stdio":
        command, *arguments = target["command"]
        server = mcp.StdioServerParameters(command=command, args=arguments, env=target["env"])
        async with stdio.stdio_client(server) as both:
            yield both
    elif target["transport"] == "sse":
        async with sse.sse_client(target["url"], headers=target["headers"]) as both:
            yield both
    else:
        async with http.streamablehttp_client(target["url"], headers=target["headers"]) as (read, write, _):
            yield read, write


async def visit(target: dict[str, Any]) -> dict[str, Any]:
    progress: list[str | None] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        progress.append(message)

    async with streams(target) as (read, write), mcp.ClientSession(read, write) as session:
        opened = await session.initialize()
        report = {
            "protocol": opened.protocolVersion,
            "server": opened.serverInfo.name,
            "instructions": opened.instructions,
            "tools": [tool.name for tool in (await session.list_tools()).tools],
            "prompts": [prompt.name for prompt in (await session.list_prompts()).prompts],
            "resources": [str(resource.uri) for resource in (await session.list_resources()).resources],
            "balance": (await session.call_tool("get_balance", {})).structuredContent,
        }
        rented = await session.call_tool("rent_pod", target["rent"], progress_callback=on_progress)
        failure = await session.call_tool("get_pod", {"pod": "nobody"})
        await session.call_tool("remove_pod", {"pod": "train", "wait_seconds": 0})
    return report | {
        "rented": rented.structuredContent,
        "progress": progress,
        "failure": {"isError": failure.isError, "text": failure.content[0].text},
    }


sys.stdout.write(json.dumps(asyncio.run(visit(json.load(sys.stdin)))))
