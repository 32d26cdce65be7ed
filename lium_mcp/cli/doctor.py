"""``lium-mcp doctor``: what of a set-up is well, what is not, and the command that mends it.

Nothing is changed by it but what every start makes, and no secret is printed.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
from anyio import CancelScope

from lium_mcp.cli.checks.connection import check_key, check_lium
from lium_mcp.cli.checks.findings import LEVELS, Finding, Level, broken, ok
from lium_mcp.cli.checks.installed_hosts import check_hosts
from lium_mcp.cli.checks.limits_in_force import check_limits
from lium_mcp.cli.checks.program import check_for_newer, check_program
from lium_mcp.cli.checks.setting_cures import settings_finding
from lium_mcp.cli.checks.this_machine import check_ledger, check_ssh
from lium_mcp.cli.console import say, working
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.readied import start_log
from lium_mcp.cli.shell_lines import prompt
from lium_mcp.connecting import open_ledger
from lium_mcp.hosts.entry_settings import is_simulated
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.installed_entries import entries_in_use
from lium_mcp.server import make_runtime, read_settings, select_tools
from lium_mcp.settings import Settings
from lium_mcp.values import SettingsError, is_loopback

_STATUSES: Final[dict[Level, ExitStatus]] = {
    "ok": ExitStatus.OK,
    "untried": ExitStatus.OK,
    "warning": ExitStatus.FAILED,
    "broken": ExitStatus.UNUSABLE,
}
_ENDS: Final = (signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else []))
_MARKS: Final[dict[Level, tuple[str, str]]] = {
    "ok": ("ok      ", "green"),
    "untried": ("untried ", "dim"),
    "warning": ("look    ", "yellow"),
    "broken": ("WRONG   ", "bold red"),
}


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    as_json, tries_project = options.pop("json"), options.pop("try_project")
    settings, problems = read_settings(options)
    findings = check_program()
    findings += [settings_finding(problem, os.environ) for problem in problems]
    with working("Looking") as tell:
        findings += anyio.run(_look, settings, problems)
        findings += anyio.run(partial(_look_at_hosts, settings, tell, tries_project=tries_project))
    areas = list(dict.fromkeys(finding.area for finding in findings))
    findings.sort(key=lambda finding: areas.index(finding.area))
    worst = max((finding.level for finding in findings), key=LEVELS.index)
    if as_json:
        say(json.dumps({"level": worst, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _say(findings, worst)
    return _STATUSES[worst]


async def _look(settings: Settings, problems: Sequence[str]) -> list[Finding]:
    """Look at everything that these settings lead to; with wrong ones, at what does not depend on them."""
    newer = [] if _is_simulated(settings) else await check_for_newer(os.environ)
    key = check_key(settings, problems)
    if problems:
        return [*newer, *key]
    start_log(settings.model_copy(update={"log_level": "ERROR"}))  # what goes wrong is a finding
    try:
        runtime, accounts = make_runtime(settings, ())
    except SettingsError:  # the key cannot be read, which is said
        return [*newer, *key]
    try:
        account = runtime.account()
        lium = await check_lium(settings, account)
        is_reached = not any(finding.area == "lium" and finding.level == "broken" for finding in lium)
        return [
            *newer,
            *key,
            *lium,
            *await check_ssh(settings, account, is_reached=is_reached),
            *await check_ledger(settings, open_ledger(settings)),
            *await check_limits(
                account,
                runtime.policy,
                is_reached=is_reached,
                harmless_because=_harmless_because(settings),
                entries=len(entries_in_use(Machine.this())),
            ),
        ]
    finally:
        await accounts.aclose()


async def _look_at_hosts(settings: Settings, tell: Callable[[str], None], *, tries_project: bool) -> list[Finding]:
    """Look at other programs' files and at what they start: whatever is wrong there hides nothing else.

    Raises:
        KeyboardInterrupt: this was told to end; what was started has ended before.
    """
    own_key = None if settings.sandbox else settings.find_key_now().text
    found: list[Finding] = []
    is_ended = False

    async def end_when_told(group: CancelScope) -> None:
        nonlocal is_ended
        with anyio.open_signal_receiver(*_ENDS) as signals:
            async for _ in signals:
                is_ended = True
                group.cancel()

    async with anyio.create_task_group() as group:
        if sys.platform != "win32":
            group.start_soon(end_when_told, group.cancel_scope)
        try:
            machine = Machine.this()
            found = await check_hosts(machine, own_key, tell, tries_project=tries_project)
            entries = entries_in_use(machine)
            if entries and all(is_simulated(entry.found) for entry in entries) and not settings.sandbox:
                what = "Only the sandbox is used here. What that needs, and no more, is looked at by lium-mcp doctor"
                found.append(ok("hosts", f"{what} --sandbox."))
        except SettingsError:  # there is no home, which is said
            found = []
        except Exception as error:  # noqa: BLE001 - see above
            what = f"They could not be looked at ({type(error).__name__})."
            found = [
                broken("hosts_not_read", "hosts", what, "see which of their files is odd", "lium-mcp install --list")
            ]
        group.cancel_scope.cancel()
    if is_ended:
        raise KeyboardInterrupt
    return found


def _harmless_because(settings: Settings) -> str:
    """Why a server with these settings needs no limits; empty where it does."""
    if settings.sandbox:
        return "Lium is simulated, so no money is real"
    return "what is offered only reads" if all(item.read_only for item in select_tools(settings)) else ""


def _is_simulated(settings: Settings) -> bool:
    """Whether Lium is on this machine: whoever tries that wants nothing from outside."""
    return settings.sandbox or is_loopback(urlsplit(settings.base_url).hostname or "")


def _say(findings: Sequence[Finding], worst: Level) -> None:
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            say(f"\n{area}", style="bold")
        mark, style = _MARKS[finding.level]
        say(f"  {mark}{finding.what}", style="" if finding.level == "ok" else style)
        if finding.cure:
            say(f"          -> {finding.cure}")
        if finding.run:
            say(f"             {prompt()} {finding.run}")
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    say()
    if worst == "ok":
        say(f"All is well: {counts['ok']} findings.", style="bold green")
    else:
        untried = f", {counts['untried']} not tried" if counts["untried"] else ""
        say(f"{counts['broken']} wrong, {counts['warning']} to look at{untried}, {counts['ok']} well.", style="bold")
