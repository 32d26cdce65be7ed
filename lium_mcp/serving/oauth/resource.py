"""This server as what OAuth calls a protected resource: where callers log in, and how one that has not is told so."""

from collections.abc import Collection, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METADATA: Final = "/.well-known/oauth-protected-resource"
_MCP: Final = "/mcp"


class Resource:
    """This server at its public address.

    Args:
        public_url: The address, with the path prefix and without a slash at its end.
        issuer: Who gives tokens for it.
        scopes: What a token has to have.
    """

    def __init__(self, public_url: str, issuer: str, scopes: Collection[str] = ()) -> None:
        self.public_url: Final = public_url
        self.url: Final = f"{public_url}{_MCP}"
        self.alone: Final = f"Tokens are for {self.url} alone, and for one resource each."
        self._issuer = issuer
        self._scopes = sorted(scopes)

    def is_meant_by(self, resource: str) -> bool:
        """Whether a client means this server (RFC 8707), however it writes the host."""
        return _in_one_form(resource) == _in_one_form(self.url)

    def routes(self) -> Iterator[Route]:
        """Where clients look for the authorization server (RFC 9728)."""
        metadata: dict[str, Any] = {
            "resource": self.url,
            "authorization_servers": [self._issuer],
            "bearer_methods_supported": ["header"],
            "resource_name": "Lium GPU pods",
        }
        if self._scopes:
            metadata["scopes_supported"] = self._scopes

        async def answer(_: Request) -> JSONResponse:
            return JSONResponse(metadata, headers={"Cache-Control": "public, max-age=3600"})

        # A proxy may forward nothing but what is below the prefix: there it is too.
        prefix = urlsplit(self.public_url).path
        for path in dict.fromkeys((METADATA, f"{METADATA}{_MCP}", f"{METADATA}{prefix}", f"{METADATA}{prefix}{_MCP}")):
            yield Route(path, answer)

    def challenge(self, description: str, *, error: str | None = None, status: int = 401) -> Response:
        """Tell a client where its user logs in.

        Args:
            description: A sentence for whoever looks at the answer; without quotation marks.
            error: What is wrong with the token that was sent; None where none was.
            status: 401 for no token that counts, 403 for one that may not do this.
        """
        parts = [f'error="{error}"', f'error_description="{description}"'] if error else []
        if self._scopes:
            parts.append(f'scope="{" ".join(self._scopes)}"')
        parts.append(f'resource_metadata="{self.public_url}{METADATA}{_MCP}"')
        said = {"error": error or "unauthorized", "error_description": description}
        return JSONResponse(
            said, status, {"WWW-Authenticate": f"Bearer {', '.join(parts)}", "Cache-Control": "no-store"}
        )


def _in_one_form(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    plain = parts._replace(scheme=parts.scheme.lower(), netloc=parts.netloc.lower(), path=parts.path.rstrip("/"))
    return plain.geturl()
