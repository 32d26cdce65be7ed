"""The official client in an environment of its own: made once per checkout, shared by every test process.

It never touches our own environment: the official client is what we are compared with, not something we depend on.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

VERSION = "0.32.0"
REQUIREMENTS = Path(__file__).with_name("requirements-lium.txt")
CACHE = Path(__file__).parents[2] / ".cache" / "compat"
INSTALL_LIMIT_SECONDS = 600


class CannotInstall(Exception):
    """The official client could not be installed here."""


@dataclass(frozen=True)
class Environment:
    """A finished environment."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    def lium(self, *arguments: str) -> list[str]:
        """Return the command line that runs the official `lium` script.

        The script is named to its interpreter, because its first line still holds the path it was made under.
        """
        return [str(self.python), str(self.root / "bin" / "lium"), *arguments]


def ensure() -> Environment:
    """Return the environment, making it first where there is none for these requirements and this Python."""
    root = CACHE / f"lium-{VERSION}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        if _stamp(root).exists() and _stamp(root).read_text() == _made_from():
            return Environment(root)
        making = CACHE / f"making-{VERSION}"
        for leftover in (making, root):
            shutil.rmtree(leftover, ignore_errors=True)
        _install(making)
        _stamp(making).write_text(_made_from())
        making.rename(root)
    return Environment(root)


def _install(root: Path) -> None:
    steps: list[list[str]] = [
        [sys.executable, "-m", "venv", str(root)],
        [
            str(root / "bin" / "python"),
            *("-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"),
            *("install", "--require-hashes", "--requirement", str(REQUIREMENTS)),
        ],
    ]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_LIMIT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise CannotInstall(f"lium.io=={VERSION} did not install in {INSTALL_LIMIT_SECONDS} s") from None
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or ["no reason given"]
            raise CannotInstall(f"lium.io=={VERSION} cannot be installed: {errors[-1]}")


def _made_from() -> str:
    requirements = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    return f"Python {sys.version_info.major}.{sys.version_info.minor}, requirements {requirements}\n"


def _stamp(root: Path) -> Path:
    return root / "made-from"


@contextmanager
def _alone() -> Iterator[None]:
    """Hold off the other test processes of this checkout; the system lets go of the lock if this one dies."""
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


def client_variables(*, home: Path, base_url: str) -> dict[str, str]:
    """Return the whole environment of an official process: one address, one key, a home, and nothing sent elsewhere."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LIUM_BASE_URL": base_url,
        "LIUM_API_KEY": "sk_sandbox",
        "LIUM_SELF_UPDATE_DISABLE": "1",
        "LIUM_TELEMETRY": "0",
        "LIUM_SENTRY_DSN": "",
        "LIUM_NONINTERACTIVE": "1",
        "NO_PROXY": "127.0.0.1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "TZ": "UTC",
    }
