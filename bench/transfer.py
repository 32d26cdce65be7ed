"""Files up and down over a real sshd: how long we take, against `sftp` for the same file in the same run.

Both log in anew each time.
"""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from lium_mcp.api.pods.models import Pod
from lium_mcp.remote import PodAccess
from lium_mcp.remote.downloads import download
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.local_files import LocalFolders
from lium_mcp.remote.transfers import Transfer
from lium_mcp.remote.uploads import upload
from tests import sshd

SIZE_BYTES = 100_000_000
ROUNDS = 5
GOAL = 1.3


def by_sftp(server: sshd.Sshd, local: Path, command: str) -> None:
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "BatchMode=yes")
    named = [part for option in options for part in ("-o", option)]
    login = ["-P", str(server.port), "-i", str(server.key_path), *named, "-b", "-", f"{server.user}@127.0.0.1"]
    subprocess.run(  # noqa: S603 - our own server
        [sshd.find("sftp") or "", "-q", *login],
        input=command,
        text=True,
        check=True,
        cwd=local,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def by_us(server: sshd.Sshd, local: Path, *, up: bool) -> None:
    async def run() -> None:
        access = PodAccess(KeySource(lambda: server.key_path), None, LocalFolders([local]))
        pod = Pod(id="bench", status="RUNNING", ssh_connect_cmd=server.ssh_command)
        transfer = Transfer()
        async with access.to(pod) as connection:
            if up:
                await upload(connection, LocalFolders([local]), "file", "ours", transfer)
            else:
                await download(connection, LocalFolders([local]), "ours", "ours", transfer, overwrite=True)
        await access.aclose()
        assert transfer.moved_files == 1, transfer
        assert transfer.unverified == 0, transfer

    anyio.run(run)


def seconds(action: Callable[[], None]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def main() -> None:
    missing = sshd.what_is_missing() or (None if sshd.find("sftp") else "no sftp on this machine")
    if missing:
        print(f"bench.transfer is skipped: {missing}")
        return
    with tempfile.TemporaryDirectory() as scratch, sshd.running(Path(scratch) / "pod") as server:
        local = Path(scratch) / "local"
        local.mkdir()
        content = os.urandom(SIZE_BYTES)
        (local / "file").write_bytes(content)
        times: dict[str, list[float]] = {"sftp up": [], "ours up": [], "sftp down": [], "ours down": []}
        for number in range(ROUNDS + 1):
            (server.home / "ours").unlink(missing_ok=True)
            (local / "ours").unlink(missing_ok=True)
            took = (
                seconds(lambda: by_sftp(server, local, "put file theirs\n")),
                seconds(lambda: by_us(server, local, up=True)),
                seconds(lambda: by_sftp(server, local, "get theirs theirs\n")),
                seconds(lambda: by_us(server, local, up=False)),
            )
            assert (server.home / "ours").read_bytes() == (local / "ours").read_bytes() == content
            if number:  # the first round warms the disk's cache and imports
                for values, value in zip(times.values(), took, strict=True):
                    values.append(value)
    for name, values in times.items():
        print(f"{statistics.median(values):6.2f} s  {name}, {SIZE_BYTES / 1e6:.0f} MB")
    for way in ("up", "down"):
        ratio = statistics.median(times[f"ours {way}"]) / statistics.median(times[f"sftp {way}"])
        print(f"{way}: {ratio:.2f} times sftp (goal: at most {GOAL})")


if __name__ == "__main__":
    main()
