"""MCP middleware that tells the hosts that show pages of ours, and nobody else: they alone can do anything with it."""

from typing import Any

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult

from lium_mcp.page import CARRIED, CARRIED_BY, EXTENSIONS, is_shown


async def offer_page(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Let the tools that carry the page say so to a host that shows it."""
    result = await call_next(ctx)
    capabilities = ctx.session.client_capabilities
    if not isinstance(result, dict) or capabilities is None or not is_shown(capabilities.extensions):
        return result
    if ctx.method == "server/discover":
        return result | {"capabilities": result["capabilities"] | {"extensions": EXTENSIONS}}
    if ctx.method == "tools/list":
        return result | {"tools": [_carrying(tool) for tool in result["tools"]]}
    return result


def _carrying(tool: dict[str, Any]) -> dict[str, Any]:
    return tool | {"_meta": tool["_meta"] | CARRIED} if tool["name"] in CARRIED_BY else tool
