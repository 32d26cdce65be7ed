"""What servers put around and into their answers, each as the sandbox plays it: read for what it means, or left out."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on
from tests.wires import Wire, ask, editing, rent


def figures_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from figures_in(item)
    elif isinstance(value, int | float):
        yield value


@pytest.mark.parametrize("rate", [0.00004795, 0.00024795, 0.25])
async def test_a_rate_keeps_its_digits(sandbox: Sandbox, rate: float) -> None:
    wire = Wire(sandbox)
    wire.on(
        "GET",
        "/executors/*/quote",
        editing(lambda quote: quote | {"lines": [line | {"rate_usd": rate} for line in quote["lines"]]}),
    )
    async with agent_on(sandbox, transport=wire) as agent:
        offer = (await agent.call("list_gpus", limit=1))["offers"][0]
        quote = await agent.call("quote_rental", executor_id=offer["executor_id"], backup_gb=1)
    assert {line["rate_usd"] for line in quote["lines"]} == {rate}


async def test_an_amount_that_is_not_zero_is_not_written_as_zero(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"price": 0.00004795} for pod in pods]))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.call("list_pods"))["burn_per_hour_usd"] == 0.00004795


async def test_ports_of_an_ipv6_address_stand_behind_brackets(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    sandbox.add_fault("ipv6_hosts", times=None)
    async with agent_on(sandbox) as agent:
        pod = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
    host = pod["ssh_command"].removeprefix("ssh root@").split(" ")[0]
    assert host.startswith("2001:db8::")
    assert pod["ports"]
    assert all(address.startswith(f"[{host}]:") for address in pod["ports"].values())


async def test_what_frames_a_stream_is_no_log_line(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    async with agent_on(sandbox) as agent:
        plain = await agent.call("get_pod_logs", pod="train")
        sandbox.add_fault("keep_alives")
        assert await agent.call("get_pod_logs", pod="train") == plain
    assert plain["lines"]


async def test_json_behind_a_byte_order_mark_is_read(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    sandbox.add_fault("byte_order_mark", times=None)
    async with agent_on(sandbox) as agent:
        assert (await agent.call("list_pods"))["total"] == 1
        await agent.clock.sleep(2)  # for so long pods are kept
        sandbox.add_fault("error", status=400, body='\ufeff{"message": "No such thing"}')
        assert "No such thing." in (await agent.refused("list_pods")).text


async def test_figures_beyond_reason_are_left_out(sandbox: Sandbox) -> None:
    sandbox.add_fault("absurd_figures", share=0.5, times=None)
    async with agent_on(sandbox) as agent:
        page = await agent.call("list_gpus", limit=100)
    assert page["offers"]
    assert all(0 <= figure <= 10**7 and math.isfinite(figure) for figure in figures_in(page["offers"]))


@pytest.mark.parametrize("capacity", [-24564, 10**12, "9" * 300, float("nan")], ids=str)
async def test_a_card_of_no_possible_memory_has_an_unknown_one(sandbox: Sandbox, capacity: Any) -> None:
    def spoilt(node: dict[str, Any]) -> dict[str, Any]:
        details = [{**card, "capacity": capacity} for card in node["specs"]["gpu"]["details"]]
        return node | {"specs": {**node["specs"], "gpu": {**node["specs"]["gpu"], "details": details}}}

    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(lambda nodes: [spoilt(node) for node in nodes if node.get("specs")]))
    async with agent_on(sandbox, transport=wire) as agent:
        offers = (await agent.call("list_gpus"))["offers"]
    assert offers
    assert not any("vram_gb_per_gpu" in offer for offer in offers)


async def test_a_list_without_an_end_is_left_and_said_to_be_incomplete(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    schedule = {"pod_id": pod_id, "backup_frequency_hours": 1, "retention_days": 1, "backup_path": ""}
    await ask(sandbox, "POST", "/backup-configs", schedule)
    sandbox.clock.advance(hours=3)
    async with agent_on(sandbox) as agent:
        whole = await agent.call("list_backups")
        sandbox.add_fault("endless_pages", times=None)
        before = len(sandbox.state("requests")["requests"])
        endless = await agent.call("list_backups")
        asked = sandbox.state("requests")["requests"][before:]
    assert "incomplete" not in whole
    assert whole["total"] > 1
    assert endless["total"] == len(endless["backups"]) == 1
    assert "there may be more" in endless["incomplete"]
    assert len([request for request in asked if request["path"].startswith("/backup-logs")]) == 2


async def test_a_schedule_with_an_empty_path_is_of_the_whole_volume(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    schedule = {"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": ""}
    await ask(sandbox, "POST", "/backup-configs", schedule)
    async with agent_on(sandbox) as agent:
        root = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["local_volume_path"]
        assert (await agent.call("list_backups", pod="train"))["schedule"]["path"] == root
        changed = await agent.call("set_backup_schedule", pod="train", path=root)
        assert changed["next"] == "It was so already."
        changed = await agent.call("set_backup_schedule", pod="train", keep_days=8)
        assert "warnings" not in changed
        changed = await agent.call("set_backup_schedule", pod="train", path=f"{root}/results")
        assert any(f"They hold {root}, and will hold {root}/results" in warning for warning in changed["warnings"])
