"""SSH public keys as OpenSSH writes them: one line of kind, base64 and comment.

What leaves this machine is kind and base64 alone. A comment is mostly user@host, which is nobody's business, and one
letter of it that is not ASCII has made pods that nobody could log in to.
"""

import base64
import binascii
import hashlib
from itertools import pairwise
from typing import Final

KINDS: Final = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-")

_LENGTH_BYTES: Final = 4


def bare_keys(text: str) -> list[str]:
    """The whole keys of a text, each once, without what stands before or behind them on their lines."""
    found = (
        f"{kind} {encoded}"
        for line in text.splitlines()
        for kind, encoded in pairwise(line.split())
        if kind.startswith(KINDS) and is_whole(kind, encoded)
    )
    return list(dict.fromkeys(found))


def is_whole(kind: str, encoded: str) -> bool:
    """Whether a key is a row of fields, each after its length, of which the first names the kind."""
    rest = _decoded(encoded)
    if rest is None:
        return False
    fields: list[bytes] = []
    while rest:
        end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES])
        if len(rest) < end:
            return False
        fields.append(rest[_LENGTH_BYTES:end])
        rest = rest[end:]
    return len(fields) > 1 and fields[0] == kind.encode()


def fingerprint(encoded: str) -> str | None:
    """The fingerprint that `ssh-keygen -l` prints."""
    blob = _decoded(encoded)
    return None if blob is None else "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _decoded(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
