"""One pod for one job in one call: what comes of it, and what follows, through our server over the sandbox's pods."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.container.commands import PROGRAMS
from tests.harness import Agent, Person
from tests.servers import hasten
from tests.sshd import Sshd, at_sshd
from tests.wires import (
    Act,
    Hold,
    Moment,
    Wire,
    answering,
    ask,
    ask_as_person,
    drop,
    editing,
    living,
    losing_the_answer,
    on_rents,
    sent_rents,
)

Answer = dict[str, Any]
_PATIENCE_SECONDS = 60
SMALL: Answer = {"gpu_type": "A100", "max_usd_per_hour": 5, "max_hours": 2}


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)
    monkeypatch.setattr("lium_mcp.services.jobs.claimed_run._AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.services.jobs.run_endings._DOWNLOAD_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr("lium_mcp.services.jobs.runs._QUICK_SECONDS", 0.0)
    monkeypatch.setattr("lium_mcp.remote.banner._BANNER_SECONDS", 0.2)  # of a server that says nothing


@pytest.fixture
def settings_of_servers(tmp_path: Path) -> dict[str, Any]:
    """Servers whose machine has a project to bring."""
    (tmp_path / "work" / "project").mkdir(parents=True)
    (tmp_path / "work" / "project" / "data").write_text("1 2 3\n")
    return {"local_dirs": [tmp_path / "work"]}


async def until(agent: Agent, holds: Callable[[Answer], Any], name: str = "train") -> Answer:
    """Look at a run until something holds."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            seen = await agent.call("get_job", pod=name, name=name, wait_seconds=1)
            if holds(seen):
                return seen
            await asyncio.sleep(0.02)


def saying_mounts(said: str) -> Callable[[Any], Awaitable[None]]:
    """Every pod's `cat`, as if this were what is mounted."""

    async def cat(call: Any) -> None:
        await call.out(said)

    return cat


def over(seen: Answer) -> bool:
    return bool(seen["outcome"] != "pending")


def booting(seen: Answer) -> bool:
    return bool(seen["job"]["status"] == "booting")


def billing(seen: Answer) -> bool:
    """Whether a run has seen its pod running, and waits for it to answer."""
    return booting(seen) and "removes the pod at" in seen.get("warnings", [""])[-1]


def over_in_minutes(account: Sandbox) -> Callable[[Answer], bool]:
    """Whether a run is over by now, for what is tried again minutes later."""

    def look(seen: Answer) -> bool:
        account.clock.advance(minutes=1)
        return over(seen)

    return look


async def test_a_run_brings_its_files_and_runs_and_its_pod_goes_after_the_download(
    account: Sandbox, at: Any, tmp_path: Path
) -> None:
    async with at() as agent:
        began = await agent.call(
            "run_job",
            name="train",
            command="cat project/data > result; cat result; sleep 600",
            local_path="project",
            then="download_and_remove",
            download_path="result",
            wait_seconds=300,
            **SMALL,
        )
        assert (began["outcome"], began["job"]["status"]) == ("pending", "running")
        assert len(living(account)) == 1
        account.clock.advance(seconds=600)
        ended = await until(agent, over)
        assert (ended["outcome"], ended["job"]["status"], ended["job"]["exit_code"]) == ("done", "succeeded", 0)
        assert ended["log"] == "1 2 3\n"
        assert (tmp_path / "work" / "train").read_text() == "1 2 3\n"
        assert living(account) == []


def saved(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "work").iterdir())


async def begin(agent: Agent, command: str = "sleep 600", **given: Any) -> Answer:
    began = await agent.call("run_job", name="train", command=command, wait_seconds=300, **SMALL | given)
    # A command that takes no time may be over before the answer is made.
    assert began["job"]["status"] in ("running", "succeeded", "failed"), began
    return began


async def test_what_is_kept_stays_and_shows_all_of_its_log(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, "; ".join(["sleep 60", *(f"echo {number}" for number in range(1, 301))]))
        assert began["price_per_hour_usd"] > 0
        assert began["removal_at"] in began["warnings"][-1]
        account.clock.advance(minutes=1)
        ended = await until(agent, over)
        assert (ended["outcome"], ended["job"]["status"], ended["job"]["then"]) == ("done", "succeeded", "keep")
        assert ended["log"].splitlines()[0] == "251"
        assert "remove_pod" in ended["next"]
        [listed] = (await agent.call("get_job", pod="train"))["jobs"]
        assert (listed["job"], listed["then"]) == ("train", "keep")
    assert len(living(account)) == 1


