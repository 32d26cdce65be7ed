"""``lium-mcp install HOST``: tell an MCP host of this server, with limits, and change nothing else of its file."""

import os
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lium_mcp.cli.changes_shown import carry_out, host_named
from lium_mcp.cli.console import agreed, ask, say, show_table, working
from lium_mcp.cli.entry_problems import problems_of_entry
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.host_commands import install_with_limits
from lium_mcp.hosts.config_changes import plan_install
from lium_mcp.hosts.entry_settings import may_spend_all
from lium_mcp.hosts.host_entries import InstalledEntry, Wish, read_entry
from lium_mcp.hosts.host_facts import ENTRY_NAME, KEY_VARIABLE, SCOPES, Host, Scope
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.host_table import HOSTS
from lium_mcp.hosts.installed_entries import ConfigUnusable, Installed, config_file, is_here, read_installed
from lium_mcp.hosts.start_command import find_installer, install_script, installed_script
from lium_mcp.official_config import OfficialConfig
from lium_mcp.settings_reading import load_readable
from lium_mcp.settings_table import LIMITS, SETTINGS, as_option
from lium_mcp.values import SettingsError, cleaned_key, is_loopback

_ENDS: Final = ("/mcp", "/mcp/", "/sse", "/sse/")
_OFFERED: Final = {
    "max_price_per_hour_usd": "Most that one pod may cost, in USD per hour",
    "max_pods": "Most pods that may live at once",
    "max_hours": "Longest life of a pod, in hours",
    "budget_usd": "Most that may be spent in a month, in USD",
}


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    name, yes, dry_run = options.pop("host"), options.pop("yes"), options.pop("dry_run")
    scope: Scope = options.pop("scope")
    url = options.pop("http")
    machine = Machine.this()
    if options.pop("list"):
        return _list(machine)
    host = host_named(name)
    asks = sys.stdin.isatty() and not yes and not dry_run
    sandbox = options.pop("sandbox", False)
    variables = _variables(options)
    if url is not None:
        wish = Wish(url=_address(url, options), needs_key=not sandbox, key_saved=_has_saved_key())
        if not url.endswith(_ENDS):
            say(f"Is that the whole address? That of a server of ours ends with /mcp: {url.rstrip('/')}/mcp")
    else:
        script = installed_script() or _installed_now(asks=asks, yes=yes)
        command = (str(script), "--sandbox") if sandbox else (str(script),)
        wish = Wish(command=command, variables=variables, needs_key=not sandbox, key_saved=_has_saved_key())
        _refuse_unusable(host, machine, scope, wish)
        if asks and _leaves_all_to_spend(host, machine, scope, wish):
            wish = replace(wish, variables=variables | _ask_for_limits())
    if _leaves_all_to_spend(host, machine, scope, wish):
        set_some = install_with_limits(host, scope)
        say(f"The entry has no limits: an agent may spend the whole balance. To set some, for instance: {set_some}")
    status = carry_out(lambda _: plan_install(host, machine, scope, wish), machine, yes=yes, dry_run=dry_run)
    if status == ExitStatus.OK:
        _say_next(host, wish)
    return status


def _variables(limits: dict[str, Any]) -> dict[str, str]:
    """What the options say, as variables of the entry.

    Raises:
        SettingsError: a value cannot be used.
    """
    # What else is wrong with this environment is nothing to the server that the host starts.
    if problems := [problem for problem in load_readable(limits)[1] if problem.startswith("--")]:
        raise SettingsError(*problems)
    return {
        SETTINGS[name].variable: str(value).lower() if value in (True, False) else value
        for name, value in limits.items()
    }


def _address(url: str, settings: Collection[str]) -> str:
    parts = urlsplit(url)
    is_usable = parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname)))
    if not is_usable or parts.username or parts.query or parts.fragment:
        raise SettingsError(
            "--http: it takes the whole address of the server, such as https://gpu.example.com/mcp; with http, which "
            "anybody on the way can read, only on this machine"
        )
    if settings:
        typed = ", ".join(map(as_option, settings))
        raise SettingsError(f"{typed}: this is for a server that the host starts; one at an address has its own limits")
    return url


