"""What an entry leads to, tried as its host would: the program that it starts, or the server at its address."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent, TextResourceContents
from pydantic import ValidationError

from lium_mcp.api.network import Network
from lium_mcp.guard.redaction import redact_text
from lium_mcp.hosts.host_entries import InstalledEntry
from lium_mcp.hosts.host_facts import Host
from lium_mcp.hosts.host_machine import Machine
from lium_mcp.hosts.started_programs import end_marked, make_mark
from lium_mcp.services.policy_view import PolicyView
from lium_mcp.settings_table import SETTINGS, meant_setting
from lium_mcp.text import one_line

LIMIT_SECONDS: Final = 10.0
_MOST_STDERR_BYTES: Final = 20_000
_PROBE: Final = "get_balance"
_POLICY: Final = "lium://policy"
_POLICY_SECONDS: Final = 5.0
_VARIABLES: Final = frozenset(setting.variable for setting in SETTINGS.values())
_SLOW: Final = f"it did not answer within {LIMIT_SECONDS:.0f} seconds"


@dataclass(slots=True)
class Tried:
    """What came of it.

    Attributes:
        tool_count: How many tools are listed; None where no server answered.
        seconds: How long that took.
        problem: Why no server answered, or why calls are refused; empty where it works.
        http_status: The status with which an address refused it; 0 where it did not.
        refusal: What the server says of a refused call, for programs.
        only_reads: Whether none of its tools changes anything or spends money.
        policy: What its server says that it refuses; None where it does not say.
    """

    tool_count: int | None = None
    seconds: float = 0.0
    problem: str = ""
    http_status: int = 0
    refusal: Mapping[str, Any] = field(default_factory=dict)
    only_reads: bool = False
    policy: PolicyView | None = None


async def try_program(host: Host, machine: Machine, entry: InstalledEntry) -> Tried:
    """Start what an entry names, list its tools, and read the balance; nothing of it is left running."""
    program, *arguments = entry.command
    variables = entry.environment(host, machine.variables, withheld=[*filter(_is_of_the_shell, machine.variables)])
    if shutil.which(program, path=variables.get("PATH")) is None:
        where = "" if os.path.dirname(program) else f" on the PATH that {host.title} passes on"  # noqa: PTH120 - a bare name has none
        return Tried(problem=f"there is no program {program}{where}")
    mark = make_mark()
    server = StdioServerParameters(command=program, args=arguments, env=variables | mark, cwd=machine.project)
    tried = Tried()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        try:
            await _speak(stdio_client(server, errlog=stderr), tried, asks_person=entry.asks_person)
        except* TimeoutError:
            tried.problem = _SLOW
        except* FileNotFoundError:
            tried.problem = "what its first line names to run it with is not there"
        except* PermissionError:
            tried.problem = "it may not be run"
        except* Exception:  # noqa: BLE001 - whatever a program that is no server does to its client is its problem
            said = _last_line(stderr)
            tried.problem = f"it ended, or did not speak MCP{f'; the last that it said: {said}' if said else ''}"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(end_marked, mark)
    return tried


async def try_address(machine: Machine, entry: InstalledEntry, network: Network) -> Tried:
    """Ask the server at an entry's address for its tools and the balance, with the headers of the entry."""
    tried = Tried()
    statuses: list[int] = []

    async def note(response: httpx2.Response) -> None:
        statuses.append(response.status_code)

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        verify = network.verify()
        return httpx2.AsyncClient(
            verify=verify,
            proxy=network.proxy(verify),
            trust_env=False,
            event_hooks={"response": [note]},
            headers=entry.sent_headers(machine.variables) | (headers or {}),
            timeout=timeout or LIMIT_SECONDS,
            auth=auth,
        )

    try:
        if entry.url.rstrip("/").endswith("/sse"):
            await _speak(sse_client(entry.url, httpx_client_factory=client), tried, asks_person=entry.asks_person)
        else:
            async with client() as http:
                transport = streamable_http_client(entry.url, http_client=http)
                await _speak(transport, tried, asks_person=entry.asks_person)
    except* TimeoutError:
        tried.problem = _SLOW
    except* httpx2.ConnectError:
        tried.problem = "no connection could be made"
    except* Exception:  # noqa: BLE001 - as above
        refused = [status for status in statuses if status >= httpx2.codes.BAD_REQUEST]
        tried.problem = f"it answers with HTTP {refused[0]}" if refused else "what answers there does not speak MCP"
        tried.http_status = refused[0] if refused else 0
    return tried


def _is_of_the_shell(name: str) -> bool:
    """Whether a variable is this shell's own: what it sets of this server, or means to, need not reach a host.

    An entry would look safer for it than it is, or broken where the shell is.
    """
    variable = name.upper()
    return variable.startswith("LIUM_MCP_") or (variable not in _VARIABLES and meant_setting(variable) is not None)


async def _speak(transport: AbstractAsyncContextManager[Any], tried: Tried, *, asks_person: bool) -> None:
    """List the tools, and read the limits and the balance.

    The latter but for a key that the host asks a person for, so that it is not here.
    """
    began = time.monotonic()
    with anyio.fail_after(LIMIT_SECONDS):
        async with Client(transport) as client:
            tools = (await client.list_tools()).tools
            tried.tool_count, tried.seconds = len(tools), time.monotonic() - began
            tried.only_reads = all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
            tried.policy = await _read_policy(client)
            if not asks_person and any(tool.name == _PROBE for tool in tools):
                answer = await client.call_tool(_PROBE, {})
                if answer.is_error:
                    tried.problem = " ".join(block.text for block in answer.content if isinstance(block, TextContent))
                    tried.refusal = answer.meta or {}


async def _read_policy(client: Client) -> PolicyView | None:
    """What a server says that it refuses; None where it does not, as one that is none of ours."""
    with anyio.move_on_after(_POLICY_SECONDS), suppress(MCPError, ValidationError):
        for part in (await client.read_resource(_POLICY)).contents:
            if isinstance(part, TextResourceContents):
                return PolicyView.model_validate_json(part.text)
    return None


def _last_line(stderr: IO[str]) -> str:
    """The last line that a program wrote on standard error, without secrets."""
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(stderr.tell() - _MOST_STDERR_BYTES, 0))
    lines = [line for line in stderr.read().splitlines() if line.strip()]
    return one_line(lines[-1], redact_text) if lines else ""
