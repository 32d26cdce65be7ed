"""What becomes of every command whose output cannot be written: a line on standard error, and a status of the table."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lium_mcp.cli.parser import make_parser
from lium_mcp.sandbox import Sandbox
from tests.processes import environment
from tests.wires import Wire, served

COMMANDS = {
    "serve": ("serve", "--sandbox"),
    "tools": ("tools",),
    "login": ("login", "--no-browser"),
    "logout": ("logout",),
    "install": ("install", "--list"),
    "uninstall": ("uninstall", "cursor"),
    "dashboard": ("dashboard", "--sandbox", "--no-browser"),
    "demo": ("demo",),
    "templates": ("templates", "sync", "templates.toml", "--dry-run"),
    "rentals": ("rentals",),
    "grants": ("grants",),
    "doctor": ("doctor", "--sandbox"),
    "status": ("status",),
    "policy": ("policy", "explain"),
}
SAYS_NOTHING_THERE = {"sandbox"}
"""A command whose words are for a person who watches, all on standard error."""
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"test","version":"1"}}}\n'
)
LOST = {">&-": "it is closed", ">/dev/full": "No space left on device"}


async def ended(words: tuple[str, ...], redirections: str, **variables: str) -> tuple[int, str]:
    """Run with redirections as a shell makes them; the status, and what is on standard error."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "lium_mcp", *words),
        env=environment(**variables),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await asyncio.wait_for(process.communicate(INITIALIZE), 60)
    assert process.returncode is not None
    return process.returncode, err.decode()


@pytest.fixture
async def lium(sandbox: Sandbox) -> AsyncIterator[Wire]:
    async with served(Wire(sandbox)) as wire:
        yield wire


def test_every_command_is_tried() -> None:
    [commands] = [action for action in make_parser()._actions if action.dest == "command"]
    assert commands.choices is not None
    assert set(commands.choices) == COMMANDS.keys() | SAYS_NOTHING_THERE


@pytest.mark.parametrize("redirection", LOST)
@pytest.mark.parametrize("words", [("--version",), ("tools", "--help"), ("serve",), *COMMANDS.values()], ids=" ".join)
async def test_output_that_is_lost_is_said_in_a_line(
    lium: Wire, words: tuple[str, ...], redirection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "templates.toml").write_text('[[template]]\nname = "a"\nimage = "b:1"\n')
    variables = {"LIUM_BASE_URL": lium.base_url} | ({} if "login" in words else {"LIUM_API_KEY": "sk_sandbox"})
    status, err = await ended(words, redirection, **variables)
    *asides, last = err.splitlines()
    assert (status, last) == (1, f"lium-mcp: standard output: {LOST[redirection]}")
    # What it tells a person who logs in elsewhere than at Lium, and a log of what takes long.
    assert len(asides) == len({"login", "sync", "dashboard"} & set(words))


@pytest.mark.parametrize("redirections", [">&- 2>&-", "<&- >&- 2>&-", ">&- 2>/dev/full"])
async def test_a_command_without_any_stream_ends_as_the_table_says(redirections: str) -> None:
    assert await ended(("tools",), redirections) == (1, "")
    assert await ended(("tools", "--toolsets", "none"), redirections) == (2, "")


async def test_a_file_never_gets_what_is_printed(lium: Wire) -> None:
    """The number of a closed stream must not become that of the ledger or of a connection."""
    status, err = await ended(
        ("status",), ">&- 2>&-", LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox", LIUM_MCP_MAX_PODS="3"
    )
    assert (status, err) == (1, "")
    status, err = await ended(
        ("rentals",), "<&- 2>&1", LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox", LIUM_MCP_MAX_PODS="3"
    )
    assert (status, err) == (0, "")
