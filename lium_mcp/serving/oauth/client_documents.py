"""Clients that nobody registers: what such a client is called is the address of a document in which it tells of itself.

That is a Client ID Metadata Document (draft-ietf-oauth-client-id-metadata-document), which claude.ai, ChatGPT, Claude
Code and VS Code have. Who reads the document knows which site vouches for the client's name.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from lium_mcp.serving.oauth.redirects import as_compared, safe_ones
from lium_mcp.serving.oauth.strangers import NotReadable, Strangers
from lium_mcp.serving.oauth.tickets import digest

_HTTPS: Final = "https://"
_MOST_CHARACTERS: Final = 500
_PUBLIC: Final = "none"
SIGNED: Final = "private_key_jwt"
"""How a client proves that it is one which signs what it shows."""
_KEPT_CHARACTERS: Final = 36


class ClientRefused(Exception):
    """A client is not taken for what its document says, or does not; the sentence says why."""


def names_document(client_id: str) -> bool:
    """Whether a client is called by the address of its document."""
    return client_id.startswith(_HTTPS)


def known_as(client_id: str) -> str:
    """What the ledger calls a client; the address of a document may be longer than it has room for."""
    return digest(client_id)[:_KEPT_CHARACTERS] if names_document(client_id) else client_id


async def read_client(client_id: str, strangers: Strangers) -> dict[str, Any]:
    """What a client says of itself, as one that registers would, and the keys that it signs with, if it has any.

    Raises:
        ClientRefused: the document cannot be read, is not of this client, or names nowhere to go.
    """
    if len(client_id) > _MOST_CHARACTERS:
        raise ClientRefused(f"The client_id is longer than {_MOST_CHARACTERS} characters.")
    try:
        document = await strangers.read(client_id)
    except NotReadable as error:
        raise ClientRefused(f"The document that client_id names cannot be used: {error}.") from None
    if document.get("client_id") != client_id:
        raise ClientRefused("The document that client_id names is of another client: its client_id differs.")
    methods, keys = _methods(document), _keys(document)
    method = next((method for method in (_PUBLIC, SIGNED if keys else None) if method in methods), None)
    if method is None:
        raise ClientRefused(
            "The document that client_id names asks for a way to prove the client at the token endpoint that there is "
            "not here: `none` is needed in token_endpoint_auth_method or token_endpoint_auth_methods_supported, or "
            "`private_key_jwt` with jwks_uri or jwks."
        )
    redirects = safe_ones(document.get("redirect_uris"))
    if not redirects:
        raise ClientRefused(
            "The document that client_id names has no address in redirect_uris to which people may be sent back: one "
            "with https is needed, or one on their own machine."
        )
    name = document.get("client_name")
    said = {"redirect_uris": redirects, "client_name": name if isinstance(name, str) else ""}
    return {**said, "token_endpoint_auth_method": method, **keys}


def _methods(document: Mapping[str, Any]) -> list[Any]:
    """How a client can prove who it is: the way that it likes best, and the others that it knows, as ChatGPT does."""
    known = document.get("token_endpoint_auth_methods_supported")
    return [document.get("token_endpoint_auth_method", _PUBLIC), *(known if isinstance(known, list) else [])]


def _keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Where the keys are that a client signs with, or these themselves."""
    address, keys = document.get("jwks_uri"), document.get("jwks")
    if isinstance(address, str) and address.startswith(_HTTPS):
        with suppress(ValueError):
            return {"jwks_uri": as_compared(address)}
    return {"jwks": keys} if isinstance(keys, dict) else {}
