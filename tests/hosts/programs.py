"""The hosts and our own program, installed as people install them, below `.cache/hosts`."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import uv

from tests.compat.installs import variables

ROOT: Final = Path(__file__).parents[2]
CACHE: Final = ROOT / ".cache" / "hosts"
_UV: Final = uv.find_uv_bin()
_UV_VARIABLES: Final = {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_PYTHON": sys.executable, "UV_SYSTEM_CERTS": "1"}
_TOOLS: Final = {"UV_TOOL_DIR": str(CACHE / "tools"), "UV_TOOL_BIN_DIR": str(CACHE / "bin")}
_NO_TOOLS: Final = {"UV_TOOL_DIR": str(CACHE / "no-tools")}  # uvx prefers a tool that is installed


class Program(NamedTuple):
    """How a host is told to start our server.

    Attributes:
        name: What people call this way.
        command: The program and its arguments.
        variables: What it needs in its environment.
    """

    name: str
    command: list[str]
    variables: dict[str, str]

    def answered_after(self, first: bytes) -> float:
        """The seconds from a start to the answer to the first message."""
        started = time.perf_counter()
        with subprocess.Popen(
            self.command, env=variables(CACHE / "home") | self.variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(first + b"\n")
            process.stdin.flush()
            assert process.stdout.readline()
            seconds = time.perf_counter() - started
            process.stdin.close()
        return seconds

    def usually_answers_after(self, first: bytes, *, starts: int) -> float:
        """The median of so many starts."""
        return statistics.median(self.answered_after(first) for _ in range(starts))


def install_hosts(packages: list[str]) -> None:
    """Install the hosts with npm; what is there already stays. Without npm the program ends."""
    npm = shutil.which("npm")
    if npm is None:
        sys.stderr.write("There is no npm, which installs the hosts.\n")
        raise SystemExit(2)
    CACHE.mkdir(parents=True, exist_ok=True)
    install = [npm, "install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(CACHE)]
    subprocess.run([*install, *packages], check=True)


def built_wheel() -> Path:
    """Build a wheel of this checkout."""
    wheels = CACHE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    _run(_UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--out-dir", str(wheels))
    [wheel] = wheels.glob("*.whl")
    return wheel


def install_ours() -> list[Program]:
    """Return the ways to start a wheel of this checkout: installed, and with uvx."""
    wheel = built_wheel()
    _run(_UV, "tool", "install", "--quiet", "--reinstall", str(wheel), **_TOOLS)
    uvx = [str(Path(_UV).with_name("uvx"))]
    ours = ["--from", str(wheel), "lium-mcp"]
    _run(*uvx, *ours, "--version", **_NO_TOOLS)  # fetches what is then in the cache
    variables = _UV_VARIABLES | _NO_TOOLS
    return [
        Program("installed script", [str(CACHE / "bin" / "lium-mcp"), "--sandbox"], {}),
        # As it is from ten minutes after its last start on: it asks the index again.
        Program("uvx", [*uvx, "--refresh", *ours, "--sandbox"], variables),
        Program("uvx without network", [*uvx, "--offline", *ours, "--sandbox"], variables),
    ]


def _run(*command: str, **more: str) -> None:
    subprocess.run(command, cwd=ROOT, env=os.environ | _UV_VARIABLES | more, check=True, stdout=subprocess.DEVNULL)
