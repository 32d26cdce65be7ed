"""What uploads and downloads share: how far they are, how files are compared, how many are copied at once."""

import errno
import hashlib
import os
import shlex
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

import anyio

from lium_mcp.failures import Failure
from lium_mcp.remote.commands import run_short
from lium_mcp.remote.local_files import PART, Folder, Place

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import FileStatus, PodFiles

MOST_FILES: Final = 10_000
BLOCK_BYTES: Final = 255 * 1024
# So much may be on its way at once: an unfinished file has no holes further back than this from its end.
WINDOW_BYTES: Final = 16 * BLOCK_BYTES
_FILES_AT_ONCE: Final = 4
_FILES_PER_BATCH: Final = 50
_CHARACTERS_PER_BATCH: Final = 20_000
_HASH_BLOCK_BYTES: Final = 2**20
_HASH_SECONDS: Final = 3600.0
_HASH_CHARACTERS: Final = 64
_MOST_PROBLEMS: Final = 20
_MOST_LEFT_OUT: Final = 3
_MOST_PATH_CHARACTERS: Final = 2048


class Changed(Exception):
    """A file has changed while it was copied."""


@dataclass(slots=True)
class Transfer:
    """How far the copying of files is, which may be read while it goes on, and what came of it.

    Attributes:
        path: Where the files go.
        there_bytes: How much was there before this call: the same files, and the beginnings of unfinished ones.
        passed_over: How many links and other things that are not files there were.
        left_out: The first few of them, where they were found.
        lasting_failures: How many files will fail every time, unless somebody changes something.
        unverified: How many files were put together from several connections and not hashed by the pod.
        problems: What could not be copied, and why; the names may come from a pod.
    """

    path: str = ""
    total_files: int = 0
    total_bytes: int = 0
    moved_files: int = 0
    moved_bytes: int = 0
    there_bytes: int = 0
    same_files: int = 0
    passed_over: int = 0
    left_out: list[str] = field(default_factory=list)
    unverified: int = 0
    failed_files: int = 0
    lasting_failures: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Whether everything is where it belongs."""
        return bool(self.path) and self.moved_files + self.same_files == self.total_files

    def pass_over(self, path: str) -> None:
        """Note something that is no file."""
        self.passed_over += 1
        if len(self.left_out) < _MOST_LEFT_OUT:
            self.left_out.append(path[:_MOST_PATH_CHARACTERS])

    def fail(self, name: str, why: str, *, lasts: bool = False) -> None:
        """Note a file that could not be copied, and whether it never can be as things are."""
        self.failed_files += 1
        self.lasting_failures += lasts
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(f"{name[:_MOST_PATH_CHARACTERS]}: {why}")


@dataclass(slots=True)
class Item:
    """One file to copy: its places here and on the pod, and what is known of its source."""

    place: Place
    pod_path: str
    size: int
    executable: bool = False
    mtime: int = 0
    part: str = ""
    resumed: bool = False
    digest: str | None = None


def batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Split the items into groups whose hashes can be asked for at once."""
    batch: list[Item] = []
    characters = 0
    for item in items:
        length = len(shlex.quote(item.pod_path)) + len(PART) + 20
        if batch and (len(batch) == _FILES_PER_BATCH or characters + length > _CHARACTERS_PER_BATCH):
            yield batch
            batch, characters = [], 0
        batch.append(item)
        characters += length
    if batch:
        yield batch


async def each(items: Sequence[Item], step: Callable[[Item], Awaitable[None]]) -> None:
    """Take a step for each item, a few at once; the first that fails ends the others.

    Raises:
        Failure: a step failed.
    """
    limiter = anyio.CapacityLimiter(_FILES_AT_ONCE)
    problems: list[Failure] = []

    async def limited(item: Item) -> None:
        async with limiter:
            try:
                await step(item)
            except Failure as error:
                problems.append(error)
                group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(limited, item)
    if problems:
        raise problems[0]


async def pod_hashes(connection: "Connection", paths: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of files on a pod, by path; files that the pod does not hash are left out.

    Raises:
        Failure: the connection broke, or it takes too long.
    """
    asked = [path for path in paths if path.isprintable()]
    if not asked:
        return {}
    _, said = await run_short(
        connection, f"sha256sum -- {' '.join(map(shlex.quote, asked))}", timeout_seconds=_HASH_SECONDS
    )
    found: dict[str, str] = {}
    for line in said.splitlines():
        digest, _, path = line.partition(" ")
        if len(digest) == _HASH_CHARACTERS and path[1:] in asked:
            found[path[1:]] = digest.lower()
    return found


def hash_of(file: BinaryIO, size: int | None = None, digest: "hashlib._Hash | None" = None) -> str:
    """The SHA-256 of what `digest` has taken already and the next `size` bytes of a file, by default all. Blocks.

    Raises:
        Changed: there are fewer.
    """
    digest = digest or hashlib.sha256()
    while size is None or size > 0:
        block = file.read(_HASH_BLOCK_BYTES if size is None else min(size, _HASH_BLOCK_BYTES))
        if not block:
            if size is None:
                break
            raise Changed
        digest.update(block)
        size = None if size is None else size - len(block)
    return digest.hexdigest()


def hash_in(folder: Folder, name: str) -> str:
    """The SHA-256 of a file in an open folder. Blocks."""
    with folder.open(name) as file:
        return hash_of(file)


def short_hash(*parts: object) -> str:
    """A short digest of the parts, for use in a file's name."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogatepass")).hexdigest()[:16]


def pod_path_of(path: str) -> str:
    """Return a path on a pod as SFTP takes it; `~/` is the login directory.

    Raises:
        Failure: it holds a character that no path may hold here, or is too long.
    """
    if len(path) > _MOST_PATH_CHARACTERS or "\\" in path or not (path.isprintable() or not path):
        raise Failure(
            "invalid_argument", "pod_path holds a backslash or control character, or is too long.", "Correct it."
        )
    return "." if path in ("", "~") else path.removeprefix("~/") or "."


async def pod_kind(pod_files: "PodFiles", path: str) -> str:
    """What a path of a pod is, or `missing`."""
    try:
        return (await pod_files.stat(path)).kind
    except FileNotFoundError:
        return "missing"


def pod_item(place: Place, path: str, status: "FileStatus") -> Item:
    """Return the item for a pod's file that is to be copied to a place here."""
    return Item(place, path, status.size, executable=status.executable, mtime=status.mtime)


def cannot(error: OSError, parameter: str) -> Failure:
    """Return the failure which says that what a parameter names cannot be used."""
    code = {FileNotFoundError: "file_not_found", PermissionError: "permission_denied"}.get(type(error), "files_refused")
    return Failure(code, f"{parameter} cannot be used: {why(error)}.", f"Check {parameter}.")


def why(error: OSError) -> str:
    """Say in a few words why something about a file failed, without any path."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError):
        return "it may not be read or written"
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return "a folder and a file have the same name"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return os.strerror(error.errno).lower() if error.errno else "the pod refused; its disk may be full"
