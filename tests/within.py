"""`lium-mcp serve` within bounds that a test can reach: `python -m tests.within BOUNDS serve ...`.

One of them is haste: the server pauses for a time that is that many times shorter, while its clock goes on.
"""

import functools
import json
import resource
import sys
from unittest.mock import patch

import anyio

from lium_mcp import between_calls
from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.cli.main import main
from lium_mcp.rentals import worker
from lium_mcp.serving import http
from lium_mcp.serving.oauth import endpoints
from lium_mcp.serving.open_connections import ConnectionBounds
from lium_mcp.serving.sessions import SessionBounds

if __name__ == "__main__":
    connections, sessions, descriptors, haste, logins = json.loads(sys.argv[1])
    patch.object(SYSTEM_CLOCK, "sleep", lambda seconds: anyio.sleep(seconds / haste)).start()
    for module, name in (
        *((worker, f"_{pause}_SECONDS") for pause in ("LOOK", "HOLD", "LONGEST_PAUSE")),
        (between_calls, "_ATTENTION_SECONDS"),
    ):
        patch.object(module, name, getattr(module, name) / haste).start()
    if logins:
        patch.object(endpoints, "_SELDOM", logins).start()
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    http.serve_http = functools.partial(
        http.serve_http, connections=ConnectionBounds(**connections), sessions=SessionBounds(**sessions)
    )
    sys.exit(main(sys.argv[2:]))
