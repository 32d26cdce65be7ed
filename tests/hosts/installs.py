"""What `lium-mcp install` makes of real hosts: `make test-hosts`, or this alone with `python -m tests.hosts.installs`.

Each host gets an empty home, is told of the server by our command and nothing else, and is then asked something: its
scripted model sees our tools and calls one. For Claude Code and Codex the way from an empty machine is measured: a tool
directory and a cache of its own, and the wheel of this checkout.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import uv

from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS as TABLE
from lium_mcp.hosts.installed_entries import read_installed
from manifests.generate import with_generated
from tests.compat.installs import variables
from tests.hosts.hosts import HOSTS, ClaudeCode, Codex, Host
from tests.hosts.programs import CACHE, ROOT, built_wheel, install_hosts
from tests.hosts.scripted_model import scripted_model

DOCUMENT: Final = ROOT / "docs" / "clients.md"
CALLED: Final = "get_balance"
MEASURED: Final = (ClaudeCode, Codex)
_LIMIT_SECONDS: Final = 600


class Seen(NamedTuple):
    """What came of telling a host.

    Attributes:
        path: The file that was written, below the home.
        works: Whether its model called a tool and got the answer.
        install_seconds: How long the installation of our command took.
        told_seconds: How long our command took to tell the host.
        asked_seconds: How long the host took from the prompt to its end, the call and its answer in between.
    """

    path: str
    works: bool
    install_seconds: float
    told_seconds: float
    asked_seconds: float


def main() -> int:
    """Tell each host, ask it, and write down what was seen; the exit status is the verdict."""
    install_hosts([host.package for host in HOSTS])
    with tempfile.TemporaryDirectory() as directory:
        seen = tell_all(Path(directory))
    write_down(seen)
    return 0 if all(one.works for one in seen.values()) else 1


def tell_all(homes: Path) -> dict[str, Seen]:
    """Tell each host of the server as a person would, and ask it something."""
    wheel = built_wheel()
    seen = {}
    for host in HOSTS:
        seen[host.typed] = one = _tell(host(homes / f"{host.program}-told"), wheel)
        sys.stdout.write(
            f"{host.title()}: lium-mcp install {host.typed}: {'run' if one.works else 'FAILS'} "
            f"({one.install_seconds:.1f} + {one.told_seconds:.1f} + {one.asked_seconds:.1f} s)\n"
        )
        sys.stdout.flush()
    return seen


def write_down(seen: dict[str, Seen]) -> None:
    """Write what was seen into the document."""
    DOCUMENT.write_text(with_generated(DOCUMENT.read_text(), "installs", "\n".join(_part(seen))))


def _tell(host: Host, wheel: Path) -> Seen:
    environment = variables(host.home) | {
        "PATH": f"{host.home}/.local/bin:{CACHE}/node_modules/.bin:{variables(host.home)['PATH']}",
        "UV_CACHE_DIR": f"{host.home}/.cache/uv",
        "UV_TOOL_DIR": f"{host.home}/.local/share/uv/tools",
        "UV_TOOL_BIN_DIR": f"{host.home}/.local/bin",
        "UV_PYTHON": sys.executable,
        "UV_SYSTEM_CERTS": "1",
    }
    with scripted_model(*host.calls(CALLED)) as model:
        host.prepare(model)
        began = time.perf_counter()
        _run([uv.find_uv_bin(), "tool", "install", "--quiet", str(wheel)], host.home, environment)
        installed = time.perf_counter()
        _run(["lium-mcp", "install", host.typed, "--sandbox", "--yes"], host.home, environment)
        told = time.perf_counter()
        host.prompt(model)
        asked = time.perf_counter()
    works = len(model.turns) > 1 and re.search(r"balance_usd\W+100\b", json.dumps(model.turns[-1])) is not None
    machine = Machine("linux", {"HOME": str(host.home)}, host.home)
    entry = read_installed(TABLE[host.typed], machine, "user")
    assert entry is not None
    path = f"~/{entry.path.relative_to(host.home)}"
    return Seen(path, works and "lium" in entry.entries, installed - began, told - installed, asked - told)


def _run(command: list[str], home: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["/usr/bin/env", *command],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _part(seen: dict[str, Seen]) -> Iterable[str]:
    titles = {host.typed: host.title() for host in HOSTS}
    yield "| host | command | file on Linux | seen |"
    yield "|---|---|---|---|"
    nowhere = Machine("linux", {"HOME": "/home/none"}, Path("/home/none"))
    for name, host in TABLE.items():
        place = read_installed(host, nowhere, "user")
        assert place is not None
        path = seen[name].path if name in seen else f"~/{place.path.relative_to('/home/none')}"
        verdict = ("run" if seen[name].works else "FAILS") if name in seen else "schema only"
        yield f"| {titles.get(name, host.title)} | `lium-mcp install {name}` | `{path}` | {verdict} |"
    yield ""
    yield (
        "`run`: told by this command alone (with `--sandbox --yes`), in a home of its own, the host's model called "
        f"`{CALLED}` and got the answer. `schema only`: what is written is held against the keys that the host is "
        "known to read, on three platforms."
    )
    yield ""
    yield (
        "From an empty machine to the first answered call, by two commands; the packages come from an index near by, "
        "and with other work on two cores the times are longer."
    )
    yield ""
    yield "| host | `uv tool install` | `lium-mcp install` | first call | together |"
    yield "|---|---|---|---|---|"
    for measured in MEASURED:
        one = seen[measured.typed]
        parts = (one.install_seconds, one.told_seconds, one.asked_seconds)
        seconds = " | ".join(f"{part:.1f} s" for part in (*parts, sum(parts)))
        yield f"| {measured.title()} | {seconds} |"


if __name__ == "__main__":
    sys.exit(main())
