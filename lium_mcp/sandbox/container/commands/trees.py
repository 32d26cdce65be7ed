"""Commands over files and directories."""

import errno
import fnmatch
import posixpath
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from lium_mcp.sandbox.container.commands.inputs import ENTRIES_PER_STEP, Usage, below, options, whole_number
from lium_mcp.sandbox.container.files import (
    BLOCK_BYTES,
    Device,
    Directory,
    File,
    Link,
    Node,
    copy_into,
    copy_node,
    failure,
)
from lium_mcp.sandbox.container.shell import Call, Program


async def ls(call: Call) -> int:
    """List directories and files."""
    found, paths = options(call.arguments, "la1Ahtrd")
    status, files, directories = 0, list[tuple[str, Node]](), list[tuple[str, Directory]]()
    for path in paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd, follow="l" not in found)
        except OSError as error:
            status = await call.fail(f"cannot access '{path}': {error.strerror}", 2)
            continue
        if isinstance(node, Directory) and "d" not in found:
            directories.append((path, node))
        else:
            files.append((path, node))
    await _list(call, files, found)
    for number, (path, directory) in enumerate(directories):
        if len(paths) > 1:
            await call.out(f"{chr(10) * (number > 0 or bool(files))}{path}:\n")
        entries: list[tuple[str, Node]] = sorted(directory.entries.items())
        call.process.budget.spend(len(entries) // ENTRIES_PER_STEP)
        if "a" in found:
            entries = [(".", directory), ("..", directory), *entries]
        elif "A" not in found:
            entries = [(name, node) for name, node in entries if not name.startswith(".")]
        if "l" in found:
            blocks = sum(_blocks(node) for _, node in entries)
            await call.out(f"total {blocks * BLOCK_BYTES // 1024}\n")
        await _list(call, entries, found)
    return status


async def _list(call: Call, entries: list[tuple[str, Node]], found: dict[str, str]) -> None:
    if "t" in found:
        entries = sorted(entries, key=lambda entry: -entry[1].modified_at)
    if "r" in found:
        entries = entries[::-1]
    for name, node in entries:
        await call.out(f"{long_name(name, node, human='h' in found)}\n" if "l" in found else f"{name}\n")


def long_name(name: str, node: Node, *, human: bool = False) -> str:
    """Write one line of a long listing."""
    kind = {Directory: "d", Link: "l", Device: "c", File: "-"}[type(node)]
    bits = "".join(letter if node.mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx"))
    size, when = size_of(node), datetime.fromtimestamp(node.modified_at, UTC).strftime("%b %e %H:%M")
    shown = human_size(size) if human else str(size)
    arrow = f" -> {node.target}" if isinstance(node, Link) else ""
    return f"{kind}{bits} 1 root root {shown:>9} {when} {name}{arrow}"


def size_of(node: Node) -> int:
    """Return the size that a listing shows."""
    if isinstance(node, File):
        return len(node.data)
    return len(node.target) if isinstance(node, Link) else BLOCK_BYTES if isinstance(node, Directory) else 0


def human_size(size: float) -> str:
    """Write a size with a unit, as ``-h`` does."""
    for unit in ("", "K", "M", "G"):
        if size < 1024:  # noqa: PLR2004
            return f"{size:.1f}{unit}" if unit and size < 10 else f"{size:.0f}{unit}"  # noqa: PLR2004
        size /= 1024
    return f"{size:.1f}T"


def _blocks(node: Node) -> int:
    return 1 + (-(-len(node.data) // BLOCK_BYTES) if isinstance(node, File) else 0)


async def mkdir(call: Call) -> int:
    """Make directories."""
    found, paths = options(call.arguments, "pv", "m")
    mode = _mode(found.get("m", "755"))

    def make(path: str) -> None:
        call.process.files.make_directory(path, call.process.cwd, mode=mode, parents="p" in found)

    return await _each(call, paths, "cannot create directory", make)


async def rmdir(call: Call) -> int:
    """Remove empty directories."""
    _, paths = options(call.arguments, "")
    remove = call.process.files.remove_directory
    return await _each(call, paths, "failed to remove", lambda path: remove(path, call.process.cwd))


async def rm(call: Call) -> int:
    """Remove files, and directories with -r."""
    found, paths = options(call.arguments, "rRfv")
    files, cwd = call.process.files, call.process.cwd
    recursive = bool({"r", "R"} & set(found))

    def remove(path: str) -> None:
        node = files.find(path, cwd, follow=False).node
        if node is None and "f" in found:
            return
        if isinstance(node, Directory) and recursive:
            if path.rstrip("/").rsplit("/", 1)[-1] in {".", ".."}:
                raise failure(errno.EINVAL)
            files.remove_directory(path, cwd, recursive=True)
        else:
            files.remove_file(path, cwd)

    if not paths and "f" in found:
        return 0
    return await _each(call, paths, "cannot remove", remove)


async def _each(call: Call, paths: list[str], problem: str, action: Callable[[str], None]) -> int:
    if not paths:
        raise Usage("missing operand")
    status = 0
    for path in paths:
        try:
            action(path)
        except OSError as error:
            status = await call.fail(f"{problem} '{path}': {error.strerror}")
    return status


async def mv(call: Call) -> int:
    """Move files and directories."""
    _, paths = options(call.arguments, "fvn")
    files, cwd = call.process.files, call.process.cwd

    def move(source: str, target: str) -> None:
        try:
            files.rename(source, target, cwd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(call, source, target, recursive=True)
            if isinstance(files.get(source, cwd, follow=False), Directory):
                files.remove_directory(source, cwd, recursive=True)
            else:
                files.remove_file(source, cwd)

    return await _onto(call, paths, "move", move)


async def cp(call: Call) -> int:
    """Copy files, and directories with -r."""
    found, paths = options(call.arguments, "rRapfvn")
    recursive = bool({"r", "R", "a"} & set(found))
    return await _onto(call, paths, "copy", lambda old, new: _copy(call, old, new, recursive=recursive))


async def _onto(call: Call, paths: list[str], verb: str, action: Callable[[str, str], None]) -> int:
    if len(paths) < 2:  # noqa: PLR2004 - from and to
        raise Usage("missing file operand" if not paths else f"missing destination file operand after '{paths[0]}'")
    *sources, target = paths
    into = isinstance(call.process.files.find(target, call.process.cwd).node, Directory)
    if len(sources) > 1 and not into:
        return await call.fail(f"target '{target}' is not a directory")
    status = 0
    for source in sources:
        end = posixpath.join(target, posixpath.basename(source.rstrip("/")) or ".") if into else target
        try:
            action(source, end)
        except OSError as error:
            status = await call.fail(f"cannot {verb} '{source}' to '{end}': {error.strerror}")
    return status


def _copy(call: Call, source: str, target: str, *, recursive: bool) -> None:
    files, cwd = call.process.files, call.process.cwd
    node = files.get(source, cwd, follow=not recursive)
    inner = below(call, node) if isinstance(node, Directory) and recursive else []
    call.process.budget.spend_on(size_of(node) + sum(size_of(each) for _, each in inner))
    place = files.find(target, cwd)
    if isinstance(node, Directory):
        if not recursive:
            raise failure(errno.EISDIR)
        if node is place.node or any(parent is node for parent in place.parents):
            raise failure(errno.EINVAL)
        if place.node is None:
            files.make_directory(target, cwd, mode=node.mode)
        copy_into(node, files.directory(target, cwd), files.now(), below=len(place.names))
    elif isinstance(node, File | Link):
        if node is place.node:
            raise failure(errno.EEXIST)
        if isinstance(node, Link):
            files.make_link(node.target, target, cwd)
            return
        if isinstance(place.node, Device):
            return
        if place.node is None:
            copy = copy_node(node, place.parents[-1].storage)
            copy.modified_at = files.now()
            place.parents[-1].entries[place.names[-1]] = copy
        else:
            files.write_file(target, bytes(node.data), cwd)
    else:
        raise failure(errno.EINVAL)


async def touch(call: Call) -> int:
    """Make empty files, or change their time."""
    _, paths = options(call.arguments, "cm")
    files, cwd = call.process.files, call.process.cwd

    def make(path: str) -> None:
        node = files.find(path, cwd).node
        if node is None:
            files.open_file(path, cwd, create=True)
        else:
            node.modified_at = files.now()

    return await _each(call, paths, "cannot touch", make)


async def ln(call: Call) -> int:
    """Make symbolic links."""
    found, paths = options(call.arguments, "sfn")
    if "s" not in found or len(paths) != 2:  # noqa: PLR2004
        raise Usage("the sandbox's ln takes -s TARGET LINK")
    files, cwd = call.process.files, call.process.cwd
    target, link = paths
    if isinstance(files.find(link, cwd).node, Directory):
        link = posixpath.join(link, posixpath.basename(target.rstrip("/")))
    if "f" in found and files.find(link, cwd, follow=False).node is not None:
        files.remove_file(link, cwd)
    return await _each(call, [link], "failed to create symbolic link", lambda path: files.make_link(target, path, cwd))


async def readlink(call: Call) -> int:
    """Print where a link, or with -f any path, leads."""
    found, paths = options(call.arguments, "fe")
    if call.name == "realpath":
        found["f"] = ""
    status = 0
    for path in paths:
        place = call.process.files.find(path, call.process.cwd, follow=bool(found))
        if not found and not isinstance(place.node, Link):
            status = 1
            continue
        await call.out(f"{place.node.target if isinstance(place.node, Link) else place.path}\n")
    return status


async def chmod(call: Call) -> int:
    """Change modes: octal, or +x and -x."""
    _, paths = options([word for word in call.arguments if word not in {"+x", "-x"}], "R")
    change = next((word for word in call.arguments if word in {"+x", "-x"}), None)
    if change is None:
        if not paths:
            raise Usage("missing operand")
        mode = _mode(paths.pop(0))
    else:
        mode = 0

    def set_mode(path: str) -> None:
        node = call.process.files.get(path, call.process.cwd)
        node.mode = {None: mode, "+x": node.mode | 0o111, "-x": node.mode & ~0o111}[change]

    return await _each(call, paths, "cannot access", set_mode)


def _mode(text: str) -> int:
    if not 1 <= len(text) <= 4 or any(digit not in "01234567" for digit in text):  # noqa: PLR2004 - octal digits
        raise Usage(f"invalid mode: '{text[:20]}'")
    return int(text, 8) & 0o777


async def stat(call: Call) -> int:
    """Print what is known of files; -c takes %n %s %a %Y %F."""
    found, paths = options(call.arguments, "L", "c")
    status = 0
    for path in paths:
        try:
            node = call.process.files.get(path, call.process.cwd, follow="L" in found)
        except OSError as error:
            status = await call.fail(f"cannot statx '{path}': {error.strerror}")
            continue
        kind = {Directory: "directory", Link: "symbolic link", Device: "character special file"}.get(type(node))
        facts = {
            "n": path,
            "s": str(size_of(node)),
            "a": f"{node.mode:o}",
            "Y": str(int(node.modified_at)),
            "F": kind or ("regular file" if size_of(node) else "regular empty file"),
            "U": "root",
            "G": "root",
        }
        template = found.get("c", "  File: %n\n  Size: %s\t%F\nAccess: (%a)\tUid: %U\tGid: %G\nModify: %Y")
        for letter, value in facts.items():
            template = template.replace(f"%{letter}", value)
        await call.out(f"{template}\n")
    return status


async def du(call: Call) -> int:
    """Print how much space is taken."""
    found, paths = options(call.arguments, "shkm")
    status = 0
    for path in paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd)
        except OSError as error:
            status = await call.fail(f"cannot access '{path}': {error.strerror}")
            continue
        shown = [(path, node)]
        if isinstance(node, Directory) and "s" not in found:
            inner = [(f"{path}/{name}", each) for name, each in below(call, node) if isinstance(each, Directory)]
            shown = [*inner[:1000], *shown]
        for name, each in shown:
            size = BLOCK_BYTES * (_blocks(each) + (_blocks_below(call, each) if isinstance(each, Directory) else 0))
            amount = human_size(size) if "h" in found else str(-(-size // (2**20 if "m" in found else 1024)))
            await call.out(f"{amount}\t{name}\n")
    return status


def _blocks_below(call: Call, directory: Directory) -> int:
    return sum(_blocks(node) for _, node in below(call, directory))


async def find(call: Call) -> int:
    """Print the paths below directories; -name, -type, -maxdepth."""
    paths: list[str] = []
    arguments = list(call.arguments)
    while arguments and not arguments[0].startswith("-"):
        paths.append(arguments.pop(0))
    tests: dict[str, str] = {}
    while arguments:
        test = arguments.pop(0)
        if test == "-print":
            continue
        if test not in {"-name", "-type", "-maxdepth"} or not arguments:
            raise Usage(f"the sandbox's find knows -name, -type and -maxdepth, not '{test}'")
        tests[test] = arguments.pop(0)[:1000]
    deepest = whole_number(tests.get("-maxdepth", "1000"))
    kinds = {"f": File, "d": Directory, "l": Link}
    status = 0
    for path in paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd, follow=False)
        except OSError as error:
            status = await call.fail(f"'{path}': {error.strerror}")
            continue
        base = path.rstrip("/") or ""
        inner = below(call, node) if isinstance(node, Directory) else []
        for name, each in [(path, node), *((f"{base}/{name}", each) for name, each in inner)]:
            if name.count("/") - base.count("/") > deepest and name != path:
                continue
            if not fnmatch.fnmatchcase(name.rsplit("/", 1)[-1], tests.get("-name", "*")):
                continue
            if "-type" not in tests or isinstance(each, kinds.get(tests["-type"], ())):
                await call.out(f"{name}\n")
    return status


async def truncate(call: Call) -> int:
    """Cut or extend files: -s SIZE."""
    found, paths = options(call.arguments, "c", "s")
    text = found.get("s", "")
    scale = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 0)
    size = whole_number(text[:-1] if scale else text) * (scale or 1)

    def resize(path: str) -> None:
        file = call.process.files.open_file(path, call.process.cwd, create="c" not in found)
        if isinstance(file, File):
            file.resize(size, call.process.files.now())

    return await _each(call, paths, "cannot open", resize)


async def names(call: Call) -> int:
    """Print the last part of a path (basename), or all but that (dirname)."""
    if not call.arguments:
        raise Usage("missing operand")
    path = call.arguments[0].rstrip("/") or "/"
    if call.name == "dirname":
        await call.out(f"{posixpath.dirname(path) or '.'}\n")
    else:
        await call.out(f"{(posixpath.basename(path) or '/').removesuffix(''.join(call.arguments[1:2]))}\n")
    return 0


PROGRAMS: Final[dict[str, Program]] = {
    "ls": ls, "mkdir": mkdir, "rmdir": rmdir, "rm": rm, "mv": mv, "cp": cp, "touch": touch, "ln": ln,
    "readlink": readlink, "realpath": readlink, "chmod": chmod, "stat": stat, "du": du, "find": find,
    "truncate": truncate, "basename": names, "dirname": names,
}  # fmt: skip
