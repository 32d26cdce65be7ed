"""What stands before the web application: who may come in, from which pages, and in which forms requests may come.

Host and Origin are always checked: a web page that a person visits must not be able to spend their money. Whatever
else clients and proxies do a little differently from what the SDK takes is put into its form here.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any, Final

from mcp.server.streamable_http import LAST_EVENT_ID_HEADER, MCP_SESSION_ID_HEADER, check_accept_headers
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types import HEADER_MISMATCH, PROTOCOL_VERSION_META_KEY
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp.serving.callers import OWN_KEY_HEADER
from lium_mcp.serving.messages import request_id_in
from lium_mcp.serving.sessions import MESSAGE
from lium_mcp.settings import Settings
from lium_mcp.values import is_loopback, split_host

log = logging.getLogger(__name__)

HEALTH: Final = "/healthz"
READY: Final = "/readyz"
MESSAGES: Final = "/messages/"
_LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_DEFAULT_PORTS: Final = ("80", "443")
_EVERY_ANSWER: Final = "application/json, text/event-stream"
_METHODS: Final = ("GET", "POST", "DELETE")
_SENT_HEADERS: Final = (
    "Authorization", "X-API-Key", OWN_KEY_HEADER, "Last-Event-ID", "Mcp-Method", "Mcp-Name", "Mcp-Protocol-Version",
    "Mcp-Session-Id",
)  # fmt: skip
_READ_HEADERS: Final = ("Mcp-Session-Id", "Retry-After", "WWW-Authenticate")
_TWO_LENGTHS: Final = "Send Content-Length or Transfer-Encoding, not both."
_CONTRADICTION: Final = (
    "The header MCP-Protocol-Version does not match the protocol version in _meta. Send the same in both."
)
_SETTING: Final = (
    "Whoever runs it names the host names under which clients may call with LIUM_MCP_ALLOWED_HOST (--allowed-host)."
)


def guarded(app: ASGIApp, settings: Settings, *, is_page: bool = False) -> ASGIApp:
    """Check Host and Origin before anything else, and let pages of the allowed origins read the answers.

    Only whether the server lives, and takes calls, may be asked from anywhere: who watches it calls it by its address.

    Args:
        app: What is guarded.
        settings: Have the hosts under which it may be called.
        is_page: Whether it serves its own page. Then no other page may call it: none at another port of this machine
            either, whoever has that.
    """
    host_pattern = f"(?i:{'|'.join(_patterns(settings))})"
    origin_pattern = f"(?i:https?)://{host_pattern}"
    hosts, origins = re.compile(host_pattern), re.compile(origin_pattern)
    probes = {settings.path_prefix + HEALTH, settings.path_prefix + READY}
    if not is_page:
        app = CORSMiddleware(
            app,
            allow_origin_regex=origin_pattern,
            allow_methods=_METHODS,
            allow_headers=_SENT_HEADERS,
            expose_headers=_READ_HEADERS,
        )

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may go by the other one, and take what follows for somebody else's request (RFC 9112, 6.1).
            await PlainTextResponse(_TWO_LENGTHS, 400, {"Connection": "close"})(scope, receive, send)
            return
        if scope["type"] == "http" and scope["path"] not in probes:
            host, origin = headers.get("host", ""), headers.get("origin")
            refusal = None
            if not hosts.fullmatch(host):
                log.warning("A request was refused: its Host is none of LIUM_MCP_ALLOWED_HOST")
                refusal = PlainTextResponse(f"This server is not called under that Host. {_SETTING}", 421)
            elif is_page and origin and origin != f"{scope['scheme']}://{host}":
                # Its address is what it was called under: the port may be one that SSH forwards.
                log.warning("A request was refused: its Origin is not that of the page")
                refusal = PlainTextResponse("Only the page of this address may call this server.", 403)
            elif origin and not origins.fullmatch(origin):
                log.warning("A request was refused: its Origin is none of LIUM_MCP_ALLOWED_HOST")
                refusal = PlainTextResponse(f"Web pages of that Origin may not call this server. {_SETTING}", 403)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return served


def found_below(app: ASGIApp, prefix: str) -> ASGIApp:
    """Serve each path with and without a slash at its end, and below the prefix, whether or not a proxy takes it off.

    Nobody is sent elsewhere for that: with a redirect clients lose the body or their key, and behind a proxy they
    would be sent to another host.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].rstrip("/")
            path = path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
            path = f"{path}/" if f"{path}/".startswith(MESSAGES) else path or "/"
            scope.update(root_path=prefix, path=prefix + path)
        await app(scope, receive, send)

    return served


def in_any_form(streams: ASGIApp, json: ASGIApp) -> ASGIApp:
    """Serve requests of Streamable HTTP in the forms that clients really send.

    Args:
        streams: Answers in a stream where there is something to tell before the end.
        json: Answers in JSON alone, without sessions: for clients that would not read a stream, or do not say so.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        takes_json, takes_streams = check_accept_headers(Request(scope))
        headers = MutableHeaders(scope=scope)
        if scope["method"] == "POST" and _contradicts(headers, scope[MESSAGE]):
            error = {"code": HEADER_MISMATCH, "message": _CONTRADICTION}
            refusal = {"jsonrpc": "2.0", "id": request_id_in(scope[MESSAGE]), "error": error}
            await JSONResponse(refusal, 400)(scope, receive, send)
            return
        # No event is kept, so a stream that is resumed begins anew; the SDK would give no answer at all.
        del headers[LAST_EVENT_ID_HEADER]
        if "content-type" in headers:
            headers["content-type"] = headers["content-type"].lower()  # as the SDK reads it
        says_nothing = "accept" not in headers
        if scope["method"] == "POST" and not takes_streams and (takes_json or says_nothing):
            if MCP_SESSION_ID_HEADER not in headers:
                headers["accept"] = _EVERY_ANSWER
                await json(scope, receive, send)
                return
            if says_nothing or request_id_in(scope[MESSAGE]) is None:  # only requests are answered with a stream
                headers["accept"] = _EVERY_ANSWER
        await streams(scope, receive, send)

    return served


def _contradicts(headers: Headers, message: dict[str, Any]) -> bool:
    """Whether a message is of a protocol that its header does not name, where that would be served as an older one."""
    version = headers.get(MCP_PROTOCOL_VERSION_HEADER)
    if (version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS) or message.get("method") == "initialize":
        return False  # the SDK looks at it
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and meta.get(PROTOCOL_VERSION_META_KEY, version) != version


def _patterns(settings: Settings) -> Iterator[str]:
    names = settings.allowed_host | (_LOOPBACK_NAMES if is_loopback(settings.host) else frozenset())
    for host, port in map(split_host, sorted(names)):
        # Without a port any will do; and clients leave out a default one, whatever is written.
        is_needed = port is not None and port not in _DEFAULT_PORTS
        yield rf"{re.escape(host)}\.?(?::{port or '[0-9]+'}){'' if is_needed else '?'}"
