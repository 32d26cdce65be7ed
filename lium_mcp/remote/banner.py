"""Whether an SSH server answers at an address: its first words are read, and nothing is sent.

A pod's port may be open, and Lium may say that the pod runs, with nothing behind it.
"""

import asyncio
from typing import Final, Literal

import anyio

from lium_mcp.api.pods.models import SshTarget

SshAnswer = Literal["answers", "silent", "refused", "unreachable"]
"""What came of a look: a version of SSH, a connection that brought none, a refusal, or no connection at all."""

_CONNECT_SECONDS: Final = 5.0
_BANNER_SECONDS: Final = 5.0
# A server may say other lines first.
_MOST_BYTES: Final = 8192


async def read_banner(target: SshTarget) -> SshAnswer:
    """Connect once, read until the server has said its version of SSH or the time is over, and hang up."""
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
        pass  # hung up on: nothing more is said
    finally:
        writer.close()
    return "answers" if b"\nSSH-" in said else "silent"
