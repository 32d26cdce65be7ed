"""The firewall in front of the API: it answers what it takes for an attack with an HTML page and status 403.

It refuses requests without a User-Agent, and bodies with an http address of bare IPv4, with a climb up two
directories, or above 64 KB (except uploads of build contexts).
"""

import re
from collections.abc import Mapping
from typing import Final

MAX_BODY_BYTES: Final = 64 * 1024
SUSPICIOUS: Final = re.compile(rb"http://\d{1,3}(?:\.\d{1,3}){3}|\.\./\.\./")
PAGE: Final = "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"


def blocks(path: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether the firewall refuses the request."""
    if not headers.get("user-agent"):
        return True
    if path == "/build-contexts":
        return False
    return len(body) > MAX_BODY_BYTES or SUSPICIOUS.search(body) is not None
