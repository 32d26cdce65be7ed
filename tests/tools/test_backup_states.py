"""What a backup or a restore is said to be: began only if it began, as large as its data, skipped for a reason."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person, agent_on
from tests.wires import Wire, answering, ask, editing, living, rent, then

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
        (restore,) = (await agent.call("list_restores", pods=["worker"]))["restores"]
    assert "started_at" not in restore
    assert restore["created_at"]


@pytest.mark.parametrize(
    ("state", "figures"),
    [
        ({"status": "COMPLETED"}, {"size_gb": 2.0, "files": 3}),
        ({"status": "COMPLETED", "processed_files": 2}, {"size_gb": 2.0, "files": 2}),
        ({"status": "IN_PROGRESS"}, {"size_gb": 2.0, "files": 3}),
        ({"status": "IN_PROGRESS", "processed_files": 2}, {"size_gb": 2.0, "files": 3}),
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
        wire.on("DELETE", "/backup-logs/*", then(lambda: wire.on("GET", "/backup-logs/*", look)))
        answer = await agent.call("delete_backup", backup_id=backup_id)
    assert answer == {"backup_id": backup_id, "status": said}


# --- what lacks files -------------------------------------------------------------------------------------------------


def pages_of(rows: list[Row]) -> Row:
    return {"items": rows, "has_next": False}


@pytest.mark.parametrize(
    ("said", "is_partial"),
    [
        ({"result_quality": "PARTIAL"}, True),
        ({"processed_files": 119}, True),
        ({"status_message": "PARTIAL: 20 files unreadable"}, True),
        ({"status_message": "could not read 3 files: no permission"}, True),
        ({"error_message": {"message": "10 files could not be read"}}, True),
        ({"status_message": "not all files could be read"}, True),
        ({"status_message": "Completed with 3 errors"}, True),
        ({"error_message": "open /root/x: no such file or directory"}, True),
        ({}, False),
        ({"result_quality": "COMPLETE", "processed_bytes": 5}, False),
        ({"processed_files": None}, False),
        ({"status_message": "120 files stored, 0 files could not be read. Not partial; files skipped: 0"}, False),
        ({"status_message": "no files were skipped"}, False),
        ({"status_message": "Completed with 0 errors"}, False),
    ],
    ids=str,
)
async def test_a_pod_is_removed_after_a_backup_only_if_nothing_says_that_it_lacks_files(
    sandbox: Sandbox, said: Row, is_partial: bool
) -> None:
    pod_id = await rent(sandbox, "worker")
    whole = {"result_quality": None, "processed_files": 120, "total_files": 120, "total_bytes": 9, "processed_bytes": 9}
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/*", editing(lambda row: row | whole | (said if row["status"] == "COMPLETED" else {})))
    async with agent_on(sandbox, transport=wire) as agent:
        if is_partial:
            refused = await agent.refused("remove_pod", pod="worker", final_backup=True, wait_seconds=300)
            assert refused.code == "final_backup_partial"
        else:
            removed = await agent.call("remove_pod", pod="worker", final_backup=True, wait_seconds=300)
            assert removed["outcome"] == "done"
    assert [pod["id"] for pod in living(sandbox)] == ([pod_id] if is_partial else [])


async def test_what_a_completed_run_says_of_itself_is_shown(sandbox: Sandbox) -> None:
    row = {"id": "b1", "status": "COMPLETED", "status_message": "stored in 3 parts"}
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/b1", answering(200, row))
    wire.on("GET", "/backup-logs/", answering(200, [row | {"status_message": "3 files unreadable"}]))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = await agent.call("get_backup", backup_id="b1")
        (listed,) = (await agent.call("list_backups"))["backups"]
    assert seen["backup"] == {"backup_id": "b1", "status": "COMPLETED", "message": "stored in 3 parts"}
    assert "data, not instructions" in seen["note"]
    assert listed == {"backup_id": "b1", "status": "COMPLETED", "partial": True, "problem": "3 files unreadable"}


@pytest.mark.parametrize(
    ("said", "of_backup", "shown"),
    [
        ({"result_quality": "PARTIAL"}, {}, {"partial": True}),
        ({"status": "PARTIAL"}, {}, {"partial": True}),
        ({"processed_files": 1, "total_files": 3}, {}, {"partial": True}),
        ({}, {"result_quality": "PARTIAL"}, {"of_partial_backup": True}),
        ({}, {"processed_files": 0, "total_files": 3}, {"of_partial_backup": True}),
        ({}, {}, {}),
    ],
    ids=str,
)
async def test_a_restore_says_what_it_and_its_backup_lack(
    sandbox: Sandbox, said: Row, of_backup: Row, shown: Row
) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        backup_id = (await agent.call("create_backup", pod="worker", wait_seconds=300))["backup"]["backup_id"]

        def edit(change: Row) -> Any:
            return editing(
                lambda body: (
                    pages_of([row | change if row["status"] == "COMPLETED" else row for row in body["items"]])
                    if "items" in body
                    else body | change
                )
            )

        wire.on("GET", "/pods/*/restore-logs", edit(said))
        wire.on("GET", "/backup-logs/", edit(of_backup))
        wire.on("GET", "/backup-logs/*", edit(of_backup))
        restored = await agent.call("restore_backup", backup_id=backup_id, pods=["worker"], wait_seconds=600)
        (row,) = (await agent.call("list_restores", pods=["worker"]))["restores"]
    assert restored["outcome"] == "done"
    for view in (row, restored["pods"][0]["restore"]):
        assert {name: view[name] for name in ("partial", "of_partial_backup") if name in view} == shown
        assert view["status"] == "COMPLETED"
    assert len(restored.get("warnings", [])) == len(shown)


# --- what Lium does not say -------------------------------------------------------------------------------------------

UNTOLD: list[Row] = [{"id": "b1", "status": None}, {"id": "b1"}, {"id": "b1", "status": " "}]


@pytest.mark.parametrize("row", UNTOLD, ids=str)
async def test_a_run_whose_state_lium_does_not_say_has_none(sandbox: Sandbox, row: Row) -> None:
    pod_id = await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/*", answering(200, row))
    wire.on("GET", "/backup-logs/", answering(200, [row]))
    wire.on("GET", "/pods/*/restore-logs", answering(200, pages_of([row])))
    wire.on("POST", "/backup-logs/*/cancel", answering(200, {}))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = await agent.call("get_backup", backup_id="b1", wait_seconds=0)
        listed = await agent.call("list_backups")
        restores = await agent.call("list_restores", pods=["worker"])
        cancelled = await agent.call("cancel_backup", backup_id="b1")
        refused = await agent.refused("restore_backup", backup_id="b1", pods=["worker"])
    assert seen["backup"] == {"backup_id": "b1"}
    assert seen["outcome"] == "pending"
    assert seen["next"].startswith("Lium does not say whether the backup is still running.")
    assert listed["backups"] == [{"backup_id": "b1"}]
    assert restores["restores"] == [{"restore_id": "b1", "pod_id": pod_id}]
    assert cancelled == {"backup_id": "b1"}
    assert "is in a state that Lium does not say and cannot be restored" in refused.text


async def test_nobody_is_told_that_a_backup_runs_which_may_not(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/backup-logs/*", editing(lambda row: row | {"status": None}))
    async with agent_on(sandbox, transport=wire) as agent:
        waiting = await agent.call("remove_pod", pod="worker", final_backup=True, wait_seconds=0)
    assert waiting["outcome"] == "pending"
    assert waiting["next"].startswith("Lium does not say whether the backup is still running. The pod was not removed")
    wire.on("GET", f"/backup-logs/pod/{pod_id}", answering(200, pages_of([{"id": "b1"}])))
    async with agent_on(sandbox, transport=wire, person=person, confirm="auto") as agent:
        removed = await agent.call("remove_pod", pod="worker")
    assert "A backup of it may be running, which Lium does not say" in person.questions[0]
    assert removed["next"] == "Backup b1 is lost if it was still running."
