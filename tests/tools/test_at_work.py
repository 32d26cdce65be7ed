"""No removal cuts off what somebody does in the pod, whichever server does it: two servers on one ledger."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Person, agent_on
from tests.servers import Servers, hasten
from tests.sshd import Sshd, at_sshd
from tests.wires import Hold, Wire, living

_PATIENCE_SECONDS = 60
FOLLOWED = ["backup_and_remove", "remove"]
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr("lium_mcp.services.jobs.runs._QUICK_SECONDS", 0.0)


@pytest.fixture
def going_on(tmp_path: Path) -> Path:
    """A file for whose end something in the background waits, if only since the test is over and its folder is gone."""
    file = tmp_path / "going_on"
    file.touch()
    return file


async def seconds_until(account: Sandbox, holds: Callable[[], Any]) -> None:
    """Let seconds pass until something holds."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():
            account.clock.advance(seconds=1)
            await asyncio.sleep(0.01)


async def until_gone(account: Sandbox) -> None:
    """Let seconds pass until the pod is gone."""
    await seconds_until(account, lambda: not living(account))


async def reached(account: Sandbox, held: Hold) -> None:
    """Let seconds pass until a request is held."""
    waiting = asyncio.create_task(held.reached())
    await seconds_until(account, waiting.done)
    await waiting


async def rent(agent: Agent) -> str:
    rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=24, wait_seconds=300)
    return str(rented["pod_id"])


async def begin(agent: Agent, then: str) -> str:
    """Let a job of a minute be followed by the removal of its pod, as `start_job` or `run_job` do; the pod's id."""
    if then == "remove":
        given: Row = {"gpu_type": "A100", "max_hours": 4, "max_usd_per_hour": 20.0}
        run = await agent.call("run_job", name="train", command="sleep 60", then=then, wait_seconds=300, **given)
        return str(run["pod_id"])
    pod_id = await rent(agent)
    await agent.call("start_job", pod="train", name="train", command="echo > /root/a; sleep 60", then=then)
    return pod_id


