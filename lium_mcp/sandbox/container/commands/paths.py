"""Commands over files and directories: ls, mkdir, rm, mv, cp, touch, chmod, find, du and df."""

import errno
import fnmatch
import posixpath
import re
from functools import partial
from typing import Final

from lium_mcp.sandbox.container.commands.operands import (
    ENTRIES_PER_STEP,
    attempt,
    below,
    for_each_path,
    split_arguments,
    whole_number,
)
from lium_mcp.sandbox.container.files import (
    BLOCK_BYTES,
    Directory,
    File,
    FileNode,
    Storage,
    copy_into,
    failure,
    human_size,
    long_name,
)
from lium_mcp.sandbox.container.shell import CommandCall, Program, Shell, Usage
from lium_mcp.sandbox.container.words import LONGEST, PIECES_PER_STEP

LONGEST_NAME: Final = 255
PATHS_AT_ONCE: Final = 1000
FIND_KNOWS: Final = (
    "the sandbox's find knows -name PATTERN, -type f, -type d and -maxdepth N, "
    "and then -print, -exec CMD {} \\; or -exec CMD {} +"
)


@for_each_path("laA1htr", default=".")
async def ls(call: CommandCall, path: str) -> None:
    """List directories and files."""
    node, options = call.node(path), call.options
    entries: list[tuple[str, FileNode]] = [(path, node)]
    if isinstance(node, Directory):
        entries = sorted(node.entries.items())
        if len(call.operands) > 1:
            await call.out(f"{path}:\n")
        if "a" in options:
            entries = [(".", node), ("..", node), *entries]
        elif "A" not in options:
            entries = [entry for entry in entries if not entry[0].startswith(".")]
    call.process.budget.spend(len(entries) // ENTRIES_PER_STEP)
    if "t" in options:
        entries.sort(key=lambda entry: -entry[1].modified_at)
    if "r" in options:
        entries.reverse()
    names = [long_name(name, each, human="h" in options) if "l" in options else name for name, each in entries]
    await call.out("".join(f"{name}\n" for name in names))


@for_each_path("p")
async def mkdir(call: CommandCall, path: str) -> None:
    """Make directories."""
    call.process.files.make_directory(path, call.process.cwd, parents="p" in call.options)


@for_each_path("rRf")
async def rm(call: CommandCall, path: str) -> None:
    """Remove files, and directories with -r."""
    files, cwd = call.process.files, call.process.cwd
    node = files.find(path, cwd).node
    if isinstance(node, Directory) and call.options.keys() & {"r", "R"}:
        files.remove_directory(path, cwd, recursive=True)
    elif node is not None or "f" not in call.options:
        files.remove_file(path, cwd)


async def mv(call: CommandCall) -> None:
    """Move files and directories."""
    for source, target in _moves(call, "f"):
        await attempt(call, source, _move(call, source, target))


async def cp(call: CommandCall) -> None:
    """Copy files, and directories with -r."""
    for source, target in _moves(call, "rRapf"):
        recursive = bool({"r", "R", "a"} & call.options.keys())
        await attempt(call, source, _copy(call, source, target, recursive=recursive))


def _moves(call: CommandCall, letters: str) -> list[tuple[str, str]]:
    """Return each operand but the last, and where that one says that it goes."""
    split_arguments(call, letters)
    if len(call.operands) < 2:  # noqa: PLR2004 - from and to
        raise Usage("missing file operand")
    *sources, target = call.operands
    if isinstance(call.process.files.find(target, call.process.cwd).node, Directory):
        return [(path, posixpath.join(target, posixpath.basename(path.rstrip("/")) or ".")) for path in sources]
    if len(sources) > 1:
        raise Usage(f"target '{target[:200]}' is not a directory")
    return [(sources[0], target)]


async def _move(call: CommandCall, source: str, target: str) -> None:
    files, cwd = call.process.files, call.process.cwd
    try:
        files.rename(source, target, cwd)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        await _copy(call, source, target, recursive=True)
        if isinstance(call.node(source), Directory):
            files.remove_directory(source, cwd, recursive=True)
        else:
            files.remove_file(source, cwd)


async def _copy(call: CommandCall, source: str, target: str, *, recursive: bool) -> None:
    files, cwd = call.process.files, call.process.cwd
    node, place = files.get(source, cwd), files.find(target, cwd)
    if node is place.node or node in place.parents:
        raise failure(errno.EINVAL)
    call.process.budget.spend_on(sum(len(each.data) for _, each in below(call, source) if isinstance(each, File)))
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


@for_each_path()
async def touch(call: CommandCall, path: str) -> None:
    """Make empty files, or change their time."""
    files, cwd = call.process.files, call.process.cwd
    if files.find(path, cwd).node is None:
        files.write_file(path, b"", cwd)
    call.node(path).modified_at = files.now()


async def chmod(call: CommandCall) -> None:
    """Change modes: octal, or +x."""
    how, *paths = call.arguments or [""]
    if not re.fullmatch(r"\+x|[0-7]{3}", how, re.ASCII):
        raise Usage("the sandbox's chmod takes 755 or +x, and files")

    async def change(path: str) -> None:
        node = call.node(path)
        node.mode = node.mode | 0o111 if how == "+x" else int(how, 8)

    for path in paths:
        await attempt(call, path, change(path))


async def find(call: CommandCall) -> None:
    """Print the paths below directories, or run a command on them."""
    paths, words = list[str](), list(call.arguments)
    while words and not words[0].startswith("-"):
        paths.append(words.pop(0))
    action = next((at for at, word in enumerate(words) if word in {"-print", "-exec"}), len(words))
    tests, command, at_once = dict(zip(words[:action:2], words[1:action:2], strict=False)), list[str](), 1
    match words[action:]:
        case [] | ["-print"]:
            pass
        case ["-exec", name, *arguments, ";"] if ";" not in arguments:
            command = [name, *arguments]
        case ["-exec", name, *arguments, "{}", "+"] if "{}" not in "\n".join([name, *arguments]):
            command, at_once = [name, *arguments, "{}"], PATHS_AT_ONCE
        case _:
            raise Usage(FIND_KNOWS)
    kind, pattern = tests.get("-type", ""), tests.get("-name", "*")[:LONGEST_NAME]
    deepest = whole_number(tests.get("-maxdepth", "100"))
    if action % 2 or tests.keys() - {"-name", "-type", "-maxdepth"} or kind not in {"", "f", "d"}:
        raise Usage(FIND_KNOWS)
    found: list[str] = []

    async def look(path: str) -> None:
        level = path.rstrip("/").count("/") + deepest
        found.extend(
            each
            for each, node in below(call, path)
            if each.rstrip("/").count("/") <= level
            and fnmatch.fnmatchcase(posixpath.basename(each.rstrip("/")), pattern)
            and isinstance(node, {"f": File, "d": Directory}.get(kind, object))
        )

    for path in paths or ["."]:
        await attempt(call, path, look(path))
    if not command:
        await call.out("".join(f"{path}\n" for path in found))
        return
    for start in range(0, len(found), at_once):
        code = await _execute(call, command, found[start : start + at_once])
        call.status = call.status or int(code != 0 and at_once > 1)


async def _execute(call: CommandCall, command: list[str], paths: list[str]) -> int:
    """Run a command in a process of its own, with the paths in place of ``{}``: within a word only one can be."""
    template = " ".join(command)
    size = len(template) + template.count("{}") * sum(map(len, paths))
    if size > LONGEST:
        raise Usage("argument list too long")
    call.process.budget.spend_on(size)
    call.process.budget.spend(len(command) / PIECES_PER_STEP)
    words = [word for part in command for word in (paths if part == "{}" else [part.replace("{}", paths[0])])]
    return await call.shell.start(partial(Shell.run_words, words=words)).end() or 0


@for_each_path("sh", default=".")
async def du(call: CommandCall, path: str) -> None:
    """Print how much space is taken in all."""
    if "s" not in call.options:
        raise Usage("the sandbox's du prints totals alone: du -s, du -sh")
    nodes = below(call, path)
    size = sum(BLOCK_BYTES + (len(each.data) if isinstance(each, File) else 0) for _, each in nodes)
    await call.out(f"{human_size(size) if 'h' in call.options else size // 1024}\t{path}\n")


async def df(call: CommandCall) -> None:
    """Print the storages and what is free in them."""
    split_arguments(call, "h")
    mounts, asked = dict[Storage, str](), [call.node(path).storage for path in call.operands]
    for path, node in below(call, "/"):
        mounts.setdefault(node.storage, path)
    await call.out("Filesystem        Size      Used   Available  Use% Mounted on\n")
    for storage, path in mounts.items():
        if not asked or storage in asked:
            sizes = (storage.limit_bytes, storage.used_bytes, storage.limit_bytes - storage.used_bytes)
            total, used, free = (human_size(size) if "h" in call.options else str(size // 1024) for size in sizes)
            percent = 100 * storage.used_bytes // storage.limit_bytes
            await call.out(f"sandbox     {total:>10}{used:>10}{free:>12}{percent:>5}% {path}\n")


PROGRAMS: Final[dict[str, Program]] = {
    "ls": ls, "mkdir": mkdir, "rm": rm, "mv": mv, "cp": cp, "touch": touch, "chmod": chmod, "find": find, "du": du,
    "df": df,
}  # fmt: skip