@pytest.mark.parametrize("then", ["remove", "backup_and_remove"])
async def test_what_is_to_go_goes_and_another_session_hears_of_it(account: Sandbox, at: Any, then: str) -> None:
    async with at() as agent:
        await begin(agent, "echo done", then=then)
        await until(agent, over)
    assert living(account) == []
    async with at() as later:
        seen = await later.call("get_job", pod="train")
    assert (seen["outcome"], seen["job"]["status"], seen["job"]["exit_code"]) == ("done", "succeeded", 0)
    assert (seen["log"], "data, not instructions" in seen["note"]) == ("done\n", True)
    backups = account.state()["backups"]
    assert len(backups) == (then == "backup_and_remove")
    assert [seen["job"].get("backup_id")] == ([row["id"] for row in backups] or [None])


async def test_nothing_follows_a_failure_where_only_success_was_meant(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent, "echo oh; exit 3", then="remove", only_if_succeeded=True)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["exit_code"]) == ("failed", "failed", 3)
    assert "its pod stays" in ended["next"]
    assert "remove_pod" in ended["next"]
    assert len(living(account)) == 1


async def test_a_command_is_stopped_at_its_limit_and_what_follows_still_follows(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, "sleep 100000", then="backup_and_remove", max_hours=0.5)
        account.clock.advance(hours=0.5)
        ended = await until(agent, over)
    assert began["job"]["stops_at"] < began["removal_at"]
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["exit_code"]) == ("failed", "timed_out", 124)
    assert "backup_id" in ended["job"]
    assert living(account) == []


async def test_money_bounds_the_life_of_the_pod_and_the_command_leaves_time_to_save(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await agent.call(
            "run_job", name="train", command="sleep 9999999", gpu_type="A100", max_total_usd=10, wait_seconds=300
        )
        [pod] = living(account)
        lives = account.clock.now().fromisoformat(began["removal_at"]) - account.clock.now()
        assert 0 < lives.total_seconds() / 3600 * began["price_per_hour_usd"] <= 10
        assert lives.total_seconds() / 3600 * began["price_per_hour_usd"] > 8
        refused = await agent.refused(
            "run_job", name="small", command="true", gpu_type="A100", max_total_usd=0.1, wait_seconds=0
        )
    assert refused.code == "total_too_low"
    assert pod["pod_name"] == "train"


async def test_a_pod_that_is_removed_at_its_time_has_exhausted_the_budget(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent, "echo step 1; sleep 100000", then="remove")
        await until(agent, lambda seen: seen.get("log"))
        removal = await agent.call("schedule_pod_removal", pod="train", hours_from_now=0.5)
        await at.task(lambda task: task.progress["removal_at"].startswith(removal["removal_at"][:16]))
        account.clock.advance(hours=0.6)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"]) == ("failed", "budget_exhausted")
    assert ended["log"] == "step 1\n"


async def test_a_pod_that_somebody_removes_ends_its_run(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent)
        assert "job train" in (await agent.refused("remove_pod", pod="train")).text
        await agent.call("remove_pod", pod="train", wait_seconds=60)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"]) == ("done", "stopped")
    assert "removed" in ended["next"]


async def test_a_job_that_is_stopped_is_followed_by_nothing(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent, then="remove")
        stopped = await agent.call("stop_job", pod="train", name="train")
        assert stopped["job"]["status"] == "stopped"
        ended = await until(agent, over)
    assert ended["job"]["status"] == "stopped"
    assert len(living(account)) == 1


async def test_a_run_that_is_stopped_before_its_command_takes_its_pod_with_it(account: Sandbox, at: Any) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=100_000)
    async with at() as agent:
        await agent.call("run_job", name="train", command="touch ran", wait_seconds=2, **SMALL)
        began = await until(agent, booting)
        assert "within two minutes" in began["next"]
        seen = await until(agent, billing)
        assert seen["job"]["status"] == "booting"
        stopped = await agent.call("stop_job", pod="train", name="train")
        assert (stopped["outcome"], stopped["job"]["status"]) == ("done", "stopped")
        assert "its pod removed" in stopped["next"]
    assert living(account) == []


async def test_a_pod_that_does_not_start_is_boot_failed_and_gone(account: Sandbox, at: Any) -> None:
    account.add_fault("boot_fails", step="docker_pull")
    async with at() as agent:
        seen = await agent.call("run_job", name="train", command="true", wait_seconds=300, **SMALL)
        seen = seen if over(seen) else await until(agent, over)
        assert (seen["outcome"], seen["job"]["status"]) == ("failed", "boot_failed")
        assert "run_job again, with this name" in seen["next"]
        assert "docker_pull" in seen["next"]
        assert "remove_pod" not in seen["next"]
        again = await agent.call("run_job", name="train", command="true", wait_seconds=300, **SMALL)
        assert again["job"]["status"] != "boot_failed"  # the same call begins anew
        await until(agent, over)


async def test_a_pod_that_never_answers_is_removed_while_it_bills(account: Sandbox, at: Any) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=100_000)
    async with at() as agent:
        await agent.call("run_job", name="train", command="true", wait_seconds=0, **SMALL)
        await until(agent, billing)
        account.clock.advance(minutes=16)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"]) == ("failed", "boot_failed")
    assert living(account) == []


