"""A real PostgreSQL that tests start themselves: in a directory of its own, on a Unix socket, gone with the tests.

It trades every promise about crashes for speed. It refuses to run as root, so root starts it as somebody else.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import anyio
import psycopg

PASSWORD: Final = "not-for-anybody"
_USER: Final = "lium"
_START_SECONDS: Final = 30
_OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0777",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "200",
    "shared_buffers": "16MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}
# The server ends when this pipe does, so none outlives tests that are killed.
_UNTIL_INPUT_ENDS: Final = '"$@" </dev/null & read _; kill -QUIT $!; wait'


class NoPostgres(Exception):
    """This machine has none; the sentence says so."""


class Postgres:
    """A running server."""

    def __init__(self, socket_directory: Path) -> None:
        self._host = socket_directory
        self._names = (f"test_{number}" for number in count())

    def url(self, database: str = "postgres") -> str:
        """The address of a database, as a user writes it."""
        return f"postgresql://{_USER}:{PASSWORD}@/{database}?host={self._host}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """A fresh database until the end of the block; its address."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, past our program."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    async def until_connected(self, url: str, count: int) -> None:
        """Wait until a database has so many connections: it hears of the end of one a moment later."""
        with anyio.fail_after(_START_SECONDS):
            while True:
                found = self.execute("SELECT datname FROM pg_stat_activity")
                if sum(name == database_of(url) for (name,) in found) == count:
                    return
                await anyio.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let nothing answer for the length of the block: neither a connection nor who takes new ones."""
        parent = int((self._host / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(parent, signal.SIGSTOP)  # first, so that there are no more connections than are found then
        children = [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        for child in children:
            os.kill(child, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in (*children, parent):
                os.kill(process, signal.SIGCONT)
            self.execute("SELECT 1")  # which has all the time that it takes

    def disconnect(self, url: str) -> None:
        """End every connection to a database."""
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
        self.execute(f"{statement}'{database_of(url)}'")

    def close(self, url: str) -> None:
        """End every connection to a database and let none be made, until it is opened again."""
        self.execute(f"ALTER DATABASE {database_of(url)} ALLOW_CONNECTIONS false")
        self.disconnect(url)

    def open(self, url: str) -> None:
        """Let connections to a database be made again."""
        self.execute(f"ALTER DATABASE {database_of(url)} ALLOW_CONNECTIONS true")


def database_of(url: str) -> str:
    """The name of the database at an address of `Postgres.url`."""
    return url.partition("?")[0].rpartition("/")[2]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server until the end of the block.

    Raises:
        NoPostgres: there is none to run.
    """
    binaries = _binaries()
    owner = _owner()
    # Not under pytest's own directory: that is too long a path for a socket, and closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="lium-mcp-pg-"))
    try:
        data = directory / "data"
        if owner is not None:
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        identity: dict[str, Any] = {"cwd": directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
        if owner is not None:
            identity |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        setup = ["--no-sync", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--no-locale"]
        subprocess.run([binaries / "initdb", "-D", data, *setup], check=True, capture_output=True, **identity)
        options = [f"--{name}={value}" for name, value in {**_OPTIONS, "unix_socket_directories": directory}.items()]
        command = ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", str(binaries / "postgres"), "-D", str(data), *options]
        log = directory / "log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, **identity
            ) as process,
        ):
            server = Postgres(directory)
            _wait_until_ready(server, process, log)
            yield server
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait_until_ready(server: Postgres, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL does not start: {log.read_text()}") from None
            time.sleep(0.02)
        else:
            return


def _binaries() -> Path:
    """The directory that has `initdb` and `postgres`."""
    candidates = [Path(found).parent for name in ("initdb", "postgres") if (found := shutil.which(name))]
    if shutil.which("pg_config"):
        shown = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        candidates.append(Path(shown.stdout.strip()))
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(versions, key=lambda path: path.parent.name.zfill(3), reverse=True)
    for candidate in candidates:
        if all((candidate / name).is_file() for name in ("initdb", "postgres")):
            return candidate
    raise NoPostgres("No PostgreSQL server is installed: neither initdb nor postgres was found")


def _owner() -> pwd.struct_passwd | None:
    """Who the server runs as; None where that is whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
