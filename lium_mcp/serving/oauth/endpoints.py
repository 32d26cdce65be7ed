"""What clients and browsers ask of the authorization server: its metadata, the SDK's endpoints, and the login pages."""

import base64
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import jwt
from jwt.exceptions import PyJWTError
from mcp.server.auth.handlers.authorize import AuthorizationHandler
from mcp.server.auth.handlers.register import RegistrationHandler
from mcp.server.auth.handlers.token import TokenHandler
from mcp.server.auth.middleware.client_auth import AuthenticationError, ClientAuthenticator
from mcp.server.auth.provider import AccessToken, RefreshToken, construct_redirect_uri
from mcp.server.auth.settings import ClientRegistrationOptions
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.auth import OAuthClientInformationFull
from starlette.datastructures import FormData, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lium_mcp.rentals import LedgerUnavailable
from lium_mcp.serving.allowances import Allowances, TooOften
from lium_mcp.serving.oauth.client_documents import SIGNED, ClientRefused, known_as
from lium_mcp.serving.oauth.client_proofs import KIND, ProofRefused, Proofs
from lium_mcp.serving.oauth.client_requests import GRANT_TYPES, problem_of_exchange, problem_of_login, registered_as
from lium_mcp.serving.oauth.login_pages import LoginPages, show_refusal
from lium_mcp.serving.oauth.login_provider import LOGIN_PATH, LoginProvider
from lium_mcp.serving.oauth.public_keys import ALGORITHMS
from lium_mcp.serving.oauth.redirects import is_on_the_machine
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.serving.sessions import address_of

_MOST_BODY_BYTES: Final = 16 * 1024
_NOT_STORED: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_METHODS: Final = ["none", "client_secret_post", "client_secret_basic", SIGNED]
_METADATA: Final = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
# How many requests a minute of one address. Services of many people call from few, but begin a login seldom.
_SELDOM: Final = 60
_OFTEN: Final = 300
_ADDRESSES: Final = 10
"""As many addresses as may use up what all of them have together."""

_UNKNOWN: Final = (
    "The program that sent you here is not known here, or was forgotten: nobody logged in with it for long. Remove "
    "this server from it and add it again, which makes it known anew."
)
_ELSEWHERE: Final = (
    "The program that sent you here wants to be answered at an address (redirect_uri) that it did not name when it "
    "made itself known."
)

_Handler = Callable[[Request], Awaitable[Response]]


def endpoints(
    resource: Resource, provider: LoginProvider, pages: LoginPages, proofs: Proofs, *, registered_only: bool
) -> Iterator[Route]:
    """The routes of the authorization server at the address of a resource, which it gives tokens for."""
    metadata = _metadata(resource.public_url, registered_only=registered_only)

    async def show_metadata(_: Request) -> JSONResponse:
        return JSONResponse(metadata, headers={"Cache-Control": "public, max-age=3600"})

    prefix = urlsplit(resource.public_url).path
    for path in dict.fromkeys(f"{path}{below}" for path in _METADATA for below in ("", prefix)):
        yield Route(path, show_metadata)

    clients = _Clients(resource, provider, proofs)
    registration = RegistrationHandler(provider, ClientRegistrationOptions(enabled=True))
    often, registering, asking = Allowances(), Allowances(), Allowances()
    served: list[tuple[str, _Handler, list[str], Allowances, int]] = [
        ("/register", _registering(registration), ["POST"], registering, _SELDOM),
        ("/authorize", clients.authorize, ["GET", "POST"], asking, _SELDOM),
        (f"{LOGIN_PATH}/{{ticket}}", _by_method(pages), ["GET", "POST"], often, _OFTEN),
        ("/token", clients.token, ["POST"], often, _OFTEN),
        ("/revoke", clients.revoke, ["POST"], often, _OFTEN),
    ]
    for path, handler, methods, allowances, most in served:
        route = Route(path, _answered(handler), methods=methods)
        route.app = _bounded(RequestBodyLimitMiddleware(route.app, _MOST_BODY_BYTES), allowances, most)
        yield route


