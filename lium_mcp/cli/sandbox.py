"""``lium-mcp sandbox``: serve a simulated Lium over HTTP on this machine, and a page that shows it."""

import os
import sys
from functools import partial
from typing import Any

import anyio

from lium_mcp.cli.page_serving import serve_page
from lium_mcp.cli.readied import read
from lium_mcp.sandbox import Sandbox, serve_sandbox
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
    base_url = ""

    def note(address: str) -> None:
        nonlocal base_url
        base_url = address
        listening.set()

    def announce(page: str, token: str) -> None:
        sandbox.home = page
        site = base_url.removesuffix("/api")
        print(  # noqa: T201
            f"A simulated Lium listens at {base_url}\n"
            f"Use it with: LIUM_BASE_URL={base_url} LIUM_API_KEY=sk_sandbox\n"
            f"Look at it, turn its clock and set faults, in a browser: {site}/#token={token}\n"
            f"Its clock, faults and state for programs: {site}/_sandbox/ (tells how). Ctrl-C ends.",
            file=sys.stderr,
            flush=True,
        )

    async with anyio.create_task_group() as group:
        group.start_soon(partial(serve_sandbox, sandbox, port=port, on_ready=note, takes_signals=False))
        await listening.wait()
        await serve_page(settings, announce, sandbox=sandbox)
        group.cancel_scope.cancel()
