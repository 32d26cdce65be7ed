"""SFTP into a pod's files.

The library's class serves the real file system of this machine. Every one of its methods is replaced here, and what is
not offered is refused, so that no path that a client sends ever reaches the operating system.
"""

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import asyncssh
from asyncssh import SFTPAttrs, SFTPName, SFTPVFSAttrs

from lium_mcp.sandbox.container.containers import HOME
from lium_mcp.sandbox.container.files import (
    BLOCK_BYTES,
    NAME_BYTES,
    Directory,
    File,
    FileNode,
    FileSystem,
    failure,
    long_name,
    size_of,
)
from lium_mcp.sandbox.ssh.pod_line import PodLine

MOST_HANDLES: Final = 64
READ_BYTES: Final = 4 * 1024 * 1024
KINDS: Final = {File: stat.S_IFREG, Directory: stat.S_IFDIR}
SFTP_KINDS: Final = {
    File: asyncssh.FILEXFER_TYPE_REGULAR,
    Directory: asyncssh.FILEXFER_TYPE_DIRECTORY,
}

T = TypeVar("T")


@dataclass(eq=False)
class Handle:
    """An open file."""

    node: File
    may_read: bool
    may_write: bool
    appends: bool

    def seek(self, offset: int, whence: int) -> int:
        """Tell a client that asks which ranges to fetch where data and holes are: there are no holes."""
        size = size_of(self.node)
        if offset >= size:
            raise failure(errno.ENXIO)
        return offset if whence == os.SEEK_DATA else size


