"""Answers that are JSON but make no sense: whatever the API says, a tool answers or says in words why it cannot."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.types import Tool

from lium_mcp.sandbox import Sandbox
from tests.arguments import Arguments, properties, smallest
from tests.harness import Agent, agent_on
from tests.standing import Standing
from tests.wires import Forward, Wire

NONSENSE: list[Any] = [
    None,
    [],
    {},
    "",
    "\x00",
    "\ud800",
    "../x",
    "NaN",
    "1e400",
    "RUNNING",
    "ssh -oProxyCommand=x a@b -p 1",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    True,
    0,
    -1,
    2**63,
    10**400,
    1e308,
    -1e308,
    [None],
    [[]],
    [{}],
    {"a": None},
]


class Confusion:
    """Garbles the sandbox's answers on the way, once told by which source of chance."""

    def __init__(self) -> None:
        self.chance: random.Random | None = None
        self.garbled = 0

    async def __call__(self, request: httpx2.Request, forward: Forward) -> httpx2.Response:
        response = await forward(request)
        content = await response.aread()
        if self.chance is not None and "json" in response.headers.get("content-type", ""):
            share = self.chance.choice([0.01, 0.1, 0.3])
            content = json.dumps(self._garble(json.loads(content), self.chance, share)).encode()
        return httpx2.Response(response.status_code, content=content)

    def _garble(self, value: Any, chance: random.Random, share: float) -> Any:
        if chance.random() < share:
            self.garbled += 1
            return chance.choice(NONSENSE)
        if isinstance(value, dict):
            return {
                key: self._garble(item, chance, share) for key, item in value.items() if chance.random() > share / 3
            }
        if isinstance(value, list):
            return [self._garble(item, chance, share) for item in value[:20]]
        return value


@asynccontextmanager
async def account(sandbox: Sandbox, wire: Wire) -> AsyncIterator[Agent]:
    """An account with something of everything in it."""
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("rent_pod", name="p", gpu_type="A100", hours=5)
        await agent.call("create_volume", name="v")
        await agent.call("set_backup_schedule", pod="p")
        await agent.call("create_backup", pod="p")
        yield agent


def telling_arguments(tool: Tool, known: Arguments) -> Arguments:
    """Arguments that name what there is."""
    return smallest(tool) | {name: value for name, value in known.items() if name in properties(tool)}


def test_no_answer_breaks_a_tool() -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=1e6, pod_polls_per_minute=10**6)
    wire, confusion = Wire(sandbox), Confusion()
    wire.on("*", "**", confusion)
    with Standing(account(sandbox, wire)) as standing:
        [pod] = [pod for pod in sandbox.state()["pods"] if isinstance(pod, dict)]
        known = {"pod": pod["id"], "pods": [pod["id"]], "volume": "v", "wait_seconds": 3}

        @settings(max_examples=200, suppress_health_check=list(HealthCheck), database=None)
        @given(tool=st.sampled_from(standing.tools), seed=st.integers(0, 2**32))
        def garble(tool: Tool, seed: int) -> None:
            confusion.chance = random.Random(seed)
            text = standing.call(tool, telling_arguments(tool, known))
            assert "internal_error" not in text

        garble()
    assert confusion.garbled > 200
