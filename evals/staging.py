"""The stage of a task for agents in other processes: its sandbox at an address, its local files, its server's settings.

This file imports the standard library alone, and what it starts is of `.venv`.
"""

import json
import math
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from evals.facts import Facts, facts_of
from evals.tasks import Task

ROOT: Final = Path(__file__).parents[1]
PYTHON: Final = ROOT / ".venv" / "bin" / "python"
KEY: Final = "sk_sandbox"
# A world that goes on for longer does so in steps that a server can keep up with.
_SHORT_MINUTES: Final = 10
_STOP_SECONDS: Final = 10


class Stage:
    """A sandbox in a process of its own, in which that has happened which the task says."""

    def __init__(self, task: Task, home: Path, speed: float) -> None:
        """Start it.

        Args:
            task: Whose world it is.
            home: An empty folder.
            speed: How fast its time runs by itself; 0 where the server's pauses alone turn it.
        """
        self._task = task
        self.work = write_files(task, home)
        command = [str(PYTHON), "-m", "evals.stage", str(task.file), str(home), str(speed)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.base_url = self._process.stdout.readline().strip()
        if not self.base_url:
            raise RuntimeError(f"the stage of {task.name} did not start")
        self.before = self.facts()

    def facts(self, before: Facts | None = None) -> Facts:
        """What is so now."""
        return facts_of(self._control("state"), before, self.work)

    def end(self) -> Facts:
        """Let the world go on after the last word; return what is so then."""
        told = self.facts(self.before)
        for minutes, pause_seconds in steps_after(self._task):
            time.sleep(pause_seconds)
            self._control("clock", advance_seconds=60 * minutes)
        return self.facts(self.before) | {"told": told}

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(_STOP_SECONDS)

    def _control(self, route: str, **body: float) -> dict[str, Any]:
        url = f"{self.base_url.removesuffix('/api')}/_sandbox/{route}"
        sent = json.dumps(body).encode() if body else None
        with urllib.request.urlopen(url, sent, timeout=30) as answer:  # noqa: S310 - of this machine
            return dict(json.load(answer))


def steps_after(task: Task) -> Iterator[tuple[float, float]]:
    """The steps in which the world of a task goes on: so many minutes of it, each after so many seconds."""
    is_short = task.after_minutes <= _SHORT_MINUTES
    minutes, pause_seconds = (2.0, 0.03) if is_short else (1.0, 0.1)
    for _ in range(math.ceil(task.after_minutes / minutes)):
        yield minutes, pause_seconds


def write_files(task: Task, home: Path) -> Path:
    """Make the folder of the local files."""
    work = home / "work"
    work.mkdir()
    for name, content in task.files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(content)
    return work


def variables(task: Task, home: Path, base_url: str) -> dict[str, str]:
    """The environment of the server: the account, its own places, and what the task sets."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_PROXY": "127.0.0.1",
        "LIUM_API_KEY": KEY,
        "LIUM_BASE_URL": base_url,
        "LIUM_SSH_KEY_PATH": str(home / "id_ed25519"),
        "LIUM_MCP_STATE_URL": f"sqlite:///{home / 'ledger.db'}",
        "LIUM_MCP_LOCAL_DIRS": str(home / "work"),
        # Nobody can be asked.
        "LIUM_MCP_CONFIRM": "never",
        "LIUM_MCP_LOG_LEVEL": "ERROR",
        **task.settings,
    }
