"""The proxy and the certificates that the environment names, checked once and by name, as settings are.

The names are everybody's: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`, `SSL_CERT_DIR`.
"""

import ssl
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from lium_mcp.api.network import Network
from lium_mcp.values import SettingsError, cleaned, expanded

_HTTPS_PORT: Final = 443
_WHAT_WORKS: Final = "an HTTP proxy is needed, as http://HOST:PORT, or none (NO_PROXY names hosts that need none)"


def read_network(base_url: str, environment: Mapping[str, str]) -> Network:
    """How this machine reaches an address.

    Raises:
        SettingsError: what is set cannot be used.
    """
    address = urlsplit(base_url)
    if address.scheme.lower() != "https":
        # Such an address is on this machine, and a proxy would read what is sent there, the key among it.
        return Network()
    problems: list[str] = []
    setting, proxy_url = _proxy(address, environment)
    if proxy_url and (problem := _proxy_problem(proxy_url)):
        problems.append(f"{setting}: {problem}")
    ca_path = None
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if ca_path is None and (text := cleaned(environment.get(variable, ""))):
            try:
                ca_path = _certificates(text, folder=variable == "SSL_CERT_DIR")
            except ValueError as error:
                problems.append(f"{variable}: {error}")
                break
    if problems:
        raise SettingsError(*problems)
    return Network(proxy_url or None, setting, ca_path)


def _proxy(address: SplitResult, environment: Mapping[str, str]) -> tuple[str, str]:
    """What names the proxy for an address, and its URL; both empty where there is none."""
    proxies = getproxies()  # of the environment, else on macOS and Windows of the system
    for scheme in ("https", "all"):
        proxy_url = cleaned(proxies.get(scheme, ""))
        if not proxy_url:
            continue
        if _needs_no_proxy(address, proxies.get("no", "")):
            return "", ""
        names = [name for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()) if environment.get(name)]
        return (
            names[0] if names else "this system's settings",
            proxy_url if "://" in proxy_url else f"http://{proxy_url}",
        )
    return "", ""


def _needs_no_proxy(address: SplitResult, no_proxy: str) -> bool:
    host = address.hostname or ""
    if proxy_bypass(f"{host}:{address.port or _HTTPS_PORT}"):
        return True
    # Forms that other programs read in NO_PROXY, and the standard library does not.
    return any(_covers(entry.strip().lower(), host) for entry in cleaned(no_proxy).split(","))


def _covers(entry: str, host: str) -> bool:
    if entry == "*" or (entry.startswith("*.") and host.endswith(entry[1:])):
        return True
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _proxy_problem(proxy_url: str) -> str | None:
    try:
        address = urlsplit(proxy_url)
        host, _ = address.hostname, address.port
    except ValueError:
        return f"this is no address; {_WHAT_WORKS}"
    if address.scheme.lower().startswith("socks"):
        return f"SOCKS is not supported; {_WHAT_WORKS}"
    if address.scheme.lower() not in {"http", "https"}:
        return f"there is no such kind of proxy; {_WHAT_WORKS}"
    return None if host else f"it names no host; {_WHAT_WORKS}"


def _certificates(text: str, *, folder: bool) -> Path:
    path = expanded(text)
    if folder:
        if not path.is_dir():
            raise ValueError(f"there is no folder {path}")
        return path
    if not path.is_file():
        raise ValueError(f"there is no file {path}; name the PEM file of the certificates to trust, or leave it out")
    try:
        Network(ca_path=path).verify()
    except ssl.SSLError:
        raise ValueError(f"{path} holds no certificates in PEM form") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    return path
