"""Secrets that this server makes for clients and browsers, of which it keeps digests alone."""

import hashlib
import secrets
from typing import Final

TOKEN_PREFIX: Final = "lmt_"  # noqa: S105 - how they begin
_BYTES: Final = 32


def new_secret(prefix: str = "") -> str:
    """A secret that nobody can guess."""
    return prefix + secrets.token_urlsafe(_BYTES)


def digest(secret: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()
