"""Messages over standard input, of which those that cannot be read are answered too: a host would wait for ever."""

import json
from types import TracebackType
from typing import Any, Final, Self

import anyio
from mcp.shared._context_streams import ContextReceiveStream, ContextSendStream
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError

_NO_JSON: Final = "This line is no JSON: one message in UTF-8 is expected."
_NO_MESSAGE: Final = (
    "This is no message of JSON-RPC 2.0 in Unicode: an object with jsonrpc, method and, for a request, an id that is a "
    "text or a whole number is expected, one to a line."
)


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
        """The next message."""
        while isinstance(item := await self._messages.receive(), ValidationError):
            if (refusal := _refusal(item)) is not None:
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


def _refusal(error: ValidationError) -> JSONRPCError | None:
    """What is said of a message, never what it holds; nothing of a line that is blank."""
    inputs = [problem["input"] for problem in error.errors(include_url=False, include_context=False)]
    message = next((value for value in inputs if isinstance(value, dict) and "id" in value), None)
    is_json = True
    if isinstance(inputs[0], str) and not inputs[0].strip():
        return None
    if error.errors()[0]["type"] == "json_invalid":
        try:  # Python reads what pydantic does not: halves of a character, as hosts cut them out
            message = json.loads(inputs[0])
        except (ValueError, TypeError, RecursionError):
            is_json = False
    request_id = message.get("id") if isinstance(message, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        request_id = None
    code, words = (INVALID_REQUEST, _NO_MESSAGE) if is_json else (PARSE_ERROR, _NO_JSON)
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=code, message=words))
