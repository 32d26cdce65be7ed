"""Commands over files and directories: ls, mkdir, rm, mv, cp, touch, chmod, find, du and df."""

import errno
import fnmatch
import posixpath
import re
from collections.abc import Callable
from typing import Final

from lium_mcp.sandbox.container.commands.operands import ENTRIES_PER_STEP, below, each, options, whole_number
from lium_mcp.sandbox.container.file_listing import human_size, long_name
from lium_mcp.sandbox.container.files import BLOCK_BYTES, Directory, File, FileNode, copy_into, failure
from lium_mcp.sandbox.container.shell import CommandCall, Program, Usage

LONGEST_NAME: Final = 255


async def ls(call: CommandCall) -> int:
    """List directories and files."""
    found, paths = options(call.arguments, "laA1htr")

    async def show(path: str) -> None:
        node = call.process.files.get(path, call.process.cwd)
        entries: list[tuple[str, FileNode]] = [(path, node)]
        if isinstance(node, Directory):
            entries = sorted(node.entries.items())
            if len(paths) > 1:
                await call.out(f"{path}:\n")
            if "a" in found:
                entries = [(".", node), ("..", node), *entries]
            elif "A" not in found:
                entries = [(name, each) for name, each in entries if not name.startswith(".")]
        call.process.budget.spend(len(entries) // ENTRIES_PER_STEP)
        if "t" in found:
            entries.sort(key=lambda entry: -entry[1].modified_at)
        if "r" in found:
            entries.reverse()
        names = [long_name(name, each, human="h" in found) if "l" in found else name for name, each in entries]
        await call.out("".join(f"{name}\n" for name in names))

    return await each(call, paths or ["."], show)


async def mkdir(call: CommandCall) -> int:
    """Make directories."""
    found, paths = options(call.arguments, "p")
    files, cwd = call.process.files, call.process.cwd
    return await each(call, paths, lambda path: files.make_directory(path, cwd, parents="p" in found))


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

    return await each(call, paths, remove)


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

    return await _onto(call, paths, move)


async def cp(call: CommandCall) -> int:
    """Copy files, and directories with -r."""
    found, paths = options(call.arguments, "rRapf")
    recursive = bool({"r", "R", "a"} & found.keys())
    return await _onto(call, paths, lambda old, new: _copy(call, old, new, recursive=recursive))


async def _onto(call: CommandCall, paths: list[str], action: Callable[[str, str], None]) -> int:
    """Do something with each path but the last, and with where that one says that it goes."""
    if len(paths) < 2:  # noqa: PLR2004 - from and to
        raise Usage("missing file operand")
    *sources, target = paths
    into = isinstance(call.process.files.find(target, call.process.cwd).node, Directory)
    if len(sources) > 1 and not into:
        return await call.fail(f"target '{target}' is not a directory")

    def onto(source: str) -> None:
        action(source, posixpath.join(target, posixpath.basename(source.rstrip("/")) or ".") if into else target)

    return await each(call, sources, onto)


def _copy(call: CommandCall, source: str, target: str, *, recursive: bool) -> None:
    files, cwd = call.process.files, call.process.cwd
    node, place = files.get(source, cwd), files.find(target, cwd)
    if node is place.node or node in place.parents:
        raise failure(errno.EINVAL)
    inner = [each for _, each in below(call, node)]
    call.process.budget.spend_on(sum(len(each.data) for each in [node, *inner] if isinstance(each, File)))
    if isinstance(node, File):
        copy = files.open_file(target, cwd, create=True, truncate=True)
        copy.write_at(0, bytes(node.data), files.now())
        copy.mode = node.mode
        return
    if not recursive:
        raise failure(errno.EISDIR)
    if place.node is None:
        files.make_directory(target, cwd, mode=node.mode)
    copy_into(node, files.directory(target, cwd), files.now(), below=len(place.names))


async def touch(call: CommandCall) -> int:
    """Make empty files, or change their time."""
    _, paths = options(call.arguments, "")
    files, cwd = call.process.files, call.process.cwd

    def make(path: str) -> None:
        if files.find(path, cwd).node is None:
            files.write_file(path, b"", cwd)
        files.get(path, cwd).modified_at = files.now()

    return await each(call, paths, make)


async def chmod(call: CommandCall) -> int:
    """Change modes: octal, or +x."""
    how, *paths = call.arguments or [""]
    if not re.fullmatch(r"\+x|[0-7]{3}", how, re.ASCII):
        raise Usage("the sandbox's chmod takes 755 or +x, and files")

    def change(path: str) -> None:
        node = call.process.files.get(path, call.process.cwd)
        node.mode = node.mode | 0o111 if how == "+x" else int(how, 8)

    return await each(call, paths, change)


async def find(call: CommandCall) -> int:
    """Print the paths below directories."""
    paths, words = list[str](), list(call.arguments)
    while words and not words[0].startswith("-"):
        paths.append(words.pop(0))
    tests = dict(zip(words[::2], words[1::2], strict=False))
    kind, name = tests.get("-type", ""), tests.get("-name", "*")[:LONGEST_NAME]
    deepest = whole_number(tests.get("-maxdepth", "100"))
    if len(words) % 2 or tests.keys() - {"-name", "-type", "-maxdepth"} or kind not in {"", "f", "d"}:
        raise Usage("the sandbox's find knows -name PATTERN, -type f, -type d and -maxdepth N")

    async def show(path: str) -> None:
        node, base = call.process.files.get(path, call.process.cwd), path.rstrip("/")
        nodes = [(0, path, node), *((1 + at.count("/"), f"{base}/{at}", each) for at, each in below(call, node))]
        fitting = [
            each
            for depth, each, node in nodes
            if depth <= deepest
            and fnmatch.fnmatchcase(posixpath.basename(each.rstrip("/")), name)
            and isinstance(node, {"f": File, "d": Directory}.get(kind, object))
        ]
        await call.out("".join(f"{each}\n" for each in fitting))

    return await each(call, paths or ["."], show)


async def du(call: CommandCall) -> int:
    """Print how much space is taken in all."""
    found, paths = options(call.arguments, "sh")
    if "s" not in found:
        raise Usage("the sandbox's du prints totals alone: du -s, du -sh")

    async def show(path: str) -> None:
        node = call.process.files.get(path, call.process.cwd)
        nodes = [node, *(each for _, each in below(call, node))]
        size = sum(BLOCK_BYTES + (len(each.data) if isinstance(each, File) else 0) for each in nodes)
        await call.out(f"{human_size(size) if 'h' in found else size // 1024}\t{path}\n")

    return await each(call, paths or ["."], show)


async def df(call: CommandCall) -> int:
    """Print the storages and what is free in them."""
    found, paths = options(call.arguments, "h")
    files = call.process.files
    asked = [files.get(path, call.process.cwd).storage for path in paths]
    mounts = {files.root.storage: "/"}
    for name, node in below(call, files.root):
        mounts.setdefault(node.storage, f"/{name}")
    await call.out("Filesystem        Size      Used   Available  Use% Mounted on\n")
    for storage, path in mounts.items():
        if not paths or storage in asked:
            sizes = (storage.limit_bytes, storage.used_bytes, storage.limit_bytes - storage.used_bytes)
            total, used, free = (human_size(size) if "h" in found else str(size // 1024) for size in sizes)
            percent = 100 * storage.used_bytes // storage.limit_bytes
            await call.out(f"sandbox     {total:>10}{used:>10}{free:>12}{percent:>5}% {path}\n")
    return 0


PROGRAMS: Final[dict[str, Program]] = {
    "ls": ls, "mkdir": mkdir, "rm": rm, "mv": mv, "cp": cp, "touch": touch, "chmod": chmod, "find": find, "du": du,
    "df": df,
}  # fmt: skip