class PodSftpServer(asyncssh.SFTPServer):
    """The files of one pod, over one connection."""

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", line: PodLine) -> None:
        super().__init__(channel)
        self._line = line
        self._handles: set[Handle] = set()
        line.begin()

    def _do(self, action: Callable[[FileSystem], T]) -> T:
        """Do something with the files, now, if they are still there."""
        world, container = self._line.world, self._line.container
        with world.lock:
            world.catch_up()
            if not container.is_up:
                raise asyncssh.SFTPConnectionLost("the pod does not run any more")
            return action(container.files)

    # names and attributes

    def format_user(self, uid: int | None) -> str:  # noqa: ARG002
        """Name the only user; the machine's own users do not exist in the pod."""
        return "root"

    def format_group(self, gid: int | None) -> str:  # noqa: ARG002
        """Name the only group."""
        return "root"

    def format_longname(self, name: SFTPName) -> None:
        """Leave the name as scandir made it."""
        if not name.longname:
            name.longname = name.filename

    def map_path(self, path: bytes) -> bytes:
        """Leave paths alone: they are the container's."""
        return path

    def reverse_map_path(self, path: bytes) -> bytes:
        """Leave paths alone."""
        return path

    def realpath(self, path: bytes) -> bytes:
        """Resolve a path; what its last part names need not exist."""
        return self._do(lambda files: os.fsencode(files.find(os.fsdecode(path) or ".", HOME).path))

    def stat(self, path: bytes) -> SFTPAttrs:
        """Describe what a path leads to."""
        return self._do(lambda files: _attributes(files.get(os.fsdecode(path), HOME)))

    def lstat(self, path: bytes) -> SFTPAttrs:
        """Describe what is at a path."""
        return self.stat(path)

    def fstat(self, file_obj: object) -> SFTPAttrs:
        """Describe an open file."""
        return _attributes(_handle(file_obj).node)

    def setstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Change size, mode and time."""
        self._do(lambda files: _change(files, files.get(os.fsdecode(path), HOME), attrs))

    def lsetstat(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Change size, mode and time."""
        self.setstat(path, attrs)

    def fsetstat(self, file_obj: object, attrs: SFTPAttrs) -> None:
        """Change size, mode and time of an open file."""
        node = _handle(file_obj).node
        self._do(lambda files: _change(files, node, attrs))

    def statvfs(self, path: bytes) -> SFTPVFSAttrs:
        """Tell how much room there is."""
        return self._do(lambda files: _room(files.get(os.fsdecode(path), HOME)))

    def fstatvfs(self, file_obj: object) -> SFTPVFSAttrs:
        """Tell how much room there is."""
        return _room(_handle(file_obj).node)

    # files

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
        """Open a file."""
        writes = bool(pflags & (asyncssh.FXF_WRITE | asyncssh.FXF_APPEND))
        return self._open(
            path,
            attrs,
            reads=bool(pflags & asyncssh.FXF_READ),
            writes=writes,
            appends=bool(pflags & asyncssh.FXF_APPEND),
            create=bool(pflags & asyncssh.FXF_CREAT),
            exclusive=bool(pflags & asyncssh.FXF_EXCL),
            truncate=bool(pflags & asyncssh.FXF_TRUNC),
        )

    def open56(self, path: bytes, desired_access: int, flags: int, attrs: SFTPAttrs) -> object:
        """Open a file, as later versions of the protocol ask for it."""
        how = flags & asyncssh.FXF_ACCESS_DISPOSITION
        appends = bool(flags & asyncssh.FXF_APPEND_DATA or desired_access & asyncssh.ACE4_APPEND_DATA)
        return self._open(
            path,
            attrs,
            reads=bool(desired_access & asyncssh.ACE4_READ_DATA),
            writes=appends or bool(desired_access & asyncssh.ACE4_WRITE_DATA),
            appends=appends,
            create=how in {asyncssh.FXF_CREATE_NEW, asyncssh.FXF_CREATE_TRUNCATE, asyncssh.FXF_OPEN_OR_CREATE},
            exclusive=how == asyncssh.FXF_CREATE_NEW,
            truncate=how in {asyncssh.FXF_CREATE_TRUNCATE, asyncssh.FXF_TRUNCATE_EXISTING},
        )

    def _open(
        self,
        path: bytes,
        attrs: SFTPAttrs,
        *,
        reads: bool,
        writes: bool,
        appends: bool,
        create: bool,
        exclusive: bool,
        truncate: bool,
    ) -> Handle:
        if len(self._handles) >= MOST_HANDLES:
            raise failure(errno.EMFILE)
        name = os.fsdecode(path)

        def open_in(files: FileSystem) -> Handle:
            is_new = files.find(name, HOME).node is None
            node = files.open_file(
                name, HOME, create=create and writes, exclusive=create and exclusive, truncate=truncate and writes
            )
            if is_new and attrs.permissions is not None:
                node.mode = attrs.permissions & 0o777
            return Handle(node, reads or not writes, writes, appends)

        handle = self._do(open_in)
        self._handles.add(handle)
        return handle

    def close(self, file_obj: object) -> None:
        """Forget an open file."""
        self._handles.discard(_handle(file_obj))

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        """Read from an open file."""
        handle = _handle(file_obj)
        if not handle.may_read:
            raise failure(errno.EBADF)
        data = bytes(handle.node.data[offset : offset + min(size, READ_BYTES)])
        self._line.carry(len(data))
        return data

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        """Write to an open file."""
        handle = _handle(file_obj)
        if not handle.may_write:
            raise failure(errno.EBADF)
        self._line.carry(len(data))
        place = len(handle.node.data) if handle.appends else offset
        self._do(lambda files: handle.node.write_at(place, data, files.now()))
        return len(data)

    def fsync(self, file_obj: object) -> None:
        """Do nothing: what is written is there."""
        _handle(file_obj)

    def lock(self, file_obj: object, offset: int, length: int, flags: int) -> None:  # noqa: ARG002
        """Refuse: there are no locks."""
        raise asyncssh.SFTPOpUnsupported("no locks")

    def unlock(self, file_obj: object, offset: int, length: int) -> None:  # noqa: ARG002
        """Refuse: there are no locks."""
        raise asyncssh.SFTPOpUnsupported("no locks")

    # the tree

    async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        """List a directory."""
        directory = self._do(lambda files: files.directory(os.fsdecode(path), HOME))
        entries: list[tuple[str, FileNode]] = [(".", directory), ("..", directory), *sorted(directory.entries.items())]
        for name, node in entries:
            yield SFTPName(os.fsencode(name), os.fsencode(long_name(name, node)), _attributes(node))

    def mkdir(self, path: bytes, attrs: SFTPAttrs) -> None:
        """Make a directory; it fails if the name is taken."""
        mode = 0o755 if attrs.permissions is None else attrs.permissions & 0o777
        self._do(lambda files: files.make_directory(os.fsdecode(path), HOME, mode=mode))

    def rmdir(self, path: bytes) -> None:
        """Remove an empty directory."""
        self._do(lambda files: files.remove_directory(os.fsdecode(path), HOME))

    def remove(self, path: bytes) -> None:
        """Remove a file."""
        self._do(lambda files: files.remove_file(os.fsdecode(path), HOME))

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Rename; it fails if the new name is taken."""
        self._do(lambda files: files.rename(os.fsdecode(oldpath), os.fsdecode(newpath), HOME, replace=False))

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Rename, over what is there."""
        self._do(lambda files: files.rename(os.fsdecode(oldpath), os.fsdecode(newpath), HOME))

    def readlink(self, path: bytes) -> bytes:
        """Refuse: nothing is a link."""
        self.stat(path)
        raise failure(errno.EINVAL)

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002
        """Refuse: there are no links."""
        raise asyncssh.SFTPOpUnsupported("no links")

    def link(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002
        """Refuse: there are no links."""
        raise asyncssh.SFTPOpUnsupported("no links")

    def exit(self) -> None:
        """Forget what is open, and end with a status, without which scp takes the copy for failed."""
        self._handles.clear()
        if not self.channel.is_closing():
            self.channel.exit(0)


def _handle(file_obj: object) -> Handle:
    if not isinstance(file_obj, Handle):
        raise asyncssh.SFTPInvalidHandle("no such handle")
    return file_obj


def _attributes(node: FileNode) -> SFTPAttrs:
    when = int(node.modified_at)
    attributes: dict[str, Any] = {
        "type": SFTP_KINDS[type(node)],
        "size": size_of(node),
        "uid": 0,
        "gid": 0,
        "permissions": KINDS[type(node)] | node.mode,
        "atime": when,
        "mtime": when,
        "nlink": 1,
    }
    return SFTPAttrs(**attributes)


def _change(files: FileSystem, node: FileNode, attrs: SFTPAttrs) -> None:
    if attrs.size is not None:
        if not isinstance(node, File):
            raise failure(errno.EINVAL)
        node.resize(attrs.size, files.now())
    if attrs.permissions is not None:
        node.mode = attrs.permissions & 0o777
    if attrs.mtime is not None:
        node.modified_at = float(min(max(attrs.mtime, 0), 2**32 - 1))


def _room(node: FileNode) -> SFTPVFSAttrs:
    storage = node.storage
    blocks, left = storage.limit_bytes // BLOCK_BYTES, (storage.limit_bytes - storage.used_bytes) // BLOCK_BYTES
    return SFTPVFSAttrs(
        bsize=BLOCK_BYTES,
        frsize=BLOCK_BYTES,
        blocks=blocks,
        bfree=left,
        bavail=left,
        files=blocks,
        ffree=left,
        favail=left,
        fsid=0,
        flags=0,
        namemax=NAME_BYTES,
    )
