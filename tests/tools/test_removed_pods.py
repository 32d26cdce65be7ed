"""Pods that are gone, by the name that they had: what is kept of them can be read, and what cannot is told why."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire, answering, ask, rent, truth

Row = dict[str, Any]


async def gone(sandbox: Sandbox, name: str = "train") -> str:
    """A pod that ran for an hour and was removed, past our server; its id."""
    pod_id = await rent(sandbox, name)
    sandbox.clock.advance(hours=1)
    await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    sandbox.clock.advance(minutes=10)
    return pod_id


LIVING: dict[str, Row] = {
    "run_command": {"command": "true"},
    "get_job": {},
    "start_job": {"command": "true", "name": "j"},
    "stop_job": {"name": "j"},
    "upload_files": {"content": "x", "pod_path": "x"},
    "download_files": {"pod_path": "x"},
    "create_backup": {},
    "set_backup_schedule": {},
    "reboot_pod": {},
    "remove_pod": {},
    "schedule_pod_removal": {"hours_from_now": 1},
    "cancel_pod_removal": {},
    "get_pod_logs": {},
}


@pytest.mark.parametrize("tool", LIVING)
async def test_a_pod_that_was_removed_is_told_of_by_name_and_by_id(sandbox: Sandbox, tool: str) -> None:
    pod_id = await gone(sandbox)
    removed_at = next(pod["removed_at"] for pod in truth(sandbox, "pods") if pod["id"] == pod_id)
    async with agent_on(sandbox) as agent:
        for named in ("train", pod_id):
            refused = await agent.refused(tool, pod=named, **LIVING[tool])
            assert refused.code == "pod_not_found"
            assert f"No pod of yours is train any more: it was {pod_id}, removed by {removed_at[:13]}" in refused.text
            assert "read by its id" in refused.text
            assert "Nothing was changed." in refused.text


async def test_a_removed_pod_is_read_by_the_name_that_it_alone_had(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await gone(sandbox)
    found = await agent.call("get_pod", pod="train")
    assert (found["outcome"], found["pod"]["pod_id"], found["pod"]["billing"]) == ("removed", pod_id, False)
    assert (await agent.call("list_restores", pods=["train"]))["restores"] == []
    assert (await agent.call("list_backups", pod="train"))["backups"] == []
    living = await rent(sandbox, "worker")
    assert (await agent.call("list_restores", pods=["train", "worker", pod_id, living]))["restores"] == []
    refused = await agent.refused("list_restores", pods=["worker", "nobody"])
    assert refused.code == "pod_not_found"
    assert "removed" not in refused.text


async def test_several_removed_pods_of_one_name_are_listed_and_none_is_taken(agent: Agent, sandbox: Sandbox) -> None:
    ids = [await gone(sandbox) for _ in range(2)]
    for tool, arguments in (("get_pod", {"pod": "train"}), ("list_restores", {"pods": ["train"]})):
        refused = await agent.refused(tool, **arguments)
        assert refused.code == "pod_not_found"
        assert "2 had that name" in refused.text
        assert refused.text.index(ids[1]) < refused.text.index(ids[0])


async def test_the_ledger_knows_a_removed_pod_where_lium_has_no_charges_of_it_yet(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(500))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=2, wait_seconds=300)
        await agent.call("remove_pod", pod="train", wait_seconds=300)
        refused = await agent.refused("run_command", pod="train", command="true")
        assert f"it was {rented['pod_id']}, removed" in refused.text
        assert "not_known_yet" not in refused.code


async def test_a_name_that_no_pod_had_is_only_not_found(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/billing/statement", answering(403, {"message": "no"}))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("get_pod", pod="train")
    assert "No pod of yours is named train." in refused.text
    assert "any more" not in refused.text
