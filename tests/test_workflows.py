"""The four workflows that people come for, played end to end through tools, with the clock turned."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.cli.exit_statuses import ExitStatus
from lium_mcp.cli.templates import sync
from lium_mcp.figures import rate_in_usd
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, TurnedClock, agent_on
from tests.wires import Forward, Wire

MODES: tuple[Mode, ...] = ("auto", "legacy")


async def rent(agent: Agent, name: str, **more: Any) -> str:
    """Rent the cheapest A100 and wait until it runs."""
    rented = await agent.call("rent_pod", name=name, gpu_type="A100", hours=6, wait_seconds=120, **more)
    assert rented["outcome"] == "done", rented
    return str(rented["pod_id"])


def pods_of(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    return {pod["id"]: pod for pod in sandbox.state()["pods"]}


def living(sandbox: Sandbox) -> set[str]:
    gone = {"DELETED", "DELETING", "REMOVED"}
    return {pod_id for pod_id, pod in pods_of(sandbox).items() if pod["status"] not in gone and not pod["removed_at"]}


@pytest.mark.parametrize("mode", MODES)
async def test_watch_the_market_and_deploy_when_a_gpu_drops_below_a_price(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        prices = (await agent.call("get_gpu_prices", gpu_type="H100"))["gpu_types"]
        ceiling = round(min(row["min_usd"] for row in prices) - 0.005, 4)
        assert (await agent.call("list_gpus", gpu_type="H100", max_usd_per_gpu_hour=ceiling))["total"] == 0
        refused = await agent.refused("rent_pod", name="early", gpu_type="H100", max_usd_per_gpu_hour=ceiling)
        assert refused.code == "no_gpu_matches"
        assert not sandbox.state()["rents"]

        offers: list[dict[str, Any]] = []
        for _ in range(200):
            if offers:
                break
            sandbox.clock.advance(minutes=10)
            watched = await agent.call("list_gpus", gpu_type="H100", max_usd_per_gpu_hour=ceiling, wait_seconds=10)
            offers = watched["offers"]
        assert offers, "the market moved for hours and never got cheaper"
        assert offers[0]["price_per_gpu_hour_usd"] <= ceiling
        rented = await agent.call(
            "rent_pod",
            name="deal",
            executor_id=offers[0]["executor_id"],
            max_usd_per_gpu_hour=ceiling,
            hours=2,
            wait_seconds=120,
        )
        assert rented["outcome"] == "done"
        assert rented["pod"]["price_per_hour_usd"] <= ceiling * rented["pod"]["gpu_count"]
        assert len(sandbox.state()["rents"]) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_fresh_pod_for_a_job_ends_with_a_backup_and_without_the_pod(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        pod_id = await rent(agent, "job")
        sandbox.clock.advance(hours=1)
        removed = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=600)
        assert removed["outcome"] == "done"
        assert pod_id not in living(sandbox)
        kept = await agent.call("get_backup", backup_id=removed["backup_id"], wait_seconds=0)
        assert kept["backup"]["status"] == "COMPLETED"
        last = removed["backup"]
        assert (last["path"], last["files"] > 0, last["size_gb"] > 0) == ("/root", True, True)
        completed, kept_until = (datetime.fromisoformat(last[name]) for name in ("completed_at", "kept_until"))
        assert kept_until - completed == timedelta(days=7)
        told = ("backup_id", "pod_id", "path", "files", "size_gb", "kept_until")
        assert [kept["backup"][name] for name in told] == [last[name] for name in told]
        assert (await agent.call("get_balance"))["burn_per_hour_usd"] == 0


async def test_a_failed_final_backup_leaves_the_pod_and_says_what_it_costs(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    sandbox.add_fault("backup_fails", message="disk full")
    failure = await agent.refused("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert failure.code == "final_backup_failed"
    assert "disk full" in failure.text
    price = pods_of(sandbox)[pod_id]["price"]
    assert f"not removed and bills {rate_in_usd(price)} an hour" in failure.text
    assert pod_id in living(sandbox)
    assert (await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=600))["outcome"] == "done"


@pytest.mark.parametrize("in_one_call", [True, False])
async def test_a_partial_backup_is_no_reason_to_remove_a_pod(agent: Agent, sandbox: Sandbox, in_one_call: bool) -> None:
    pod_id = await rent(agent, "job")
    sandbox.add_fault("backup_partial", message="2 files could not be read")
    if not in_one_call:
        begun = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=1)
        assert begun["outcome"] == "pending"
        sandbox.clock.advance(minutes=5)
    failure = await agent.refused("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert failure.code == "final_backup_partial"
    assert "2 files could not be read" in failure.text
    assert "was not removed and bills" in failure.text
    assert pod_id in living(sandbox)
    assert (await agent.call("remove_pod", pod="job", final_backup=False, wait_seconds=600))["outcome"] == "done"


@pytest.mark.parametrize("path", ["/pods/*/backup", "/backup-configs/pod/*", "/backup-logs/*"])
async def test_no_fault_on_the_way_to_a_final_backup_removes_the_pod(agent: Agent, sandbox: Sandbox, path: str) -> None:
    pod_id = await rent(agent, "job")
    sandbox.add_fault("error", times=None, status=500, match={"path": path})
    failure = await agent.refused("remove_pod", pod="job", final_backup=True, wait_seconds=60)
    assert "was not removed" in failure.text
    assert pod_id in living(sandbox)


async def test_a_final_backup_that_takes_longer_than_a_call_is_gone_on_with(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    sandbox.clock.advance(hours=2)
    first = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=1)
    assert first["outcome"] == "pending"
    assert "was not removed" in first["next"]
    assert pod_id in living(sandbox)
    second = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert second["outcome"] == "done"
    assert second["backup_id"] == first["backup_id"], "a second backup would have started over"
    assert pod_id not in living(sandbox)


async def test_a_final_backup_of_long_ago_does_not_count(agent: Agent, sandbox: Sandbox) -> None:
    await rent(agent, "job")
    first = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=1)
    assert first["outcome"] == "pending"
    await agent.clock.sleep(3600)
    second = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert second["outcome"] == "done"
    assert second["backup_id"] != first["backup_id"], "what was written in that hour would have been lost"


async def test_a_part_of_the_volume_is_no_final_backup(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    await agent.call("set_backup_schedule", pod="job", path="/root/logs")
    failure = await agent.refused("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert failure.code == "backup_partial"
    assert "was not removed and bills" in failure.text
    assert pod_id in living(sandbox)
    assert sandbox.state()["backups"] == []


async def test_a_schedule_that_is_narrowed_at_the_start_of_a_final_backup_does_not_count(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        pod_id = await rent(agent, "job")
        await agent.call("set_backup_schedule", pod="job")

        async def narrow(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            await agent.call("set_backup_schedule", pod="job", path="/root/logs")
            return await forward(request)

        wire.on("POST", "/pods/*/backup", narrow)
        for _ in range(2):
            failure = await agent.refused("remove_pod", pod="job", final_backup=True, wait_seconds=600)
            assert failure.code == "backup_partial"
            sandbox.clock.advance(minutes=10)
        assert pod_id in living(sandbox)


async def test_a_backup_that_runs_is_not_cut_off_where_nobody_was_asked(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    made = await agent.call("create_backup", pod="job", wait_seconds=0)
    backup_id = made["backup"]["backup_id"]
    for _ in range(2):
        failure = await agent.refused("remove_pod", pod="job")
        assert failure.code == "backup_running"
        assert backup_id in failure.text
        assert "get_backup and wait_seconds" in failure.text
        assert "cancel_backup (toolset extras; if it is not offered, only whoever runs this server" in failure.text
        assert "was not removed and bills" in failure.text
    assert pod_id in living(sandbox)
    assert (await agent.call("get_backup", backup_id=backup_id, wait_seconds=600))["outcome"] == "done"
    removed = await agent.call("remove_pod", pod="job")
    assert removed["outcome"] == "done"
    assert "next" not in removed


async def test_a_final_backup_that_runs_is_gone_on_with_after_a_call_without_it(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    begun = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=1)
    assert (await agent.refused("remove_pod", pod="job")).code == "backup_running"
    assert pod_id in living(sandbox)
    removed = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=600)
    assert (removed["outcome"], removed["backup_id"]) == ("done", begun["backup_id"])


async def test_a_final_backup_that_cannot_be_looked_at_keeps_a_pod_once(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=1)
    sandbox.add_fault("error", times=None, status=500, match={"path": "/backup-logs/pod/*"})
    assert (await agent.refused("remove_pod", pod="job")).code == "final_backup_running"
    assert pod_id in living(sandbox)
    assert (await agent.call("remove_pod", pod="job"))["outcome"] == "done"


async def test_backups_that_cannot_be_read_do_not_keep_a_pod(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(agent, "job")
    sandbox.add_fault("error", times=None, status=500, match={"path": "/backup-logs/pod/*"})
    assert (await agent.call("remove_pod", pod="job"))["outcome"] == "done"
    assert pod_id not in living(sandbox)


async def test_a_backup_is_inspected_and_fanned_out_into_many_pods(agent: Agent, sandbox: Sandbox) -> None:
    await rent(agent, "source")
    made = await agent.call("create_backup", pod="source", wait_seconds=600)
    assert made["outcome"] == "done"
    backup_id = made["backup"]["backup_id"]
    assert backup_id in [row["backup_id"] for row in (await agent.call("list_backups", pod="source"))["backups"]]
    for number in range(3):
        await rent(agent, f"worker-{number}")
    restored = await agent.call(
        "restore_backup", backup_id=backup_id, pods=["worker-0", "worker-1", "worker-2"], wait_seconds=600
    )
    assert restored["outcome"] == "done"
    assert [row["restore"]["status"] for row in restored["pods"]] == ["COMPLETED"] * 3
    for number in range(3):
        rows = (await agent.call("list_restores", pods=[f"worker-{number}"]))["restores"]
        assert [row["backup_id"] for row in rows] == [backup_id]


async def test_a_backup_is_restored_into_a_pod_that_is_rented_with_it(agent: Agent, sandbox: Sandbox) -> None:
    await rent(agent, "source")
    backup_id = (await agent.call("create_backup", pod="source", wait_seconds=600))["backup"]["backup_id"]
    rented = await agent.call("rent_pod", name="copy", gpu_type="A100", backup_id=backup_id, hours=1, wait_seconds=120)
    assert rented["restore"]["path"] == "/root/restored"
    sandbox.clock.advance(minutes=30)
    (row,) = (await agent.call("list_restores", pods=["copy"]))["restores"]
    assert (row["backup_id"], row["status"]) == (backup_id, "COMPLETED")


async def test_templates_are_kept_in_sync_from_ci(
    sandbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "templates.toml"
    file.write_text(
        '[[template]]\nname = "trainer"\nimage = "daturaai/pytorch:2.6.0-py3.11-cuda12.4.1-devel-ubuntu22.04"\n'
    )
    clock = TurnedClock(sandbox)
    async with LiumClient(api_key="sk_sandbox", base_url="http://127.0.0.1/api", transport=sandbox.transport()) as lium:
        assert await sync(lium, clock, file, dry_run=True) == ExitStatus.DIFFERS
        assert await sync(lium, clock, file) == ExitStatus.OK
        assert await sync(lium, clock, file, dry_run=True) == ExitStatus.OK
        assert "= same   trainer" in capsys.readouterr().out
