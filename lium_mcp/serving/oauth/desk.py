"""Makes of the settings what lets callers log in over HTTP. It is imported only where they do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.routing import Route

from lium_mcp.oauth_settings import OAuth
from lium_mcp.serving.callers import Callers
from lium_mcp.serving.oauth.gate import Gate
from lium_mcp.serving.oauth.issued_tokens import IssuedTokens, find_hook
from lium_mcp.serving.oauth.issuer import Issuer
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.values import SettingsError


@dataclass(frozen=True, slots=True)
class LoginDesk:
    """What lets callers log in.

    Attributes:
        gate: Tells who sent a request.
        routes: What clients and browsers ask besides.
        aclose: Closes what it has open.
    """

    gate: Gate
    routes: Sequence[Route]
    aclose: Callable[[], Awaitable[None]]


def open_desk(oauth: OAuth, callers: Callers) -> LoginDesk:
    """Make it; nothing is sent or opened yet.

    Raises:
        SettingsError: the hook cannot be used.
    """
    if oauth.issuer is None:
        raise SettingsError("LIUM_MCP_OAUTH: logins at Lium itself are not served yet")
    resource = Resource(oauth.public_url, oauth.issuer, oauth.scopes)
    tokens = IssuedTokens(Issuer(oauth.issuer), resource.url, oauth.scopes, find_hook(oauth.hook))
    return LoginDesk(Gate(callers, tokens, resource), tuple(resource.routes()), tokens.aclose)
