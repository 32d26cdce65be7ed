"""A pod whose GPUs are idle is removed as somebody asked, and never where that was not read or something works there.

Pods are the sandbox's own, over SSH; the clock is turned, and servers look at once.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Person
from tests.servers import hasten
from tests.wires import Wire, answering, ask, ask_as_person, living

_PATIENCE_SECONDS = 60
# A reading is due a minute after the last one, by a clock that servers know to the second.
_STEP_SECONDS = 63
TAKEN_OVER = "another server has taken it over"
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


async def rent(agent: Agent, **more: Any) -> str:
    wanted: Row = {"name": "train", "gpu_type": "A100", "hours": 24, "wait_seconds": 300}
    return str((await agent.call("rent_pod", **wanted | more))["pod_id"])


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 - what others do on their own
            await asyncio.sleep(0.002)


class Shell:
    """Somebody who logs in to the pod by himself, of whom no server of lium-mcp knows."""

    def __init__(self, account: Sandbox, key: Path) -> None:
        self._account, self._key = account, key

    async def __call__(self, command: str) -> None:
        [pod] = living(self._account)
        port = int(pod["ports_mapping"]["22"])
        given: Row = {"username": "root", "client_keys": [str(self._key)], "known_hosts": None, "config": None}
        async with asyncssh.connect("127.0.0.1", port, agent_path=None, **given) as connection:
            await connection.run(command, check=True)


@pytest.fixture
def shell(account: Sandbox, tmp_path: Path) -> Shell:
    return Shell(account, tmp_path / "key")


class Watch:
    """The watch that was set last, by its row of the ledger: a step of it is over when it is left for later."""

    def __init__(self, account: Sandbox, ledger: Path) -> None:
        self._account, self._ledger = account, ledger

    def _row(self) -> sqlite3.Row:
        with closing(sqlite3.connect(f"file:{self._ledger}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute("SELECT * FROM tasks WHERE kind = 'idle_watch' ORDER BY rowid DESC LIMIT 1")
            found: sqlite3.Row = rows.fetchone()
            return found

    @property
    def status(self) -> str:
        return str(self._row()["status"])

    @property
    def next_at(self) -> datetime:
        return _moment(self._row()["next_at"])

    def _rests(self) -> bool:
        row = self._row()
        is_left = row["lease_owner"] is None and _moment(row["next_at"]) > self._account.clock.now()
        return is_left or row["status"] != "open"

    async def minutes(self, minutes: int, *, step_seconds: int = _STEP_SECONDS) -> None:
        """Let so many minutes pass, with a reading before them and one in each, as long as the watch lasts."""
        await until(self._rests)
        for _ in range(minutes):
            self._account.clock.advance(seconds=step_seconds)
            await until(self._rests)


def _moment(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)


@pytest.fixture
def watch(account: Sandbox, tmp_path: Path) -> Watch:
    return Watch(account, tmp_path / "ledger.db")


async def idle_minutes(agent: Agent) -> int | None:
    rows = (await agent.call("list_pods"))["pods"]
    return rows[0].get("idle_minutes") if rows else None


async def test_an_idle_pod_is_removed_after_its_minutes_and_not_before(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        account.clock.advance(hours=1)
        schedule = await agent.call("schedule_pod_removal", pod="train", idle_minutes=10)
        assert schedule["idle_minutes"] == 10
        assert "final_backup" not in schedule
        assert "Only while a server of lium-mcp with this key runs" in schedule["next"]
        assert schedule["removal_at"], "the time that it had stays"
        assert await idle_minutes(agent) == 10
        read = await agent.call("get_pod", pod="train", wait_seconds=0)
        assert read["pod"]["idle_minutes"] == 10
        await watch.minutes(8)
        assert len(living(account)) == 1
        await watch.minutes(4)
        assert not living(account)
    assert len(wire.sent("DELETE", "/pods/*")) == 1
    assert account.state()["backups"] == []


async def test_a_job_is_work_also_where_it_uses_no_gpu(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await agent.call("start_job", pod="train", name="download", command="sleep 600")
        await watch.minutes(8)
        assert len(living(account)) == 1
        await watch.minutes(5)  # it ends in these
        assert len(living(account)) == 1
        await watch.minutes(5)
        assert not living(account)


async def test_gpus_at_work_keep_a_pod(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        command = "echo > train.py; nohup python3 train.py --steps 20 --step-seconds 60 > log 2>&1 &"
        await agent.call("run_command", pod="train", command=command)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(15)
        assert len(living(account)) == 1
        await watch.minutes(14)
        assert not living(account)


async def test_a_command_that_runs_is_work(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent, asyncio.TaskGroup() as group:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        running = group.create_task(agent.call("run_command", pod="train", command="sleep 500", timeout_seconds=3600))
        await watch.minutes(7)
        assert len(living(account)) == 1
        await watch.minutes(4)
        assert (await running)["exit_code"] == 0
        await watch.minutes(5)
        assert not living(account)


async def test_what_is_to_follow_a_job_is_left_to_do(account: Sandbox, at: Any, watch: Watch) -> None:
    account.add_fault("backup_fails", times=None)
    wire = Wire(account)
    wire.on("GET", "/backup-logs/*", answering(500))  # so that it cannot be done yet
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await agent.call("start_job", pod="train", name="j", command="echo > /root/a", then="backup")
        await watch.minutes(8)
        assert len(living(account)) == 1


@pytest.mark.parametrize("trouble", ["ssh", "lium", "reboot"])
async def test_what_could_not_be_read_begins_the_time_anew(
    account: Sandbox, at: Any, watch: Watch, trouble: str
) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=6)
        await watch.minutes(5)
        if trouble == "ssh":
            account.add_fault("ssh_drops", pod_name="train")
            account.add_fault("ssh_refuses", pod_name="train", times=3)
        elif trouble == "lium":
            wire.on("GET", "/pods/*", answering(500))  # whoever looks, until it behaves again
        else:
            await agent.call("reboot_pod", pod="train", wait_seconds=0)  # whoever waits turns the clock
        await watch.minutes(1)
        wire.behave()
        account.clear_faults()
        await watch.minutes(4)
        assert len(living(account)) == 1, "it was idle for ten minutes, of which one is not known"
        await watch.minutes(5)
        assert not living(account)


async def test_a_gap_in_the_readings_begins_the_time_anew(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=6)
        await watch.minutes(4)
        await watch.minutes(1, step_seconds=600)
        await watch.minutes(4)
        assert len(living(account)) == 1
        await watch.minutes(4)
        assert not living(account)


async def test_much_traffic_is_work(account: Sandbox, at: Any, watch: Watch, shell: Shell) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)

        async def moved(megabytes: int) -> None:
            figures = f"eth0: {megabytes}000000 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0"
            await shell(f"mkdir -p /proc/net; echo '{figures}' > /proc/net/dev")

        await moved(1)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        for minute in range(1, 7):
            await moved(1 + 100 * minute)
            await watch.minutes(1)
        assert len(living(account)) == 1
        await watch.minutes(7)
        assert not living(account)


async def test_a_process_that_holds_a_gpu_is_work_though_it_computes_nothing(
    account: Sandbox, at: Any, watch: Watch
) -> None:
    async with at() as agent:
        await rent(agent)
        command = "echo > train.py; nohup setsid python3 train.py --idle --steps 10 --step-seconds 60 > log 2>&1 &"
        await agent.call("run_command", pod="train", command=command)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(9)
        assert len(living(account)) == 1
        await watch.minutes(8)
        assert not living(account)


CPU_TIME = ["/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpuacct/cpuacct.usage"]


@pytest.mark.parametrize("file", CPU_TIME)
async def test_cpu_time_that_is_used_is_work(account: Sandbox, at: Any, watch: Watch, shell: Shell, file: str) -> None:
    async with at() as agent:
        await rent(agent)

        async def used(seconds: int) -> None:
            said = f"usage_usec {seconds}000000" if file.endswith("stat") else f"{seconds}000000000"
            await shell(f"mkdir -p /sys/fs/cgroup/cpuacct; echo > /sys/fs/cgroup/cgroup.events; echo '{said}' > {file}")

        await used(1000)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        for minute in range(1, 7):
            await watch.minutes(0)
            await used(1000 + 40 * minute)
            await watch.minutes(1)
        assert len(living(account)) == 1
        for minute in range(1, 5):
            await used(1240 + 5 * minute)
            await watch.minutes(1)
        assert len(living(account)) == 1
        await watch.minutes(2)
        assert not living(account)


async def test_the_cpu_time_of_a_whole_host_is_not_the_pods(
    account: Sandbox, at: Any, watch: Watch, shell: Shell
) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(0)
        for minute in range(5):
            await shell(f"mkdir -p /sys/fs/cgroup; echo 'usage_usec {minute}000000000' > /sys/fs/cgroup/cpu.stat")
            await watch.minutes(1)
        assert not living(account)


async def test_the_last_backup_comes_first(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo data > /root/a")
        schedule = await agent.call("schedule_pod_removal", pod="train", idle_minutes=5, final_backup=True)
        assert (schedule["idle_minutes"], schedule["final_backup"]) == (5, True)
        await watch.minutes(6)
        assert not living(account)
    assert [run["status"] for run in account.state()["backups"]] == ["COMPLETED"]
    assert len(wire.sent("POST", "/pods/*/backup")) == 1


@pytest.mark.parametrize("fault", ["backup_fails", "backup_partial"])
async def test_a_pod_stays_where_its_last_backup_fails_and_that_is_said(
    account: Sandbox, at: Any, watch: Watch, fault: Any
) -> None:
    account.add_fault(fault, message="disk on fire", times=None)
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo data > /root/a")
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5, final_backup=True)
        for attempts in (1, 2):
            await watch.minutes(5)
            assert len(wire.sent("POST", "/pods/*/backup")) == attempts
            await watch.minutes(1)
            shown = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
            (warning,) = shown["warnings"]
            assert (await agent.call("list_pods"))["pods"][0]["problem"] == warning
            assert "Its removal when idle failed at" in warning
            assert "is tried again" in warning
            assert shown["final_backup"] is True
            assert timedelta(minutes=27) < watch.next_at - account.clock.now() <= timedelta(minutes=30)
            await watch.minutes(1, step_seconds=30 * 60)
            assert len(wire.sent("POST", "/pods/*/backup")) == attempts
        await watch.minutes(5)
        assert len(wire.sent("POST", "/pods/*/backup")) == 3
        assert watch.status == "failed"
        assert await idle_minutes(agent) is None
        assert len(living(account)) == 1
        (said,) = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["warnings"]
        assert "It is not removed when idle any more" in said
        assert "tried 3 times" in said
        assert (await agent.call("list_pods"))["pods"][0]["problem"] == said
    assert wire.sent("DELETE", "/pods/*") == []


async def test_a_job_that_starts_during_the_last_backup_keeps_the_pod(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    held = wire.hold("POST", "/pods/*/backup", "after the work")
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5, final_backup=True)
        await watch.minutes(4)
        account.clock.advance(seconds=_STEP_SECONDS)
        await held.reached()
        await agent.call("start_job", pod="train", name="late", command="sleep 100000")
        held.let_go()
        await watch.minutes(1, step_seconds=1)
        (warning,) = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["warnings"]
        assert "It was not idle all the time while its last backup was made (" in warning
        assert "job" in warning
        assert "so it stays" in warning
        assert "is stored and bills" in warning
        await watch.minutes(10)
        await watch.minutes(1, step_seconds=1800)
        assert len(living(account)) == 1
        assert await idle_minutes(agent) == 5


async def test_work_in_every_last_backup_ends_the_removal_after_three(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5, final_backup=True)
        for attempt in (1, 2, 3):
            held = wire.hold("POST", "/pods/*/backup", "after the work")
            await watch.minutes(4)
            account.clock.advance(seconds=_STEP_SECONDS)
            await held.reached()
            await agent.call("start_job", pod="train", name=f"late-{attempt}", command="sleep 300")
            held.let_go()
            await watch.minutes(1, step_seconds=1)
            await watch.minutes(1, step_seconds=1800)
        assert watch.status == "failed"
        (said,) = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["warnings"]
        assert "It is not removed when idle any more: It was not idle all the time" in said
        assert "tried 3 times" in said
        await watch.minutes(20)
    assert len(living(account)) == 1
    assert len(wire.sent("POST", "/pods/*/backup")) == 3


@pytest.mark.parametrize("has_schedule", [True, False])
async def test_a_narrower_backup_path_is_warned_of_where_a_removal_rests_on_all(
    account: Sandbox, at: Any, has_schedule: bool
) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto") as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="mkdir -p /root/part; echo data > /root/part/a")
        if has_schedule:
            await agent.call("set_backup_schedule", pod="train")
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30, final_backup=True)
        await agent.call("start_job", pod="train", name="j", command="sleep 9000", then="backup_and_remove")
        asked = len(person.questions)
        narrowed = await agent.call("set_backup_schedule", pod="train", path="/root/part")
        needs = "needs a backup of all of /root, and fails with this path: the pod then stays, and bills."
        for said in (f"Its removal when idle {needs}", f"backup_and_remove after job j {needs}"):
            assert said in narrowed["warnings"]
            assert said in person.questions[asked]
        widened = await agent.call("set_backup_schedule", pod="train", path="/root")
        assert not [said for said in widened.get("warnings", ()) if needs in said]


async def test_a_backup_of_a_part_that_makes_a_schedule_warns_too(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="mkdir -p /root/part; echo data > /root/part/a")
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30, final_backup=True)
        made = await agent.call("create_backup", pod="train", path="/root/part")
        assert any(said.startswith("Its removal when idle needs a backup of all of /root") for said in made["warnings"])


async def shown_of(agent: Agent) -> tuple[int | None, str | None]:
    shown = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
    return shown.get("idle_for_minutes"), shown.get("kept_because")


async def test_how_long_a_pod_was_idle_and_what_keeps_it_are_shown(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        assert await shown_of(agent) == (None, None)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30)
        await watch.minutes(4)
        assert await shown_of(agent) == (4, None)
        await agent.call("start_job", pod="train", name="download", command="sleep 100")
        await watch.minutes(1)
        assert await shown_of(agent) == (None, "job download runs")
        await watch.minutes(2)
        await agent.call(
            "run_command", pod="train", command="echo > train.py; nohup python3 train.py --steps 9 > log 2>&1 &"
        )
        await watch.minutes(1)
        idle_for, why = await shown_of(agent)
        assert idle_for is None
        assert why is not None
        assert why.startswith("a GPU is at ")
        await watch.minutes(6)
        account.add_fault("ssh_drops", pod_name="train")
        account.add_fault("ssh_refuses", pod_name="train", times=3)
        await watch.minutes(1)
        account.clear_faults()
        idle_for, why = await shown_of(agent)
        assert idle_for is None
        assert why is not None
        assert why.startswith("it could not be read (")
        wire.on("GET", "/pods/*", answering(500))
        await watch.minutes(1)
        wire.behave()
        assert await shown_of(agent) == (None, "Lium did not answer")
        wire.on("GET", "/pods/*/restore-logs", answering(200, [{"id": "r", "status": "RUNNING"}]))
        await watch.minutes(31)
        idle_for, why = await shown_of(agent)
        assert idle_for is not None
        assert idle_for >= 30
        assert why == "a restore goes on"


async def test_a_watch_that_nobody_keeps_is_shown_as_such(
    account: Sandbox, at: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30)
        await watch.minutes(4)
    account.clock.advance(minutes=20)
    monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_LOOK_SECONDS", 600.0)
    async with at() as agent:
        shown = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
    assert "idle_for_minutes" not in shown
    assert shown["kept_because"].startswith("no server has looked since ")


async def test_cancelling_ends_it_and_so_does_another_choice(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        changed = await agent.call("schedule_pod_removal", pod="train", idle_minutes=60, hours_from_now=10)
        assert changed["idle_minutes"] == 60
        assert 9.9 < changed["hours_left"] <= 10.1
        assert (await agent.call("schedule_pod_removal", pod="train", hours_from_now=5))["idle_minutes"] == 60
        cancelled = await agent.call("cancel_pod_removal", pod="train")
        assert not {"idle_minutes", "removal_at"} & set(cancelled)
        assert await idle_minutes(agent) is None
        await watch.minutes(10)
        assert len(living(account)) == 1
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await agent.call("remove_pod", pod="train")
        await rent(agent)
        assert await idle_minutes(agent) is None


async def test_a_limit_on_the_life_of_pods_keeps_nobody_from_cancelling_it(
    account: Sandbox, at: Any, watch: Watch
) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto", max_hours=48) as agent:
        await rent(agent)
        assert (await agent.refused("cancel_pod_removal", pod="train")).code
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        kept = await agent.call("cancel_pod_removal", pod="train")
        assert "idle_minutes" not in kept
        assert kept["removal_at"]
        assert "Its removal time stays" in kept["next"]
    asked = person.questions[-1]
    assert asked.startswith('Cancel the removal of pod "train" (')
    assert "once it was idle for 5 minutes? Its removal at 20" in asked
    assert asked.endswith(" UTC stays.")


async def test_a_person_is_asked_about_every_end_that_is_cancelled(account: Sandbox, at: Any) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto") as agent:
        await rent(agent)
        removal_at = (await agent.call("list_pods"))["pods"][0]["removal_at"]
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30, final_backup=True)
        await agent.call("cancel_pod_removal", pod="train")
        asked = person.questions[-1]
        time = removal_at[:16].replace("T", " ")
        assert f'at {time} UTC and once it was idle for 30 minutes, after a last backup of "/root"?' in asked
        assert "It bills until somebody removes it." in asked
        before = len(person.questions)
        none = await agent.call("cancel_pod_removal", pod="train")
        assert none["next"] == "No removal was set. It bills until remove_pod or schedule_pod_removal."
        assert len(person.questions) == before
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=20)
        await agent.call("cancel_pod_removal", pod="train", only_when_idle=True)
        assert person.questions[-1].endswith("once it was idle for 20 minutes? It bills until somebody removes it.")


async def test_a_person_is_asked_what_idle_means_and_what_is_lost(account: Sandbox, at: Any, watch: Watch) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto") as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30)
        only_idle = person.questions[-1]
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30, hours_from_now=3, final_backup=True)
        both = person.questions[-1]
    assert only_idle.startswith('Let lium-mcp remove pod "train" (')
    for part in (
        "once it was idle for 30 minutes?",
        "Its disk and local volume are lost then",
        "below 5 %",
        "Only while a server of lium-mcp with this key runs",
    ):
        assert part in only_idle
    assert "in 3 hours, and let lium-mcp remove it once it was idle for 30 minutes? It costs $" in both
    assert "When it is idle: Its local volume is backed up first, and it stays if that fails." in both


async def test_the_last_backup_that_was_set_stays_unless_it_is_refused(account: Sandbox, at: Any) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto") as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30, final_backup=True)
        kept = await agent.call("schedule_pod_removal", pod="train", idle_minutes=700)
        stays = "The last backup that was set earlier stays: it is removed only after it."
        assert (kept["idle_minutes"], kept["final_backup"]) == (700, True)
        assert kept["next"].startswith(stays)
        assert f"{stays} When it is idle: Its local volume is backed up first" in person.questions[-1]
        assert "Its disk and local volume are lost then" not in person.questions[-1]
        dropped = await agent.call("schedule_pod_removal", pod="train", idle_minutes=700, final_backup=False)
        gone = "The last backup that was set earlier is not taken any more."
        assert "final_backup" not in dropped
        assert dropped["next"].startswith(gone)
        assert gone in person.questions[-1]
        again = await agent.call("schedule_pod_removal", pod="train", idle_minutes=60)
        assert "final_backup" not in again
        assert "The last backup" not in again["next"]


async def test_nobody_who_says_no_has_a_pod_removed(account: Sandbox, at: Any, watch: Watch) -> None:
    async with at(person=Person("yes", "no"), confirm="auto") as agent:
        await rent(agent)
        await agent.refused("schedule_pod_removal", pod="train", idle_minutes=30)
        assert await idle_minutes(agent) is None


REFUSED: list[tuple[Row, str]] = [
    ({}, "Give hours_from_now or idle_minutes"),
    ({"hours_from_now": 2, "final_backup": True}, "final_backup goes with idle_minutes"),
    ({"idle_minutes": 4}, "idle_minutes"),
    ({"idle_minutes": 0}, "idle_minutes"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED)
async def test_what_makes_no_sense_is_refused(account: Sandbox, at: Any, given: Row, said: str) -> None:
    async with at() as agent:
        await rent(agent)
        assert said in (await agent.refused("schedule_pod_removal", pod="train", **given)).text
        assert await idle_minutes(agent) is None


async def test_a_pod_whose_gpus_cannot_be_read_is_refused_plainly(account: Sandbox, at: Any, watch: Watch) -> None:
    account.add_fault("comes_out_short", pod_name="train", gpus=1)
    async with at() as agent:
        await rent(agent, gpu_count=2)
        refused = await agent.refused("schedule_pod_removal", pod="train", idle_minutes=5)
        assert refused.code == "idle_not_readable"
        assert "2 GPUs are billed, and nvidia-smi reaches 1" in refused.text
    async with at(toolsets=frozenset({"pods"})) as agent:
        refused = await agent.refused("schedule_pod_removal", pod="train", idle_minutes=5)
        assert refused.code == "idle_not_watched"


async def test_a_server_that_takes_over_counts_on(account: Sandbox, at: Any, watch: Watch) -> None:
    first, second = Wire(account), Wire(account)
    async with at(first) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=10)
        await watch.minutes(6)
    async with at(second):
        await watch.minutes(6)
        assert not living(account)
    assert len(second.sent("DELETE", "/pods/*")) == 1


async def test_a_server_killed_in_the_middle_removes_nothing_and_another_goes_on(
    account: Sandbox, at: Any, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    slow, quick = Wire(account), Wire(account)
    async with at(slow) as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="echo data > /root/a")
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5, final_backup=True)
        await watch.minutes(3)
        held = slow.hold("GET", "/pods/*")  # it hangs in a reading, and its lease runs out
        account.clock.advance(seconds=_STEP_SECONDS)
        await held.reached()
        account.clock.advance(seconds=95)
        async with at(quick):
            await watch.minutes(8)
            assert not living(account)
            held.let_go()
            await until(lambda: TAKEN_OVER in caplog.text)
    assert (len(slow.sent("DELETE", "/pods/*")), len(quick.sent("DELETE", "/pods/*"))) == (0, 1)
    assert len(account.state()["backups"]) == 1


@pytest.mark.parametrize("moment", ["before the work", "after the work"])
async def test_a_server_killed_while_it_orders_the_removal_is_followed_by_another(
    account: Sandbox, at: Any, watch: Watch, caplog: pytest.LogCaptureFixture, moment: Any
) -> None:
    slow, quick = Wire(account), Wire(account)
    held = slow.hold("DELETE", "/pods/*", moment)
    async with at(slow) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(4)
        account.clock.advance(seconds=_STEP_SECONDS)
        await held.reached()
        if moment == "before the work":
            refused = await agent.refused("cancel_pod_removal", pod="train")
            assert refused.code == "removal_ordered"
            account.clock.advance(seconds=95)
        else:
            account.clock.advance(seconds=200)
        async with at(quick) as other:
            await watch.minutes(5)
            assert not living(account)
            assert await idle_minutes(other) is None
            held.let_go()
            await until(lambda: TAKEN_OVER in caplog.text)
    assert len(quick.sent("DELETE", "/pods/*")) == (1 if moment == "before the work" else 0)
    assert [pod["close_reason"] for pod in account.state()["pods"]] == ["user_initiated"]


async def test_a_pod_that_was_removed_elsewhere_ends_its_watch(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        pod_id = await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await ask(account, "DELETE", f"/pods/{pod_id}")
        await watch.minutes(6)
        assert watch.status == "gone"
    assert wire.sent("DELETE", "/pods/*") == []


async def test_servers_that_race_remove_once(account: Sandbox, at: Any, watch: Watch) -> None:
    one, other = Wire(account), Wire(account)
    async with at(one) as agent, at(other):
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(9)
        assert not living(account)
    assert len(one.sent("DELETE", "/pods/*")) + len(other.sent("DELETE", "/pods/*")) == 1


async def test_another_key_watches_nothing(account: Sandbox, at: Any, watch: Watch) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
    body = {"name": "other", "scopes": ["read", "rent", "manage"], "pod_visibility": "account"}
    key = str((await ask_as_person(account, "POST", "/keys", body))["key"])
    account.clock.advance(minutes=1)
    began = account.clock.now()
    wire = Wire(account)
    async with at(wire, api_key=key):
        await until(lambda: watch.next_at > began - timedelta(seconds=5))  # it has had the task, and given it back
    assert wire.sent("GET", "/pods/*") == []
    assert len(living(account)) == 1


async def test_one_answer_that_there_is_no_such_pod_proves_nothing(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        wire.on("GET", "/pods/*", answering(404, {"message": "Pod not found", "status_code": 404}), times=1)
        await watch.minutes(3)
        assert await idle_minutes(agent) == 5
        await watch.minutes(6)
        assert not living(account)


async def test_a_restore_under_way_is_not_cut_off(account: Sandbox, at: Any, watch: Watch) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        running = [{"id": "r", "status": "RUNNING", "pod_id": await rent(agent)}]
        wire.on("GET", "/pods/*/restore-logs", answering(200, running))
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=5)
        await watch.minutes(8)
        assert len(living(account)) == 1
        wire.behave()
        await watch.minutes(1)
        assert not living(account)


async def test_what_is_cancelled_is_named_and_the_removal_time_can_stay(
    account: Sandbox, at: Any, watch: Watch
) -> None:
    async with at() as agent:
        await rent(agent)
        await agent.call("schedule_pod_removal", pod="train", hours_from_now=3, idle_minutes=30)
        kept = await agent.call("cancel_pod_removal", pod="train", only_when_idle=True)
        assert "It is not removed when idle any more." in kept["next"]
        assert kept["removal_at"]
        assert await idle_minutes(agent) is None
        await agent.call("schedule_pod_removal", pod="train", idle_minutes=30)
        both = await agent.call("cancel_pod_removal", pod="train")
        assert f"It was to be removed at {kept['removal_at']} and when idle, and is not any more." in both["next"]
        assert "removal_at" not in both
        none = await agent.call("cancel_pod_removal", pod="train", only_when_idle=True)
        assert "No removal when idle was set." in none["next"]
