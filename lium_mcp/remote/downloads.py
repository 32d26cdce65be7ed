"""Copies files from a pod: keeps what is here already, goes on with what broke off, and checks what arrived.

A pod's names and sizes are not trusted: no name leads out of the folder that was asked for, and no more is written than
was announced. As in uploads, a file has a temporary name until it is complete, and one that was put together from
several connections is compared by SHA-256.

Downloads do not fill the disk: what does not fit is refused before anything is written, and copying stops when the disk
gets full meanwhile. An unfinished file is kept only where a later call can go on with it, only a few in a folder, and
only for some days.
"""

import errno
import os
import posixpath
import re
import stat
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio

from lium_mcp.failures import Failure
from lium_mcp.remote.local_files import (
    PART,
    Folder,
    LocalFolders,
    Place,
    is_safe_name,
    kind_of,
    nearest_folder,
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

LEFT_FREE_BYTES: Final = 64_000_000
"""How much a download leaves free on the disk that it writes to."""
MOST_KEPT_PARTS: Final = 4
"""How many unfinished files of earlier downloads stay in a folder when another download begins there."""
KEPT_PART_SECONDS: Final = 7 * 86_400.0
_MOST_DEPTH: Final = 64
_LOOK_EACH_BYTES: Final = 16_000_000
# Another process may still be writing to a younger part.
_IDLE_SECONDS: Final = 600.0
_PART_NAME: Final = re.compile(rf"\.[0-9a-f]{{16}}{re.escape(PART)}")
_FULL: Final = "disk_full"


async def download(
    connection: "Connection",
    folders: LocalFolders,
    pod_path: str,
    local_path: str,
    transfer: Transfer,
    *,
    overwrite: bool,
) -> None:
    """Copy a file, or the content of a folder, from a pod; what arrived before a cancellation is kept.

    Without `overwrite`, a file here that differs is left alone.

    Raises:
        Failure: there is no such file, the place may not be written, its disk is or gets too full, or the
            connection broke.
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
    for item in items:
        item.part = f".{short_hash(item.pod_path, item.size, item.mtime, item.place)}{PART}"
    try:
        await anyio.to_thread.run_sync(lambda: _make_room(items, overwrite=overwrite))
    except OSError as error:
        raise cannot(error, "local_path") from error
    for batch in batches(items):
        await _download_batch(connection, pod_files, batch, transfer, overwrite=overwrite)


async def read_content(connection: "Connection", pod_path: str, *, most_bytes: int) -> tuple[bytes, int]:
    """Return the beginning of a file on a pod, and the size of the whole file.

    Raises:
        Failure: there is no such file, or the connection broke.
    """
    pod_files = await connection.files()
    path = pod_path_of(pod_path)
    try:
        entry = await pod_files.stat(path)
        if entry.kind == "folder":
            raise Failure(
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
                transfer.fail(name, "a name that no file here can have", lasts=True)
            elif entry.kind == "folder":
                left.append((path, here / name))
            elif entry.kind == "file" and not name.endswith(PART):
                items.append(pod_item(here / name, path, entry))
            elif entry.kind != "file":
                transfer.pass_over(path)
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
        except Failure as error:
            if error.code != "path_not_allowed":
                raise
            transfer.fail(name, error.happened)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(item.place, None) from error
            transfer.fail(name, why(error))
        except Changed:
            transfer.fail(name, "it changed while it was read; call again")

    await each(items, receive)


async def _is_settled(folder: Folder, item: Item, digest: str | None, transfer: Transfer, *, overwrite: bool) -> bool:
    """Whether nothing is to be copied, since the same file is here, or another one that must not be replaced."""
    name = item.place.name
    status = await anyio.to_thread.run_sync(folder.stat, name)
    if status is None:
        return False
    if not stat.S_ISREG(status.st_mode):
        transfer.fail(name, "something that is no file has this name here", lasts=True)
        return True
    if digest is not None and digest == await anyio.to_thread.run_sync(hash_in, folder, name):
        transfer.same_files += 1
        transfer.there_bytes += item.size
        return True
    if not overwrite:
        transfer.fail(name, "another file has this name here; overwrite=true replaces it", lasts=True)
    return not overwrite


async def _receive(pod_files: "PodFiles", folder: Folder, item: Item, transfer: Transfer) -> None:
    part, offset = await anyio.to_thread.run_sync(_begin, folder, item)
    item.resumed = offset > 0

    def write(at: int, block: bytes) -> None:
        part.seek(at)
        part.write(block)

    left = item.size - offset
    transfer.there_bytes += offset
    unlooked = 0
    may_go_on = False
    try:
        async with aclosing(pod_files.download(item.pod_path, offset=offset, size=left)) as blocks:
            async for at, block in blocks:
                if not offset <= at <= item.size - len(block):
                    raise Changed
                await anyio.to_thread.run_sync(write, at, block)
                transfer.moved_bytes += len(block)
                left -= len(block)
                unlooked += len(block)
                if unlooked >= _LOOK_EACH_BYTES:
                    unlooked = 0
                    free = await anyio.to_thread.run_sync(folder.free_bytes)
                    if free < min(left, LEFT_FREE_BYTES):
                        raise _full(item.place, free)
        if left:
            raise Changed
        may_go_on = True
    except (Failure, anyio.get_cancelled_exc_class()) as error:
        may_go_on = not (isinstance(error, Failure) and error.code == _FULL)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: _end(folder, item, part, keep=may_go_on))


def _end(folder: Folder, item: Item, part: BinaryIO, *, keep: bool) -> None:
    """Close an unfinished file, and remove it where no later call can go on with it."""
    try:
        part.close()
    except OSError:  # there was no room for the last of it
        folder.remove(item.part)
        raise
    status = folder.stat(item.part)
    if status is not None and (not keep or WINDOW_BYTES >= status.st_size != item.size):
        folder.remove(item.part)


def _make_room(items: Sequence[Item], *, overwrite: bool) -> None:
    """Remove old unfinished files, and refuse to copy what does not fit on the disk.

    Raises:
        Failure: it does not fit.
    """
    by_folder: dict[Place, list[Item]] = {}
    for item in items:
        by_folder.setdefault(item.place.above, []).append(item)
    needed: dict[int, tuple[int, int, Place]] = {}
    for place, inside in by_folder.items():
        try:
            folder, nearest = nearest_folder(place)
        except (OSError, Failure):
            continue  # copying its files will fail and say so
        with folder:
            is_there = nearest == place
            if is_there:
                _drop_parts(folder, {item.part for item in inside})
            bytes_here = sum(_missing_bytes(folder if is_there else None, item, overwrite) for item in inside)
            device, free = folder.device, folder.free_bytes()
        before, _, _ = needed.get(device, (0, 0, place))
        needed[device] = before + bytes_here, free, place
    for bytes_needed, free, place in needed.values():
        if bytes_needed and bytes_needed + LEFT_FREE_BYTES > free:
            raise _full(place, free, bytes_needed)


def _missing_bytes(folder: Folder | None, item: Item, overwrite: bool) -> int:
    """How much a file still takes on the disk; a file of its name and size is likely the same."""
    if folder is None:
        return item.size
    status = folder.stat(item.place.name)
    if status is not None and (status.st_size == item.size or not overwrite):
        return 0
    part = folder.stat(item.part)
    return max(item.size - (part.st_size if part is not None else 0), 0)


def _drop_parts(folder: Folder, wanted: set[str]) -> None:
    """Remove unfinished files of earlier downloads from a folder; the newest few stay, for a call to go on with."""
    now = time.time()
    idle: list[tuple[float, str]] = []
    for name in folder.names():
        if name in wanted or not _PART_NAME.fullmatch(name):
            continue
        status = folder.stat(name)
        if status is not None and stat.S_ISREG(status.st_mode) and now - status.st_mtime > _IDLE_SECONDS:
            idle.append((status.st_mtime, name))
    for number, (written_at, name) in enumerate(sorted(idle, reverse=True)):
        if number >= MOST_KEPT_PARTS or now - written_at > KEPT_PART_SECONDS:
            with suppress(FileNotFoundError):
                folder.remove(name)


def _full(place: Place, free: int | None, needed: int | None = None) -> Failure:
    """Say that the disk has no room: with `needed`, before anything was written, else in the middle of copying."""
    has = "" if free is None else f": {free / 1e9:.2f} GB are free, and {LEFT_FREE_BYTES / 1e9:.2f} GB are left free"
    if needed is not None:
        happened = f"{needed / 1e9:.2f} GB do not fit on the disk of {place}{has}."
        return Failure(_FULL, happened, "Free some space, choose another local_path, or copy less of it.")
    return Failure(
        _FULL,
        f"The disk of {place} got full{has}, so copying stopped.",
        "Free some space, then call again with the same paths to go on.",
        effect="Files that were complete stay; what was written of others is removed.",
    )


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
        await anyio.to_thread.run_sync(folder.remove, item.part)  # its name stands for the file as it was
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
    except (OSError, Failure):
        return False
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == item.size


def _make(place: Place) -> None:
    with open_folder(place, create=True):
        pass
