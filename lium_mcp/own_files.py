"""Files of a person that this program changes: kept as they were, and replaced at once.

A new content never takes the place of one that was not read before, and links are written through.
"""

import glob
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PRIVATE: Final = 0o600
_MOST_COPIES: Final = 5
_COPY: Final = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z\.bak", re.ASCII)

Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Content:
    """A file as it was read.

    Attributes:
        data: What it held; nothing where there was none.
        stamp: Tells this content from a later one; None where there was no file.
        mode: Who may read and write it; None where there was no file.
    """

    data: bytes
    stamp: Stamp
    mode: int | None


def read(target: Path) -> Content:
    """Read a file that may not be there.

    Raises:
        OSError: it is there, and cannot be read.
    """
    try:
        with target.open("rb") as file:
            found = os.fstat(file.fileno())
            return Content(file.read(), _stamp(found), found.st_mode & 0o777)
    except FileNotFoundError:
        return Content(b"", None, None)


def keep(target: Path, content: Content) -> Path:
    """Keep a file as it was beside it, for its owner alone, and return where.

    Raises:
        OSError: it cannot be written.
    """
    now = datetime.now(UTC)
    backup = target.with_name(f"{target.name}.{now:%Y%m%dT%H%M%S.%fZ}.bak")
    _write_new(backup, content.data)
    return backup


def copies(target: Path) -> list[Path]:
    """What `keep` has kept of a file, the newest first."""
    found = target.parent.glob(f"{glob.escape(target.name)}.*.bak")
    return sorted((path for path in found if _COPY.fullmatch(path.name.removeprefix(target.name))), reverse=True)


def forget_older(target: Path, *, but: Path | None = None) -> None:
    """Remove what is kept of a file, all but the newest few and this one.

    Raises:
        OSError: it cannot be removed.
    """
    for copy in copies(target)[_MOST_COPIES:]:
        if copy != but:
            copy.unlink(missing_ok=True)


def replace(target: Path, data: bytes, before: Content) -> bool:
    """Put a content in the place of the one that was read; False where that is another one meanwhile.

    A file that was not there is made for its owner alone, and its folder too.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.{os.urandom(8).hex()}.tmp")
    try:
        _write_new(new, data)
        if before.mode is not None:
            new.chmod(before.mode)
        if (_stamp(target.stat()) if target.exists() else None) != before.stamp:
            return False
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return True


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, where there is none."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_ino, found.st_mtime_ns, found.st_size
