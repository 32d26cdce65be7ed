"""How a process waits, and the signal that can end it; processes and streams both need this."""

import types
from collections.abc import Callable, Generator
from typing import Final

KILLED: Final = 9
BROKEN_PIPE: Final = 13
TERMINATED: Final = 15
SIGNALS: Final = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": KILLED, "TERM": TERMINATED}

Waker = Callable[[], None]


class Signalled(BaseException):
    """Raised in a process that was sent a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Wait until something lets this process go on."""
    yield None


@types.coroutine
def _waker() -> Generator[str, Waker, Waker]:
    """Ask the kernel for what lets this process go on."""
    return (yield "waker")


class Waiting:
    """Processes that wait for the same thing; each looks again afterwards, since it may have been woken for another."""

    def __init__(self) -> None:
        self._wakers: list[Waker] = []

    async def wait(self) -> None:
        """Wait until it has changed."""
        self._wakers.append(await _waker())
        await pause()

    def wake(self) -> None:
        """Let all of them go on."""
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            waker()
