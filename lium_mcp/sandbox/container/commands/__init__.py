"""The commands of the sandbox's shell, by name."""

from typing import Final

from lium_mcp.sandbox.container.commands import builtins, find, machine, paths, processes, python, text
from lium_mcp.sandbox.container.run import Program

PROGRAMS: Final[dict[str, Program]] = {
    name: program
    for module in (builtins, text, paths, find, machine, processes, python)
    for name, program in module.PROGRAMS.items()
}
