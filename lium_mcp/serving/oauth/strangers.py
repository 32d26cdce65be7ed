"""Reads small JSON documents at addresses that strangers name, of which none may lead into our own network.

A name is looked up once, and what it stands for is what is connected to: a second look could find another address.
"""

import asyncio
import logging
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import anyio
import httpx2

log = logging.getLogger(__name__)

_LIMIT_SECONDS: Final = 5.0
_MOST_BYTES: Final = 32 * 1024
_MOST_AT_ONCE: Final = 10
# A lookup cannot be called off, and those of strangers must not keep ours waiting: so they have threads of their own.
_LOOKUP_THREADS: Final = 4
_MOST_TRIED: Final = 3
_PORT: Final = 443
_JSON: Final = re.compile(r"application/([\w.-]+\+)?json", re.IGNORECASE)
# IPv4 addresses as networks that have only IPv6 write them.
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
_LOW_BITS: Final = 0xFFFFFFFF


class NotReadable(Exception):
    """A document cannot be read; the sentence says why."""


class Strangers:
    """What strangers publish.

    Args:
        are_read: Whether anything of it is read at all.
    """

    def __init__(self, *, are_read: bool) -> None:
        self._are_read = are_read
        self._lookups = ThreadPoolExecutor(_LOOKUP_THREADS, "lookup")
        self._at_once = anyio.Semaphore(_MOST_AT_ONCE)
        self._certificates: ssl.SSLContext | None = None

    async def read(self, address: str) -> dict[str, Any]:
        """The JSON object at an address with https.

        Raises:
            NotReadable: there is none, or not at an address that everybody can reach, or nothing is read.
        """
        if not self._are_read:
            raise NotReadable("this server reads none, and takes clients that register")
        parts = _checked(address)
        try:
            with anyio.fail_after(_LIMIT_SECONDS):
                async with self._at_once:
                    return await self._fetch(address, parts)
        except TimeoutError:
            raise NotReadable(f"{parts.hostname} did not answer within {_LIMIT_SECONDS:g} seconds") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, ImportError) as error:
            # The last two: a proxy that is set for other programs may be of a kind that is not known here.
            log.info("What a client says of itself could not be read: %s", type(error).__name__)
            raise NotReadable(f"{parts.hostname} could not be reached") from None

    def close(self) -> None:
        """Look up no more names."""
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _fetch(self, address: str, parts: SplitResult) -> dict[str, Any]:
        host = str(parts.hostname)
        self._certificates = self._certificates or httpx2.create_ssl_context()
        failed: httpx2.TransportError | None = None
        for found in await self._found(host):
            here = f"[{found}]" if isinstance(found, IPv6Address) else str(found)
            request = httpx2.Request(
                "GET",
                parts._replace(netloc=here).geturl(),
                # Nothing is unpacked: what is small when it is sent could be large then.
                headers={"Host": parts.netloc, "Accept": "application/json", "Accept-Encoding": "identity"},
                extensions={"sni_hostname": host},
            )
            # A client of its own for each: no connection, which is to one of the names at an address, serves another.
            async with httpx2.AsyncClient(verify=self._certificates, timeout=_LIMIT_SECONDS) as http:
                try:
                    return _document(address, await _sent(http, request))
                except httpx2.ConnectError as error:
                    failed = error
        raise failed or OSError

    async def _found(self, host: str) -> list[IPv4Address | IPv6Address]:
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(
                self._lookups, lambda: socket.getaddrinfo(host, _PORT, type=socket.SOCK_STREAM)
            )
        except (OSError, UnicodeError):
            raise NotReadable(f"{host} is not found") from None
        found = list(dict.fromkeys(ip_address(str(row[4][0]).partition("%")[0]) for row in rows))
        if not found or not all(map(_is_public, found)):
            raise NotReadable(f"{host} is not an address that everybody can reach")
        return found[:_MOST_TRIED]


def _checked(address: str) -> SplitResult:
    needed = NotReadable("an address is needed as https://client.example.com/client.json")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise needed from None
    is_plain = address.isascii() and address.isprintable() and not {" ", "\\", "#"} & set(address)
    steps = parts.path.lower().replace("%2e", ".").split("/")
    is_at_a_host = bool(parts.hostname) and "@" not in parts.netloc and port in {None, _PORT}
    if parts.scheme != "https" or not is_at_a_host or not is_plain:
        raise needed
    if parts.path in {"", "/"} or {".", ".."} & set(steps):
        raise needed
    return parts


async def _sent(http: httpx2.AsyncClient, request: httpx2.Request) -> bytes:
    answer = await http.send(request, stream=True, follow_redirects=False)
    try:
        if answer.status_code != httpx2.codes.OK:
            raise NotReadable(f"the answer was {answer.status_code}, and only 200 counts")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise NotReadable("the answer is packed, which was not asked for")
        # What a site lets its users write is of another kind.
        if not _JSON.fullmatch(answer.headers.get("content-type", "").partition(";")[0].strip()):
            raise NotReadable("the answer is not said to be JSON (Content-Type: application/json)")
        body = b""
        async for part in answer.aiter_raw():
            body += part
            if len(body) > _MOST_BYTES:
                raise NotReadable(f"the answer is longer than {_MOST_BYTES // 1024} KiB")
        return body
    finally:
        await answer.aclose()


def _document(address: str, body: bytes) -> dict[str, Any]:
    try:
        document = httpx2.Response(httpx2.codes.OK, content=body).json()
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise NotReadable(f"at {address} is no JSON object")
    return document


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether everybody reaches the same under an address, so that nothing of ours is there."""
    if isinstance(address, IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            within = IPv4Address(int(address) & _LOW_BITS)
        if within is not None:
            return _is_public(within)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved
