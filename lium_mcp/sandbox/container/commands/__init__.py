"""The commands of the sandbox's shell, by name."""

from typing import Final

from lium_mcp.sandbox.container.commands import machine, paths, shell_commands, text_commands
from lium_mcp.sandbox.container.shell import Program

PROGRAMS: Final[dict[str, Program]] = {
    name: program
    for module in (shell_commands, text_commands, paths, machine)
    for name, program in module.PROGRAMS.items()
}
