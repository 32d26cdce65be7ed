"""The command that hosts are told to start: an installed script by its absolute path, which answers in a moment.

`uvx` and `pipx run` make an environment that goes again, and ask the package index at each start; from there the server
is installed first.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from lium_mcp.hosts.host_entries import PROGRAM

_THROWAWAY: Final = frozenset({"archive-v0", "environments-v2", "builds-v0"})
"""Folders of uv's cache that hold environments."""
_LIMIT_SECONDS: Final = 600


class Installer(NamedTuple):
    """A program that installs commands for a person.

    Attributes:
        install: What it is told to install this server.
        folder: What it is told to say where such commands are.
    """

    install: list[str]
    folder: list[str]


def installed_script() -> Path | None:
    """This server's own script, where it will still be when the host starts it; None where there is none."""
    name = f"{PROGRAM}.exe" if sys.platform == "win32" else PROGRAM
    script = Path(sysconfig.get_path("scripts")) / name
    if not script.is_file() or _is_throwaway(Path(sys.prefix)):
        return None
    # On the PATH it has a shorter name, which stays when the environment is made anew.
    known = shutil.which(PROGRAM)
    return Path(known).absolute() if known and Path(known).resolve() == script.resolve() else script


def find_installer() -> Installer | None:
    """What this machine has to install commands with."""
    source = _source()
    if uv := shutil.which("uv"):
        return Installer([uv, "tool", "install", source], [uv, "tool", "dir", "--bin"])
    if pipx := shutil.which("pipx"):
        return Installer([pipx, "install", source], [pipx, "environment", "--value", "PIPX_BIN_DIR"])
    return None


def install_script(installer: Installer) -> Path:
    """Install this server's script, and return where it is.

    Raises:
        OSError: it could not be installed; the text says why.
    """
    _run(installer.install)
    name = f"{PROGRAM}.exe" if sys.platform == "win32" else PROGRAM
    script = Path(_run(installer.folder).strip()) / name
    if not script.is_file():
        raise OSError(f"it is not where {installer.install[0]} puts commands: {script}")
    return script


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)  # noqa: S603 - a program of the PATH
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} did not end within {_LIMIT_SECONDS} seconds") from None
    if done.returncode:
        raise OSError(" ".join(done.stderr.split())[-400:] or f"{command[0]} failed")
    return done.stdout


def _is_throwaway(prefix: Path) -> bool:
    parts = frozenset(prefix.resolve().parts)
    return bool(parts & _THROWAWAY) or {".cache", "pipx"} <= parts


def _source() -> str:
    """What to install: this package by its name, or the folder or address that it was installed from."""
    try:
        told = distribution(PROGRAM).read_text("direct_url.json")
    except PackageNotFoundError:
        told = None
    url = json.loads(told).get("url", "") if told else ""
    return url2pathname(urlsplit(url).path) if url.startswith("file:") else url or PROGRAM