class _Clients:
    """Answers what clients ask, before the SDK does: it reads less of a request than it should."""

    def __init__(self, resource: Resource, provider: LoginProvider, proofs: Proofs) -> None:
        self._resource = resource
        self._provider = provider
        self._authenticator = _Authenticator(provider, proofs)
        self._authorization = AuthorizationHandler(provider)
        self._exchange = TokenHandler(provider, self._authenticator)

    async def authorize(self, request: Request) -> Response:
        """Begin a login."""
        asked = request.query_params if request.method == "GET" else await request.form()
        if refusal := self._repeated(asked):
            return refusal
        client_id = str(asked.get("client_id", ""))
        try:
            await self._provider.meet(client_id)
        except ClientRefused as refused:
            return _told(request, "invalid_client", str(refused))
        client = await self._provider.get_client(client_id)
        if client is None:
            return _told(request, "invalid_request", _UNKNOWN)
        place = self._provider.place_of(client, asked.get("redirect_uri"))
        if place is None:
            return _told(request, "invalid_request", _ELSEWHERE)
        answer: Response
        if problem := problem_of_login(asked):
            state = {"state": str(asked["state"])} if asked.get("state") else {}
            back = construct_redirect_uri(place, error=problem[0], error_description=problem[1], **state)
            answer = RedirectResponse(back, 302, _NOT_STORED)
        else:
            answer = await self._authorization.handle(request)
        onward = answer.headers.get("location")
        if onward is None or onward.startswith(f"{self._resource.public_url}{LOGIN_PATH}/"):
            return answer
        # Refusals too say whose they are (RFC 9207), or clients must not believe them.
        back = construct_redirect_uri(onward, iss=self._resource.public_url)
        if is_on_the_machine(back):
            answer.headers["location"] = back
            return answer
        # Anybody can register a site: nobody is sent to one by our address before a click (RFC 9700, 4.11.2).
        said = parse_qs(urlsplit(onward).query).get("error_description", ["Its request is not one that is taken here."])
        return show_refusal(said[-1], back, status=400)

    async def token(self, request: Request) -> Response:
        """Give tokens for a code, or for a token."""
        form = await request.form()
        if refusal := self._repeated(form):
            return refusal
        meant = form.get("resource")
        if meant is not None and not self._resource.is_meant_by(str(meant)):
            return _refused("invalid_target", self._resource.alone)
        if problem := problem_of_exchange(form):
            return _refused(*problem)
        answer: Response = await self._exchange.handle(_as_the_sdk_reads_it(request, form))
        said = json.loads(bytes(answer.body))
        if said.get("error") == "invalid_request" and "redirect_uri" in said.get("error_description", ""):
            return _refused("invalid_grant", "redirect_uri is not that of the login.")  # RFC 6749, 5.2
        return _challenged(request, answer)

    async def revoke(self, request: Request) -> Response:
        """End a login; the SDK's own refuses clients without a secret."""
        form = await request.form()
        try:
            client = await self._authenticator.authenticate_request(_as_the_sdk_reads_it(request, form))
        except AuthenticationError as error:
            return _challenged(request, _refused("invalid_client", error.message, 401))
        secret = str(form.get("token", ""))
        if not secret:
            return _refused("invalid_request", "token is needed.")
        found: AccessToken | RefreshToken | None = await self._provider.load_access_token(secret)
        if found is None or found.client_id != known_as(client.client_id):
            found = await self._provider.load_refresh_token(client, secret)
        if found is not None:
            await self._provider.revoke_token(found)
        return Response(status_code=200, headers=_NOT_STORED)

    def _repeated(self, asked: QueryParams | FormData) -> Response | None:
        """The refusal of a request that says something twice, of which the SDK would read one."""
        counts = Counter(name for name, _ in asked.multi_items())
        if counts["resource"] > 1:
            return _refused("invalid_target", self._resource.alone)
        repeated = any(count > 1 for count in counts.values())
        return _refused("invalid_request", "A parameter is there more than once.") if repeated else None


class _Authenticator(ClientAuthenticator):
    """Takes also clients that sign what they are, of which the SDK knows none."""

    def __init__(self, provider: LoginProvider, proofs: Proofs) -> None:
        super().__init__(provider)
        self._proofs = proofs

    async def authenticate_request(self, request: Request) -> OAuthClientInformationFull:
        """The client of a request.

        Raises:
            AuthenticationError: it is not shown to be one.
        """
        form = await request.form()
        proof = str(form.get("client_assertion") or "")
        client = await self.provider.get_client(str(form.get("client_id", "")))
        signs = client is not None and (client.jwks is not None or client.jwks_uri is not None)
        if client is None or not signs or not (proof or client.token_endpoint_auth_method == SIGNED):
            return await super().authenticate_request(request)
        if form.get("client_assertion_type") != KIND:
            raise AuthenticationError(f"client_assertion is needed, and {KIND} as client_assertion_type.")
        try:
            await self._proofs.check(client, proof)
        except ProofRefused as refused:
            raise AuthenticationError(str(refused)) from None
        return client


