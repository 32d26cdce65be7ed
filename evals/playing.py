"""Plays a way through a task: its calls in order, over a client in memory, and then its claims."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import anyio
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import TextContent

from evals.facts import Facts, facts_of
from evals.server import NearClock, hastened, make_server
from evals.staging import steps_after, variables, write_files
from evals.tasks import Task, ToolCall, filled
from evals.world import World
from lium_mcp.rentals import LazyLedger
from lium_mcp.rentals import Task as LedgerTask

_BYTES_PER_TOKEN: Final = 4
_MOST_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.01
_MOST_TASKS: Final = 100


@dataclass
class Play:
    """What came of a way.

    Attributes:
        facts: What is so in the end, with what was `before`.
        claims: What it says in the end.
        calls: The tools that it called.
        tokens: What each answer weighs: bytes / 4 of its text.
        answers: The answers; of a refusal, its text.
    """

    facts: Facts
    claims: dict[str, Any]
    calls: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


async def play(task: Task, home: Path, way: Sequence[ToolCall] | None, claims: Mapping[str, Any]) -> Play:
    """Play a way through a task; None is an agent that does nothing, and claims what it is told to.

    Args:
        task: Whose world it is.
        home: An empty folder.
        way: The calls.
        claims: What is said in the end, with `$1/...` for what the first answer says.
    """
    work = write_files(task, home)
    world = World(task, home)
    played = Play({}, {})
    try:
        before = await world.begin()
        clock = NearClock(world.sandbox)
        with _environment(variables(task, home, "http://127.0.0.1/api")), hastened():
            server = make_server(clock, world.sandbox.transport())
            async with Client(server, raise_exceptions=True) as client:
                for call in way or ():
                    arguments = filled(call.arguments, played.answers, str(work))
                    text, is_error = await _called(client, call.tool, arguments)
                    # The folder is another one each time.
                    weight = len(text.replace(str(work), "/work").encode())
                    played.calls.append(call.tool)
                    played.tokens.append(math.ceil(weight / _BYTES_PER_TOKEN))
                    played.answers.append({"error": text} if is_error else json.loads(text))
                told = facts_of(world.sandbox.state(), before, work)
                for minutes, pause_seconds in steps_after(task):
                    await _settled(clock, os.environ["LIUM_MCP_STATE_URL"])
                    await anyio.sleep(pause_seconds)
                    world.sandbox.clock.advance(minutes=minutes)
                await _settled(clock, os.environ["LIUM_MCP_STATE_URL"])
        played.facts = facts_of(world.sandbox.state(), before, work) | {"told": told}
        played.claims = {name: filled(value, played.answers, str(work)) for name, value in claims.items()}
    finally:
        await world.aclose()
    return played


async def _settled(clock: NearClock, state_url: str) -> None:
    """Wait until the server has done what is due by now, within a bound."""
    now = clock.now()

    def goes_on(task: LedgerTask) -> bool:
        if task.lease_owner is None:
            return task.closed_at is None and task.next_at <= now
        return task.kind != "job_run"  # which is held for as long as its command runs

    with anyio.move_on_after(_MOST_SECONDS):
        async with aclosing(LazyLedger(state_url)) as ledger:
            while not ledger.is_empty and any(map(goes_on, await ledger.tasks().newest(_MOST_TASKS))):  # noqa: ASYNC110
                await anyio.sleep(_LOOK_SECONDS)


def reference_claims(task: Task) -> dict[str, Any]:
    """What the reference way says in the end."""
    return {name: claim.reference for name, claim in task.claims.items()}


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    with patch.dict(os.environ, wanted):
        for name in [name for name in os.environ if name.startswith("LIUM_") and name not in wanted]:
            del os.environ[name]
        yield


async def _called(client: Client, tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    """What a model reads of an answer, and whether it is an error."""
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        return str(error), True
    return "".join(block.text for block in result.content if isinstance(block, TextContent)), bool(result.is_error)
