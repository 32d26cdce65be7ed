"""What bounds whoever uses an entry of a host, which has its own limits, and not those of the shell that looks."""

from collections.abc import Iterator
from typing import Final

from lium_mcp.cli.checks.findings import Finding, ok, untried, warning
from lium_mcp.cli.host_commands import install_with_limits
from lium_mcp.hosts.host_facts import ENTRY_NAME
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import FoundEntry
from lium_mcp.hosts.starting import Tried
from lium_mcp.services.policy_view import LimitView
from lium_mcp.settings_table import LIMITS, SETTINGS

_AREA: Final = "hosts"
WORTH_SETTING: Final = "LIUM_MCP_MAX_PRICE_PER_HOUR_USD, LIUM_MCP_MAX_PODS, LIUM_MCP_MAX_HOURS and LIUM_MCP_BUDGET_USD"


def said(row: LimitView) -> str:
    """A limit and what it allows."""
    return f"{row.limit}: {row.only if row.allowed is None else f'{row.allowed:g}'}"


def check_entry_limits(machine: Machine, entry: FoundEntry, tried: Tried) -> Iterator[Finding]:
    """Say what the server of an entry refuses, and warn where an agent may spend all that an account has."""
    policy = tried.policy
    if tried.tool_count is None or (policy is None and tried.problem):
        return
    if policy is not None and policy.sandbox and not policy.limits:
        return  # which needs none
    if tried.only_reads:
        yield ok(_AREA, f"{entry.title} only reads, so it needs no limits.")
    elif policy is None:
        what = f"Which limits {entry.title} has, could not be read."
        yield untried("limits_not_read", _AREA, what, "mend the way to Lium, and look again", "lium-mcp doctor")
    elif not policy.limits:
        what = f"{entry.title} has no limits: an agent may spend the whole balance."
        yield warning("entry_limits_none", _AREA, f"{what}{_of_shell(machine, entry)}", *_cure(entry))
    elif policy.mode == "shadow" and not policy.sandbox:
        cure = f"take the mode shadow out of {entry.place}, or out of the policy file that it names"
        yield warning("limits_shadow", _AREA, f"The limits of {entry.title} refuse nothing.", cure)
    else:
        yield ok(_AREA, f"{entry.title} has limits: {', '.join(map(said, policy.limits))}.")


def _of_shell(machine: Machine, entry: FoundEntry) -> str:
    """That the limits of this shell are not those of the entry, where a person may think so."""
    here = [name for name in (SETTINGS[limit].variable for limit in (*LIMITS, "policy")) if name in machine.variables]
    if not here or entry.found.url:
        return ""
    names, title = ", ".join(here), entry.host.title
    if not (entry.host.passes_all or {*here} & {*entry.found.forwarded}):
        return f" {names} of this shell {'do' if here[1:] else 'does'} not reach what {title} starts."
    return f" {names} of this shell {'reach' if here[1:] else 'reaches'} {title} only where that is started from it."


def _cure(entry: FoundEntry) -> tuple[str, str]:
    """What sets limits, in words and as a command."""
    if entry.found.url:
        return f"where that server runs, set {WORTH_SETTING}: they hold for all who call it", ""
    if entry.name != ENTRY_NAME:
        return f"set {WORTH_SETTING} of {entry.place}", ""
    return "put limits into the entry; these are an example", install_with_limits(entry.host, entry.scope)
