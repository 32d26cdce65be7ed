"""Proxies in front of replicas, each of this system's packages and with the configuration that the documents give."""

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
        package: What Debian calls it.
        replicas: How the names of the servers behind it begin in its configuration, before `-1` and `-2`.
        command: Its command, once it has written its configuration for a port and servers into a folder.
        takes_over: Whether it sends what one server does not take to the other.
        asks: Whether it asks servers if they take calls, and so needs them to serve until it has seen that one stops.
    """

    program: str
    package: str
    replicas: str
    command: Callable[[Path, int, Sequence[Served]], list[str]]
    takes_over: bool = True
    asks: bool = True

    def log(self, folder: Path) -> str:
        """What it wrote, run in that folder."""
        return _log(folder).read_text()

    @contextmanager
    def before(self, servers: Sequence[Served], folder: Path) -> Iterator[str]:
        """Run it at a free port before servers of those names, until the end of the block; its address."""
        program = find(self.program)
        if program is None:
            pytest.fail(f"no {self.program}: apt-get install {self.package}", pytrace=False)
        folder.mkdir()
        port = free_port()
        log = _log(folder)
        command = [program, *self.command(folder, port, servers)]
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
    # What Caddy before 2.7, as Debian 12 has it, calls the same.
    rule = rule.replace("request_buffers", "buffer_requests\n\t\tmax_buffer_size")
    assert ":8000" not in rule
    config = folder / "Caddyfile"
    config.write_text(rule.replace("{\n", "{\n\tadmin off\n\tgrace_period 1s\n", 1))
    return ["run", "--adapter", "caddyfile", "--config", str(config)]


NGINX: Final = Proxy("nginx", "nginx-light", "gpu", _nginx, asks=False)
HAPROXY: Final = Proxy("haproxy", "haproxy", "gpu", _haproxy)
# Caddy 2.6 fails to send a body a second time ("invalid Read on closed Body").
CADDY: Final = Proxy("caddy", "caddy", "lium-mcp", _caddy, takes_over=False)


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
