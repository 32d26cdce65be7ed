"""SFTP into simulated pods: files arrive, and no request of any kind reaches the files of this machine."""

import asyncio
import builtins
import inspect
import io
import os
import posixpath
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox.container.files import BLOCK_BYTES, Directory, File, FileSystem, Storage, copy_into, walk
from lium_mcp.sandbox.ssh.sftp_server import PodSftpServer
from tests.sandbox.ssh_pods import SshPod, ssh_pod

# How a path of this machine may be asked for; {outside} is a real file with a secret in it.
PATHS = (
    "{outside}",
    "/..{outside}",
    "../..{outside}",
    "../../../../../../../..{outside}",
    "/root/../../..{outside}",
    "/proc/self/root{outside}",
    "//{outside}",
    "/dev/../{outside}",
    "link-to-root{outside}",
    "link-to-file",
    "/etc/passwd",
    "../../etc/passwd",
    "/proc/self/environ",
)


@pytest.fixture
async def pod() -> AsyncIterator[SshPod]:
    async with ssh_pod() as made:
        yield made


@pytest.fixture
async def sftp(pod: SshPod) -> AsyncIterator[asyncssh.SFTPClient]:
    connection = await pod.connect()
    client = await connection.start_sftp_client()
    yield client
    client.exit()
    connection.close()
    await connection.wait_closed()


def test_no_method_is_left_to_the_class_that_serves_this_machine() -> None:
    """A release of asyncssh that adds a method fails here until the sandbox has an answer for it."""
    harmless = {"channel", "connection", "env", "logger", "convert_attrs", "_to_sftpname"}
    offered = {name for name, _ in inspect.getmembers(asyncssh.SFTPServer) if not name.startswith("__")}
    assert offered - harmless <= set(vars(PodSftpServer))


@pytest.mark.parametrize("version", [3, 4, 5, 6])
async def test_attacks_find_nothing_of_this_machine(
    pod: SshPod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    outside = tmp_path / "secret"
    outside.write_text("a secret of this machine\n")
    before = outside.stat()
    connection = await pod.connect()
    client = await connection.start_sftp_client(sftp_version=version)
    for target, link in (("/", "link-to-root"), (str(outside), "link-to-file")):
        with pytest.raises(asyncssh.SFTPOpUnsupported):
            await client.symlink(target, link)
    with monkeypatch.context() as guarded:
        touched = _guard(guarded)
        for path in (template.format(outside=outside) for template in PATHS):
            for name, attack in _attacks(client, path).items():
                with suppress(asyncssh.SFTPError, OSError):
                    assert b"secret of" not in _bytes(await attack()), (name, path)
            for left in ("mine", "copy"):
                with suppress(asyncssh.SFTPError):
                    await client.remove(left)
    assert touched == []
    assert await client.isdir("/root")
    assert outside.read_text() == "a secret of this machine\n"
    after = outside.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, before.st_nlink)
    assert names_in(tmp_path) <= {"secret", "home"}
    connection.close()
    await connection.wait_closed()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _attacks(client: asyncssh.SFTPClient, path: str) -> dict[str, Any]:
    async def read() -> Any:
        async with client.open(path, "rb") as file:
            return await file.read()

    async def write() -> Any:
        async with client.open(path, "ab") as file:
            await file.write(b"overwritten")

    async def truncate() -> Any:
        async with client.open(path, "wb") as file:
            await file.truncate(3)

    async def over(old: str, new: str) -> Any:
        async with client.open("mine", "wb") as file:
            await file.write(b"mine")
        await client.posix_rename(old, new)

    async def copied() -> Any:
        await client.remote_copy(path, "copy")
        async with client.open("copy", "rb") as file:
            return await file.read()

    changed = asyncssh.SFTPAttrs(permissions=0o777, atime=1, mtime=1)
    return {
        "stat": lambda: client.stat(path),
        "lstat": lambda: client.lstat(path),
        "statvfs": lambda: client.statvfs(path),
        "realpath": lambda: client.realpath(path),
        "readlink": lambda: client.readlink(path),
        "listdir": lambda: client.listdir(path),
        "readdir": lambda: client.readdir(path),
        "parent": lambda: client.listdir(posixpath.dirname(path) or "."),
        "glob": lambda: client.glob(f"{path}*"),
        "read": read,
        "copy": copied,
        "setstat": lambda: client.setstat(path, changed),
        "lsetstat": lambda: client.setstat(path, changed, follow_symlinks=False),
        "chmod": lambda: client.chmod(path, 0o777),
        "utime": lambda: client.utime(path, (1, 1)),
        "link": lambda: client.link(path, "mine"),
        "link to": lambda: client.link("mine", path),
        "symlink": lambda: client.symlink(path, "mine"),
        "symlink read": lambda: client.stat("mine"),
        "rename": lambda: client.rename(path, "mine"),
        "rename over": lambda: over("mine", path),
        "take": lambda: client.posix_rename(path, "mine"),
        "mkdir": lambda: client.mkdir(f"{path}.made"),
        "rmdir": lambda: client.rmdir(path),
        "truncate": truncate,
        "write": write,
        "remove": lambda: client.remove(path),
    }


def _bytes(found: Any) -> bytes:
    return found if isinstance(found, bytes) else str(found).encode()


