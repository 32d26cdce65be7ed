"""Our server as other people's clients reach it: a command for stdio, two addresses for HTTP, a sandbox behind them."""

import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compat.installs import installed
from tests.compat.simulated import Simulated, simulating
from tests.http_server import serving_within, variables


@dataclass(frozen=True)
class Target:
    """Where a client finds our server, over one transport."""

    transport: str
    url: str
    command: list[str]
    env: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@pytest.fixture(scope="module")
def _lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def lium(_lium: Simulated) -> Simulated:
    """A fresh sandbox in which a pod takes about two seconds to come up: not at the first look, but soon after it."""
    _lium.begin()
    _lium.run_at(8)
    return _lium


@pytest.fixture(scope="module")
def _targets(_lium: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    home = tmp_path_factory.mktemp("server")
    settings = {"LIUM_BASE_URL": _lium.base_url, "LIUM_API_KEY": "sk_sandbox"}
    command = [sys.executable, "-m", "lium_mcp"]
    # The conformance suite leaves more sessions open than one address may have.
    with serving_within(home, settings, sessions={"per_address": 200}) as served:
        yield {
            "stdio": Target("stdio", "", command, variables(home, **settings)),
            "http": Target("http", f"{served.url}/mcp", [], {}),
            "sse": Target("sse", f"{served.url}/sse", [], {}),
        }


@pytest.fixture
def target(request: pytest.FixtureRequest, lium: Simulated, _targets: dict[str, Target]) -> Target:
    """Our server over the transport that the test names."""
    return _targets[request.param]


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
