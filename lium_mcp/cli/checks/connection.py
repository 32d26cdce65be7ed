"""The way to Lium: the key, the address, the network, the clock, whose account it is, and what the limits leave."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from urllib.parse import urlsplit

import anyio

from lium_mcp.api import errors as api
from lium_mcp.api.account import Me
from lium_mcp.cli.checks.findings import Finding, broken, ok, warning
from lium_mcp.figures import in_usd
from lium_mcp.guard.policy import Policy
from lium_mcp.services.accounts import Account, named
from lium_mcp.services.failure_words import from_api
from lium_mcp.services.policy_view import read_standings
from lium_mcp.settings import Settings
from lium_mcp.settings_table import DEFAULT_BASE_URL
from lium_mcp.values import SettingsError

T = TypeVar("T")

_KEY: Final = "key"
_LIUM: Final = "lium"
_LIMITS: Final = "limits"
_ASK_SECONDS: Final = 20.0
_CLOCK_DIFFERS: Final = timedelta(minutes=2)
_SLOW_SECONDS: Final = 2.0
_LITTLE_USD: Final = 1.0
_SHOWN_CHARACTERS: Final = 4
_LONG_ENOUGH: Final = 16
_THROUGH: Final = (
    "look at the network, the firewall, and LIUM_BASE_URL; a network with a proxy needs HTTPS_PROXY=http://HOST:PORT"
)
_LOG_IN: Final = "lium-mcp login, or set LIUM_API_KEY where the host starts the server"


def check_key(settings: Settings) -> list[Finding]:
    """Say whether there is a key, and from where; never the key."""
    try:
        key = settings.find_key()
    except SettingsError as error:
        return [broken(_KEY, problem, _LOG_IN) for problem in error.problems]
    if key.text is None:
        return [broken(_KEY, key.missing_because or "No API key is set.", _LOG_IN)]
    return [ok(_KEY, f"The key {_masked(key.text)} is from {key.place}.")]


def _masked(key: str) -> str:
    return f"sk_\u2026{key[-_SHOWN_CHARACTERS:]}" if len(key) >= _LONG_ENOUGH else "(a short one)"


async def check_lium(settings: Settings, account: Account) -> list[Finding]:
    """Ask Lium whether it takes the key, whose it is, what it may read, and what time it is."""
    findings = [ok(_LIUM, _address(settings))]
    began = time.monotonic()
    answer = await _ask(account.lium.account.me if account.lium.has_api_key else account.lium.version)
    if isinstance(answer, Finding) and answer.area == _LIUM and not settings.find_network().proxy_url:
        answer = await _name_problem(settings) or answer
    took_seconds = time.monotonic() - began
    if isinstance(answer, Finding):
        return [*findings, answer]
    took = f"It answered in {took_seconds * 1000:.0f} ms"
    if took_seconds > _SLOW_SECONDS:
        findings.append(warning(_LIUM, f"{took}, which is slow.", "look at the network, or at the proxy"))
    else:
        findings.append(ok(_LIUM, f"{took}."))
    findings.append(_clock(account))
    return [*findings, *await _rights(account, answer)] if isinstance(answer, Me) else findings


async def _name_problem(settings: Settings) -> Finding | None:
    """Say whether the name of the address leads nowhere, which the failure of a connection does not tell."""
    host = urlsplit(settings.base_url).hostname or ""
    try:
        with anyio.fail_after(_ASK_SECONDS):
            await anyio.getaddrinfo(host, None)
    except (OSError, UnicodeError, TimeoutError):
        cure = f"look at the network of this machine (ping {host}), at its DNS, or at LIUM_BASE_URL"
        return broken(_LIUM, f"No address is known for the name {host}: there is no network, or no such name.", cure)
    return None


async def check_limits(account: Account, policy: Policy) -> list[Finding]:
    """Say which limits are in force, and what of them is used."""
    if not policy.limits.any:
        return [
            warning(
                _LIMITS,
                "No limits are set: an agent may spend the whole balance.",
                "set LIUM_MCP_MAX_PRICE_PER_HOUR_USD, LIUM_MCP_MAX_PODS, LIUM_MCP_MAX_HOURS and LIUM_MCP_BUDGET_USD in "
                "the entry of the host",
            )
        ]
    standings = await read_standings(account, policy)
    findings = [] if not policy.shadow else [warning(_LIMITS, "Limits refuse nothing.", "unset LIUM_MCP_POLICY_MODE")]
    for row in standings.limits or ():
        allowed = row.only if row.allowed is None else f"{row.allowed:g}"
        used = "" if row.used is None else f", {row.used:g} used, {row.left:g} left"
        findings.append(ok(_LIMITS, f"{row.limit}: {allowed}{used}"))
    if standings.unread_because and account.lium.has_api_key:
        findings.append(warning(_LIMITS, f"What is used is not known: {standings.unread_because}", "see above"))
    return findings


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
        _LIUM,
        f"The clock of this machine is {abs(differs).total_seconds() / 60:.0f} minutes "
        f"{'behind' if differs > timedelta() else 'ahead of'} Lium's.",
        "set it, for instance with: sudo timedatectl set-ntp true",
    )


async def _rights(account: Account, me: Me) -> list[Finding]:
    findings = [ok(_KEY, f"Lium takes the key, which acts for {named(me)}.")]
    if me.balance is None:
        findings.append(warning(_KEY, "Lium does not say the balance.", "look at lium.io, Billing"))
    elif me.balance < _LITTLE_USD:
        findings.append(
            warning(_KEY, f"The balance is {in_usd(me.balance)}: rents are refused.", "top up at lium.io, Billing")
        )
    else:
        findings.append(ok(_KEY, f"The balance is {in_usd(me.balance)}."))
    may_read = await _ask(account.lium.account.billing_statement)
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


async def _ask(question: Callable[[], Awaitable[T]]) -> T | Finding:
    """What Lium answers, or why it does not, with what mends that."""
    try:
        with anyio.fail_after(_ASK_SECONDS):
            return await question()
    except TimeoutError:
        return broken(_LIUM, f"Lium did not answer within {_ASK_SECONDS:.0f} seconds.", "look at the network")
    except api.LiumError as error:
        return _judge(error)


def _judge(error: api.LiumError) -> Finding:
    failure = from_api(error)
    match error:
        case api.AuthenticationFailed():
            return broken(_KEY, failure.happened, "make a new key at lium.io (API keys), then: lium-mcp login")
        case api.PermissionDenied():
            return warning(_KEY, failure.happened, "make a key with the scopes read, rent and manage at lium.io")
        case api.CertificateRefused():
            return broken(_LIUM, failure.happened, "name the CA of your network: SSL_CERT_FILE=/path/to/ca.pem")
        case api.ProxyLoginRefused():
            return broken(_LIUM, failure.happened, "put the name and the password into HTTPS_PROXY")
        case api.ConnectionFailed():
            return broken(_LIUM, failure.happened, _THROUGH)
        case api.NotFound() | api.RouteMissing() | api.NotLium():
            return broken(_LIUM, failure.happened, "unset LIUM_BASE_URL, or correct it: it ends with /api")
        case _:
            return broken(_LIUM, failure.happened, failure.advice or "try again in some minutes")
