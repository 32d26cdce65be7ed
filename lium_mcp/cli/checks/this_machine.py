"""This machine: the SSH key for pods, the ledger, and the folder where the server keeps what outlives it."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from lium_mcp.cli.checks.findings import Finding, broken, ok, warning
from lium_mcp.remote.key_source import KeySource
from lium_mcp.rentals import LazyLedger, LedgerUnavailable
from lium_mcp.settings import Settings

_SSH: Final = "ssh"
_LEDGER: Final = "ledger"
_SQLITE_FILE: Final = "sqlite:///"
_MOST_ROWS: Final = 200


async def check_ssh(keys: KeySource | None) -> list[Finding]:
    """Say whether pods would let this machine in."""
    if keys is None:
        return []
    own = await keys.own_keys()
    if own.problem is not None:
        level = warning if own.public else broken
        return [level(_SSH, f"{own.problem.happened} Nobody could log in to a pod from here.", own.problem.advice)]
    where = f" beside {keys.public_path}" if keys.public_path and keys.public_path.is_file() else ""
    count = "one public key" if len(own.public) == 1 else f"{len(own.public)} public keys"
    return [ok(_SSH, f"Pods that are rented take {count} of this machine{where}, and its private half can be used.")]


async def check_ledger(settings: Settings, ledger: LazyLedger) -> list[Finding]:
    """Say where the ledger is, and whether it can be written: without it nothing is rented."""
    url = settings.find_state_url()
    path = Path(url.removeprefix(_SQLITE_FILE)) if url.startswith(_SQLITE_FILE) else None
    where = "in memory, for the sandbox alone" if url == "sqlite://" else str(path) if path else "in PostgreSQL"
    if ledger.is_empty:
        if path is None:
            return [ok(_LEDGER, f"It is {where}.")]
        return [_first_time(path)]
    try:
        # Opening it takes the lock that writing needs.
        entries = await ledger.open().newest(_MOST_ROWS)
    except LedgerUnavailable as error:
        return [broken(_LEDGER, f"{where}: {error}. Nothing is rented without it.", _cure(path))]
    is_open = sum(entry.is_open for entry in entries)
    return [ok(_LEDGER, f"It is {where}, can be written, and holds {is_open} open rents.")]


def _first_time(path: Path) -> Finding:
    folder = next(parent for parent in path.parents if parent.exists())
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        what = f"{path} cannot be made: {folder} cannot be written ({error.strerror}). Nothing is rented without it."
        return broken(_LEDGER, what, _cure(path))
    return ok(_LEDGER, f"The first rent makes it: {path}.")


def _cure(path: Path | None) -> str:
    if path is None:
        return "look at the database that LIUM_MCP_STATE_URL names"
    return f"make {path.parent} writable, or name another place: LIUM_MCP_STATE_URL=sqlite:////path/to/rentals.db"
