"""How a process waits, and what can end it: the primitives below processes and streams."""

import types
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lium_mcp.sandbox.container.kernel import Process

HANGUP: Final = 1
INTERRUPTED: Final = 2
KILLED: Final = 9
BROKEN_PIPE: Final = 13
TERMINATED: Final = 15


class Signalled(BaseException):
    """Raised in a process that was sent a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Wait until the kernel lets this process go on."""
    yield None


@types.coroutine
def _me() -> Generator[str, "Process", "Process"]:
    return (yield "me")


async def wait_in(waiting: "list[Process]") -> None:
    """Wait until whoever keeps the list makes the processes in it ready."""
    waiting.append(await _me())
    await pause()
