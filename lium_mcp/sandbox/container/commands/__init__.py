"""The commands of the sandbox's shell, by name."""

from typing import Final

from lium_mcp.sandbox.container.commands import builtins, processes, python, system, text, trees
from lium_mcp.sandbox.container.commands.inputs import Usage
from lium_mcp.sandbox.container.commands.patterns import PatternFault
from lium_mcp.sandbox.container.shell import Call, Program

MISUSED: Final = 2


def _guarded(program: Program) -> Program:
    """Let a command say what is wrong with its arguments, instead of ending its shell."""

    async def guarded(call: Call) -> int:
        try:
            return await program(call)
        except (Usage, PatternFault) as fault:
            return await call.fail(str(fault), MISUSED)

    return guarded


PROGRAMS: Final[dict[str, Program]] = {
    name: _guarded(program)
    for module in (builtins, text, trees, system, processes, python)
    for name, program in module.PROGRAMS.items()
}