async def waits(agent: Agent, why: str) -> None:
    """Wait until the pod is listed with why its removal waits."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while why not in (await agent.call("list_pods"))["pods"][0].get("problem", ""):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("then", FOLLOWED)
async def test_what_follows_a_job_waits_for_a_command_of_another_server(
    account: Sandbox, at: Servers, then: str
) -> None:
    async with at() as agent, at() as other, asyncio.TaskGroup() as group:
        pod_id = await begin(agent, then)
        running = group.create_task(other.call("run_command", pod="train", command="sleep 500", timeout_seconds=3600))
        await at.at_work(pod_id)
        account.clock.advance(seconds=100)
        of = "The removal of the pod of run train" if then == "remove" else "backup_and_remove after job train"
        await waits(agent, f"{of} waits, since a command of run_command goes on")
        if then == "remove":
            seen = await agent.call("get_job", pod="train", name="train", wait_seconds=0)
            assert "remove waits, since a command of run_command goes on" in seen["next"]
            assert "bills" in seen["next"]
        assert len(living(account)) == 1
        assert not account.state()["backups"]
        account.clock.advance(seconds=500)
        assert (await running)["exit_code"] == 0
        await until_gone(account)


async def test_what_is_brought_during_the_last_backup_is_in_another_one(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    held = wire.hold("POST", "/pods/*/backup", "after the work")
    async with at(wire) as agent, at(wire) as other:
        await begin(agent, "backup_and_remove")
        await reached(account, held)
        await other.call("upload_files", pod="train", content="late", pod_path="/root/late")
        await other.call("download_files", pod="train", pod_path="/root/late")
        held.let_go()
        await until_gone(account)
    assert len(wire.sent("POST", "/pods/*/backup")) == 2
    assert len(wire.sent("DELETE", "/pods/*")) == 1


async def test_a_download_during_the_last_backup_needs_no_other_one(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    held = wire.hold("POST", "/pods/*/backup", "after the work")
    async with at(wire) as agent, at(wire) as other:
        await begin(agent, "backup_and_remove")
        await reached(account, held)
        await other.call("download_files", pod="train", pod_path="/root/a")
        held.let_go()
        await until_gone(account)
    assert len(wire.sent("POST", "/pods/*/backup")) == 1


async def test_commands_during_every_last_backup_keep_the_pod(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    async with at(wire) as agent, at(wire) as other:
        held = wire.hold("POST", "/pods/*/backup", "after the work")
        await begin(agent, "backup_and_remove")
        for _ in range(3):
            await reached(account, held)
            await other.call("run_command", pod="train", command="echo > /root/late")
            released, held = held, wire.hold("POST", "/pods/*/backup", "after the work")
            released.let_go()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while "failed: changed_while_saved" not in (await agent.call("list_pods"))["pods"][0].get("problem", ""):
                account.clock.advance(seconds=5)
                await asyncio.sleep(0.01)
    assert len(living(account)) == 1
    assert len(wire.sent("POST", "/pods/*/backup")) == 3


@pytest.mark.parametrize("tool", ["run_command", "start_job", "upload_files"])
async def test_nothing_begins_in_a_pod_whose_removal_is_being_ordered(account: Sandbox, at: Servers, tool: str) -> None:
    wire = Wire(account)
    held = wire.hold("DELETE", "/pods/*", "before the work")
    given: dict[str, Row] = {
        "run_command": {"command": "echo"},
        "start_job": {"command": "echo", "name": "late"},
        "upload_files": {"content": "late", "pod_path": "/root/late"},
    }
    async with at(wire) as agent, at(wire) as other:
        await begin(agent, "backup_and_remove")
        await reached(account, held)
        failure = await other.refused(tool, pod="train", **given[tool])
        assert failure.code == "pod_being_removed"
        assert "Nothing was done in it" in failure.text
        held.let_go()
        await until_gone(account)


async def test_a_restore_under_way_is_waited_for(account: Sandbox, at: Servers) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo > /root/a")
        saved = await agent.call("create_backup", pod="train", wait_seconds=600)
        await agent.call("start_job", pod="train", name="j", command="sleep 5", then="backup_and_remove")
        await agent.call(
            "restore_backup",
            backup_id=saved["backup"]["backup_id"],
            pods=["train"],
            path="/root/restored",
            wait_seconds=0,
        )
        account.clock.advance(seconds=5)
        await waits(agent, "backup_and_remove after job j waits, since a restore goes on")
        assert len(living(account)) == 1
        await until_gone(account)


async def test_an_idle_pod_in_which_another_server_works_stays(account: Sandbox, at: Servers) -> None:
    async with at() as agent, at() as other, asyncio.TaskGroup() as group:
        pod_id = await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        running = group.create_task(other.call("run_command", pod="train", command="sleep 900", timeout_seconds=3600))
        await at.at_work(pod_id)
        for _ in range(10):
            account.clock.advance(seconds=63)
            await at.settle()
        pod = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
        assert pod["kept_because"] == "a command of run_command goes on"
        account.clock.advance(seconds=900)
        assert (await running)["exit_code"] == 0
        for _ in range(8):
            account.clock.advance(seconds=63)
            await at.settle()
        assert not living(account)


async def test_what_a_command_left_in_the_background_is_waited_for_whichever_server_ran_it(
    sandbox: Sandbox, at: Servers, sshd: Sshd, tmp_path: Path, going_on: Path
) -> None:
    """The other server has a ledger of its own: the pod itself tells."""
    ledgers = [f"sqlite:///{tmp_path}/{name}.db" for name in ("ours", "others")]
    settings: Row = {"ssh_key_path": sshd.key_path}
    async with (
        agent_on(sandbox, transport=at_sshd(sandbox, sshd), state_url=ledgers[0], **settings) as agent,
        agent_on(sandbox, transport=at_sshd(sandbox, sshd), state_url=ledgers[1], **settings) as other,
    ):
        await rent(agent)
        loop = f"while [ -e {going_on} ]; do sleep 0.1; done"
        command = f"nohup setsid sh -c '{loop}' >/dev/null 2>&1 </dev/null & echo begun"
        await other.call("run_command", pod="train", command=command)
        await agent.call("start_job", pod="train", name="j", command="echo", then="backup_and_remove")
        await waits(agent, "waits, since something that a command of run_command left in the background runs on")
        assert len(living(sandbox)) == 1
        await other.call("run_command", pod="train", command=f"rm {going_on}")
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while living(sandbox):
                sandbox.clock.advance(seconds=1)
                await asyncio.sleep(0.05)


async def test_a_person_is_told_what_a_removal_ends(account: Sandbox, at: Servers) -> None:
    person = Person("no")
    async with at(person=person) as agent, at() as other, asyncio.TaskGroup() as group:
        pod_id = await rent(other)
        await other.call("start_job", pod="train", name="night", command="sleep 36000")
        running = group.create_task(other.call("run_command", pod="train", command="sleep 60"))
        await at.at_work(pod_id)
        refused = await agent.refused("remove_pod", pod="train")
        assert refused.code == "not_confirmed"
        assert "It ends what works in the pod: job night (since 20" in person.questions[0]
        assert ", a command of run_command (since 20" in person.questions[0]
        account.clock.advance(seconds=60)
        await running
    assert len(living(account)) == 1


@pytest.mark.parametrize("final_backup", [True, False])
async def test_where_nobody_is_asked_a_removal_tells_once_what_it_ends(
    account: Sandbox, at: Servers, final_backup: bool
) -> None:
    async with at() as agent, at() as other:
        await rent(other)
        await other.call("start_job", pod="train", name="night", command="echo > /root/a; sleep 36000")
        for _ in range(2):
            refused = await agent.refused("remove_pod", pod="train", final_backup=final_backup)
            assert refused.code == "pod_at_work"
            assert "and would end: in train (" in refused.text
            assert "job night (since 20" in refused.text
            assert "Nothing was changed. It bills $" in refused.text
            account.clock.advance(minutes=11)
        await agent.refused("remove_pod", pod="train", final_backup=final_backup)
        await other.call("start_job", pod="train", name="day", command="sleep 36000")
        refused = await agent.refused("remove_pod", pod="train", final_backup=final_backup)
        assert "job day" in refused.text
        removed = await agent.call("remove_pod", pod="train", final_backup=final_backup, wait_seconds=600)
        assert removed["outcome"] == "done"
    assert not living(account)


@pytest.mark.parametrize("is_run", [True, False])
async def test_a_removal_tells_that_what_a_job_made_is_not_saved_yet(
    account: Sandbox, at: Servers, is_run: bool
) -> None:
    wire = Wire(account)
    held = wire.hold("POST", "/pods/*/backup", "before the work")
    async with at(wire) as agent:
        if is_run:
            given: Row = {"gpu_type": "A100", "max_hours": 4, "max_usd_per_hour": 20.0, "wait_seconds": 300}
            await agent.call("run_job", name="train", command="sleep 60", then="backup_and_remove", **given)
        else:
            await begin(agent, "backup_and_remove")
        await reached(account, held)
        refused = await agent.refused("remove_pod", pod="train")
        assert refused.code == "pod_at_work"
        of = "of run train" if is_run else "after job train"
        assert f"backup_and_remove {of}, not done yet" in refused.text
        held.let_go()
    assert len(living(account)) == 1


async def test_what_is_brought_during_the_last_backup_of_a_removal_on_request_is_in_another_one(
    account: Sandbox, at: Servers
) -> None:
    wire = Wire(account)
    held = wire.hold("POST", "/pods/*/backup", "after the work")
    async with at(wire) as agent, at() as other, asyncio.TaskGroup() as group:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo > /root/a")
        removal = agent.call("remove_pod", pod="train", final_backup=True, wait_seconds=600)
        removing = group.create_task(removal)
        await held.reached()
        await other.call("upload_files", pod="train", content="late", pod_path="/root/late")
        held.let_go()
        assert (await removing)["outcome"] == "done"
    assert len(wire.sent("POST", "/pods/*/backup")) == 2


async def test_a_removal_on_request_gives_up_where_every_last_backup_is_outdated(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    async with at(wire) as agent, at() as other, asyncio.TaskGroup() as group:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo > /root/a")
        held = wire.hold("POST", "/pods/*/backup", "after the work")
        refusal = agent.refused("remove_pod", pod="train", final_backup=True, wait_seconds=600)
        refused = group.create_task(refusal)
        for _ in range(3):
            await held.reached()
            await other.call("upload_files", pod="train", content="late", pod_path="/root/late")
            released, held = held, wire.hold("POST", "/pods/*/backup", "after the work")
            released.let_go()
        failure = await refused
        assert failure.code == "final_backup_outdated"
        assert "The pod was not removed" in failure.text
    assert len(living(account)) == 1


@pytest.mark.parametrize("final_backup", [True, False])
async def test_a_backup_that_runs_is_refused_with_the_ways_out(
    account: Sandbox, at: Servers, final_backup: bool
) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo > /root/a")
        await agent.call("create_backup", pod="train", wait_seconds=0)
        refused = await agent.refused("remove_pod", pod="train", final_backup=final_backup, wait_seconds=0)
        assert refused.code == "backup_running"
        for way in ("get_backup", "schedule_pod_removal", "cancel_backup", "delete_backup_schedule", "ten minutes"):
            assert way in refused.text
    assert len(living(account)) == 1


async def test_what_a_model_was_told_of_says_nothing_of_what_begins_in_the_same_minute(
    account: Sandbox, at: Servers
) -> None:
    async with at() as agent, at() as other, asyncio.TaskGroup() as group:
        pod_id = await rent(other)
        for seconds in (5, 500):
            command = f"sleep {seconds}"
            running = group.create_task(other.call("run_command", pod="train", command=command, timeout_seconds=3600))
            await at.at_work(pod_id)
            assert (await agent.refused("remove_pod", pod="train")).code == "pod_at_work"
            account.clock.advance(seconds=seconds)
            await running
    assert len(living(account)) == 1


async def test_what_a_server_left_that_has_ended_is_told_before_a_removal(
    sandbox: Sandbox, sshd: Sshd, going_on: Path
) -> None:
    loop = f"while [ -e {going_on} ]; do sleep 0.1; done"
    command = f"nohup setsid sh -c '{loop}' >/dev/null 2>&1 </dev/null & echo begun"
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path) as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command=command)
        refused = await agent.refused("remove_pod", pod="train")
        assert refused.code == "pod_at_work"
        assert "something that a command of run_command left in the background" in refused.text
        rebooting = await agent.refused("reboot_pod", pod="train", wait_seconds=0)
        assert "To reboot the pod all the same" in rebooting.text
        assert (await agent.call("remove_pod", pod="train", wait_seconds=60))["outcome"] == "done"


async def test_nothing_begins_while_a_removal_on_request_is_ordered(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    held = wire.hold("DELETE", "/pods/*", "before the work")
    async with at(wire) as agent, at() as other, asyncio.TaskGroup() as group:
        await rent(agent)
        removing = group.create_task(agent.call("remove_pod", pod="train", wait_seconds=60))
        await held.reached()
        for tool, given in (
            ("run_command", {"command": "true"}),
            ("start_job", {"name": "late", "command": "true"}),
            ("upload_files", {"content": "late", "pod_path": "/root/late"}),
            ("create_backup", {"wait_seconds": 0}),
        ):
            refused = await other.refused(tool, pod="train", **given)
            assert refused.code == "pod_being_removed", (tool, refused.text)
        held.let_go()
        assert (await removing)["outcome"] == "done"
    assert not account.state()["backups"]


async def test_a_restore_that_goes_on_is_told_before_a_removal(account: Sandbox, at: Servers) -> None:
    person = Person("no")
    async with at() as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="mkdir -p /root/w; echo 1 > /root/w/a")
        saved = await agent.call("create_backup", pod="train", wait_seconds=600)
        given = {"backup_id": saved["backup"]["backup_id"], "pods": ["train"], "path": "/root/back"}
        [begun] = (await agent.call("restore_backup", **given, wait_seconds=0))["pods"]
        assert begun["outcome"] == "pending"
        refused = await agent.refused("remove_pod", pod="train", final_backup=True)
        assert refused.code == "pod_at_work"
        assert "restore " in refused.text
    async with at(person=person) as asked:
        await asked.refused("remove_pod", pod="train")
    assert "It ends what works in the pod: restore " in person.questions[0]


async def test_the_removal_of_a_cluster_tells_what_works_in_its_pods(account: Sandbox, at: Servers) -> None:
    person = Person("no")
    async with at() as agent:
        [offer, *_] = (await agent.call("list_clusters"))["offers"]
        nodes = [node["executor_id"] for node in offer["nodes"][:2]]
        rented = await agent.call("rent_cluster", name="many", executor_ids=nodes, hours=9)
        members = rented["pod_ids"]
        for pod_id in members:
            await agent.call("get_pod", pod=pod_id, wait_seconds=600)
        await agent.call("start_job", pod=members[1], name="night", command="sleep 36000")
        await agent.call("create_backup", pod=members[0], wait_seconds=0)
        async with at(person=person) as asked:
            await asked.refused("remove_cluster", cluster_id=rented["cluster_id"])
        refused = await agent.refused("remove_cluster", cluster_id=rented["cluster_id"])
        assert refused.code == "pod_at_work"
        assert "job night" in refused.text
        assert "backup " in refused.text
        assert len(living(account)) == 2
        await agent.call("remove_cluster", cluster_id=rented["cluster_id"], wait_seconds=60)
    assert not living(account)
    for said in ("It ends what works in the pod: job night", "A backup of it is running", "There is no backup of it."):
        assert said in person.questions[0]


async def test_a_removal_at_a_time_says_what_works_in_the_pod(account: Sandbox, at: Servers) -> None:
    person = Person("no")
    async with at() as agent:
        await rent(agent)
        await agent.call("start_job", pod="train", name="night", command="sleep 36000")
        scheduled = await agent.call("schedule_pod_removal", pod="train", hours_from_now=0.1)
    async with at(person=person) as asked:
        await asked.refused("schedule_pod_removal", pod="train", hours_from_now=0.1)
    assert "In it work now: job night (since 20" in scheduled["next"]
    assert "In it work now: job night (since 20" in person.questions[0]
