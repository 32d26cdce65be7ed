"""Files that broke off go on, names that lead elsewhere lead nowhere, and what changed meanwhile is not taken."""

import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lium_mcp.api.pods.models import Pod
from lium_mcp.failures import Failure
from lium_mcp.remote import PodAccess
from lium_mcp.remote.connections import Connection
from lium_mcp.remote.downloads import LEFT_FREE_BYTES, MOST_KEPT_PARTS, download
from lium_mcp.remote.key_source import KeySource
from lium_mcp.remote.local_files import LocalFolders, is_safe_name, kind_of, open_folder
from lium_mcp.remote.transfers import Transfer
from lium_mcp.remote.uploads import upload
from tests.sshd import Sshd

SIZE_BYTES = 24_000_000


@asynccontextmanager
async def connected(server: Sshd) -> AsyncIterator[Connection]:
    access = PodAccess(KeySource(lambda: server.key_path), None, None)
    try:
        async with access.to(Pod(id="p", status="RUNNING", ssh_connect_cmd=server.ssh_command)) as connection:
            yield connection
    finally:
        await access.aclose()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


async def cut_off(copying: "anyio.abc.TaskGroup", transfer: Transfer, at_bytes: int) -> None:
    while transfer.moved_bytes < at_bytes:
        await anyio.lowlevel.checkpoint()
    copying.cancel_scope.cancel()


async def test_an_upload_that_broke_off_goes_on(sshd: Sshd, here: Path) -> None:
    content = os.urandom(SIZE_BYTES)
    (here / "model").write_bytes(content)
    folders = LocalFolders([here])
    async with connected(sshd) as connection:
        transfer = Transfer()
        async with anyio.create_task_group() as group:
            group.start_soon(upload, connection, folders, "model", "model", transfer)
            await cut_off(group, transfer, 16_000_000)
        [part] = sshd.home.iterdir()
        assert part.name.endswith(".lium-part")
        kept = part.stat().st_size
        assert 8_000_000 < kept < SIZE_BYTES
        # What lies at its end may hold holes: it is not trusted.
        with part.open("r+b") as file:
            file.seek(kept - 1000)
            file.write(b"\0" * 1000)
        again = Transfer()
        await upload(connection, folders, "model", "model", again)
        assert (again.moved_files, again.unverified, again.problems) == (1, 0, [])
    assert [path.name for path in sshd.home.iterdir()] == ["model"]
    assert (sshd.home / "model").read_bytes() == content


async def test_a_download_that_broke_off_goes_on(sshd: Sshd, here: Path) -> None:
    content = os.urandom(SIZE_BYTES)
    (sshd.home / "model").write_bytes(content)
    folders = LocalFolders([here])
    async with connected(sshd) as connection:
        transfer = Transfer()
        async with anyio.create_task_group() as group:

            async def copy() -> None:
                await download(connection, folders, "model", "model", transfer, overwrite=False)

            group.start_soon(copy)
            await cut_off(group, transfer, 16_000_000)
        [part] = os.listdir(here)  # noqa: PTH208 - names are all that counts
        assert part.endswith(".lium-part")
        again = Transfer()
        await download(connection, folders, "model", "model", again, overwrite=False)
        assert (again.moved_files, again.unverified, again.problems) == (1, 0, [])
    assert os.listdir(here) == ["model"]  # noqa: PTH208 - as above
    assert (here / "model").read_bytes() == content


async def test_what_was_kept_and_is_not_the_same_is_found_out_by_its_hash(sshd: Sshd, here: Path) -> None:
    (here / "model").write_bytes(os.urandom(SIZE_BYTES))
    folders = LocalFolders([here])
    async with connected(sshd) as connection:
        transfer = Transfer()
        async with anyio.create_task_group() as group:
            group.start_soon(upload, connection, folders, "model", "model", transfer)
            await cut_off(group, transfer, 16_000_000)
        [part] = sshd.home.iterdir()
        with part.open("r+b") as file:
            file.write(b"somebody was here")
        again = Transfer()
        await upload(connection, folders, "model", "model", again)
        assert again.failed_files == 1
        assert "not what was sent" in again.problems[0]
        assert list(sshd.home.iterdir()) == []
        await upload(connection, folders, "model", "model", Transfer())
    assert (sshd.home / "model").read_bytes() == (here / "model").read_bytes()


@pytest.mark.parametrize(
    "path", ["../outside", "a/../../outside", "/etc/passwd", "link", "link/file", "a/link", "a/link/x", "a\0b"]
)
def test_no_path_leaves_the_allowed_folders(here: Path, path: str) -> None:
    (here / "a").mkdir()
    outside = here.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("secret")
    (here / "link").symlink_to(outside)
    (here / "a" / "link").symlink_to(outside / "file")
    with pytest.raises(Failure) as refused:
        kind_of(LocalFolders([here]).locate(path))
    assert refused.value.code == "path_not_allowed"
    assert sorted(item.name for item in outside.iterdir()) == ["file"]


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(here: Path) -> None:
    (here / "a" / "b").mkdir(parents=True)
    outside = here.parent / "outside"
    outside.mkdir()
    place = LocalFolders([here]).locate("a/b/file")
    with open_folder(place.above) as folder:
        (here / "a" / "b").rename(here / "a" / "moved")
        (here / "a" / "b").symlink_to(outside)
        with folder.open("file", write=True) as file:
            file.write(b"x")
    assert list(outside.iterdir()) == []
    assert (here / "a" / "moved" / "file").read_bytes() == b"x"


