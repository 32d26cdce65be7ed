"""Fixtures that every part of the tests shares."""

import gc
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from httpx2._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator

from lium_mcp.sandbox import Sandbox
from tests import warm
from tests.harness import Agent, agent_on, hosted, make_key_pair, write_ssh_key
from tests.postgres import NoPostgres, Postgres, running_postgres
from tests.servers import Servers
from tests.sshd import Sshd, at_sshd, running, what_is_missing

# A test fails for a change, not for the luck of a draw or a slow machine; `make fuzz` draws anew.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("default"), derandomize=True)
settings.load_profile("fixed")


# What these need is not in `.venv`: a server of the system, or a client that was installed before.
_EXTERNAL_FIXTURES: Final = frozenset(
    {"postgres", "sshd", "official_environment", "python_130", "typescript", "inspector", "conformance", "browser"}
)


# What else of a machine's environment the program reads. To read all authorities of a system takes 20 ms.
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_OF_THE_MACHINE: Final = frozenset({*_PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK", "XDG_STATE_HOME"})
_NEVER_SECONDS: Final = 10**6
_PATIENCE_SECONDS: Final = 60.0
# In Linux's memory a file is made and removed a hundred times faster than on a disk, and a transaction committed.
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - pytest makes a folder of its own in it
_MEMORY_BYTES: Final = 2**31


def pytest_configure() -> None:
    """Let tests write into memory, where there is enough and programs may be run from it."""
    if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
        room = os.statvfs(_MEMORY)
        if room.f_bavail * room.f_frsize >= _MEMORY_BYTES and not room.f_flag & os.ST_NOEXEC:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_collection_finish() -> None:
    """Spare the collector of garbage what all tests have in common: it would look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what only `make test-all` runs, by what it uses."""
    for item in items:
        if isinstance(item, pytest.Function) and not _EXTERNAL_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("external")


@pytest.fixture(scope="session", autouse=True)
def _sound_schemas() -> Iterator[None]:
    """Let clients check a schema once: each checks what its server lists, which takes longer than a call does."""
    check = Draft202012Validator.check_schema
    sound: set[str] = set()

    def check_once(schema: Any) -> None:
        if (written := json.dumps(schema)) not in sound:
            check(schema)
            sound.add(written)

    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Draft202012Validator, "check_schema", check_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _patient_requests() -> Iterator[None]:
    """Give answers the time that a busy machine takes for them: who names no limit has one of five seconds."""
    with pytest.MonkeyPatch.context() as patches:
        for limit in ("connect", "read", "write", "pool"):
            patches.setattr(DEFAULT_TIMEOUT_CONFIG, limit, _PATIENCE_SECONDS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _warm_starts() -> Iterator[None]:
    """Start our program without its second of imports, whoever starts it."""
    with pytest.MonkeyPatch.context() as patches:
        if warm.IS_POSSIBLE:
            patches.setattr(subprocess, "Popen", warm.Popen)
        yield
    warm.Popen.template.close()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a home of its own, with a key pair and without anybody's settings."""
    for name in [name for name in os.environ if name.startswith("LIUM_") or name.upper() in _OF_THE_MACHINE]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    write_ssh_key(home)
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(autouse=True)
def calls_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the servers of this process act in calls only, unless a test of what is done between them says when.

    That goes by the clock of this machine: it would come into the middle of a test that a slow one takes seconds for.
    """
    monkeypatch.setattr("lium_mcp.between_calls._FIRST_ATTENTION_SECONDS", _NEVER_SECONDS)
    monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_LOOK_SECONDS", _NEVER_SECONDS)


@pytest.fixture
def sandbox() -> Sandbox:
    """A simulated Lium whose clock only moves when it is turned."""
    return Sandbox(seed=7, speed=0)


@pytest.fixture
def settings_of_agent() -> dict[str, Any]:
    """What the server of `agent` is set to beside the defaults of `agent_on`; a file of tests may say otherwise."""
    return {}


@pytest.fixture
async def agent(sandbox: Sandbox, settings_of_agent: dict[str, Any]) -> AsyncIterator[Agent]:
    """A client of the current protocol on a server over the sandbox."""
    async with hosted(agent_on(sandbox, **settings_of_agent)) as connected:
        yield connected


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """An account whose pods answer SSH, and whose servers may read as often as they like; its key is in `key`."""
    make_key_pair(tmp_path / "key")
    sandbox = Sandbox(seed=7, speed=0, ssh=True, pod_polls_per_minute=10**6)
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
def shared_ledger(tmp_path: Path) -> str:
    """The address of the ledger of `at`; a file of tests may name another."""
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def settings_of_servers() -> dict[str, Any]:
    """What the servers of `at` are set to beside the defaults of `agent_on`; a file of tests may say otherwise."""
    return {}


@pytest.fixture
def at(account: Sandbox, tmp_path: Path, shared_ledger: str, settings_of_servers: dict[str, Any]) -> Servers:
    """Starts servers of `account` on one ledger."""
    return Servers(account, shared_ledger, {"ssh_key_path": tmp_path / "key"} | settings_of_servers)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    try:
        with running_postgres() as server:
            yield server
    except NoPostgres as reason:
        pytest.fail(str(reason), pytrace=False)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.external)])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty ledger, on either database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state' / 'rentals.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A real OpenSSH server that stands for a pod."""
    if missing := what_is_missing():
        pytest.fail(missing, pytrace=False)
    with running(tmp_path / "pod") as server:
        yield server


@pytest.fixture
async def on_sshd(
    sandbox: Sandbox, sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Agent]:
    """A client on a server whose pods, once they run, are all that one OpenSSH server; local files are in `work`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    async with hosted(agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path)) as connected:
        yield connected
