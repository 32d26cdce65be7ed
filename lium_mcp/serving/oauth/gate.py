"""Who sent a request, where callers may log in: what it shows is a Lium key, the server token, or a token of a login.

A Lium key is told by how it begins, so that callers with keys go on as without logins. Who shows nothing is asked to
log in: clients begin a login when they are refused, and never otherwise.
"""

from typing import Any, Final, Protocol

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from lium_mcp.serving.callers import Caller, Callers
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.values import KEY_PREFIX, cleaned, cleaned_key, is_placeholder

_MOST_TOKEN_CHARACTERS: Final = 8192
_FOR_CALLERS: Final = ("/mcp", "/sse", "/messages")


class TokenRefused(Exception):
    """A token does not count; the sentence says why, without anything of the token."""


class ScopeMissing(Exception):
    """A token lacks what it has to have."""


class NotVerifiable(Exception):
    """Whether a token counts cannot be told now."""


class Tokens(Protocol):
    """Tells whose a token is."""

    async def caller_of(self, token: str) -> Caller:
        """The caller that a token stands for.

        Raises:
            TokenRefused: it is not valid, or not for this server.
            ScopeMissing: it lacks a scope.
            NotVerifiable: that cannot be told now.
        """


class Gate:
    """Tells who sent a request, or answers it."""

    def __init__(self, callers: Callers, tokens: Tokens, resource: Resource) -> None:
        self._callers = callers
        self._tokens = tokens
        self._resource = resource

    async def identify(self, scope: Scope) -> Caller | Response:
        """Who sent a request; or the answer to it, where that has to log in first."""
        headers = Headers(scope=scope)
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if not path.startswith(_FOR_CALLERS):
            return self._callers.identify(headers)
        token = _token_in(headers)
        # A header that holds nothing is none, and a token is never taken for a key: it would be sent to Lium.
        shows_key = bool(cleaned_key(headers.get("x-api-key", "")))
        if token is not None and not shows_key:
            return await self._of_token(token)
        caller = self._callers.identify(headers)
        if caller.owner is None and not shows_key:
            return self._resource.challenge("Log in, or send a Lium API key in the header X-API-Key.")
        return caller

    async def _of_token(self, token: str) -> Caller | Response:
        if len(token) > _MOST_TOKEN_CHARACTERS:
            return self._resource.challenge("The token is too long.", error="invalid_token")
        try:
            return await self._tokens.caller_of(token)
        except TokenRefused as refused:
            return self._resource.challenge(str(refused), error="invalid_token")
        except ScopeMissing as missing:
            return self._resource.challenge(str(missing), error="insufficient_scope", status=403)
        except NotVerifiable as error:
            said = {"error": "temporarily_unavailable", "error_description": str(error)}
            return JSONResponse(said, 503, {"Retry-After": "5", "Cache-Control": "no-store"})


def _token_in(headers: Any) -> str | None:  # noqa: ANN401 - a mapping of the web framework
    """What is sent as a bearer token and is no Lium key."""
    scheme, _, rest = cleaned(str(headers.get("authorization") or "")).partition(" ")
    token = cleaned(rest)
    if scheme.casefold() != "bearer" or not token or token.startswith(KEY_PREFIX) or is_placeholder(token):
        return None
    return token
