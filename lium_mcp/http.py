"""The server over HTTP: Streamable HTTP at /mcp and SSE at /sse, from one process, for one caller or many.

The caller's Lium key comes with each request in `X-API-Key` or `Authorization: Bearer`. The server's own key is used
only where every caller is on this machine. Host and Origin are always checked: a web page that a person visits must not
be able to spend their money.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import anyio
import uvicorn
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp import __version__
from lium_mcp.calls import LiumServer
from lium_mcp.hangup import Hangups
from lium_mcp.settings import Settings, SettingsError, is_loopback

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 2**20
# Together with the first look at the signal, less than the 5 seconds after which supervisors lose patience.
_WIND_DOWN_SECONDS: Final = 3.0
_LAST_ANSWERS_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 1
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


def build_app(server: LiumServer, settings: Settings) -> Hangups:
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

    routes = [Route("/healthz", health), *streamable.routes, *sse.routes]
    return Hangups(_guarded(Starlette(routes=routes, lifespan=lifespan), security))


async def serve_http(server: LiumServer, settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; open streams and running calls do not hold it up for longer than a few seconds.

    Raises:
        SettingsError: the address cannot be listened at safely, or at all.
    """
    check_binding(settings)
    app = build_app(server, settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    with _listening(settings) as listener:
        host = settings.host if settings.host[0] == "[" or ":" not in settings.host else f"[{settings.host}]"
        address = f"http://{host}:{listener.getsockname()[1]}"
        log.info("Serving %s/mcp and %s/sse", address, address)
        await _WebServer(config, app, server).serve(sockets=[listener])


class _WebServer(uvicorn.Server):
    """Stops in an order that loses no answer: calls first, then streams, then connections."""

    def __init__(self, config: uvicorn.Config, app: Hangups, server: LiumServer) -> None:
        super().__init__(config)
        self._app = app
        self._mcp = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        ended = await self._mcp.wind_down(_WIND_DOWN_SECONDS)
        # An answer still has to pass the SDK's own streams once its call has ended.
        await anyio.sleep(_LAST_ANSWERS_SECONDS)
        if not ended:
            os._exit(1)  # an orderly end would wait for what does not end
        self._app.hang_up()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        installed = []
        for number in (signal.SIGINT, signal.SIGTERM):
            # Not in a thread, and not on Windows: uvicorn's own way would raise the signal once more at the end.
            with suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._stop)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True


def _listening(settings: Settings) -> socket.socket:
    host = settings.host.strip("[]")
    try:
        listener = socket.create_server(
            (host, settings.port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "there is no such address"
        raise SettingsError(
            f"LIUM_MCP_HOST, LIUM_MCP_PORT: cannot listen at {host}:{settings.port}: {reason}"
        ) from None
    # asyncio sets this only on sockets that name their protocol; without it each answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _guarded(app: ASGIApp, settings: TransportSecuritySettings) -> ASGIApp:
    """Check Host and Origin before anything else; only whether the server lives may be asked from anywhere."""
    security = TransportSecurityMiddleware(settings)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/healthz":
            refusal = await security.validate_request(Request(scope, receive))
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def _security(settings: Settings) -> TransportSecuritySettings:
    names = [name.lower() for name in settings.allowed_host]
    if is_loopback(settings.host):
        names += _LOOPBACK_NAMES
    hosts = [variant for name in sorted(names) for variant in (name, f"{name}:*")]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
