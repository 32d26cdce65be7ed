"""A shell in which what the doctor says to do is done, and what of its findings is mended so."""

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any

from lium_mcp.cli.checks.findings import Code
from tests.processes import environment

KEY = "sk_sandbox"
Finding = dict[str, str]
Test = Callable[..., Coroutine[Any, Any, None]]

CURED: set[Code] = set()
"""What a test here finds, and mends with the command that is told."""
BY_HAND: dict[Code, str] = {
    "option_wrong": "it was typed by a person",
    "scope_missing": "a person makes a key at lium.io",
    "balance_unknown": "nothing is wrong here",
    "balance_low": "it is a person's money",
    "slow": "nobody knows what makes a network slow",
    "clock_wrong": "setting a clock is for who runs the machine",
    "certificate_refused": "whose certificates are right, a person knows",
    "proxy_login_refused": "the password is a person's",
    "name_unknown": "the network is a person's",
    "nothing_listens": "the network is a person's",
    "unreachable": "the network is a person's",
    "lium_failed": "it is Lium's",
    "ssh_key_is_none": "what is no key may be something else",
    "ssh_key_half": "the other half is elsewhere",
    "ledger_damaged": "it knows what may still bill",
    "limits_none": "a person chooses them",
    "limit_meets_nothing": "what was meant, a person knows",
    "entry_unusable": "what was meant, a person knows",
    "entries_several": "which one is to stay, a person chooses",
    "entry_off": "a person switched it off",
    "entries_not_tried": "those before it are mended first",
    "entry_address_wrong": "the right address, a person knows",
    "entry_address_fails": "the server there is another's",
    "entry_calls_refused": "what the server says is to be mended there",
    "entry_other_key": "it may be meant",
}
"""What no command can mend, and why; the words of its cure say what a person does."""
NOT_RUN: dict[Code, str] = {
    "version_not_asked": "it asks the package index",
    "version_old": "it asks the package index",
    "not_lium": "without the variable Lium itself is asked",
    "limits_not_read": "it looks again, once the way to Lium is mended",
    "hosts_not_read": "it shows which file; no such file is known",
    "ssh_key_locked": "it asks a person for the passphrase",
}
"""What has a command that cannot be run here, and why."""


class Shell:
    """A shell on a machine where our command is on the PATH, and a browser agrees to every login."""

    def __init__(self, base_url: str) -> None:
        folder = Path.home() / "bin"
        folder.mkdir()
        script = folder / "lium-mcp"
        # Nobody sits here to say yes.
        script.write_text(
            '#!/bin/sh\ncase "$1" in install) set -- "$@" --yes;; esac\n'
            f'exec {shlex.quote(sys.executable)} -m lium_mcp "$@"\n'
        )
        script.chmod(0o755)
        browser = folder / "browser.py"
        browser.write_text("import sys, urllib.request\nurllib.request.urlopen(sys.argv[1], b'answer=agree')\n")
        self.variables = environment(
            PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
            LIUM_API_KEY=KEY,
            LIUM_BASE_URL=base_url,
            LIUM_MCP_MAX_PODS="3",
            HTTPS_PROXY="http://127.0.0.1:9",
            BROWSER=f"{sys.executable} {browser} %s",
        )
        self.mended: set[str] = set()
        self._lines: dict[str, str] = {}

    async def look(self, *options: str, after: str = "") -> list[Finding]:
        """What the doctor finds, after this line of a shell."""
        line = f"{after}\nexec lium-mcp doctor --json {shlex.join(options)} >&3"
        findings = await _findings("sh", "-c", f"exec 3>&1 >&2; {line}", variables=self.variables)
        found = {one["code"]: one["run"] for one in wrong(findings) if one["run"]}
        assert not found.keys() & BY_HAND.keys(), "the table says that no command mends it"
        self.mended |= {code for code, line in self._lines.items() if line == after and code not in found}
        self._lines = found
        return findings

    async def look_on_windows(self) -> list[Finding]:
        """What the doctor finds where Python says that it runs on Windows."""
        script = (
            "import sys, anyio._backends._asyncio, lium_mcp.cli.main, lium_mcp.cli.doctor; sys.platform = 'win32'; "
            "sys.exit(lium_mcp.cli.main.main(['doctor', '--json']))"
        )
        variables = self.variables | {"USERPROFILE": self.variables["HOME"]}
        return await _findings(sys.executable, "-c", script, variables=variables)


async def _findings(*words: str, variables: dict[str, str]) -> list[Finding]:
    process = await asyncio.create_subprocess_exec(
        *words,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert out, err.decode()
    findings: list[Finding] = json.loads(out)["findings"]
    return findings


def mends(*codes: Code) -> Callable[[Test], Test]:
    """A test that finds each of these, or one of them for each of its parameters, and mends it."""
    CURED.update(codes)

    def watched(test: Test) -> Test:
        @wraps(test)
        async def run(*args: Any, shell: Shell, **more: Any) -> None:
            await test(*args, shell=shell, **more)
            assert shell.mended & set(codes), shell.mended

        return run

    return watched


def wrong(findings: list[Finding]) -> list[Finding]:
    return [one for one in findings if one["level"] in ("warning", "broken")]


async def mended(shell: Shell, *options: str) -> Finding:
    """Find one thing that is wrong, do what mends it, and find nothing wrong; returns what was found."""
    found = wrong(await shell.look(*options))
    assert len(found) == 1, found
    assert found[0]["run"], found
    assert wrong(await shell.look(*options, after=found[0]["run"])) == [], found
    return found[0]
