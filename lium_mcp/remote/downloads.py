"""Files from a pod: what is here already stays, what broke off goes on, what arrived is checked.

The names that a pod gives are somebody else's text, and so is what it says of sizes: a name never leaves the folder
that was asked for, and no more is written than was announced. As for uploads, a file has a name of its own until it is
whole, and one that was put together from several connections is compared by SHA-256.
"""

import os
import posixpath
import stat
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio

from lium_mcp.remote.errors import RemoteError
from lium_mcp.remote.local_files import (
    PART,
    Folder,
    LocalFolders,
    Place,
    is_safe_name,
    kind_of,
    open_folder,
    too_many,
)
from lium_mcp.remote.transfers import (
    MOST_FILES,
    WINDOW_BYTES,
    Changed,
    Item,
    Transfer,
    batches,
    cannot,
    each,
    hash_in,
    hash_of,
    pod_hashes,
    pod_item,
    pod_path_of,
    short_hash,
    why,
)

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import PodFiles

_MOST_DEPTH: Final = 64


async def download(
    connection: "Connection",
    folders: LocalFolders,
    pod_path: str,
    local_path: str,
    transfer: Transfer,
    *,
    overwrite: bool,
) -> None:
    """Copy a file, or what a folder holds, from a pod; cancellation keeps what arrived.

    A file here that differs is left alone unless `overwrite`.

    Raises:
        RemoteError: there is no such file, the place may not be written, or the connection broke.
    """
    place = folders.locate(local_path)
    source = pod_path_of(pod_path).rstrip("/") or "/"
    pod_files = await connection.files()
    try:
        entry = await pod_files.stat(source)
    except OSError as error:
        raise cannot(error, "pod_path") from error
    try:
        if entry.kind == "file":
            if local_path.endswith("/") or await anyio.to_thread.run_sync(kind_of, place) == "folder":
                place /= posixpath.basename(source)
            items = [pod_item(place, source, entry)]
        elif entry.kind == "folder":
            items = await _walk(pod_files, source, place, transfer)
            await anyio.to_thread.run_sync(_make, place)
        else:
            raise FileNotFoundError
    except OSError as error:
        raise cannot(error, "pod_path or local_path") from error
    transfer.path = str(place)
    transfer.total_files = len(items) + transfer.failed_files
    transfer.total_bytes = sum(item.size for item in items)
    for batch in batches(items):
        await _download_batch(connection, pod_files, batch, transfer, overwrite=overwrite)


async def read_content(connection: "Connection", pod_path: str, *, most_bytes: int) -> tuple[bytes, int]:
    """The beginning of a file on a pod, and how large it is.

    Raises:
        RemoteError: there is no such file, or the connection broke.
    """
    pod_files = await connection.files()
    path = pod_path_of(pod_path)
    try:
        entry = await pod_files.stat(path)
        if entry.kind == "folder":
            raise RemoteError(
                "not_a_file",
                "pod_path is a folder, and only a file can be read into the answer.",
                "Give local_path to copy what it holds to this machine, or list it with run_command (ls).",
            )
        if entry.kind != "file":
            raise FileNotFoundError
        return await pod_files.read(path, size=most_bytes), entry.size
    except OSError as error:
        raise cannot(error, "pod_path") from error


async def _walk(pod_files: "PodFiles", source: str, place: Place, transfer: Transfer) -> list[Item]:
    items: list[Item] = []
    left: list[tuple[str, Place]] = [(source, place)]
    seen = 0
    while left:
        folder, here = left.pop()
        try:
            rows = await pod_files.list(folder, most=MOST_FILES)
        except OverflowError:
            raise too_many(MOST_FILES) from None
        seen += 1 + len(rows)
        if seen > 2 * MOST_FILES or len(items) > MOST_FILES or len(here.names) - len(place.names) > _MOST_DEPTH:
            raise too_many(MOST_FILES)
        for name, entry in rows:
            path = posixpath.join(folder, name)
            if not is_safe_name(name):
                transfer.fail(name, "a name that no file here can have")
            elif entry.kind == "folder":
                left.append((path, here / name))
            elif entry.kind == "file" and not name.endswith(PART):
                items.append(pod_item(here / name, path, entry))
            elif entry.kind != "file":
                transfer.passed_over += 1
    return items