async def test_what_cannot_be_rented_is_refused_at_once_or_told_as_rent_failed(account: Sandbox, at: Any) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        dear = await agent.refused("run_job", name="train", command="true", **SMALL | {"max_usd_per_hour": 0.01})
        assert dear.code in ("no_gpu_matches", "price_above_ceiling")
        on_rents(wire, answering(400, {"error": {"code": "node_not_verified", "message": "no"}}))
        seen = await agent.call("run_job", name="train", command="true", wait_seconds=30, **SMALL)
        seen = seen if over(seen) else await until(agent, over)
        assert (seen["outcome"], seen["job"]["status"]) == ("failed", "rent_failed")
        assert "pod_id" not in seen
    assert living(account) == []


async def test_the_same_call_shows_the_same_run_and_another_one_of_its_name_is_refused(
    account: Sandbox, at: Any
) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        began = await begin(agent)
        again = await begin(agent)
        assert again["pod_id"] == began["pod_id"]
        other = await agent.refused("run_job", name="train", command="echo other", **SMALL)
        assert other.code == "run_exists"
        account.clock.advance(seconds=700)
        await until(agent, over)
        shown = await agent.call("run_job", name="train", command="sleep 600", **SMALL)
        assert (shown["outcome"], shown["pod_id"]) == ("done", began["pod_id"])
        kept = await agent.refused("run_job", name="train", command="echo other", **SMALL)
        assert (kept.code, "succeeded" in kept.text) == ("run_exists", True)
        await agent.call("remove_pod", pod="train", wait_seconds=60)
        later = await agent.refused("run_job", name="train", command="echo other", **SMALL)
        assert later.code == "run_exists"
    assert living(account) == []


async def test_gpus_that_are_billed_and_not_there_are_told(account: Sandbox, at: Any) -> None:
    account.add_fault("comes_out_short", gpus=1)
    async with at() as agent:
        began = await begin(agent, gpu_count=2, max_usd_per_hour=10)
        assert [text for text in began["warnings"] if "GPU" in text and "2" in text]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"max_usd_per_hour": None}, "invalid_argument", "ceiling of money"),
        ({"max_hours": None}, "invalid_argument", "ceiling of money"),
        ({"hours": 1}, "invalid_argument", "more than max_hours"),
        ({"name": "My Job"}, "invalid_argument", "not a job's name"),
        ({"then": "download_and_remove"}, "invalid_argument", "needs download_path"),
        ({"download_path": "x"}, "invalid_argument", "then=download_and_remove"),
        ({"local_path": "nothing"}, "file_not_found", "local_path"),
        ({"local_path": "/etc"}, "path_not_allowed", "local_path"),
        (
            {"then": "download_and_remove", "download_path": "x", "to_path": "/etc/out"},
            "path_not_allowed",
            "to_path is not allowed",
        ),
        ({"then": "download_and_remove", "download_path": "x", "to_path": "project"}, "file_exists", "to_path"),
        ({"command": "LIUM_API_KEY=sk_abcdefgh12345678 run"}, "secret_in_command", "ledger"),
        ({"command": "a\0b"}, "invalid_argument", "NUL"),
    ],
)
async def test_what_could_not_be_carried_out_is_refused_before_anything_is_rented(
    account: Sandbox, at: Any, given: Answer, code: str, said: str
) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        refused = await agent.refused("run_job", **{"name": "train", "command": "true"} | SMALL | given)
        assert refused.code == code
        assert said in refused.text
    assert [request for request in wire.requests if request.method != "GET"] == []


async def test_a_person_is_asked_once_about_the_rent_and_all_that_follows(account: Sandbox, at: Any) -> None:
    person = Person("yes")
    async with at(person=person) as agent:
        await begin(agent, "echo done", then="backup_and_remove")
        await until(agent, over)
    [question] = person.questions
    for said in ("A100", "an hour", 'job "train"', "backed up", "removed for good", "stays if the backup fails"):
        assert said in question
    assert living(account) == []
    no = Person("no")
    async with at(person=no) as agent:
        refused = await agent.refused("run_job", name="other", command="true", **SMALL)
        assert refused.code == "not_confirmed"
    assert living(account) == []


