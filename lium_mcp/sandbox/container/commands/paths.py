"""Commands over files and directories: ls, mkdir, rm, mv, cp, touch, chmod, du and df."""

import errno
import posixpath
import re
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.commands.operands import ENTRIES_PER_STEP, below, options
from lium_mcp.sandbox.container.file_listing import human_size, long_name, size_of
from lium_mcp.sandbox.container.files import BLOCK_BYTES, Directory, File, FileNode, copy_into, copy_of, failure
from lium_mcp.sandbox.container.run import CommandCall, Program, Usage


async def ls(call: CommandCall) -> int:
    """List directories and files."""
    found, paths = options(call.arguments, "laA1htrRd")
    files, directories = list[tuple[str, FileNode]](), list[tuple[str, Directory]]()
    for path in paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd)
        except OSError as error:
            await call.fail(f"cannot access '{path}': {error.strerror}", 2)
            continue
        if isinstance(node, Directory) and "d" not in found:
            directories.append((path, node))
            inner = below(call, node) if "R" in found else []
            directories += [(f"{path}/{name}", each) for name, each in inner if isinstance(each, Directory)]
        else:
            files.append((path, node))
    await _list(call, files, found)
    for number, (path, directory) in enumerate(directories):
        if len(directories) + len(files) > 1:
            await call.out(f"{chr(10) * (number > 0 or bool(files))}{path}:\n")
        entries: list[tuple[str, FileNode]] = sorted(directory.entries.items())
        if "a" in found:
            entries = [(".", directory), ("..", directory), *entries]
        elif "A" not in found:
            entries = [(name, node) for name, node in entries if not name.startswith(".")]
        if "l" in found:
            await call.out(f"total {sum(_blocks(node) for _, node in entries) * BLOCK_BYTES // 1024}\n")
        await _list(call, entries, found)
    return call.status


