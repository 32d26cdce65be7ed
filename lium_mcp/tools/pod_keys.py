"""The SSH public keys that a pod is rented with: this machine's own, else those of the account."""

import platform
from contextlib import suppress
from typing import Final

import anyio

from lium_mcp.api import LiumError
from lium_mcp.api.wire import noting_changes
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.public_keys import is_public_key

_REGISTER_SECONDS: Final = 3.0


async def find_public_keys(call: Call) -> list[str]:
    """The keys to put into the pod: this machine's own, else the account's. None at all is refused before spending."""
    keys = await _own_public_keys(call) or [
        key.public_key.strip() for key in await call.lium.ssh_keys.list() if key.public_key
    ]
    if keys:
        return keys
    happened = "There is no SSH key to put into the pod, so nobody could log in. Nothing was rented."
    own = call.runtime.account().ssh_keys
    if own is None:  # this machine is not the caller's
        raise ToolFailure("ssh_key_missing", happened, "Register a public key of yours with add_ssh_key.", effect="")
    missing = await own.missing()
    raise ToolFailure(
        "ssh_key_missing",
        f"{happened} {missing.happened}",
        f"{missing.advice} Or register a public key with add_ssh_key.",
        effect="",
    )


async def register_public_keys(call: Call) -> None:
    """Register this machine's public keys with the account, for pods that are rented elsewhere; best effort.

    It is no change that the call was asked for, so none that its failure has to speak of.
    """
    with suppress(LiumError), anyio.move_on_after(_REGISTER_SECONDS), noting_changes():
        own = await _own_public_keys(call)
        known = {_blob(key.public_key) for key in await call.lium.ssh_keys.list()} if own else set()
        for key in own:
            if _blob(key) not in known:
                await call.lium.ssh_keys.create(name=f"lium-mcp-{platform.node()[:40] or 'key'}", public_key=key)


async def _own_public_keys(call: Call) -> list[str]:
    own = call.runtime.account().ssh_keys
    if own is None:
        return []
    keys = [line.strip() for line in (await own.public_text()).splitlines() if is_public_key(line)]
    # Without a file of the public half, the private one or the agent still knows it.
    return keys or await own.public_keys()


def _blob(public_key: str) -> tuple[str, ...]:
    return tuple(public_key.split()[:2])
