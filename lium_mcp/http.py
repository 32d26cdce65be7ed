"""The server over HTTP: Streamable HTTP at /mcp and SSE at /sse, from one process, for one caller or many.

The caller's Lium key comes with each request in `X-API-Key` or `Authorization: Bearer`. The server's own key is used
only where every caller is on this machine. Host and Origin are always checked: a web page that a person visits must not
be able to spend their money.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from lium_mcp import __version__
from lium_mcp.server import LiumServer
from lium_mcp.settings import Settings, SettingsError, is_loopback

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 2**20
_STOP_SECONDS: Final = 3
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


def check_binding(settings: Settings) -> None:
    """Refuse to listen to other machines without knowing under which names they may call.

    Raises:
        SettingsError: the host is not loopback and no allowed host is named.
    """
    if not is_loopback(settings.host) and not settings.allowed_host:
        raise SettingsError(
            f"LIUM_MCP_HOST: {settings.host} can be reached from other machines; name the host names under which they "
            "call with LIUM_MCP_ALLOWED_HOST (--allowed-host), since any web page could call otherwise"
        )


def build_app(server: LiumServer, settings: Settings) -> Starlette:
    """Build the web application around a server."""
    security = _security(settings)
    streamable = server.streamable_http_app(transport_security=security, max_request_body_size=MAX_BODY_BYTES)
    sse = server.sse_app(transport_security=security, max_request_body_size=MAX_BODY_BYTES)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server.session_manager.run():
            yield

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__})

    return Starlette(routes=[Route("/healthz", health), *streamable.routes, *sse.routes], lifespan=lifespan)


async def serve_http(server: LiumServer, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; open streams do not hold it up for longer than a few seconds.

    Raises:
        SettingsError: the address cannot be listened at safely, or at all.
    """
    check_binding(settings)
    config = uvicorn.Config(
        build_app(server, settings),
        host=settings.host.strip("[]"),
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    log.info("Serving /mcp and /sse at http://%s:%s", settings.host, settings.port)
    await uvicorn.Server(config).serve()


def _security(settings: Settings) -> TransportSecuritySettings:
    names = [*settings.allowed_host, *(_LOOPBACK_NAMES if is_loopback(settings.host) else ())]
    hosts = [variant for name in sorted(names) for variant in (name, f"{name}:*")]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
