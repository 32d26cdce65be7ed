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
        """The next message; an answer that cannot be read comes as an error, or what waits for it would wait on."""
        while isinstance(item := await self._messages.receive(), ValidationError):
            message, problem = _read(item)
            if problem is None:
                continue
            refusal = SessionMessage(JSONRPCError(jsonrpc="2.0", id=_id_of(message), error=problem))
            if isinstance(message, dict) and "method" not in message and not {"result", "error"}.isdisjoint(message):
                return refusal
            await self._answers.send(refusal)
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


def _read(error: ValidationError) -> tuple[object, ErrorData | None]:
    """What can be made out of a message, and what is wrong with it; nothing is with a blank line."""
    problems = error.errors(include_url=False, include_context=False)
    inputs = [problem["input"] for problem in problems]
    if isinstance(inputs[0], str) and not inputs[0].strip():
        return None, None
    if problems[0]["type"] != "json_invalid":
        message = next((value for value in inputs if isinstance(value, dict) and "id" in value), None)
        return message, ErrorData(code=INVALID_REQUEST, message=_NO_MESSAGE)
    try:  # Python reads what pydantic does not: halves of a character, as hosts cut them out
        return json.loads(inputs[0]), ErrorData(code=INVALID_REQUEST, message=_NO_MESSAGE)
    except (ValueError, TypeError, RecursionError):
        return None, ErrorData(code=PARSE_ERROR, message=_NO_JSON)


def _id_of(message: object) -> str | int | None:
    request_id = message.get("id") if isinstance(message, dict) else None
    return request_id if isinstance(request_id, str | int) and not isinstance(request_id, bool) else None
