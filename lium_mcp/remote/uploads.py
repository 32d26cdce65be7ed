"""Copies files to a pod: keeps what is there already, goes on with what broke off, and checks what arrived.

A file is written under a temporary name beside its place, and renamed once it is complete, so that nobody ever runs
half a file. An unfinished file is kept, and the next call goes on with it. Its temporary name says what the source was,
so a source that has changed starts over. SSH itself proves what passes over one connection; a file that was put
together from several connections is compared by SHA-256, and so is one that is there already.
"""

import hashlib
import os
import posixpath
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, BinaryIO

import anyio

from lium_mcp.remote.local_files import PART, Found, LocalFolders, Place, kind_of, open_folder, walk
from lium_mcp.remote.transfers import (
    BLOCK_BYTES,
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
    pod_kind,
    pod_path_of,
    short_hash,
    why,
)

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import PodFiles


async def upload(
    connection: "Connection", folders: LocalFolders, local_path: str, pod_path: str, transfer: Transfer
) -> None:
    """Copy a file, or the content of a folder, to a pod; what arrived before a cancellation is kept.

    Raises:
        Failure: there is no such file, it may not be read, the pod refuses, or the connection broke.
    """
    place = folders.locate(local_path)
    found = [Found((), 0)]
    try:
        kind = await anyio.to_thread.run_sync(kind_of, place)
        if kind == "folder":
            found, passed_over = await anyio.to_thread.run_sync(lambda: walk(place, most=MOST_FILES))
            for names in passed_over:
                transfer.pass_over("/".join((place.name, *names)))
        elif kind != "file":
            raise FileNotFoundError
        else:
            found = [await anyio.to_thread.run_sync(_measure, place)]
    except OSError as error:
        raise cannot(error, "local_path") from error
    pod_files = await connection.files()
    try:
        target = await _target(pod_files, pod_path, place.name, is_file=kind == "file")
        items = [
            Item(Place(place.root, place.names + one.names), "/".join((target, *one.names)), one.size) for one in found
        ]
        folders_needed = {posixpath.dirname(item.pod_path) for item in items}
        if kind == "folder":
            folders_needed.add(target)
        for folder in sorted(folders_needed - {"", "/"}):
            await pod_files.make_folders(folder, mode=0o755)
    except OSError as error:
        raise cannot(error, "pod_path") from error
    transfer.path = target
    transfer.total_files, transfer.total_bytes = len(items), sum(item.size for item in items)
    for batch in batches(items):
        await _upload_batch(connection, pod_files, batch, transfer)


async def upload_content(connection: "Connection", content: bytes, pod_path: str, transfer: Transfer) -> None:
    """Write a small file on a pod.

    Raises:
        Failure: the pod refuses, or the connection broke.
    """
    pod_files = await connection.files()
    path = pod_path_of(pod_path)
    try:
        if path.endswith("/") or await pod_kind(pod_files, path) == "folder":
            raise IsADirectoryError
        if (folder := posixpath.dirname(path)) not in ("", "/"):
            await pod_files.make_folders(folder, mode=0o755)
        part = f"{path}.{short_hash(content)}{PART}"
        await pod_files.write(part, content, mode=0o644)
        await pod_files.replace(part, path)
    except OSError as error:
        raise cannot(error, "pod_path") from error
    transfer.path = path
    transfer.total_files = transfer.moved_files = 1
    transfer.total_bytes = transfer.moved_bytes = len(content)


async def _target(pod_files: "PodFiles", pod_path: str, name: str, *, is_file: bool) -> str:
    """Where a file or folder goes: into a folder whose path ends in a slash or, for a file, into one that exists."""
    path = pod_path_of(pod_path)
    if path == ".":
        return name
    if path.endswith("/") or (is_file and await pod_kind(pod_files, path) == "folder"):
        return posixpath.join(path, name)
    return path