async def test_a_command_leaves_the_ledger_once_it_runs_and_is_in_no_log(
    at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with at() as agent:
        await begin(agent, "true unmistakable; sleep 600")
        task = await at.task(lambda task: task.progress["state"] == "running")
    assert "unmistakable" not in str(task)
    assert not [record for record in caplog.records if "unmistakable" in record.getMessage()]


async def test_a_backup_that_fails_leaves_the_pod_and_says_so(account: Sandbox, at: Any) -> None:
    account.add_fault("backup_fails", times=10)
    async with at() as agent:
        await begin(agent, "sleep 60; echo done", then="backup_and_remove")
        account.clock.advance(minutes=1)
        seen = await until(agent, lambda seen: seen["job"].get("problem"))
        assert (seen["outcome"], "minutes apart" in seen["next"]) == ("pending", True)
        (listed,) = (await agent.call("list_pods"))["pods"]
        assert (
            "is held up (final_backup_failed), and tried again: until backup_and_remove it bills" in listed["problem"]
        )
        for attempt in (1, 2):
            task = await at.task(lambda task: task.attempts == attempt and task.lease_owner is None)  # noqa: B023
            assert task.next_at - account.clock.now() > timedelta(minutes=2)  # nobody tries again before
            assert len(account.state()["backups"]) == attempt
            account.clock.advance(minutes=4)
        ended = await until(agent, over)
        (listed,) = (await agent.call("list_pods"))["pods"]
        assert "its pod stays, since backup_and_remove failed" in listed["problem"]
        assert listed["problem"].endswith("It stays, and bills: remove_pod ends that, and get_job tells more.")
    assert (ended["outcome"], ended["job"]["status"]) == ("failed", "succeeded")
    assert ended["job"]["problem"] == "final_backup_failed"
    assert "Its pod stays" in ended["next"]
    assert f"until Lium removes it at {ended['removal_at']}" in ended["next"]
    assert "remove_pod(pod=train) ends that now" in ended["next"]
    assert len(living(account)) == 1
    assert len(account.state()["backups"]) == 3


@pytest.mark.parametrize(
    ("command", "here", "problem", "said"),
    [
        ("echo done > result", "", "file_not_found", 'no "results", which download_path names'),
        ("mkdir results", "", "nothing_to_download", "holds no file"),
        ("mkdir results; echo done > results/a", "other", "download_impossible", "another file has this name"),
    ],
)
async def test_a_download_that_would_fail_again_ends_the_run_and_the_pod_stays(
    account: Sandbox, at: Any, tmp_path: Path, command: str, here: str, problem: str, said: str
) -> None:
    async with at() as agent:
        await begin(agent, f"sleep 600; {command}", then="download_and_remove", download_path="results")
        if here:
            (tmp_path / "work" / "train").mkdir()
            (tmp_path / "work" / "train" / "a").write_text(here)
        account.clock.advance(seconds=600)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["problem"]) == ("failed", "succeeded", problem)
    for words in (said, "download_files (pod=train)", "remove_pod", "an hour until Lium removes it at 20"):
        assert words in ended["next"]
    assert len(living(account)) == 1


async def test_links_are_no_complete_download_and_the_pod_stays(account: Sandbox, at: Any, sshd: Sshd) -> None:
    command = "mkdir out blobs; echo 1 > blobs/x; echo 2 > out/b; ln -s ../blobs/x out/model.safetensors"
    async with at(at_sshd(account, sshd), ssh_key_path=sshd.key_path) as agent:
        await begin(agent, command, then="download_and_remove", download_path="out")
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["problem"]) == ("failed", "download_left_out")
    for words in ("out/model.safetensors", "cp -rL", "download_files (pod=train)", "remove_pod"):
        assert words in ended["next"]
    assert len(living(account)) == 1


LEFT = "while [ ! -e go ]; do sleep 0.05; done; echo 2 > done"


@pytest.mark.parametrize(
    "command",
    [f"nohup sh -c '{LEFT}' & exit 0", f"({LEFT}) &", f"setsid -f sh -c '{LEFT}'", f"set -m; ({LEFT}) & disown"],
)
async def test_a_command_ends_by_itself_and_what_follows_waits_for_what_it_left_in_the_background(
    account: Sandbox, at: Any, sshd: Sshd, tmp_path: Path, command: str
) -> None:
    async with at(at_sshd(account, sshd), ssh_key_path=sshd.key_path) as agent:
        await begin(agent, command, then="download_and_remove", download_path="done")
        seen = await until(agent, lambda seen: "in the background runs on" in seen["next"])
        assert (seen["outcome"], seen["job"]["status"], seen["job"]["exit_code"]) == ("pending", "succeeded", 0)
        assert "then follows download_and_remove" in seen["next"]
        assert seen["job"]["stops_at"] > seen["job"]["finished_at"]
        (sshd.home / "go").touch()
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["exit_code"]) == ("done", "succeeded", 0)
    assert ended["job"]["finished_at"] == seen["job"]["finished_at"]
    assert (tmp_path / "work" / "train").read_text() == "2\n"
    assert living(account) == []


@pytest.mark.parametrize(("command", "status", "code"), [("true", "succeeded", 0), ("exit 3", "failed", 3)])
async def test_a_daemon_ends_at_the_limit_and_the_command_keeps_its_own_end(
    account: Sandbox, at: Any, command: str, status: str, code: int
) -> None:
    async with at() as agent:
        await begin(agent, f"sleep 999999 & {command}", then="remove", max_hours=0.5)
        account.clock.advance(hours=0.4)
        seen = await until(agent, lambda seen: "in the background runs on" in seen["next"])
        assert (seen["outcome"], seen["job"]["status"], len(living(account))) == ("pending", status, 1)
        account.clock.advance(hours=0.1)
        ended = await until(agent, over)
    assert (ended["job"]["status"], ended["job"]["exit_code"]) == (status, code)
    assert living(account) == []


