"""What follows jobs belongs to the account: any server of it does it, one at a time, and nobody drops another's.

Pods are the sandbox's own, over SSH; the clock is turned.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.cli.rentals import list_rentals
from lium_mcp.rentals import LazyLedger
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.postgres import Postgres
from tests.servers import Servers, hasten
from tests.wires import Wire, answering, ask_as_person, living

_PATIENCE_SECONDS = 60


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch, pause_seconds=0.1)


@pytest.fixture
def shared_ledger(state_url: str) -> str:
    return state_url


async def other_key(account: Sandbox, visibility: str = "own") -> str:
    body = {"name": "other", "scopes": ["read", "rent", "manage"], "pod_visibility": visibility}
    return str((await ask_as_person(account, "POST", "/keys", body))["key"])


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - what others do on their own
            await asyncio.sleep(0.05)


async def until_done(capsys: pytest.CaptureFixture[str], state_url: str) -> None:
    """Wait until a task is written to be done: what it orders comes before."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while "done" not in await listed(capsys, state_url):  # noqa: ASYNC110 - what others do on their own
            await asyncio.sleep(0.1)


async def start_training(agent: Agent, then: str = "backup_and_remove", seconds: int = 60) -> str:
    rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=24, wait_seconds=300)
    started = await agent.call("start_job", pod="train", name="j", command=f"sleep {seconds}", then=then)
    assert started["job"]["status"] == "running"
    return str(rented["pod_id"])


async def listed(capsys: pytest.CaptureFixture[str], state_url: str) -> str:
    """What the person who runs the servers is shown of all tasks."""
    capsys.readouterr()
    ledger = LazyLedger(state_url)
    assert await list_rentals(ledger, all_of_them=True) == 0
    await ledger.aclose()
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if "follow_up" in line)


def backups(wire: Wire) -> int:
    return len(wire.sent("POST", "/pods/*/backup"))


async def test_a_server_whose_key_is_not_shown_the_pod_drops_nothing(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with at() as maker:
        await start_training(maker)
    account.clock.advance(minutes=5)
    blind = Wire(account)
    async with at(blind, api_key=await other_key(account)):
        await until(lambda: blind.sent("GET", "/pods/*"))
        await asyncio.sleep(0.3)
        assert len(blind.sent("GET", "/pods/*")) == 1  # it leaves it to others then
        account.clock.advance(minutes=5)
        assert len(living(account)) == 1
        wire = Wire(account)
        async with at(wire):
            await until(lambda: not living(account))
            await until_done(capsys, state_url)
    assert (backups(wire), len(wire.sent("DELETE", "/pods/*"))) == (1, 1)
    assert (backups(blind), len(blind.sent("DELETE", "/pods/*"))) == (0, 0)


async def test_a_server_with_another_key_that_is_shown_the_pod_takes_over(account: Sandbox, at: Servers) -> None:
    async with at() as maker:
        await start_training(maker)
    account.clock.advance(minutes=5)
    wire = Wire(account)
    async with at(wire, api_key=await other_key(account, "account")):
        await until(lambda: not living(account))
    assert (backups(wire), len(wire.sent("DELETE", "/pods/*"))) == (1, 1)


async def test_servers_that_race_take_one_backup_and_remove_once(account: Sandbox, at: Servers) -> None:
    wires = [Wire(account) for _ in range(3)]
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(at(wire)) for wire in wires]
        await start_training(agents[0])
        for agent in agents:  # each of them knows of it
            await agent.call("get_job", pod="train", name="j", wait_seconds=0)
        account.clock.advance(minutes=2)
        await until(lambda: not living(account))
        await at.settle()
    assert sum(backups(wire) for wire in wires) == 1
    assert sum(len(wire.sent("DELETE", "/pods/*")) for wire in wires) == 1


