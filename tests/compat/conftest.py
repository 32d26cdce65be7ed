"""One process of the official client for all tests of a worker, with a home that every test finds empty."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.driver import Official
from tests.compat.environment import Environment
from tests.compat.installs import OFFICIAL, installed
from tests.compat.simulated import Simulated, simulating
from tests.harness import PUBLIC_KEY


@pytest.fixture(scope="session")
def official_environment() -> Environment:
    """The official client, installed."""
    return Environment(installed(OFFICIAL))


@pytest.fixture(scope="session")
def _process(official_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Official]:
    home = tmp_path_factory.mktemp("official-home")
    client = Official(official_environment, home)
    yield client
    client.close()


@pytest.fixture
def official(_process: Official) -> Official:
    """The official client with an empty home, but for a key pair."""
    for leftover in (".lium", ".ssh"):
        shutil.rmtree(_process.home / leftover, ignore_errors=True)
    write_key_pair(_process.home)
    (_process.home / ".lium").mkdir()
    return _process


@pytest.fixture(scope="session")
def _simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def sandbox_server(official: Official, _simulated: Simulated) -> Simulated:
    """A fresh sandbox on a local port, with the official client pointed at it and nothing else told."""
    _simulated.begin()
    official.point_at(_simulated.base_url)
    return _simulated


@pytest.fixture
def running_pod(official: Official, sandbox_server: Simulated) -> str:
    """The id of a pod named `train` with one A100 that has come up."""
    node = sandbox_server.node("A100")
    created = official.sdk("up", executor_id=node["id"], name="train", gpu_count=1)
    sandbox_server.turn(60)
    assert sandbox_server.pod(created["id"])["status"] == "RUNNING"
    return str(created["id"])


def write_key_pair(home: Path) -> None:
    """Give a home the public half of a key pair, and a file where the private one would be."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519").write_text("not a real private key\n")
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{PUBLIC_KEY}\n")
