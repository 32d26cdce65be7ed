"""Why Lium's address cannot be reached, where the failure of a request does not tell."""

import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit

import anyio

from lium_mcp.cli.checks.findings import Finding, broken
from lium_mcp.cli.shell_lines import set_as, set_to
from lium_mcp.settings import Settings
from lium_mcp.values import is_loopback

LOOK_AT_NETWORK: Final = (
    "look at the network, the firewall, and LIUM_BASE_URL; a network with a proxy needs HTTPS_PROXY=http://HOST:PORT"
)
_AREA: Final = "lium"
_ASK_SECONDS: Final = 10.0
_HANDSHAKE_SECONDS: Final = 3.0
_PORTS: Final = {"https": 443, "http": 80}


def through_proxy(settings: Settings) -> tuple[str, str] | None:
    """What mends a proxy that stands in the way, in words and as a command; None where there is no proxy."""
    network = settings.find_network()
    if network.proxy_url is None:
        return None
    host = urlsplit(settings.base_url).hostname
    words = f"correct the proxy of {network.proxy_setting}, or let {host} be reached without it"
    return words, set_as("NO_PROXY", "NO_PROXY", more=f",{host}")


async def why_unreachable(settings: Settings) -> Finding | None:
    """Find out where the way ends: at the name, at the connection, or at its encryption; None where it does not."""
    if settings.find_network().proxy_url:
        return None
    address = urlsplit(settings.base_url)
    host, port = address.hostname or "", address.port or _PORTS[address.scheme.lower()]
    try:
        with anyio.fail_after(_ASK_SECONDS):
            found = await anyio.getaddrinfo(host, port)
    except (OSError, UnicodeError, TimeoutError):
        what = f"No address is known for the name {host}: there is no network, or no such name."
        cure = f"look at the network of this machine (ping {host}), at its DNS, and at LIUM_BASE_URL"
        return broken("name_unknown", _AREA, what, cure)
    addresses = sorted({str(item[4][0]) for item in found})
    try:
        with anyio.fail_after(_ASK_SECONDS):
            await (await anyio.connect_tcp(host, port)).aclose()
    except (OSError, TimeoutError):
        return broken("nothing_listens", _AREA, *_not_connected(host, port, addresses))
    return _other_scheme(address, speaks_tls=await _speaks_tls(host, port))


def _not_connected(host: str, port: int, addresses: list[str]) -> tuple[str, str]:
    what = f"Nothing takes a connection at {host}, port {port} ({', '.join(addresses)})."
    if all(":" in address for address in addresses):
        cure = f"{host} has addresses of IPv6 alone: this machine needs IPv6, or a proxy (HTTPS_PROXY=http://HOST:PORT)"
        return what, cure
    if is_loopback(host):
        return what, "start what LIUM_BASE_URL means (lium-mcp sandbox is at port 8765), or correct LIUM_BASE_URL"
    return what, LOOK_AT_NETWORK


async def _speaks_tls(host: str, port: int) -> bool:
    """Whether what listens there speaks TLS; whose certificate it has is not asked here, and nothing is sent."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with anyio.fail_after(_HANDSHAKE_SECONDS):
            stream = await anyio.connect_tcp(host, port, ssl_context=context, tls_standard_compatible=False)
    except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream):
        return False
    await stream.aclose()
    return True


def _other_scheme(address: SplitResult, *, speaks_tls: bool) -> Finding | None:
    is_https = address.scheme.lower() == "https"
    if speaks_tls == is_https:
        return None
    other = address._replace(scheme="https" if speaks_tls else "http").geturl()
    what = f"What listens at {address.netloc} speaks {'TLS' if speaks_tls else 'no TLS'}."
    if not speaks_tls and not is_loopback(address.hostname or ""):
        # A key is never sent in clear to another machine.
        return broken("other_scheme", _AREA, what, "correct LIUM_BASE_URL: the server there needs https")
    scheme = "https" if speaks_tls else "http"
    return broken("other_scheme", _AREA, what, f"begin LIUM_BASE_URL with {scheme}://", set_to("LIUM_BASE_URL", other))