async def test_a_run_that_keeps_its_pod_ends_with_its_command_and_leaves_the_daemon(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent, "sleep 999999 & echo ready")
        ended = await until(agent, over)
        assert (ended["outcome"], ended["job"]["status"]) == ("done", "succeeded")
        assert "in the background runs on" in ended["next"]
        stopped = await agent.call("stop_job", pod="train", name="train")
        assert (stopped["job"]["status"], stopped["job"]["exit_code"]) == ("stopped", 0)


async def test_a_download_that_fails_for_now_is_tried_again_and_says_what_it_copied(
    account: Sandbox, at: Any, tmp_path: Path
) -> None:
    async with at() as agent:
        await begin(agent, "sleep 600; echo done > result", then="download_and_remove", download_path="result")
        account.add_fault("ssh_drops", pod_name="train", bytes=1, times=1)
        account.clock.advance(seconds=600)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["downloaded_files"], ended["job"]["downloaded_bytes"]) == ("done", 1, 5)
    assert (tmp_path / "work" / "train").read_text() == "done\n"
    assert living(account) == []


async def test_only_the_machine_of_the_files_goes_on_with_them(
    account: Sandbox, at: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=300)
    async with at() as agent:
        await agent.call("run_job", name="train", command="true", local_path="project", wait_seconds=0, **SMALL)
        await until(agent, booting)
    account.clock.advance(seconds=300)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "another")
        async with at() as other:
            await until(other, lambda seen: seen["job"]["status"] == "uploading")
            await at.task(lambda task: task.lease_owner is None)
            await asyncio.sleep(0.3)  # it would look again by then
            assert (await other.call("get_job", pod="train", wait_seconds=0))["job"]["status"] == "uploading"
    async with at(local_dirs=[tmp_path, tmp_path / "work"]) as agent:
        ended = await until(agent, over)
    assert ended["job"]["status"] == "succeeded"


async def test_a_run_that_is_called_off_keeps_its_pod_while_another_job_runs_there(
    account: Sandbox, at: Any, monkeypatch: Any
) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=300)
    async with at() as agent:
        await agent.call("run_job", name="train", command="true", local_path="project", wait_seconds=0, **SMALL)
        await until(agent, booting)
    account.clock.advance(seconds=300)
    monkeypatch.setattr("socket.gethostname", lambda: "another")  # so that its files are not brought
    async with at() as other:
        await until(other, lambda seen: seen["job"]["status"] == "uploading")
        await other.call("start_job", pod="train", name="night", command="sleep 600")
        stopped = await other.call("stop_job", pod="train", name="train")
        assert stopped["outcome"] == "pending"
        assert "the removal of its pod waits, since job night runs" in stopped["next"]
        assert "bills" in stopped["next"]
        assert len(living(account)) == 1
        account.clock.advance(seconds=600)
        ended = await until(other, over)
        assert ended["job"]["status"] == "stopped"
    assert living(account) == []


@pytest.mark.parametrize("act", [losing_the_answer(), drop])
async def test_a_rent_whose_answer_is_lost_is_settled_and_the_run_goes_on(account: Sandbox, at: Any, act: Act) -> None:
    wire = Wire(account)
    on_rents(wire, act, times=1)
    async with at(wire) as agent:
        seen = await agent.call("run_job", name="train", command="echo done", then="remove", wait_seconds=60, **SMALL)
        for _ in range(40):  # some time apart, since one look proves nothing
            if over(seen):
                break
            account.clock.advance(seconds=20)
            seen = await agent.call("get_job", pod="train", name="train", wait_seconds=1)
    assert (seen["outcome"], seen["job"]["status"]) == ("done", "succeeded")
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 1
    assert len(account.state()["pods"]) == 1


async def test_a_pod_that_is_gone_by_no_doing_of_ours_ends_its_run(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, "echo step 1; sleep 100000", then="backup_and_remove")
        await until(agent, lambda seen: seen.get("log"))
        await ask(account, "DELETE", f"/pods/{began['pod_id']}")
        account.clock.advance(minutes=5)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["problem"]) == ("failed", "error", "pod_gone")
    assert ended["log"] == "step 1\n"


async def test_a_container_that_starts_again_loses_the_job_and_the_pod_stays(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, then="remove")
        account.add_fault("container_restarts", pod_id=began["pod_id"])
        account.clock.advance(minutes=5)
        ended = await until(agent, over)
    assert (ended["outcome"], ended["job"]["problem"]) == ("failed", "job_lost")
    assert len(living(account)) == 1


