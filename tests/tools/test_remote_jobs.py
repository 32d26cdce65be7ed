"""Background jobs on a pod, against a real OpenSSH server: they outlive us, end in time, and are found by name."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.types import ElicitResult

from lium_mcp.sandbox import Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.harness import Agent, TurnedClock, agent_on
from tests.sshd import Sshd, at_sshd, rent, wait_until

Answer = dict[str, Any]
_PATIENCE_SECONDS = 60
_UNTIL_GO = "while [ ! -e go ]; do sleep 0.05; done"


async def until(agent: Agent, name: str, holds: Callable[[Answer], bool]) -> Answer:
    """Look at a job until something holds; the pod's own clock runs in real time here."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            seen = await agent.call("get_job", pod="train", name=name, wait_seconds=0)
            if holds(seen):
                return seen
            await asyncio.sleep(0.1)


def over(seen: Answer) -> bool:
    return bool(seen["outcome"] != "pending")


@asynccontextmanager
async def another_session(sandbox: Sandbox, sshd: Sshd, **settings: Any) -> AsyncIterator[Agent]:
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path, **settings) as agent:
        yield agent


async def test_a_job_is_started_and_found_again_by_name_from_another_session(
    on_sshd: Agent, sandbox: Sandbox, sshd: Sshd
) -> None:
    pod_id = await rent(on_sshd)
    started = await on_sshd.call(
        "start_job",
        pod="train",
        name="train-1",
        command=f"pwd; echo half; {_UNTIL_GO}; echo done >&2; exit 7",
        max_hours=1,
    )
    assert (started["outcome"], started["pod_id"]) == ("pending", pod_id)
    assert started["job"]["status"] == "running"
    assert "get_job" in started["next"]
    (sshd.home / "go").touch()
    async with another_session(sandbox, sshd) as later:
        seen = await until(later, "train-1", over)
        assert (seen["outcome"], seen["job"]["status"], seen["job"]["exit_code"]) == ("failed", "failed", 7)
        assert seen["log"] == f"{sshd.home}\nhalf\ndone\n"
        assert "instructions" in seen["note"]
        [listed] = (await later.call("get_job", pod="train"))["jobs"]
        assert (listed["job"], listed["exit_code"]) == ("train-1", 7)
        assert (await later.call("get_job", pod="train", name="train-1", log_lines=1))["log"] == "done\n"


async def test_a_later_look_shows_only_what_was_written_since(on_sshd: Agent) -> None:
    await rent(on_sshd)
    job = {"pod": "train", "name": "long"}
    wanted = "seq 200; while [ ! -e ~/go ]; do sleep 0.05; done; echo last"
    await on_sshd.call("start_job", **job, command=wanted, max_hours=1)
    seen: dict[str, Any] = {}
    while "200" not in seen.get("log", ""):
        seen = await on_sshd.call("get_job", **job, wait_seconds=0)
    assert seen["log"].splitlines()[0] == "151"
    assert (seen["log_bytes"], seen["log_cut_bytes"]) == (692, 692 - len(seen["log"]))
    again = await on_sshd.call("get_job", **job, wait_seconds=0, log_after=seen["log_bytes"])
    assert (again["log"], again["log_bytes"], "log_cut_bytes" in again, "note" in again) == ("", 692, False, False)
    await on_sshd.call("run_command", pod="train", command="touch ~/go")
    while (again := await on_sshd.call("get_job", **job, log_after=seen["log_bytes"]))["outcome"] != "done":
        pass
    assert (again["log"], again["log_bytes"]) == ("last\n", 697)
    # What another job of the name wrote before is no place to go on from.
    assert (await on_sshd.call("get_job", **job, log_after=10**6))["log"].endswith("200\nlast\n")