@pytest.mark.parametrize("written", [True, False])
async def test_a_server_that_lost_its_lease_in_the_middle_does_nothing_more(
    account: Sandbox, at: Servers, written: bool
) -> None:
    slow, quick = Wire(account), Wire(account)
    held = slow.hold("GET", "/backup-logs/*") if written else slow.hold("POST", "/pods/*/backup", "after the work")
    async with at(slow) as maker:
        await start_training(maker)
        account.clock.advance(minutes=2)
        await held.reached()
        account.clock.advance(seconds=60)
        async with at(quick):
            await asyncio.sleep(0.3)
            assert backups(quick) == len(quick.sent("GET", "/backup-logs/*")) == 0  # the lease holds
            account.clock.advance(seconds=60)
            await until(lambda: not living(account))
            held.let_go()
            await asyncio.sleep(0.3)
    assert (backups(slow), len(slow.sent("DELETE", "/pods/*"))) == (1, 0)
    assert (backups(quick), len(quick.sent("DELETE", "/pods/*"))) == (0, 1)
    assert len(account.state()["backups"]) == 1


async def test_nothing_is_removed_while_the_ledger_cannot_be_asked(
    account: Sandbox, tmp_path: Path, postgres: Postgres
) -> None:
    wire = Wire(account)
    held = wire.hold("GET", "/backup-logs/*")
    with postgres.database() as url:
        async with agent_on(account, transport=wire, ssh_key_path=tmp_path / "key", state_url=url) as agent:
            await start_training(agent)
            account.clock.advance(minutes=2)
            await held.reached()
            postgres.close(url)
            held.let_go()
            account.clock.advance(minutes=5)
            await asyncio.sleep(2)
            assert wire.sent("DELETE", "/pods/*") == []
            postgres.open(url)
            await until(lambda: not living(account))
    assert (backups(wire), len(wire.sent("DELETE", "/pods/*"))) == (1, 1)


