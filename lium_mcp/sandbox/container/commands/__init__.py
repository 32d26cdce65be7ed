"""The commands of the sandbox's shell, by name."""

from typing import Final

from lium_mcp.sandbox.container.commands import builtins, machine, paths, process_commands, python, text_commands
from lium_mcp.sandbox.container.shell import Program

PROGRAMS: Final[dict[str, Program]] = {
    name: program
    for module in (builtins, text_commands, paths, machine, process_commands, python)
    for name, program in module.PROGRAMS.items()
}
