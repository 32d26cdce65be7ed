"""A file system in memory: directories and files, without links, with a limit on what they may hold.

Paths are text in which bytes that are not UTF-8 are kept as Python keeps them in file names. A path cannot lead out of
its tree, since the tree is all there is. Failures are OSError with the usual error numbers.
"""

import errno
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

BLOCK_BYTES: Final = 4096
NAME_BYTES: Final = 255
PATH_BYTES: Final = 4096
DEEPEST: Final = 64


class Storage:
    """How much a part of the tree may hold; every entry costs a block, so that the number of entries is limited too."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def charge(self, size_bytes: int) -> None:
        """Take room, or give it back; refuse to take more than there is."""
        if size_bytes > 0 and self.used_bytes + size_bytes > self.limit_bytes:
            raise failure(errno.ENOSPC)
        self.used_bytes += size_bytes


@dataclass(eq=False)
class File:
    """A file: bytes, with a mode and a time."""

    storage: Storage
    modified_at: float
    mode: int = 0o644
    data: bytearray = field(default_factory=bytearray)
    # What is written to it is lost: it was removed, or is /dev/null.
    swallows: bool = False

    def write_at(self, offset: int, data: bytes, now: float) -> None:
        """Write, filling a gap with zeros."""
        if self.swallows:
            return
        self.resize(max(len(self.data), offset + len(data)), now)
        self.data[offset : offset + len(data)] = data

    def resize(self, size: int, now: float) -> None:
        """Cut, or fill up with zeros."""
        if self.swallows:
            return
        growth = size - len(self.data)
        self.storage.charge(growth)
        if growth > 0:
            self.data.extend(bytes(growth))
        else:
            del self.data[size:]
        self.modified_at = now


@dataclass(eq=False)
class Directory:
    """A directory: entries by name."""

    storage: Storage
    modified_at: float
    mode: int = 0o755
    entries: "dict[str, FileNode]" = field(default_factory=dict)


FileNode = File | Directory


@dataclass(frozen=True)
class PathTarget:
    """Where a path leads: the directories down to it, its name there (empty for the root), and what is there."""

    parents: tuple[Directory, ...]
    names: tuple[str, ...]
    node: FileNode | None

    @property
    def path(self) -> str:
        """The path without links and dots."""
        return "/" + "/".join(self.names)


# A name of so few characters never has too many bytes: UTF-8 has at most four for a character.
_SURELY_SHORT: Final = NAME_BYTES // 4


class FileSystem:
    """A tree with the operations of a file system. Relative paths start at ``cwd``."""

    def __init__(self, root: Directory, now: Callable[[], float]) -> None:
        self.root = root
        self.now = now

    def find(self, path: str, cwd: str = "/") -> PathTarget:
        """Walk a path; its last part need not exist, all others must be directories."""
        if not path:
            raise failure(errno.ENOENT)
        if len(path) > PATH_BYTES or "\0" in path:
            raise failure(errno.ENAMETOOLONG)
        parts = _parts(path) if path.startswith("/") else _parts(cwd) + _parts(path)
        if any(len(part) > _SURELY_SHORT and len(os.fsencode(part)) > NAME_BYTES for part in parts):
            raise failure(errno.ENAMETOOLONG)
        parents: list[Directory] = []
        names: list[str] = []
        node: FileNode | None = self.root
        for part in parts:
            if not isinstance(node, Directory):
                raise failure(errno.ENOENT if node is None else errno.ENOTDIR)
            if part == "..":
                names, node = names[:-1], parents.pop() if parents else node
                continue
            parents.append(node)
            names.append(part)
            node = node.entries.get(part)
        if path.endswith(("/", "/.")) and isinstance(node, File):
            raise failure(errno.ENOTDIR)
        return PathTarget(tuple(parents), tuple(names), node)

    def get(self, path: str, cwd: str = "/") -> FileNode:
        """Return what is at a path."""
        node = self.find(path, cwd).node
        if node is None:
            raise failure(errno.ENOENT)
        return node

    def directory(self, path: str, cwd: str = "/") -> Directory:
        """Return the directory at a path."""
        node = self.get(path, cwd)
        if not isinstance(node, Directory):
            raise failure(errno.ENOTDIR)
        return node

    def open_file(
        self, path: str, cwd: str = "/", *, create: bool = False, exclusive: bool = False, truncate: bool = False
    ) -> File:
        """Return the file at a path, made or emptied if asked for."""
        place = self.find(path, cwd)
        if place.node is None:
            if not create:
                raise failure(errno.ENOENT)
            if path.endswith("/"):
                raise failure(errno.EISDIR)
            made = File(self._new_entry(place), self.now())
            self._enter(place, made)
            return made
        if exclusive:
            raise failure(errno.EEXIST)
        if isinstance(place.node, Directory):
            raise failure(errno.EISDIR)
        if truncate:
            place.node.resize(0, self.now())
        return place.node

    def write_file(self, path: str, data: bytes, cwd: str = "/") -> None:
        """Write a whole file."""
        self.open_file(path, cwd, create=True, truncate=True).write_at(0, data, self.now())

    def make_directory(self, path: str, cwd: str = "/", *, mode: int = 0o755, parents: bool = False) -> None:
        """Make a directory; with ``parents`` also those above, and one that exists is fine."""
        if parents:
            trail = _parts(path)
            base = "/" if path.startswith("/") else cwd
            for count in range(1, len(trail)):
                above = "/".join(trail[:count])
                if trail[count - 1] != ".." and self.find(above, base).node is None:
                    self.make_directory(above, base)
        place = self.find(path, cwd)
        if parents and isinstance(place.node, Directory):
            return
        if place.node is not None:
            raise failure(errno.EEXIST)
        self._enter(place, Directory(self._new_entry(place), self.now(), mode))

    def remove_file(self, path: str, cwd: str = "/") -> None:
        """Remove a file."""
        place = self.find(path, cwd)
        if not isinstance(place.node, File):
            raise failure(errno.ENOENT if place.node is None else errno.EISDIR)
        self._leave(place)
        free(place.node)

    def remove_directory(self, path: str, cwd: str = "/", *, recursive: bool = False) -> None:
        """Remove a directory, with all that is in it if asked for. What is mounted stays."""
        place, node = self.find(path, cwd), self.directory(path, cwd)
        if not place.parents or any(each.storage is not place.parents[-1].storage for _, each in walk(node)):
            raise failure(errno.EBUSY)
        if node.entries and not recursive:
            raise failure(errno.ENOTEMPTY)
        self._leave(place)
        free(node)

    def rename(self, old: str, new: str, cwd: str = "/", *, replace: bool = True) -> None:
        """Move within the tree; a file takes the place of a file, a directory that of an empty one."""
        source, target, node = self.find(old, cwd), self.find(new, cwd), self.get(old, cwd)
        if not source.parents or not target.parents or node.storage is not source.parents[-1].storage:
            raise failure(errno.EBUSY)
        if node is target.node:
            return
        if any(parent is node for parent in target.parents):
            raise failure(errno.EINVAL)
        if node.storage is not target.parents[-1].storage:
            raise failure(errno.EXDEV)
        if len(target.names) + max(path.count("/") + bool(path) for path, _ in walk(node)) > DEEPEST:
            raise failure(errno.ENAMETOOLONG)
        if target.node is not None:
            if not replace:
                raise failure(errno.EEXIST)
            remove = self.remove_directory if isinstance(node, Directory) else self.remove_file
            remove(target.path)
        self._leave(source)
        self._enter(target, node)

    def _new_entry(self, place: PathTarget) -> Storage:
        if len(place.names) > DEEPEST:
            raise failure(errno.ENAMETOOLONG)
        storage = place.parents[-1].storage
        storage.charge(BLOCK_BYTES)
        return storage

    def _enter(self, place: PathTarget, node: FileNode) -> None:
        place.parents[-1].entries[place.names[-1]] = node
        place.parents[-1].modified_at = self.now()

    def _leave(self, place: PathTarget) -> None:
        del place.parents[-1].entries[place.names[-1]]
        place.parents[-1].modified_at = self.now()


def walk(node: FileNode) -> Iterator[tuple[str, FileNode]]:
    """Yield a node and everything below it, each with its path from there, in order of names."""
    stack = [("", node)]
    while stack:
        path, each = stack.pop()
        yield path, each
        if isinstance(each, Directory):
            names = sorted(each.entries, reverse=True)
            stack.extend((posixpath.join(path, name), each.entries[name]) for name in names)


def copy_into(source: Directory, target: Directory, now: float, *, below: int = 0) -> None:
    """Copy all entries of a directory into another, over what is there; ``below`` counts the levels above."""
    for name, node in list(source.entries.items()):
        there = target.entries.get(name)
        if isinstance(node, Directory):
            if not isinstance(there, Directory):
                _clear(target, name)
                if below >= DEEPEST:
                    raise failure(errno.ENAMETOOLONG)
                target.storage.charge(BLOCK_BYTES)
                there = target.entries[name] = Directory(target.storage, node.modified_at, node.mode)
            copy_into(node, there, now, below=below + 1)
        else:
            if isinstance(there, Directory):
                raise failure(errno.EISDIR)
            _clear(target, name)
            target.storage.charge(BLOCK_BYTES + len(node.data))
            target.entries[name] = File(target.storage, node.modified_at, node.mode, bytearray(node.data))
    target.modified_at = now


def free(node: FileNode) -> None:
    """Give back the room that a node and all below it take."""
    for _, each in walk(node):
        each.storage.charge(-BLOCK_BYTES)
        if isinstance(each, File):
            each.storage.charge(-len(each.data))
            # Whoever still has it open finds it empty: bytes that no storage counts could grow without limit.
            each.swallows = True
            each.data.clear()


def size_of(node: FileNode) -> int:
    """Return the size that a listing shows."""
    return len(node.data) if isinstance(node, File) else BLOCK_BYTES


def long_name(name: str, node: FileNode, *, human: bool = False) -> str:
    """Write one line of a long listing."""
    bits = "".join(letter if node.mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))
    shown = human_size(size_of(node)) if human else str(size_of(node))
    when = datetime.fromtimestamp(node.modified_at, UTC).strftime("%b %e %H:%M")
    return f"{'d' if isinstance(node, Directory) else '-'}{bits} 1 root root {shown:>9} {when} {name}"


def human_size(size: float) -> str:
    """Write a size with a unit, as ``-h`` does."""
    for unit in ("", "K", "M", "G"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.1f}{unit}" if unit and size < 10 else f"{size:.0f}{unit}"  # noqa: PLR2004
        size /= 1024
    return f"{size:.1f}T"


def failure(number: int) -> OSError:
    """Build the error of a failed operation."""
    return OSError(number, os.strerror(number))


def _clear(directory: Directory, name: str) -> None:
    if name in directory.entries:
        free(directory.entries.pop(name))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]
