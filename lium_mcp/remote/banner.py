"""Finds out whether an SSH server answers at an address, by reading its first words; nothing is sent.

Even where Lium says that a pod runs and its port is open, there may be no server behind it.
"""

import asyncio
from typing import Final, Literal

import anyio

from lium_mcp.api.pods.models import SshTarget

SshAnswer = Literal["answers", "silent", "refused", "unreachable"]
"""In this order: a server gave its version of SSH, gave none, the connection was refused, or there was none."""

_CONNECT_SECONDS: Final = 5.0
_BANNER_SECONDS: Final = 5.0
# A server may say other lines first.
_MOST_BYTES: Final = 8192


async def read_banner(target: SshTarget) -> SshAnswer:
    """Connect once, read until the server has given its version of SSH or the time is over, and hang up."""
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(target.host, target.port)
    except ConnectionRefusedError:
        return "refused"
    except OSError:  # a timeout is one too
        return "unreachable"
    said = b"\n"
    try:
        with anyio.move_on_after(_BANNER_SECONDS):
            while b"\nSSH-" not in said and len(said) < _MOST_BYTES and (more := await reader.read(_MOST_BYTES)):
                said += more
    except OSError:
        pass  # the server hung up: no more will come
    finally:
        writer.close()
    return "answers" if b"\nSSH-" in said else "silent"
