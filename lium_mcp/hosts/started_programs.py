"""Ends what a program started besides itself, also where that has left its session and its parent.

All of it has in its environment the mark that the program was started with. Only Linux shows the environment of other
processes; elsewhere what shares the program's process group is ended with it, by whoever started it.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

_VARIABLE: Final = "STARTED_BY_LIUM_DOCTOR"
_PROCESSES: Final = Path("/proc")
_ORDERLY_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05


def make_mark() -> dict[str, str]:
    """A variable that marks a program and all that it starts."""
    return {_VARIABLE: uuid4().hex}


def end_marked(mark: dict[str, str]) -> None:
    """End what has this mark: by a request to, and after a second by force."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        for process in _marked(mark):
            with suppress(OSError):
                os.kill(process, number)
        until = time.monotonic() + _ORDERLY_SECONDS
        while _marked(mark) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)


def _marked(mark: dict[str, str]) -> list[int]:
    if not _PROCESSES.is_dir():
        return []
    [(name, value)] = mark.items()
    line = f"{name}={value}".encode()
    found = []
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if line in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found
