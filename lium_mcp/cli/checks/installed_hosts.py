"""The hosts on this machine: whether our entry is in their settings, and what comes of it when it is started."""

from typing import Final

from lium_mcp.cli.checks.findings import Finding, broken, ok, warning
from lium_mcp.hosts.host_entries import InstalledEntry
from lium_mcp.hosts.host_facts import Host, Scope
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.hosts.installed_entries import is_here, read_installed
from lium_mcp.hosts.starting import try_entry
from lium_mcp.text import shortened

_AREA: Final = "hosts"
_SHOWN_CHARACTERS: Final = 400


async def check_hosts(machine: Machine) -> list[Finding]:
    """Say which hosts are here, and try each entry of ours as its host would."""
    findings: list[Finding] = []
    absent: list[str] = []
    for host in HOSTS.values():
        of_host = [finding for scope in host.scopes for finding in await _check(host, machine, scope)]
        findings += of_host
        if not of_host and is_here(host, machine):
            absent.append(host.name)
    if absent:
        findings.append(ok(_AREA, f"Here, and without our entry: {', '.join(absent)} (lium-mcp install HOST)."))
    return findings or [ok(_AREA, "No host is found on this machine.")]


async def _check(host: Host, machine: Machine, scope: Scope) -> list[Finding]:
    installed = read_installed(host, machine, scope)
    if installed is None:
        return []
    if installed.problem:
        return [broken(_AREA, f"{host.title} has settings that cannot be used: {installed.problem}.", "mend that file")]
    title = host.title if scope == "user" else f"{host.title}, in this project"
    again = f"lium-mcp install {host.name}{' --scope project' if scope == 'project' else ''}"
    return [await _try(host, machine, f"{title} ({name})", entry, again) for name, entry in installed.entries.items()]


async def _try(host: Host, machine: Machine, title: str, entry: InstalledEntry, again: str) -> Finding:
    if entry.url:
        return ok(_AREA, f"{title} calls {entry.url}, which was not tried.")
    tried = await try_entry(host, machine, entry)
    problem = shortened(" ".join(tried.problem.split()), _SHOWN_CHARACTERS)
    program = entry.command[0]
    if tried.tool_count is None:
        return broken(_AREA, f"{title}: {program} does not start as a server: {problem}.", again)
    works = f"{title} starts {program}, which lists {tried.tool_count} tools in {tried.seconds:.1f} s"
    if problem:
        return warning(_AREA, f"{works}, and refuses calls: {problem}", f"as said there, or {again}")
    return ok(_AREA, f"{works}, and reads the balance.")
