"""The hosts on this machine: whether our entry is in their settings, and what comes of it when it is tried."""

import os
from collections.abc import Callable, Iterator
from typing import Final

import anyio

from lium_mcp.cli.checks.entry_limits import check_entry_limits
from lium_mcp.cli.checks.findings import Code, Finding, broken, ok, untried, warning
from lium_mcp.cli.host_commands import install
from lium_mcp.cli.key_cures import log_in, masked
from lium_mcp.cli.shell_lines import in_turn, let_read, put_aside
from lium_mcp.failures import NOTHING_CHANGED
from lium_mcp.hosts.host_facts import ENTRY_NAME, KEY_HEADER, KEY_VARIABLE, Host, Scope
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import FoundEntry, Installed, found_entries, is_here, read_hosts
from lium_mcp.hosts.starting import Tried, try_address, try_program
from lium_mcp.network_settings import read_network
from lium_mcp.official_config import config_path
from lium_mcp.text import shortened
from lium_mcp.toolkit.rendering import META_KEY
from lium_mcp.values import SettingsError, cleaned_key

_AREA: Final = "hosts"
_SHOWN_CHARACTERS: Final = 400
_AT_ONCE: Final = 4
_ALL_SECONDS: Final = 45.0
_KEY_REFUSED: Final = (401, 403)
_OF_KEY: Final = ("api_key_missing", "api_key_refused")

Progress = Callable[[str], None]


async def check_hosts(
    machine: Machine, own_key: str | None, tell: Progress, *, tries_project: bool = False
) -> list[Finding]:
    """Say which hosts are here, and try each entry of ours as its host would.

    Args:
        machine: Where the hosts are.
        own_key: The key that is used here.
        tell: Tells a person how far it is.
        tries_project: Whether what the project's files name is tried too. Anybody may have written those.
    """
    findings: list[Finding] = []
    entries: list[FoundEntry] = []
    absent: list[str] = []
    for host, installed in read_hosts(machine):
        of_host = found_entries(host, installed)
        unusable = [_unusable(host, found, scope) for scope, found in installed if found.problem]
        odd = [_odd(host, found, scope) for scope, found in installed if found.is_odd]
        entries += of_host
        findings += [*unusable, *odd, *_twice(host, installed)]
        if not of_host and not unusable and not odd and is_here(host, machine):
            absent.append(host.name)
    findings += await _try_all(machine, entries, own_key, tell, tries_project=tries_project)
    if absent:
        findings.append(ok(_AREA, f"Here, and without our entry: {', '.join(absent)} (lium-mcp install HOST)."))
    return findings or [ok(_AREA, "No host is found on this machine.")]


async def _try_all(
    machine: Machine, entries: list[FoundEntry], own_key: str | None, tell: Progress, *, tries_project: bool
) -> list[Finding]:
    """Try several at once, and no longer than a person waits."""
    found: dict[int, list[Finding]] = {}
    limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def try_one(number: int, entry: FoundEntry) -> None:
        async with limiter:
            finding, tried = await _try(machine, entry, tries_project=tries_project)
            limits = () if tried is None else check_entry_limits(machine, entry, tried)
            key = _other_key(machine, entry, own_key) if finding.level == "ok" else ()
            found[number] = [finding, *limits, *key]
        tell(f"Trying the entries of hosts: {len(found)} of {len(entries)}")

    with anyio.move_on_after(_ALL_SECONDS):
        async with anyio.create_task_group() as group:
            for number, entry in enumerate(entries):
                group.start_soon(try_one, number, entry)
    left = [entry.title for number, entry in enumerate(entries) if number not in found]
    told = [finding for number in sorted(found) for finding in found[number]]
    if left:
        names = ", ".join(left)
        what = f"{len(left)} more, and their limits, were not tried within {_ALL_SECONDS:.0f} seconds: {names}."
        told.append(
            untried("entries_not_tried", _AREA, what, "mend those that do not answer, and then: lium-mcp doctor")
        )
    return told


def _unusable(host: Host, installed: Installed, scope: Scope) -> Finding:
    path = installed.path
    what = f"{host.title} has settings that cannot be used: {installed.problem}."
    if not path.is_file():
        return broken("host_file_is_none", _AREA, what, "put it away", put_aside(path))
    if not os.access(path, os.R_OK):
        return broken("host_file_unreadable", _AREA, what, "let yourself read it", let_read(path))
    cure = f"correct {path} in an editor, or put it away and begin anew"
    return broken("host_file_broken", _AREA, what, cure, in_turn(put_aside(path), install(host, scope)))


def _odd(host: Host, installed: Installed, scope: Scope) -> Finding:
    what = f"{host.title} cannot use {ENTRY_NAME} in {installed.path}: a command as text and a list of texts are needed"
    cure = f"take it out of that file in an editor, and then: {install(host, scope)}"
    return broken("entry_unusable", _AREA, f"{what}, or an address.", cure)


def _twice(host: Host, installed: list[tuple[Scope, Installed]]) -> Iterator[Finding]:
    for _, found in installed:
        on = [name for name, entry in found.entries.items() if entry.is_on]
        if len(on) > 1:
            what = f"{host.title} has {len(on)} entries of this server, so its model sees each tool as often"
            yield warning(
                "entries_several", _AREA, f"{what}: {', '.join(on)}.", f"take all but one of them out of {found.path}"
            )


