"""The server over HTTP: Streamable HTTP at /mcp and SSE at /sse, from one process, for one caller or many.

The caller's Lium key comes with each request in `X-API-Key` or `Authorization: Bearer`. The server's own key is used
only where every caller is on this machine, and only for those that show the server token. A session belongs to who
opened it.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Protocol, cast

import anyio
import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import INVALID_REQUEST
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp import __version__
from lium_mcp.observing import observe
from lium_mcp.serving.binding import address_of_listener, check_binding, check_metrics, listen
from lium_mcp.serving.call_bounds import CallBounds, told
from lium_mcp.serving.callers import CALLER, Caller, Callers, doubled_in_headers
from lium_mcp.serving.door import HEALTH, MESSAGES, READY, found_below, guarded, in_any_form
from lium_mcp.serving.hangup import Hangups, listening
from lium_mcp.serving.lium_server import LiumServer
from lium_mcp.serving.numbering import numbered
from lium_mcp.serving.open_connections import BoundedProtocol, ConnectionBounds, OpenConnections
from lium_mcp.serving.probes import Readiness
from lium_mcp.serving.repeats import Repeats
from lium_mcp.serving.replica_names import elsewhere, named, no_sessions, without_sessions
from lium_mcp.serving.sessions import SessionBounds, Sessions
from lium_mcp.serving.shared_ledger import doubts_about_ledger
from lium_mcp.serving.traced import traced
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError

log = logging.getLogger(__name__)


_BACKLOG: Final = 128
_SAYS_AGAIN_SECONDS: Final = 60.0
# Loggers that anybody who reaches the port can make warn.
_TALKERS: Final = (
    *("asyncio", "mcp", "uvicorn", "sse_starlette"),
    *(f"lium_mcp.serving.{name}" for name in ("open_connections", "door", "sessions", "call_bounds")),
)
_LAST_ANSWERS_SECONDS: Final = 0.2
_ANSWERED_HERE: Final = (
    "Of the questions that persons are asked, only this process takes the answers: replicas behind one address need "
    "LIUM_MCP_STATE_KEYS"
)
_CLOSE_SECONDS: Final = 1


class Gate(Protocol):
    """Tells who sent a request."""

    async def identify(self, scope: Scope) -> Caller | Response:
        """Who sent it; or the answer to it, where that may not come in."""


class Desk(Protocol):
    """What stands beside MCP where callers do not just send keys."""

    @property
    def gate(self) -> Gate:
        """Tells who sent a request."""

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What clients and browsers ask besides."""

    @property
    def is_page(self) -> bool:
        """Whether it is a page of its own, so that no other page may call."""

    @property
    def aclose(self) -> Callable[[], Awaitable[None]]:
        """Closes what it has open."""


def bound_calls(server: LiumServer, settings: Settings) -> Repeats:
    """Bound how many calls the callers of a server may make, and keep answers for those who ask the same."""
    calls = CallBounds(settings.calls_at_once, settings.calls_per_minute)
    repeats = Repeats(server.readers, calls, server.repeating)
    server.middleware.extend((calls.bounded, repeats.note_call))
    return repeats


