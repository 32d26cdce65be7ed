"""Session ids that name their replica, so that a proxy can send each request of a session where the session is.

Sessions are for clients of the older protocol alone, and live in one process. The SDK makes their ids; outside, each is
`REPLICA.ID`, as the name of a replica has no dot. SSE sends its messages to `/messages/REPLICA/`.
"""

from typing import Final

from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.types import INVALID_REQUEST
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ELSEWHERE: Final = (
    "This session is not of this replica of the server, {own}: it is over, or a proxy has sent the request to another "
    "replica than the one that the session id names. Begin a new session with initialize; the current protocol needs "
    "none."
)

_STATELESS: Final = "This server keeps no sessions (LIUM_MCP_STATELESS): send requests to /mcp by POST.\n"
_NOT_ALLOWED: Final = 405


def named(app: ASGIApp, replica: str) -> ASGIApp:
    """Let the ids of an application's sessions begin with the replica's name, and answer those of others with 404."""
    prefix = f"{replica}."

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        headers = MutableHeaders(scope=scope)
        session_id = headers.get(MCP_SESSION_ID_HEADER)
        if session_id is not None:
            if not session_id.startswith(prefix):
                await elsewhere(replica)(scope, receive, send)
                return
            headers[MCP_SESSION_ID_HEADER] = session_id.removeprefix(prefix)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(raw=message["headers"])
                if MCP_SESSION_ID_HEADER in answered:
                    answered[MCP_SESSION_ID_HEADER] = prefix + answered[MCP_SESSION_ID_HEADER]
            await send(message)

        await app(scope, receive, send_named)

    return served


def elsewhere(replica: str) -> ASGIApp:
    """Answer that a session is not of this replica; clients open another one then."""
    error = {"code": INVALID_REQUEST, "message": _ELSEWHERE.format(own=replica)}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 404)


def without_sessions(app: ASGIApp) -> ASGIApp:
    """Serve no stream that would need a session: clients then send their requests alone."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope["method"] == "POST" else no_sessions(_NOT_ALLOWED))(scope, receive, send)

    return served


def no_sessions(status: int = 404) -> ASGIApp:
    """Answer that there are no sessions here, which SSE is nothing without."""
    return PlainTextResponse(_STATELESS, status, {"Allow": "POST"} if status == _NOT_ALLOWED else None)
