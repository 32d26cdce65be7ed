"""Host keys, pinned per pod at first use: nothing is sent to a pod that shows another key later.

A pin stays until the pod's container is known to be a new one. The signs of that are kept beside the key, and are
judged only when another key is shown, since a new container may well show the old one. Each pin is a file that only its
owner can read; without a directory, pins live as long as the process. Above a bound, the pins used longest ago go.
"""

import hashlib
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

MOST_PINS: Final = 1000
_MOST_BYTES: Final = 16_384
# A container may still answer for a moment after Lium has decided to replace it.
_LINGERS_SECONDS: Final = 60.0
# Lium's clock is known to the second. A new container takes longer than this to answer.
CLOCKS_DIFFER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned host key, and what is known of the container that showed it. Times are UNIX seconds of Lium's clock.

    Attributes:
        key: One line as OpenSSH writes public keys.
        pinned_at: When it was first seen.
        seen_at: When it was last seen.
        replaced_at: When Lium last said that the container is being replaced; None if it never did.
        template_id: What the container was started from; None where Lium did not say.
    """

    key: str
    pinned_at: float
    seen_at: float
    replaced_at: float | None = None
    template_id: str | None = None

    def is_outlived_by(self, replaced_at: float, ran_again_at: float, *, had_begun: bool) -> bool:
        """Whether the container that was replaced at a time is the one that showed the key.

        A new container may well show the old key: a key that was seen once the new one ran is the new one's.

        Args:
            replaced_at: When a container was replaced.
            ran_again_at: When Lium said that the new container ran; infinite if it has not.
            had_begun: At that time the replacement was only about to begin: what was seen before was the old one's.
        """
        if had_begun and self.seen_at <= replaced_at:
            return True
        if self.seen_at >= ran_again_at - CLOCKS_DIFFER_SECONDS:
            return False
        return replaced_at >= max(self.pinned_at - CLOCKS_DIFFER_SECONDS, self.seen_at - _LINGERS_SECONDS)


class HostKeys:
    """Pinned host keys by pod. All methods block: call them in a thread."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._pinned: dict[str, Pin] = {}

    def path(self, pod_id: str) -> Path | None:
        """The file that pins a pod's key. The id comes from outside, so the file is named by its digest."""
        if self._directory is None:
            return None
        return self._directory / hashlib.sha256(pod_id.encode(errors="replace")).hexdigest()

    def read(self, pod_id: str) -> Pin | None:
        """The pin, if there is one.

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
            written_at = os.fstat(file.fileno()).st_mtime
            key, _, more = file.read(_MOST_BYTES).decode(errors="replace").strip().partition("\n")
        return _with(key, more, written_at)

    def pin(self, pod_id: str, pin: Pin) -> Pin:
        """Pin a key unless one is pinned; return what is pinned now, which another process may have chosen.

        Raises:
            OSError: it cannot be stored.
        """
        path = self.path(pod_id)
        if path is None:
            self._pinned.setdefault(pod_id, pin)
            while len(self._pinned) > MOST_PINS:
                del self._pinned[min(self._pinned, key=lambda other: self._pinned[other].seen_at)]
            return self._pinned.get(pod_id, pin)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = _written(path, pin)
        try:
            with suppress(FileExistsError):
                os.link(new, path)  # whole or not at all, and never over another
        finally:
            new.unlink(missing_ok=True)
        self._drop_oldest(path)
        return self.read(pod_id) or pin

    def note(self, pod_id: str, old: Pin, new: Pin) -> None:
        """Replace a pin by a newer one, if it is still there; failing to do so does no harm.

        So a pin that a person has deleted stays deleted, and one that another process has made is not written over.
        """
        with suppress(OSError):
            if self.read(pod_id) != old:
                return
            path = self.path(pod_id)
            if path is None:
                self._pinned[pod_id] = new
                return
            written = _written(path, new)
            try:
                written.replace(path)
            finally:
                written.unlink(missing_ok=True)

    def forget(self, pod_id: str) -> None:
        """Drop a pin, if there is one."""
        self._pinned.pop(pod_id, None)
        path = self.path(pod_id)
        if path is not None:
            with suppress(OSError):
                path.unlink()

    def _drop_oldest(self, kept: Path) -> None:
        used: list[tuple[float, Path]] = []
        with suppress(OSError), os.scandir(kept.parent) as entries:
            for entry in entries:
                with suppress(OSError):
                    used.append((entry.stat(follow_symlinks=False).st_mtime, Path(entry.path)))
        for _, path in sorted(used)[: max(len(used) - MOST_PINS, 0)]:
            if path != kept:
                with suppress(OSError):
                    path.unlink()


def _with(key: str, more: str, written_at: float) -> Pin:
    """Read a pin as it was written; older files hold the key alone."""
    try:
        said: Any = json.loads(more) if more else {}
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    pinned_at, seen_at, replaced_at = (
        float(said[name]) if isinstance(said.get(name), int | float) else None
        for name in ("pinned_at", "seen_at", "replaced_at")
    )
    template_id = said.get("template_id")
    return Pin(
        key,
        written_at if pinned_at is None else pinned_at,
        written_at if seen_at is None else seen_at,
        replaced_at,
        template_id if isinstance(template_id, str) else None,
    )


def _written(path: Path, pin: Pin) -> Path:
    """Write a pin to a new file beside `path`, and return that file."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    more = asdict(pin)
    key = more.pop("key")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(f"{key}\n{json.dumps(more)}\n".encode())
    return new
