"""What the settings say about logging in over HTTP: where, for which address, and what else belongs to that."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from lium_mcp.values import SettingsError, is_loopback, listed, split_host

LIUM: Final = "lium"
"""The value that lets callers log in at Lium itself."""
_KEY_BYTES: Final = 32
_HOOK: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class OAuth:
    """How callers over HTTP log in.

    Attributes:
        public_url: The address under which they reach this server, without a slash at its end.
        issuer: The authorization server of the deployment's own; None where Lium's own login is used.
        keys: What encrypts the Lium keys of those who logged in; the first encrypts, all decrypt.
        hook: Where the Lium key for a token of the issuer is found: `package.module:function`.
        scopes: What a token of the issuer must have.
        registered_only: Whether nothing is read of what clients publish of themselves.
    """

    public_url: str
    issuer: str | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    hook: str = ""
    scopes: frozenset[str] = frozenset()
    registered_only: bool = False

    @property
    def resource(self) -> str:
        """What tokens are for: the address of Streamable HTTP."""
        return f"{self.public_url}/mcp"


def check_issuer(text: str) -> str:
    """Return the word `lium`, or the address of an authorization server, as tokens name it.

    Raises:
        ValueError: it is neither.
    """
    if text == LIUM:
        return text
    _check_address(
        text, "lium is needed, or the address (issuer) of an authorization server, as https://login.example.com"
    )
    return text


def check_public_url(text: str) -> str:
    """Return the address without a slash at its end.

    Raises:
        ValueError: it is no address that clients could be given.
    """
    _check_address(text, "an address such as https://gpu.example.com is needed, with the path prefix if there is one")
    return text.rstrip("/")


def split_keys(text: str) -> tuple[str, ...]:
    """The keys of a list, each in the alphabet for addresses.

    Raises:
        ValueError: one is not 32 bytes in base64.
    """
    keys = tuple(key.replace("+", "-").replace("/", "_") for key in listed(text))
    for key in keys:
        try:
            read = base64.b64decode(key, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            read = b""
        # Words in base64 are an example, or can be guessed.
        if len(read) != _KEY_BYTES or (read.isascii() and read.decode().isprintable()):
            raise ValueError("each key is 32 random bytes in base64, as `openssl rand -base64 32` makes them")
    return keys


def read_oauth(
    where: str,
    public_url: str | None,
    *,
    path_prefix: str,
    allowed_host: frozenset[str],
    listens_at: str,
    keys: tuple[str, ...],
    hook: str | None,
    scopes: frozenset[str],
    registered_only: bool,
    in_sandbox: bool,
) -> OAuth:
    """What the settings mean together.

    Raises:
        SettingsError: they do not fit together: all that is wrong.
    """
    is_lium = where == LIUM
    problems = _wrong_address(public_url, path_prefix, allowed_host, listens_at)
    if is_lium and not keys:
        problems.append(
            "LIUM_MCP_OAUTH_KEYS: it is missing, and Lium keys of those who log in are only kept encrypted: set it to "
            "what `openssl rand -base64 32` prints"
        )
    if is_lium and in_sandbox:
        problems.append(
            "LIUM_MCP_OAUTH: the sandbox in the server has no page to log in at; run `lium-mcp sandbox`, and set "
            "LIUM_BASE_URL to the address that it prints"
        )
    if is_lium and (hook or scopes):
        problems.append(
            "LIUM_MCP_OAUTH: a hook and scopes are for an authorization server of your own, which it would name"
        )
    if not is_lium and registered_only:
        problems.append("LIUM_MCP_OAUTH_REGISTERED_ONLY: your own authorization server decides which clients it takes")
    if not is_lium and not (hook and _HOOK.fullmatch(hook)):
        problems.append(
            "LIUM_MCP_OAUTH_HOOK: the function that finds the Lium key of a token is needed, as package.module:function"
        )
    if problems:
        raise SettingsError(*problems)
    return OAuth(public_url or "", None if is_lium else where, keys, hook or "", scopes, registered_only)


def _wrong_address(
    public_url: str | None, path_prefix: str, allowed_host: frozenset[str], listens_at: str
) -> list[str]:
    if public_url is None:
        missing = "callers log in for the address under which they reach this server, as https://gpu.example.com"
        return [f"LIUM_MCP_PUBLIC_URL: it is missing: {missing}"]
    address = urlsplit(public_url)
    problems = []
    if address.path != path_prefix:
        problems.append(
            f"LIUM_MCP_PUBLIC_URL: its path has to be that of LIUM_MCP_PATH_PREFIX, and they are {address.path or '/'} "
            f"and {path_prefix or '/'}"
        )
    host = address.hostname or ""
    names = {split_host(name)[0].strip("[]").casefold() for name in allowed_host}
    if host not in names and not (is_loopback(host) and is_loopback(listens_at)):
        problems.append(f"LIUM_MCP_PUBLIC_URL: calls under {host} are refused: name it in LIUM_MCP_ALLOWED_HOST too")
    return problems


def _check_address(text: str, needed: str) -> None:
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:
        raise ValueError(needed) from None
    host = address.hostname or ""
    clear = not (address.query or address.fragment or address.username or any(char.isspace() for char in text))
    if address.scheme not in {"https", "http"} or not host or port == 0 or not clear:
        raise ValueError(needed)
    if address.scheme == "http" and not is_loopback(host):
        raise ValueError("https is needed: what is sent there is worth a key")
