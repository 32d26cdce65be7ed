"""Serves the page and MCP to a browser on this machine, for the commands that show it."""

from collections.abc import Callable
from importlib import import_module

from pydantic import SecretStr

from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.cli.readied import start_log
from lium_mcp.connecting import SANDBOX_BASE_URL
from lium_mcp.guard.redaction import Redactor
from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.serving.audit_trail import start_trail
from lium_mcp.serving.dashboard import Dashboard, Entrance, new_token
from lium_mcp.serving.http import serve_http
from lium_mcp.settings import Settings
from lium_mcp.settings_table import OVER_HTTP, SECRETS_OVER_HTTP


async def serve_page(
    settings: Settings, on_ready: Callable[[str, str], None], *, port: int = 0, sandbox: Sandbox | None = None
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: Those of a server that a host starts: what is set for one over HTTP counts for nothing here.
        on_ready: Gets the address of the page, and the token that opens it once.
        port: On 127.0.0.1; 0 takes a free one.
        sandbox: The simulated Lium to look at, if it is one.

    Raises:
        SettingsError: the port cannot be listened at.
    """
    session = new_token()
    usual = {name: Settings.model_fields[name].default for name in (*OVER_HTTP, *SECRETS_OVER_HTTP)}
    own = {"transport": "stdio", "port": port, "server_token": SecretStr(session)}
    simulated = {"sandbox": True, "base_url": SANDBOX_BASE_URL} if sandbox else {}
    settings = settings.model_copy(update=usual | own | simulated)
    start_log(settings)
    start_trail(settings.audit_file, Redactor(settings.find_secrets()))
    server = build_server(settings, transport=sandbox.transport() if sandbox else None)
    import_module("lium_mcp.tools.catalog")  # the page calls at once
    entrance = Entrance(session, SYSTEM_CLOCK)
    await serve_http(
        server,
        settings.model_copy(update={"transport": "http"}),
        open_desk=lambda callers: Dashboard(callers, session, entrance, sandbox.app if sandbox else None),
        on_ready=lambda address: on_ready(f"{address}/", entrance.token),
    )