def _guard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every call that would touch this machine's files from within this process."""
    touched: list[str] = []
    names = (
        *("open", "stat", "lstat", "statvfs", "listdir", "scandir", "mkdir", "rmdir", "remove", "unlink", "rename"),
        *("replace", "link", "symlink", "readlink", "chmod", "chown", "lchown", "utime", "truncate"),
    )
    for name in names:
        monkeypatch.setattr(os, name, lambda *a, name=name, **k: touched.append(f"os.{name}{a}"))
    for owner in (builtins, io):
        monkeypatch.setattr(owner, "open", lambda *a, **k: touched.append(f"open{a}"))
    return touched


async def test_files_go_up_and_down(pod: SshPod, sftp: asyncssh.SFTPClient, tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    content = os.urandom(3_000_000)
    (tmp_path / "data" / "deep" / "big").write_bytes(content)
    (tmp_path / "data" / "empty").touch()
    await sftp.put(str(tmp_path / "data"), "data", recurse=True, preserve=True)
    assert await pod.out("find data -type f; wc -c < data/deep/big") == "data/deep/big\ndata/empty\n3000000\n"
    await sftp.get("data", str(tmp_path / "back"), recurse=True)
    assert (tmp_path / "back" / "deep" / "big").read_bytes() == content
    assert await sftp.realpath(".") == "/root"


async def test_appending_resuming_and_renaming(sftp: asyncssh.SFTPClient) -> None:
    async with sftp.open("part", "wb") as file:
        await file.write(b"one ")
    async with sftp.open("part", "ab") as file:
        await file.write(b"two ")
    async with sftp.open("part", "r+b") as file:
        await file.seek(8)
        await file.write(b"three")
    async with sftp.open("whole", "wb") as file:
        await file.write(b"old")
    with pytest.raises(asyncssh.SFTPError):
        await sftp.rename("part", "whole")
    await sftp.posix_rename("part", "whole")
    async with sftp.open("whole", "r") as file:
        assert await file.read() == "one two three"
    await sftp.truncate("whole", 3)
    await sftp.chmod("whole", 0o600)
    await sftp.utime("whole", (1_000_000, 1_000_000))
    facts = await sftp.stat("whole")
    assert (facts.size, (facts.permissions or 0) & 0o777, facts.mtime) == (3, 0o600, 1_000_000)


async def test_taken_names_and_missing_ones_are_told_apart(sftp: asyncssh.SFTPClient) -> None:
    await sftp.mkdir("job")
    with pytest.raises(asyncssh.SFTPError, match="File exists"):
        await sftp.mkdir("job")
    with pytest.raises(asyncssh.SFTPNoSuchFile):
        await sftp.stat("nothing")
    with pytest.raises(asyncssh.SFTPError):
        await sftp.open("job/new/file", "wb")
    with pytest.raises(asyncssh.SFTPOpUnsupported):
        await sftp.link("job", "hard")
    with pytest.raises(asyncssh.SFTPError):
        await sftp.open("job", "xb")


async def test_a_full_pod_refuses_more(sftp: asyncssh.SFTPClient) -> None:
    with pytest.raises(asyncssh.SFTPError):
        await sftp.truncate("/var/huge", 10**12)
    await sftp.open("/var/huge", "wb")
    with pytest.raises(asyncssh.SFTPError, match="No space left"):
        await sftp.truncate("/var/huge", 10**12)
    room = await sftp.statvfs("/var")
    assert room.bavail * room.bsize <= 256 * 2**20


async def test_the_number_of_open_files_is_limited(sftp: asyncssh.SFTPClient) -> None:
    with pytest.raises(asyncssh.SFTPError):  # noqa: PT012
        for number in range(100):
            await sftp.open(f"file{number}", "wb")


async def test_files_of_a_removed_pod_are_out_of_reach(pod: SshPod, sftp: asyncssh.SFTPClient) -> None:
    await sftp.mkdir("here")
    await pod.wire.ok("deletePod", pod_id=pod.pod_id)
    with pytest.raises((asyncssh.Error, OSError)):
        await asyncio.wait_for(sftp.listdir("here"), 10)


ROOT_NAMES = st.sampled_from(["a", "b", "a/b", "b/a"]) | st.sampled_from(
    ["..", ".", "/", "link", "b/../a", "//a", "a/", "", "x" * 300, "\0", "é"]
)


@settings(max_examples=200)
@given(steps=st.lists(st.tuples(st.integers(0, 8), ROOT_NAMES, ROOT_NAMES), max_size=25))
def test_no_order_of_operations_loses_track_of_space(steps: list[tuple[int, str, str]]) -> None:
    """What is used is what is there, whatever was made, moved, copied and removed, and every failure is an OSError."""
    files = FileSystem(Directory(Storage(2**20), 0.0), lambda: 0.0)
    for kind, one, other in steps:
        with suppress(OSError):
            _do(files, kind, one, other)
    there = sum(
        BLOCK_BYTES + (len(node.data) if isinstance(node, File) else 0) for path, node in walk(files.root) if path
    )
    assert files.root.storage.used_bytes == there <= files.root.storage.limit_bytes


def _do(files: FileSystem, kind: int, one: str, other: str) -> None:
    match kind:
        case 0:
            files.make_directory(one, parents=True)
        case 1:
            files.write_file(one, other.encode() * 5000)
        case 2 | 3:
            files.remove_file(one)
        case 4:
            files.remove_directory(one, recursive=True)
        case 5 | 6:
            files.rename(one, other, replace=kind == 5)
        case 7 if files.directory(one) is not files.directory(other):
            copy_into(files.directory(one), files.directory(other), 0.0)
        case 8:
            files.open_file(one, create=True, truncate=True)