async def test_a_character_that_is_half_written_is_shown_whole_at_a_later_look(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    job = {"pod": "train", "name": "half"}
    wanted = r"printf 'a\360\237\230'; touch half; while [ ! -e go ]; do sleep 0.05; done; printf '\200\303'"
    await on_sshd.call("start_job", **job, command=wanted)
    while not (sshd.home / "half").exists():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    seen = await on_sshd.call("get_job", **job, wait_seconds=0)
    assert (seen["log"], seen["log_bytes"]) == ("a", 1)
    (sshd.home / "go").touch()
    seen = await until(on_sshd, "half", over)
    seen = await on_sshd.call("get_job", **job, log_after=1)
    assert (seen["log"], seen["log_bytes"]) == ("\N{GRINNING FACE}\ufffd", 6)  # all there will ever be


async def test_stopping_a_job_ends_too_what_cleared_its_environment_and_left_its_parent(
    on_sshd: Agent, sshd: Sshd
) -> None:
    await rent(on_sshd)
    wanted = "env -i setsid sh -c '(touch begun; sleep 60; true) &'; sleep 60"
    await on_sshd.call("start_job", pod="train", name="hidden", command=wanted)
    while not (sshd.home / "begun").exists():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    assert (await on_sshd.call("stop_job", pod="train", name="hidden"))["job"]["status"] == "stopped"
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_jobs_that_start_at_once_on_a_new_pod_all_start(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    names = [f"part-{number}" for number in range(6)]
    started = await asyncio.gather(
        *(on_sshd.raw("start_job", pod="train", name=name, command=f"echo {name} >> $HOME/count") for name in names)
    )
    assert [result.is_error for result in started] == [False] * len(names), started
    for name in names:
        assert (await until(on_sshd, name, over))["job"]["status"] == "succeeded"
    assert sorted((sshd.home / "count").read_text().splitlines()) == names


async def test_a_name_is_used_once_whoever_asks_and_however_often(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    results = await asyncio.gather(
        *(on_sshd.raw("start_job", pod="train", name="once", command="echo x >> $HOME/count") for _ in range(4))
    )
    assert sorted(bool(result.is_error) for result in results) == [False, True, True, True]
    codes = [result.meta["lium-mcp/error"]["code"] for result in results if result.is_error and result.meta]
    assert codes == ["job_exists"] * 3
    await until(on_sshd, "once", over)
    assert (sshd.home / "count").read_text() == "x\n"


@pytest.mark.parametrize("left", ["(sleep 60; true) &", "setsid sh -c 'sleep 60; true' &"])
async def test_the_time_limit_is_kept_by_the_pod_and_nothing_outlives_it(on_sshd: Agent, sshd: Sshd, left: str) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="long", command=f"{left} sleep 60", max_hours=1 / 3600)
    seen = await until(on_sshd, "long", over)
    assert (seen["job"]["status"], seen["job"]["exit_code"]) == ("timed_out", 124)
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_a_job_is_stopped_with_what_it_started(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command="(sleep 60; true) & sleep 60")
    stopped = await on_sshd.call("stop_job", pod="train", name="j")
    assert (stopped["outcome"], stopped["job"]["status"]) == ("done", "stopped")
    assert "next" not in stopped
    again = await on_sshd.call("stop_job", pod="train", name="j")
    assert (again["outcome"], again["job"]["status"]) == ("done", "stopped")
    assert again["next"] == "It had ended before: nothing was stopped."
    seen = await on_sshd.call("get_job", pod="train", name="j")
    assert (seen["outcome"], seen["job"]["status"]) == ("done", "stopped")
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


_LEFT = "sh -c 'touch begun; sleep 60; true'"
_LEAVING = {
    "setsid": f"setsid {_LEFT} &",
    "setsid -f": f"setsid -f {_LEFT}",
    "double fork": f"(setsid {_LEFT} &) &",
    "job control": f"set -m; {_LEFT} & disown",
    "job control, a shell of many commands": "set -m; (touch begun; sleep 60; true) & disown",
    "timeout": f"timeout 1000 {_LEFT}",
    "Popen": (
        f"{sys.executable} -c 'import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)' {_LEFT}"
    ),
}


@pytest.mark.parametrize("ending", ["", "sleep 60"], ids=["its command has ended", "its command runs"])
@pytest.mark.parametrize("leaving", _LEAVING.values(), ids=_LEAVING)
async def test_a_job_is_stopped_with_what_left_its_process_group(
    on_sshd: Agent, sshd: Sshd, leaving: str, ending: str
) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command=f"{leaving}\n{ending}")
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not (sshd.home / "begun").exists():  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)
    stopped = await on_sshd.call("stop_job", pod="train", name="j")
    assert (stopped["outcome"], stopped["job"]["status"]) == ("done", "stopped")
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_what_left_the_process_group_and_ignores_the_signal_is_killed(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    command = """setsid sh -c 'trap "echo x >> asked" TERM; while :; do echo x >> alive; sleep 0.1; done' & sleep 60"""
    await on_sshd.call("start_job", pod="train", name="j", command=command)
    await asyncio.to_thread(wait_until, (sshd.home / "alive").exists)
    assert (await on_sshd.call("stop_job", pod="train", name="j"))["job"]["status"] == "stopped"
    size = (sshd.home / "alive").stat().st_size
    await asyncio.sleep(0.5)
    assert (sshd.home / "alive").stat().st_size == size
    assert (sshd.home / "asked").read_text() == "x\n"


async def test_a_removal_time_is_warned_of_where_the_job_was_given_longer_than_that(on_sshd: Agent) -> None:
    await rent(on_sshd)
    shorter = await on_sshd.call("start_job", pod="train", name="shorter", command="sleep 60", max_hours=2)
    assert "warnings" not in shorter
    removal_at = (await on_sshd.call("get_pod", pod="train"))["pod"]["removal_at"]
    for name, limit in (("usual", {}), ("longer", {"max_hours": 48})):
        longer = await on_sshd.call("start_job", pod="train", name=name, command="sleep 60", **limit)
        [warning] = longer["warnings"]
        assert warning == f"Lium removes the pod at {removal_at}, before the job's limit (max_hours)."


async def test_a_job_that_ends_at_once_has_ended_when_start_job_answers_or_goes_on(on_sshd: Agent) -> None:
    await rent(on_sshd)
    ended = None
    for number in range(20):  # whether it has ended by then is the pod's luck
        started = await on_sshd.call("start_job", pod="train", name=f"j{number}", command="exit 3", max_hours=48)
        if started["job"]["status"] == "running":
            assert (started["outcome"], "get_job" in started["next"]) == ("pending", True)
        else:
            ended = started
            break
    assert ended is not None
    assert (ended["outcome"], ended["job"]["status"], ended["job"]["exit_code"]) == ("failed", "failed", 3)
    assert "get_job with this name shows its output" in ended["next"]
    assert "warnings" not in ended


async def test_a_job_whose_processes_are_gone_without_a_word_is_lost(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command="sleep 60")
    folder = sshd.home / ".lium-mcp" / "jobs" / "j"
    await on_sshd.call("stop_job", pod="train", name="j")
    (folder / "exit_code").unlink()
    seen = await on_sshd.call("get_job", pod="train", name="j")
    assert (seen["outcome"], seen["job"]["status"]) == ("failed", "lost")
    # Another container runs now, where the old number may be anybody's.
    (folder / "container").write_text("1\n")
    (folder / "pid").write_text("2\n")
    assert (await on_sshd.call("get_job", pod="train", name="j"))["job"]["status"] == "lost"
    assert (await on_sshd.call("stop_job", pod="train", name="j"))["job"]["status"] == "lost"


async def test_what_does_not_exist_or_cannot_be_named_is_refused(on_sshd: Agent) -> None:
    await rent(on_sshd)
    assert (await on_sshd.call("get_job", pod="train"))["jobs"] == []
    for tool in ("get_job", "stop_job"):
        refused = await on_sshd.refused(tool, pod="train", name="nope")
        assert refused.code == "job_not_found"
        assert "It has no jobs: start_job starts one." in refused.text
    await on_sshd.call("start_job", pod="train", name="real", command="true")
    for tool in ("get_job", "stop_job"):
        assert "It has: real." in (await on_sshd.refused(tool, pod="train", name="nope")).text
    for name in ("../x", "UP", "a b", "-x", "x" * 65):
        assert (await on_sshd.refused("start_job", pod="train", name=name, command="true")).code == "invalid_argument"


async def test_whatever_lies_in_the_folder_of_jobs_is_read_with_care(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="real", command="true")
    jobs = sshd.home / ".lium-mcp" / "jobs"
    for name, files in {
        "empty": {},
        "absurd": {"exit_code": "9" * 5000, "pid": "0", "spec.json": "[" * 5000, "started_at": "-1", "then.json": "7"},
        "liar": {"exit_code": "0", "spec.json": json.dumps({"then": "rm -rf", "max_seconds": "x", "created_at": 3})},
    }.items():
        (jobs / name).mkdir()
        for file, content in files.items():
            (jobs / name / file).write_text(content)
    (jobs / "Not A Job").mkdir()
    (jobs / "file").write_text("")
    await until(on_sshd, "real", over)
    rows = {row["job"]: row["status"] for row in (await on_sshd.call("get_job", pod="train"))["jobs"]}
    assert rows == {"real": "succeeded", "empty": "lost", "absurd": "lost", "liar": "succeeded"}


async def removed(sandbox: Sandbox, agent: Agent) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while (await agent.call("list_pods"))["pods"]:  # noqa: ASYNC110 - another process's doing, as it were
            await asyncio.sleep(0.1)


async def test_then_backs_up_and_removes_the_pod_after_a_completed_backup(on_sshd: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(on_sshd)
    started = await on_sshd.call(
        "start_job", pod="train", name="j", command="sleep 1", then="backup_and_remove", max_hours=1
    )
    assert any("while it runs" in warning for warning in started["warnings"])
    assert any("Lium removes the pod at" in warning for warning in started["warnings"])
    await removed(sandbox, on_sshd)
    assert [pod["id"] for pod in sandbox.state()["pods"]] in ([], [pod_id])
    [backup] = (await on_sshd.call("list_backups"))["backups"]
    assert backup["status"] == "COMPLETED"


def failed_in_minutes(sandbox: Sandbox) -> Callable[[dict[str, Any]], bool]:
    """Whether what was to follow has failed by now, for what is tried again minutes later."""

    def look(seen: dict[str, Any]) -> bool:
        sandbox.clock.advance(minutes=1)
        return "problem" in seen["job"]

    return look


async def test_then_leaves_the_pod_if_the_backup_fails(on_sshd: Agent, sandbox: Sandbox) -> None:
    await rent(on_sshd)
    sandbox.add_fault("backup_fails", message="disk on fire", times=None)
    await on_sshd.call("start_job", pod="train", name="j", command="true", then="backup_and_remove")
    seen = await until(on_sshd, "j", failed_in_minutes(sandbox))
    assert seen["job"]["problem"] == "final_backup_failed"
    assert "backup_and_remove was not done as asked (final_backup_failed): the pod stays and bills" in seen["next"]
    assert "remove_pod ends that" in seen["next"]
    assert len(sandbox.state()["backups"]) == 3
    assert [pod["name"] for pod in (await on_sshd.call("list_pods"))["pods"]] == ["train"]


async def test_then_leaves_the_pod_if_its_schedule_backs_up_a_part(
    on_sshd: Agent, sandbox: Sandbox, sshd: Sshd
) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command=_UNTIL_GO, then="backup_and_remove")
    await on_sshd.call("set_backup_schedule", pod="train", path="/root/logs")  # refused before a job, not after
    (sshd.home / "go").touch()
    sandbox.clock.advance(minutes=1)  # so that there are looks enough left of this minute's
    seen = await until(on_sshd, "j", failed_in_minutes(sandbox))
    assert seen["job"]["problem"] == "backup_partial"
    assert [pod["name"] for pod in (await on_sshd.call("list_pods"))["pods"]] == ["train"]
    assert sandbox.state()["backups"] == []


async def test_then_backup_leaves_the_pod_and_names_the_backup(on_sshd: Agent) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command="exit 1", then="backup")
    seen = await until(on_sshd, "j", lambda seen: "backup_id" in seen["job"])
    backup = await on_sshd.call("get_backup", backup_id=seen["job"]["backup_id"])
    assert backup["outcome"] == "done"
    assert [pod["name"] for pod in (await on_sshd.call("list_pods"))["pods"]] == ["train"]


