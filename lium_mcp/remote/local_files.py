"""Files of this machine, only below the folders that the settings allow. All of this blocks: call it in a thread.

Each step of a path is opened by its name inside the folder before it, and no symbolic link is followed. A link that
appears meanwhile changes nothing, since an open folder stays what it was. Where the system cannot open relative to a
folder, as on Windows, each step is looked at just before it is taken.
"""

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO, Final

from lium_mcp.failures import Failure

_BY_FOLDER: Final = os.open in os.supports_dir_fd
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_PLAIN: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_MOST_NAME_BYTES: Final = 255
_MOST_DEPTH: Final = 64
PART: Final = ".lium-part"
"""How the name of a file ends while it is being copied."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path below an allowed folder: the folder, and the names from there on."""

    root: Path
    names: tuple[str, ...]

    def __truediv__(self, name: str) -> "Place":
        return Place(self.root, (*self.names, name))

    def __str__(self) -> str:
        return str(self.root.joinpath(*self.names))

    @property
    def above(self) -> "Place":
        """The folder that it is in."""
        return Place(self.root, self.names[:-1])

    @property
    def name(self) -> str:
        """The last name."""
        return self.names[-1] if self.names else self.root.name


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file below a place."""

    names: tuple[str, ...]
    size: int


class Folder:
    """An open folder, closed at the end of a `with`."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it, if it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def child(self, name: str, *, create: bool) -> "Folder":
        """Open a folder in it."""
        path, descriptor = self._at(name)
        if create:
            with suppress(FileExistsError):
                os.mkdir(path, dir_fd=descriptor)
        if _BY_FOLDER:
            flags = os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW | _PLAIN
            return Folder(self._path / name, os.open(path, flags, dir_fd=descriptor))
        if not _is_plain_folder(os.lstat(path)):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        return Folder(self._path / name, None)

    def stat(self, name: str) -> os.stat_result | None:
        """What a name in it stands for, a link itself rather than its target; None if there is nothing."""
        path, descriptor = self._at(name)
        try:
            return os.stat(path, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, name: str, *, write: bool = False) -> BinaryIO:
        """Open a regular file in it; with `write`, make it if it is missing."""
        path, descriptor = self._at(name)
        flags = (os.O_RDWR | os.O_CREAT if write else os.O_RDONLY) | _NO_FOLLOW | _PLAIN
        opened = os.open(path, flags, 0o600, dir_fd=descriptor)
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode) or (write and status.st_nlink > 1):
            os.close(opened)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return os.fdopen(opened, "r+b" if write else "rb")

    def rename(self, old: str, new: str) -> None:
        """Rename a file in it over another."""
        old_path, descriptor = self._at(old)
        os.replace(old_path, self._at(new)[0], src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def remove(self, name: str) -> None:
        """Remove a file in it."""
        path, descriptor = self._at(name)
        os.unlink(path, dir_fd=descriptor)

    @property
    def device(self) -> int:
        """A number that folders share if they are on one file system."""
        return (self._path.stat() if self._descriptor is None else os.fstat(self._descriptor)).st_dev

    def free_bytes(self) -> int:
        """How much may still be written to its file system."""
        return shutil.disk_usage(self._path if self._descriptor is None else self._descriptor).free

    def names(self) -> list[str]:
        """The names in it."""
        with os.scandir(self._path if self._descriptor is None else self._descriptor) as entries:
            return sorted(entry.name for entry in entries)

    def _at(self, name: str) -> tuple[str | Path, int | None]:
        if not is_safe_name(name):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return (self._path / name, None) if self._descriptor is None else (name, self._descriptor)


class LocalFolders:
    """The folders below which files may be read and written."""

    def __init__(self, roots: Sequence[Path]) -> None:
        # The path of a root may go through links; what lies below it may not.
        self._roots = [(Path.cwd() / root, root.resolve()) for root in roots]

    def locate(self, path: str, parameter: str = "local_path") -> Place:
        """The place that a path, given as `parameter`, names; one that is not absolute starts at the first root.

        Raises:
            Failure: it is not below an allowed folder.
        """
        if not self._roots:
            raise Failure(
                "path_not_allowed",
                "No local folder is open to this server.",
                "Have the person set LIUM_MCP_LOCAL_DIRS to the folders that it may read and write.",
            )
        given = PurePath(path)
        if "\0" not in path and ".." not in given.parts:
            if not given.is_absolute():
                return Place(self._roots[0][1], _checked(given.parts))
            for literal, real in self._roots:
                for root in (literal, real):
                    if given.is_relative_to(root):
                        return Place(real, _checked(given.relative_to(root).parts))
        raise _not_allowed(
            f"It has to lie below {', '.join(str(literal) for literal, _ in self._roots)}, without `..`.", parameter
        )


def open_folder(place: Place, *, create: bool = False) -> Folder:
    """Open a folder, step by step; with `create`, make what is missing.

    Raises:
        Failure: a step is a symbolic link.
        OSError: it is not there, or may not be entered.
    """
    flags = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _PLAIN
    folder = Folder(place.root, os.open(place.root, flags) if _BY_FOLDER else None)
    for name in place.names:
        with folder:
            try:
                below = folder.child(name, create=create)
            except OSError:
                if (status := folder.stat(name)) is not None and stat.S_ISLNK(status.st_mode):
                    raise _not_allowed("A part of it is a symbolic link, and those are not followed.") from None
                raise
        folder = below
    return folder


def nearest_folder(place: Place) -> tuple[Folder, Place]:
    """Open a folder, or the nearest one above it that exists; return it with its place.

    Raises:
        Failure: a step is a symbolic link.
        OSError: one may not be entered.
    """
    while True:
        try:
            return open_folder(place), place
        except FileNotFoundError:
            if not place.names:
                raise
            place = place.above


def kind_of(place: Place) -> str:
    """What is at a place: `file`, `folder`, `missing`, or `other`, such as a device.

    Raises:
        Failure: it is, or goes through, a symbolic link.
        OSError: it cannot be looked at.
    """
    if not place.names:
        return "folder"
    try:
        with open_folder(place.above) as folder:
            status = folder.stat(place.name)
    except FileNotFoundError:
        return "missing"
    if status is None:
        return "missing"
    if stat.S_ISLNK(status.st_mode):
        raise _not_allowed("It is a symbolic link, and those are not followed.")
    if _is_plain_folder(status):
        return "folder"
    return "file" if stat.S_ISREG(status.st_mode) else "other"


def walk(place: Place, *, most: int) -> tuple[list[Found], list[tuple[str, ...]]]:
    """List the regular files below a folder, and the links and other things that were passed over.

    Raises:
        Failure: there are more than `most`.
        OSError: a folder cannot be read.
    """
    found: list[Found] = []
    passed_over: list[tuple[str, ...]] = []

    def visit(folder: Folder, names: tuple[str, ...]) -> None:
        for name in folder.names():
            status = folder.stat(name) if is_safe_name(name) else None
            if status is not None and _is_plain_folder(status) and len(names) < _MOST_DEPTH:
                with folder.child(name, create=False) as below:
                    visit(below, (*names, name))
            elif status is not None and stat.S_ISREG(status.st_mode):
                if not name.endswith(PART):
                    found.append(Found((*names, name), status.st_size))
            else:
                passed_over.append((*names, name))
            if len(found) + len(passed_over) > most:
                raise too_many(most)

    with open_folder(place) as folder:
        visit(folder, ())
    return found, passed_over


def is_safe_name(name: str) -> bool:
    """Whether a name, perhaps from a pod, can only mean something inside the folder where it is used."""
    try:
        if name in ("", ".", "..") or len(os.fsencode(name)) > _MOST_NAME_BYTES:
            return False
    except UnicodeEncodeError:
        return False
    if any(character in "/\\" or ord(character) < 0x20 or ord(character) == 0x7F for character in name):  # noqa: PLR2004 - controls
        return False
    return os.name != "nt" or (":" not in name and name[-1] not in " .")


def too_many(most: int) -> Failure:
    """The failure for more files than one call copies."""
    return Failure("too_many_files", f"There are more than {most} files.", "Pack them (tar czf) and move the archive.")


def _checked(names: Sequence[str]) -> tuple[str, ...]:
    if not all(is_safe_name(name) for name in names):
        raise _not_allowed("It holds a name that is no file's name.")
    return tuple(names)


def _is_plain_folder(status: os.stat_result) -> bool:
    junction = getattr(status, "st_reparse_tag", 0) == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)
    return stat.S_ISDIR(status.st_mode) and not junction


def _not_allowed(why: str, parameter: str = "local_path") -> Failure:
    return Failure(
        "path_not_allowed",
        f"{parameter} is not allowed. {why}",
        "Choose another path; the person opens folders with LIUM_MCP_LOCAL_DIRS.",
    )
