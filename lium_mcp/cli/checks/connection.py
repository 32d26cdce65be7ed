"""The way to Lium: the key, the address, the network, the clock, and whose account it is."""

import os
import stat
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import anyio

from lium_mcp.api import errors as api
from lium_mcp.api.account import Me
from lium_mcp.cli.checks.findings import Finding, broken, ok, warning
from lium_mcp.cli.checks.reaching import LOOK_AT_NETWORK, through_proxy, why_unreachable
from lium_mcp.cli.key_cures import log_in, masked
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.shell_lines import close_to_others, set_clock, unset
from lium_mcp.figures import in_usd
from lium_mcp.hosts.host_facts import KEY_VARIABLE
from lium_mcp.official_config import OfficialConfig, config_path
from lium_mcp.services.accounts import Account, named
from lium_mcp.services.failure_words import from_api
from lium_mcp.settings import Settings
from lium_mcp.settings_table import DEFAULT_BASE_URL
from lium_mcp.values import SettingsError, key_oddness

T = TypeVar("T")

_KEY: Final = "key"
_LIUM: Final = "lium"
_ASK_SECONDS: Final = 20.0
_CLOCK_DIFFERS: Final = timedelta(minutes=2)
_SLOW_SECONDS: Final = 2.0
_LITTLE_USD: Final = 1.0
_TOP_UP: Final = "top up at lium.io, Billing"


def check_key(settings: Settings, problems: Sequence[str]) -> list[Finding]:
    """Say whether there is a key, and from where; never the key. What `problems` say of it is not said again."""
    if any(KEY_VARIABLE in problem for problem in problems):
        return []
    shared = _open_to_others()
    cure = (f"log in, or set {KEY_VARIABLE} to a key of lium.io (API keys)", log_in(os.environ))
    try:
        key = settings.find_key()
    except SettingsError as error:
        return [broken("key_missing", _KEY, problem, *cure) for problem in error.problems if problem not in problems]
    if key.text is None:
        return [*shared, broken("key_missing", _KEY, key.missing_because or "No API key is set.", *cure)]
    if odd := key_oddness(key.text):
        what = f"The key from {key.place} may be none of Lium's. {odd}"
        odd_cure = f"get another if Lium refuses it, or correct {key.place}"
        return [*shared, warning("key_odd", _KEY, what, odd_cure, cure[1])]
    return [*shared, ok(_KEY, f"The key {masked(key.text)} is from {key.place}.")]


def _open_to_others() -> list[Finding]:
    """Warn of a file of keys that other users of this machine can read; Windows has other means than modes."""
    try:
        path, saved = config_path(), OfficialConfig()
        if os.name != "posix" or not (saved.general_key() or saved.workspaces_with_keys()):
            return []
        can_read = path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
        can_reach = path.parent.stat().st_mode & (stat.S_IXGRP | stat.S_IXOTH)
    except (SettingsError, OSError):  # which is said where it matters
        return []
    if not (can_read and can_reach):
        return []
    what = f"{path} has a key, and other users of this machine can read it."
    return [warning("key_open_to_others", _KEY, what, "close it to them", close_to_others(path))]


async def check_lium(settings: Settings, account: Account) -> list[Finding]:
    """Ask Lium whether it takes the key, whose it is, what it may read, and what time it is."""
    findings = [ok(_LIUM, _address(settings))]
    began = time.monotonic()
    answer = await _ask(settings, account.lium.account.me if account.lium.has_api_key else account.lium.version)
    took_seconds = time.monotonic() - began
    if isinstance(answer, Finding):
        return [*findings, answer]
    took = f"It answered in {took_seconds * 1000:.0f} ms"
    if took_seconds > _SLOW_SECONDS:
        findings.append(warning("slow", _LIUM, f"{took}, which is slow.", "look at the network, or at the proxy"))
    else:
        findings.append(ok(_LIUM, f"{took}."))
    findings.append(_clock(account))
    return [*findings, *await _rights(settings, account, answer)] if isinstance(answer, Me) else findings