async def test_what_the_backup_after_a_job_leaves_out_is_said_at_the_start_and_in_get_job(on_sshd: Agent) -> None:
    await rent(on_sshd)
    job = {"pod": "train", "command": "sleep 60", "then": "backup", "max_hours": 2}
    whole = await on_sshd.call("start_job", name="whole", **job)
    assert not any("saves only" in warning for warning in whole["warnings"])
    await on_sshd.call("set_backup_schedule", pod="train", path="/root/ds")
    started = await on_sshd.call("start_job", name="part", **job)
    seen = await on_sshd.call("get_job", pod="train", name="part", wait_seconds=0)
    for answer in (started, seen):
        assert "The backup saves only /root/ds" in answer["warnings"][0]
        assert "not the rest of /root: set_backup_schedule with path=/root" in answer["warnings"][0]


async def test_where_a_backup_lies_elsewhere_than_the_login_folder_is_said(on_sshd: Agent) -> None:
    templates = (await on_sshd.call("list_templates", search="vLLM server"))["templates"]
    template_id = next(row["template_id"] for row in templates if row["name"] == "vLLM server")
    await on_sshd.call("rent_pod", name="train", gpu_type="A100", hours=24, template=template_id, wait_seconds=300)
    for then in ("backup", "backup_and_remove"):
        started = await on_sshd.call("start_job", pod="train", name=f"j-{then}", command="sleep 60", then=then)
        assert "The backup saves only /root/.cache" in started["warnings"][0]
        assert "write results to /root/.cache" in started["warnings"][0]


