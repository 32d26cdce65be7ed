"""Host keys, pinned per pod at first use: a pod that shows another key later is not spoken to.

A pin is dropped where the platform replaces the container, which makes a new key. One file per pod, readable by its
owner only; with no directory, pins live as long as the process.
"""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path

_MOST_BYTES = 16_384


class HostKeys:
    """Pinned host keys, each one line as OpenSSH writes public keys."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._pinned: dict[str, str] = {}

    def path(self, pod_id: str) -> Path | None:
        """The file that pins a pod's key; the id is somebody else's text, so its digest names the file."""
        if self._directory is None:
            return None
        return self._directory / hashlib.sha256(pod_id.encode(errors="replace")).hexdigest()

    def read(self, pod_id: str) -> str | None:
        """The pinned key, if there is one.

        Raises:
            OSError: there is one that cannot be read.
        """
        path = self.path(pod_id)
        if path is None:
            return self._pinned.get(pod_id)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace").strip()

    def pin(self, pod_id: str, key: str) -> str:
        """Pin a key unless one is pinned; return the one that is pinned now, which another process may have chosen.

        Raises:
            OSError: it cannot be stored.
        """
        path = self.path(pod_id)
        if path is None:
            return self._pinned.setdefault(pod_id, key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(f"{key}\n".encode())
            with suppress(FileExistsError):
                os.link(new, path)  # whole or not at all, and never over another
        finally:
            new.unlink(missing_ok=True)
        return self.read(pod_id) or key

    def forget(self, pod_id: str) -> None:
        """Drop a pin, if there is one."""
        self._pinned.pop(pod_id, None)
        path = self.path(pod_id)
        if path is not None:
            with suppress(OSError):
                path.unlink()