async def _try(machine: Machine, entry: FoundEntry, *, tries_project: bool) -> tuple[Finding, Tried | None]:
    """How an entry is, and what came of it; nothing did where it was not tried."""
    title, there = entry.title, entry.found
    does = f"calls {there.url}" if there.url else f"starts {there.command[0]}"
    if not there.is_on:
        how = f"switch it on in {entry.host.title}, or take {entry.place} out"
        return untried("entry_off", _AREA, f"{title} is switched off there.", how), None
    if entry.scope == "project" and not tries_project:
        what = f"{title} {does}, which was not tried, nor its limits: a project's files may be anybody's."
        how = f"look at {entry.path}, and where you trust it"
        return untried("entry_of_project", _AREA, what, how, "lium-mcp doctor --try-project"), None
    if not there.url:
        tried = await try_program(entry.host, machine, there)
        return _judge(machine, entry, does, tried), tried
    correct = f"correct the address of {entry.place}"
    if not there.url.lower().startswith(("http://", "https://")):
        what = f"{title} {does}: it begins with neither https:// nor http://."
        return broken("entry_address_wrong", _AREA, what, correct), None
    try:
        network = read_network(there.url, machine.variables)
    except (SettingsError, ValueError) as error:
        return broken("entry_address_wrong", _AREA, f"{title} {does}: {error}.", correct), None
    tried = await try_address(machine, there, network)
    return _judge(machine, entry, does, tried), tried


def _again(entry: FoundEntry) -> tuple[str, str]:
    """What writes an entry anew, in words and as a command, which writes one of its own name beside another."""
    words = "write the entry anew" if entry.name == ENTRY_NAME else f"take {entry.place} out, and write one anew"
    return words, install(entry.host, entry.scope)


def _judge(machine: Machine, entry: FoundEntry, does: str, tried: Tried) -> Finding:
    problem = shortened(" ".join(tried.problem.split()), _SHOWN_CHARACTERS)
    if tried.tool_count is None and entry.found.url:
        return broken("entry_address_fails", _AREA, f"{entry.title} {does}: {problem}.", _cure_of_address(entry, tried))
    if tried.tool_count is None:
        program = entry.found.command[0]
        return broken(
            "entry_does_not_start",
            _AREA,
            f"{entry.title}: {program} does not start as a server: {problem}.",
            *_again(entry),
        )
    works = f"{entry.title} {does}, which lists {tried.tool_count} tools in {tried.seconds:.1f} s"
    if problem:
        refused = _code_of_refusal(tried) in _OF_KEY
        words, run = _cure_of_refusal(machine, entry, tried)
        code: Code = "entry_key_refused" if refused else "entry_calls_refused"
        return warning(code, _AREA, f"{works}, and refuses calls: {_said(problem, tried)}", words, run)
    if entry.found.asks_person:
        return ok(_AREA, f"{works}; {entry.host.title} asks you for the key when it starts it.")
    simulated = " of the sandbox, where no money is real" if tried.policy and tried.policy.sandbox else ""
    return ok(_AREA, f"{works}, and reads the balance{simulated}.")


def _cure_of_address(entry: FoundEntry, tried: Tried) -> str:
    if tried.http_status in _KEY_REFUSED:
        return f"correct the headers of {entry.place}: {KEY_HEADER} takes your Lium API key"
    if tried.http_status:
        return f"correct the address of {entry.place}; that of a server of ours ends with /mcp"
    return f"start the server there (lium-mcp serve --transport http), or correct the address of {entry.place}"


def _said(problem: str, tried: Tried) -> str:
    """What a refusal says, without what it tells an agent to do."""
    if _code_of_refusal(tried) == "api_key_missing":
        return "it has no API key."
    return problem.partition(NOTHING_CHANGED)[0].strip() or problem


def _code_of_refusal(tried: Tried) -> str:
    return str(dict(tried.refusal.get(META_KEY) or {}).get("code", ""))


def _cure_of_refusal(machine: Machine, entry: FoundEntry, tried: Tried) -> tuple[str, str]:
    """What mends a refusal, by its code, in words and as a command: the server's own words are for a host."""
    code = _code_of_refusal(tried)
    there = entry.found
    match code:
        case "api_key_missing" | "api_key_refused" if there.url:
            return f"put a key that Lium takes into the header {KEY_HEADER} of {entry.place}", ""
        case "api_key_refused" if not _key_of(machine, entry):
            words = f"log in anew, in the place of the key saved in {config_path()}"
            return f"{words}, or set {KEY_VARIABLE} of {entry.place}", log_in(machine.variables, force=True)
        case "api_key_refused" if KEY_VARIABLE in there.variables:
            words = f"correct {KEY_VARIABLE} of {entry.place}, or take it out there and log in"
            return words, log_in(machine.variables)
        case "api_key_missing" | "api_key_refused":
            words = f"log in, which all hosts find, or set {KEY_VARIABLE} of {entry.place}"
            return words, log_in(machine.variables, force=code == "api_key_refused")
        case "settings_wrong":
            return f"correct what it names, here or in {entry.place}", ""
        case _:
            return f"as for lium above; where that is well, correct what {entry.place} sets", ""


def _key_of(machine: Machine, entry: FoundEntry) -> str:
    """The key that the entry has set where it is started; empty where it has none of its own."""
    if entry.found.url:
        return ""
    return cleaned_key(entry.found.environment(entry.host, machine.variables).get(KEY_VARIABLE, ""))


def _other_key(machine: Machine, entry: FoundEntry, own_key: str | None) -> Iterator[Finding]:
    theirs = _key_of(machine, entry)
    if own_key and theirs and theirs != own_key:
        keys = f"{masked(theirs)}, and not {masked(own_key)} as here"
        what = f"{entry.title} uses the key {keys}: it may be of another account."
        yield warning("entry_other_key", _AREA, what, f"take {KEY_VARIABLE} out of {entry.place}, if that is not meant")
