"""Callers who go on renting, removing and reading through one address, and what they lose of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx2
from mcp import MCPError

from tests.deployment import MINE
from tests.http_server import calling

_PATIENCE_SECONDS: Final = 60
_AGAIN_SECONDS: Final = 0.2
_READS_APART_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Lost:
    """A call that got no answer of its tool: from when to when by `time.monotonic`, and what its caller was told."""

    tool: str
    began_at: float
    ended_at: float
    told: str


@dataclass
class Load:
    """The callers of one address.

    Attributes:
        rented: The names of the pods that they were told of.
        answered: How many calls were answered.
        refusals: The codes of the failures that tools told of.
        lost: The calls without an answer of their tool.
    """

    url: str
    rented: list[str] = field(default_factory=list)
    answered: int = 0
    refusals: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def going_on(self, *, renting: int, reading: int) -> AsyncIterator[None]:
        """So many callers of each kind in the block; what they have begun at its end they bring to an end."""
        async with asyncio.TaskGroup() as callers:
            for caller in range(renting):
                callers.create_task(self._keep_renting(caller))
            for _ in range(reading):
                callers.create_task(self._keep_reading())
            yield
            self._over.set()

    async def goes_on(self) -> None:
        """Wait until more was rented, and more was answered."""
        rented, answered = len(self.rented), self.answered
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while len(self.rented) == rented or self.answered < answered + 10:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(_AGAIN_SECONDS)

    async def call(self, tool: str, *, or_code: str = "ok", **arguments: Any) -> bool:
        """Call a tool; whether it did what it is for, or failed with a code that says that it is done."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), calling(self.url, "modern", MINE) as caller:
                result = await caller.raw(tool, **arguments)
        except* (MCPError, httpx2.TransportError, TimeoutError) as errors:
            self.lost.append(Lost(tool, began_at, time.monotonic(), _told(errors)))
        else:
            self.answered += 1
            code = str((result.meta or {})["lium-mcp/error"]["code"]) if result.is_error else "ok"
            if code in {"ok", or_code}:
                return True
            self.refusals.append(code)
        return False

    async def _until_done(self, tool: str, **arguments: Any) -> None:
        """The same call, again and again."""
        while not await self.call(tool, **arguments):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _keep_renting(self, caller: int) -> None:
        for number in count():
            if self._over.is_set():
                return
            name = f"pod-{caller}-{number}"
            await self._until_done("rent_pod", name=name, gpu_type="RTX4090", hours=2, wait_seconds=30)
            self.rented.append(name)
            # A call that was lost may have removed it.
            await self._until_done("remove_pod", or_code="pod_not_found", pod=name, wait_seconds=0)

    async def _keep_reading(self) -> None:
        while not self._over.is_set():
            await self.call("list_ssh_keys")
            await asyncio.sleep(_READS_APART_SECONDS)


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
