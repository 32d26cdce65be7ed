"""The SDK's own OAuth client: what hosts built on it do when a server asks their user to log in."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.http_server import Caller

REDIRECT: Final = "http://127.0.0.1:9/callback"
Person = Callable[[str], Awaitable[str]]
"""What a person does in the browser with the address that they are sent to; where the browser is sent back to."""


@dataclass
class Kept(TokenStorage):
    """What a client keeps of its user's login."""

    client: OAuthClientInformationFull | None = None
    tokens: OAuthToken | None = None
    sent_to: list[str] = field(default_factory=list)
    sent_back_to: list[str] = field(default_factory=list)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@asynccontextmanager
async def logging_in(
    url: str, kept: Kept, person: Person, *, name: str = "Test client", headers: dict[str, str] | None = None
) -> AsyncIterator[Caller]:
    """Connect to a server that asks its callers to log in."""

    async def show(address: str) -> None:
        kept.sent_to.append(address)
        kept.sent_back_to.append(await person(address))

    async def returned() -> AuthorizationCodeResult:
        said = {key: values[0] for key, values in parse_qs(urlsplit(kept.sent_back_to[-1]).query).items()}
        return AuthorizationCodeResult(code=said.get("code", ""), state=said.get("state"), iss=said.get("iss"))

    metadata = OAuthClientMetadata(
        redirect_uris=[AnyUrl(REDIRECT)], client_name=name, token_endpoint_auth_method="none"
    )
    auth = OAuthClientProvider(f"{url}/mcp", metadata, kept, show, returned)
    async with (
        httpx2.AsyncClient(auth=auth, headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="auto") as client,
    ):
        yield Caller(client)


def free_port() -> int:
    """A port of this machine at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
