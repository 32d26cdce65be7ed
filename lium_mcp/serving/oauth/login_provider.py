"""The authorization server in front of Lium's own login: clients, codes and tokens, as the SDK's endpoints want them.

There is one thing to be had, the use of a Lium key through this server, so there are no scopes. Tokens are random and
say nothing; the ledger has their digests.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    RegistrationError,
    TokenError,
)
from mcp.shared.auth import InvalidRedirectUriError, OAuthClientInformationFull, OAuthToken
from pydantic import AnyUrl

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LOGIN_OVER_HTTP
from lium_mcp.guard.sealing import Seal
from lium_mcp.rentals import LazyLedger, LedgerUnavailable
from lium_mcp.rentals.grants import Grant, GrantToken, Login, LoginClient, TokenKind, may_come_again
from lium_mcp.serving.callers import Caller
from lium_mcp.serving.oauth.client_documents import known_as, names_document, read_client
from lium_mcp.serving.oauth.device_logins import DeviceLogins
from lium_mcp.serving.oauth.gate import NotVerifiable, TokenRefused
from lium_mcp.serving.oauth.redirects import MOST_REDIRECTS, as_compared, is_in_its_form, is_same_place, safe_ones
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.serving.oauth.strangers import Strangers
from lium_mcp.serving.oauth.tickets import TOKEN_PREFIX, digest, new_secret
from lium_mcp.text import in_a_line, shortened

log = logging.getLogger(__name__)

LOGIN_PATH: Final = "/login"
_LOGIN_LIFETIME: Final = timedelta(minutes=10)
_CODE_LIFETIME: Final = timedelta(minutes=2)
_ACCESS_LIFETIME: Final = timedelta(hours=1)
_REFRESH_LIFETIME: Final = timedelta(days=30)
# A client with which nobody logs in is soon forgotten.
_UNUSED_LIFETIME: Final = timedelta(days=1)
# For so long what a client's document says is not read again.
_DOCUMENT_LIFETIME: Final = timedelta(minutes=10)
_MOST_STATE_CHARACTERS: Final = 4_000
_MOST_NAME_CHARACTERS: Final = 60


class _Client(OAuthClientInformationFull):
    def validate_scope(self, requested_scope: str | None) -> list[str] | None:  # noqa: ARG002 - the SDK's signature
        """Take whatever a client asks for: there are no scopes here."""
        return None

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        """Take an address that the client has registered, and of those on a person's own machine any port."""
        try:
            return super().validate_redirect_uri(redirect_uri)
        except InvalidRedirectUriError:
            registered = map(as_compared, self.redirect_uris or [])
            if redirect_uri is None or not any(is_same_place(str(redirect_uri), one) for one in registered):
                raise
            return redirect_uri


