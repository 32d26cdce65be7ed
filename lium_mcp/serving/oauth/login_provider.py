"""The authorization server in front of Lium's own login: clients, codes and tokens, as the SDK's endpoints want them.

There is one thing to be had, the use of a Lium key through this server, so there are no scopes. Tokens are random and
say nothing; the ledger has their digests.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

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
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from lium_mcp.api.clock import Clock
from lium_mcp.api.errors import LOGIN_OVER_HTTP
from lium_mcp.guard.sealing import Seal
from lium_mcp.rentals import LazyLedger, LedgerUnavailable
from lium_mcp.rentals.grants import Grant, GrantToken, Login, LoginClient, TokenKind
from lium_mcp.serving.callers import Caller
from lium_mcp.serving.oauth.gate import NotVerifiable, TokenRefused
from lium_mcp.serving.oauth.resource import Resource
from lium_mcp.serving.oauth.tickets import TOKEN_PREFIX, digest, new_secret
from lium_mcp.text import in_a_line, shortened
from lium_mcp.values import is_loopback

log = logging.getLogger(__name__)

LOGIN_PATH: Final = "/login"
_LOGIN_LIFETIME: Final = timedelta(minutes=10)
_CODE_LIFETIME: Final = timedelta(minutes=2)
_ACCESS_LIFETIME: Final = timedelta(hours=1)
_REFRESH_LIFETIME: Final = timedelta(days=30)
# A client with which nobody logs in is soon forgotten.
_UNUSED_LIFETIME: Final = timedelta(days=1)
_MOST_REDIRECTS: Final = 5
_MOST_ADDRESS_CHARACTERS: Final = 2_000
_MOST_STATE_CHARACTERS: Final = 4_000
_MOST_NAME_CHARACTERS: Final = 60


class _Client(OAuthClientInformationFull):
    def validate_scope(self, requested_scope: str | None) -> list[str] | None:  # noqa: ARG002 - the SDK's signature
        """Take whatever a client asks for: there are no scopes here."""
        return None


class LoginProvider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """What the SDK's endpoints ask; each method raises LedgerUnavailable where the database cannot be used."""

    def __init__(self, ledger: LazyLedger, seal: Seal, resource: Resource, clock: Clock) -> None:
        self._ledger = ledger
        self._seal = seal
        self._resource = resource
        self._clock = clock

    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        """A client that has registered itself; None also where its secret cannot be opened any more."""
        found = await self._ledger.grants().client(client_id, now=self._clock.now())
        if found is None:
            return None
        opened = self._seal.open(found.sealed_secret) if found.sealed_secret else {}
        if opened is None:
            return None
        return _Client.model_validate({**found.registration, "client_id": found.id, **opened})

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Keep a client; of what it says of itself, only what is needed.

        Raises:
            RegistrationError: people would be sent back to where it is not safe.
        """
        redirects = [str(address) for address in client_info.redirect_uris or []]
        if len(redirects) > _MOST_REDIRECTS or not all(map(_is_safe_to_return_to, redirects)):
            raise RegistrationError(
                "invalid_redirect_uri",
                f"At most {_MOST_REDIRECTS} addresses are taken, each with https, or http on the user's own machine.",
            )
        client_info.client_name = shortened(in_a_line(client_info.client_name or ""), _MOST_NAME_CHARACTERS)
        registration = {
            "redirect_uris": redirects,
            "client_name": client_info.client_name,
            "token_endpoint_auth_method": client_info.token_endpoint_auth_method,
            "grant_types": ["authorization_code", "refresh_token"],
        }
        now, secret = self._clock.now(), client_info.client_secret
        sealed = self._seal.seal({"client_secret": secret}) if secret else None
        client = LoginClient(client_info.client_id, registration, sealed, now, now + _UNUSED_LIFETIME)
        await self._ledger.grants().register(client)

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Begin a login, and return the address of its page.

        Raises:
            AuthorizeError: the client asks for what there is not here.
        """
        if params.resource is not None and params.resource.rstrip("/") != self._resource.url:
            raise AuthorizeError("invalid_target", f"Tokens are for {self._resource.url} alone.")
        if len(params.state or "") > _MOST_STATE_CHARACTERS:
            raise AuthorizeError("invalid_request", f"state has {_MOST_STATE_CHARACTERS} characters at most.")
        ticket, now = new_secret(), self._clock.now()
        asked = params.model_dump(mode="json", include={"state", "code_challenge", "redirect_uri_provided_explicitly"})
        request = asked | {"redirect_uri": str(params.redirect_uri), "client_name": client.client_name or ""}
        login = Login(digest(ticket), client.client_id, request, now + _LOGIN_LIFETIME)
        await self._ledger.grants().begin(login, now=now)
        return f"{self._resource.public_url}{LOGIN_PATH}/{ticket}"

    async def code_for(self, login: Login) -> str | None:
        """The code with which the client of a login that was agreed to gets its tokens; None where it was given."""
        code = new_secret()
        terms = {**login.request}
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
            client_id=grant.client_id,
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
        """A refresh token; one that was used before has been stolen, so its grant ends."""
        found = await self._find(refresh_token, "refresh", client)
        if found is None:
            return None
        token, grant = found
        return RefreshToken(
            token=refresh_token,
            client_id=grant.client_id,
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
            TokenError: another request has used it meanwhile.
        """
        return await self._exchange(refresh_token.token, "refresh", client)

    async def load_access_token(self, token: str) -> AccessToken | None:
        """An access token, whichever client it was given to."""
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
        if found is None:
            raise TokenRefused("The token is not known, or has expired.")
        opened = self._seal.open(found[1].sealed)
        if opened is None:
            raise TokenRefused("The login cannot be read any more; log in again.")
        # The same account with another token, or in another client, is the same caller.
        return Caller(opened["key"], LOGIN_OVER_HTTP, found[1].account)

    async def _find(
        self, secret: str, kind: TokenKind, client: OAuthClientInformationFull
    ) -> tuple[GrantToken, Grant] | None:
        found = await self._ledger.grants().token(digest(secret), kind, now=self._clock.now())
        if found is None or found[1].client_id != client.client_id:
            return None
        if found[0].used_at is not None:
            log.warning("A %s was used again: its login %s has ended", kind, found[1].id)
            await self._ledger.grants().end(found[1].id)
            return None
        return found

    async def _exchange(self, secret: str, kind: TokenKind, client: OAuthClientInformationFull) -> OAuthToken:
        found = await self._find(secret, kind, client)
        opened = self._seal.open(found[1].sealed) if found else None
        if found is None or opened is None:
            raise TokenError("invalid_grant", "The login has ended; log in again.")
        now = self._clock.now()
        access, refresh = new_secret(TOKEN_PREFIX), new_secret(TOKEN_PREFIX)
        tokens = list(_tokens(found[1].id, access, refresh, now))
        # Sealed anew, so that keys which only open are needed no longer than a grant lives unrenewed.
        if not await self._ledger.grants().exchange(found[0], tokens, sealed=self._seal.seal(opened), now=now):
            log.warning("A %s was used twice at once: its login %s has ended", kind, found[1].id)
            raise TokenError("invalid_grant", "It was used before, so the login has ended; log in again.")
        seconds = int(_ACCESS_LIFETIME.total_seconds())
        return OAuthToken(access_token=access, expires_in=seconds, refresh_token=refresh)


def _tokens(grant_id: str, access: str, refresh: str, now: datetime) -> Iterator[GrantToken]:
    yield GrantToken(digest(access), grant_id, "access", now + _ACCESS_LIFETIME)
    yield GrantToken(digest(refresh), grant_id, "refresh", now + _REFRESH_LIFETIME)


def _is_safe_to_return_to(address: str) -> bool:
    """Whether a code may be sent to an address: by https, or to a program on the person's own machine."""
    parts = urlsplit(address)
    is_clear = len(address) <= _MOST_ADDRESS_CHARACTERS and not parts.fragment and "@" not in parts.netloc
    host = parts.hostname or ""
    return is_clear and bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