async def _list(call: CommandCall, entries: list[tuple[str, FileNode]], found: dict[str, str]) -> None:
    call.process.budget.spend(len(entries) // ENTRIES_PER_STEP)
    if "t" in found:
        entries = sorted(entries, key=lambda entry: -entry[1].modified_at)
    shown = entries[::-1] if "r" in found else entries
    names = [long_name(name, node, human="h" in found) if "l" in found else name for name, node in shown]
    await call.out("".join(f"{name}\n" for name in names))


def _blocks(node: FileNode) -> int:
    return 1 + (-(-len(node.data) // BLOCK_BYTES) if isinstance(node, File) else 0)


async def _each(call: CommandCall, paths: list[str], problem: str, action: Callable[[str], None]) -> int:
    if not paths:
        raise Usage("missing operand")
    for path in paths:
        try:
            action(path)
        except OSError as error:
            await call.fail(f"{problem} '{path}': {error.strerror}")
    return call.status


async def mkdir(call: CommandCall) -> int:
    """Make directories."""
    found, paths = options(call.arguments, "p")
    files, cwd = call.process.files, call.process.cwd
    return await _each(
        call, paths, "cannot create directory", lambda path: files.make_directory(path, cwd, parents="p" in found)
    )


async def rm(call: CommandCall) -> int:
    """Remove files, and directories with -r."""
    found, paths = options(call.arguments, "rRf")
    files, cwd = call.process.files, call.process.cwd

    def remove(path: str) -> None:
        node = files.find(path, cwd).node
        if isinstance(node, Directory) and found.keys() & {"r", "R"}:
            files.remove_directory(path, cwd, recursive=True)
        elif node is not None or "f" not in found:
            files.remove_file(path, cwd)

    return 0 if not paths and "f" in found else await _each(call, paths, "cannot remove", remove)


async def mv(call: CommandCall) -> int:
    """Move files and directories."""
    _, paths = options(call.arguments, "f")
    files, cwd = call.process.files, call.process.cwd

    def move(source: str, target: str) -> None:
        try:
            files.rename(source, target, cwd)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(call, source, target, recursive=True)
            if isinstance(files.get(source, cwd), Directory):
                files.remove_directory(source, cwd, recursive=True)
            else:
                files.remove_file(source, cwd)

    return await _onto(call, paths, "move", move)


async def cp(call: CommandCall) -> int:
    """Copy files, and directories with -r."""
    found, paths = options(call.arguments, "rRapf")
    recursive = bool({"r", "R", "a"} & found.keys())
    return await _onto(call, paths, "copy", lambda old, new: _copy(call, old, new, recursive=recursive))


async def _onto(call: CommandCall, paths: list[str], verb: str, action: Callable[[str, str], None]) -> int:
    if len(paths) < 2:  # noqa: PLR2004 - from and to
        raise Usage("missing file operand")
    *sources, target = paths
    into = isinstance(call.process.files.find(target, call.process.cwd).node, Directory)
    if len(sources) > 1 and not into:
        return await call.fail(f"target '{target}' is not a directory")

    def onto(source: str) -> None:
        action(source, posixpath.join(target, posixpath.basename(source.rstrip("/")) or ".") if into else target)

    return await _each(call, sources, f"cannot {verb}", onto)


def _copy(call: CommandCall, source: str, target: str, *, recursive: bool) -> None:
    files, cwd = call.process.files, call.process.cwd
    node, place = files.get(source, cwd), files.find(target, cwd)
    inner = below(call, node) if isinstance(node, Directory) else []
    call.process.budget.spend_on(size_of(node) + sum(size_of(each) for _, each in inner))
    if node is place.node:
        raise failure(errno.EEXIST)
    if isinstance(node, Directory):
        if not recursive or any(parent is node for parent in place.parents):
            raise failure(errno.EINVAL if recursive else errno.EISDIR)
        if place.node is None:
            files.make_directory(target, cwd, mode=node.mode)
        copy_into(node, files.directory(target, cwd), files.now(), below=len(place.names))
    elif place.node is None:
        copy = place.parents[-1].entries[place.names[-1]] = copy_of(node, place.parents[-1].storage)
        copy.modified_at = files.now()
    else:
        files.write_file(target, bytes(node.data), cwd)


async def touch(call: CommandCall) -> int:
    """Make empty files, or change their time."""
    _, paths = options(call.arguments, "")
    files, cwd = call.process.files, call.process.cwd

    def make(path: str) -> None:
        if files.find(path, cwd).node is None:
            files.write_file(path, b"", cwd)
        files.get(path, cwd).modified_at = files.now()

    return await _each(call, paths, "cannot touch", make)


async def chmod(call: CommandCall) -> int:
    """Change modes: octal, +x or -x."""
    if len(call.arguments) < 2 or not re.fullmatch("[-+]x|[0-7]{3,4}", call.arguments[0], re.ASCII):  # noqa: PLR2004
        raise Usage("the sandbox's chmod takes 755, +x or -x and files")
    how, *paths = call.arguments

    def change(path: str) -> None:
        node = call.process.files.get(path, call.process.cwd)
        changed = {"+x": node.mode | 0o111, "-x": node.mode & ~0o111}
        node.mode = changed[how] if how in changed else int(how, 8) & 0o777

    return await _each(call, paths, "cannot access", change)


async def du(call: CommandCall) -> int:
    """Print how much space is taken."""
    found, paths = options(call.arguments, "shk")
    for path in paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd)
        except OSError as error:
            await call.fail(f"cannot access '{path}': {error.strerror}")
            continue
        blocks = {path: _blocks(node)}
        for name, each in below(call, node) if isinstance(node, Directory) else []:
            above = [path, *(f"{path}/{name[:at]}" for at, letter in enumerate(name) if letter == "/")]
            if isinstance(each, Directory):
                above.append(f"{path}/{name}")
            for directory in above:
                blocks[directory] = blocks.get(directory, 0) + _blocks(each)
        for name, count in [(path, blocks[path])] if "s" in found else reversed(blocks.items()):
            size = count * BLOCK_BYTES
            await call.out(f"{human_size(size) if 'h' in found else size // 1024}\t{name}\n")
    return call.status


async def df(call: CommandCall) -> int:
    """Print the storages and what is free in them."""
    found, paths = options(call.arguments, "h")
    root = call.process.files.root
    mounts = [(f"/{name}", node) for name, node in below(call, root) if isinstance(node, Directory)]
    seen, rows = set[int](), [("Size", "Used", "Available", "Use%", "Mounted on")]
    asked = [call.process.files.get(path, call.process.cwd) for path in paths]
    for path, directory in [("/", root), *mounts]:
        storage = directory.storage
        if id(storage) in seen or (paths and all(n.storage is not storage for n in asked)):
            continue
        seen.add(id(storage))
        sizes = (storage.limit_bytes, storage.used_bytes, storage.limit_bytes - storage.used_bytes)
        shown = [human_size(size) if "h" in found else str(size // 1024) for size in sizes]
        rows.append((shown[0], shown[1], shown[2], f"{100 * storage.used_bytes // storage.limit_bytes}%", path))
    await call.out("".join(f"{'sandbox' if at else 'Filesystem':<12}{a:>10}{b:>10}{c:>12}{d:>6} {e}\n"
                           for at, (a, b, c, d, e) in enumerate(rows)))  # fmt: skip
    return 0


PROGRAMS: Final[dict[str, Program]] = {
    "ls": ls, "mkdir": mkdir, "rm": rm, "mv": mv, "cp": cp, "touch": touch, "chmod": chmod, "du": du, "df": df,
}  # fmt: skip
