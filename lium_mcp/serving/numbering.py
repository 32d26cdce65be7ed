"""Each request gets a reference: all lines of the log that belong to it carry it, and its answer over HTTP does too.

It is this server's own, since what clients number their requests with may be any text, and is used again and again. A
trusted proxy may give one to a request, so that one reference goes through the logs of both.
"""

import re
import secrets
from typing import Any, Final

from mcp.server import ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.observing import in_request

_HEADER: Final = "X-Request-Id"
_REFERENCE: Final = "lium_mcp.reference"
# What proxies make, and nothing that is a word.
_OF_PROXIES: Final = re.compile(r"[0-9a-fA-F-]{16,64}")


def numbered(app: ASGIApp, *, proxied: bool) -> ASGIApp:
    """Give each request over HTTP a reference; with `proxied`, the one in its header if it has one."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        given = Headers(scope=scope).get(_HEADER, "") if proxied else ""
        reference = scope[_REFERENCE] = given if _OF_PROXIES.fullmatch(given) else _new()

        async def send_with_reference(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_HEADER] = reference
            await send(message)

        with in_request(reference):
            await app(scope, receive, send_with_reference)

    return served


async def number(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware: serve a message under its request's reference, wherever its session has its task."""
    scope: Scope = getattr(ctx.request, "scope", {})
    with in_request(scope.get(_REFERENCE) or _new()):
        return await call_next(ctx)


def _new() -> str:
    return secrets.token_hex(8)
