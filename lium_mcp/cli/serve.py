"""``lium-mcp serve``, which is what hosts start: serve over standard input and output, or over HTTP."""

import gc
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final

from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.output import check_output, say_wrong
from lium_mcp.cli.readied import start_log
from lium_mcp.guard.redaction import Redactor, redact_text
from lium_mcp.guard.server_token import ServerTokenError, make_token
from lium_mcp.serving.audit_trail import start_trail
from lium_mcp.serving.front import Front
from lium_mcp.serving.logs import log_to_stderr
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import as_given
from lium_mcp.values import SettingsError

_GREETING = (
    "This serves MCP over standard input and output, and waits for an MCP host to write to it: hosts start it "
    "themselves. To see it work, run: lium-mcp demo. What there is: lium-mcp --help. Ctrl-C ends it."
)

_MOST_NEW_OBJECTS: Final = 10_000


def run(options: dict[str, Any], front: Front | None = None) -> int:
    """Serve until the client or the system ends it; the exit status is the answer.

    Args:
        options: What the command line says.
        front: What has answered meanwhile, if anything has.
    """
    os.umask(0o077)  # what a server writes is for its own user
    # Start-up is nearly all imports: nothing they allocate is garbage, and nothing of it ever will be.
    gc.disable()
    import anyio  # noqa: PLC0415

    from lium_mcp.server import build_server, find_login_desk, read_settings  # noqa: PLC0415
    from lium_mcp.serving.lium_server import serve_stdio  # noqa: PLC0415

    settings, problems = read_settings(options)
    if settings.transport != "stdio":
        from lium_mcp.serving.binding import find_problems  # noqa: PLC0415

        problems = [*dict.fromkeys([*problems, *as_given(find_problems(settings, problems), options)])]
    if problems:
        if settings.transport != "stdio" or seen_by_a_person():
            raise SettingsError(*problems)
        return refuse(settings, problems, front)
    if settings.transport == "stdio":
        check_output()
    _make_server_token(settings)
    start_log(settings)
    start_trail(settings.audit_file, Redactor(settings.find_secrets()))
    server = build_server(settings)
    if settings.transport != "stdio":
        from lium_mcp.serving.http import serve_http  # noqa: PLC0415

        import_module("lium_mcp.tools.catalog")  # nobody waits for this start, and many for the first call
        # Each reading of the market makes so many objects that all others would be looked through again and again. And
        # what a call makes goes with it: nearly nothing is found where it is looked for after each.
        gc.freeze()
        gc.set_threshold(_MOST_NEW_OBJECTS)
        gc.enable()
        anyio.run(partial(serve_http, server, settings, open_desk=find_login_desk(settings)))
        return 0
    gc.freeze()
    gc.enable()
    if seen_by_a_person():
        print(_GREETING, file=sys.stderr, flush=True)  # noqa: T201
    anyio.run(serve_stdio, server, front)
    return 0


def refuse(settings: Settings, problems: Sequence[str], front: Front | None = None) -> int:
    """Serve a host that started this with wrong settings: it lists the tools, and hears at each call what is wrong."""
    import anyio  # noqa: PLC0415

    from lium_mcp.server import build_refusing_server  # noqa: PLC0415
    from lium_mcp.serving.lium_server import serve_stdio  # noqa: PLC0415

    say_wrong(SettingsError(*problems))
    log_to_stderr(settings.log_level, redact_text, as_json=settings.log_format == "json")
    anyio.run(serve_stdio, build_refusing_server(settings, problems), front)
    return ExitStatus.UNUSABLE


def seen_by_a_person() -> bool:
    """Whether a person sees what is printed; hosts show nobody."""
    return sys.stdin.isatty()


def _make_server_token(settings: Settings) -> None:
    """Make the token that callers over HTTP need, if they need one, and say where it is; a new one is shown once."""
    path = settings.server_token_path
    if path is None:
        return
    try:
        made = make_token(path)
    except ServerTokenError as error:
        raise SettingsError(f"LIUM_MCP_SERVER_TOKEN: {error}") from None
    shown = f"\nIt was made just now, and is not shown again: {settings.find_server_token()}" if made else ""
    print(  # noqa: T201
        "Only callers that send the server token in the header X-Lium-MCP-Token use this server's own Lium key.\n"
        f"The token is in {path}{shown}",
        file=sys.stderr,
        flush=True,
    )
