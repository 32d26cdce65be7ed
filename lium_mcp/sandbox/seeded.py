"""Numbers and ids that depend on a seed and a name alone, so that equal sandboxes give equal answers."""

import functools
import hashlib
import uuid
from collections.abc import Hashable


@functools.lru_cache(maxsize=1 << 16)
def fraction(*parts: Hashable) -> float:
    """Return a number in [0, 1) that depends on nothing but the parts."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def identifier(*parts: object) -> str:
    """Return a UUID (of version 4, as the API's ids are) that depends on nothing but the parts."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))
