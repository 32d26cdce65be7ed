"""What clients and browsers ask of the authorization server: its metadata, the SDK's endpoints, and the login pages."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import AuthenticationError, ClientAuthenticator
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.serving.oauth.login_pages import LoginPages
from lium_mcp.serving.oauth.login_provider import LOGIN_PATH, LoginProvider
from lium_mcp.serving.oauth.rates import Rate

_MOST_BODY_BYTES: Final = 16 * 1024
_NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_METHODS: Final = ["none", "client_secret_post", "client_secret_basic"]
_METADATA: Final = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")

_Handler = Callable[[Request], Awaitable[Response]]


def endpoints(public_url: str, provider: LoginProvider, pages: LoginPages) -> Iterator[Route]:
    """The routes of the authorization server at an address."""
    metadata = _metadata(public_url)

    async def show_metadata(_: Request) -> JSONResponse:
        return JSONResponse(metadata, headers={"Cache-Control": "public, max-age=3600"})

    prefix = urlsplit(public_url).path
    for path in dict.fromkeys(f"{path}{below}" for path in _METADATA for below in ("", prefix)):
        yield Route(path, show_metadata)

    # Services of many people call from few addresses, but begin a login seldom.
    often, registering, asking = Rate(300, 3_000), Rate(60, 600), Rate(60, 600)
    authenticator = ClientAuthenticator(provider)

    async def revoke(request: Request) -> Response:
        # The SDK's own refuses clients without a secret.
        try:
            client = await authenticator.authenticate_request(request)
        except AuthenticationError as error:
            said = {"error": "invalid_client", "error_description": error.message}
            return JSONResponse(said, 401, _NOT_STORED)
        secret = str((await request.form()).get("token", ""))
        found = await provider.load_access_token(secret) or await provider.load_refresh_token(client, secret)
        if found is not None and found.client_id == client.client_id:
            await provider.revoke_token(found)
        return Response(status_code=200, headers=_NOT_STORED)

    registration = RegistrationHandler(provider, ClientRegistrationOptions(enabled=True))
    served: list[tuple[str, _Handler, list[str], Rate]] = [
        ("/register", registration.handle, ["POST"], registering),
        ("/authorize", AuthorizationHandler(provider).handle, ["GET", "POST"], asking),
        (f"{LOGIN_PATH}/{{ticket}}", _by_method(pages), ["GET", "POST"], often),
        ("/token", TokenHandler(provider, authenticator).handle, ["POST"], often),
        ("/revoke", revoke, ["POST"], often),
    ]
    for path, handler, methods, rate in served:
        route = Route(path, _answered(handler), methods=methods)
        route.app = rate.bound(RequestBodyLimitMiddleware(route.app, _MOST_BODY_BYTES))
        yield route


def _metadata(public_url: str) -> dict[str, Any]:
    return {
        "issuer": public_url,
        "authorization_endpoint": f"{public_url}/authorize",
        "token_endpoint": f"{public_url}/token",
        "registration_endpoint": f"{public_url}/register",
        "revocation_endpoint": f"{public_url}/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": _METHODS,
        "revocation_endpoint_auth_methods_supported": _METHODS,
        "authorization_response_iss_parameter_supported": True,
    }


def _by_method(pages: LoginPages) -> _Handler:
    async def handle(request: Request) -> Response:
        return await (pages.answer if request.method == "POST" else pages.show)(request)

    return handle


def _answered(handler: _Handler) -> _Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except LedgerUnavailable:
            said = {"error": "temporarily_unavailable", "error_description": "Logins cannot be kept now."}
            return JSONResponse(said, 503, {"Retry-After": "5", **_NOT_STORED})

    return handle
