"""Which addresses requests and people may go to: the base address, path segments, redirects, pages. Sends nothing."""

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Self

import httpx2

from lium_mcp.api.errors import InvalidRequest

_SITE = "lium.io"
_MOST_PAGE_CHARACTERS = 4000
MAX_PORT = 65_535
# What browsers read in one way only: no backslash, no blank, no login before the host.
_PAGE = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:[/?#][A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*)?")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,128}")


def segment(parameter: str, value: str) -> str:
    """Return `value` if it can stand as one path segment or header value; an empty id would name the whole list."""
    if not is_segment(value):
        raise InvalidRequest(f"{parameter} is not an id: an id has 1 to 128 letters, digits, '.', '_' or '-'.")
    return value


def is_segment(value: str) -> bool:
    """Whether a text can stand as one path segment."""
    return _SEGMENT.fullmatch(value) is not None and value not in {".", ".."}


class Endpoint(str):
    """A path, with what it was made of: of those without ids the path itself is the template.

    Attributes:
        template: The path without its ids; there are only so many.
        ids: The ids, by their names in the template.
    """

    __slots__ = ("ids", "template")
    ids: dict[str, str]
    template: str

    def __new__(cls, template: str, ids: dict[str, str]) -> Self:
        """Fill in a template."""
        path = super().__new__(cls, template.format(**ids))
        path.template, path.ids = template, ids
        return path


def endpoint(template: str, **ids: str) -> Endpoint:
    """Return a path with each `{name}` replaced by its id, refusing anything that is not an id."""
    return Endpoint(template, {name: segment(name, value) for name, value in ids.items()})


@lru_cache(maxsize=8)
def check_base_url(base_url: str) -> httpx2.URL:
    """Return the parsed base address, refusing one that the API key must not be sent to."""
    try:
        url = httpx2.URL(base_url.strip().rstrip("/"))
    except (httpx2.InvalidURL, ValueError):
        raise InvalidRequest("The API address is not a URL.") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise InvalidRequest("The API address must start with https:// (or http:// for this machine).")
    if url.port is not None and not 0 < url.port <= MAX_PORT:
        raise InvalidRequest(f"The API address must have a port from 1 to {MAX_PORT}, or none.")
    if url.userinfo or url.query or url.fragment:
        raise InvalidRequest("The API address must not hold credentials, a query or a fragment.")
    if url.scheme == "http" and not _is_loopback(url.host):
        raise InvalidRequest("The API address must be https: plain http would show the API key to the network.")
    return url


def redirect_target(current: httpx2.URL, location: str) -> httpx2.URL | None:
    """Return where a redirect leads if it stays on the same scheme, host and port, else `None`."""
    try:
        target = current.join(location)
    except (httpx2.InvalidURL, ValueError):
        return None
    same_origin = (target.scheme, target.host, target.port) == (current.scheme, current.host, current.port)
    # Credentials in the address would be sent as an Authorization header of the redirecting server's choice.
    return target if same_origin and not target.userinfo else None


def page_of_site(base_url: str, page: str) -> str | None:
    """Return the address of a page that the API names for a person if it is surely of the API's own site, else `None`.

    A page elsewhere could ask for anything. And a page of Lium's that another address hands out would let whoever
    agrees there give that address a key to Lium.
    """
    base = check_base_url(base_url)
    if len(page) > _MOST_PAGE_CHARACTERS or not _PAGE.fullmatch(page):
        return None
    try:
        url = httpx2.URL(page)
    except (httpx2.InvalidURL, ValueError):
        return None
    if _is_loopback(base.host):
        is_own = _is_loopback(url.host) and _port(url) == _port(base)
    else:
        is_lium = url.host == _SITE and url.port is None and is_of_lium(base_url)
        is_own = url.scheme == "https" and (is_lium or (url.host, _port(url)) == (base.host, _port(base)))
    return page if is_own else None


def is_of_lium(base_url: str) -> bool:
    """Whether an address is Lium's own, or a simulation's on this machine."""
    host = check_base_url(base_url).host
    return _is_loopback(host) or f".{host}".endswith(f".{_SITE}")


def _port(url: httpx2.URL) -> int:
    return url.port or {"http": 80, "https": 443}[url.scheme]


def with_port(host: str, port: int) -> str:
    """Return host and port as URLs and most programs take them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
