"""Messages over standard input. Those that cannot be read are answered too, or a host would wait for ever."""

from types import TracebackType
from typing import Any, Self

import anyio
from mcp.shared._context_streams import ContextReceiveStream, ContextSendStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError
from pydantic import ValidationError

from lium_mcp.serving.messages import is_answer, read_otherwise, refuse


class ReadableMessages:
    """The messages of a stream that can be read; the others are answered with an error."""

    def __init__(
        self, messages: ContextReceiveStream[SessionMessage | Exception], answers: ContextSendStream[SessionMessage]
    ) -> None:
        self._messages = messages
        self._answers = answers

    @property
    def last_context(self) -> Any:  # noqa: ANN401 - the SDK's own
        """The context of whoever sent the last message, which the SDK asks for."""
        return self._messages.last_context

    async def receive(self) -> SessionMessage | Exception:
        """The next message. An answer that cannot be read comes as an error, or whoever waits for it would wait on."""
        while isinstance(item := await self._messages.receive(), ValidationError):
            message, refusal = _read(item)
            if refusal is None:
                continue
            if is_answer(message):
                return SessionMessage(refusal)
            await self._answers.send(SessionMessage(refusal))
        return item

    async def aclose(self) -> None:
        """Read no more."""
        await self._messages.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _read(error: ValidationError) -> tuple[object, JSONRPCError | None]:
    """What can be made out of a line, and why it cannot be served; nothing is said of a blank one."""
    problems = error.errors(include_url=False, include_context=False)
    inputs = [problem["input"] for problem in problems]
    if isinstance(inputs[0], str) and not inputs[0].strip():
        return None, None
    if problems[0]["type"] == "json_invalid":
        return read_otherwise(inputs[0])
    message = next((value for value in inputs if isinstance(value, dict) and "id" in value), None)
    return message, refuse(message)
