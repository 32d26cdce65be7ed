"""Our server as other people's clients reach it: a command for stdio, two addresses for HTTP, a sandbox behind them.

Over HTTP there are two more, of a proxy with two replicas behind it. A server's own key serves nobody who comes through
one, so those who do bring a key.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from lium_mcp.sandbox import API_KEY
from tests.compat.installs import installed
from tests.compat.simulated import Simulated, simulating
from tests.harness import PUBLIC_KEY
from tests.http_server import Served, serving_within, variables
from tests.proxies import NGINX
from tests.replicas import STATE_KEY


@dataclass(frozen=True)
class Target:
    """Where a client finds our server, over one transport."""

    transport: str
    url: str
    command: list[str]
    env: dict[str, str]
    headers: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


EVERY_TRANSPORT: Final = (
    *("stdio", "sse", "http"),
    *(pytest.param(f"{transport} behind nginx", marks=pytest.mark.external) for transport in ("sse", "http")),
)


@pytest.fixture(scope="module")
def _lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin()
        yield simulated


@pytest.fixture
def lium(_lium: Simulated) -> Simulated:
    """A fresh sandbox, in which time stands still.

    Servers live on, so their time must not go back: it begins after the end of the last.
    """
    _lium.begin(start=_lium.playing.clock.now() + timedelta(minutes=10))
    return _lium


@contextmanager
def _served(home: Path, lium: Simulated, **settings: str) -> Iterator[Served]:
    # The conformance suite leaves more sessions open than one address may have.
    settings |= {"LIUM_BASE_URL": lium.base_url}
    with serving_within(home, settings, sessions={"per_address": 200}) as served:
        yield served


@pytest.fixture(scope="module")
def _direct(_lium: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    home = tmp_path_factory.mktemp("server")
    own = {"LIUM_API_KEY": API_KEY}
    command = [sys.executable, "-m", "lium_mcp"]
    with _served(home, _lium, **own) as served:
        yield {
            "stdio": Target("stdio", "", command, variables(home, LIUM_BASE_URL=_lium.base_url, **own), {}),
            "http": Target("http", f"{served.url}/mcp", [], {}, {}),
            "sse": Target("sse", f"{served.url}/sse", [], {}, {}),
        }


@pytest.fixture(scope="module")
def _behind(_lium: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    home = tmp_path_factory.mktemp("replicas")
    shared = {
        "LIUM_MCP_STATE_URL": f"sqlite:///{home / 'shared.db'}",
        "LIUM_MCP_STATE_KEYS": STATE_KEY,
        "LIUM_MCP_TRUSTED_PROXY": "127.0.0.1",
    }
    with ExitStack() as stack:
        servers = [
            stack.enter_context(_served(home / name, _lium, **shared, LIUM_MCP_REPLICA=name))
            for name in ("gpu-1", "gpu-2")
        ]
        url = stack.enter_context(NGINX.before(servers, home / "proxy"))
        brought = {"X-API-Key": API_KEY}
        yield {
            "http behind nginx": Target("http", f"{url}/mcp", [], {}, brought),
            "sse behind nginx": Target("sse", f"{url}/sse", [], {}, brought),
        }


@pytest.fixture
def target(request: pytest.FixtureRequest, lium: Simulated) -> Target:
    """Our server over the transport that the test names."""
    place = "_behind" if "behind" in request.param else "_direct"
    found: Target = request.getfixturevalue(place)[request.param]
    if found.headers:
        # The key pair of the server's machine is not for those who bring a key of their own.
        key = {"name": "laptop", "public_key": PUBLIC_KEY}
        httpx2.post(f"{lium.base_url}/ssh-keys", json=key, headers=found.headers, trust_env=False).raise_for_status()
    return found


@pytest.fixture(scope="session")
def python_130() -> Path:
    return installed("python") / "bin" / "python"


@pytest.fixture(scope="session")
def typescript() -> Path:
    return installed("typescript")


@pytest.fixture(scope="session")
def inspector() -> Path:
    return installed("inspector")


@pytest.fixture(scope="session")
def conformance() -> Path:
    return installed("conformance")