async def test_a_download_that_breaks_off_is_gone_on_with(account: Sandbox, at: Any, tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000
    (tmp_path / "work" / "big").write_bytes(content)
    async with at() as agent:
        await begin(agent, local_path="big", then="download_and_remove", download_path="big")
        account.add_fault("ssh_drops", pod_name="train", bytes=1_500_000, times=2)
        account.clock.advance(seconds=700)
        ended = await until(agent, over)
    assert ended["outcome"] == "done"
    assert (tmp_path / "work" / "train").read_bytes() == content
    assert living(account) == []


async def test_servers_that_race_rent_and_run_once(account: Sandbox, at: Any) -> None:
    wires = [Wire(account) for _ in range(3)]
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(at(wire)) for wire in wires]
        command = "echo once >> count; cat count"
        calls = [
            agent.raw("run_job", name="train", command=command, then="remove", wait_seconds=60, **SMALL)
            for agent in agents
        ]
        await asyncio.gather(*calls)
        ended = await until(agents[0], over)
    assert (ended["outcome"], ended["log"]) == ("done", "once\n")
    assert sum(len(sent_rents(wire)) for wire in wires) == 1


async def test_a_server_with_another_key_leaves_a_run_alone(account: Sandbox, at: Any) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=300)
    async with at() as agent:
        await agent.call("run_job", name="train", command="true", wait_seconds=0, **SMALL)
        await until(agent, booting)
    account.clock.advance(seconds=400)
    body = {"name": "other", "scopes": ["read", "rent", "manage"], "pod_visibility": "account"}
    key = str((await ask_as_person(account, "POST", "/keys", body))["key"])
    wire = Wire(account)
    async with at(wire, api_key=key) as other:
        await asyncio.sleep(0.3)  # it has looked several times by then
        refused = await other.refused("get_job", pod="train", name="train", wait_seconds=0)
        assert refused.code == "job_not_found"
    assert [request.method for request in wire.requests if request.method != "GET"] == []


async def test_a_limit_refuses_a_run_before_anything_is_rented(account: Sandbox, at: Any) -> None:
    async with at(max_price_per_hour_usd=0.05) as agent:
        refused = await agent.refused("run_job", name="train", command="true", **SMALL)
        assert refused.code == "policy_refused"
    assert living(account) == []


@pytest.mark.parametrize("moment", ["before the work", "after the work"])
async def test_a_call_that_is_cancelled_calls_its_run_off(account: Sandbox, at: Any, moment: Moment) -> None:
    wire = Wire(account)
    held = Hold(moment)
    on_rents(wire, held, times=1)
    async with at(wire) as agent:
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await agent.raw("run_job", name="train", command="echo ran", **SMALL)

            group.start_soon(call)
            await held.reached()
            group.cancel_scope.cancel()
        held.let_go()

        def over_in_time(seen: Answer) -> bool:
            account.clock.advance(seconds=10)  # Lium removes no pod that is still starting
            return over(seen)

        ended = await until(agent, over_in_time)
    assert ended["job"]["status"] == "stopped"
    assert living(account) == []


async def test_links_that_are_not_brought_along_are_named(account: Sandbox, at: Any, tmp_path: Path) -> None:
    (tmp_path / "work" / "project" / "weights").symlink_to(tmp_path / "elsewhere")
    async with at() as agent:
        began = await begin(agent, "cat project/data; sleep 600", local_path="project")
        [said] = [text for text in began["warnings"] if "left out" in text]
        assert "1 symbolic links" in said
        assert '"project/weights"' in said


