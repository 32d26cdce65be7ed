"""Messages of JSON-RPC as callers send them, and what is said of those that cannot be served, over every transport.

No sentence repeats what was sent.
"""

import json
from typing import Any, Final

from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import from_json

_NO_JSON: Final = "This is no JSON: one message in UTF-8 is expected."
_NO_MESSAGE: Final = (
    "This is no message of JSON-RPC 2.0 in Unicode: one object with jsonrpc, method and, for a request, an id "
    "that is a text or a whole number is expected."
)
_ID_IN_USE: Final = (
    "A request with this id still runs on this connection, and this one was not served. Give each request an id of its "
    "own, or wait for the answer."
)


def read_message(body: bytes) -> tuple[dict[str, Any], JSONRPCMessage | None, JSONRPCError | None]:
    """The message in a body, empty where there is none; the same as the SDK takes it; and why it cannot be served."""
    read, refusal = None, None
    try:
        message = from_json(body)
    except ValueError:
        message, refusal = _read_otherwise(body)
    else:
        read = _validated(message)
        if read is None:
            refusal = refuse(message)
    return message if isinstance(message, dict) else {}, read, refusal


def _read_otherwise(body: bytes) -> tuple[object, JSONRPCError]:
    """What can be made out of a body that pydantic does not take for JSON, and why it cannot be served."""
    try:  # Python reads what pydantic does not: halves of a character, as hosts cut them out
        message = json.loads(body.decode("utf-8-sig", "surrogatepass"))
    except (ValueError, RecursionError):
        return None, JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=PARSE_ERROR, message=_NO_JSON))
    return message, refuse(message)


def refuse(message: object) -> JSONRPCError:
    """Say why an invalid message cannot be served."""
    request_id = message.get("id") if isinstance(message, dict) else None
    if not isinstance(request_id, str | int) or isinstance(request_id, bool) or not _is_text(str(request_id)):
        request_id = None
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=INVALID_REQUEST, message=_NO_MESSAGE))


def refuse_again(request_id: str | int) -> JSONRPCError:
    """Say why a request whose id is in use is not served."""
    return JSONRPCError(jsonrpc="2.0", id=request_id, error=ErrorData(code=INVALID_REQUEST, message=_ID_IN_USE))


def request_id_in(message: object) -> str | int | None:
    """The id of a message that is a request, else None."""
    request_id = message.get("id") if isinstance(message, dict) and "method" in message else None
    return request_id if isinstance(request_id, str | int) else None


def is_answer(message: object) -> bool:
    """Whether an invalid message was meant as an answer to a request of ours: who waits for it must hear of it."""
    return isinstance(message, dict) and "method" not in message and not {"result", "error"}.isdisjoint(message)


def _validated(message: object) -> JSONRPCMessage | None:
    try:
        read = jsonrpc_message_adapter.validate_python(message, by_name=False)
    except ValidationError:
        return None
    # What is meant as a request, and read as something else, would be left without an answer: one whose id cannot be
    # used as a notification, one that has a member of answers too as an answer.
    given = message.keys() if isinstance(message, dict) else set()
    if isinstance(read, JSONRPCNotification):
        is_what_was_meant = "id" not in given or read.method.startswith("notifications/")
    else:
        is_what_was_meant = isinstance(read, JSONRPCRequest) or "method" not in given
    return read if is_what_was_meant else None


def _is_text(text: str) -> bool:
    """Whether a text can be written in UTF-8: halves of a character cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
