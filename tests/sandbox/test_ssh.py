"""SSH into simulated pods: who gets in, what a session is, what time and the pod's end do to it."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from lium_mcp.sandbox import Sandbox
from tests.sandbox.conftest import START
from tests.sandbox.ssh_pods import ANSWER_SECONDS, SshPod, ssh_pod
from tests.sandbox.wire import wire_to
from tests.wires import eventually

RUNNER = "#!/bin/sh\n# lium-mcp job runner, version 1\nexit 1\n"
JOB = ".lium-mcp/jobs/train"


@pytest.fixture
async def pod() -> AsyncIterator[SshPod]:
    async with ssh_pod() as made:
        yield made


async def start_job(pod: SshPod, command: str, *, max_seconds: int = 3600) -> None:
    await pod.out(f"mkdir -p {JOB}")
    for name, text in (("run", RUNNER), ("command", command)):
        await pod.run(f"cat > {JOB}/{name}", stdin=text)
    await pod.out(f"setsid sh {JOB}/run {max_seconds} </dev/null >/dev/null 2>&1 &")


async def begin_backup(pod: SshPod, path: str) -> str:
    config = {"pod_id": pod.pod_id, "backup_frequency_hours": 24, "retention_days": 7, "backup_path": path}
    await pod.wire.ok("createBackupConfig", json=config)
    return str((await pod.wire.ok("backupPodNow", pod_id=pod.pod_id, json={"name": "now"}))["backup_log_id"])


class _Ends(asyncssh.SSHClientSession[bytes]):
    """Notes how a session ends."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def eof_received(self) -> bool:
        self.seen.append("end of output")
        return False

    def exit_status_received(self, status: int) -> None:
        self.seen.append(f"exit status {status}")


async def test_a_session_ends_its_output_before_it_says_how_it_ended(pod: SshPod) -> None:
    async with await pod.connect() as connection:
        session = _Ends()
        channel, _ = await connection.create_session(lambda: session, "cat; exit 3")
        channel.write_eof()
        await asyncio.wait_for(channel.wait_closed(), ANSWER_SECONDS)
    assert session.seen == ["end of output", "exit status 3"]


# who gets in


async def test_row_names_the_port_that_answers(pod: SshPod) -> None:
    row = await pod.wire.pod(pod.pod_id)
    assert row["ssh_connect_cmd"] == f"ssh root@127.0.0.1 -p {row['ports_mapping']['22']}"
    assert await pod.out("echo hello $USER; pwd") == "hello root\n/root\n"


async def test_only_the_pods_own_keys_open_it(pod: SshPod) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    for options in ({"client_keys": [stranger]}, {"username": "ubuntu"}, {"client_keys": None, "password": "root"}):
        with pytest.raises(asyncssh.PermissionDenied):
            await pod.connect(**options)
    async with ssh_pod() as other:
        with pytest.raises(asyncssh.PermissionDenied):
            await pod.connect(client_keys=[other.key])


async def test_nothing_is_forwarded(pod: SshPod) -> None:
    async with await pod.connect() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", await pod.port())
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 1)


async def test_each_container_has_a_host_key_of_its_own(pod: SshPod) -> None:
    async def host_key() -> str:
        connection = await pod.connect()
        key = connection.get_server_host_key()
        connection.close()
        assert key is not None
        return key.get_fingerprint()

    first = await host_key()
    assert await host_key() == first
    port = await pod.port()
    await pod.reboot()
    rebooted = await host_key()
    assert rebooted != first
    assert await pod.port() == port
    other = await pod.wire.template("vllm/vllm-openai")
    await pod.wire.ok("switchPodTemplate", pod_id=pod.pod_id, json={"template_id": other})
    pod.sandbox.clock.advance(minutes=3)
    assert await host_key() not in {first, rebooted}


async def test_without_ssh_rows_name_an_address_that_nobody_has() -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START)
    async with wire_to(sandbox) as wire:
        row = await wire.pod(await wire.running(sandbox))
    assert row["ssh_connect_cmd"].startswith("ssh root@203.0.113.")