def build_app(
    server: LiumServer,
    settings: Settings,
    sessions: Sessions,
    readiness: Readiness,
    repeats: Repeats,
    open_desk: Callable[[Callers], Desk] | None = None,
) -> Hangups:
    """Build the web application around a server; `open_desk` makes what lets callers log in, where they do."""
    # Host and Origin are checked before anything else, and bodies before anything of the SDK's.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    server.streamable_http_app(transport_security=unchecked, json_response=True, stateless_http=True)
    json = server.session_manager
    streamable = server.streamable_http_app(
        transport_security=unchecked,
        stateless_http=settings.stateless,
        session_idle_timeout=None,
        max_sessions=None,
    )
    streams = server.session_manager
    replica = settings.find_replica()
    sse = server.sse_app(message_path=f"{MESSAGES}{replica}/", transport_security=unchecked)

    def streamable_in_any_form(app: ASGIApp) -> ASGIApp:
        streamed = app if settings.stateless else sessions.opening(server.request_ids.once_posted(app))
        in_either = in_any_form(streamed, listening(json.handle_request))
        served = readiness.taking_calls(told(repeats.answering(in_either)))
        return (
            without_sessions(sessions.bodies(served))
            if settings.stateless
            else named(sessions.streamable(served), replica)
        )

    bound: dict[str, Callable[[ASGIApp], ASGIApp]] = {
        "/mcp": streamable_in_any_form,
        "/sse": lambda app: no_sessions() if settings.stateless else readiness.taking_calls(sessions.sse(app)),
        f"{MESSAGES}{replica}": lambda app: sessions.bodies(readiness.taking_calls(server.request_ids.of_sse(app))),
    }
    routes = [route for route in (*streamable.routes, *sse.routes) if isinstance(route, Route | Mount)]
    for route in routes:
        route.app = bound[route.path](route.app)
    routes.append(Mount(MESSAGES, sessions.bodies(elsewhere(replica))))

    callers = _callers(settings)
    desk = open_desk(callers) if open_desk else None

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with streams.run(), json.run(), anyio.create_task_group() as group:
            group.start_soon(sessions.close_idle)
            group.start_soon(readiness.look)
            yield
            group.cancel_scope.cancel()
        if desk is not None:
            await desk.aclose()

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "version": __version__})

    own_routes = [Route(HEALTH, health), Route(READY, readiness.answer), *(desk.routes if desk else ())]
    app = Starlette(routes=[*own_routes, *routes], lifespan=lifespan)
    identified = _identified(app, desk.gate.identify if desk else _without_logins(callers))
    found = found_below(guarded(identified, settings, is_page=desk is not None and desk.is_page), settings.path_prefix)
    return Hangups(numbered(found, proxied=bool(settings.trusted_proxy)))


