"""One process of the official client for all tests of a worker, with a home that every test finds empty."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.driver import Official
from tests.compat.environment import CannotInstall, Environment, ensure
from tests.harness import PUBLIC_KEY


@pytest.fixture(scope="session")
def official_environment() -> Environment:
    """The official client, installed; on a machine that cannot install it these tests are skipped, in CI they fail."""
    try:
        return ensure()
    except CannotInstall as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(str(reason), pytrace=False)
        pytest.skip(str(reason))


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


def write_key_pair(home: Path) -> None:
    """Give a home the public half of a key pair, and a file where the private one would be."""
    (home / ".ssh").mkdir()
    (home / ".ssh" / "id_ed25519").write_text("not a real private key\n")
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{PUBLIC_KEY}\n")
