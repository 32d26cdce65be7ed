"""Sealing what is kept and worth a key. The first of the keys seals, and each opens, so that they can be changed."""

import json
from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Seal:
    """Seals small texts by name.

    Args:
        keys: Each 32 bytes in base64, in the alphabet for addresses.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, values: Mapping[str, str]) -> str:
        """What may be kept."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode()).decode()

    def open(self, sealed: str) -> dict[str, str] | None:
        """What was sealed; None where none of the keys opens it."""
        try:
            return dict(json.loads(self._fernet.decrypt(sealed.encode())))
        except InvalidToken:
            return None
