"""A change of a host's file as a person meets it: shown, agreed to, made, and said."""

import shlex
import sys
from collections.abc import Callable

from lium_mcp.cli.console import agreed, say, say_aside, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.hosts.config_changes import Change
from lium_mcp.hosts.entry_settings import is_simulated, settings_of
from lium_mcp.hosts.host_entries import InstalledEntry, read_entry
from lium_mcp.hosts.host_facts import Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.hosts.installed_entries import ConfigUnusable, is_here
from lium_mcp.hosts.own_tools import own_command, run_own_command
from lium_mcp.settings_table import LIMITS, SETTINGS, TRUE, as_option, is_option
from lium_mcp.values import SettingsError, no_such

Plan = Callable[[bool], Change]
"""Plans the change; told whether the host's own command has been asked to make it, what that has left to do."""

_STYLES = {"+": "green", "-": "red"}


def host_named(name: str | None) -> Host:
    """The host that a person named.

    Raises:
        SettingsError: there is none of that name.
    """
    if name is None:
        raise SettingsError(f"name the host: {', '.join(HOSTS)}; lium-mcp install --list shows which have our entry")
    if name not in HOSTS:
        raise SettingsError(no_such(name, list(HOSTS), like=name, kind="host"))
    return HOSTS[name]


def carry_out(plan: Plan, machine: Machine, *, yes: bool, dry_run: bool) -> int:
    """Show a change, ask, and make it; the exit status is the answer.

    Raises:
        SettingsError: the file cannot be read or changed.
    """
    try:
        return _carry_out(plan, machine, yes=yes, dry_run=dry_run)
    except ConfigUnusable as error:
        raise SettingsError(str(error)) from None


def _carry_out(plan: Plan, machine: Machine, *, yes: bool, dry_run: bool) -> int:
    change = plan(False)
    if change.is_nothing:
        state = "has no entry of ours" if change.entry is None else "is as wanted"
        say(f"{change.path} {state}: nothing to change.")
        return ExitStatus.OK
    if change.entry is not None and not is_here(change.host, machine):
        say_aside(f"{change.host.title} was not found on this machine; its file can be written all the same.")
    command = own_command(change, machine)
    _show(change, command)
    if change.there and (after := read_entry(change.host, change.entry)):
        _say_what_stays(change.there, after)
    if change.by_hand and command is None:
        return ExitStatus.FAILED
    if dry_run:
        say_aside("Nothing was written: this was a dry run.")
        return ExitStatus.DIFFERS
    if not yes and not sys.stdin.isatty():
        say_aside("Nothing was written: there is no terminal to ask at, and no --yes.")
        return ExitStatus.UNUSABLE
    if not yes and not agreed("Make this change?"):
        say_aside("Nothing was written.")
        return ExitStatus.FAILED
    return _make(change, plan, command, machine)


def _show(change: Change, command: list[str] | None) -> None:
    if change.by_hand:
        if command is None:
            say_aside(f"{change.path} has comments, and is yours to change: nothing was written.")
        doing = "Take out of" if change.entry is None else "Put into"
        say(f"{doing} {change.path}, beside what is there:")
        say(change.by_hand)
    if change.scope == "project" and (entry := read_entry(change.host, change.entry)) and entry.command:
        say_aside(
            f"Whoever has this project gets this entry, and its command is a path of this machine: {entry.command[0]}. "
            f"In a team, let each install it for themselves (lium-mcp install {change.host.name}), or name a server "
            "that all reach (--http URL)."
        )
    for line in () if change.by_hand else change.diff():
        say(line, style=_STYLES.get(line[:1], ""))
    if command is not None:
        say(f"{change.host.title} is asked to make it: {shlex.join(command)}")


def _say_what_stays(before: InstalledEntry, after: InstalledEntry) -> None:
    """Say which settings of an entry its successor keeps though nobody has typed them again, and which it loses."""
    had, has = settings_of(before), settings_of(after)
    kept = [_said(name, text) for name, text in had.items() if has.get(name) == text and name != "api_key"]
    lost = [_said(name, text) for name, text in had.items() if name not in has and name != "api_key"]
    if kept:
        say(f"Kept from the entry that is there: {', '.join(kept)}.")
    if lost:
        real = " What an agent rents then costs real money." if is_simulated(before) and not is_simulated(after) else ""
        say(f"Dropped from it: {', '.join(lost)}.{real}")


def _said(name: str, text: str) -> str:
    """A setting as it is typed; what may be a secret without its value."""
    if name not in LIMITS and SETTINGS[name].kind != "flag":
        return as_option(name) if is_option(name) else SETTINGS[name].variable
    if name in LIMITS:
        return f"{as_option(name)} {text}"
    return as_option(name) if text.lower() in TRUE else as_option(f"no_{name}")


def _make(change: Change, plan: Plan, command: list[str] | None, machine: Machine) -> int:
    if command is None:
        backup = change.make()
    else:
        backup = change.keep()
        with working(f"{change.host.title} changes its file"):
            problem = run_own_command(command, machine)
        # What the command has not done, or not all of, is written as if there were none.
        rest = plan(True)
        if not rest.is_nothing:
            if problem:
                say_aside(f"{command[0]}: {problem}")
            if rest.by_hand:
                _show(rest, None)
                return ExitStatus.FAILED
            rest.make()
    say(f"{change.path} is written." if change.path.exists() else f"{change.path} is gone, as it held nothing else.")
    if backup is not None:
        say(f"As it was, it is kept in {backup}; of such copies, the newest stay.")
    return ExitStatus.OK
