"""How this machine reaches the API: through which proxy, and by whose certificates. Reads no environment."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from lium_mcp.api.errors import CertificateRefused, ConnectionFailed, ProxyLoginRefused
from lium_mcp.text import Redact, one_line

_ASKS_FOR_LOGIN: Final = "407"
_MOST_CAUSES: Final = 10


@dataclass(frozen=True, slots=True)
class Network:
    """What a person has set about the way to the API.

    Attributes:
        proxy_url: Where connections go through; it may hold a password.
        proxy_setting: The setting that names the proxy, for messages.
        ca_path: File or folder of the certificates to trust in place of the system's.
    """

    proxy_url: str | None = field(default=None, repr=False)
    proxy_setting: str = ""
    ca_path: Path | None = None

    @property
    def through(self) -> str:
        """Words that name the proxy without its login, to follow a verb; empty where there is no proxy."""
        if self.proxy_url is None:
            return ""
        return f" through the proxy {urlsplit(self.proxy_url).hostname} of {self.proxy_setting}"

    def verify(self) -> ssl.SSLContext | bool:
        """What the HTTP client checks certificates with.

        Raises:
            OSError: the certificates to trust cannot be read.
        """
        if self.ca_path is None:
            return True
        if self.ca_path.is_dir():
            return ssl.create_default_context(capath=str(self.ca_path))
        return ssl.create_default_context(cafile=str(self.ca_path))

    def proxy(self, verify: ssl.SSLContext | bool) -> httpx2.Proxy | None:
        """The proxy, if there is one; the certificate of one behind TLS is checked in the same way as the API's."""
        if self.proxy_url is None:
            return None
        context = verify if isinstance(verify, ssl.SSLContext) and self.proxy_url.startswith("https:") else None
        return httpx2.Proxy(self.proxy_url, ssl_context=context)


def not_connected(error: httpx2.RequestError, host: str, network: Network, redact: Redact) -> ConnectionFailed:
    """The error for a connection that failed before anything was sent, with what stood in the way."""
    if refused := _refused_certificate(error):
        reason = one_line(refused.verify_message, redact)
        return CertificateRefused(
            f"What answers at {host}{network.through} shows a certificate that is not trusted here ({reason}); "
            "nothing was sent."
        )
    if isinstance(error, httpx2.ProxyError):
        status = next((word for word in str(error).split() if word.isdecimal()), "")
        kind, remedy = ConnectionFailed, "or to ask who runs that proxy"
        if status == _ASKS_FOR_LOGIN:
            kind, remedy = ProxyLoginRefused, "since the proxy wants a name and a password, or others"
        return kind(
            f"Nothing gets{network.through} to {host} (status {status}); nothing was sent.",
            hint=f"The user has to correct {network.proxy_setting}, {remedy}",
        )
    if isinstance(error, httpx2.PoolTimeout):
        return ConnectionFailed(
            "Too many requests to Lium are under way from this server, and this one had no turn in time; "
            "nothing was sent.",
            hint="Call again once other calls have ended",
        )
    return ConnectionFailed(f"No connection to Lium could be made{network.through}; nothing was sent.")


def _refused_certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    for _ in range(_MOST_CAUSES):  # an error that was raised again may be its own cause
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            return error
        error = error.__cause__ or error.__context__
    return None
