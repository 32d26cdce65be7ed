"""How many calls callers may make, at once and in a minute: over real sockets, and by a clock that is turned."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from lium_mcp.sandbox import Sandbox
from lium_mcp.serving.call_bounds import CallBounds
from lium_mcp.serving.callers import CALLER, Caller
from tests.http_server import MODERN_VERSION, WAYS, Served, Way, calling, serving, tool_call
from tests.wires import Wire, served

MINE, THEIRS, NOBODY = {"X-API-Key": "sk_mine"}, {"X-API-Key": "sk_theirs"}, {"X-Nothing": ""}


@pytest.fixture
async def lium() -> AsyncIterator[Wire]:
    async with served(Wire(Sandbox(seed=7))) as wire:
        yield wire


@pytest.fixture
def few(lium: Wire, tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_CALLS_PER_MINUTE="3") as server:
        yield server


async def post(server: Served, headers: dict[str, str], tool: str = "get_gpu_prices") -> httpx2.Response:
    """A call of today's protocol, by hand."""
    form = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN_VERSION}
    names = {"Mcp-Method": "tools/call", "Mcp-Name": tool}
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        body = tool_call(tool, {}, modern=True)
        return await http.post(f"{server.url}/mcp", json=body, headers=form | names | headers)


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_too_many_is_an_error_that_says_when_to_call_again(few: Served, way: Way) -> None:
    async with calling(few.url, way, MINE) as caller:
        for _ in range(3):
            await caller.call("get_gpu_prices")
        with pytest.raises(MCPError) as refused:
            await caller.raw("get_gpu_prices")
        assert "this key has made 3 within a minute. Nothing was done: call again in " in str(refused.value)
        assert 1 <= refused.value.data["retry_after_seconds"] <= 20
        assert (await caller.client.list_tools()).tools, "what asks Lium nothing is not counted"
    async with calling(few.url, way, THEIRS) as other:
        await other.call("get_gpu_prices")


async def test_its_status_says_so_too(few: Served, lium: Wire) -> None:
    statuses = [(await post(few, MINE)).status_code for _ in range(3)]
    asked = len(lium.requests)
    refused = await post(few, MINE)
    assert [*statuses, refused.status_code] == [200, 200, 200, 429]
    assert 1 <= int(refused.headers["Retry-After"]) <= 20
    assert "call again in" in refused.json()["error"]["message"]
    assert len(lium.requests) == asked
    assert few.says("A call was refused").count("A call was refused") == 1


async def test_who_shows_no_key_is_counted_by_the_address(few: Served) -> None:
    assert [(await post(few, NOBODY)).status_code for _ in range(4)] == [200, 200, 200, 429]


async def test_many_keys_are_no_way_around_it(few: Served) -> None:
    started = time.monotonic()
    answered = 0
    while (await post(few, {"X-API-Key": f"sk_key{answered}"})).status_code == 200:
        answered += 1
    # Four keys' worth, and what came back meanwhile.
    assert 12 <= answered <= 12 + (time.monotonic() - started) / 5


async def test_a_proxy_that_is_named_is_more_than_one_address(lium: Wire, tmp_path: Path) -> None:
    bound = {"LIUM_MCP_CALLS_PER_MINUTE": "1", "LIUM_MCP_TRUSTED_PROXY": "127.0.0.1"}
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, **bound) as server:
        addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.1"]
        answers = [await post(server, {"X-Forwarded-For": address}) for address in addresses]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_runs_leaves_room_when_it_ends(lium: Wire, tmp_path: Path, way: Way) -> None:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_CALLS_AT_ONCE="1") as server:
        held = lium.hold("GET", "/executors")
        async with calling(server.url, way, MINE) as caller, calling(server.url, way, MINE) as same:
            async with anyio.create_task_group() as group:
                group.start_soon(caller.call, "get_gpu_prices")
                await held.reached()
                with pytest.raises(MCPError, match="this key has 1 running, and may have no more"):
                    await same.raw("get_gpu_prices")
                held.let_go()
            await same.call("get_gpu_prices")


async def test_a_caller_who_leaves_leaves_room(lium: Wire, tmp_path: Path) -> None:
    with serving(tmp_path, LIUM_BASE_URL=lium.base_url, LIUM_MCP_CALLS_AT_ONCE="1") as server:
        held = lium.hold("GET", "/executors")
        with anyio.move_on_after(60) as patience:
            async with anyio.create_task_group() as group:
                group.start_soon(post, server, MINE)
                await held.reached()
                group.cancel_scope.cancel()
        assert not patience.cancelled_caught
        with anyio.fail_after(60):
            while (await post(server, MINE)).status_code == 429:  # noqa: ASYNC110 - it takes a moment to be noticed
                await anyio.sleep(0.02)


@dataclass
class _Request:
    """What the SDK hands to a middleware, as far as ours looks."""

    owner: str
    method: str = "tools/call"

    def __post_init__(self) -> None:
        self.request = self
        self.scope = {CALLER: Caller(owner=self.owner), "client": ("192.0.2.1", 1)}


async def test_what_a_minute_gives_comes_back_bit_by_bit() -> None:
    seconds = 0.0
    bounds = CallBounds(at_once=5, per_minute=60, time=lambda: seconds)

    async def answer(_: Any) -> str:
        return "done"

    async def may_call(owner: str = "one") -> bool:
        try:
            return await bounds.bounded(_Request(owner), answer) == "done"  # type: ignore[arg-type, comparison-overlap]
        except MCPError:
            return False

    assert [await may_call() for _ in range(61)] == [True] * 60 + [False]
    assert await may_call("another")
    seconds = 0.9
    assert not await may_call()
    seconds = 1.0
    assert [await may_call() for _ in range(2)] == [True, False], "a refusal costs nothing"
    seconds = 61.0
    assert [await may_call() for _ in range(61)] == [True] * 60 + [False]


async def test_callers_who_are_gone_are_forgotten() -> None:
    seconds = 0.0
    bounds = CallBounds(at_once=5, per_minute=6, time=lambda: seconds)

    async def answer(_: Any) -> str:
        return "done"

    for number in range(5000):
        seconds += 10
        await bounds.bounded(_Request(f"caller {number}"), answer)  # type: ignore[arg-type]
    assert len(json.dumps(vars(bounds), default=str)) < 100_000
