"""Makes of the settings what lets callers log in over HTTP. It is imported only where they do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.routing import Route

from lium_mcp.api.client import LiumClient
from lium_mcp.api.clock import SYSTEM_CLOCK
from lium_mcp.guard.sealing import Seal
from lium_mcp.oauth_settings import OAuth
from lium_mcp.rentals import LazyLedger
from lium_mcp.serving.callers import Callers
from lium_mcp.serving.oauth.client_proofs import Proofs
from lium_mcp.serving.oauth.device_logins import DeviceLogins
from lium_mcp.serving.oauth.endpoints import endpoints
from lium_mcp.serving.oauth.gate import Gate
from lium_mcp.serving.oauth.issued_tokens import Hook, IssuedTokens
from lium_mcp.serving.oauth.issuer import Issuer
from lium_mcp.serving.oauth.login_pages import LoginPages
from lium_mcp.serving.oauth.login_provider import LoginProvider
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.serving.oauth.strangers import Strangers


@dataclass(frozen=True, slots=True)
class LoginDesk:
    """What lets callers log in.

    Attributes:
        gate: Tells who sent a request.
        routes: What clients and browsers ask besides.
        aclose: Closes what it has open.
        is_page: That it is no page of its own: pages of the hosts that are allowed may call.
    """

    gate: Gate
    routes: Sequence[Route]
    aclose: Callable[[], Awaitable[None]]
    is_page: bool = False


def open_issuer_desk(oauth: OAuth, issuer: str, hook: Hook, callers: Callers) -> LoginDesk:
    """Make it for the tokens of an authorization server of the deployment's own; nothing is sent or opened yet.

    Args:
        oauth: How callers log in.
        issuer: The authorization server.
        hook: Finds the Lium key for a token of it.
        callers: Tells those who show keys or the server token.
    """
    resource = Resource(oauth.public_url, issuer, oauth.scopes)
    tokens = IssuedTokens(Issuer(issuer), resource.url, oauth.scopes, hook)
    return LoginDesk(Gate(callers, tokens, resource), tuple(resource.routes()), tokens.aclose)


def open_lium_desk(oauth: OAuth, lium: LiumClient, ledger: LazyLedger, callers: Callers) -> LoginDesk:
    """Make it for logins at Lium itself, kept in a ledger; nothing is sent or opened yet.

    Args:
        oauth: How callers log in.
        lium: An API client without a key.
        ledger: Where the logins are kept.
        callers: Tells those who show keys or the server token.
    """
    resource = Resource(oauth.public_url, oauth.public_url)
    seal, strangers = Seal(oauth.keys), Strangers(are_read=not oauth.registered_only)
    logins = DeviceLogins(lium, ledger, seal, SYSTEM_CLOCK)
    provider = LoginProvider(ledger, seal, resource, strangers, logins, SYSTEM_CLOCK)
    pages = LoginPages(oauth.public_url, ledger, provider, logins, SYSTEM_CLOCK)
    proofs = Proofs([f"{oauth.public_url}/token", oauth.public_url], strangers, ledger, SYSTEM_CLOCK)
    routes = *resource.routes(), *endpoints(resource, provider, pages, proofs, registered_only=oauth.registered_only)

    async def aclose() -> None:
        strangers.close()
        await lium.aclose()
        await ledger.aclose()

    return LoginDesk(Gate(callers, provider, resource), routes, aclose)