@pytest.mark.parametrize(("ssh", "module"), [(False, "lium_mcp.sandbox.container"), (True, "asyncssh")])
def test_ssh_is_imported_when_a_pod_first_runs(ssh: bool, module: str) -> None:
    code = (
        f"import sys, lium_mcp.server, lium_mcp.sandbox as s; s.Sandbox(ssh={ssh})\n"
        f"sys.exit(any(n.startswith({module!r}) for n in sys.modules))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0


# the end of a container


@pytest.mark.parametrize("end", ["deletePod", "rebootPod"])
async def test_connections_end_when_the_pod_stops_running(pod: SshPod, end: str) -> None:
    port = await pod.port()
    async with await pod.connect() as connection:
        await connection.create_process("sleep 1000")
        await pod.wire.ok(end, pod_id=pod.pod_id, **({"json": {}} if end == "rebootPod" else {}))
        await asyncio.wait_for(connection.wait_closed(), ANSWER_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_removal_that_falls_due_ends_connections_without_any_request(pod: SshPod) -> None:
    when = "2026-10-06T13:00:00Z"
    await pod.wire.ok("scheduleRemoval", pod_id=pod.pod_id, json={"removal_scheduled_at": when})
    async with await pod.connect() as connection:
        pod.sandbox.clock.advance(hours=2)
        await asyncio.wait_for(connection.wait_closed(), ANSWER_SECONDS)


async def test_a_failed_reboot_leaves_nobody_listening(pod: SshPod) -> None:
    pod.sandbox.add_fault("reboot_fails")
    port = await pod.port()
    await pod.wire.ok("rebootPod", pod_id=pod.pod_id, json={})
    pod.sandbox.clock.advance(minutes=2)
    assert (await pod.wire.pod(pod.pod_id))["status"] == "REBOOT_FAILED"
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_reboot_loses_processes_and_all_but_the_local_volume(pod: SshPod) -> None:
    await pod.out("echo kept > /root/kept; echo lost > /tmp/lost; nohup sleep 9999 >/dev/null 2>&1 &")
    await pod.reboot()
    assert await pod.out("cat /root/kept; ls /tmp") == "kept\n"
    assert "sleep" not in await pod.out("ps")


async def test_a_switched_template_loses_everything(pod: SshPod) -> None:
    await pod.out("echo lost > /root/lost")
    other = await pod.wire.template("vllm/vllm-openai")
    await pod.wire.ok("switchPodTemplate", pod_id=pod.pod_id, json={"template_id": other})
    pod.sandbox.clock.advance(minutes=3)
    await pod.wire.pod(pod.pod_id)
    assert (await pod.run("cat /root/lost")).exit_status == 1


async def test_a_volume_carries_files_from_pod_to_pod() -> None:
    sandbox = Sandbox(seed=7, speed=0, start=START, ssh=True)
    async with wire_to(sandbox) as wire:
        volume = await wire.ok("createVolume", json={"name": "data", "description": ""})
    async with ssh_pod(sandbox, volume_id=volume["id"]) as first:
        await first.out("echo moved > /mnt/file")
        await first.wire.ok("deletePod", pod_id=first.pod_id)
        sandbox.clock.advance(minutes=1)
        key = first.key.export_public_key().decode()
        again = await first.wire.running(sandbox, user_public_key=[key], volume_id=volume["id"])
        second = SshPod(sandbox, first.wire, first.key, again)
        assert await second.out("cat /mnt/file; df /mnt | grep -c /mnt") == "moved\n1\n"


async def test_a_backup_brings_files_into_another_pod(pod: SshPod) -> None:
    wire, sandbox = pod.wire, pod.sandbox
    await pod.out("mkdir -p results/deep; echo 0.5 > results/deep/loss; echo x > other")
    backup = await begin_backup(pod, "/root/results")
    sandbox.clock.advance(minutes=10)
    assert (await wire.ok("getBackupLog", backup_id=backup))["status"] == "COMPLETED"
    await wire.ok("deletePod", pod_id=pod.pod_id)
    sandbox.clock.advance(minutes=1)
    key = pod.key.export_public_key().decode()
    again = SshPod(sandbox, wire, pod.key, await wire.running(sandbox, user_public_key=[key]))
    restored = {"backup_id": backup, "restore_path": "/root/restored"}
    await wire.ok("restoreBackup", pod_id=again.pod_id, json=restored)
    sandbox.clock.advance(minutes=10)
    await wire.pod(again.pod_id)
    assert await again.out("cd restored; find .; cat deep/loss") == ".\n./deep\n./deep/loss\n0.5\n"


async def test_a_backup_reports_the_files_that_are_there(pod: SshPod) -> None:
    wire, sandbox = pod.wire, pod.sandbox
    await pod.out(
        "mkdir -p results/deep none; echo -n 12345 > results/one; echo -n 123 > results/deep/two; echo > other"
    )

    async def told(run: str) -> tuple[str, int, int]:
        row = await wire.ok("getBackupLog", backup_id=run)
        return row["status"], row["total_bytes"], row["total_files"]

    run = await begin_backup(pod, "/root/results")
    assert (await told(run))[1:] == (8, 2)
    await pod.out("echo -n 1234567 > results/three")
    sandbox.clock.advance(minutes=10)
    assert await told(run) == ("COMPLETED", 15, 3)
    # What is there when it ends is what was kept.
    restored = {"backup_id": run, "restore_path": "/root/restored"}
    await wire.ok("restoreBackup", pod_id=pod.pod_id, json=restored)
    sandbox.clock.advance(minutes=10)
    assert await pod.out("cat restored/one restored/deep/two restored/three") == "123451231234567"


async def test_a_backup_of_nothing_reports_nothing(pod: SshPod) -> None:
    run = await begin_backup(pod, "")
    pod.sandbox.clock.advance(minutes=10)
    row = await pod.wire.ok("getBackupLog", backup_id=run)
    assert (row["status"], row["total_bytes"], row["total_files"]) == ("COMPLETED", 0, 0)


# time


async def test_sleep_ends_when_the_clock_is_turned(pod: SshPod) -> None:
    async with await pod.connect() as connection:
        running = asyncio.ensure_future(connection.run("date +%s; sleep 90; date +%s; sleep 30; date +%s"))
        await pod.until_it_sleeps()
        assert not running.done()
        pod.sandbox.clock.advance(hours=1)
        first, second, third = map(int, str((await asyncio.wait_for(running, ANSWER_SECONDS)).stdout).split())
    assert (second - first, third - second) == (90, 30)


async def test_a_running_clock_needs_nobody_to_turn_it() -> None:
    async with ssh_pod() as pod:
        pod.sandbox.clock.set_speed(1000)
        assert await pod.out("sleep 200; echo slept") == "slept\n"


async def test_background_processes_outlive_the_connection(pod: SshPod) -> None:
    await pod.out("(sleep 60; echo done > late) >/dev/null 2>&1 &")
    assert (await pod.run("cat late")).exit_status == 1
    pod.sandbox.clock.advance(seconds=61)
    assert await pod.out("cat late") == "done\n"


async def test_a_session_stays_open_while_a_background_process_holds_its_output(pod: SshPod) -> None:
    async with await pod.connect() as connection:
        running = asyncio.ensure_future(connection.run("(sleep 60; echo late) & echo early"))
        await pod.until_it_sleeps()
        assert not running.done()
        pod.sandbox.clock.advance(seconds=61)
        assert (await asyncio.wait_for(running, ANSWER_SECONDS)).stdout == "early\nlate\n"


async def test_a_client_that_goes_breaks_the_pipe_and_not_the_process(pod: SshPod) -> None:
    before = asyncio.all_tasks()
    async with await pod.connect() as connection:
        await connection.create_process("sleep 60; echo a > first; echo to nobody; echo b > second")
    await eventually(lambda: asyncio.all_tasks() <= before)  # the pod has seen it go
    pod.sandbox.clock.advance(seconds=61)
    assert await pod.out("ls") == "first\n"


async def test_a_full_process_table_is_told_and_not_a_hang(pod: SshPod) -> None:
    await pod.run(f"for i in {'1 ' * 100}; do sleep 1000 >/dev/null 2>&1 & done")
    async with await pod.connect() as connection:
        await connection.create_process("sleep 1000")
        done = await asyncio.wait_for(connection.run("echo more"), ANSWER_SECONDS)
    assert (done.exit_status, done.stderr) == (254, "cannot start a shell: Resource temporarily unavailable\n")
    pod.sandbox.clock.advance(seconds=1001)
    assert await pod.out("echo more") == "more\n"


async def test_a_signal_ends_the_command(pod: SshPod) -> None:
    async with await pod.connect() as connection:
        process = await connection.create_process("sleep 1000")
        process.send_signal("TERM")
        assert (await asyncio.wait_for(process.wait(), ANSWER_SECONDS)).exit_status == 143


# jobs


async def test_a_job_runs_detached_and_leaves_its_account(pod: SshPod) -> None:
    await pod.out("echo > train.py")
    await start_job(pod, "python3 train.py --steps 4 --step-seconds 60 --output out; exit 3")
    gpus = "nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits"
    assert int((await pod.out(gpus)).split(",")[0]) > 50
    apps = await pod.out(
        "nvidia-smi --query-compute-apps=gpu_uuid,pid,process_name,used_memory --format=csv,noheader,nounits"
    )
    assert apps.split(", ")[2] == "python3"
    listed = (await pod.out(f"cat {JOB}/log; ls {JOB}")).split()
    assert listed == ["command", "container", "log", "pid", "run", "started_at", "taken"]
    assert (await pod.run(f"kill -0 -- -$(cat {JOB}/pid) && kill -0 -$(cat {JOB}/pid)")).exit_status == 0
    pod.sandbox.clock.advance(seconds=130)
    assert len((await pod.out(f"cat {JOB}/log")).splitlines()) == 2
    pod.sandbox.clock.advance(hours=3)
    told = (await pod.out(f"cd {JOB}; cat exit_code ended_by started_at finished_at")).split()
    assert (told[:2], int(told[3]) - int(told[2])) == (["3", "itself"], 240)
    assert (await pod.run(f"kill -0 -- -$(cat {JOB}/pid)")).exit_status == 1
    assert (await pod.out(gpus)).split(",")[0] == "0"
    assert (await pod.out("wc -c < out/model.safetensors; cat out/metrics.json")).startswith('65536\n{"steps": 4')


async def test_a_job_is_stopped_at_its_limit(pod: SshPod) -> None:
    await start_job(pod, "echo begun; sleep 500; echo never", max_seconds=100)
    pod.sandbox.clock.advance(hours=1)
    told = (await pod.out(f"cd {JOB}; cat log exit_code ended_by started_at finished_at")).split()
    assert (told[:3], int(told[4]) - int(told[3])) == (["begun", "124", "time_limit"], 100)


@pytest.mark.parametrize("form", ["--", ""])
async def test_a_job_is_stopped_by_its_group(pod: SshPod, form: str) -> None:
    await start_job(pod, "sleep 500 | cat")
    await pod.out(f"kill -TERM {form} -$(cat {JOB}/pid)")
    assert await pod.out(f"cat {JOB}/ended_by {JOB}/exit_code") == "stop\n143\n"


async def test_a_job_ends_with_what_its_command_put_in_the_background(pod: SshPod) -> None:
    await start_job(pod, "sleep 500 & exit 3")
    assert await pod.out(f"cat {JOB}/command_ended; ls {JOB}/exit_code || echo runs") == "3\nruns\n"
    pod.sandbox.clock.advance(seconds=501)
    assert await pod.out(f"cat {JOB}/ended_by {JOB}/exit_code") == "itself\n3\n"
    assert "sleep" not in await pod.out("ps")


async def test_a_killed_runner_leaves_no_exit_code(pod: SshPod) -> None:
    await start_job(pod, "sleep 500")
    await pod.out(f"kill -KILL -- -$(cat {JOB}/pid)")
    assert (await pod.run(f"cat {JOB}/exit_code")).exit_status == 1
    assert (await pod.run(f"kill -0 -- -$(cat {JOB}/pid)")).exit_status == 1


async def test_a_job_and_a_backup_happen_in_the_order_of_their_times(pod: SshPod) -> None:
    await start_job(
        pod, "sleep 5; echo in time > /root/early; sleep 5000; echo too late > /root/late", max_seconds=9999
    )
    backup = await begin_backup(pod, "")
    pod.sandbox.clock.advance(hours=2)
    restored = {"backup_id": backup, "restore_path": "/root/restored"}
    await pod.wire.ok("restoreBackup", pod_id=pod.pod_id, json=restored)
    pod.sandbox.clock.advance(minutes=10)
    assert await pod.out("cat late") == "too late\n"
    assert (await pod.run("cd restored && cat early && cat late")).stdout == "in time\n"


# faults


async def test_ssh_refuses(pod: SshPod) -> None:
    pod.sandbox.add_fault("ssh_refuses", pod_id=pod.pod_id)
    with pytest.raises((OSError, asyncssh.Error)):
        await pod.connect()
    assert await pod.out("echo again") == "again\n"


async def test_ssh_drops_in_mid_command_and_the_command_goes_on(pod: SshPod) -> None:
    pod.sandbox.add_fault("ssh_drops", pod_id=pod.pod_id)
    connection = await pod.connect()
    done = await asyncio.wait_for(connection.run("sleep 5; touch arrived"), ANSWER_SECONDS)
    assert done.exit_status is None
    await connection.wait_closed()
    pod.sandbox.clock.advance(seconds=6)
    assert await pod.out("ls") == "arrived\n"


async def test_ssh_drops_after_so_many_bytes_of_a_transfer(pod: SshPod) -> None:
    pod.sandbox.add_fault("ssh_drops", bytes=100_000)
    async with await pod.connect() as connection, connection.start_sftp_client() as sftp:
        with pytest.raises((OSError, asyncssh.Error)):  # noqa: PT012
            async with sftp.open("big", "wb") as file:
                for _ in range(100):
                    await file.write(bytes(10_000))
    assert 0 < int(await pod.out("wc -c < big")) <= 100_000


async def test_host_key_changes(pod: SshPod) -> None:
    connection = await pod.connect()
    key = connection.get_server_host_key()
    assert key is not None
    connection.close()
    trusted = asyncssh.import_known_hosts(f"[127.0.0.1]:{await pod.port()} {key.export_public_key().decode()}")
    (await pod.connect(known_hosts=trusted)).close()
    pod.sandbox.add_fault("host_key_changes", pod_name="test")
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await pod.connect(known_hosts=trusted)
    with pytest.raises(asyncssh.HostKeyNotVerifiable):
        await pod.connect(known_hosts=trusted)


# event loops


def test_a_sandbox_may_see_several_event_loops() -> None:
    """The first loop ends with a pod running, and takes its sockets along; the next opens others."""
    sandbox = Sandbox(seed=7, speed=0, start=START, ssh=True)
    key = asyncssh.generate_private_key("ssh-ed25519")

    async def rent() -> str:
        async with wire_to(sandbox) as wire:
            pod_id = await wire.running(sandbox, user_public_key=[key.export_public_key().decode()])
            assert await SshPod(sandbox, wire, key, pod_id).out("echo 1 > file; cat file") == "1\n"
            return pod_id

    async def use(pod_id: str) -> None:
        async with wire_to(sandbox) as wire:
            assert await SshPod(sandbox, wire, key, pod_id).out("cat file") == "1\n"

    pod_id = asyncio.run(rent())
    asyncio.run(use(pod_id))
    assert sandbox.state()["pods"][0]["status"] == "RUNNING"


async def test_closing_lets_go_of_every_socket_and_task() -> None:
    before = asyncio.all_tasks()
    async with ssh_pod() as pod:
        port = await pod.port()
        connection = await pod.connect()
        await connection.create_process("sleep 100")
        await pod.sandbox.aclose()
        await asyncio.wait_for(connection.wait_closed(), ANSWER_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await eventually(lambda: asyncio.all_tasks() == before)