def _installed_now(*, asks: bool, yes: bool) -> Path:
    """Install the script, where this runs from an environment that will be gone when the host starts it."""
    why = "there is no installed lium-mcp here that a host could start again"
    installer = find_installer()
    if installer is None:
        raise SettingsError(f"{why}; install it with uv (uv tool install lium-mcp) or pipx, and run it from there")
    command = " ".join(installer.install)
    if not yes and not (asks and agreed(f"{why.capitalize()}. Install it with `{command}`?")):
        raise SettingsError(f"{why}; first run: {command}")
    try:
        with working(f"Installing: {command}"):
            return install_script(installer)
    except OSError as error:
        raise SettingsError(f"it could not be installed with {command}: {error}") from None


def _refuse_unusable(host: Host, machine: Machine, scope: Scope, wish: Wish) -> None:
    """Refuse to keep what the server of the entry could not use: a misspelt limit would be none.

    Raises:
        SettingsError: the entry has such a setting, and the wish does not set it anew.
    """
    entry = _entry_after(host, machine, scope, wish)
    if entry is None or not (problems := problems_of_entry(entry)):
        return
    raise SettingsError(
        f"{ENTRY_NAME} in {config_file(host, machine, scope)}: its server would refuse every call, so nothing was "
        f"changed: {'; '.join(problems)}. Correct that there, or take it out and give it as an option here"
    )


def _leaves_all_to_spend(host: Host, machine: Machine, scope: Scope, wish: Wish) -> bool:
    """Whether the entry would be for a real account, and without limits, its own or kept ones."""
    entry = _entry_after(host, machine, scope, wish)
    return entry is not None and may_spend_all(entry)


def _entry_after(host: Host, machine: Machine, scope: Scope, wish: Wish) -> InstalledEntry | None:
    """The entry as it would be; None where it cannot be written, which is said when it is carried out."""
    try:
        return read_entry(host, plan_install(host, machine, scope, wish).entry)
    except ConfigUnusable:
        return None


def _ask_for_limits() -> dict[str, str]:
    """Let a person set the limits that matter most."""
    say("Limits on what agents may do with your money; the server keeps them. Enter alone sets none.")
    limits: dict[str, str] = {}
    for name, question in _OFFERED.items():
        while text := ask(f"  {question}: "):
            try:
                limits |= _variables({name: text})
            except SettingsError as error:
                say(f"  {error}")
            else:
                break
    return limits


def _has_saved_key() -> bool:
    try:
        return OfficialConfig().key("").text is not None
    except SettingsError:
        return False


def _say_next(host: Host, wish: Wish) -> None:
    if wish.needs_key and not wish.url and not wish.key_saved and not wish.asks_key(host):
        in_shell = cleaned_key(os.environ.get(KEY_VARIABLE, ""))
        if not in_shell:
            say("There is no API key yet: lium-mcp login gets one.")
        elif not host.passes_key:
            say(f"{host.title} does not pass {KEY_VARIABLE} on: lium-mcp login saves a key where the server finds it.")
    elif wish.needs_key and wish.url and not host.refers_to_key:
        say(f"{host.title} has no reference to a variable: put your key into the entry, where it stands for it.")
    limits = {SETTINGS[name].variable for name in LIMITS}
    here = sorted(name for name in os.environ if name.startswith("LIUM_MCP_") or name == "LIUM_BASE_URL")
    if not wish.url and (left := [name for name in here if name not in wish.variables]):
        say(
            f"This shell sets {', '.join(left)}, and the server that {host.title} starts may not have it: "
            f"{'give limits as options here, and ' if limits & {*left} else ''}put what it needs into the entry."
        )
    if host.restart:
        say(f"Then, in {host.title}: {host.restart}.")
    if host.hint:
        say(f"{host.hint}.")


def _list(machine: Machine) -> int:
    rows = []
    for host in HOSTS.values():
        found = "yes" if is_here(host, machine) else "no"
        for scope in host.scopes:
            installed = read_installed(host, machine, scope)
            if scope == SCOPES[0] or (installed is not None and installed.entries):
                rows.append((host.name, found, _entry(installed), _place(installed)))
    show_table(("HOST", "FOUND", "ENTRY", "PLACE"), rows)
    return ExitStatus.OK


def _entry(installed: Installed | None) -> str:
    if installed is None:
        return "-"
    return "cannot be read" if installed.problem else ", ".join(installed.entries) or "no"


def _place(installed: Installed | None) -> str:
    return "-" if installed is None else str(installed.path)