def _metadata(public_url: str, *, registered_only: bool) -> dict[str, Any]:
    return {
        "issuer": public_url,
        "authorization_endpoint": f"{public_url}/authorize",
        "token_endpoint": f"{public_url}/token",
        "registration_endpoint": f"{public_url}/register",
        "revocation_endpoint": f"{public_url}/revoke",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": _METHODS,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": _METHODS,
        "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "client_id_metadata_document_supported": not registered_only,
    }


def _as_the_sdk_reads_it(request: Request, form: FormData) -> Request:
    """A request of the token endpoint in the form that the SDK takes, of those that clients really send.

    It wants the client's id in the form, which is in the header alone where a secret is there too (RFC 6749, 2.3.1), or
    in what the client has signed (RFC 7521, 4.2), and refuses any scope, of which there are none here.
    """
    fields = {name: str(text) for name, text in form.multi_items() if name != "scope"}
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if "client_id" not in fields and scheme.lower() == "basic":
        try:
            fields["client_id"] = unquote(base64.b64decode(credentials).decode().partition(":")[0])
        except ValueError:
            fields["client_id"] = ""
    elif "client_id" not in fields and (proof := fields.get("client_assertion")):
        with suppress(PyJWTError):  # it is checked below, for the client that it names
            fields["client_id"] = str(jwt.decode(proof, options={"verify_signature": False}).get("sub", ""))
    return _with_body(request, urlencode(fields).encode(), b"application/x-www-form-urlencoded")


def _with_body(request: Request, body: bytes, kind: bytes) -> Request:
    others = [(name, text) for name, text in request.scope["headers"] if name != b"content-type"]

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return Request({**request.scope, "headers": [*others, (b"content-type", kind)]}, receive)


def _registering(registration: RegistrationHandler) -> _Handler:
    """Registers clients as the SDK does, but for what it leaves to chance; what may hold a secret is not stored."""

    async def register(request: Request) -> Response:
        said = registered_as(await request.body())
        if isinstance(said, tuple):
            return _refused(*said)
        answer = await registration.handle(_with_body(request, json.dumps(said).encode(), b"application/json"))
        answer.headers.update(_NOT_STORED)
        return answer

    return register


def _challenged(request: Request, answer: Response) -> Response:
    """An answer that says with which scheme a client is to prove itself that did so in the header (RFC 6749, 5.2)."""
    if answer.status_code == HTTPStatus.UNAUTHORIZED and request.headers.get("authorization"):
        answer.headers["WWW-Authenticate"] = 'Basic realm="lium-mcp", charset="UTF-8"'
    return answer


def _told(request: Request, error: str, description: str) -> Response:
    """A refusal that nobody is sent back with: a page for a person, who is whom a client sends here."""
    if "text/html" in request.headers.get("accept", ""):
        return show_refusal(description, status=400)
    return _refused(error, description)


def _refused(error: str, description: str, status: int = 400) -> Response:
    return JSONResponse({"error": error, "error_description": description}, status, _NOT_STORED)


def _by_method(pages: LoginPages) -> _Handler:
    async def handle(request: Request) -> Response:
        return await (pages.answer if request.method == "POST" else pages.show)(request)

    return handle


def _bounded(app: ASGIApp, allowances: Allowances, most: int) -> ASGIApp:
    """Let no more requests through than so many a minute of one address, or network of IPv6, and some times as many."""

    async def bounded(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            allowances.take({f"address {address_of(scope.get('client'))}": most, "all": most * _ADDRESSES})
        except TooOften as error:
            said = {"error": "temporarily_unavailable", "error_description": "Too many requests; wait a little."}
            await JSONResponse(said, 429, {"Retry-After": str(error.seconds)})(scope, receive, send)
            return
        await app(scope, receive, send)

    return bounded


def _answered(handler: _Handler) -> _Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except LedgerUnavailable:
            said = {"error": "temporarily_unavailable", "error_description": "Logins cannot be kept now."}
            return JSONResponse(said, 503, {"Retry-After": "5", **_NOT_STORED})

    return handle
