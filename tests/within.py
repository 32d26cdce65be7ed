"""`lium-mcp serve` within bounds that a test can reach: `python -m tests.within BOUNDS serve ...`."""

import functools
import json
import resource
import sys

from lium_mcp.cli.main import main
from lium_mcp.serving import http
from lium_mcp.serving.open_connections import ConnectionBounds
from lium_mcp.serving.sessions import SessionBounds

if __name__ == "__main__":
    connections, sessions, descriptors = json.loads(sys.argv[1])
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    http.serve_http = functools.partial(
        http.serve_http, connections=ConnectionBounds(**connections), sessions=SessionBounds(**sessions)
    )
    sys.exit(main(sys.argv[2:]))
