"""What is to follow the jobs that this machine started, remembered across restarts of the server.

One small file per job, which names the pod and the job: the pod's own `spec.json` says what is to be done.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_MOST_FILES: Final = 500
_MOST_BYTES: Final = 4096


class FollowUp(NamedTuple):
    """A job that something is to follow."""

    pod_id: str
    job: str


class FollowUps:
    """The jobs that something is to follow; with no directory, as long as the process lives."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def add(self, item: FollowUp) -> None:
        """Remember a job.

        Raises:
            OSError: it cannot be stored.
        """
        if self._directory is None:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            descriptor = os.open(self._path(item), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(item._asdict(), file)

    def remove(self, item: FollowUp) -> None:
        """Forget a job."""
        if self._directory is not None:
            with suppress(OSError):
                self._path(item).unlink()

    def read(self) -> list[FollowUp]:
        """All that are remembered; what cannot be read is left out."""
        if self._directory is None or not self._directory.is_dir():
            return []
        found = []
        for path in sorted(self._directory.glob("*.json"))[:_MOST_FILES]:
            with suppress(OSError, ValueError, KeyError, TypeError):
                row = json.loads(path.read_text()[:_MOST_BYTES])
                found.append(FollowUp(str(row["pod_id"]), str(row["job"])))
        return found

    def _path(self, item: FollowUp) -> Path:
        digest = hashlib.sha256("\0".join(item).encode(errors="replace")).hexdigest()
        return (self._directory or Path()) / f"{digest}.json"
