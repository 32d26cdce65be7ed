"""This machine: the SSH key for pods, the ledger, and the folder where the server keeps what outlives it."""

import os
from pathlib import Path
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.cli.checks.findings import Code, Finding, broken, ok, warning
from lium_mcp.cli.shell_lines import let_read, let_write, make_ssh_key, put_aside, quoted, unset
from lium_mcp.failures import Failure
from lium_mcp.official_config import config_path
from lium_mcp.remote.key_source import KeySource
from lium_mcp.rentals import LazyLedger, LedgerUnavailable
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.login_keys import find_public_keys
from lium_mcp.services.polling import READ_LIMIT_SECONDS
from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS

_SSH: Final = "ssh"
_LEDGER: Final = "ledger"
_SQLITE_FILE: Final = "sqlite:///"
_MOST_ROWS: Final = 200
_NAME_ANOTHER: Final = "name another key: LIUM_SSH_KEY_PATH=/path/to/key"


async def check_ssh(settings: Settings, account: Account, *, is_reached: bool) -> list[Finding]:
    """Say whether pods would let this machine in, and, where they would not, whether they are rented all the same."""
    keys = account.ssh_keys
    if keys is None:
        return []
    own = await keys.own_keys()
    if own.problem is not None:
        is_refused, rents = await _rents_without(account, is_reached=is_reached)
        code, *cure = _key_cure(settings, keys, own.problem)
        # What only reads rents nothing.
        level = broken if is_refused and not settings.read_only else warning
        return [level(code, _SSH, f"{own.problem.happened} Nobody could log in to a pod from here{rents}.", *cure)]
    where = f" beside {keys.public_path}" if keys.public_path and keys.public_path.is_file() else ""
    count = "one public key" if len(own.public) == 1 else f"{len(own.public)} public keys"
    return [ok(_SSH, f"Pods that are rented take {count} of this machine{where}, and its private half can be used.")]


async def _rents_without(account: Account, *, is_reached: bool) -> tuple[bool, str]:
    """Whether a rent is refused where no key of this machine can be used, and what is to be said of rents."""
    unknown = "; whether pods can be rented all the same is not known"
    if not (is_reached and account.lium.has_api_key):
        return False, unknown
    try:
        with anyio.fail_after(READ_LIMIT_SECONDS):
            await find_public_keys(account)
    except Failure:
        return True, ", and none is rented: the account has no key registered either"
    except (LiumError, TimeoutError):
        return False, unknown
    return False, ", so commands and files do not work here; pods can be rented all the same"


def _key_cure(settings: Settings, keys: KeySource, problem: Failure) -> tuple[Code, str, str]:
    """What is wrong with a key, and what mends it, in words and as a command."""
    path = keys.find_path()
    if path is None:
        return "ssh_key_missing", "make a key", make_ssh_key(Path.home() / ".ssh" / "id_ed25519")
    if problem.code == "ssh_key_locked":
        verb = "correct" if keys.passphrase else "set"
        # Whether a passphrase is right, this tells.
        words = f"{verb} LIUM_SSH_KEY_PASSPHRASE, here and where a host sets it, or let an SSH agent have the key"
        return "ssh_key_locked", words, f"ssh-add {quoted(path)}"
    if path.is_file() and not os.access(path, os.R_OK):
        return "ssh_key_unreadable", "let yourself read it", let_read(path)
    if path.exists():
        return "ssh_key_is_none", f"name a private key instead of {path}: LIUM_SSH_KEY_PATH=/path/to/key", ""
    if keys.public_path and keys.public_path.exists():
        return "ssh_key_half", f"put the private half of {keys.public_path} at {path}, or {_NAME_ANOTHER}", ""
    named_by = SETTINGS["ssh_key_path"].variable if settings.ssh_key_path else f"key_path in {config_path()}"
    return "ssh_key_missing", f"make {path}, which {named_by} names, or {_NAME_ANOTHER}", make_ssh_key(path)


async def check_ledger(settings: Settings, ledger: LazyLedger) -> list[Finding]:
    """Say where the ledger is, and whether it can be written: without it nothing is rented."""
    url = settings.find_state_url()
    path = Path(url.removeprefix(_SQLITE_FILE)) if url.startswith(_SQLITE_FILE) else None
    where = "in memory, for the sandbox alone" if url == "sqlite://" else str(path) if path else "in PostgreSQL"
    if ledger.is_empty:
        try:
            ledger.refuse_unmakeable()
        except LedgerUnavailable as error:
            return [_unusable(f"{error}.", path)]
        return [ok(_LEDGER, f"The first rent makes it: {path}." if path else f"It is {where}.")]
    try:
        # Opening it takes the lock that writing needs.
        entries = await ledger.open().newest(_MOST_ROWS)
    except LedgerUnavailable as error:
        return [_unusable(f"{where}: {error}.", path)]
    is_open = sum(entry.is_open for entry in entries)
    return [ok(_LEDGER, f"It is {where}, can be written, and holds {is_open} open rents.")]


def _nearest_folder(path: Path) -> Path:
    """The folder that is there, nearest to where a file is to be."""
    return next(parent for parent in path.parents if parent.exists())


def _unusable(what: str, path: Path | None) -> Finding:
    code, words, run = _ledger_cure(path)
    return broken(code, _LEDGER, f"{what} Nothing is rented without it.", words, run)


def _ledger_cure(path: Path | None) -> tuple[Code, str, str]:
    """What is wrong with a ledger, and what mends it, in words and as a command."""
    code: Code = "ledger_unusable"
    if path is None:
        return "ledger_damaged", "look at the database that LIUM_MCP_STATE_URL names", ""
    if os.environ.get(variable := SETTINGS["state_url"].variable):
        words = f"let {variable} name a file of your own (sqlite:////path/to/rentals.db), or have the usual one"
        return code, words, unset(variable)
    if path.is_file() and os.access(path, os.R_OK | os.W_OK):
        # It knows which rents may have made a pod: nobody should put it away without a thought.
        words = f"bring {path} back from a copy; or, once lium.io shows no pod that it may know of: {put_aside(path)}"
        return "ledger_damaged", words, ""
    if os.environ.get("XDG_STATE_HOME"):
        words = "let XDG_STATE_HOME name a folder of your own, or have the usual one"
        return code, words, unset("XDG_STATE_HOME")
    folder = _nearest_folder(path)
    return code, f"make {folder} and what is in it writable", let_write(folder)
