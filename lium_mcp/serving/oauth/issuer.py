"""The deployment's own authorization server: its metadata and its public keys, read when a token needs them."""

import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx2
from jwt import PyJWK

from lium_mcp.serving.oauth.gate import NotVerifiable
from lium_mcp.serving.oauth.public_keys import Keys, find_key, read_keys
from lium_mcp.values import is_loopback

log = logging.getLogger(__name__)

_FETCH_SECONDS: Final = 5.0
_MOST_BYTES: Final = 2**18
_KEPT_SECONDS: Final = 600.0
# Tokens with made-up key ids must not make this server ask again and again; those of a new key should not wait long.
_ASKS_AGAIN_SECONDS: Final = 5.0
_METADATA: Final = ("oauth-authorization-server", "openid-configuration")


class Issuer:
    """The public keys of an authorization server, by their ids."""

    def __init__(self, url: str) -> None:
        self.url: Final = url
        # No redirects: keys come from where the issuer itself says.
        self._http = httpx2.AsyncClient(timeout=_FETCH_SECONDS, follow_redirects=False)
        self._keys: Keys = {}
        self._read_at = self._asked_at = -_KEPT_SECONDS
        self._reading = anyio.Lock()

    async def key(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """The key of an id, or of a token that names none where one alone fits its algorithm; None where there is none.

        Args:
            key_id: As the token names it.
            algorithm: For a key that is published without one.

        Raises:
            NotVerifiable: the keys cannot be read, and none are known.
            PyJWTError: the key is not for this algorithm.
        """
        now = anyio.current_time()
        if now - self._read_at >= _KEPT_SECONDS or (key_id is not None and key_id not in self._keys):
            await self._read()
        return find_key(self._keys, key_id, algorithm)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _read(self) -> None:
        async with self._reading:
            now = anyio.current_time()
            if now - self._asked_at >= _ASKS_AGAIN_SECONDS:
                self._asked_at = now
                try:
                    with anyio.fail_after(_FETCH_SECONDS):
                        self._keys = await self._fetch()
                    self._read_at = now
                except (httpx2.HTTPError, TimeoutError, ValueError) as error:
                    log.warning("The keys of LIUM_MCP_OAUTH could not be read: %s", type(error).__name__)
        if not self._keys:
            raise NotVerifiable("The keys of the authorization server cannot be read now; try again in some seconds.")

    async def _fetch(self) -> Keys:
        return read_keys(await self._get(await self._keys_address()))

    async def _keys_address(self) -> str:
        """Where the issuer says that its keys are."""
        issuer = urlsplit(self.url)
        path = issuer.path.rstrip("/")
        origin = f"{issuer.scheme}://{issuer.netloc}"
        places = [f"{origin}/.well-known/{name}{path}" for name in _METADATA]
        failed: Exception = ValueError("there is no metadata")
        for place in dict.fromkeys((*places, f"{origin}{path}/.well-known/openid-configuration")):
            try:
                metadata = await self._get(place)
            except (httpx2.HTTPError, ValueError) as error:
                failed = error
                continue
            address = metadata.get("jwks_uri")
            if metadata.get("issuer") != self.url or not isinstance(address, str) or not _is_safe(address):
                raise ValueError("the metadata is of another issuer, or names no keys")
            return address
        raise failed

    async def _get(self, address: str) -> Mapping[str, Any]:
        async with self._http.stream("GET", address, headers={"Accept": "application/json"}) as answer:
            answer.raise_for_status()
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise ValueError("it is too long")
        document = httpx2.Response(200, content=body).json()
        if not isinstance(document, dict):
            raise ValueError("it is no object")  # noqa: TRY004 - what was read, not what was handed over
        return document


def _is_safe(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
