"""Where a server over HTTP listens, and all that is wrong with that before it does."""

import os
import socket
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from typing import Final

from lium_mcp.package_extras import lacks
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import are_about, problems_of
from lium_mcp.settings_table import SETTINGS
from lium_mcp.values import SettingsError, is_loopback


def find_problems(settings: Settings, known: Collection[str]) -> list[str]:
    """Say what keeps a server with these settings from being reached over HTTP, all of it.

    Args:
        settings: What was read of them.
        known: What is wrong with them already: what depends on a setting that could not be read is not judged.
    """
    return problems_of(*(partial(check, settings) for check, needs in _CHECKS if not are_about(known, needs)))


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


def check_metrics(settings: Settings) -> None:
    """Refuse to show metrics without the library for them, or where callers come in.

    Raises:
        SettingsError: it is not installed, or the port is that of the server.
    """
    if settings.metrics_port is None:
        return
    if find_spec("prometheus_client") is None:
        raise SettingsError(f"LIUM_MCP_METRICS_PORT: metrics need a library, {lacks('metrics')}")
    if settings.metrics_port == settings.port != 0:
        raise SettingsError("LIUM_MCP_METRICS_PORT: it is the port of the server itself; another one is needed")


def listen(settings: Settings, name: str) -> socket.socket:
    """Listen at the port of a setting.

    Raises:
        SettingsError: it is not possible.
    """
    host, port = settings.host.strip("[]"), getattr(settings, name)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "there is no such address"
        raise SettingsError(
            f"LIUM_MCP_HOST, {SETTINGS[name].variable}: cannot listen at {host}:{port}: {reason}"
        ) from None
    # asyncio sets this only on sockets that name their protocol; without it each answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def address_of_listener(settings: Settings, listener: socket.socket) -> str:
    """The address under which this machine reaches a listener."""
    host = settings.host if settings.host[0] == "[" or ":" not in settings.host else f"[{settings.host}]"
    return f"http://{host}:{listener.getsockname()[1]}"


def _check_listening(settings: Settings) -> None:
    listen(settings, "port").close()


def _check_listening_for_metrics(settings: Settings) -> None:
    if settings.metrics_port is not None:
        listen(settings, "metrics_port").close()


_CHECKS: Final[tuple[tuple[Callable[[Settings], object], tuple[str, ...]], ...]] = (
    (check_binding, ("host", "allowed_host")),
    (_check_listening, ("host", "port")),
    (_check_listening_for_metrics, ("host", "metrics_port")),
    (check_metrics, ("port", "metrics_port")),
    (Settings.find_server_token, ("api_key", "server_token", "host", "allowed_host")),
)
