"""A restore overwrites nothing: pods that answer SSH are looked into, and each is judged by itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.api.pods.models import Pod
from lium_mcp.remote import PodAccess
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.restore_targets import look
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Person, agent_on, make_key_pair
from tests.sshd import Sshd
from tests.wires import Forward, Wire, ask, editing, truth


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    simulated = Sandbox(seed=7, speed=0, ssh=True)
    yield simulated
    await simulated.aclose()


@pytest.fixture
def settings_of_agent(tmp_path: Path) -> dict[str, Any]:
    make_key_pair(tmp_path / "key")
    return {"ssh_key_path": tmp_path / "key"}


async def backed_up(agent: Agent, *pods: str) -> str:
    """Rent pods, write an old file into the first and back it up; the backup's id."""
    for name in pods:
        rented = await agent.call("rent_pod", name=name, gpu_type="A100", gpu_count=1, hours=24, wait_seconds=300)
        assert rented["outcome"] == "done"
    await run(agent, pods[0], "echo old > model")
    made = await agent.call("create_backup", pod=pods[0], wait_seconds=300)
    assert made["outcome"] == "done"
    return str(made["backup"]["backup_id"])


async def run(agent: Agent, pod: str, command: str) -> str:
    done = await agent.call("run_command", pod=pod, command=command)
    assert (done["outcome"], done["exit_code"]) == ("done", 0), done
    return str(done["stdout"])


async def restore(agent: Agent, backup_id: str, *pods: str, **more: Any) -> dict[str, Any]:
    return await agent.call("restore_backup", backup_id=backup_id, pods=list(pods), wait_seconds=300, **more)


@pytest.mark.parametrize(
    ("path", "made"),
    [
        ("/root", "true"),
        ("/root/full", "mkdir full; echo new > full/model"),
        ("/root/full", "mkdir full; echo new > full/.hidden"),
        ("/root/full", "mkdir -p full/below"),
        ("/root/model", "true"),
        ("/root/model/below", "true"),
    ],
)
async def test_a_restore_over_content_is_refused_and_orders_nothing(
    agent: Agent, sandbox: Sandbox, path: str, made: str
) -> None:
    backup_id = await backed_up(agent, "worker")
    await run(agent, "worker", f"echo new > model; {made}")
    answer = await restore(agent, backup_id, "worker", path=path)
    assert answer["outcome"] == "failed"
    assert "restore_target_not_empty" in answer["pods"][0]["problem"]
    assert truth(sandbox, "restores") == []
    assert await run(agent, "worker", "cat model") == "new\n"


@pytest.mark.parametrize(
    "path", ["/root/none", "/root/none/deep", "/root/empty", "/root/empty/../empty/", "/root/empty/"]
)
async def test_a_restore_into_nothing_goes_through_unasked(agent: Agent, path: str) -> None:
    backup_id = await backed_up(agent, "worker")
    await run(agent, "worker", "mkdir empty")
    answer = await restore(agent, backup_id, "worker", path=path)
    if ".." in path:
        assert 'has a ".." in it' in answer["pods"][0]["problem"]
        return
    assert answer["outcome"] == "done"
    assert await run(agent, "worker", f"cat {path}/model") == "old\n"


async def test_the_usual_directory_is_taken_while_it_is_empty_and_a_new_name_after_that(agent: Agent) -> None:
    backup_id = await backed_up(agent, "worker")
    first = (await restore(agent, backup_id, "worker"))["pods"][0]["restore"]["path"]
    assert first == "/root/restored"
    await run(agent, "worker", "echo trained > restored/model")
    second = (await restore(agent, backup_id, "worker"))["pods"][0]["restore"]["path"]
    assert second.startswith("/root/restored-")
    assert await run(agent, "worker", f"cat restored/model {second}/model") == "trained\nold\n"


RUNNING = "00000000-0000-4000-8000-00000000beef"


def also_running(wire: Wire, path: str | None, **more: Any) -> None:
    """Let Lium list a restore into each pod that is not over."""
    row = {"id": RUNNING, "status": "IN_PROGRESS", "restore_path": path} | more
    wire.on("GET", "/pods/*/restore-logs", editing(lambda page: page | {"items": [row, *page["items"]]}))


@pytest.mark.parametrize("path", ["/root/data", "/root/data/", "/root/data/below", "/root", "/root//data/./", None])
async def test_a_directory_into_which_another_restore_runs_is_refused(
    sandbox: Sandbox, tmp_path: Path, path: str | None
) -> None:
    make_key_pair(tmp_path / "key")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key") as agent:
        backup_id = await backed_up(agent, "worker")
        also_running(wire, path)
        answer = await restore(agent, backup_id, "worker", path="/root/data")
        assert answer["outcome"] == "failed"
        assert "restore_target_taken" in answer["pods"][0]["problem"]
        assert RUNNING in answer["pods"][0]["problem"]
        assert not wire.sent("POST", "/pods/*/restore")
        also_running(wire, path, status="COMPLETED")
        assert (await restore(agent, backup_id, "worker", path="/root/data"))["outcome"] == "done"


@pytest.mark.parametrize("path", ["/root/restored", "/root/restored/below", None])
async def test_the_usual_directory_is_not_taken_while_another_restore_runs_into_it(
    sandbox: Sandbox, tmp_path: Path, path: str | None
) -> None:
    make_key_pair(tmp_path / "key")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key") as agent:
        backup_id = await backed_up(agent, "worker")
        also_running(wire, path)
        answer = await restore(agent, backup_id, "worker")
        assert answer["outcome"] == "done"
        assert answer["pods"][0]["restore"]["path"].startswith("/root/restored-")
        also_running(wire, "/root")
        answer = await restore(agent, backup_id, "worker")
        assert "restore_target_taken" in answer["pods"][0]["problem"]


