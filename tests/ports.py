"""Ports for servers that have to be told theirs before they start, and for what is to find nobody.

A port that was free a moment ago and is one that the system gives to whoever asks it for any is soon another test's.
"""

import secrets
import socket
from contextlib import suppress
from typing import Final

# Below what systems give away by themselves: Linux from 32768 on.
_FIRST: Final = 15_000
_COUNT: Final = 15_000


def free_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and of which nobody hears who asks for any."""
    while True:
        port = _FIRST + secrets.randbelow(_COUNT)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
