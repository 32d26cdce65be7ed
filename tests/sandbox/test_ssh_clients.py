"""The real OpenSSH clients against a simulated pod."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sandbox.ssh_pods import SshPod, ssh_pod

pytestmark = pytest.mark.external  # OpenSSH's clients
SECONDS = 30


@pytest.fixture
async def pod() -> AsyncIterator[SshPod]:
    async with ssh_pod() as made:
        yield made


async def call(pod: SshPod, folder: Path, program: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    key = folder / "key"
    key.write_bytes(pod.key.export_private_key())
    key.chmod(0o600)
    options = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    options += ["-o", f"UserKnownHostsFile={folder / 'known_hosts'}", "-o", "StrictHostKeyChecking=accept-new"]
    port = ["-p" if program == "ssh" else "-P", str(await pod.port())]
    process = await asyncio.create_subprocess_exec(
        program, *options, *port, *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(stdin.encode()), SECONDS)
    return process.returncode or 0, out.decode(), errors.decode()


async def test_ssh_runs_a_command(pod: SshPod, tmp_path: Path) -> None:
    code, out, errors = await call(pod, tmp_path, "ssh", "root@127.0.0.1", "cat; echo oops >&2; exit 5", stdin="in\n")
    assert (code, out) == (5, "in\n")
    assert errors.endswith("oops\n")


async def test_ssh_without_a_command_is_a_shell(pod: SshPod, tmp_path: Path) -> None:
    script = "for i in 1 2; do\necho $i\ndone\ncd /tmp\npwd\nexit 3\necho never\n"
    code, out, _ = await call(pod, tmp_path, "ssh", "root@127.0.0.1", stdin=script)
    assert (code, out) == (3, "1\n2\n/tmp\n")


async def test_ssh_that_insists_on_a_terminal_is_told_that_there_is_none(pod: SshPod, tmp_path: Path) -> None:
    code, _, errors = await call(pod, tmp_path, "ssh", "-tt", "root@127.0.0.1", stdin="exit 4\n")
    assert code == 255
    assert "PTY allocation request failed" in errors


async def test_sftp_moves_files(pod: SshPod, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(range(256)) * 1000)
    batch = f"mkdir there\nput {tmp_path / 'up'} there/file\nget there/file {tmp_path / 'down'}\nls -l there\ndf -h\n"
    code, out, errors = await call(pod, tmp_path, "sftp", "-b", "-", "root@127.0.0.1", stdin=batch)
    assert code == 0, errors
    assert (tmp_path / "down").read_bytes() == (tmp_path / "up").read_bytes()
    assert "256000" in out


async def test_scp_copies_a_file(pod: SshPod, tmp_path: Path) -> None:
    (tmp_path / "up").write_text("copied")
    code, _, errors = await call(pod, tmp_path, "scp", str(tmp_path / "up"), "root@127.0.0.1:there")
    assert code == 0, errors
    assert await pod.out("cat there") == "copied"


async def test_ssh_notices_a_replaced_container(pod: SshPod, tmp_path: Path) -> None:
    assert (await call(pod, tmp_path, "ssh", "root@127.0.0.1", "true"))[0] == 0
    await pod.reboot()
    code, _, errors = await call(pod, tmp_path, "ssh", "root@127.0.0.1", "true")
    assert code == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in errors