class LoginProvider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """What the SDK's endpoints ask; each method raises LedgerUnavailable where the database cannot be used."""

    def __init__(
        self,
        ledger: LazyLedger,
        seal: Seal,
        resource: Resource,
        strangers: Strangers,
        logins: DeviceLogins,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._logins = logins
        self._seal = seal
        self._resource = resource
        self._strangers = strangers
        self._clock = clock

    async def meet(self, client_id: str) -> None:
        """Read what a client says of itself that is called by the address of its document, unless that was just done.

        Raises:
            ClientRefused: it says nothing of use.
        """
        if not names_document(client_id):
            return
        name, now = known_as(client_id), self._clock.now()
        found = await self._ledger.grants().client(name, now=now)
        if found is not None and now - found.created_at < _DOCUMENT_LIFETIME:
            return
        await self._keep(name, await read_client(client_id, self._strangers))

    def place_of(self, client: OAuthClientInformationFull, asked: object) -> str | None:
        """Where a client may be answered that asks for an address, or for none; None where it may not be."""
        if asked and not is_in_its_form(asked):
            return None
        try:
            return str(client.validate_redirect_uri(AnyUrl(str(asked)) if asked else None))
        except (InvalidRedirectUriError, ValueError):
            return None

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """A client that has registered itself, or was met; None also where its secret cannot be opened any more."""
        found = await self._ledger.grants().client(known_as(client_id), now=self._clock.now())
        if found is None:
            return None
        opened = self._seal.open(found.sealed_secret) if found.sealed_secret else {}
        if opened is None:
            return None
        return _Client.model_validate({**found.registration, "client_id": client_id, **opened})

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Keep a client; of what it says of itself, only what is needed.

        Raises:
            RegistrationError: people would be sent back to where it is not safe.
        """
        asked = [str(address) for address in client_info.redirect_uris or []]
        redirects = safe_ones(asked)
        if len(redirects) != len(asked):
            raise RegistrationError(
                "invalid_redirect_uri",
                f"At most {MOST_REDIRECTS} addresses are taken, each with https, with http on the user's own machine, "
                "or of a kind that one program there has to itself, as com.example.app:/callback.",
            )
        client_info.client_name = _shown_name(client_info.client_name) or None
        said = client_info.model_dump(include={"client_name", "token_endpoint_auth_method"})
        await self._keep(client_info.client_id, said | {"redirect_uris": redirects}, client_info.client_secret)

    async def _keep(self, client_id: str, said: Mapping[str, Any], secret: str | None = None) -> None:
        kept = {"client_name": _shown_name(said["client_name"]), "grant_types": ["authorization_code", "refresh_token"]}
        sealed = self._seal.seal({"client_secret": secret}) if secret else None
        now = self._clock.now()
        client = LoginClient(client_id, {**said, **kept}, sealed, now, now + _UNUSED_LIFETIME)
        await self._ledger.grants().register(client)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Begin a login, and return the address of its page.

        Raises:
            AuthorizeError: the client asks for what there is not here.
        """
        if params.resource is not None and not self._resource.is_meant_by(params.resource):
            raise AuthorizeError("invalid_target", self._resource.alone)
        if len(params.state or "") > _MOST_STATE_CHARACTERS:
            raise AuthorizeError("invalid_request", f"state has {_MOST_STATE_CHARACTERS} characters at most.")
        ticket, now = new_secret(), self._clock.now()
        asked = params.model_dump(mode="json", include={"state", "code_challenge", "redirect_uri_provided_explicitly"})
        request = asked | {
            "redirect_uri": str(params.redirect_uri),
            "client_name": client.client_name or "",
            "resource": self._resource.url,
        }
        if names_document(client.client_id):
            request["client_document"] = client.client_id
        login = Login(digest(ticket), known_as(client.client_id), request, now + _LOGIN_LIFETIME)
        await self._ledger.grants().begin(login, now=now)
        return f"{self._resource.public_url}{LOGIN_PATH}/{ticket}"

    async def code_for(self, login: Login) -> str | None:
        """The code with which the client of a login that was agreed to gets its tokens; None where it was given."""
        code = new_secret()
        needed = "resource", "redirect_uri", "redirect_uri_provided_explicitly", "code_challenge"
        terms = {name: login.request[name] for name in needed}
        token = GrantToken(digest(code), login.grant_id or "", "code", self._clock.now() + _CODE_LIFETIME, terms)
        return code if await self._ledger.grants().hand_out(login, token) else None

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """A code; one that was used before has been stolen, so what came of it ends."""
        found = await self._find(authorization_code, "code", client)
        if found is None:
            return None
        token, grant = found
        return AuthorizationCode(
            code=authorization_code,
            scopes=[],
            expires_at=token.until.timestamp(),
            client_id=client.client_id,
            code_challenge=token.terms["code_challenge"],
            redirect_uri=token.terms["redirect_uri"],
            redirect_uri_provided_explicitly=token.terms["redirect_uri_provided_explicitly"],
            resource=self._resource.url,
            subject=grant.account,
        )

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Tokens for a code.

        Raises:
            TokenError: another request has used it meanwhile.
        """
        return await self._exchange(authorization_code.code, "code", client)

    async def load_refresh_token(self, client: OAuthClientInformationFull, refresh_token: str) -> RefreshToken | None:
        """A refresh token; one that was used before has been stolen, so its grant ends, unless it was just now."""
        found = await self._find(refresh_token, "refresh", client)
        if found is None:
            return None
        token, grant = found
        return RefreshToken(
            token=refresh_token,
            client_id=client.client_id,
            scopes=[],
            expires_at=int(token.until.timestamp()),
            resource=self._resource.url,
            subject=grant.account,
        )

    async def exchange_refresh_token(
        self,
        client: OAuthClientInformationFull,
        refresh_token: RefreshToken,
        scopes: list[str],  # noqa: ARG002 - the SDK's signature
    ) -> OAuthToken:
        """New tokens for a refresh token, which is used up.

        Raises:
            TokenError: it was used before, and what came of that was used too.
        """
        return await self._exchange(refresh_token.token, "refresh", client)

    async def load_access_token(self, token: str) -> AccessToken | None:
        """An access token, whichever client it was given to; its client is named as the ledger does."""
        found = await self._ledger.grants().token(digest(token), "access", now=self._clock.now())
        if found is None:
            return None
        until = int(found[0].until.timestamp())
        return AccessToken(token=token, client_id=found[1].client_id, scopes=[], expires_at=until)

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        """End the grant of a token."""
        kind: TokenKind = "access" if isinstance(token, AccessToken) else "refresh"
        found = await self._ledger.grants().token(digest(token.token), kind, now=self._clock.now())
        if found is not None:
            await self._ledger.grants().end(found[1].id)
            log.info("A client ended its login %s", found[1].id)

    async def caller_of(self, token: str) -> Caller:
        """The caller that an access token stands for; see `Tokens`."""
        try:
            found = await self._ledger.grants().token(digest(token), "access", now=self._clock.now())
        except LedgerUnavailable as error:
            raise NotVerifiable("Logins cannot be looked up now; try again in a moment.") from error
        if found is None or not self._is_for_us(found[0]):
            raise TokenRefused("The token is not known, is for another server, or has expired.")
        opened = self._seal.open(found[1].sealed)
        if opened is None:
            raise TokenRefused("The login cannot be read any more; log in again.")
        # The same account with another token, or in another client, is the same caller.
        return Caller(opened["key"], LOGIN_OVER_HTTP, found[1].account, login_id=found[1].id)

    async def _find(
        self, secret: str, kind: TokenKind, client: OAuthClientInformationFull
    ) -> tuple[GrantToken, Grant] | None:
        found = await self._ledger.grants().token(digest(secret), kind, now=self._clock.now())
        if found is None or found[1].client_id != known_as(client.client_id) or not self._is_for_us(found[0]):
            return None
        if found[0].used_at is not None and not may_come_again(found[0], self._clock.now()):
            log.warning("A %s was used again: its login %s has ended", kind, found[1].id)
            await self._ledger.grants().end(found[1].id)
            return None
        return found

    def _is_for_us(self, token: GrantToken) -> bool:
        """Whether a token was given for this address: servers at several may share a ledger."""
        return token.terms.get("resource") == self._resource.url

    async def _exchange(self, secret: str, kind: TokenKind, client: OAuthClientInformationFull) -> OAuthToken:
        found = await self._find(secret, kind, client)
        opened = self._seal.open(found[1].sealed) if found else None
        if found is None or opened is None:
            raise TokenError("invalid_grant", "The login has ended; log in again.")
        sealed, account = await self._logins.tell(opened, found[1].account)
        now = self._clock.now()
        access, refresh = new_secret(TOKEN_PREFIX), new_secret(TOKEN_PREFIX)
        terms = {"resource": self._resource.url}
        tokens = [
            GrantToken(digest(access), found[1].id, "access", now + _ACCESS_LIFETIME, terms),
            GrantToken(
                digest(refresh), found[1].id, "refresh", now + _REFRESH_LIFETIME, terms | {"after": digest(secret)}
            ),
        ]
        # Sealed anew, so that keys which only open are needed no longer than a grant lives unrenewed.
        renewed = {"sealed": self._seal.seal(sealed), "account": account}
        if not await self._ledger.grants().exchange(found[0], tokens, renewed, now=now):
            log.warning("A %s was used again: its login %s has ended", kind, found[1].id)
            raise TokenError("invalid_grant", "It was used before, so the login has ended; log in again.")
        seconds = int(_ACCESS_LIFETIME.total_seconds())
        return OAuthToken(access_token=access, expires_in=seconds, refresh_token=refresh)


def _shown_name(name: str | None) -> str:
    return shortened(in_a_line(name or ""), _MOST_NAME_CHARACTERS)
