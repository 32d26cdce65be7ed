"""Commands on a pod, against a real OpenSSH server: what comes of them, what is said of it, what is never said."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.remote.commands import Output
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.sshd import Sshd, at_sshd, make_key, rent, wait_until

SECRET = "hf_SECRETVALUE"


async def test_a_command_is_run_and_its_exit_code_and_output_come_back(on_sshd: Agent, sshd: Sshd) -> None:
    pod_id = await rent(on_sshd)
    run = await on_sshd.call("run_command", pod="train", command="pwd; echo problem >&2; exit 3")
    assert run["outcome"] == "done"
    assert (run["pod_id"], run["exit_code"]) == (pod_id, 3)
    assert (run["stdout"], run["stderr"]) == (f"{sshd.home}\n", "problem\n")
    assert "instructions" in run["note"]
    assert "cut_bytes" not in run


async def test_a_second_command_takes_no_new_handshake(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    for number in range(3):
        assert (await on_sshd.call("run_command", pod="train", command=f"echo {number}"))["stdout"] == f"{number}\n"
    await on_sshd.call("upload_files", pod="train", content="x", pod_path="x")
    assert sshd.logins() == 1


async def test_long_output_is_cut_in_the_middle_and_says_how_to_get_the_rest(on_sshd: Agent) -> None:
    await rent(on_sshd)
    run = await on_sshd.call("run_command", pod="train", command="echo first; yes | head -c 3000000; echo last")
    assert run["stdout"].startswith("first\n")
    assert run["stdout"].endswith("y\nlast\n")
    assert f"[... {run['cut_bytes']} bytes cut ...]" in run["stdout"]
    assert len(run["stdout"]) + run["cut_bytes"] == pytest.approx(3_000_011, abs=60)
    assert "download_files" in run["next"]


async def test_what_takes_too_long_is_stopped_with_all_that_it_started(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    run = await on_sshd.call(
        "run_command", pod="train", command="echo on; (sleep 60; true) & sleep 60", timeout_seconds=4
    )
    assert run["outcome"] == "stopped"
    assert "exit_code" not in run
    assert run["stdout"] == "on\n"
    assert "was stopped" in run["problem"]
    assert "start_job" in run["next"]
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


# Each leaves the process group of the shell that the command is for.
LEAVING = [
    "setsid sh -c '{left}' & sleep 60",
    "bash -c 'set -m; ({left}) & wait'",
    "nohup setsid sh -c '{left}' >/dev/null 2>&1 </dev/null & sleep 60",
    # Without the mark in its environment, it is found by who started it, or by the file that it holds open.
    "env -i setsid sh -c '{left}' & sleep 60",
    "env -i setsid sh -c '({left}) &'; sleep 60",
    "exec env -i sh -c 'setsid sh -c \"{left}\" & sleep 60'",
]


@pytest.mark.parametrize("command", LEAVING)
async def test_at_the_time_limit_ends_too_what_has_left_the_process_group(
    on_sshd: Agent, sshd: Sshd, command: str
) -> None:
    await rent(on_sshd)
    command = command.format(left="sleep 60; true")
    run = await on_sshd.call("run_command", pod="train", command=command, timeout_seconds=1)
    assert run["outcome"] == "stopped"
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_a_daemon_that_hides_in_every_way_is_the_one_thing_that_escapes(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    hidden = "env -i setsid sh -c 'exec 9>&-; (sleep 1; touch late) & exit' ; sleep 60"
    run = await on_sshd.call("run_command", pod="train", command=hidden, timeout_seconds=4)
    assert run["outcome"] == "stopped"
    await asyncio.to_thread(wait_until, (sshd.home / "late").exists)


async def test_when_the_client_goes_all_that_a_command_began_ends(sandbox: Sandbox, sshd: Sshd) -> None:
    command = f"touch begun; {LEAVING[0]}".format(left="sleep 60; true")
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=sshd.key_path) as agent:
        await rent(agent)
        async with asyncio.timeout(60), anyio.create_task_group() as group:
            group.start_soon(lambda: agent.raw("run_command", pod="train", command=command))
            while not (sshd.home / "begun").exists():  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            group.cancel_scope.cancel()
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_when_the_connection_breaks_all_that_a_command_began_ends(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    command = "setsid sh -c 'sleep 60; true' & kill -9 $PPID; sleep 60"
    failure = await on_sshd.refused("run_command", pod="train", command=command)
    assert failure.code == "connection_lost"
    assert "was stopped" in failure.text
    await asyncio.to_thread(wait_until, lambda: not sshd.processes())


async def test_what_is_meant_to_live_on_after_a_command_lives_on(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    command = "nohup sh -c 'sleep 0.5; touch served' >/dev/null 2>&1 </dev/null & echo begun"
    run = await on_sshd.call("run_command", pod="train", command=command)
    assert (run["outcome"], run["exit_code"]) == ("done", 0)
    assert "problem" not in run
    await asyncio.to_thread(wait_until, (sshd.home / "served").exists)


async def test_what_is_left_running_in_the_background_is_said(on_sshd: Agent) -> None:
    await rent(on_sshd)
    run = await on_sshd.call("run_command", pod="train", command="sleep 60 & echo begun")
    assert (run["outcome"], run["exit_code"], run["stdout"]) == ("done", 0, "begun\n")
    assert "in the background" in run["problem"]


async def test_several_pods_have_a_result_each_and_one_that_fails_costs_nothing_of_the_others(
    on_sshd: Agent, sandbox: Sandbox
) -> None:
    first = await rent(on_sshd, name="first")
    second = await rent(on_sshd, name="second", wait_seconds=0)
    runs = await on_sshd.call("run_command", pods=["first", "second"], command="echo hello")
    assert runs["outcome"] == "partial"
    done, failed = runs["pods"]
    assert (done["pod_id"], done["outcome"], done["stdout"]) == (first, "done", "hello\n")
    assert (failed["pod_id"], failed["outcome"]) == (second, "failed")
    assert "pod_not_running" in failed["problem"]


async def test_a_pod_that_does_not_exist_stops_all_before_anything_runs(on_sshd: Agent, sshd: Sshd) -> None:
    await rent(on_sshd)
    failure = await on_sshd.refused("run_command", pods=["train", "nope"], command="touch there")
    assert failure.code == "pod_not_found"
    assert not (sshd.home / "there").exists()


@pytest.mark.parametrize(
    "arguments", [{}, {"pod": "train", "pods": ["train"]}, {"pod": "train", "command": "a\0b"}, {"pods": []}]
)
async def test_arguments_that_do_not_fit_are_refused(on_sshd: Agent, arguments: dict[str, Any]) -> None:
    await rent(on_sshd)
    assert (await on_sshd.refused("run_command", **({"command": "true"} | arguments))).code == "invalid_argument"


async def test_a_changed_host_key_stops_the_call_and_changes_nothing(
    sandbox: Sandbox, sshd: Sshd, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "base_url": "https://lium.example/api",
        "transport": at_sshd(sandbox, sshd),
        "ssh_key_path": sshd.key_path,
    }
    async with agent_on(sandbox, **settings) as agent:
        await rent(agent)
        await agent.call("run_command", pod="train", command="touch first")
    sshd.change_host_key()
    async with agent_on(sandbox, **settings) as agent:  # the pin outlives the server
        for tool, arguments in (
            ("run_command", {"command": f"touch second {SECRET}"}),
            ("start_job", {"command": f"touch second {SECRET}", "name": "j"}),
            ("upload_files", {"content": "x", "pod_path": "second"}),
        ):
            failure = await agent.refused(tool, pod="train", **arguments)
            assert failure.code == "host_key_changed"
            assert "Nothing was changed." in failure.text
            assert SECRET not in failure.text
        assert "gpus" not in (await agent.call("get_pod", pod="train"))["pod"]
        assert {path.name for path in sshd.home.iterdir()} == {"first"}
        assert sshd.logins() == 1
        # Our own reboot makes a new container, whose key is new by right.
        await agent.call("reboot_pod", pod="train", wait_seconds=300)
        assert (await agent.call("run_command", pod="train", command="echo back"))["stdout"] == "back\n"
    [pin] = (tmp_path / "home" / ".local" / "state" / "lium-mcp" / "host-keys").iterdir()
    assert pin.stat().st_mode & 0o777 == 0o600


async def test_what_a_command_says_is_in_no_log_and_no_failure(
    on_sshd: Agent, sshd: Sshd, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await rent(on_sshd)
    command = f"export HF_TOKEN={SECRET}; true"
    await on_sshd.call("run_command", pod="train", command=command)
    await on_sshd.call("start_job", pod="train", name="quiet", command=command)
    await on_sshd.call("run_command", pod="train", command=f"sleep 9; {command}", timeout_seconds=1)
    failures = [
        await on_sshd.refused("start_job", pod="train", name="quiet", command=command),
        await on_sshd.refused("start_job", pod="train", name="NOT A NAME", command=command),
        await on_sshd.refused("run_command", pod="nope", command=command),
        await on_sshd.refused("run_command", pod="train", command=command, timeout_seconds=-1),
        await on_sshd.refused("run_command", pod="train", command=command * 3000),
    ]
    assert SECRET not in caplog.text
    assert SECRET not in "".join(failure.text for failure in failures)
    assert "asyncssh" not in {
        record.name.split(".")[0] for record in caplog.records if record.levelno < logging.WARNING
    }


async def test_a_key_that_the_pod_does_not_know_is_said(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=tmp_path / "other") as agent:
        await rent(agent)
        assert (await agent.refused("run_command", pod="train", command="true")).code == "ssh_refused"


async def test_a_locked_key_is_said_and_its_passphrase_opens_it(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    make_key(tmp_path / "locked", passphrase="open sesame")
    with (sshd.folder / "authorized_keys").open("a") as keys:
        keys.write((tmp_path / "locked.pub").read_text())
    settings: dict[str, Any] = {"transport": at_sshd(sandbox, sshd), "ssh_key_path": tmp_path / "locked"}
    async with agent_on(sandbox, **settings) as agent:
        await rent(agent)
        failure = await agent.refused("run_command", pod="train", command="true")
        assert failure.code == "ssh_key_locked"
        assert "LIUM_SSH_KEY_PASSPHRASE" in failure.text
    async with agent_on(sandbox, ssh_key_passphrase="open sesame", **settings) as agent:
        assert (await agent.call("run_command", pod="train", command="echo in"))["stdout"] == "in\n"
    async with agent_on(sandbox, ssh_key_passphrase="not it", **settings) as agent:
        failure = await agent.refused("run_command", pod="train", command="true")
        assert "not it" not in failure.text


async def test_without_any_key_there_is_a_sentence(sandbox: Sandbox, sshd: Sshd, tmp_path: Path) -> None:
    async with agent_on(sandbox, transport=at_sshd(sandbox, sshd), ssh_key_path=tmp_path / "none") as agent:
        await agent.call("add_ssh_key", name="test", public_key=sshd.key_path.with_suffix(".pub").read_text())
        await rent(agent)
        assert (await agent.refused("run_command", pod="train", command="true")).code == "ssh_key_missing"


@given(chunks=st.lists(st.binary(max_size=40), max_size=40), head=st.integers(0, 30), tail=st.integers(1, 30))
def test_an_output_keeps_its_ends_whatever_its_pieces(chunks: list[bytes], head: int, tail: int) -> None:
    output, whole = Output(head_bytes=head, tail_bytes=tail), b"".join(chunks)
    for chunk in chunks:
        output.add(chunk)
    assert output.total_bytes == len(whole)
    assert output.cut_bytes == max(len(whole) - head - tail, 0)
    if not output.cut_bytes:
        assert output.text() == whole.decode(errors="replace")
    else:
        first, _, last = output.text().partition(f"\n[... {output.cut_bytes} bytes cut ...]\n")
        assert whole[:head].decode(errors="replace").startswith(first)
        assert whole[-tail:].decode(errors="replace").endswith(last)
