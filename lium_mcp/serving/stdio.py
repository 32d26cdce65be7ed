"""Messages over standard input and output, one in a line. Those that cannot be read are answered too.

A host would wait for ever for what it hears nothing of. At the end of the input, what was asked for before is answered
still: `at_end` decides what is worth that.
"""

import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
from anyio import CancelScope, CapacityLimiter, to_thread
from mcp.shared._context_streams import ContextReceiveStream, ContextSendStream, create_context_streams
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from lium_mcp.serving.front import Front, Wire
from lium_mcp.serving.messages import is_answer, read_message, refuse_again

log = logging.getLogger(__name__)

_LAST_ANSWERS_SECONDS: Final = 30.0

Incoming = ContextReceiveStream[SessionMessage | Exception]
Outgoing = ContextSendStream[SessionMessage]


class Stdio:
    """One connection with the host that started this process."""

    def __init__(self, front: Front | None) -> None:
        """Take standard input and output; `front`, if there is one, has them already, and hands over."""
        self._wire = front.wire if front is not None else Wire()
        self._front = front
        self._told: bytes | None = (
            None  # what the host has as the answer to the opening, until the server gives its own
        )
        self._opened = anyio.Event()
        self._owed: Counter[str] = Counter()
        self._nothing_owed = anyio.Event()

    @property
    def parent(self) -> int:
        """The process that started this one."""
        return self._wire.parent

    @asynccontextmanager
    async def messages(self, at_end: Callable[[], Awaitable[None]]) -> AsyncIterator[tuple[Incoming, Outgoing]]:
        """Read and write until the block ends.

        Args:
            at_end: Called when the input has ended, to shorten what goes on; answers are waited for within a bound.
        """
        to_server, incoming = create_context_streams[SessionMessage | Exception](0)
        outgoing, from_server = create_context_streams[SessionMessage](0)
        async with anyio.create_task_group() as group:
            reading = anyio.CancelScope()
            group.start_soon(self._write_all, from_server, group.cancel_scope)
            group.start_soon(self._read_all, reading, to_server, outgoing.clone(), at_end)
            yield incoming, outgoing
            reading.cancel()
            outgoing.close()

    async def _read_all(
        self,
        reading: CancelScope,
        to_server: ContextSendStream[SessionMessage | Exception],
        refusals: Outgoing,
        at_end: Callable[[], Awaitable[None]],
    ) -> None:
        with reading, suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # where the server has ended
            async with to_server, refusals, aclosing(self._lines()) as lines:
                async for line in lines:
                    await self._pass_on(line, to_server, refusals)
                await at_end()
                with anyio.move_on_after(_LAST_ANSWERS_SECONDS):
                    await self._until_nothing_is_owed()

    async def _lines(self) -> AsyncGenerator[bytes]:
        if self._front is not None:
            opening = self._front.opening()
            if opening is not None:
                request, self._told = opening
                yield request
                await self._opened.wait()
            for line in self._front.take_over():
                yield line
        # A thread that waits for input cannot be interrupted; one of its own takes none from others.
        read_line = partial(
            to_thread.run_sync, self._wire.read_line, abandon_on_cancel=True, limiter=CapacityLimiter(1)
        )
        while line := await read_line():
            yield line

    async def _pass_on(
        self, line: bytes, to_server: ContextSendStream[SessionMessage | Exception], refusals: Outgoing
    ) -> None:
        if not line.strip():
            return
        message, read, refusal = read_message(line)
        if isinstance(read, JSONRPCRequest) and str(read.id) in self._owed:
            refusal = refuse_again(read.id)
        if read is not None and refusal is None:
            if isinstance(read, JSONRPCRequest):
                self._owed[str(read.id)] += 1
            elif isinstance(read, JSONRPCNotification) and read.method == "notifications/cancelled":
                self._settle((read.params or {}).get("requestId"))
            await to_server.send(SessionMessage(read))
        elif refusal is not None:
            log.warning("A message that cannot be served was refused with %d", refusal.error.code)
            if is_answer(message):
                await to_server.send(SessionMessage(refusal))  # whoever waits for it hears that it was none
                return
            if refusal.id is not None:
                self._owed[str(refusal.id)] += 1
            await refusals.send(SessionMessage(refusal))

    async def _write_all(self, from_server: ContextReceiveStream[SessionMessage], connection: CancelScope) -> None:
        limiter = CapacityLimiter(1)
        async with from_server:
            async for item in from_server:
                line = item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
                answered = item.message.id if isinstance(item.message, JSONRPCResponse | JSONRPCError) else None
                if answered is not None:
                    self._settle(answered)  # whoever has read it may use its id again
                if self._told is not None and answered is not None:
                    if line != self._told:
                        log.error("What the host heard first is not what this server says: its records are of another")
                    self._told = None
                    self._opened.set()
                else:
                    try:
                        await to_thread.run_sync(self._wire.write, line, limiter=limiter)
                    except OSError:
                        connection.cancel()  # nobody reads any longer
                        return

    def _settle(self, request_id: object) -> None:
        self._owed[str(request_id)] -= 1
        if self._owed[str(request_id)] <= 0:
            del self._owed[str(request_id)]
        if not self._owed:
            self._nothing_owed.set()

    async def _until_nothing_is_owed(self) -> None:
        while self._owed:
            self._nothing_owed = anyio.Event()
            await self._nothing_owed.wait()