async def test_nothing_follows_a_job_that_was_stopped(on_sshd: Agent) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command="sleep 60", then="backup_and_remove")
    await asyncio.sleep(0.8)  # so that it is stopped while what is to follow looks at it
    await on_sshd.call("stop_job", pod="train", name="j")
    await asyncio.sleep(2)
    assert [pod["status"] for pod in (await on_sshd.call("list_pods"))["pods"]] == ["RUNNING"]
    assert (await on_sshd.call("list_backups"))["total"] == 0


async def test_a_pod_on_which_another_job_runs_is_not_removed(on_sshd: Agent) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="long", command="sleep 60")
    await on_sshd.call("start_job", pod="train", name="short", command="true", then="backup_and_remove")
    await until(on_sshd, "short", over)
    await asyncio.sleep(2)
    assert [pod["status"] for pod in (await on_sshd.call("list_pods"))["pods"]] == ["RUNNING"]
    assert (await on_sshd.call("list_backups"))["total"] == 0


@pytest.mark.parametrize("by", ["its start", "get_job"])
async def test_a_later_server_takes_up_what_is_to_follow(
    sandbox: Sandbox, sshd: Sshd, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    # What one machine remembers, another does not: there, get_job reads it from the pod.
    address = "https://lium.example/api" if by == "its start" else "http://127.0.0.1/api"
    async with another_session(sandbox, sshd, base_url=address) as agent:
        await rent(agent)
        await agent.call("start_job", pod="train", name="j", command=_UNTIL_GO, then="backup_and_remove")
    (sshd.home / "go").touch()
    ended = sshd.home / ".lium-mcp" / "jobs" / "j" / "exit_code"
    await asyncio.to_thread(wait_until, lambda: ended.exists() and ended.read_text() == "0\n")
    async with another_session(sandbox, sshd, base_url=address, read_only=True) as reader:
        seen = await reader.call("get_job", pod="train", name="j")
        assert "only reads" in seen["next"]
        await asyncio.sleep(1.5)
        assert [pod["status"] for pod in (await reader.call("list_pods"))["pods"]] == ["RUNNING"]
    if by == "its start":
        monkeypatch.setattr("lium_mcp.rentals.worker._FIRST_LOOK_SECONDS", 0.0)
    async with another_session(sandbox, sshd, base_url=address) as later:
        if by == "get_job":
            seen = await later.call("get_job", pod="train", name="j")
            assert "now follows backup_and_remove" in seen["next"]
        await removed(sandbox, later)
        assert [row["status"] for row in (await later.call("list_backups"))["backups"]] == ["COMPLETED"]


async def test_the_person_is_asked_before_a_job_that_ends_with_the_removal_of_the_pod(
    sandbox: Sandbox, sshd: Sshd
) -> None:
    asked: list[str] = []

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(
            action="decline" if "remove the pod when it ends" in params.message else "accept", content={}
        )

    settings = Settings(api_key="sk_sandbox", base_url="http://127.0.0.1/api", ssh_key_path=sshd.key_path)
    clock = TurnedClock(sandbox)
    server = build_server(settings, transport=at_sshd(sandbox, sshd), clock=clock)
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path) as unasked:
        await rent(unasked)
    async with Client(server, elicitation_callback=answer) as client:
        job = {"pod": "train", "command": "true"}
        refused = await client.call_tool("start_job", {**job, "name": "a", "then": "backup_and_remove"})
        assert refused.is_error
        allowed = await client.call_tool("start_job", {**job, "name": "b", "then": "backup"})
        assert not allowed.is_error
    assert len(asked) == 1
    assert "train" in asked[0]
    assert {path.name for path in (sshd.home / ".lium-mcp" / "jobs").iterdir()} == {"b"}


async def test_a_job_that_was_killed_and_cannot_be_written_off_is_not_said_to_be_as_before(
    on_sshd: Agent, sshd: Sshd
) -> None:
    await rent(on_sshd)
    await on_sshd.call("start_job", pod="train", name="j", command="sleep 60")
    (sshd.home / ".lium-mcp/jobs/j/exit_code").mkdir()  # so nobody can write how it ended
    failure = await on_sshd.refused("stop_job", pod="train", name="j")
    assert failure.code == "pod_disk_refused"
    assert "Nothing was changed" not in failure.text
    assert "was changed, at least in part" in failure.text
