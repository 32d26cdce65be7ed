"""A container that started again by itself: it is told with its reason, and whoever waits for a job hears the truth.

Pods are the sandbox's own, over SSH; the clock is turned.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on, hosted, make_key_pair
from tests.wires import Wire, answering, ask, editing

Row = dict[str, Any]


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """An account whose pods answer SSH."""
    make_key_pair(tmp_path / "key")
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
async def wire(account: Sandbox) -> Wire:
    return Wire(account)


@pytest.fixture
async def agent(account: Sandbox, wire: Wire, tmp_path: Path) -> AsyncIterator[Agent]:
    async with hosted(agent_on(account, transport=wire, ssh_key_path=tmp_path / "key")) as connected:
        yield connected


async def rent(agent: Agent) -> str:
    wanted: Row = {"name": "train", "gpu_type": "A100", "hours": 24, "wait_seconds": 300}
    return str((await agent.call("rent_pod", **wanted))["pod_id"])


async def warnings(agent: Agent) -> list[str]:
    return list((await agent.call("get_pod", pod="train", wait_seconds=0))["pod"].get("warnings", []))


KINDS: list[tuple[Row, str]] = [
    ({}, "its main process was killed (exit code 137), and Lium tells of no lack of memory."),
    ({"oom": True}, "it had run out of memory (exit code 137)."),
    ({"exit_code": 0}, "its main process had ended (exit code 0), so its image needs a command that runs on."),
    ({"exit_code": 3, "message": 'a "reason"'}, "had ended (exit code 3); Lium says \"a 'reason'\"."),
    ({"told": False}, "why is not told."),
]


@pytest.mark.parametrize(("how", "why"), KINDS)
async def test_a_restart_by_itself_is_told_with_its_reason(account: Sandbox, agent: Agent, how: Row, why: str) -> None:
    await rent(agent)
    assert await warnings(agent) == []
    await agent.call("run_command", pod="train", command="echo kept > /root/a")
    account.clock.advance(minutes=30)
    at = f"{account.clock.now():%Y-%m-%dT%H:%M}"
    account.add_fault("container_restarts", pod_name="train", **how)
    (said,) = await warnings(agent)
    assert said.startswith(f"The container started again by itself at {at}")
    assert why in said
    assert "What ran in it is gone, its files stay" in said
    assert (await agent.call("run_command", pod="train", command="cat /root/a"))["stdout"] == "kept\n"
    account.clock.advance(minutes=30)
    account.add_fault("container_restarts", pod_name="train", **how)
    (said,) = await warnings(agent)
    assert "(2 times since it was last started on order)" in said or how == {"told": False}
    await agent.call("reboot_pod", pod="train", wait_seconds=120)
    assert await warnings(agent) == [], "a container that was started on order has not restarted"


async def test_a_restart_that_was_ordered_is_none_by_itself(account: Sandbox, agent: Agent) -> None:
    await rent(agent)
    account.clock.advance(minutes=30)
    await agent.call("reboot_pod", pod="train", wait_seconds=120)
    assert await warnings(agent) == []
    account.clock.advance(minutes=30)
    await agent.call("reset_pod_gpus", pod="train", wait_seconds=300)
    assert await warnings(agent) == []


async def test_the_events_of_a_node_around_an_order_are_of_the_order(
    account: Sandbox, agent: Agent, wire: Wire
) -> None:
    await rent(agent)

    def dockers(kind: str, at: str, **more: Any) -> Row:
        return {"event_type": "container", "sub_event_type": f"container.{kind}", "created_at": at, **more}

    def with_dockers(rows: list[Row]) -> list[Row]:
        found = []
        for row in rows:
            at = row["created_at"]
            if row.get("to_status") == "RUNNING":
                found += [dockers("die", at, exit_code=143), dockers("create", at), dockers("start", at)]
            found.append(row)
        return found

    wire.on("GET", "/pods/*/events", editing(with_dockers))
    await agent.call("reboot_pod", pod="train", wait_seconds=120)
    assert await warnings(agent) == []


@pytest.mark.parametrize("kind", ["die", "docker-container-die", "container: die", "pod-container.DIED"])
async def test_other_spellings_of_the_events_are_read(agent: Agent, wire: Wire, kind: str) -> None:
    await rent(agent)
    later: list[Row] = [
        {"event_type": kind, "created_at": "2099-01-01T00:00:00", "exit_code": "139", "reason": {"odd": [1]}},
        {"event_type": kind.lower().replace("died", "start").replace("die", "start"), "created_at": None},
        {"event_type": "", "sub_event_type": None, "exit_code": -1},
    ]
    wire.on("GET", "/pods/*/events", editing(lambda rows: [*rows, *later]))
    (said,) = await warnings(agent)
    assert "The container started again by itself: its main process had ended (exit code 139)" in said


NONE: list[list[str]] = [
    ["container.start"],
    ["container.exec_die", "container.exec_start: die", "container.start"],
    ["container.kill", "container.stop", "container.start"],
    ["backup-container.die", "backup-container.start"],
    ["pod-die.hard", "x.container.die"],
]


@pytest.mark.parametrize("kinds", NONE)
async def test_what_else_happens_around_a_container_is_no_restart(agent: Agent, wire: Wire, kinds: list[str]) -> None:
    await rent(agent)
    later = [{"event_type": "x", "sub_event_type": kind, "created_at": "2099-01-01T00:00:00Z"} for kind in kinds]
    wire.on("GET", "/pods/*/events", editing(lambda rows: [*rows, *later]))
    assert await warnings(agent) == []


async def test_a_death_alone_is_told_once(account: Sandbox, agent: Agent, wire: Wire) -> None:
    await rent(agent)
    account.clock.advance(minutes=30)
    account.add_fault("container_restarts", pod_name="train", exit_code=139)
    wire.on(
        "GET",
        "/pods/*/events",
        editing(lambda rows: [row for row in rows if row["sub_event_type"] != "container.start"]),
    )
    (said,) = await warnings(agent)
    assert "(exit code 139)" in said
    assert "times" not in said


async def test_a_host_that_came_back_is_told(agent: Agent, wire: Wire) -> None:
    await rent(agent)
    later = {
        "event_type": "x",
        "sub_event_type": "pod-host-reboot-recovery.recovered",
        "created_at": "2099-01-01T00:00Z",
    }
    wire.on("GET", "/pods/*/events", editing(lambda rows: [*rows, later]))
    (said,) = await warnings(agent)
    assert "its host had restarted" in said


@pytest.mark.parametrize("told", [True, False])
async def test_the_wait_for_a_job_ends_with_the_truth(account: Sandbox, agent: Agent, told: bool) -> None:
    await rent(agent)
    account.clock.advance(minutes=30)
    await agent.call("start_job", pod="train", name="j", command="echo begun; sleep 7200")
    account.add_fault("container_restarts", pod_name="train", seconds=100, told=told)
    slept = agent.clock.slept_seconds
    waited = await agent.call("get_job", pod="train", name="j", wait_seconds=600)
    assert agent.clock.slept_seconds - slept < 150
    assert (waited["outcome"], waited["job"]["status"]) == ("failed", "lost")
    assert "The container started again by itself at" in waited["next"]
    assert ("(exit code 137)" in waited["next"]) == told
    assert waited["log"] == "begun\n"
    listed = await agent.call("get_job", pod="train")
    assert [job["status"] for job in listed["jobs"]] == ["lost"]
    assert "started again by itself" in listed["next"]


async def test_a_job_is_lost_also_where_nobody_can_log_in_any_more(account: Sandbox, agent: Agent) -> None:
    await rent(agent)
    await agent.call("start_job", pod="train", name="j", command="sleep 7200")
    account.add_fault("container_restarts", pod_name="train", seconds=100)
    account.add_fault("ssh_refuses", pod_name="train", times=None)
    waited = await agent.call("get_job", pod="train", name="j", wait_seconds=600)
    assert (waited["outcome"], waited["job"]["status"]) == ("failed", "lost")
    assert "nobody can log in" in waited["next"]
    refused = await agent.refused("get_job", pod="train", name="j", wait_seconds=0)
    assert "The container started again by itself at" in refused.text


async def test_a_job_that_was_killed_or_rebooted_away_is_no_restart(account: Sandbox, agent: Agent) -> None:
    await rent(agent)
    await agent.call("start_job", pod="train", name="j", command="sleep 7200")
    assert (await agent.refused("reboot_pod", pod="train")).code == "pod_at_work"
    await agent.call("reboot_pod", pod="train", wait_seconds=120)
    lost = await agent.call("get_job", pod="train", name="j")
    assert lost["job"]["status"] == "lost"
    assert "the pod was rebooted, or the job was killed" in lost["next"]


async def test_a_wait_goes_on_over_a_connection_that_breaks(account: Sandbox, agent: Agent) -> None:
    await rent(agent)
    await agent.call("start_job", pod="train", name="j", command="sleep 60; echo over")
    left = ["ssh_drops", "ssh_refuses"]

    async def break_it(progress: float, total: float | None, message: str | None) -> None:
        if left:
            account.add_fault(left.pop(0), pod_name="train")

    wanted = {"pod": "train", "name": "j", "wait_seconds": 600}
    waited = (await agent.client.call_tool("get_job", wanted, progress_callback=break_it)).structured_content
    assert waited is not None
    assert left == []
    assert (waited["outcome"], waited["job"]["exit_code"], waited["log"]) == ("done", 0, "over\n")


async def test_what_lium_does_not_tell_stops_no_view(agent: Agent, wire: Wire) -> None:
    await rent(agent)
    wire.on("GET", "/pods/*/events", answering(500))
    assert await warnings(agent) == []


# --- what a pod is seen to have inside -------------------------------------------------------------------------------


@pytest.mark.parametrize("mounted", [True, False])
async def test_a_volume_is_looked_for_in_the_pod(account: Sandbox, agent: Agent, mounted: bool) -> None:
    volume = str((await ask(account, "POST", "/volumes", {"name": "data", "description": ""}))["id"])
    if not mounted:
        account.add_fault("comes_out_short", pod_name="train", volume="not mounted")
    wanted = {"name": "train", "gpu_type": "A100", "hours": 2, "volume": volume, "wait_seconds": 300}
    rented = await agent.call("rent_pod", **wanted)
    assert rented["pod"]["volume_id"] == volume
    said = rented["pod"].get("warnings", [])
    assert said == await warnings(agent)
    if mounted:
        assert said == []
        return
    assert f"Volume {volume} is not mounted" in said[0]
    assert "reboot_pod with this volume" in said[0]
    again = await agent.call("reboot_pod", pod="train", volume=volume, wait_seconds=120)
    assert "warnings" not in again["pod"]


async def test_a_pod_whose_programs_reach_no_gpu_says_so(account: Sandbox, agent: Agent) -> None:
    account.add_fault("comes_out_short", pod_name="train", gpus=0)
    wanted = {"name": "train", "gpu_type": "A100", "gpu_count": 2, "hours": 2, "wait_seconds": 300}
    rented = await agent.call("rent_pod", **wanted)
    (said,) = rented["pod"]["warnings"]
    assert said.startswith("2 GPUs are billed and none can be seen in it. reboot_pod may bring them back")
    assert rented["outcome"] == "done"
