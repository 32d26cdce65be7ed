"""``lium-mcp sandbox``: serve a simulated Lium over HTTP on this machine, and a page that shows it."""

import os
import sys
from typing import Any

import anyio

from lium_mcp.cli.page_serving import serve_page
from lium_mcp.cli.readied import read
from lium_mcp.sandbox import Sandbox, serve_sandbox
from lium_mcp.serving.dashboard import ENTRY_MINUTES
from lium_mcp.settings import Settings


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    settings = read({"sandbox": True, "transport": "stdio"})
    sandbox = Sandbox(
        seed=options["seed"], speed=options["speed"], ssh=True, profile="rough" if options["rough"] else "plain"
    )
    status = 0
    try:
        anyio.run(_serve, settings, sandbox, options["port"])
    except* OSError as errors:
        reason = next(os.strerror(error.errno or 0) for error in errors.exceptions if isinstance(error, OSError))
        print(f"lium-mcp: cannot listen at port {options['port']}: {reason}", file=sys.stderr)  # noqa: T201
        status = 1
    return status


async def _serve(settings: Settings, sandbox: Sandbox, port: int) -> None:
    listening = anyio.Event()
    site = ""

    def announce(base_url: str) -> None:
        nonlocal site
        site = base_url.removesuffix("/api")
        _say(
            f"A simulated Lium listens at {base_url}\n"
            f"Use it with: LIUM_BASE_URL={base_url} LIUM_API_KEY=sk_sandbox\n"
            f"Its clock, faults and state: {site}/_sandbox/ (tells how). Ctrl-C ends."
        )
        listening.set()

    def announce_page(page: str, token: str) -> None:
        sandbox.home = page
        _say(f"See it in a browser: {site}/#token={token}\nThis address opens once, within {ENTRY_MINUTES} minutes.")

    async with anyio.create_task_group() as group:

        async def simulate() -> None:
            await serve_sandbox(sandbox, port=port, on_ready=announce)
            group.cancel_scope.cancel()

        group.start_soon(simulate)
        await listening.wait()
        # It takes the signals from then on, and ends in its own order.
        await serve_page(settings, announce_page, sandbox=sandbox)
        group.cancel_scope.cancel()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