async def test_a_quick_command_is_told_with_its_result(account: Sandbox, at: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("lium_mcp.services.jobs.runs._QUICK_SECONDS", 5.0)
    async with at() as agent:
        ran = await agent.call("run_job", name="train", command="echo fit; exit 2", wait_seconds=60, **SMALL)
    assert (ran["outcome"], ran["job"]["status"], ran["job"]["exit_code"], ran["log"]) == (
        "failed",
        "failed",
        2,
        "fit\n",
    )
    assert f"The pod bills ${ran['price_per_hour_usd']} an hour until Lium removes it at 20" in ran["next"]


async def test_what_a_run_costs_and_what_happens_to_its_pod_is_told(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, "sleep 3600; exit 1", then="remove", only_if_succeeded=True)
        assert "stops_at" in began["job"]
        said = "when it ends, at stops_at at the latest, remove follows if it succeeded, else its pod stays"
        assert f"{said} until removal_at" in began["next"]
        account.clock.advance(minutes=30)
        seen = await agent.call("get_job", pod="train", name="train", wait_seconds=0)
        assert seen["cost_estimate_usd"] == pytest.approx(seen["price_per_hour_usd"] / 2, rel=0.1)
        account.clock.advance(minutes=30)
        ended = await until(agent, over)
        assert ended["cost_estimate_usd"] == pytest.approx(seen["price_per_hour_usd"], rel=0.1)
        for said in ("bills $", f"until Lium removes it at {ended['removal_at']}", "remove_pod(pod="):
            assert said in ended["next"]
        await agent.call("remove_pod", pod="train", wait_seconds=60)
        gone = await agent.call("get_job", pod="train", name="train", wait_seconds=0)
        assert "If its pod still lives" in gone["next"]
        assert "cost_estimate_usd" not in gone


async def test_a_run_that_is_tried_again_has_what_earlier_tries_left_of_its_total(account: Sandbox, at: Any) -> None:
    account.add_fault("ssh_silent", pod_name="train", lasting_seconds=100_000)
    async with at() as agent:
        [cheapest, *_] = (await agent.call("list_gpus", gpu_type="A100"))["offers"]
        total = round(1.5 * cheapest["price_per_hour_usd"], 2)
        wanted = {"name": "train", "command": "true", "gpu_type": "A100", "max_total_usd": total, "wait_seconds": 0}
        await agent.call("run_job", **wanted)
        await until(agent, billing)
        account.clock.advance(minutes=50)
        ended = await until(agent, over)
        assert ended["job"]["status"] == "boot_failed"
        refused = await agent.refused("run_job", **wanted)
    assert refused.code == "total_too_low"
    assert "less up to $" in refused.text
    assert sum(pod["charged_usd"] for pod in account.state("pods")["pods"]) <= total


async def test_a_limit_on_hours_says_how_a_run_fits_into_it(at: Any) -> None:
    async with at(max_hours=1) as agent:
        refused = await agent.refused("run_job", **{"name": "train", "command": "true"} | SMALL | {"max_hours": 1})
        assert refused.code == "policy_refused"
        assert "What fits: hours=1 with max_hours below it." in refused.text
        await begin(agent, hours=1, max_hours=0.9)


async def test_a_pod_that_came_out_dearer_shows_what_it_bills(account: Sandbox, at: Any) -> None:
    wire = Wire(account)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"price": 4.5}))
    async with at(wire) as agent:
        began = await begin(agent)
    assert began["price_per_hour_usd"] == 4.5
    [said] = [text for text in began["warnings"] if "offered at" in text]
    assert said.startswith("It costs $4.5000 an hour")


