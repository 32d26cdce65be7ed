"""Tokens of the deployment's own authorization server: JWTs that it signed for this server, and no others.

Whose Lium key a token stands for is found by a function of the deployment's own, the hook. It is asked for each
request, and what it returns is used for that request alone; neither the token nor the key is kept or logged.
"""

import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from importlib import import_module
from typing import Any, Final, TypeGuard

import anyio
import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from lium_mcp.serving.callers import Caller
from lium_mcp.serving.oauth.gate import ScopeMissing, TokenRefused
from lium_mcp.serving.oauth.issuer import Issuer
from lium_mcp.serving.oauth.public_keys import ALGORITHMS
from lium_mcp.values import SettingsError, cleaned_key, key_problem

log = logging.getLogger(__name__)

Hook = Callable[[Mapping[str, Any]], Awaitable[str | None]]
"""Finds the Lium key for the claims of a token that was verified; None where there is none."""

_LEEWAY_SECONDS: Final = 30
_HOOK_SECONDS: Final = 5.0
_REQUIRED: Final = ("iss", "aud", "sub", "exp")
_KEY_PLACE: Final = "the records of this server's operator"
_ASK: Final = "have the user ask whoever runs this server, or send a Lium API key of their own in the header X-API-Key"


class IssuedTokens:
    """Tells whose a token of the deployment's own authorization server is.

    Args:
        issuer: Who signs.
        resource: What a token has to be for.
        scopes: What it has to have.
        hook: Finds the Lium key.
    """

    def __init__(self, issuer: Issuer, resource: str, scopes: Collection[str], hook: Hook) -> None:
        self._issuer = issuer
        self._resource = resource
        self._scopes = frozenset(scopes)
        self._hook = hook

    async def caller_of(self, token: str) -> Caller:
        """The caller that a token stands for; see `Tokens`."""
        claims = await self._verified(token)
        if missing := self._scopes - _scopes_of(claims):
            raise ScopeMissing(f"The token lacks the scope {', '.join(sorted(missing))}.")
        # The same person with another token is the same caller.
        owner = hashlib.sha256("\n".join(("lium-mcp login", self._issuer.url, claims["sub"])).encode()).hexdigest()
        key, problem = await self._key_for(claims)
        return Caller(key, _KEY_PLACE if key else "", owner, no_key_because=problem)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._issuer.aclose()

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError:
            raise TokenRefused("This is no token that this server knows.") from None
        algorithm = header.get("alg")
        # What proves that somebody has a key (DPoP) is no token, whoever signed it.
        is_proof = str(header.get("typ", "")).casefold().removeprefix("application/") == "dpop+jwt"
        if algorithm not in ALGORITHMS or is_proof:
            raise TokenRefused("The token is not signed in a way that this server takes.")
        try:
            key = await self._issuer.key(header.get("kid"), algorithm)
            if key is None:
                raise TokenRefused("The token is not signed by the authorization server of this server.")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=[self._resource, f"{self._resource}/"],
                issuer=self._issuer.url,
                leeway=_LEEWAY_SECONDS,
                options={"require": list(_REQUIRED)},
            )
        except ExpiredSignatureError:
            raise TokenRefused("The token has expired.") from None
        except InvalidAudienceError:
            raise TokenRefused(f"The token is not for this server: its audience has to be {self._resource}.") from None
        except InvalidIssuerError:
            raise TokenRefused("The token is of another issuer.") from None
        except MissingRequiredClaimError as error:
            raise TokenRefused(f"The token lacks the claim {error.claim}.") from None
        except (PyJWTError, ValueError):
            raise TokenRefused("The token is not valid.") from None
        _check_claims(claims)
        return claims

    async def _key_for(self, claims: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The Lium key for a login, or a sentence on why there is none."""
        try:
            with anyio.fail_after(_HOOK_SECONDS):
                found = await self._hook(claims)
        except TimeoutError:
            log.warning("The hook of LIUM_MCP_OAUTH_HOOK did not answer within %g seconds", _HOOK_SECONDS)
            return None, "The Lium key of this login could not be found in time; call again in a moment."
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the operator's; its text may hold a key
            log.warning("The hook of LIUM_MCP_OAUTH_HOOK failed: %s", type(error).__name__)
            return None, f"The Lium key of this login could not be found: {_ASK}."
        if found is None:
            return None, f"There is no Lium key for this login: {_ASK}."
        key = cleaned_key(found) if _is_text(found) else ""
        if not key or key_problem(key):
            log.warning("The hook of LIUM_MCP_OAUTH_HOOK returned what cannot be a Lium key")
            return None, f"The Lium key of this login cannot be one: {_ASK}."
        return key, None


def _check_claims(claims: Mapping[str, object]) -> None:
    """Refuse a token that counts for more than what is checked here.

    Raises:
        TokenRefused: it does.
    """
    if claims.get("cnf"):
        raise TokenRefused(
            "The token is bound to a proof (cnf), and this server checks none: a bearer token is needed."
        )
    # A number in quotation marks is none (RFC 7519, 2), though the library reads it.
    if isinstance(claims["exp"], bool | str):
        raise TokenRefused("The claim exp of the token is no number.")
    if not str(claims["sub"]).strip():
        raise TokenRefused("The claim sub of the token is empty, so that nobody can tell whose it is.")


def find_hook(name: str) -> Hook:
    """The function that a setting names.

    Raises:
        SettingsError: there is none, or it is not async.
    """
    module, _, function = name.partition(":")
    try:
        home = import_module(module)
    except Exception as error:  # noqa: BLE001 - a module of somebody else's may fail in any way
        said = type(error).__name__
        raise SettingsError(f"LIUM_MCP_OAUTH_HOOK: {name} cannot be imported ({said}); is it in PYTHONPATH?") from None
    hook: Hook | None = getattr(home, function, None)
    if hook is None:
        raise SettingsError(f"LIUM_MCP_OAUTH_HOOK: {module} has no function {function}")
    if not inspect.iscoroutinefunction(hook):
        raise SettingsError(f"LIUM_MCP_OAUTH_HOOK: {name} has to be a function that is defined with async def")
    return hook


def _is_text(found: object) -> TypeGuard[str]:
    """Whether a hook, which is not ours, has returned what it says that it does."""
    return isinstance(found, str)


def _scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes of a token, as RFC 9068 and as others write them."""
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(word for word in words if isinstance(word, str))
