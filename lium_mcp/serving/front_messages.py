"""The messages whose answers are known beforehand: each of exactly this form has the same answer.

The forms are narrow on purpose. Whatever the SDK might read in another way, or refuse, is left to it. Standard library
only.
"""

import json

from lium_mcp.serving.prepared import CURRENT, HANDSHAKE, HANDSHAKE_VERSIONS

_LARGEST_ID = 2**53
_MOST_ID_CHARACTERS = 128
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/ ")
_PREFIX = "io.modelcontextprotocol/"
_VERSION, _CAPABILITIES, _CLIENT, _LOG_LEVEL = (
    f"{_PREFIX}{name}" for name in ("protocolVersion", "clientCapabilities", "clientInfo", "logLevel")
)
_LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_PARTS = {"sampling": {"context", "tools"}, "elicitation": {"form", "url"}}
_CLIENT_TEXTS = {"name", "version", "title", "description", "websiteUrl"}


class UnknownForm(ValueError):
    """A message is not of a form that is known here: the server has to say what it makes of it."""


class Message:
    """A request, or a notification, whose id is None."""

    __slots__ = ("method", "params", "request_id")

    def __init__(self, method: str, request_id: int | str | None, params: dict[str, object]) -> None:
        self.method = method
        self.request_id = request_id
        self.params = params


def read_message(line: bytes) -> Message:
    """Read a line.

    Raises:
        ValueError: it is no message of plain form.
        RecursionError: it is nested too deeply.
    """
    if b"\\u" in line:  # halves of a character may be written so
        raise UnknownForm
    message = json.loads(line.decode(), object_pairs_hook=_without_repetition, parse_constant=_refuse)
    if not isinstance(message, dict) or not message.keys() <= {"jsonrpc", "id", "method", "params"}:
        raise UnknownForm
    method, request_id, params = message.get("method"), message.get("id"), message.get("params", {})
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict):
        raise UnknownForm
    is_notification = "id" not in message and method.startswith("notifications/")
    if not is_notification and not _is_plain_id(request_id):
        raise UnknownForm
    return Message(method, request_id, params)


def check_params(era: str, message: Message) -> str:
    """The version that `initialize` asks for; empty for other requests.

    Raises:
        UnknownForm: the parameters are not those of a plain request.
    """
    params = message.params
    if message.method == "initialize":
        version = params.get("protocolVersion")
        if params.keys() != {"protocolVersion", "capabilities", "clientInfo"} or version not in HANDSHAKE_VERSIONS:
            raise UnknownForm
        _check_client(params["capabilities"], params["clientInfo"])
        return str(version)
    meta = params.get("_meta", {})
    if not params.keys() <= {"_meta"} or not isinstance(meta, dict):
        raise UnknownForm
    if type(meta.get("progressToken", 0)) not in (int, str):
        raise UnknownForm
    names = meta.keys() - {"progressToken"}
    if era == HANDSHAKE:
        if names:
            raise UnknownForm
        return ""
    needed = {_VERSION, _CAPABILITIES}
    if meta.get(_VERSION) != CURRENT or not needed <= names <= needed | {_CLIENT, _LOG_LEVEL}:
        raise UnknownForm
    if meta.get(_LOG_LEVEL, "debug") not in _LOG_LEVELS:  # an answer that is prepared comes with no messages to log
        raise UnknownForm
    _check_client(meta[_CAPABILITIES], meta.get(_CLIENT, {"name": "", "version": ""}))
    return ""


def extensions_of(message: Message) -> object:
    """What the client that sends such a request says that it has besides the protocol; None where it says nothing.

    The parameters have been checked.
    """
    meta = message.params.get("_meta")
    told = message.params.get("capabilities") or (meta.get(_CAPABILITIES) if isinstance(meta, dict) else None)
    return told.get("extensions") if isinstance(told, dict) else None


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise UnknownForm
    return members


def _refuse(_: str) -> None:
    raise UnknownForm  # NaN and Infinity are no JSON


def _is_plain_id(request_id: object) -> bool:
    if isinstance(request_id, str):
        return 0 < len(request_id) <= _MOST_ID_CHARACTERS and set(request_id) <= _ID_CHARACTERS
    return type(request_id) is int and abs(request_id) <= _LARGEST_ID


def _check_client(capabilities: object, client: object) -> None:
    if not isinstance(capabilities, dict) or not isinstance(client, dict):
        raise UnknownForm
    if not all(_is_plain_capability(name, value) for name, value in capabilities.items()):
        raise UnknownForm
    texts = client.values()
    if not {"name", "version"} <= client.keys() <= _CLIENT_TEXTS or not all(isinstance(text, str) for text in texts):
        raise UnknownForm


def _is_plain_capability(name: str, value: object) -> bool:
    if not isinstance(value, dict):
        return False
    if name == "roots":
        return value.keys() <= {"listChanged"} and all(isinstance(item, bool) for item in value.values())
    if name in _PARTS:
        return value.keys() <= _PARTS[name] and all(item == {} for item in value.values())
    return name in ("experimental", "extensions") and all(isinstance(item, dict) for item in value.values())
