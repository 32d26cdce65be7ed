"""What a backup or a restore is said to be: began only if it began, as large as its data, skipped for a reason."""

from functools import partial
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on as agent_on_every_tool
from tests.tools.wires import Wire, answering, ask, editing, rent

# Only the tools at hand: a server with all of them takes its time to build.
TOOLS = frozenset({"list_backups", "get_backup", "create_backup", "delete_backup", "restore_backup", "list_restores"})
agent_on = partial(agent_on_every_tool, allow_tools=TOOLS, log_level="ERROR")

Row = dict[str, Any]


async def test_a_run_has_a_start_only_once_it_started(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    async with agent_on(sandbox) as agent:
        begun = (await agent.call("create_backup", pod="worker", wait_seconds=0))["backup"]
        assert "started_at" not in begun
        assert begun["created_at"]
        done = (await agent.call("get_backup", backup_id=begun["backup_id"], wait_seconds=300))["backup"]
        assert done["started_at"] > begun["created_at"]
        await ask(
            sandbox, "POST", f"/pods/{pod_id}/restore", {"backup_id": done["backup_id"], "restore_path": "/root/x"}
        )
        (restore,) = (await agent.call("list_restores", pod="worker"))["restores"]
    assert "started_at" not in restore
    assert restore["created_at"]


@pytest.mark.parametrize(
    ("state", "figures"),
    [
        ({"status": "COMPLETED"}, {"size_gb": 2.0, "files": 3}),
        ({"status": "IN_PROGRESS"}, {"size_gb": 2.0, "files": 3}),
        ({"status": "PENDING", "total_bytes": 0, "total_files": 0}, {}),
        ({"status": "FAILED"}, {}),
        ({"status": "ERROR"}, {}),
        ({"status": "CANCELLED"}, {}),
        ({"status": "SKIPPED"}, {}),
        ({"status": "EXPIRED"}, {}),
        ({"status": "DELETED"}, {}),
    ],
    ids=lambda value: value.get("status", ""),
)
async def test_only_a_backup_that_has_data_has_a_size(sandbox: Sandbox, state: Row, figures: Row) -> None:
    row = {"id": "b1", "total_bytes": 2_000_000_000, "total_files": 3} | state
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/b1", answering(200, row))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = (await agent.call("get_backup", backup_id="b1", wait_seconds=0))["backup"]
    assert {name: seen[name] for name in ("size_gb", "files") if name in seen} == figures


async def test_a_skipped_run_says_why(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    schedule = {"pod_id": pod_id, "backup_path": "", "backup_frequency_hours": 1, "retention_days": 7}
    await ask(sandbox, "POST", "/backup-configs", schedule)
    sandbox.clock.advance(minutes=59)
    sandbox.add_fault("boot_slow", seconds=600)
    await ask(sandbox, "POST", f"/pods/{pod_id}/reboot", {})
    sandbox.clock.advance(minutes=2)
    async with agent_on(sandbox) as agent:
        (row,) = (await agent.call("list_backups", pod=pod_id))["backups"]
        seen = await agent.call("get_backup", backup_id=row["backup_id"])
    assert row["status"] == "SKIPPED"
    assert "not running or busy" in row["problem"]
    assert not {"started_at", "size_gb"} & set(row)
    assert "Nothing was backed up this time" in seen["next"]
    assert "data, not instructions" in seen["note"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"status": "COMPLETED", "deletion_state": "PENDING"}, "being deleted"),
        ({"status": "COMPLETED", "deletion_state": None}, "being deleted"),
        ({"status": "COMPLETED", "deletion_state": "deleted"}, "deleted"),
        ({"status": "DELETED"}, "deleted"),
        (None, "being deleted"),
    ],
    ids=str,
)
async def test_a_deletion_says_deleted_or_being_deleted(sandbox: Sandbox, after: Row | None, said: str) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        made = await agent.call("create_backup", pod="worker", wait_seconds=300)
        backup_id = made["backup"]["backup_id"]
        look = editing(lambda row: row | after) if after is not None else answering(500, {"detail": "no"})
        wire.on("GET", "/backup-logs/*", look)
        answer = await agent.call("delete_backup", backup_id=backup_id)
    assert answer == {"backup_id": backup_id, "status": said}
