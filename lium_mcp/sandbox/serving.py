"""The sandbox over HTTP on one local port."""

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final, Literal

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lium_mcp.sandbox.control import PREFIX
from lium_mcp.sandbox.refusals import ConnectionDropped
from lium_mcp.sandbox.sandbox import Sandbox

SHUTDOWN_SECONDS = 3
_OWN_HOST: Final = re.compile(r"(?i:127\.0\.0\.1|localhost\.?|\[::1\])(?::[0-9]+)?")


async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 7,
    speed: float = 1.0,
    profile: Literal["plain", "rough"] = "plain",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a fresh sandbox, with SSH, until SIGINT, SIGTERM or cancellation.

    ``on_ready`` gets the API's base address.
    """
    sandbox = Sandbox(seed=seed, speed=speed, ssh=True, profile=profile)
    await serve_sandbox(sandbox, host=host, port=port, on_ready=on_ready)


async def serve_sandbox(
    sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0, on_ready: Callable[[str], None] | None = None
) -> None:
    """Serve a sandbox that the caller has made, until SIGINT, SIGTERM or cancellation.

    ``on_ready`` gets the API's base address once it is served, and a signal would end it.
    """
    connections: dict[tuple[str, int], asyncio.Transport] = {}
    config = uvicorn.Config(
        _dropping(_under_own_name(sandbox.app), connections),
        http=_tracked_protocol(connections),
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        # asyncio sets this only on sockets that name their protocol; without it each answer waits 40 ms for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _QuietServer(config, sandbox)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            await server.begun.wait()
            if on_ready is not None:
                shown = f"[{host}]" if ":" in host else host
                on_ready(f"http://{shown}:{listener.getsockname()[1]}/api")
            await asyncio.shield(serving)
        finally:
            server.should_exit = True
            # Some callers cancel again at every step; the server still closes its sockets first.
            while not serving.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(serving)


class _QuietServer(uvicorn.Server):
    """A server that ends quietly on a signal, instead of raising the signal again at its end."""

    def __init__(self, config: uvicorn.Config, sandbox: Sandbox) -> None:
        super().__init__(config)
        self._sandbox = sandbox
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.begun.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._sandbox.close()
        await super().shutdown(sockets)
        await self._sandbox.aclose()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        installed = []
        for number in signals:
            # This fails in a thread and on Windows: there the caller ends the server by cancellation.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._stop)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True


def _tracked_protocol(connections: dict[tuple[str, int], asyncio.Transport]) -> type[H11Protocol]:
    """Return a protocol that notes which socket belongs to which peer: ASGI gives no way to close one."""

    class TrackedProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in uvicorn
            super().connection_made(transport)
            if self.client is not None:
                connections[self.client] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            if self.client is not None:
                connections.pop(self.client, None)
            super().connection_lost(exc)

    return TrackedProtocol


def _under_own_name(app: ASGIApp) -> ASGIApp:
    """Let the control routes be called under the names of this machine alone.

    A page elsewhere may have its own name lead here: then that is the Host, and its browser sends no Origin.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "")
        if scope["path"].startswith(PREFIX) and not _OWN_HOST.fullmatch(host):
            refusal = JSONResponse({"error": "only under a name of this machine, such as 127.0.0.1"}, 421)
            await refusal(scope, receive, send)
            return
        await app(scope, receive, send)

    return wrapped


def _dropping(app: ASGIApp, connections: dict[tuple[str, int], asyncio.Transport]) -> ASGIApp:
    """Wrap the app so that a dropped connection is closed without a byte."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ConnectionDropped:
            connection = connections.get(tuple(scope["client"]))
            if connection is not None:
                connection.abort()
            while (await receive())["type"] != "http.disconnect":
                pass

    return wrapped
