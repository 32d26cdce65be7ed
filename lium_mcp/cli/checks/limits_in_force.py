"""The limits in force: what of them is used, and whether what they name is there at all."""

import os
from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Final

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.gpu_names import gpu_fits, gpu_label, nearest_names
from lium_mcp.cli.checks.entry_limits import WORTH_SETTING, said
from lium_mcp.cli.checks.findings import Finding, ok, untried, warning
from lium_mcp.cli.person_words import in_words
from lium_mcp.cli.shell_lines import unset
from lium_mcp.countries import plain_countries
from lium_mcp.guard.policy import Policy
from lium_mcp.services.accounts import Account
from lium_mcp.services.policy_view import read_standings
from lium_mcp.settings_table import SETTINGS

_LIMITS: Final = "limits"
_MARKET_SECONDS: Final = 15.0


async def check_limits(
    account: Account, policy: Policy, *, is_reached: bool, harmless_because: str, entries: int
) -> list[Finding]:
    """Say which limits a server that is started here has, and, where Lium can be reached, what of them is used.

    Args:
        account: Whose pods count.
        policy: The limits.
        is_reached: Whether Lium can be reached.
        harmless_because: Why no limits are needed; empty where they are.
        entries: How many hosts start servers of their own, whose limits are told elsewhere.
    """
    if not policy.limits.any and harmless_because:
        return [ok(_LIMITS, f"No limits are set, and none are needed: {harmless_because}.")]
    if not policy.limits.any and entries:
        return [ok(_LIMITS, "This shell sets none; what each host starts has its own, or none: see hosts, below.")]
    if not policy.limits.any:
        cure = f"set some where you tell a host of this server: lium-mcp install HOST offers {WORTH_SETTING}"
        return [warning("limits_none", _LIMITS, "No limits are set: an agent may spend the whole balance.", cure)]
    if not is_reached:
        named = ", ".join(policy.limits.in_force())
        what = f"In force: {named}. What of them is used is not known, since Lium does not answer."
        return [untried("limits_not_read", _LIMITS, what, "mend the way to Lium, and look again", "lium-mcp doctor")]
    standings = await read_standings(account, policy, in_words=in_words)
    findings = [ok(_LIMITS, "These are of this shell; what each host starts has its own: see hosts, below.")]
    findings = [*(findings if entries else ()), *([_shadow()] if policy.shadow else ())]
    for row in standings.limits or ():
        used = "" if row.used is None else f", {row.used:g} used, {row.left:g} left"
        findings.append(ok(_LIMITS, f"{said(row)}{used}"))
    if standings.unread_because and account.lium.has_api_key:
        what = f"What is used is not known: {standings.unread_because}"
        findings.append(
            untried("limits_not_read", _LIMITS, what, "mend what is wrong above, and look again", "lium-mcp doctor")
        )
    return [*findings, *await _check_names(account, policy)]


def _shadow() -> Finding:
    variable = SETTINGS["policy_mode"].variable
    what, cure = "Limits refuse nothing.", "let them: take the mode shadow out of the settings, or of the policy file"
    return warning("limits_shadow", _LIMITS, what, cure, unset(variable) if os.environ.get(variable) else "")


async def _check_names(account: Account, policy: Policy) -> list[Finding]:
    """Warn of what a list allows and nobody offers: a typo there refuses every rent, without a word at the start."""
    gpu_types, countries = policy.limits.allow_gpu_types, policy.limits.allow_countries
    if not gpu_types and not countries:
        return []
    try:
        with anyio.fail_after(_MARKET_SECONDS):
            machines = [machine.name for machine in await account.lium.machines.list()]
            offered = {node.country_code for node in await account.lium.executors.list()} if countries else set()
    except (LiumError, TimeoutError):
        what = "Whether the market has the GPU types and countries of the limits could not be asked."
        return [untried("limits_not_read", _LIMITS, what, "mend the way to Lium, and look again", "lium-mcp doctor")]
    return [*_unknown_gpus(gpu_types, machines), *_unknown_countries(countries, {code for code in offered if code})]


def _unknown_gpus(allowed: Collection[str], machines: Sequence[str]) -> Iterator[Finding]:
    labels = [gpu_label(name) for name in machines]
    for name in sorted(allowed):
        if not any(gpu_fits(name, machine) for machine in machines):
            nearest = nearest_names(name, labels)[:1]
            yield _unknown("allow_gpu_types", f"no GPU of the market is {name}", nearest)


def _unknown_countries(allowed: Collection[str], offered: Collection[str]) -> Iterator[Finding]:
    for code in sorted(allowed):
        try:
            plain = plain_countries(code)
        except ValueError:
            nearest = get_close_matches(code.upper(), sorted(offered), 1, 0)
            yield _unknown("allow_countries", f"there is no country {code}", nearest)
        else:
            if code.upper() not in offered:
                nearest = [] if plain == code.upper() else [plain]
                yield _unknown("allow_countries", f"no node is offered in {code} now", nearest)


def _unknown(limit: str, what: str, nearest: Sequence[str]) -> Finding:
    meant = f", perhaps to {nearest[0]}" if nearest else ""
    return warning(
        "limit_meets_nothing",
        _LIMITS,
        f"{limit}: {what}.",
        f"correct LIUM_MCP_{limit.upper()}{meant}, unless it is yet to come",
    )