async def serve_http(
    server: LiumServer,
    settings: Settings,
    connections: ConnectionBounds | None = None,
    sessions: SessionBounds | None = None,
    open_desk: Callable[[Callers], Desk] | None = None,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGINT or SIGTERM, and for `shutdown_delay_seconds` more, which a second signal ends.

    Then open streams and running calls hold it up for `drain_seconds` at most.

    `on_ready` gets the address once it can be called.

    Raises:
        SettingsError: the address cannot be listened at safely, or at all.
    """
    check_binding(settings)
    readiness = Readiness(server.check)
    opened = Sessions(sessions or SessionBounds())
    bounds = connections or ConnectionBounds()
    table = OpenConnections(bounds, settings.trusted_proxy)
    repeats = bound_calls(server, settings)
    app = build_app(server, settings, opened, readiness, repeats, open_desk)

    async def drain(told_again: anyio.Event) -> bool:
        readiness.leave()
        with anyio.move_on_after(settings.shutdown_delay_seconds):
            await told_again.wait()
        readiness.drain()
        return await server.wind_down(settings.drain_seconds)

    with listen(settings, "port") as listener, _talking_once():
        tools = [tool.name for tool in await server.list_tools()]
        async with _showing_metrics(settings, opened, table, repeats), traced(tools, server.middleware):
            address = f"{address_of_listener(settings, listener)}{settings.path_prefix}"
            for doubt in doubts_about_ledger(settings):
                log.warning(doubt)
            log.info("Serving %s/mcp%s", address, "" if settings.stateless else f" and {address}/sse")
            on_ready(address)
            if not settings.is_local and not settings.find_state_keys():
                log.info(_ANSWERED_HERE)
            await _WebServer(_config(app, table, settings), app, drain).serve(sockets=[listener])


def _config(app: ASGIApp, connections: OpenConnections, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(BoundedProtocol, connections)),
        ws="none",
        backlog=_BACKLOG,
        # Whose `X-Forwarded-For` is believed.
        proxy_headers=bool(settings.trusted_proxy),
        forwarded_allow_ips=sorted(settings.trusted_proxy),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )


@asynccontextmanager
async def _showing_metrics(
    settings: Settings, sessions: Sessions, connections: OpenConnections, repeats: Repeats
) -> AsyncIterator[None]:
    """Count what this process does in the block, and show it at a port of its own, if the settings name one."""
    if settings.metrics_port is None:
        yield
        return
    check_metrics(settings)
    from lium_mcp.serving.metrics import Metrics  # noqa: PLC0415 - its library is there only where it is wanted

    metrics = Metrics(lambda: sessions.count, lambda: connections.count, lambda: repeats.count)
    observe(metrics.observe)
    with listen(settings, "metrics_port") as listener:
        log.info("Serving %s/metrics", address_of_listener(settings, listener))
        web = _SideServer(_config(metrics.app(settings.allowed_host), OpenConnections(connections.bounds), settings))
        async with anyio.create_task_group() as group:
            group.start_soon(web.serve, [listener])
            yield
            web.should_exit = True


class _SideServer(uvicorn.Server):
    """Leaves signals to the server that it stands beside."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _WebServer(uvicorn.Server):
    """Stops in an order that loses no answer: calls first, then streams, then connections.

    It listens for as long as calls run: whoever comes is told to go elsewhere, and whoever watches sees it stop.

    Args:
        drain: Lets calls end, and returns whether they did. It is given what a second signal sets.
    """

    def __init__(self, config: uvicorn.Config, app: Hangups, drain: Callable[[anyio.Event], Awaitable[bool]]) -> None:
        super().__init__(config)
        self._app = app
        self._drain = drain
        self._told_again = anyio.Event()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ended = await self._drain(self._told_again)
        await self._stop_listening(sockets or [])
        # An answer still has to pass the SDK's own streams once its call has ended.
        await anyio.sleep(_LAST_ANSWERS_SECONDS)
        if not ended:
            logging.shutdown()
            os._exit(1)  # an orderly end would wait for what does not end
        self._app.hang_up()
        await super().shutdown(sockets)

    async def _stop_listening(self, listeners: Sequence[socket.socket]) -> None:
        """Take in who has come already: to close a listener cuts off whom nobody has taken in, maybe with a request."""
        arrived = []
        for listener in listeners:
            with suppress(OSError):  # nobody else has come, or there is no descriptor left
                while True:
                    arrived.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        for connection in arrived:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

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
        if self.should_exit:
            self._told_again.set()
        self.should_exit = True


@contextmanager
def _talking_once() -> Iterator[None]:
    """Keep callers who cannot even open a session from filling the log."""
    said = _SaidOnce()
    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(said)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(said)


class _SaidOnce(logging.Filter):
    """Lets each place in the code of a talker warn once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING or not record.name.startswith(_TALKERS):
            return True
        # The text may hold what a caller sent; the place does not.
        place = record.pathname, record.lineno, record.exc_info[0] if record.exc_info else None
        now = time.monotonic()
        if now - self._said.get(place, -_SAYS_AGAIN_SECONDS) < _SAYS_AGAIN_SECONDS:
            return False
        self._said[place] = now
        return True


def _callers(settings: Settings) -> Callers:
    path, token = settings.server_token_path, settings.find_server_token()
    if path is not None and token is None:
        raise SettingsError(f"LIUM_MCP_SERVER_TOKEN: {path}: there is no token, and without one anybody would do")
    return Callers(
        guarded=settings.is_local and settings.find_api_key() is not None,
        token=token,
        token_place=f"in the file {_shown(path)}" if path else "what LIUM_MCP_SERVER_TOKEN is set to",
    )


def _shown(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _without_logins(callers: Callers) -> Callable[[Scope], Awaitable[Caller | Response]]:
    async def identify(scope: Scope) -> Caller | Response:
        return callers.identify(Headers(scope=scope))

    return identify


def _identified(app: ASGIApp, identify: Callable[[Scope], Awaitable[Caller | Response]]) -> ASGIApp:
    """Say in the scope who sent a request, to us and to the SDK, which then keeps others out of their sessions."""

    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            doubled = doubled_in_headers(Headers(scope=scope))
            caller = _answer_to_doubled(doubled) if doubled else await identify(scope)
            if isinstance(caller, Response):
                await caller(scope, receive, send)
                return
            scope[CALLER] = caller
            if caller.owner is not None:
                scope["user"] = AuthenticatedUser(AccessToken(token="", client_id=caller.owner, scopes=[]))
        await app(scope, receive, send)

    return identified


def _answer_to_doubled(header: str) -> Response:
    said = (
        f"The header {header} came more than once, with different values: whose request this is cannot be told, and "
        "nothing was done. Send it once; a proxy in between may be adding its own"
    )
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": INVALID_REQUEST, "message": said}}, 400)
