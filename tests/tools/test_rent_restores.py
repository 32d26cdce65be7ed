"""A backup that a pod is rented with: where it goes, and a wait that covers it."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import Wire, answering, editing, make_template, rents, truth

Row = dict[str, Any]


async def a_backup(agent: Agent) -> str:
    await agent.call("rent_pod", name="source", gpu_type="A100 PCIe", hours=9, wait_seconds=120)
    made = await agent.call("create_backup", pod="source", wait_seconds=600)
    return str(made["backup"]["backup_id"])


async def test_the_wait_covers_the_restore(agent: Agent) -> None:
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
    rented = await agent.call("rent_pod", **wanted, restore_path="/root/data/old/", wait_seconds=600)
    assert rented["outcome"] == "done"
    (row,) = (await agent.call("list_restores", pods=["copy"]))["restores"]
    assert row["status"] == "COMPLETED"
    assert rented["restore"] == {"outcome": "done", "restore_id": row["restore_id"], "path": "/root/data/old"}
    assert "next" not in rented


async def test_a_restore_that_outlasts_the_wait_is_pending_and_the_same_call_waits_on(agent: Agent) -> None:
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
    rented = await agent.call("rent_pod", **wanted, wait_seconds=20)
    assert rented["outcome"] == "pending"
    assert rented["restore"]["outcome"] == "pending"
    assert rented["restore"]["path"] == "/root/restored"
    assert rented["restore"]["restore_id"]
    assert "list_restores" in rented["next"]
    again = await agent.call("rent_pod", **wanted, wait_seconds=600)
    assert (again["pod_id"], again["already_rented"]) == (rented["pod_id"], True)
    assert again["restore"]["outcome"] == again["outcome"] == "done"


async def test_a_restore_that_fails_is_no_success(sandbox: Sandbox, agent: Agent) -> None:
    backup_id = await a_backup(agent)
    sandbox.add_fault("restore_fails")
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": backup_id, "hours": 2}
    rented = await agent.call("rent_pod", **wanted, wait_seconds=600)
    assert rented["outcome"] == rented["restore"]["outcome"] == "failed"
    assert rented["restore"]["problem"]
    assert rented["pod"]["status"] == "RUNNING"
    assert "runs and bills, but the restore into /root/restored failed" in rented["next"]


@pytest.mark.parametrize("rows", [[], [{"id": "other", "backup_id": "b", "restore_path": "/x", "status": "COMPLETED"}]])
async def test_a_restore_that_lium_does_not_list_is_not_taken_for_done(sandbox: Sandbox, rows: list[Row]) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
        wire.on("GET", "/pods/*/restore-logs", answering(200, {"items": rows, "has_next": False}))
        rented = await agent.call("rent_pod", **wanted, wait_seconds=60)
    assert rented["outcome"] == rented["restore"]["outcome"] == "pending"
    assert "does not list" in rented["restore"]["problem"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("data", "absolute"),
        ("/root/../etc", ".."),
        ("/mnt/data", "/mnt"),
        ("/tmp/x", "/tmp"),  # noqa: S108 - a path in a pod
        ("/home/me", "outside the pod's local volume /root"),
        ("/root", "the local volume /root itself"),
        ("/root/", "the local volume /root itself"),
        ("//root/.", "the local volume /root itself"),
    ],
)
async def test_a_path_that_cannot_be_is_refused_before_money_is_spent(agent: Agent, path: str, said: str) -> None:
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
    failure = await agent.refused("rent_pod", **wanted, restore_path=path)
    assert failure.code == "invalid_argument"
    assert said in failure.text
    assert len(rents(agent.sandbox)) == 1


async def test_a_path_is_held_against_the_volume_of_the_template(sandbox: Sandbox, agent: Agent) -> None:
    template = await make_template(sandbox, "mine", volumes=["/workspace"])
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
    failure = await agent.refused("rent_pod", **wanted, template=template, restore_path="/root/data")
    assert "/workspace" in failure.text
    rented = await agent.call("rent_pod", **wanted, template=template, restore_path="/workspace/data", wait_seconds=600)
    assert rented["restore"]["path"] == "/workspace/data"


async def test_a_path_without_a_backup_is_refused(agent: Agent) -> None:
    failure = await agent.refused("rent_pod", name="p", gpu_type="RTX4090", restore_path="/root/data")
    assert failure.code == "invalid_argument"
    assert "backup_id" in failure.text


async def test_a_pod_that_is_gone_during_its_restore_is_no_success(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}

        def vanish(page: Row) -> Row:
            for path in ("/pods/*", "/pods/*/record"):
                wire.on("GET", path, answering(404, {"detail": "Pod not found"}))
            return page | {"items": [item | {"status": "CANCELLED"} for item in page["items"]]}

        wire.on("GET", "/pods/*/restore-logs", editing(vanish))
        rented = await agent.call("rent_pod", **wanted, wait_seconds=600)
    assert rented["outcome"] == "failed"
    assert rented["pod"]["billing"] is False


async def test_no_restore_at_the_start_is_ordered_into_an_encrypted_volume(sandbox: Sandbox, agent: Agent) -> None:
    wanted = {"name": "copy", "gpu_type": "RTX4090", "backup_id": await a_backup(agent), "hours": 2}
    rented = await agent.call("rent_pod", **wanted, wait_seconds=600)
    assert rented["outcome"] == "done"
    source, copy = (pod["enable_volume_encryption"] for pod in truth(sandbox, "pods"))
    assert (source, copy) == (True, False)
    [warning] = [warning for warning in rented["warnings"] if "encrypted" in warning]
    assert "restore_backup" in warning
