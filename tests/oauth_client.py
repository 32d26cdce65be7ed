"""Who logs in over HTTP: the SDK's own OAuth client, one that goes by hand, and a person in a browser."""

import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from tests.compat.simulated import Simulated
from tests.http_server import Caller

KEY: Final = base64.b64encode(bytes(range(32))).decode()
REDIRECT: Final = "http://127.0.0.1:9/callback"
_IS_BACK: Final = re.compile(r"[?&](code|error)=")
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
    url: str,
    kept: Kept,
    person: Person,
    *,
    name: str = "Test client",
    headers: dict[str, str] | None = None,
    document: str | None = None,
) -> AsyncIterator[Caller]:
    """Connect to a server that asks its callers to log in; with a document, the client does not register itself."""

    async def show(address: str) -> None:
        kept.sent_to.append(address)
        kept.sent_back_to.append(await person(address))

    async def returned() -> AuthorizationCodeResult:
        said = {key: values[0] for key, values in parse_qs(urlsplit(kept.sent_back_to[-1]).query).items()}
        return AuthorizationCodeResult(code=said.get("code", ""), state=said.get("state"), iss=said.get("iss"))

    metadata = OAuthClientMetadata(
        redirect_uris=[AnyUrl(REDIRECT)], client_name=name, token_endpoint_auth_method="none"
    )
    auth = OAuthClientProvider(f"{url}/mcp", metadata, kept, show, returned, client_metadata_url=document)
    async with (
        httpx2.AsyncClient(auth=auth, headers=headers, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="auto") as client,
    ):
        yield Caller(client)


def at_lium(lium: Simulated, home: Path, port: int, **settings: str) -> dict[str, Any]:
    """The settings of a server at which people log in at Lium, and whose ledger is in this home."""
    return {
        "LIUM_BASE_URL": lium.base_url,
        "LIUM_MCP_PORT": str(port),
        "LIUM_MCP_OAUTH": "lium",
        "LIUM_MCP_OAUTH_KEYS": KEY,
        "LIUM_MCP_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "LIUM_MCP_STATE_URL": f"sqlite:///{home / 'ledger.db'}",
        "LIUM_MCP_LOG_LEVEL": "DEBUG",
    } | settings


class Browser:
    """A person's browser: it keeps cookies, and goes where it is sent, but not to the client."""

    def __init__(self, **headers: str) -> None:
        self.http = httpx2.AsyncClient(timeout=30, trust_env=False, headers=headers)
        self.page: httpx2.Response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def open(self, address: str) -> httpx2.Response:
        self.page = await self.http.get(address)
        while (onward := self.page.headers.get("Location")) and not _IS_BACK.search(onward):
            self.page = await self.http.get(self.page.url.join(onward))
        return self.page

    async def press(self, answer: str, **form: str) -> httpx2.Response:
        """Press a button of the form that is shown."""
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', self.page.text))
        origin = f"{self.page.url.scheme}://{self.page.url.netloc.decode()}"
        pressed = await self.http.post(
            self.page.url, data=fields | {"answer": answer} | form, headers={"Origin": origin}
        )
        if (onward := pressed.headers.get("Location")) is not None:
            return await self.open(str(pressed.url.join(onward)))
        self.page = pressed
        return pressed

    async def agree_at_lium(self, answer: str = "agree") -> None:
        [page] = re.findall(r'<a href="([^"]+)" target="_blank"', self.page.text)
        (await self.http.post(page, data={"answer": answer})).raise_for_status()

    async def until_sent_back(self) -> str:
        """Load the page again and again, as it does by itself; where it sends the browser in the end."""
        with anyio.fail_after(60):
            while (onward := self.page.headers.get("Location")) is None:
                if found := re.search(r'content="1; url=([^"]+)"', self.page.text):
                    return found[1].replace("&amp;", "&")
                assert 'http-equiv="refresh" content="5"' in self.page.text
                await anyio.sleep(0.5)
                await self.open(str(self.page.url))
        return str(onward)


async def agree(address: str) -> str:
    """Log in, as a person does who wants to."""
    async with Browser() as browser:
        await browser.open(address)
        await browser.press("agree")
        await browser.agree_at_lium()
        return await browser.until_sent_back()


class HandClient:
    """A client that does what none should."""

    def __init__(self, url: str, client_id: str = "", **form: str) -> None:
        self.url = url
        self.client_id = client_id
        self.form = form
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(8)

    def register(self, **metadata: Any) -> httpx2.Response:
        said = {"redirect_uris": [REDIRECT], "client_name": "By hand", "token_endpoint_auth_method": "none"} | metadata
        answer = httpx2.post(f"{self.url}/register", json=said, trust_env=False)
        if answer.is_success:
            self.client_id = answer.json()["client_id"]
            self.form = {"client_secret": answer.json()["client_secret"]} if "client_secret" in answer.json() else {}
        return answer

    def asking(self, **values: str) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).decode().rstrip("=")
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "state": self.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": f"{self.url}/mcp",
        }
        return f"{self.url}/authorize?{urlencode({k: v for k, v in (asked | values).items() if v})}"

    def token(self, **form: str) -> httpx2.Response:
        said = {"client_id": self.client_id, **self.form} | form
        return httpx2.post(f"{self.url}/token", data=said, trust_env=False)

    def exchange(self, back: str, **form: str) -> httpx2.Response:
        code = parse_qs(urlsplit(back).query)["code"][0]
        said = {"code": code, "redirect_uri": REDIRECT, "code_verifier": self.verifier} | form
        return self.token(grant_type="authorization_code", **said)

    def refresh(self, token: str) -> httpx2.Response:
        return self.token(grant_type="refresh_token", refresh_token=token)

    async def log_in(self) -> dict[str, Any]:
        self.register()
        return dict(self.exchange(await agree(self.asking())).json())
