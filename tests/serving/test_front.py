"""The first second of a real start, whose imports take their time: who is answered when, and that nobody is twice."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from lium_mcp.serving.prepared import CURRENT
from tests.processes import cold, environment
from tests.serving.recording import LISTS, plain_requests, request
from tests.serving.starts import play

LEGACY: Final = "2025-06-18"
INITIALIZED: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def called(request_id: int, tool: str, era: str, **arguments: Any) -> dict[str, Any]:
    message = request("tools/call", request_id, era)
    message.setdefault("params", {}).update(name=tool, arguments=arguments)
    return message


@pytest.mark.parametrize("era", [CURRENT, LEGACY])
async def test_what_is_said_first_is_what_the_server_says_later(era: str) -> None:
    asked = plain_requests(era)
    async with cold("--sandbox") as server:
        early = [await server.ask(message) for message in asked]
        await server.send(INITIALIZED)
        await server.ask(called(99, "list_pods", era))  # the server has taken over
        late = [await server.ask(message) for message in asked[era == LEGACY :]]
        assert await server.end() == 0
    assert early[era == LEGACY :] == late
    assert "Traceback" not in server.stderr
    assert "ERROR" not in server.stderr, "the server agrees with what the host was told"


@pytest.mark.parametrize("seed", range(6))
async def test_each_request_is_answered_once_whenever_it_comes(seed: int) -> None:
    await play(random.Random(seed), longest_pause_seconds=0.2)


async def test_a_host_that_says_nothing_and_leaves_is_left_at_once() -> None:
    async with cold() as server:
        assert await server.end() == 0
    assert server.lines == []
    assert server.stderr == ""


@pytest.mark.parametrize("era", [CURRENT, LEGACY])
async def test_a_script_that_pipes_its_lines_gets_all_answers(era: str) -> None:
    asked = [*plain_requests(era)[:2], called(7, "list_pods", era), called(8, "get_gpu_prices", era)]
    async with cold("--sandbox") as server:
        for message in asked:
            await server.send(message)
        assert await server.end() == 0
    answers = {answer["id"]: answer["result"] for answer in map(json.loads, server.lines)}
    assert answers.keys() == {0, 1, 7, 8}
    assert "pods" in answers[7]["structuredContent"]
    assert answers[8]["structuredContent"]["gpu_types"]


async def test_a_call_that_is_cancelled_while_it_waits_for_the_server_is_not_carried_out() -> None:
    async with cold("--sandbox") as server:
        await server.ask(request("initialize", 0, LEGACY))
        await server.send(INITIALIZED)
        await server.send(called(1, "rent_pod", LEGACY, name="p", gpu_type="A100", wait_seconds=0))
        await server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        pods = await server.ask(called(2, "list_pods", LEGACY))
    assert pods["result"]["structuredContent"]["pods"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after_seconds", [0.02, 0.15, 0.4])
async def test_a_signal_during_the_imports_ends_it_at_once(number: signal.Signals, after_seconds: float) -> None:
    async with cold("--sandbox") as server:
        await server.ask(request("initialize", 0, LEGACY))
        await asyncio.sleep(after_seconds)
        server.interrupt(number)
        assert await server.exited() == 128 + number
    assert server.stderr == ""


@pytest.mark.parametrize("after_seconds", [0.0, 0.0005, 0.001, 0.002, 0.003])
async def test_a_signal_between_long_answers_leaves_no_half_a_line(after_seconds: float) -> None:
    async with cold("--sandbox") as server:
        await server.ask(request("initialize", 0, LEGACY))
        for number in range(1, 9):
            await server.send(request("tools/list", number, LEGACY))
        await asyncio.sleep(after_seconds)
        server.interrupt(signal.SIGTERM)
        assert await server.exited() == 128 + signal.SIGTERM
    assert all(line.endswith("\n") for line in server.lines)


async def test_a_host_that_writes_long_before_it_reads_gets_all_answers() -> None:
    count = 300
    asked = [request("initialize", 0, LEGACY), *(request("tools/list", number, LEGACY) for number in range(1, count))]
    written = "".join(json.dumps(message) + "\n" for message in asked).encode() + b" " * 2**20 + b"\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lium_mcp", env=environment(), stdin=-1, stdout=-1, process_group=0, limit=2**24
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(written)
    await asyncio.wait_for(process.stdin.drain(), 60)
    await asyncio.sleep(1.5)  # by now the server has taken over
    process.stdin.close()
    answers = [json.loads(line) async for line in process.stdout]
    assert [answer["id"] for answer in answers] == list(range(count))
    assert await process.wait() == 0


async def test_a_host_that_reads_slowly_and_goes_on_asking_gets_all_answers() -> None:
    async with cold() as server:
        await server.send(request("initialize", 0, LEGACY))
        for number in range(1, 60):  # more than a pipe holds
            await server.send(request("tools/list", number, LEGACY))
        seen = []
        for number in range(60, 160):
            await server.send(request("ping", number, LEGACY))
            seen += [(await server.receive())["id"]]
        while len(seen) < 160:
            seen += [(await server.receive())["id"]]
        assert await server.end() == 0
    assert seen == list(range(160))
    assert server.stderr == ""


async def test_a_host_that_reads_no_more_is_left() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lium_mcp", env=environment(), stdin=-1, stdout=-1, stderr=-1, process_group=0
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(request("initialize", 0, LEGACY)).encode() + b"\n")
    assert process.stdout is not None
    await process.stdout.readline()
    transport: Any = process.stdout
    transport._transport.close()
    for number in range(1, 400):
        process.stdin.write(json.dumps(request("tools/list", number, LEGACY)).encode() + b"\n")
    await asyncio.wait_for(process.wait(), 60)


async def test_what_strays_to_standard_output_does_not_reach_the_host(tmp_path: Path) -> None:
    begun, over = tmp_path / "begun", tmp_path / "over"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, threading, time\n"
        "def stray():\n"
        f"    while not os.path.exists({str(begun)!r}): time.sleep(0.001)\n"
        "    for pause in (0, 0.3, 0.7):\n"
        "        time.sleep(pause)\n"
        "        print('stray', flush=True)\n"
        "        os.system('echo child')\n"
        f"    open({str(over)!r}, 'w').close()\n"
        "threading.Thread(target=stray, daemon=True).start()\n"
    )
    path = os.pathsep.join((str(tmp_path), environment()["PYTHONPATH"]))
    async with cold("--sandbox", PYTHONPATH=path) as server:
        await server.ask(request("initialize", 0, LEGACY))
        begun.touch()
        await server.send(INITIALIZED)
        await server.ask(called(1, "list_pods", LEGACY))
        while not over.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        assert "result" in await server.ask(request("tools/list", 2, LEGACY))
        await server.end()
    assert Counter(server.stderr.split())["stray"] == 3
    assert Counter(server.stderr.split())["child"] == 3


@pytest.mark.parametrize("after_seconds", [0.0, 0.2, 1.5])
async def test_a_server_whose_parent_dies_ends_though_its_pipe_stays_open(after_seconds: float, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ours = tmp_path / "server.pid"
    program = (
        "import os, subprocess, sys, time\n"
        "server = subprocess.Popen([sys.executable, '-m', 'lium_mcp'], stdin=0, stdout=subprocess.DEVNULL)\n"
        f"open({str(ours)!r}, 'w').write(str(server.pid))\n"
        "time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", program], stdin=reading, env=environment(), process_group=0)  # noqa: ASYNC220 - it is to die
    try:
        os.write(writing, json.dumps(request("initialize", 0, LEGACY)).encode() + b"\n")
        while not ours.exists() or not ours.read_text():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.01)
        await asyncio.sleep(after_seconds)
        host.kill()
        host.wait()
        deadline = time.monotonic() + 60
        while _lives(int(ours.read_text())):
            assert time.monotonic() < deadline, "it lives on without anybody to serve"
            await asyncio.sleep(0.05)
    finally:
        os.close(reading)
        os.close(writing)


def _lives(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_settings_that_cannot_be_told_at_once_are_left_to_the_server() -> None:
    async with cold(LIUM_MCP_TOOLSETS='"account"', LIUM_MCP_READ_ONLY="'true'") as server:
        await server.ask(request("server/discover", 0, CURRENT))
        tools = (await server.ask(request("tools/list", 1, CURRENT)))["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["get_balance", "get_spending"]


async def test_every_list_is_there_before_the_imports_could_be() -> None:
    async with cold() as server:
        started = time.perf_counter()
        for message in plain_requests(LEGACY):
            await server.ask(message)
        listed = time.perf_counter() - started
        await server.send(INITIALIZED)
        await server.ask(called(99, "get_balance", LEGACY))
        called_after = time.perf_counter() - started
    assert len(LISTS) == 4
    assert listed < called_after / 2
