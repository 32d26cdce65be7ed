"""Public SSH keys registered with the account, and the text of such keys. A rent sends its keys itself.

OpenSSH writes a key as one line of kind, base64 and comment. What leaves this machine is kind and base64 alone. A
comment is mostly user@host, which is nobody's business, and one letter of it that is not ASCII has made pods that
nobody could log in to.
"""

import binascii
import hashlib
from base64 import b64decode, b64encode
from itertools import pairwise
from typing import Final

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.fields import ApiId, ApiModel, ApiText
from lium_mcp.api.paging import Rows
from lium_mcp.api.wire import Resource

KINDS: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-")


class SshKey(ApiModel):
    """One registered public key."""

    id: ApiId
    name: ApiText = ""
    public_key: ApiText = ""


class SshKeys(Resource):
    """Calls on registered public keys."""

    async def list(self) -> Rows[SshKey]:
        """GET /ssh-keys: all registered keys."""
        return (await self._wire.request("GET", "/ssh-keys")).rows(SshKey)

    async def create(self, *, name: str, public_key: str) -> SshKey:
        """POST /ssh-keys: register a public key; list first, since duplicates may be accepted."""
        answer = await self._wire.request("POST", "/ssh-keys", json=_body(name, public_key))
        created = answer.model(SshKey)
        kind_and_key = public_key.split()[:2]  # without the comment
        if created.public_key and not set(kind_and_key) <= set(created.public_key.split()):
            raise answer.about_another(SshKey, "public_key", public_key)
        return created

    async def delete(self, key_id: str) -> None:
        """DELETE /ssh-keys/{key_id}: forget a key; pods that have it keep it."""
        await self._wire.request("DELETE", endpoint("/ssh-keys/{key_id}", key_id=key_id))


def _body(name: str, public_key: str) -> dict[str, str]:
    if not name.strip() or not public_key.strip():
        raise InvalidRequest("name and public_key must not be empty.")
    if "PRIVATE KEY" in public_key:
        raise InvalidRequest("public_key holds a private key; nothing was sent.")
    return {"name": name, "public_key": public_key}


def bare_keys(text: str) -> list[str]:
    """The complete keys in a text, each once, without what stands before or after them on their lines."""
    found = (
        f"{kind} {encoded}"
        for line in text.splitlines()
        for kind, encoded in pairwise(line.split())
        if kind.startswith(KINDS) and is_whole(kind, encoded)
    )
    return list(dict.fromkeys(found))


def is_whole(kind: str, encoded: str) -> bool:
    """Whether the text can be read as a key of that kind."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - start-up should not pay for it
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key  # noqa: PLC0415 - as above

    try:
        load_ssh_public_key(f"{kind} {encoded}".encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def fingerprint(encoded: str) -> str | None:
    """The fingerprint that `ssh-keygen -l` prints; `None` for what is not base64."""
    try:
        blob = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return "SHA256:" + b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
