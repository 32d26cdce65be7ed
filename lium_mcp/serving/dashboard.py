"""The page in a browser on this machine: only who has its address from the terminal gets in.

The address has a token in its fragment, which no browser sends on or writes to a log. It is good for one session, and
for a few minutes; the session's own token, which the page keeps, goes with each request from then on. The page speaks
MCP like any client, and what it asks for is asked about like anybody's wish.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lium_mcp import __version__
from lium_mcp.api.clock import Clock
from lium_mcp.page import read_page
from lium_mcp.serving.callers import OWN_KEY_HEADER, Caller, Callers

ENTRY_MINUTES: Final = 5
_AGAIN: Final = "Run `lium-mcp dashboard` again, and open the address that it prints."
_NO_SESSION: Final = f"This needs the session of the page. {_AGAIN}"
_USED: Final = (
    "This address has been used: it opens the page once. Go on in the tab that it opened. If you had not used it, "
    f"somebody else has: end it with Ctrl-C. {_AGAIN}"
)
_LATE: Final = f"This address is older than {ENTRY_MINUTES} minutes, and opens the page no more. {_AGAIN}"
_WRONG: Final = f"This is not the address that was printed. {_AGAIN}"
_MOST_BYTES: Final = 4096
_RANDOM_BYTES: Final = 32
_OPEN: Final = ("/", "/token")
_CONTROLS: Final = "/_sandbox"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_SCRIPT: Final = re.compile(r"<script\b[^>]*>(.*?)</script>", re.DOTALL)
_STYLE: Final = re.compile(r"<style\b[^>]*>(.*?)</style>", re.DOTALL)


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(_RANDOM_BYTES)


class Entrance:
    """The way in: a token that is good once, soon after it was made, and the session that it opens.

    Attributes:
        token: What the address has in its fragment.
    """

    def __init__(self, session: str, clock: Clock) -> None:
        self.token = new_token()
        self._session = session
        self._clock = clock
        self._closes_at = clock.monotonic() + 60 * ENTRY_MINUTES
        self._is_used = False

    def open(self, token: str) -> str:
        """The token of the session.

        Raises:
            PermissionError: there is none for this token; its sentence is for the person who came with it.
        """
        if not _equal(token, self.token):
            raise PermissionError(_WRONG)
        if self._is_used:
            raise PermissionError(_USED)
        if self._clock.monotonic() > self._closes_at:
            raise PermissionError(_LATE)
        self._is_used = True
        return self._session


class Dashboard:
    """What serves the page beside MCP, and lets in its session alone.

    Attributes:
        gate: Tells who sent a request: this itself.
        routes: The page, and what it asks for besides MCP.
        is_page: That it is one.
    """

    is_page: Final = True

    def __init__(self, callers: Callers, session: str, entrance: Entrance, controls: ASGIApp | None = None) -> None:
        """`controls` has the clock and the faults of a sandbox, if it is one that the page looks at."""
        self.gate = self
        self._callers = callers
        self._session = session
        self._entrance = entrance
        self._controls = controls
        page = read_page()
        shown = HTMLResponse(page, headers=_HEADERS | {"Content-Security-Policy": _policy_for(page)})

        async def show(_: Request) -> Response:
            return shown

        self.routes: Sequence[BaseRoute] = (
            Route("/", show),
            Route("/token", self._enter, methods=["POST"]),
            Route("/start.json", self._start),
            *([Mount(_CONTROLS, _out_of_browser(controls))] if controls else ()),
        )

    async def identify(self, scope: Scope) -> Caller | Response:
        """Who sent a request; or the answer to it, where that has not the session's token."""
        headers = MutableHeaders(scope=scope)
        if scope["path"] in _OPEN:
            return Caller()
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer" or not _equal(token, self._session):
            return _said({"error": _NO_SESSION}, 401)
        # To all else it is the server token, of which a proxy's requests make nothing either.
        del headers["authorization"]
        headers[OWN_KEY_HEADER] = token
        return self._callers.identify(Headers(scope=scope))

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def _enter(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return _said({"error": _WRONG}, 413)
        try:
            token = json.loads(body)["token"]
            return _said({"token": self._entrance.open(str(token))})
        except (ValueError, TypeError, KeyError, RecursionError):
            return _said({"error": _WRONG}, 401)
        except PermissionError as refused:
            return _said({"error": str(refused)}, 401)

    async def _start(self, _: Request) -> Response:
        return _said({"version": __version__} | ({"controls": _CONTROLS} if self._controls else {}))


def _said(what: dict[str, str], status: int = 200) -> JSONResponse:
    challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}  # noqa: PLR2004 - as HTTP numbers it
    return JSONResponse(what, status, _HEADERS | challenge)


def _equal(text: str, token: str) -> bool:
    # Equally slow to compare, whatever was sent and however long it is.
    digests = [hashlib.sha256(each.encode(errors="surrogatepass")).digest() for each in (text, token)]
    return hmac.compare_digest(*digests)


def _policy_for(page: str) -> str:
    """What the page may do: run its own script, wear its own style, and ask the server that sent it."""
    allowed = {
        "script-src": _SCRIPT.findall(page),
        "style-src": _STYLE.findall(_SCRIPT.sub("", page)),
    }
    rules = [f"{rule} {' '.join(map(_hash, texts))}" for rule, texts in allowed.items()]
    refused = ("frame-ancestors", "base-uri", "form-action")
    return "; ".join(["default-src 'none'", *rules, "connect-src 'self'", *(f"{rule} 'none'" for rule in refused)])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _out_of_browser(app: ASGIApp) -> ASGIApp:
    """Pass requests on as programs send them: who may come in has been decided by then."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        del MutableHeaders(scope=scope)["origin"]
        await app(scope, receive, send)

    return served
