"""The stage of a task for agents in other processes: its sandbox at an address, its local files, its server's settings.

This file imports the standard library alone, and what it starts is of `.venv`.
"""

import json
import math
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from evals.facts import Facts, facts_of
from evals.tasks import Task

ROOT: Final = Path(__file__).parents[1]
PYTHON: Final = ROOT / ".venv" / "bin" / "python"
KEY: Final = "sk_sandbox"
# The world goes on in such steps, so that a server can do meanwhile what falls due.
STEP_MINUTES: Final = 2.0
STEP_PAUSE_SECONDS: Final = 0.03
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
        command = [str(PYTHON), "-m", "evals.stage", task.name, str(home), str(speed)]
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
        for _ in range(math.ceil(self._task.after_minutes / STEP_MINUTES)):
            time.sleep(STEP_PAUSE_SECONDS)
            self._control("clock", advance_seconds=60 * STEP_MINUTES)
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
        "LIUM_MCP_LOG_LEVEL": "ERROR",
        **task.settings,
    }
