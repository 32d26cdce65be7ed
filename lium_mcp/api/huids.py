"""Huids: the short human names that clients, not the API, derive from ids.

They are computed as the official client computes them, so that a name seen there means the same thing here. Two ids
can share a huid, so a huid may only ever select what matches exactly once.
"""

import hashlib

_ADJECTIVES = ("swift", "brave", "calm", "eager", "gentle", "cosmic", "golden", "lunar", "zesty", "noble")
_NOUNS = ("hawk", "lion", "eagle", "fox", "wolf", "shark", "raven", "matrix", "comet", "orbit")


def huid(identifier: str) -> str:
    """Return the huid of an id, such as `cosmic-hawk-f2`."""
    if not identifier:
        return "invalid"
    digest = hashlib.md5(identifier.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    adjective = _ADJECTIVES[int(digest[:4], 16) % len(_ADJECTIVES)]
    noun = _NOUNS[int(digest[4:8], 16) % len(_NOUNS)]
    return f"{adjective}-{noun}-{digest[-2:]}"
