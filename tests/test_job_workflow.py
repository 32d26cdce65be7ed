"""One pod for one job, through tools: on a real OpenSSH server, and with our server killed in the middle."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from lium_mcp.sandbox import API_KEY
from tests.harness import Agent, make_key_pair
from tests.http_server import Caller, calling, serving_within
from tests.sshd import Sshd

# Our servers look that many times more often: Lium's time runs faster here too.
HASTE = 10
TRAINING = 'echo training\n{wait}\necho "trained on" $(cat project/data) > project/model\necho done\n'


def write_project(folder: Path, *, wait: str) -> None:
    (folder / "project").mkdir(parents=True)
    (folder / "project" / "train.sh").write_text(TRAINING.format(wait=wait))
    (folder / "project" / "data").write_text("1 2 3\n")


async def begin(agent: Agent | Caller) -> str:
    rented = await agent.call("rent_pod", name="job", gpu_type="A100", hours=6, wait_seconds=120)
    assert rented["outcome"] == "done"
    up = await agent.call("upload_files", pod="job", local_path="project")
    assert (up["outcome"], up["copied_files"]) == ("done", 2)
    look = await agent.call("run_command", pod="job", command="cat project/data")
    assert look["stdout"] == "1 2 3\n"
    started = await agent.call("start_job", pod="job", name="train", command="sh project/train.sh", max_hours=1)
    assert started["job"]["status"] == "running"
    return str(rented["pod_id"])


async def finish(agent: Agent | Caller, folder: Path, pod_id: str) -> None:
    async with asyncio.timeout(60):
        # A turned clock's wait passes at once, and the OpenSSH server's does not.
        while (job := await agent.call("get_job", pod="job", name="train"))["outcome"] == "pending":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (job["outcome"], job["job"]["exit_code"], job["log"]) == ("done", 0, "training\ndone\n")
    down = await agent.call("download_files", pod="job", pod_path="project/model", local_path="model")
    assert down["outcome"] == "done"
    assert (folder / "model").read_text() == "trained on 1 2 3\n"
    removed = await agent.call("remove_pod", pod="job", final_backup=True, wait_seconds=300)
    assert removed["outcome"] == "done"
    backup = await agent.call("get_backup", backup_id=removed["backup_id"])
    assert backup["backup"]["status"] == "COMPLETED"
    assert pod_id not in [pod["pod_id"] for pod in (await agent.call("list_pods"))["pods"]]


async def test_a_job_on_a_fresh_pod_from_its_files_to_its_removal(on_sshd: Agent, sshd: Sshd, tmp_path: Path) -> None:
    write_project(tmp_path / "work", wait="while [ ! -e go ]; do sleep 0.05; done")
    pod_id = await begin(on_sshd)
    (sshd.home / "go").touch()
    await finish(on_sshd, tmp_path / "work", pod_id)
    assert sshd.logins() == 1


@contextmanager
def simulated_lium() -> Iterator[str]:
    """A sandbox as a process of its own, which outlives the servers that use it; return its address."""
    command = [sys.executable, "-m", "lium_mcp", "sandbox", "--port", "0", "--speed", "40"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process.stderr.readline().rsplit(" ", 1)[-1].strip()
        finally:
            process.terminate()


def turn(address: str, *, seconds: float) -> None:
    """Turn the clock of a simulated Lium forward."""
    clock = f"{address.removesuffix('/api')}/_sandbox/clock"
    httpx2.post(clock, json={"advance_seconds": seconds}, trust_env=False).raise_for_status()


async def test_a_server_that_is_killed_in_the_middle_leaves_a_job_that_the_next_one_finds(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    write_project(tmp_path / "work", wait="sleep 1800")
    with simulated_lium() as address:
        settings: dict[str, Any] = {
            "LIUM_API_KEY": API_KEY,
            "LIUM_BASE_URL": address,
            "LIUM_SSH_KEY_PATH": str(tmp_path / "key"),
            "LIUM_MCP_LOCAL_DIRS": str(tmp_path / "work"),
        }
        with serving_within(tmp_path / "first", settings, haste=HASTE) as first:
            async with calling(first.url, "modern") as agent:
                pod_id = await begin(agent)
            first.process.kill()
            first.process.wait()
        with serving_within(tmp_path / "second", settings, haste=HASTE) as second:
            async with calling(second.url, "modern") as agent:
                [job] = (await agent.call("get_job", pod="job"))["jobs"]
                assert (job["job"], job["status"]) == ("train", "running")
                turn(address, seconds=1800)
                await finish(agent, tmp_path / "work", pod_id)


async def test_what_follows_a_job_is_done_by_another_server_when_the_first_is_killed(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    with simulated_lium() as address:
        settings: dict[str, Any] = {
            "LIUM_API_KEY": API_KEY,
            "LIUM_BASE_URL": address,
            "LIUM_SSH_KEY_PATH": str(tmp_path / "key"),
            "LIUM_MCP_STATE_URL": f"sqlite:///{tmp_path / 'shared.db'}",
        }
        with (
            serving_within(tmp_path / "first", settings, haste=HASTE) as first,
            serving_within(tmp_path / "second", settings, haste=HASTE) as second,
        ):
            async with calling(first.url, "modern") as agent:
                await agent.call("rent_pod", name="job", gpu_type="A100", hours=6, wait_seconds=120)
                await agent.call("start_job", pod="job", name="j", command="sleep 60", then="backup_and_remove")
            first.process.kill()
            first.process.wait()
            async with calling(second.url, "modern") as agent, asyncio.timeout(60):
                while (await agent.call("list_pods"))["pods"]:  # noqa: ASYNC110 - another process's doing
                    await asyncio.sleep(0.5)
                [backup] = (await agent.call("list_backups"))["backups"]
                assert backup["status"] == "COMPLETED"
