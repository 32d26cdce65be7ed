"""A pod's files over SFTP. What goes wrong is raised as Python's own errors of files.

Everything has a time limit. What a pod sends is bounded: listings in rows, readings in bytes.
"""

import asyncio
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal, cast

import anyio
import asyncssh

from lium_mcp.api.changes import noted_changes
from lium_mcp.failures import NOTHING_CHANGED, Failure
from lium_mcp.remote.connection_lost import connection_lost

Kind = Literal["file", "folder", "link", "other"]

_SECONDS: Final = 30.0
_BLOCK_BYTES: Final = 255 * 1024
_BLOCKS_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What a path of a pod is."""

    kind: Kind
    size: int
    mtime: int
    executable: bool = False


class PodFiles:
    """The files of one pod. Paths are relative to the login directory, or absolute.

    All methods raise OSError (FileNotFoundError, FileExistsError, PermissionError where it is one) if the pod refuses,
    and Failure if the connection broke or the pod does not answer.
    """

    def __init__(self, client: asyncssh.SFTPClient, pod: str) -> None:
        self._client = client
        self._pod = pod
        self._lost = False

    @property
    def is_open(self) -> bool:
        """Whether it can still be used, as far as is known."""
        return not self._lost

    async def stat(self, path: str, *, follow: bool = True) -> FileStatus:
        """What a path is; with `follow`, a symbolic link is what it leads to."""
        with self._answering():
            return _status(await (self._client.stat(path) if follow else self._client.lstat(path)))

    async def file_system(self, path: str) -> int | None:
        """A number that two paths share if they are on one file system; None where the pod does not say."""
        try:
            with self._answering():
                return (await self._client.statvfs(path)).fsid or None
        except FileNotFoundError:
            raise
        except OSError:
            return None

    async def list(self, path: str, *, most: int) -> list[tuple[str, FileStatus]]:
        """List the names in a folder, unchecked and without . and .., and what they are; at most `most`.

        Raises:
            OverflowError: there are more.
        """
        rows: list[tuple[str, FileStatus]] = []
        with self._answering():
            scan = cast("AsyncGenerator[asyncssh.SFTPName]", self._client.scandir(path))
            async with aclosing(scan) as names:
                async for item in names:
                    if item.filename not in (".", ".."):
                        rows.append((str(item.filename), _status(item.attrs)))
                    if len(rows) > most:
                        raise OverflowError
        return rows

    async def read(self, path: str, *, offset: int = 0, size: int) -> bytes:
        """Read at most `size` bytes from `offset` on."""
        with self._answering():
            async with self._client.open(path, "rb", encoding=None) as file:
                return cast("bytes", await file.read(size, offset))

    async def write(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Write a small file, replacing what was there."""
        with self._answering(changes=True):
            async with self._client.open(path, "wb", attrs=asyncssh.SFTPAttrs(permissions=mode)) as file:
                await file.write(data)

    async def make_folder(self, path: str, *, mode: int = 0o700) -> None:
        """Make a folder; FileExistsError if something of that name is there."""
        try:
            with self._answering(changes=True):
                await self._client.mkdir(path, asyncssh.SFTPAttrs(permissions=mode))
        except PermissionError:
            raise
        except OSError as error:
            # The protocol has one code for all that goes wrong here, so look what is there.
            try:
                await self.stat(path, follow=False)
            except OSError:
                raise error from None
            raise FileExistsError(path) from error

    async def make_folders(self, path: str, *, mode: int = 0o700) -> None:
        """Make a folder and those above it, where they are missing; others may be making the same ones."""
        try:
            await self._have_folder(path, mode)
        except FileNotFoundError:
            above = path.rstrip("/").rpartition("/")[0]
            if not above:
                raise
            await self.make_folders(above, mode=mode)
            await self._have_folder(path, mode)

    async def _have_folder(self, path: str, mode: int) -> None:
        """Make a folder, unless it is there."""
        try:
            await self.make_folder(path, mode=mode)
        except FileExistsError:
            if (await self.stat(path)).kind != "folder":
                raise NotADirectoryError(path) from None

    async def replace(self, old: str, new: str) -> None:
        """Rename a file over another."""
        with self._answering(changes=True):
            try:
                await self._client.posix_rename(old, new)
            except asyncssh.SFTPOpUnsupported:
                await self._client.rename(old, new)

    async def remove(self, path: str) -> None:
        """Remove a file."""
        with self._answering(changes=True):
            await self._client.remove(path)

    async def truncate(self, path: str, size: int) -> None:
        """Cut a file off."""
        with self._answering(changes=True):
            await self._client.truncate(path, size)

    async def chmod(self, path: str, mode: int) -> None:
        """Set permissions."""
        with self._answering(changes=True):
            await self._client.chmod(path, mode)

    async def upload(self, path: str, blocks: AsyncIterator[bytes], *, offset: int) -> None:
        """Write blocks to a file from `offset` on, many at once; what the file holds before that stays."""
        pending: set[asyncio.Task[int]] = set()
        with self._answering(limited=False, changes=True):
            async with self._client.open(
                path, asyncssh.FXF_WRITE | asyncssh.FXF_CREAT, asyncssh.SFTPAttrs(permissions=0o600), encoding=None
            ) as file:
                try:
                    async for block in blocks:
                        if len(pending) >= _BLOCKS_AT_ONCE:
                            pending = await _some(pending)
                        pending.add(asyncio.ensure_future(file.write(block, offset)))
                        offset += len(block)
                    while pending:
                        pending = await _some(pending)
                finally:
                    for task in pending:
                        task.cancel()
                    await asyncio.gather(*pending, return_exceptions=True)

    async def download(self, path: str, *, offset: int, size: int) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield blocks of a file with their offsets, `size` bytes in all, in any order; close the iterator."""
        with self._answering(limited=False):
            async with self._client.open(path, "rb", encoding=None, block_size=_BLOCK_BYTES) as file:
                reader = await file.read_parallel(size, offset)
                async with aclosing(cast("AsyncGenerator[tuple[int, bytes]]", reader)) as blocks:
                    while True:
                        with anyio.fail_after(_SECONDS):
                            block = await anext(blocks, None)
                        if block is None:
                            return
                        yield block

    @contextmanager
    def _answering(self, *, limited: bool = True, changes: bool = False) -> Iterator[None]:
        try:
            with anyio.fail_after(_SECONDS) if limited else nullcontext():
                yield
            if changes:
                noted_changes().append(f"files of {self._pod}")
        except asyncssh.SFTPNoSuchFile:
            raise FileNotFoundError from None
        except asyncssh.SFTPPermissionDenied:
            raise PermissionError from None
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError) as error:
            self._lost = True
            raise connection_lost(self._pod) from error
        except asyncssh.SFTPError as error:
            raise OSError("the pod refused") from error
        except TimeoutError as error:
            raise Failure(
                "timed_out",
                f"{self._pod} did not answer a request about its files in time.",
                "Try again; what was moved so far is kept.",
                effect="Whether what was under way took effect is not known." if changes else NOTHING_CHANGED,
            ) from error


async def _some(pending: set[asyncio.Task[int]]) -> set[asyncio.Task[int]]:
    """Wait until at least one is done, and return the others."""
    with anyio.fail_after(_SECONDS):
        done, left = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return left


def _status(attrs: asyncssh.SFTPAttrs) -> FileStatus:
    mode = attrs.permissions or 0
    kinds: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return FileStatus(
        kinds.get(stat.S_IFMT(mode), "other"), max(attrs.size or 0, 0), int(attrs.mtime or 0), bool(mode & stat.S_IXUSR)
    )
