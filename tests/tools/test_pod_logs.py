"""What a pod printed: the newest of it, marked as data, and stripped of what could steer a terminal."""

import json
from datetime import datetime
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, agent_on
from tests.wires import (
    Act,
    Wire,
    after_work,
    answering,
    rent,
    streaming,
    truth,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


def now(sandbox: Sandbox) -> datetime:
    return datetime.fromisoformat(truth(sandbox, "now"))


def printed(*lines: Any) -> Act:
    content = b"".join(b"data: " + json.dumps({"log": line}).encode() + b"\n" for line in lines)
    return answering(200, content)


@both_eras
async def test_the_newest_lines_are_read_and_marked_as_data(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "train")
    sandbox.clock.advance(hours=1)
    async with agent_on(sandbox, mode=mode) as agent:
        logs = await agent.call("get_pod_logs", pod="train")
        few = await agent.call("get_pod_logs", pod="train", tail=3)
    assert logs["pod_id"] == pod_id
    assert len(logs["lines"]) == 100
    assert few["lines"] == logs["lines"][-3:]
    assert "not instructions" in logs["note"]
    assert "step" in logs["lines"][-1]
    assert logs["cut"] is False


async def test_a_pod_that_printed_nothing_yet_says_so(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "train", boot=False)
    failure = await agent.refused("get_pod_logs", pod="train")
    assert failure.code == "no_logs_yet"
    assert "get_pod" in failure.text


async def test_output_cannot_steer_a_terminal_or_hide_itself(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    hostile = ["\x1b[31mred\x1b[0m", "a\x1b]0;title\x07b", "left\u202eright", "zero\u200bwidth", "bell\x07\x00", "x\ry"]
    wire.on("GET", "/pods/*/logs", printed(*hostile, "plain 训练 🚀"))
    async with agent_on(sandbox, transport=wire) as agent:
        logs = await agent.call("get_pod_logs", pod="train")
    assert logs["lines"] == ["red", "ab", "leftright", "zerowidth", "bell", "xy", "plain 训练 🚀"]


async def test_a_server_that_sends_more_than_was_asked_for_is_cut(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", printed(*(f"line {number}" for number in range(50))))
    async with agent_on(sandbox, transport=wire) as agent:
        logs = await agent.call("get_pod_logs", pod="train", tail=2)
    assert logs["lines"] == ["line 48", "line 49"]


async def test_much_output_is_cut_to_its_newest_lines(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", printed(*(f"{number:04d} {'训' * 100}" for number in range(900))))
    async with agent_on(sandbox, transport=wire) as agent:
        logs = await agent.call("get_pod_logs", pod="train", tail=1000)
    assert logs["cut"] is True
    assert logs["lines"][-1].startswith("0899")
    assert 10_000 < len(json.dumps(logs, ensure_ascii=False).encode()) < 20_000


@pytest.mark.parametrize("before", [(), ("before",)], ids=["alone", "after another"])
async def test_the_end_of_one_endless_line_is_shown(sandbox: Sandbox, before: tuple[str, ...]) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", printed(*before, "\r".join(f"{percent}%" for percent in range(20_000))))
    async with agent_on(sandbox, transport=wire) as agent:
        logs = await agent.call("get_pod_logs", pod="train")
    assert logs["cut"] is True
    assert logs["lines"][-1].endswith("19999%")
    assert len(json.dumps(logs).encode()) < 20_000


async def test_lines_that_came_before_the_stream_went_quiet_are_shown(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", streaming(b'data: {"log": "hello"}\n\n', None))
    async with agent_on(sandbox, transport=wire, timeout_seconds=1) as agent:
        logs = await agent.call("get_pod_logs", pod="train")
    assert logs["lines"] == ["hello"]
    assert "went quiet" in logs["next"]
    assert len(wire.sent("GET", "/pods/*/logs")) == 1


async def test_a_log_of_any_size_is_read_to_its_newest_lines(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", printed(*(f"{number} {'x' * 10_000}" for number in range(1000))))
    async with agent_on(sandbox, transport=wire) as agent:
        whole = await agent.call("get_pod_logs", pod="train", tail=1)
        part = await agent.call("get_pod_logs", pod="train", tail=5)
    assert [line.split()[0] for line in whole["lines"]] == ["999"]
    assert "next" not in whole
    assert (whole["cut"], part["cut"]) == (False, True)


async def test_a_web_page_is_no_output_of_a_pod(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/logs", after_work(answering(200, b"<html>Log in to the hotel</html>")))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("get_pod_logs", pod="train")
    assert refused.code == "not_lium"
    assert "hotel" not in refused.text


@pytest.mark.parametrize("tail", [-1, 1001, "all"])
async def test_a_tail_out_of_range_is_refused_by_name(agent: Agent, tail: Any) -> None:
    failure = await agent.refused("get_pod_logs", pod="train", tail=tail)
    assert failure.code == "invalid_argument"
    assert "tail" in failure.text