async def _upload_batch(connection: "Connection", pod_files: "PodFiles", items: list[Item], transfer: Transfer) -> None:
    there = await pod_hashes(connection, [item.pod_path for item in items if await _has_size(pod_files, item)])
    sent: list[Item] = []

    async def send(item: Item) -> None:
        try:
            if (digest := there.get(item.pod_path)) and digest == await anyio.to_thread.run_sync(
                _hash_here, item.place
            ):
                transfer.same_files += 1
                transfer.there_bytes += item.size
                return
            await _send(pod_files, item, transfer)
            sent.append(item)
        except OSError as error:
            transfer.fail(item.place.name, why(error))
        except Changed:
            transfer.fail(item.place.name, "it changed while it was read; call again")

    await each(items, send)
    arrived = await pod_hashes(connection, [item.part for item in sent if item.resumed])
    for item in sent:
        try:
            await _finish(pod_files, item, arrived.get(item.part), transfer)
        except OSError as error:
            transfer.fail(item.place.name, why(error))


async def _send(pod_files: "PodFiles", item: Item, transfer: Transfer) -> None:
    source, status = await anyio.to_thread.run_sync(_open_here, item.place)
    try:
        item.size, item.executable = status.st_size, bool(status.st_mode & stat.S_IXUSR)
        named_for = short_hash(item.place, status.st_size, status.st_mtime_ns, status.st_ino)
        item.part = f"{item.pod_path}.{named_for}{PART}"
        digest = hashlib.sha256()
        offset = await _kept(pod_files, item.part, item.size)
        item.resumed = offset > 0
        if item.resumed:
            await anyio.to_thread.run_sync(hash_of, source, offset, digest)
            transfer.there_bytes += offset
        await pod_files.upload(item.part, _blocks(source, item.size - offset, digest, transfer), offset=offset)
        now = await anyio.to_thread.run_sync(os.fstat, source.fileno())
        if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise Changed
        item.digest = digest.hexdigest()
    finally:
        source.close()


async def _blocks(source: BinaryIO, size: int, digest: "hashlib._Hash", transfer: Transfer) -> AsyncIterator[bytes]:
    def read(most: int) -> bytes:
        block = source.read(most)
        digest.update(block)
        return block

    while size > 0:
        block = await anyio.to_thread.run_sync(read, min(size, BLOCK_BYTES))
        if not block:
            raise Changed
        size -= len(block)
        transfer.moved_bytes += len(block)
        yield block


async def _kept(pod_files: "PodFiles", part: str, size: int) -> int:
    """How much of an earlier attempt can be kept; the rest of it is cut off."""
    try:
        entry = await pod_files.stat(part, follow=False)
    except FileNotFoundError:
        return 0
    offset = max(entry.size - WINDOW_BYTES, 0)
    if entry.kind != "file" or entry.size > size or not offset:
        await pod_files.remove(part)
        return 0
    await pod_files.truncate(part, offset)
    return offset


async def _finish(pod_files: "PodFiles", item: Item, arrived: str | None, transfer: Transfer) -> None:
    is_same = arrived in (None, item.digest) and (await pod_files.stat(item.part)).size == item.size
    if not is_same:
        await pod_files.remove(item.part)
        transfer.fail(item.place.name, "what arrived is not what was sent; call again")
        return
    await pod_files.chmod(item.part, 0o755 if item.executable else 0o644)
    await pod_files.replace(item.part, item.pod_path)
    transfer.moved_files += 1
    transfer.unverified += item.resumed and arrived is None


async def _has_size(pod_files: "PodFiles", item: Item) -> bool:
    try:
        entry = await pod_files.stat(item.pod_path)
    except OSError:
        return False
    return entry.kind == "file" and entry.size == item.size


def _open_here(place: Place) -> tuple[BinaryIO, os.stat_result]:
    with open_folder(place.above) as folder:
        source = folder.open(place.name)
        return source, os.fstat(source.fileno())


def _measure(place: Place) -> Found:
    source, status = _open_here(place)
    source.close()
    return Found((), status.st_size)


def _hash_here(place: Place) -> str:
    with open_folder(place.above) as folder:
        return hash_in(folder, place.name)