def test_a_root_may_be_a_link_and_may_be_named_either_way(here: Path) -> None:
    (here / "real").mkdir()
    (here / "real" / "file").write_text("x")
    (here / "root").symlink_to(here / "real")
    folders = LocalFolders([here / "root"])
    for path in ("file", str(here / "root" / "file"), str(here / "real" / "file")):
        assert kind_of(folders.locate(path)) == "file"


@given(name=st.text(max_size=20))
def test_a_name_is_safe_only_if_it_means_one_thing_in_one_folder(name: str) -> None:
    if is_safe_name(name):
        assert Path("/a") / name == Path(f"/a/{name}")
        assert (Path("/a") / name).parent == Path("/a")
        assert name not in ("..", ".")
        assert "\0" not in name


async def test_a_pod_that_names_files_to_escape_writes_nothing_outside(sshd: Sshd, here: Path) -> None:
    tree = sshd.home / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "good").write_text("good")
    (tree / "sub" / "deep").write_text("deep")
    for hostile in ("back\\slash", "new\nline", "esc\x1b[2J"):
        (tree / hostile).write_text("bad")
    (tree / "to-passwd").symlink_to("/etc/passwd")
    (here / "out").mkdir()
    (here / "out" / "sub").symlink_to(here.parent)
    transfer = Transfer()
    async with connected(sshd) as connection:
        await download(connection, LocalFolders([here]), "tree", "out", transfer, overwrite=True)
    assert (here / "out" / "good").read_text() == "good"
    assert {path.name for path in (here / "out").iterdir()} == {"good", "sub"}
    assert not (here.parent / "deep").exists()
    assert (transfer.moved_files, transfer.failed_files, transfer.passed_over) == (1, 4, 1)
    assert not transfer.is_done


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def receive(server: Sshd, here: Path, name: str, *, overwrite: bool = False) -> Transfer:
    transfer = Transfer()
    async with connected(server) as connection:
        await download(connection, LocalFolders([here]), name, name, transfer, overwrite=overwrite)
    return transfer


async def test_what_does_not_fit_on_the_disk_is_refused_before_anything_is_written(sshd: Sshd, here: Path) -> None:
    (sshd.home / "set").mkdir()
    (sshd.home / "set" / "small").write_text("small")
    with (sshd.home / "set" / "huge").open("wb") as huge:
        huge.truncate(shutil.disk_usage(here).free + 10**12)  # holes take no room
    with pytest.raises(Failure) as refused:
        await receive(sshd, here, "set")
    assert refused.value.code == "disk_full"
    assert "GB are free" in refused.value.happened
    assert files_in(here) == []


@pytest.mark.parametrize(("free_bytes", "fits"), [(LEFT_FREE_BYTES + 999, False), (LEFT_FREE_BYTES + 1000, True)])
async def test_something_is_left_free(
    sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch, free_bytes: int, fits: bool
) -> None:
    (sshd.home / "model").write_bytes(b"x" * 1000)
    monkeypatch.setattr("lium_mcp.remote.local_files.shutil.disk_usage", lambda _: SimpleNamespace(free=free_bytes))
    if fits:
        assert (await receive(sshd, here, "model")).moved_files == 1
    else:
        with pytest.raises(Failure, match="do not fit"):
            await receive(sshd, here, "model")


async def test_what_is_here_already_takes_no_room(sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (sshd.home, here):
        (folder / "model").write_bytes(b"x" * 1_000_000)
    monkeypatch.setattr("lium_mcp.remote.local_files.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    assert (await receive(sshd, here, "model")).same_files == 1


async def test_a_disk_that_gets_full_stops_the_copying_and_keeps_no_half_file(
    sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sshd.home / "model").write_bytes(os.urandom(3 * SIZE_BYTES))
    free = iter([10**12])
    monkeypatch.setattr(
        "lium_mcp.remote.local_files.shutil.disk_usage",
        lambda _: SimpleNamespace(free=next(free, 1_000_000)),
    )
    with pytest.raises(Failure) as stopped:
        await receive(sshd, here, "model")
    assert stopped.value.code == "disk_full"
    assert files_in(here) == []


async def test_parts_that_cannot_be_gone_on_with_are_removed_and_the_others_bounded(sshd: Sshd, here: Path) -> None:
    (sshd.home / "model").write_text("model")
    ages = {f".{number:016x}.lium-part": number * 3600 for number in range(1, 8)} | {".f000000000000000.lium-part": 0}
    for name, age_seconds in ages.items():
        (here / name).write_bytes(b"part")
        os.utime(here / name, (time.time() - age_seconds,) * 2)
    (here / "mine.lium-part").write_text("somebody's own")
    await receive(sshd, here, "model")
    kept = {f".{number:016x}.lium-part" for number in range(1, MOST_KEPT_PARTS + 1)}
    assert {path.name for path in files_in(here)} == kept | {".f000000000000000.lium-part", "mine.lium-part", "model"}


async def test_a_small_file_that_broke_off_leaves_nothing(
    sshd: Sshd, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sshd.home / "model").write_bytes(b"x" * 1000)

    def lose(*_: object, **__: object) -> None:
        raise Failure("connection_lost", "Lost.", "Again.")

    monkeypatch.setattr("lium_mcp.remote.sftp.PodFiles.download", lose)
    with pytest.raises(Failure):
        await receive(sshd, here, "model")
    assert files_in(here) == []