def _address(settings: Settings) -> str:
    if settings.sandbox:
        return "Lium is simulated in this process (--sandbox)."
    network = settings.find_network()
    own = "" if settings.base_url == DEFAULT_BASE_URL else ", which LIUM_BASE_URL names"
    ca = f", trusting the certificates in {network.ca_path} alone" if network.ca_path else ""
    return f"Lium is asked at {settings.base_url}{own}{network.through or ', without a proxy'}{ca}."


def _clock(account: Account) -> Finding:
    differs = account.lium.now() - datetime.now(UTC)
    if abs(differs) <= _CLOCK_DIFFERS:
        return ok(_LIUM, "The clock of this machine agrees with Lium's.")
    return warning(
        "clock_wrong",
        _LIUM,
        f"The clock of this machine is {abs(differs).total_seconds() / 60:.0f} minutes "
        f"{'behind' if differs > timedelta() else 'ahead of'} Lium's.",
        f"set it, for instance with: {set_clock()}",
    )


async def _rights(settings: Settings, account: Account, me: Me) -> list[Finding]:
    findings = [ok(_KEY, f"Lium takes the key, which acts for {named(me)}.")]
    if me.balance is None:
        findings.append(warning("balance_unknown", _KEY, "Lium does not say the balance.", "look at lium.io, Billing"))
    elif me.balance < _LITTLE_USD:
        findings.append(
            warning("balance_low", _KEY, f"The balance is {in_usd(me.balance)}: rents are refused.", _TOP_UP)
        )
    else:
        findings.append(ok(_KEY, f"The balance is {in_usd(me.balance)}."))
    may_read = await _ask(settings, account.lium.account.billing_statement)
    if isinstance(may_read, Finding):
        findings.append(may_read)
    findings.append(
        ok(
            _KEY,
            "Whether it may rent and remove, its budget and its expiry are not said to a key: lium.io, API keys, shows "
            "them. A refusal names the scope that is missing.",
        )
    )
    return findings


async def _ask(settings: Settings, question: Callable[[], Awaitable[T]]) -> T | Finding:
    """What Lium answers, or why it does not, with what mends that."""
    try:
        with anyio.fail_after(_ASK_SECONDS):
            return await question()
    except TimeoutError:
        happened = f"Lium did not answer within {_ASK_SECONDS:.0f} seconds."
        return broken(
            "silent",
            _LIUM,
            happened,
            *through_proxy(settings) or ("look at the network, and try again in some minutes",),
        )
    except api.LiumError as error:
        if isinstance(error, api.ConnectionFailed) and (named_problem := await why_unreachable(settings)):
            return named_problem
        return _judge(settings, error)


def _judge(settings: Settings, error: api.LiumError) -> Finding:
    failure = from_api(error)
    match error:
        case api.AuthenticationFailed():
            return broken(
                "key_refused",
                _KEY,
                failure.happened,
                f"log in for a new key, or make one at lium.io (API keys) and set {KEY_VARIABLE} to it",
                log_in(os.environ, force=True),
            )
        case api.PermissionDenied():
            return warning(
                "scope_missing", _KEY, failure.happened, "make a key with the scopes read, rent and manage at lium.io"
            )
        case api.CertificateRefused():
            return broken(
                "certificate_refused",
                _LIUM,
                failure.happened,
                "name the CA of your network: SSL_CERT_FILE=/path/to/ca.pem",
            )
        case api.ProxyLoginRefused():
            setting = settings.find_network().proxy_setting
            return broken(
                "proxy_login_refused", _LIUM, failure.happened, f"put the name and the password into {setting}"
            )
        case api.ConnectionFailed() | api.RequestTimedOut() if past := through_proxy(settings):
            return broken("proxy_in_the_way", _LIUM, failure.happened, *past)
        case api.ConnectionFailed() | api.RequestTimedOut():
            return broken("unreachable", _LIUM, failure.happened, LOOK_AT_NETWORK)
        case api.NotFound() | api.RouteMissing() | api.NotLium() if settings.base_url != DEFAULT_BASE_URL:
            cure = "correct LIUM_BASE_URL, which ends with /api, or take it away for Lium itself"
            return broken("not_lium", _LIUM, failure.happened, cure, unset("LIUM_BASE_URL"))
        case _:
            return broken(
                "lium_failed", _LIUM, failure.happened, in_words(error).removeprefix(failure.happened).strip()
            )
