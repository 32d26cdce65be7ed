"""The server token: what a caller over HTTP shows to spend this server's own key.

It is made once and kept in a file that only its owner can read, so a process that can read it is one that this user
runs or has told it to. Everybody else that reaches the port (another user, a proxy, a web page) cannot show it.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

MIN_TOKEN_CHARACTERS: Final = 32
_RANDOM_BYTES: Final = 32
_MOST_BYTES: Final = 4096


class ServerTokenError(Exception):
    """The file of the token cannot be used; the sentence names it and what to do."""


def check_token(token: str) -> str:
    """Return the token if it can be one.

    Raises:
        ValueError: it is too short to be secret, or cannot be sent in a header.
    """
    if len(token) < MIN_TOKEN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"a token is at least {MIN_TOKEN_CHARACTERS} letters, digits or signs without blanks")
    return token


def read_token(path: Path) -> str | None:
    """Read the token; None if there is none yet.

    Raises:
        ServerTokenError: others could read it or have written it, or it is no token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServerTokenError(f"{path}: {error.strerror}; remove it, and the next start makes a new one") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
        if not stat.S_ISREG(status.st_mode) or not ours:
            raise ServerTokenError(f"{path}: others may read it; remove it, and the next start makes a new one")
        text = file.read(_MOST_BYTES).decode(errors="replace").strip()
    try:
        return check_token(text)
    except ValueError as error:
        raise ServerTokenError(f"{path}: {error}; remove it, and the next start makes a new one") from None


def make_token(path: Path) -> bool:
    """Make the token unless there is one; tell whether this call made it. Of several processes, one does.

    Raises:
        ServerTokenError: it cannot be stored.
    """
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secrets.token_urlsafe(_RANDOM_BYTES)}\n")
            with suppress(FileExistsError):
                os.link(new, path)  # whole or not at all, and never over another
                return True
            return False
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise ServerTokenError(f"{path}: the server token cannot be stored: {error.strerror}") from None
