"""What a client shows to prove that it is one: a statement that it has signed with a key which it publishes (RFC 7523).

That is `private_key_jwt`, which ChatGPT likes best. Each statement counts once, whichever server it is shown to.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import jwt
from jwt.exceptions import PyJWTError
from mcp.shared.auth import OAuthClientInformationFull

from lium_mcp.api.clock import Clock
from lium_mcp.rentals import LazyLedger
from lium_mcp.serving.oauth.public_keys import ALGORITHMS, Keys, find_key, read_keys
from lium_mcp.serving.oauth.strangers import NotReadable, Strangers

KIND: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LEEWAY_SECONDS: Final = 30
_LONGEST: Final = timedelta(hours=1)
_KEPT_SECONDS: Final = 600.0
# Statements with made-up key ids must not make this server ask again and again.
_ASKS_AGAIN_SECONDS: Final = 30.0
_MOST_KEPT: Final = 100
_MOST_CHARACTERS: Final = 8192


class ProofRefused(Exception):
    """A proof does not count; the sentence says why, without anything of it."""


class Proofs:
    """Checks what clients show.

    Args:
        meant_for: What a statement may name as the one that it is for.
        strangers: Reads the keys.
        ledger: Where it is noted which statements were used.
        clock: The time.
    """

    def __init__(self, meant_for: list[str], strangers: Strangers, ledger: LazyLedger, clock: Clock) -> None:
        self._meant_for = meant_for
        self._strangers = strangers
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[str, tuple[Keys, float]] = {}

    async def check(self, client: OAuthClientInformationFull, proof: str) -> None:
        """Let a proof pass that counts, and count no more.

        Raises:
            ProofRefused: it does not.
            LedgerUnavailable: whether it was used cannot be told.
        """
        wrong = ProofRefused("client_assertion is not a statement that this client has signed for this server.")
        if len(proof) > _MOST_CHARACTERS:
            raise wrong
        try:
            header = jwt.get_unverified_header(proof)
            algorithm = header.get("alg")
            key = await self._key(client, header.get("kid"), algorithm) if algorithm in ALGORITHMS else None
            if key is None:
                raise wrong
            claims: Mapping[str, Any] = jwt.decode(
                proof,
                key,
                algorithms=ALGORITHMS,
                audience=self._meant_for,
                issuer=client.client_id,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
            until = datetime.fromtimestamp(float(claims["exp"]), UTC)
        except (PyJWTError, ValueError, OverflowError, OSError):
            raise wrong from None
        now = self._clock.now()
        if claims["sub"] != client.client_id or until - now > _LONGEST:
            raise wrong
        # Without the signature, which can be written in several ways.
        name = f"proof {proof.rpartition('.')[0]}"
        if not await self._ledger.notes().claim(name, now=now, until=until + timedelta(seconds=2 * _LEEWAY_SECONDS)):
            raise ProofRefused("client_assertion was used before.")

    async def _key(self, client: OAuthClientInformationFull, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        if client.jwks is not None:
            return find_key(read_keys(client.jwks), key_id, algorithm)
        address, now = str(client.jwks_uri), anyio.current_time()
        keys, read_at = self._kept.get(address, ({}, -_KEPT_SECONDS))
        if now - read_at >= (_ASKS_AGAIN_SECONDS if key_id not in keys else _KEPT_SECONDS):
            try:
                keys = read_keys(await self._strangers.read(address))
            except NotReadable as error:
                raise ProofRefused(f"The keys of this client cannot be read: {error}.") from None
            self._kept = {**dict(list(self._kept.items())[1 - _MOST_KEPT :]), address: (keys, now)}
        return find_key(keys, key_id, algorithm)
