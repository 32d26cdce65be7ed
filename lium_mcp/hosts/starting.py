"""What an entry starts, tried as its host would: the same command, with the variables that the host passes on."""

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Final

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

from lium_mcp.guard.redaction import redact_text
from lium_mcp.hosts.host_entries import InstalledEntry
from lium_mcp.hosts.host_facts import Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.text import one_line

_LIMIT_SECONDS: Final = 30.0
_MOST_STDERR_BYTES: Final = 20_000
_PROBE: Final = "get_balance"


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a start.

    Attributes:
        tool_count: How many tools it lists; None where it did not start.
        seconds: How long that took.
        problem: Why it did not start, or why it refuses calls; empty where it works.
    """

    tool_count: int | None
    seconds: float
    problem: str = ""


async def try_entry(host: Host, machine: Machine, entry: InstalledEntry) -> Tried:
    """Start an entry, list its tools, and read the balance."""
    program, *arguments = entry.command
    if shutil.which(program, path=machine.variables.get("PATH")) is None:
        return Tried(None, 0.0, f"there is no program {program}")
    server = StdioServerParameters(
        command=program,
        args=arguments,
        env=entry.environment(host, machine.variables),
        cwd=machine.project,
    )
    began = time.monotonic()
    tool_count: int | None = None
    seconds = 0.0
    problem = ""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        try:
            with anyio.fail_after(_LIMIT_SECONDS):
                async with Client(stdio_client(server, errlog=stderr)) as client:
                    tools = (await client.list_tools()).tools
                    tool_count, seconds = len(tools), time.monotonic() - began
                    if any(tool.name == _PROBE for tool in tools):
                        answer = await client.call_tool(_PROBE, {})
                        text = " ".join(block.text for block in answer.content if isinstance(block, TextContent))
                        problem = text if answer.is_error else ""
        except* TimeoutError:
            problem = f"it did not answer within {_LIMIT_SECONDS:.0f} seconds"
        except* Exception:  # noqa: BLE001 - whatever a program that is no server does to its client is its problem
            said = _last_line(stderr)
            problem = f"it ended, or did not speak MCP{f'; the last that it said: {said}' if said else ''}"
    return Tried(tool_count, seconds, problem)


def _last_line(stderr: IO[str]) -> str:
    """The last line that a program wrote on standard error, without secrets."""
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(stderr.tell() - _MOST_STDERR_BYTES, 0))
    lines = [line for line in stderr.read().splitlines() if line.strip()]
    return one_line(lines[-1], redact_text) if lines else ""
