"""Fixtures that every part of the tests shares."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, agent_on, hosted
from tests.postgres import NoPostgres, Postgres, running_postgres


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home of its own, with a key pair's public half and without anybody's settings."""
    for name in [name for name in os.environ if name.startswith("LIUM_")]:
        if name != "LIUM_MCP_UPDATE_SNAPSHOTS":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("not a real private key\n")
    (home / ".ssh" / "id_ed25519.pub").write_text(f"{PUBLIC_KEY}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


@pytest.fixture
def sandbox() -> Sandbox:
    """A simulated Lium whose clock only moves when it is turned."""
    return Sandbox(seed=7, speed=0)


@pytest.fixture
async def agent(sandbox: Sandbox) -> AsyncIterator[Agent]:
    """A client of the current protocol on a server over the sandbox."""
    async with hosted(agent_on(sandbox)) as connected:
        yield connected


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; where none is installed, what needs it is skipped."""
    try:
        with running_postgres() as server:
            yield server
    except NoPostgres as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["sqlite", "postgresql"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty ledger, on either database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state' / 'rentals.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
