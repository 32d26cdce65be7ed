"""Where people are sent back to once they have logged in: which addresses are safe, and how a person is told of one."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AnyUrl, TypeAdapter

from lium_mcp.values import is_loopback

_MOST_CHARACTERS: Final = 2_000
MOST_REDIRECTS: Final = 20
_ADDRESS: Final = TypeAdapter(AnyUrl)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
# What a browser or the system itself acts on, instead of handing it to the one program that owns the kind.
_NOT_A_PROGRAM: Final = frozenset(
    {
        "about", "afp", "blob", "bitcoin", "callto", "chrome", "chrome-extension", "content", "data", "dav", "davs",
        "dns", "edge", "facetime", "feed", "file", "filesystem", "ftp", "ftps", "geo", "git", "gopher", "help",
        "imap", "intent", "ipp", "ipps", "irc", "ircs", "jar", "javascript", "ldap", "ldaps", "livescript",
        "magnet", "mailto", "market", "mhtml", "mms", "mocha", "moz-extension", "news", "nfs", "nntp", "opera", "pop",
        "rdp", "res", "resource", "rlogin", "rsync", "rtsp", "search", "search-ms", "sftp", "shell", "sip", "sips",
        "skype", "smb", "sms", "smsto", "snmp", "ssh", "steam", "stun", "svn", "tel", "telnet", "tftp", "turn",
        "vbscript", "view-source", "vnc", "webcal", "ws", "wss", "wyciwyg", "xmpp", "zoommtg",
    }
)  # fmt: skip
_OF_THE_SYSTEM: Final = ("ms-", "android-", "x-apple", "itms")


def as_compared(address: object) -> str:
    """An address in the form in which the SDK has those that clients ask for.

    Raises:
        ValueError: it is no address.
    """
    return str(_ADDRESS.validate_python(str(address)))


def is_in_its_form(address: object) -> bool:
    """Whether an address is written as it is compared, but for the slash after a host that stands alone."""
    try:
        return isinstance(address, str) and as_compared(address) in (address, f"{address}/")
    except ValueError:
        return False


def safe_ones(addresses: object) -> list[str]:
    """The addresses of a list to which people may be sent back."""
    asked = (addresses if isinstance(addresses, list) else [])[:MOST_REDIRECTS]
    return [address for address in asked if is_in_its_form(address) and is_safe_to_return_to(address)]


def is_safe_to_return_to(address: str) -> bool:
    """Whether a code may be sent to an address: by https, or to a program on the person's own machine.

    The latter has a port there (RFC 8252), or a kind of addresses of its own, as `cursor://callback` and
    `com.example.app:/callback`.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    if len(address) > _MOST_CHARACTERS or parts.fragment or address.endswith("#") or "@" in parts.netloc:
        return False
    host = parts.hostname or ""
    if parts.scheme == "https":
        return bool(host)
    return is_loopback(host) if parts.scheme == "http" else _is_of_a_program(parts)


def is_same_place(asked: str, registered: str) -> bool:
    """Whether a client may be answered at an address since it has registered one: that, or another port of its machine.

    A program on somebody's machine listens at whichever port is free (RFC 8252, 7.3).
    """
    if asked == registered:
        return True
    here, there = urlsplit(asked), urlsplit(registered)
    host = here.hostname or ""
    return (
        here.scheme == "http"
        and is_loopback(host)
        and host == there.hostname
        and "@" not in here.netloc
        and here._replace(netloc="") == there._replace(netloc="")
    )


def is_on_the_machine(address: str) -> bool:
    """Whether the answer goes to a program on the person's own machine, which may be another one than they think."""
    return urlsplit(address).scheme != "https"


def whereto(address: str) -> str:
    """Who gets the answer, in words; nothing of it is escaped."""
    parts = urlsplit(address)
    if parts.scheme == "https":
        return parts.netloc
    if parts.scheme == "http":
        return f"a program on your own machine, {parts.netloc}"
    return f"the program on your own machine that opens addresses which begin with {parts.scheme}:"


def _is_of_a_program(parts: SplitResult) -> bool:
    is_its_own = bool(parts.netloc) or "." in parts.scheme
    is_known_otherwise = parts.scheme in _NOT_A_PROGRAM or parts.scheme.startswith(_OF_THE_SYSTEM)
    return bool(_SCHEME.fullmatch(parts.scheme)) and is_its_own and not is_known_otherwise