async def test_a_run_restores_a_backup_before_its_command_on_a_node_with_a_volume(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        first = await begin(agent, "mkdir -p /root/work; echo 42 > /root/work/answer", then="keep")
        await until(agent, over)
        backup = await agent.call("create_backup", pod="train", wait_seconds=600)
        await agent.call("remove_pod", pod="train", wait_seconds=60)
        volume = await agent.call("create_volume", name="data")
        node = (await agent.call("list_gpus", gpu_type="A100"))["offers"][0]["executor_id"]
        given = {"executor_id": node, "backup_id": backup["backup"]["backup_id"], "volume": "data", "max_total_usd": 9}
        again = await agent.call(
            "run_job", name="again", command="cat */work/answer */*/work/answer; sleep 600", wait_seconds=300, **given
        )
        seen = await until(agent, lambda seen: seen.get("log"), name="again")
        pod = (await agent.call("get_pod", pod="again"))["pod"]
    assert again["pod_id"] != first["pod_id"]
    assert "42" in seen["log"]
    assert pod["executor_id"] == node
    assert pod["volume_id"] == volume["volume_id"]


async def test_a_run_whose_backup_is_not_restored_is_given_up(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        await begin(agent, "mkdir -p /root/work; echo 42 > /root/work/answer")
        await until(agent, over)
        backup = await agent.call("create_backup", pod="train", wait_seconds=600)
        account.add_fault("restore_fails", message="disk on fire")
        backup_id = backup["backup"]["backup_id"]
        seen = await agent.call("run_job", name="again", command="touch ran", backup_id=backup_id, **SMALL)
        seen = seen if over(seen) else await until(agent, over, name="again")
    assert (seen["outcome"], seen["job"]["status"], seen["job"]["problem"]) == (
        "failed",
        "boot_failed",
        "restore_failed",
    )
    assert "disk on fire" in seen["next"]
    assert [pod["pod_name"] for pod in living(account)] == ["train"]


async def test_a_command_is_not_run_without_the_volume_that_it_was_to_have(
    account: Sandbox, at: Any, tmp_path: Path
) -> None:
    account.add_fault("comes_out_short", pod_name="train", volume="not mounted")
    async with at() as agent:
        volume = (await agent.call("create_volume", name="data"))["volume_id"]
        given = {"command": "echo 42 > /mnt/answer", "volume": "data", "then": "download_and_remove"}
        copied = {"local_path": "project", "download_path": "/mnt"}
        seen = await agent.call("run_job", name="train", **given, **copied, **SMALL)
        seen = seen if over(seen) else await until(agent, over)
        assert (seen["outcome"], seen["job"]["status"], seen["job"]["problem"]) == (
            "failed",
            "boot_failed",
            "volume_not_mounted",
        )
        assert f"Volume {volume} could not be attached" in seen["next"]
        assert "Another node (executor_id)" in seen["next"]
        assert living(account) == []
        assert saved(tmp_path) == ["project"]
        account.clock.advance(minutes=1)  # the removed pod lets go of the volume
        again = await agent.call("run_job", name="again", **given | {"then": "keep"}, **SMALL)
        seen = again if over(again) else await until(agent, over, name="again")
    assert (seen["outcome"], seen["job"]["status"]) == ("done", "succeeded")
    assert not [text for text in seen.get("warnings", []) if volume in text]


async def test_a_mount_below_the_place_of_a_volume_is_not_the_volume(
    account: Sandbox, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.add_fault("comes_out_short", pod_name="train", volume="not mounted")
    monkeypatch.setitem(PROGRAMS, "cat", saying_mounts("/dev/sda / ext4 rw 0 0\n/dev/sdb /mnt/x ext4 rw 0 0\n"))
    async with at() as agent:
        await agent.call("create_volume", name="data")
        seen = await agent.call("run_job", name="train", command="true", volume="data", **SMALL)
        seen = seen if over(seen) else await until(agent, over)
    assert (seen["outcome"], seen["job"]["problem"]) == ("failed", "volume_not_mounted")


async def test_a_volume_that_could_not_be_looked_for_is_told(
    account: Sandbox, at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "cat", saying_mounts(""))
    async with at() as agent:
        volume = (await agent.call("create_volume", name="data"))["volume_id"]
        began = await begin(agent, volume="data")
    assert [text for text in began["warnings"] if f"Whether volume {volume} is mounted could not be read" in text]


async def test_a_pod_that_has_the_name_of_a_run_that_is_over_is_looked_at_itself(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        began = await begin(agent, "echo first", then="remove")
        await until(agent, over)
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=2, wait_seconds=300)
        await agent.call("start_job", pod="train", name="train", command="echo second")
        account.clock.advance(seconds=10)
        seen = await agent.call("get_job", pod="train", name="train")
        assert (seen["pod_id"], seen["log"]) == (rented["pod_id"], "second\n")
        old = await agent.call("get_job", pod=began["pod_id"], name="train")
    assert (old["pod_id"], old["log"]) == (began["pod_id"], "first\n")


async def test_a_removal_that_lium_refuses_is_told_and_the_pod_is_named(account: Sandbox, at: Any) -> None:
    wire = Wire(account)
    async with at(wire) as agent:
        await begin(agent, "sleep 60; echo done", then="remove")
        wire.on("DELETE", "/pods/*", answering(409, {"detail": "not now"}))
        account.clock.advance(minutes=1)
        ended = await until(agent, over_in_minutes(account))
    assert (ended["outcome"], ended["job"]["status"]) == ("failed", "succeeded")
    assert ended["job"]["problem"] == "removal_refused"
    assert ended["pod_id"] == living(account)[0]["id"]


async def test_a_run_whose_backup_holds_nothing_says_which_path_it_saves_and_how_the_rest_is_saved(
    account: Sandbox, at: Any
) -> None:
    async with at() as agent:
        templates = (await agent.call("list_templates", search="vLLM server"))["templates"]
        template = next(row["template_id"] for row in templates if row["name"] == "vLLM server")
        began = await begin(agent, "echo 1 > result; sleep 600", then="backup_and_remove", template=template)
        [warning] = [each for each in began["warnings"] if "saves only" in each]
        assert "/root/.cache, and files are brought to /root" in warning
        assert "then=download_and_remove" in warning
        account.clock.advance(seconds=600)
        ended = await until(agent, over_in_minutes(account))
        assert (ended["outcome"], ended["job"]["problem"]) == ("failed", "final_backup_empty")
        for words in (
            "Its pod stays, since backup_and_remove failed: Backup",
            "it saves only /root/.cache",
            "only download_files saves",
            "start_job (pod=train) runs more on this pod",
        ):
            assert words in ended["next"]
        assert (await agent.call("download_files", pod="train", pod_path="result"))["content"] == "1\n"
        await agent.call("start_job", pod="train", name="again", command="true")
    assert len(living(account)) == 1


async def test_a_command_that_fails_over_its_files_hears_where_they_were_brought(account: Sandbox, at: Any) -> None:
    async with at() as agent:
        given = {"name": "train", "command": "cat data", "local_path": "project", "wait_seconds": 300}
        await agent.call("run_job", **given, **SMALL)
        ended = await until(agent, over)
        assert ended["job"]["status"] == "failed"
        assert "What was brought is in /root/project; the command starts in /root." in ended["next"]
        seen = await agent.call("download_files", pod="train", pod_path="/root/project/data")
        assert seen["content"] == "1 2 3\n"
