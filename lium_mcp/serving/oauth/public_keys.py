"""Public keys that somebody publishes to have signatures checked by (JWK Set)."""

from collections.abc import Mapping
from typing import Any, Final

from jwt import PyJWK

# Signatures by a private key alone: never `none`, nor one by a secret, for which a public key could be passed off.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
_PUBLIC: Final = frozenset({"RSA", "EC", "OKP"})

Keys = dict[str | None, dict[str, Any]]
"""What is published of each key, by its id."""


def read_keys(document: Mapping[str, Any]) -> Keys:
    """The keys of a document that check signatures.

    Raises:
        ValueError: there are none.
    """
    found = document.get("keys")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    # A secret among them, which anybody could read there, would let anybody sign.
    signing = [row for row in rows if row.get("kty") in _PUBLIC and row.get("use", "sig") == "sig"]
    keys = {kid: row for row in signing if isinstance(kid := row.get("kid"), str | None)}
    if not keys:
        raise ValueError("there are no keys")
    return keys


def find_key(keys: Keys, key_id: str | None, algorithm: str) -> PyJWK | None:
    """The key of an id, or of a token that names none where one key alone fits its algorithm; None where there is none.

    Args:
        keys: Those that there are.
        key_id: As the token names it.
        algorithm: For a key that is published without one.

    Raises:
        PyJWTError: the key is not for this algorithm.
    """
    row = keys.get(key_id)
    if key_id is None:
        fitting = [one for one in keys.values() if _fits(one, algorithm)]
        row = fitting[0] if len(fitting) == 1 else None
    return None if row is None else PyJWK.from_dict(row, algorithm=row.get("alg", algorithm))


def _fits(row: Mapping[str, Any], algorithm: str) -> bool:
    """Whether a key can be for an algorithm: by what it says, else by its kind."""
    kind = "RSA" if algorithm.startswith(("RS", "PS")) else "EC" if algorithm.startswith("ES") else "OKP"
    return bool(row.get("kty") == kind and row.get("alg", algorithm) == algorithm)