async def test_restores_into_one_pod_take_turns(sandbox: Sandbox, tmp_path: Path) -> None:
    make_key_pair(tmp_path / "key")
    wire = Wire(sandbox)

    async def begin(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        # Lium lists it only later.
        return httpx2.Response(
            200, json={"restore_log_id": f"{RUNNING[:-1]}{len(wire.sent('POST', '/pods/*/restore'))}"}
        )

    async with agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key") as agent:
        backup_id = await backed_up(agent, "worker")
        wire.on("POST", "/pods/*/restore", begin)

        async def order(path: str) -> dict[str, Any]:
            answer = await agent.call("restore_backup", backup_id=backup_id, pods=["worker"], path=path, wait_seconds=0)
            return dict(answer["pods"][0])

        await asyncio.gather(order(""), order(""))
        both = await asyncio.gather(order("/root/data"), order("/root/data/below"))
    paths = [json.loads(request.content)["restore_path"] for request in wire.sent("POST", "/pods/*/restore")]
    assert len(paths) == len(set(paths)) == 3
    assert sorted(row["outcome"] for row in both) == ["failed", "pending"]
    (problem,) = (row["problem"] for row in both if row["outcome"] == "failed")
    assert f"restore {RUNNING[:-1]}3 into {paths[2]}, which is not over" in problem


async def test_each_pod_is_judged_by_itself(agent: Agent) -> None:
    backup_id = await backed_up(agent, "full", "free")
    await run(agent, "full", "mkdir data; echo new > data/model")
    answer = await restore(agent, backup_id, "full", "free", path="/root/data")
    assert [row["outcome"] for row in answer["pods"]] == ["failed", "done"]
    assert await run(agent, "full", "cat data/model") == "new\n"
    assert await run(agent, "free", "cat data/model") == "old\n"


async def test_a_pod_that_does_not_answer_is_asked_about_and_a_yes_counts_for_it_alone(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    make_key_pair(tmp_path / "key")
    person = Person("yes")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key", confirm="never") as renter:
        backup_id = await backed_up(renter, "seen", "deaf")
        deaf = (await renter.call("get_pod", pod="deaf"))["pod"]["pod_id"]
    sandbox.add_fault("ssh_refuses", times=None, pod_name="deaf")
    async with agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key", person=person) as agent:
        answer = await restore(agent, backup_id, "seen", "deaf", path="/root/data")
        assert answer["outcome"] == "done", answer
        (question,) = person.questions
        assert deaf in question
        assert "seen" not in question
        # What was seen to be empty, and cannot be looked at when it counts, is nobody's yes.
        seen = (await agent.call("get_pod", pod="seen"))["pod"]["pod_id"]

        read_after_yes: list[str] = []

        async def going_deaf(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            if len(person.questions) > 1:
                read_after_yes.append(request.url.path)
                if len(read_after_yes) == 2:  # the first holds the yes against the question; this is before the order
                    await ask(sandbox, "POST", f"/pods/{seen}/reboot", {})
            return await forward(request)

        wire.on("GET", "/backup-logs/*", going_deaf)
        answer = await restore(agent, backup_id, "seen", "deaf", path="/root/more")
    rebooting, other = answer["pods"]
    assert "restore_target_unseen" in rebooting["problem"]
    assert other["outcome"] == "done"
    assert len(person.questions) == 2


async def test_where_nobody_can_look_what_was_restored_before_is_known_to_be_there(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    make_key_pair(tmp_path / "key")
    async with agent_on(sandbox, ssh_key_path=tmp_path / "key", confirm="never") as renter:
        backup_id = await backed_up(renter, "full", "free")
    person = Person("yes")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        assert (await restore(agent, backup_id, "free", path="/root/data"))["outcome"] == "done"
        for path in ("/root/data", "/root/data/below"):
            answer = await restore(agent, backup_id, "free", path=path)
            assert "restore_target_not_empty" in answer["pods"][0]["problem"]
        assert len(person.questions) == 1, "nobody is asked to agree to what would be written over"
        # Agreed to while one more is under way, which is over before this one begins.
        asked = asyncio.gather(*(restore(agent, backup_id, "free", path="/root/more") for _ in range(2)))
        outcomes = sorted(answer["outcome"] for answer in await asked)
        assert outcomes == ["done", "failed"]
    assert len(wire.sent("POST", "/pods/*/restore")) == 2


async def test_a_way_through_a_link_or_onto_another_file_system_is_refused(
    sshd: Sshd,
) -> None:
    """On a real OpenSSH server; /proc is another file system on every machine that has one."""
    (sshd.home / "real").mkdir()
    (sshd.home / "way").symlink_to("real")
    (sshd.home / "broken").symlink_to("nowhere")
    access = PodAccess(KeySource(lambda: sshd.key_path), None, None)
    async with access.to(Pod(id="p", status="RUNNING", ssh_connect_cmd=sshd.ssh_command)) as connection:
        home = str(sshd.home)
        for name, found in {
            "real": "fresh",
            "none/deep": "fresh",
            "way": "link",
            "way/x": "link",
            "broken": "link",
        }.items():
            assert await look(connection, home, f"{home}/{name}") == found, name
        assert await look(connection, "/", "/proc/sys") == "mount"
        assert await look(connection, "/", "/proc/none-of-this-name") == "mount"
    await access.aclose()