async def _download_batch(
    connection: "Connection", pod_files: "PodFiles", items: list[Item], transfer: Transfer, *, overwrite: bool
) -> None:
    alike = [item.pod_path for item in items if await anyio.to_thread.run_sync(_has_size, item)]
    there = await pod_hashes(connection, alike)

    async def receive(item: Item) -> None:
        name = item.place.name
        try:
            with await anyio.to_thread.run_sync(lambda: open_folder(item.place.above, create=True)) as folder:
                if not await _is_settled(folder, item, there.get(item.pod_path), transfer, overwrite=overwrite):
                    await _receive(pod_files, folder, item, transfer)
                    await _finish(connection, pod_files, folder, item, transfer)
        except RemoteError as error:
            if error.code != "path_not_allowed":
                raise
            transfer.fail(name, error.happened)
        except OSError as error:
            transfer.fail(name, why(error))
        except Changed:
            transfer.fail(name, "it changed while it was read; call again")

    await each(items, receive)


async def _is_settled(folder: Folder, item: Item, digest: str | None, transfer: Transfer, *, overwrite: bool) -> bool:
    """Whether nothing is to be copied: the same file is here, or one that is not to be replaced."""
    name = item.place.name
    status = await anyio.to_thread.run_sync(folder.stat, name)
    if status is None:
        return False
    if not stat.S_ISREG(status.st_mode):
        transfer.fail(name, "something that is no file has this name here")
        return True
    if digest is not None and digest == await anyio.to_thread.run_sync(hash_in, folder, name):
        transfer.same_files += 1
        transfer.there_bytes += item.size
        return True
    if not overwrite:
        transfer.fail(name, "another file has this name here; overwrite=true replaces it")
    return not overwrite


async def _receive(pod_files: "PodFiles", folder: Folder, item: Item, transfer: Transfer) -> None:
    item.part = f".{short_hash(item.pod_path, item.size, item.mtime, item.place)}{PART}"
    part, offset = await anyio.to_thread.run_sync(_begin, folder, item)
    item.resumed = offset > 0

    def write(at: int, block: bytes) -> None:
        part.seek(at)
        part.write(block)

    left = item.size - offset
    transfer.there_bytes += offset
    try:
        async with aclosing(pod_files.download(item.pod_path, offset=offset, size=left)) as blocks:
            async for at, block in blocks:
                if not offset <= at <= item.size - len(block):
                    raise Changed
                await anyio.to_thread.run_sync(write, at, block)
                transfer.moved_bytes += len(block)
                left -= len(block)
        if left:
            raise Changed
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(part.close)


def _begin(folder: Folder, item: Item) -> tuple[BinaryIO, int]:
    part = folder.open(item.part, write=True)
    kept = os.fstat(part.fileno()).st_size
    offset = max(kept - WINDOW_BYTES, 0) if kept <= item.size else 0
    part.truncate(offset)
    return part, offset


async def _finish(
    connection: "Connection", pod_files: "PodFiles", folder: Folder, item: Item, transfer: Transfer
) -> None:
    now = await pod_files.stat(item.pod_path)
    if (now.size, now.mtime) != (item.size, item.mtime):
        raise Changed
    digest = None
    if item.resumed:
        digest = (await pod_hashes(connection, [item.pod_path])).get(item.pod_path)
        transfer.unverified += digest is None
    await anyio.to_thread.run_sync(_put_in_place, folder, item, digest)
    transfer.moved_files += 1


def _put_in_place(folder: Folder, item: Item, digest: str | None) -> None:
    with folder.open(item.part, write=True) as part:
        if digest is not None and hash_of(part) != digest:
            folder.remove(item.part)
            raise Changed
        if hasattr(os, "fchmod"):
            os.fchmod(part.fileno(), 0o755 if item.executable else 0o644)
    folder.rename(item.part, item.place.name)


def _has_size(item: Item) -> bool:
    try:
        with open_folder(item.place.above) as folder:
            status = folder.stat(item.place.name)
    except (OSError, RemoteError):
        return False
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == item.size


def _make(place: Place) -> None:
    with open_folder(place, create=True):
        pass
