"""``lium-mcp sandbox``: serve a simulated Lium over HTTP on this machine."""

import os
import sys
from typing import Any

import anyio

from lium_mcp.sandbox import serve


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""

    def announce(base_url: str) -> None:
        print(  # noqa: T201
            f"A simulated Lium listens at {base_url}\n"
            f"Use it with: LIUM_BASE_URL={base_url} LIUM_API_KEY=sk_sandbox\n"
            f"Its clock, faults and state: {base_url.removesuffix('/api')}/_sandbox/ (tells how). Ctrl-C ends.",
            file=sys.stderr,
            flush=True,
        )

    async def serve_until_ended() -> None:
        await serve(
            port=options["port"],
            speed=options["speed"],
            seed=options["seed"],
            profile="rough" if options["rough"] else "plain",
            on_ready=announce,
        )

    try:
        anyio.run(serve_until_ended)
    except OSError as error:
        print(f"lium-mcp: cannot listen at port {options['port']}: {os.strerror(error.errno or 0)}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
