"""``lium-mcp login``: get an API key by agreeing in the browser, and save it where the official client looks too."""

import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio

from lium_mcp.api.account import Me
from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.api.errors import AuthenticationFailed, LiumError
from lium_mcp.cli.browser import Opening, has_browser
from lium_mcp.cli.console import agreed, say, say_aside, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.output import say_wrong
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.shell_lines import unset
from lium_mcp.connecting import connect
from lium_mcp.failures import Failure
from lium_mcp.figures import in_usd
from lium_mcp.guard.redaction import redact_text
from lium_mcp.official_config import FoundKey, OfficialConfig, config_path
from lium_mcp.saved_key import save_key
from lium_mcp.services.accounts import named
from lium_mcp.services.logging_in import KEYS_PAGE, OpenLogin, begin_login, fetch_key, owner_of
from lium_mcp.serving.logs import log_to_stderr
from lium_mcp.settings import Settings
from lium_mcp.settings_reading import load_readable
from lium_mcp.values import SettingsError, cleaned

_LIUM: Final = "lium.io"


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    no_browser, force = options.pop("no_browser"), options.pop("force")
    limit_seconds = 60 * options.pop("wait_minutes")
    # What is wrong with other settings is nothing to a login, which mends a missing or unusable key.
    settings, _ = load_readable(options)
    log_to_stderr(settings.log_level, redact_text, as_json=settings.log_format == "json")
    _refuse_where_it_would_not_count(settings)
    saved = OfficialConfig().general_key()
    lium = connect(settings, key=FoundKey())

    async def log_in() -> int:
        async with lium:
            before = await _owner_before(lium, saved) if saved else None
            if saved and not force:
                _ask_to_replace(before)
            try:
                login = await begin_login(lium)
                await _send_to(login, lium, open_it=not no_browser and has_browser())
                key = await _fetch(lium, login, limit_seconds)
                return await _save(lium, key, saved, before, asks=not force)
            except (LiumError, Failure) as error:
                say_wrong(f"{in_words(error)} No key was saved.")
            return ExitStatus.FAILED

    return anyio.run(log_in)


async def _fetch(lium: LiumClient, login: OpenLogin, limit_seconds: float) -> str:
    try:
        with working("Waiting until you have agreed in the browser"):
            return await fetch_key(lium, login, SYSTEM_CLOCK, limit_seconds=limit_seconds)
    except anyio.get_cancelled_exc_class():  # by Ctrl-C, and by nothing else
        say_aside("\nInterrupted: no key was saved.")
        raise


def _refuse_where_it_would_not_count(settings: Settings) -> None:
    """Stop where another key would be used than the one that a login saves.

    Raises:
        SettingsError: another key would be.
    """
    if settings.sandbox:
        raise SettingsError("LIUM_MCP_SANDBOX: it is on, and the sandbox in the server needs no login")
    if cleaned(os.environ.get("LIUM_API_KEY", "")):
        raise SettingsError(
            "LIUM_API_KEY: it is set here, and would be used in the place of the key that a login saves; take it out "
            f"of the environment first ({unset('LIUM_API_KEY')}), and out of the MCP host's configuration"
        )
    workspace = cleaned(os.environ.get("LIUM_WORKSPACE", ""))
    config = OfficialConfig()
    if not workspace and config.active_workspace() in config.workspaces_with_keys():
        workspace = config.active_workspace()
    if workspace:
        raise SettingsError(
            f"the workspace {workspace} is chosen (by LIUM_WORKSPACE, or as active in {config_path()}), and its own "
            "key would be used in the place of the one that a login saves; choose none first, or make a key for it "
            f"with `lium keys create NAME --workspace {workspace} --save`"
        )


async def _owner_before(lium: LiumClient, key: str) -> str:
    """Words for whom the saved key belongs to, as far as Lium says it now."""
    try:
        with working("Asking Lium whose key is saved"):
            owner = await owner_of(lium, key)
    except AuthenticationFailed:
        return "a key that Lium does not accept any more"
    except LiumError:
        return "a key of an account that cannot be told now"
    return f"a key of {named(owner)}" if owner else "a key that may not read its account"


def _ask_to_replace(before: str | None) -> None:
    question = f"{config_path()} has {before}. Replace it with a new one?"
    if not sys.stdin.isatty():
        raise SettingsError(f"{config_path()} has {before} already; --force replaces it")
    if not agreed(question):
        raise SettingsError("the saved key stays; nothing was changed")


async def _send_to(login: OpenLogin, lium: LiumClient, *, open_it: bool) -> None:
    """Show a person the page on which to agree."""
    if not _is_lium(lium):
        say_aside(
            f"LIUM_BASE_URL is set: this logs in at {login.site}, which is not {_LIUM}. The key is saved for all "
            "programs of yours, which use it there only where LIUM_BASE_URL is set too."
        )
    is_open = open_it and await Opening(login.page).is_taken()
    say("Agree on this page, which your browser shows now:" if is_open else "Open this page in a browser, and agree:")
    say(f"  {login.page}")
    say(f"Whoever agrees there gives this machine a key, so agree only to what you began yourself, at {login.site}.")


async def _save(lium: LiumClient, key: str, saved: str | None, before: str | None, *, asks: bool) -> int:
    """Save a key that Lium accepts, and say whose it is."""
    owner = None
    try:
        with working("Asking Lium whose key it is"):
            owner = await owner_of(lium, key)
    except AuthenticationFailed:
        raise
    except LiumError as error:
        if saved:
            raise
        # Nothing is lost by keeping it, and the page gives each key once.
        say_aside(f"Lium could not be asked whose key it is: {error}")
    now = f"a key of {named(owner)}" if owner else "a key that may not read its account"
    if saved and before != now and saved != key:
        say_aside(f"It was {before}; it is now {now}.")
        if asks and not agreed("Replace it all the same?"):
            say_aside(f"The saved key stays. The new one can be revoked at {KEYS_PAGE}.")
            return ExitStatus.FAILED
    try:
        backup = save_key(key, replaces=saved)
    except SettingsError:
        say_aside(f"The new key was not saved; it can be revoked at {KEYS_PAGE}.")
        raise
    _say_saved(owner, backup)
    if not _is_lium(lium):
        say(f"Set LIUM_BASE_URL={lium.base_url} where the key is used.")
    say("Next: `lium-mcp doctor` looks at the rest of the set-up.")
    return ExitStatus.OK


def _say_saved(owner: Me | None, backup: Path | None) -> None:
    balance = "" if owner is None or owner.balance is None else f", with {in_usd(owner.balance)} left"
    say(f"Logged in as {named(owner)}{balance}." if owner else "Logged in; the key may not read its account.")
    say(f"The key is in {config_path()}, where the official client finds it too.")
    if backup is not None:
        say(f"The file as it was, with the key before, is {backup}; that key still works until it is revoked.")
    if os.environ.get("LIUM_API_API_KEY"):
        say_aside("LIUM_API_API_KEY is set: the official client uses that one instead.")
    say(f"What a key may do and spend is set at {KEYS_PAGE}; it can be revoked there too.")


def _is_lium(lium: LiumClient) -> bool:
    return f".{urlsplit(lium.base_url).hostname}".endswith(f".{_LIUM}")
