"""`lium-mcp serve` where names stand for what a test says: `python -m tests.lookups NAMES serve ...`."""

import json
import socket
import sys
from typing import Any

from lium_mcp.cli.main import main

if __name__ == "__main__":
    names: dict[str, list[list[str]]] = json.loads(sys.argv[1])
    look_up = socket.getaddrinfo

    def look_up_here(host: Any, port: Any, *kinds: Any, **more: Any) -> Any:
        answers = names.get(str(host))
        if answers is None:
            return look_up(host, port, *kinds, **more)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [row for address in found for row in look_up(address, port, type=socket.SOCK_STREAM)]

    socket.getaddrinfo = look_up_here
    sys.exit(main(sys.argv[2:]))
