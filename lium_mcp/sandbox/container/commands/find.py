"""``find``, with -name, -type, -maxdepth, -print and -exec."""

import fnmatch
from dataclasses import dataclass, field
from typing import Final

from lium_mcp.sandbox.container.commands.operands import below, whole_number
from lium_mcp.sandbox.container.files import Directory, File, FileNode
from lium_mcp.sandbox.container.run import CommandCall, Program, Usage

KINDS: Final = {"f": File, "d": Directory}
LONGEST_NAME: Final = 255


@dataclass
class _Wish:
    """What is looked for, and what is done with it."""

    paths: list[str] = field(default_factory=list)
    name: str = "*"
    kind: type[FileNode] | None = None
    deepest: int = 10**6
    command: list[str] = field(default_factory=list)
    at_once: bool = False

    def fits(self, name: str, node: FileNode) -> bool:
        return fnmatch.fnmatchcase(name, self.name) and (self.kind is None or isinstance(node, self.kind))


def _read(arguments: list[str]) -> _Wish:
    wish, left = _Wish(), list(arguments)
    while left and not left[0].startswith("-"):
        wish.paths.append(left.pop(0))
    while left:
        test = left.pop(0)
        if test == "-exec":
            end = next((at for at, word in enumerate(left) if word in {";", "+"}), 0)
            wish.command, wish.at_once = left[:end], left[end : end + 1] == ["+"]
            if not wish.command:
                raise Usage("missing argument to '-exec'")
            del left[: end + 1]
        elif test == "-print":
            continue
        elif test not in {"-name", "-type", "-maxdepth"} or not left:
            raise Usage(f"the sandbox's find knows -name, -type, -maxdepth, -print and -exec, not '{test[:40]}'")
        elif test == "-name":
            wish.name = left.pop(0)[:LONGEST_NAME]
        elif test == "-maxdepth":
            wish.deepest = whole_number(left.pop(0))
        elif (kind := left.pop(0)) in KINDS:
            wish.kind = KINDS[kind]
        else:
            raise Usage(f"the sandbox's find knows -type f and d, not '{kind[:40]}'")
    return wish


async def find(call: CommandCall) -> int:
    """Print the paths below directories, or run a command on them."""
    wish = _read(call.arguments)
    found: list[str] = []
    for path in wish.paths or ["."]:
        try:
            node = call.process.files.get(path, call.process.cwd)
        except OSError as error:
            await call.fail(f"'{path}': {error.strerror}")
            continue
        inner = below(call, node) if isinstance(node, Directory) else []
        base = path.rstrip("/")
        found += [path] * wish.fits(base.rsplit("/", 1)[-1] or "/", node)
        found += [
            f"{base}/{name}"
            for name, each in inner
            if name.count("/") < wish.deepest and wish.fits(name.rsplit("/", 1)[-1], each)
        ]
    if not wish.command:
        await call.out("".join(f"{path}\n" for path in found))
        return call.status
    for paths in [found] * bool(found) if wish.at_once else [[path] for path in found]:
        call.process.budget.spend_on(sum(map(len, paths)) * sum(map(len, wish.command)))
        words = [word for part in wish.command for word in (paths if part == "{}" else [part.replace("{}", paths[0])])]
        child = call.shell.start(words)
        await call.process.end_of(child)
        if wish.at_once and child.exit_code:
            call.status = child.exit_code
    return call.status


PROGRAMS: Final[dict[str, Program]] = {"find": find}
