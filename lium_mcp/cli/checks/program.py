"""The program itself: its version, its Python, how it was started, and whether there is a newer one."""

import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
import httpx2

from lium_mcp import __version__
from lium_mcp.api.network import Network
from lium_mcp.cli.checks.findings import Finding, ok, untried, warning
from lium_mcp.cli.shell_lines import started
from lium_mcp.network_settings import read_network
from lium_mcp.values import SettingsError

_AREA: Final = "program"
_INDEX: Final = "https://pypi.org/pypi/lium-mcp/json"
_INDEX_SECONDS: Final = 4.0
_MOST_BYTES: Final = 2**24
_RELEASE: Final = re.compile(r"\d+(?:\.\d+)*", re.ASCII)


def check_program() -> list[Finding]:
    """Say what runs, and from where."""
    program = Path(sys.argv[0]).absolute()
    started = f"started as {sys.executable} -m lium_mcp" if program.name == "__main__.py" else f"started as {program}"
    return [ok(_AREA, f"lium-mcp {__version__} on Python {platform.python_version()}, {started}.")]


async def check_for_newer(environment: Mapping[str, str]) -> list[Finding]:
    """Ask the Python package index whether there is a newer release."""
    try:
        network = read_network(_INDEX, environment)
        with anyio.fail_after(_INDEX_SECONDS):
            newest = await _newest_release(network)
    except (SettingsError, httpx2.HTTPError, OSError, ValueError, TimeoutError):
        what = "Whether there is a newer version could not be asked: the package index did not answer."
        return [untried("version_not_asked", _AREA, what, "look there", "pip index versions lium-mcp")]
    if newest is None:
        return [ok(_AREA, "The package index knows no release of lium-mcp.")]
    if _order(newest) > _order(__version__):
        return [
            warning(
                "version_old",
                _AREA,
                f"Version {newest} is newer.",
                "upgrade with what it was installed with",
                _upgrade(),
            )
        ]
    return [ok(_AREA, "There is no newer version.")]


async def _newest_release(network: Network) -> str | None:
    """The newest release that the index names; None where it has none.

    Raises:
        httpx2.HTTPError, OSError: it did not answer.
        ValueError: what answered is no index.
    """
    verify = network.verify()
    async with httpx2.AsyncClient(verify=verify, proxy=network.proxy(verify), trust_env=False) as client:
        answer = await client.get(_INDEX)
    if answer.status_code == httpx2.codes.NOT_FOUND:
        return None
    if answer.status_code != httpx2.codes.OK or len(answer.content) > _MOST_BYTES:
        raise ValueError("no answer of an index")
    told = answer.json()
    info = told.get("info") if isinstance(told, dict) else None
    release = info.get("version") if isinstance(info, dict) else None
    if not isinstance(release, str) or not _RELEASE.fullmatch(release):
        raise ValueError("no release")
    return release


def _order(release: str) -> tuple[int, ...]:
    found = _RELEASE.match(release)
    return tuple(map(int, found[0].split("."))) if found else ()


def _upgrade() -> str:
    """The command that upgrades the environment in which this runs."""
    parts = Path(sys.prefix).parts
    if "uv" in parts:
        return "uv tool upgrade lium-mcp"
    return "pipx upgrade lium-mcp" if "pipx" in parts else f"{started(sys.executable)} -m pip install -U lium-mcp"
