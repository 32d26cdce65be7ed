"""``lium-mcp dashboard``: pods, money and market on a page, in a browser on this machine."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from lium_mcp.cli.browser import Opening, has_browser
from lium_mcp.cli.console import say
from lium_mcp.cli.page_serving import serve_page
from lium_mcp.cli.readied import read
from lium_mcp.sandbox import Sandbox
from lium_mcp.serving.dashboard import ENTRY_MINUTES
from lium_mcp.settings import Settings


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    os.umask(0o077)  # as of any server: what it writes is for its own user
    opens, port = not options.pop("no_browser"), options.pop("port")
    settings = read(options | {"transport": "stdio"})
    with TemporaryDirectory(prefix="lium-mcp-") as folder:
        anyio.run(_serve, settings, port, Path(folder) / "open.html" if opens and has_browser() else None)
    return 0


async def _serve(settings: Settings, port: int, way_in: Path | None) -> None:
    sandbox = None
    if settings.sandbox:
        sandbox = Sandbox(seed=settings.sandbox_seed, speed=settings.sandbox_speed, ssh=True)

    def announce(address: str, token: str) -> None:
        page = f"{address}#token={token}"
        say(
            "Your browser opens the page. If it does not:" if way_in else "Open this page in a browser on this machine:"
        )
        say(f"  {page}")
        say(f"It opens once, within {ENTRY_MINUTES} minutes; nobody else should see it. Ctrl-C ends the dashboard.")
        if way_in is not None:
            # Whoever is on this machine sees what programs are started with, but not this file.
            way_in.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={page}">\n')
            Opening(way_in.as_uri())

    try:
        await serve_page(settings, announce, port=port, sandbox=sandbox)
    finally:
        if sandbox is not None:
            await sandbox.aclose()