async def test_a_backup_that_ran_before_the_job_ended_is_not_the_last_one(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await start_training(agent)
        account.clock.advance(seconds=50)
        early = await agent.call("create_backup", pod="train", wait_seconds=0)
        # A list that lacks what runs must not make it look new.
        wire.on("GET", "/backup-logs/pod/*", answering(200, []), times=1)
        account.clock.advance(seconds=15)
        await until(lambda: backups(wire) > 1)
        assert len(living(account)) == 1
        account.clock.advance(minutes=20)
        await until(lambda: not living(account))
    later = [row for row in account.state()["backups"] if row["id"] != early["backup"]["backup_id"]]
    assert [row["status"] for row in later] == ["COMPLETED"]


async def test_a_server_whose_key_may_not_do_it_leaves_it_to_one_that_may(account: Sandbox, at: Servers) -> None:
    async with at() as maker:
        await start_training(maker)
    account.clock.advance(minutes=2)
    weak, wire = Wire(account), Wire(account)
    body = {"name": "weak", "scopes": ["read"], "pod_visibility": "account"}
    key = str((await ask_as_person(account, "POST", "/keys", body))["key"])
    async with at(weak, api_key=key):
        await until(lambda: weak.sent("GET", "/backup-logs/pod/*"))
        await asyncio.sleep(0.5)
        assert len(living(account)) == 1
        async with at(wire):
            await until(lambda: not living(account))
    assert len(wire.sent("DELETE", "/pods/*")) == 1
    assert weak.sent("DELETE", "/pods/*") == []


async def problem_of(agent: Agent) -> str:
    return str((await agent.call("list_pods"))["pods"][0].get("problem"))


@pytest.mark.parametrize(
    ("fault", "code"), [("backup_fails", "final_backup_failed"), ("backup_partial", "final_backup_partial")]
)
async def test_what_fails_is_said_on_the_pod_and_in_the_ledger(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str], fault: str, code: str
) -> None:
    account.add_fault(fault, message="disk on fire", times=None)
    async with at() as agent:
        await start_training(agent)
        account.clock.advance(minutes=2)
        for attempt in (1, 2):  # each is stored and billed
            task = await at.task(lambda task: task.attempts == attempt and task.lease_owner is None)  # noqa: B023
            assert task.next_at - account.clock.now() > timedelta(minutes=2)
            assert len(account.state()["backups"]) == attempt
            account.clock.advance(minutes=4)
        await at.settle()
        assert (await agent.call("get_job", pod="train", name="j"))["job"]["problem"] == code
        assert len(account.state()["backups"]) == 3
        said = await problem_of(agent)
        assert said.startswith(f"backup_and_remove after job j failed: {code}. It stays, and bills")
        assert (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["warnings"] == [said]
        assert len(living(account)) == 1
    shown = await listed(capsys, state_url)
    assert "failed" in shown
    assert code in shown


async def test_one_answer_that_there_is_no_such_pod_proves_nothing(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = Wire(account)
    async with at(wire) as maker:
        await start_training(maker)
        wire.on("GET", "/pods/*", answering(404, {"message": "Pod not found", "status_code": 404}), times=1)
        seen = len(wire.sent("GET", "/pods/*"))
        account.clock.advance(minutes=2)
        await until(lambda: len(wire.sent("GET", "/pods/*")) > seen)
        account.clock.advance(minutes=2)
        await until(lambda: not living(account))
        await until_done(capsys, state_url)


async def test_a_pod_that_is_gone_for_good_ends_the_task_which_is_said(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = Wire(account)
    async with at(wire) as maker:
        pod_id = await start_training(maker, seconds=3600)
        for path in (f"/pods/{pod_id}", f"/pods/{pod_id}/record"):
            wire.on("GET", path, answering(404, {"message": "Pod not found", "status_code": 404}))
        seen = len(wire.sent("GET", "/pods/*"))
        await until(lambda: len(wire.sent("GET", "/pods/*")) > seen + 2)
        assert "open" in await listed(capsys, state_url)
        account.clock.advance(seconds=61)
        seen = len(wire.sent("GET", "/pods/*"))
        await until(lambda: len(wire.sent("GET", "/pods/*")) > seen)
        await at.settle()
    shown = await listed(capsys, state_url)
    assert "gone" in shown
    assert "no such pod" in shown


async def test_a_pod_that_its_record_says_is_not_removed_does_not_end_the_task(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wire = Wire(account)
    async with at(wire) as maker:
        pod_id = await start_training(maker, seconds=3600)
        wire.on("GET", f"/pods/{pod_id}", answering(404, {"message": "Pod not found", "status_code": 404}))
        seen = len(wire.sent("GET", "/pods/*"))
        await until(lambda: len(wire.sent("GET", "/pods/*")) > seen + 2)
        account.clock.advance(seconds=61)
        await until(lambda: wire.sent("GET", "/pods/*/record"))
        seen = len(wire.sent("GET", "/pods/*"))
        await until(lambda: len(wire.sent("GET", "/pods/*")) > seen)  # the step after that
        assert "open" in await listed(capsys, state_url)
        wire.behave()
        account.clock.advance(hours=1)
        await until_done(capsys, state_url)
    assert living(account) == []


async def test_a_job_is_not_started_if_what_follows_it_cannot_be_kept(account: Sandbox, at: Servers) -> None:
    async with at() as renter:
        await renter.call("rent_pod", name="train", gpu_type="A100", hours=24, wait_seconds=300)
    async with at(state_url="sqlite:////proc/nowhere/ledger.db") as agent:
        failure = await agent.refused("start_job", pod="train", name="j", command="true", then="backup")
        assert failure.code == "follow_up_not_kept"
        assert (await agent.call("get_job", pod="train"))["jobs"] == []
        assert (await agent.call("start_job", pod="train", name="j", command="true"))["job"]["job"] == "j"


async def test_a_job_that_was_refused_leaves_no_task(
    account: Sandbox, at: Servers, state_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with at() as agent:
        await start_training(agent, then="nothing", seconds=3600)
        refused = await agent.refused("start_job", pod="train", name="j", command="true", then="backup_and_remove")
        assert refused.code == "job_exists"
    assert "open" not in await listed(capsys, state_url)


async def test_files_of_an_earlier_version_are_taken_up_once(account: Sandbox, at: Servers, tmp_path: Path) -> None:
    address: dict[str, Any] = {"base_url": "https://lium.example/api"}  # at a loopback address nothing is kept on disk
    folder = Path.home() / ".local" / "state" / "lium-mcp" / "follow-ups"
    async with at(**address, state_url=f"sqlite:///{tmp_path / 'unshared.db'}") as maker:
        pod_id = await start_training(maker, then="backup")
    account.clock.advance(minutes=2)
    folder.mkdir(parents=True)
    (folder / "0.json").write_text(json.dumps({"pod_id": pod_id, "job": "j"}))
    (folder / "1.json").write_text("{")
    blind, wire = Wire(account), Wire(account)
    async with at(blind, **address, api_key=await other_key(account)):
        await until(lambda: blind.sent("GET", "/pods/*"))
        await asyncio.sleep(0.5)
    assert sorted(path.name for path in folder.iterdir()) == ["0.json", "1.json"]  # another server's
    async with at(wire, **address) as taking_up:
        await until(lambda: sorted(path.name for path in folder.iterdir()) == ["1.json"])
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while "backup_id" not in (await taking_up.call("get_job", pod="train", name="j"))["job"]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert (backups(wire), len(living(account))) == (1, 1)


async def test_a_ledger_in_memory_does_as_well(account: Sandbox, at: Servers) -> None:
    wire = Wire(account)
    async with at(wire, state_url="sqlite://") as agent:
        await start_training(agent)
        account.clock.advance(minutes=2)
        await until(lambda: not living(account))
    assert (backups(wire), len(wire.sent("DELETE", "/pods/*"))) == (1, 1)


async def test_a_server_with_nothing_to_do_makes_no_ledger_and_asks_nothing(
    account: Sandbox, at: Servers, tmp_path: Path
) -> None:
    wire, ledger = Wire(account), tmp_path / "none.db"
    async with at(wire, state_url=f"sqlite:///{ledger}"):
        await asyncio.sleep(1)
    assert (ledger.exists(), wire.requests) == (False, [])


async def test_no_job_starts_whose_last_backup_would_lack_a_part(account: Sandbox, at: Servers) -> None:
    async with at() as agent:
        await agent.call("rent_pod", name="train", gpu_type="RTX4090", hours=9, wait_seconds=300)
        await agent.call("set_backup_schedule", pod="train", path="/root/notebooks")
        job = {"pod": "train", "command": "true", "name": "j"}
        refused = await agent.refused("start_job", **job, then="backup_and_remove")
        assert refused.code == "backup_partial"
        assert "path=/root," in refused.text
        assert (await agent.call("get_job", pod="train"))["jobs"] == []


@pytest.mark.parametrize(("command", "outcome", "exit_code"), [("sleep 60", "done", 0), ("exit 3", "failed", 3)])
async def test_what_came_of_a_job_is_told_after_its_pod_is_gone(
    account: Sandbox,
    at: Any,
    state_url: str,
    capsys: pytest.CaptureFixture[str],
    command: str,
    outcome: str,
    exit_code: int,
) -> None:
    async with at() as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=24, wait_seconds=300)
        await agent.call("start_job", pod="train", name="j", command=command, then="backup_and_remove")
        account.clock.advance(minutes=2)
        await until(lambda: not living(account))
        await until_done(capsys, state_url)
        account.clock.advance(minutes=10)
    async with at() as agent:
        for named in ("train", rented["pod_id"]):
            seen = await agent.call("get_job", pod=named, name="j", wait_seconds=0)
            assert (seen["outcome"], seen["pod_id"], seen["job"]["exit_code"]) == (outcome, rented["pod_id"], exit_code)
            assert seen["job"]["then"] == "backup_and_remove"
            assert f"pod removed after backup {seen['job']['backup_id']}" in seen["next"]
            assert [row["job"] for row in (await agent.call("get_job", pod=named))["jobs"]] == ["j"]
            for tool, name in (("get_job", "other"), ("stop_job", "j")):
                refused = await agent.refused(tool, pod=named, name=name)
                assert refused.code == "pod_not_found"
                assert f"it was {rented['pod_id']}, removed" in refused.text
