"""One connected server for all examples of hypothesis, which is not asynchronous: the next meets what the last left."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

from mcp.types import Tool

from tests.harness import Agent, text_of


class Standing:
    """A connection that is opened and closed in one task, as it has to be, and used from outside the event loop."""

    def __init__(self, connection: AbstractAsyncContextManager[Agent]) -> None:
        self._connection = connection
        self._runner = asyncio.Runner()
        self._end = asyncio.Event()
        self.agent: Agent
        self.tools: list[Tool]

    def __enter__(self) -> "Standing":
        async def serve(ready: asyncio.Event) -> None:
            async with self._connection as self.agent:
                self.tools = (await self.agent.client.list_tools()).tools
                ready.set()
                await self._end.wait()

        async def begin() -> None:
            ready = asyncio.Event()
            self._serving = asyncio.create_task(serve(ready))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                waiting.cancel()
                await self._serving

        self._runner.run(begin())
        return self

    def call(self, tool: Tool, arguments: dict[str, Any]) -> str:
        """Call a tool; return its answer as text, whether it succeeded or not."""

        async def call() -> str:
            return text_of(await self.agent.raw(tool.name, **arguments))

        return self._runner.run(call())

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._end.set()
            await self._serving

        self._runner.run(end())
        self._runner.close()
