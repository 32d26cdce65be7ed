"""Proxies in front of replicas, each with the configuration that the documents give.

nginx and HAProxy are of this system's packages. Its Caddy is older than what the documents ask for: that one comes with
other people's clients.
"""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.compat.installs import installed
from tests.http_server import Served
from tests.ports import free_port
from tests.sshd import find

_ROOT: Final = Path(__file__).parents[1]
_HTTP_PAGE: Final = _ROOT / "docs" / "http.md"
_START_SECONDS: Final = 60


@dataclass(frozen=True)
class Proxy:
    """A program that calls of one address go through.

    Attributes:
        find: Returns its path; a test fails where it is not there.
        replicas: How the names of the servers behind it begin in its configuration, before `-1` and `-2`.
        command: Its command, once it has written its configuration for a port and servers into a folder.
        asks: Whether it asks servers if they take calls, and so needs them to serve until it has seen that one stops.
    """

    program: str
    find: Callable[[], str]
    replicas: str
    command: Callable[[Path, int, Sequence[Served]], list[str]]
    asks: bool = True

    def log(self, folder: Path) -> str:
        """What it wrote, run in that folder."""
        return _log(folder).read_text()

    @contextmanager
    def before(self, servers: Sequence[Served], folder: Path) -> Iterator[str]:
        """Run it at a free port before servers of those names, until the end of the block; its address."""
        folder.mkdir()
        port = free_port()
        log = _log(folder)
        command = [self.find(), *self.command(folder, port, servers)]
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command, cwd=folder, env={"HOME": str(folder)}, stdout=output, stderr=subprocess.STDOUT
            ) as process,
        ):
            try:
                deadline = time.monotonic() + _START_SECONDS
                while not _is_open(port):
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.02)
                assert process.poll() is None, log.read_text()  # else who listens there is another
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _log(folder: Path) -> Path:
    return folder / "log"


def _nginx(folder: Path, port: int, servers: Sequence[Served]) -> list[str]:
    [rule] = _examples("nginx")
    rule = _with(rule.replace("listen 80;", f"listen 127.0.0.1:{port};"), servers)
    folders = "\n".join(
        f"{kind}_temp_path {folder / kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder / 'pid'}; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {folders}\n{rule} }}\n"
    )
    return ["-p", str(folder), "-c", str(config)]


def _haproxy(folder: Path, port: int, servers: Sequence[Served]) -> list[str]:
    [rule] = [example for example in _examples("text") if "use-server" in example]
    config = folder / "haproxy.cfg"
    config.write_text(_with(rule.replace("bind :80", f"bind 127.0.0.1:{port}"), servers))
    return ["-db", "-f", str(config)]


def _caddy(folder: Path, port: int, servers: Sequence[Served]) -> list[str]:
    rule = (_ROOT / "manifests" / "compose" / "Caddyfile").read_text()
    for number, server in enumerate(servers, 1):
        rule = rule.replace(f"lium-mcp-{number}:8000", _place(server))
    rule = rule.replace("{$LIUM_MCP_ALLOWED_HOST}", f"http://127.0.0.1:{port}")
    assert ":8000" not in rule
    config = folder / "Caddyfile"
    config.write_text(rule.replace("{\n", "{\n\tadmin off\n\tgrace_period 1s\n", 1))
    return ["run", "--adapter", "caddyfile", "--config", str(config)]


def _of_system(program: str, package: str) -> Callable[[], str]:
    def found() -> str:
        path = find(program)
        if path is None:
            pytest.fail(f"no {program}: apt-get install {package}", pytrace=False)
        return path

    return found


def _of_clients() -> str:
    return str(installed("caddy") / "bin" / "caddy")


NGINX: Final = Proxy("nginx", _of_system("nginx", "nginx-light"), "gpu", _nginx, asks=False)
HAPROXY: Final = Proxy("haproxy", _of_system("haproxy", "haproxy"), "gpu", _haproxy)
CADDY: Final = Proxy("caddy", _of_clients, "lium-mcp", _caddy)


def _examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _HTTP_PAGE.read_text(), re.DOTALL | re.MULTILINE)


def _with(rule: str, servers: Sequence[Served]) -> str:
    for number, server in enumerate(servers, 1):
        rule = rule.replace(f"10.0.0.{number}:8000", _place(server))
    assert "10.0.0." not in rule
    return rule


def _place(server: Served) -> str:
    return server.url.removeprefix("http://")


def _is_open(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0
