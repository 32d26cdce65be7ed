"""How long one call takes at worst. Many hosts give up after 60 s, and what they give up on may bill.

Time is virtual here: every limit and pause of the configuration counts in full and none of it passes.
"""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.types import Tool

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.tools.catalog import TOOLSETS
from tests.arguments import properties, smallest
from tests.faults.virtual_time import LoopClock, run_virtually
from tests.harness import ALL_TOOLSETS, PUBLIC_KEY, Failure, text_of
from tests.wires import Act, Forward, Wire, answering, on_rents, passing, rent, silence

HOST_LIMIT_SECONDS = 60
READ_LIMIT_SECONDS = 30
READERS = frozenset(spec.name for toolset in TOOLSETS for spec in toolset.specs if spec.read_only)


def a_sandbox() -> Sandbox:
    return Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)


def faring_badly(sandbox: Sandbox, bad: Act, *, spared: frozenset[str] = frozenset()) -> Wire:
    """A wire on which all requests fare badly, but for those that are spared: a method, and how their path begins."""
    wire = Wire(sandbox)
    wire.on("*", "**", bad)
    for kind in spared:
        method, path = kind.split(" ")
        wire.on(method, f"{path}**", passing)
    return wire


async def late_failure(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    await asyncio.sleep(14.9)
    return httpx2.Response(503)


storm = answering(429, b"", retry_after="20")


def fuller(tool: Tool) -> dict[str, Any]:
    """Arguments that take one more request where a GPU type has to be looked up."""
    return smallest(tool) | ({"gpu_type": "A100"} if "gpu_type" in properties(tool) else {})


def seconds_of_calls(lium: Wire, calls: dict[str, dict[str, Any]], **settings: Any) -> dict[str, tuple[float, str]]:
    """Make each call, and return how long it took and what came of it."""

    async def main() -> dict[str, tuple[float, str]]:
        config = Settings(
            api_key="sk_sandbox",
            base_url="http://127.0.0.1/api",
            toolsets=ALL_TOOLSETS,
            allow_tools=frozenset(calls),  # none is all
            ssh_key_path=Path("no-such-key"),  # a local key would be read in a thread, which real time passes for
            **settings,
        )
        taken: dict[str, tuple[float, str]] = {}
        clock = LoopClock()
        async with Client(build_server(config, transport=lium, clock=clock)) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            for name, arguments in (calls or {name: fuller(tool) for name, tool in listed.items()}).items():
                started = clock.monotonic()
                result = await client.call_tool(name, arguments)
                code = Failure(result).code if result.is_error else "ok"
                taken[name] = (clock.monotonic() - started, f"{code}: {text_of(result)}")
        return taken

    return run_virtually(main())


@pytest.mark.parametrize(
    ("bad", "timeout_seconds"), [(silence, 1), (silence, 15), (silence, 45), (late_failure, 15), (storm, 15)]
)
def test_no_call_outlasts_a_host_when_everything_fails(bad: Act, timeout_seconds: float) -> None:
    taken = seconds_of_calls(faring_badly(a_sandbox(), bad), {}, timeout_seconds=timeout_seconds)
    assert {name: text for name, (_, text) in taken.items() if text.startswith("ok")} == {}
    assert {name: seconds for name, (seconds, _) in taken.items() if seconds >= HOST_LIMIT_SECONDS} == {}
    assert {name: taken[name][0] for name in READERS if taken[name][0] > READ_LIMIT_SECONDS} == {}
    # What is measured here is not a clock that stands still.
    assert max(seconds for seconds, _ in taken.values()) >= timeout_seconds


@pytest.mark.parametrize("silent_for", [1, 2])
def test_a_read_that_is_asked_again_has_the_rest_of_its_time_and_uses_it(silent_for: int) -> None:
    asked = 0

    async def silent_at_first(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal asked
        asked += 1
        if asked <= silent_for:
            return await silence(request, forward)
        await asyncio.sleep(9 if asked == silent_for + 1 else 0)
        return await forward(request)

    lium = faring_badly(a_sandbox(), silent_at_first)
    [(seconds, text)] = seconds_of_calls(lium, {"list_volumes": {}}, timeout_seconds=15).values()
    assert text.startswith("ok" if silent_for == 1 else "timed_out"), text
    assert asked == (3 if silent_for == 1 else 2)  # the pods; and what would be left of a third try is too little
    assert 24 < seconds <= READ_LIMIT_SECONDS


POD = {"pod": "p"}
PARTLY = {
    "get_pod": (frozenset({"GET /pods"}), POD, "ok"),
    "remove_pod": (frozenset({"GET /pods"}), POD, "outcome_unknown"),
    "reboot_pod": (frozenset({"GET /pods"}), POD, "outcome_unknown"),
    "rent_pod": (frozenset({"GET /"}), {"name": "q", "gpu_type": "A100"}, "outcome_unknown"),
}


def rent_first(sandbox: Sandbox) -> None:
    """A pod named p that runs."""
    calls: dict[str, dict[str, Any]] = {
        "add_ssh_key": {"name": "k", "public_key": PUBLIC_KEY},
        "rent_pod": {"name": "p", "gpu_type": "A100", "wait_seconds": 0},
    }
    assert all(text.startswith("ok") for _, text in seconds_of_calls(Wire(sandbox), calls).values())
    sandbox.clock.advance(minutes=10)


@pytest.mark.parametrize("tool", PARTLY)
def test_no_call_outlasts_a_host_when_only_what_it_needs_first_works(tool: str) -> None:
    spared, arguments, code = PARTLY[tool]
    sandbox = a_sandbox()
    rent_first(sandbox)
    lium = faring_badly(sandbox, silence, spared=spared)
    [(seconds, text)] = seconds_of_calls(lium, {tool: arguments}).values()
    assert text.startswith(code), text
    assert 1 < seconds < HOST_LIMIT_SECONDS, text


def test_a_rent_whose_pod_cannot_be_read_answers_within_its_wait_and_names_the_pod() -> None:
    spared = frozenset({"GET /version", "GET /users/me", "GET /executors", "POST /executors"})
    lium = faring_badly(a_sandbox(), silence, spared=spared)
    lium.on("GET", "/ssh-keys", answering(200, [{"id": "k", "public_key": PUBLIC_KEY}]))
    lium.on("GET", "/pods", answering(200, []), times=1)
    [(seconds, text)] = seconds_of_calls(lium, {"rent_pod": {"name": "p", "gpu_type": "A100"}}).values()
    assert text.startswith("ok"), text
    assert '"outcome":"pending"' in text
    assert '"pod_id"' in text
    assert seconds < HOST_LIMIT_SECONDS


def test_a_call_that_is_cut_off_while_it_settles_a_rent_does_not_deny_it() -> None:
    sandbox = a_sandbox()
    sent: list[str] = []

    async def lose(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        sent.append(request.headers["idempotency-key"])
        if len(sent) <= 3:  # the first one and what is asked in the same call
            sandbox.clock.advance(seconds=20)
            raise httpx2.ReadError("gone", request=request)
        await forward(request)
        return await silence(request, forward)

    lium = Wire(sandbox)
    on_rents(lium, lose)
    lium.on("GET", "/ssh-keys", answering(200, [{"id": "k", "public_key": PUBLIC_KEY}]))
    calls: dict[str, dict[str, Any]] = {"rent_pod": {"name": "p", "gpu_type": "A100"}, "list_pods": {}}
    taken = seconds_of_calls(lium, calls, timeout_seconds=45)
    assert taken["rent_pod"][1].startswith("outcome_unknown")
    seconds, text = taken["list_pods"]
    assert text.startswith("timed_out")
    assert "may have made a pod that bills" in text
    assert "Nothing was changed" not in text
    assert seconds <= READ_LIMIT_SECONDS
    assert len(set(sent)) == len(sandbox.state("pods")["pods"]) == 1


async def slow(request: httpx2.Request, forward: Forward) -> httpx2.Response:
    await asyncio.sleep(4)
    return await forward(request)


SLOW_WAIT_SECONDS = 30


def test_where_each_answer_is_slow_the_waits_of_a_call_end_together() -> None:
    sandbox = a_sandbox()
    rent_first(sandbox)
    pod_ids = [asyncio.run(rent(sandbox, name)) for name in ("one", "two", "three")]
    sandbox.clock.advance(minutes=10)
    calls: dict[str, dict[str, Any]] = {
        "rent_pod": {"name": "new", "gpu_type": "RTX3090"},
        "reboot_pod": {"pod": pod_ids[0]},
        "create_backup": {"pod": pod_ids[1]},
        "remove_pod": {"pod": pod_ids[2], "final_backup": True},
    }
    waiting = {tool: given | {"wait_seconds": SLOW_WAIT_SECONDS} for tool, given in calls.items()}
    taken = seconds_of_calls(faring_badly(sandbox, slow), waiting)
    for tool, (seconds, said) in taken.items():
        assert said.startswith("ok: "), (tool, said)
        assert '"outcome":"pending"' in said, (tool, said)
        assert SLOW_WAIT_SECONDS <= seconds < HOST_LIMIT_SECONDS, (tool, seconds)
