"""Callers who log in at Lium: the SDK's own client, a person in a browser, and whoever would like their login."""

import base64
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from lium_mcp.page import ADDRESS
from lium_mcp.sandbox import API_KEY
from lium_mcp.serving.prepared import CURRENT
from tests.compat.simulated import Simulated, simulating
from tests.http_server import WAYS, Served, Way, calling, initialize, serving, serving_within
from tests.oauth_client import KEY, REDIRECT, Browser, HandClient, Kept, agree, at_lium, logging_in
from tests.ports import free_port
from tests.postgres import Postgres
from tests.processes import run
from tests.serving.recording import SHOWS_PAGES, request

NEWER_KEY: Final = base64.b64encode(b"\xff" * 32).decode()
MCP: Final = {"Accept": "application/json, text/event-stream"}
HOSTILE: Final = "<script>alert(1)</script> \u202eClaude\n\"'&"


@pytest.fixture(scope="module")
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(start=datetime.now(UTC).replace(microsecond=0))
        yield simulated


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hosted")


@pytest.fixture(scope="module")
def hosted(lium: Simulated, home: Path) -> Iterator[Served]:
    port = free_port()
    # All these tests come from one address, on a quick machine within a minute.
    with serving_within(home, at_lium(lium, home, port), logins=10_000, port=port) as served:
        yield served


def post(url: str, token: str) -> int:
    headers = MCP | {"Authorization": f"Bearer {token}"}
    return httpx2.post(f"{url}/mcp", json=initialize(), headers=headers, timeout=60, trust_env=False).status_code


def change(home: Path, statement: str) -> None:
    """Change the ledger past the program."""
    with closing(sqlite3.connect(home / "ledger.db", timeout=60)) as connection:
        connection.execute(statement)
        connection.commit()


def kept_in(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(home.glob("ledger.db*")))


async def test_who_is_refused_logs_in_at_lium_and_acts_with_the_key_of_that_login(
    hosted: Served, lium: Simulated, home: Path
) -> None:
    kept = Kept()
    async with logging_in(hosted.url, kept, agree, name="Claude") as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100
    assert kept.tokens is not None
    assert kept.tokens.expires_in == 3600
    assert kept.tokens.access_token.startswith("lmt_")
    key = next(key for key in lium.playing._world.keys.values() if key.name.startswith("login")).secret
    code = parse_qs(urlsplit(kept.sent_back_to[0]).query)["code"][0]
    for secret in (key, code, kept.tokens.access_token, kept.tokens.refresh_token, "sandbox@example.com"):
        assert secret is not None
        assert secret.encode() not in kept_in(home), "what is worth a key is kept sealed, or as a digest"
        assert secret not in hosted.stderr()


@pytest.mark.parametrize("way", WAYS)
async def test_callers_with_keys_need_no_login(hosted: Served, way: Way) -> None:
    for headers in ({"X-API-Key": API_KEY}, {"Authorization": f"Bearer {API_KEY}"}):
        async with calling(hosted.url, way, headers) as caller:
            assert (await caller.call("get_balance"))["balance_usd"] == 100


@pytest.mark.parametrize("blank", ["", '""', "${LIUM_API_KEY}", "your-api-key"])
async def test_a_token_is_never_taken_for_a_key(hosted: Served, blank: str) -> None:
    tokens = await HandClient(hosted.url).log_in()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    async with calling(hosted.url, "modern", bearer | {"X-API-Key": blank}) as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100
    wrong = {"Authorization": f"Bearer {tokens['access_token']}x", "X-API-Key": blank}
    answer = httpx2.post(f"{hosted.url}/mcp", json=initialize(), headers=MCP | wrong, trust_env=False)
    assert answer.status_code == 401


async def test_who_logged_in_with_a_client_that_shows_pages_hears_of_ours(hosted: Served) -> None:
    tokens = await HandClient(hosted.url).log_in()
    asked = {"MCP-Protocol-Version": CURRENT, "Mcp-Method": "tools/list"}
    headers = MCP | asked | {"Authorization": f"Bearer {tokens['access_token']}"}
    for capabilities, hears in (({}, False), (SHOWS_PAGES, True)):
        body = request("tools/list", 1, CURRENT, capabilities)
        answer = httpx2.post(f"{hosted.url}/mcp", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200
        assert (ADDRESS in answer.text) == hears


async def test_a_login_whose_key_lium_takes_no_more_says_how_to_log_in_anew(hosted: Served, lium: Simulated) -> None:
    tokens = await HandClient(hosted.url).log_in()
    lium.playing._world.keys.clear()
    async with calling(hosted.url, "modern", {"Authorization": f"Bearer {tokens['access_token']}"}) as caller:
        code, text = await caller.refused("get_balance")
    lium.begin(start=datetime.now(UTC).replace(microsecond=0))
    assert code == "api_key_refused"
    assert "disconnect this server in their client and connect it again" in text


# Finding the way


def test_who_is_refused_finds_the_way_from_wherever_clients_look(hosted: Served) -> None:
    answer = httpx2.post(f"{hosted.url}/mcp", json=initialize(), headers=MCP, trust_env=False)
    assert answer.status_code == 401
    [named] = re.findall(r'resource_metadata="([^"]+)"', answer.headers["WWW-Authenticate"])
    for address in (named, f"{hosted.url}/.well-known/oauth-protected-resource"):
        said = httpx2.get(address, trust_env=False).json()
        assert (said["resource"], said["authorization_servers"]) == (f"{hosted.url}/mcp", [hosted.url])
    for name in ("oauth-authorization-server", "openid-configuration"):
        said = httpx2.get(f"{hosted.url}/.well-known/{name}", trust_env=False).json()
        assert said["issuer"] == hosted.url
        # Without both claude.ai and others register instead of showing what they publish.
        assert said["client_id_metadata_document_supported"]
        assert "none" in said["token_endpoint_auth_methods_supported"]


@pytest.mark.parametrize(
    "path", ["/mcp", "/token", "/register", "/revoke", "/.well-known/oauth-protected-resource/mcp"]
)
def test_a_client_in_a_web_page_gets_in_where_its_host_is_named(hosted: Served, path: str) -> None:
    """As the Inspector's page at a port of the person's machine; it also reads where to log in."""
    method = "GET" if "well-known" in path else "POST"
    asking = {
        "Origin": "http://localhost:6274",
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,mcp-protocol-version,mcp-method,mcp-name",
    }
    answer = httpx2.options(f"{hosted.url}{path}", headers=asking, trust_env=False)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, "http://localhost:6274")
    elsewhere = asking | {"Origin": "https://evil.example.com"}
    assert httpx2.options(f"{hosted.url}{path}", headers=elsewhere, trust_env=False).status_code == 403
    refused = httpx2.post(f"{hosted.url}/mcp", json=initialize(), headers=MCP | asking, trust_env=False)
    assert "WWW-Authenticate" in refused.headers["Access-Control-Expose-Headers"]


# Registering


@pytest.mark.parametrize(
    "address",
    [
        "http://evil.example.com/callback", "http://127.0.0.1.evil.example.com/", "http://169.254.169.254/", "http://[::2]/",
        "https://claude.ai/callback#x", "https://claude.ai/callback#", "https://claude.ai@evil.example.com/",
        f"https://claude.ai/{'x' * 3000}", "javascript:alert(1)", "JavaScript://claude.ai/%0aalert(1)",
        "data:text/html,x",
        "data://text/html,x", "vnc://x/y", "git://x/y", "ldap://x/y", "steam://run/1",
        "vbscript://x/y", "file:///etc/passwd", "file://host/share", "blob:https://claude.ai/x",
        "about:blank", "view-source:https://claude.ai/", "mailto:a@b.example", "tel://1", "ftp://claude.ai/", "wss://claude.ai/",
        "intent://x#Intent;end", "ms-msdt://x/y", "search-ms://x/y", "chrome://settings/x", "callback", "/callback",
        "//claude.ai/callback", "myapp:callback", "myapp:/callback", "cursor://user@callback/",
    ],
)  # fmt: skip
def test_nobody_is_sent_back_to_where_others_may_read_it_or_a_browser_would_act_on_it(
    hosted: Served, address: str
) -> None:
    answer = HandClient(hosted.url).register(redirect_uris=[address])
    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_redirect_uri", "invalid_client_metadata"}


@pytest.mark.parametrize(
    ("address", "whereto"),
    [
        ("https://claude.ai/api/mcp/auth_callback", "claude.ai"),
        ("https://chatgpt.com/connector/oauth/IbUR3zxyNQ16?x=1", "chatgpt.com"),
        ("https://xn--bcher-kva.example/cb", "xn--bcher-kva.example"),
        ("http://localhost:6274/oauth/callback", "a program on your own machine, localhost:6274"),
        ("cursor://anysphere.cursor-mcp/oauth/callback", "addresses which begin with cursor:"),
        ("vscode://vscode.github-authentication/did-authenticate", "addresses which begin with vscode:"),
        ("com.example.app:/callback", "addresses which begin with com.example.app:"),
    ],
)
async def test_the_page_says_where_the_answer_goes(hosted: Served, address: str, whereto: str) -> None:
    client = HandClient(hosted.url)
    assert client.register(redirect_uris=[address]).status_code == 201
    async with Browser() as browser:
        page = await browser.open(client.asking(redirect_uri=address))
        assert whereto in page.text
        assert f"<code>{address}</code>" in page.text
        assert ("Any program there can have asked" in page.text) is not address.startswith("https:")
        await browser.press("refuse")
        back = await browser.until_sent_back()
    assert back.startswith(f"{address}{'&' if '?' in address else '?'}error=access_denied")


async def test_a_program_with_a_kind_of_addresses_of_its_own_gets_its_answer_there(hosted: Served) -> None:
    address = "cursor://anysphere.cursor-mcp/oauth/callback"
    client = HandClient(hosted.url)
    client.register(redirect_uris=[address])
    back = await agree(client.asking(redirect_uri=address))
    assert back.startswith(f"{address}?code=")
    assert client.exchange(back, redirect_uri=address).status_code == 200


@pytest.mark.parametrize(
    "registered", ["http://localhost/callback", "http://127.0.0.1:3118/callback", "http://[::1]/callback"]
)
async def test_a_program_on_the_persons_machine_listens_at_whichever_port_is_free(
    hosted: Served, registered: str
) -> None:
    """As VS Code and Claude Code do, whose port is another one each time (RFC 8252, 7.3)."""
    client = HandClient(hosted.url)
    client.register(redirect_uris=[registered, "https://app.example.net/callback", "cursor://here:1/callback"])
    here = urlsplit(registered)._replace(netloc=f"{urlsplit(registered).netloc.removesuffix(':3118')}:50123").geturl()
    async with Browser() as browser:
        await browser.open(client.asking(redirect_uri=here))
        await browser.press("refuse")
        assert (await browser.until_sent_back()).startswith(f"{here}?error=")
    for elsewhere in (
        f"{here}/more", f"{here}?x=1", here.replace("http:", "https:"),
        here.replace(":50123", ".evil.example.com:50123"),
        here.replace("//", "//u@"), "http://10.0.0.7:50123/callback", "https://app.example.net:8443/callback", "cursor://here:2/callback",
        "http://127.0.0.2:50123/callback",
    ):  # fmt: skip
        answer = httpx2.get(client.asking(redirect_uri=elsewhere), trust_env=False)
        assert (answer.status_code, "Location" in answer.headers) == (400, False), elsewhere


def test_what_a_client_registers_is_bounded(hosted: Served) -> None:
    for addresses in (["https://claude.ai/callback"], ["http://localhost:5/x", "http://[::1]/", "http://127.0.0.1:5"]):
        assert HandClient(hosted.url).register(redirect_uris=addresses).status_code == 201
    assert HandClient(hosted.url).register(redirect_uris=[f"https://a.b/{n}" for n in range(21)]).status_code == 400
    assert HandClient(hosted.url).register(client_name="x" * 20_000).status_code == 413
    answer = HandClient(hosted.url).register(client_name="x" * 900, software_id="y" * 900)
    assert len(answer.json()["client_name"]) == 60


def test_what_a_client_leaves_out_when_it_registers_is_as_the_standard_has_it(hosted: Served) -> None:
    said = {"redirect_uris": ["https://claude.ai/callback"], "client_name": ""}
    answer = httpx2.post(f"{hosted.url}/register", json=said, trust_env=False)
    registered = answer.json()
    assert answer.headers["Cache-Control"] == "no-store", "there is a secret in it"
    assert (registered["token_endpoint_auth_method"], registered["application_type"]) == ("client_secret_basic", "web")
    assert "client_name" not in registered
    here = HandClient(hosted.url).register().json()
    assert here["application_type"] == "native"
    for body in (b"", b"[]", b"{", b"[" * 9000):
        answer = httpx2.post(f"{hosted.url}/register", content=body, trust_env=False)
        assert answer.json()["error"] == "invalid_client_metadata"
        assert answer.json()["error_description"] == "A client registers with a JSON object."


@pytest.mark.parametrize(
    "address",
    [
        "https://CLAUDE.ai/callback",
        "https://claude.ai:443/callback",
        "https://claude.ai/x/../callback",
    ],
)
async def test_addresses_to_be_sent_back_to_are_compared_as_they_are_written(hosted: Served, address: str) -> None:
    client = HandClient(hosted.url)
    answer = client.register(redirect_uris=[address])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")
    client.register(redirect_uris=["https://claude.ai/callback", "https://claude.ai/"])
    answer = httpx2.get(client.asking(redirect_uri=address), trust_env=False)
    assert (answer.status_code, "Location" in answer.headers) == (400, False)


def test_a_person_who_is_sent_here_in_vain_sees_a_page(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    for change, says in (
        ({"client_id": "00000000-0000-0000-0000-000000000000"}, "add it again, which makes it known anew"),
        ({"redirect_uri": "https://evil.example.com/"}, "an address (redirect_uri) that it did not name"),
    ):
        answer = httpx2.get(client.asking(**change), headers={"Accept": "text/html"}, trust_env=False)
        assert (answer.status_code, "You were not logged in" in answer.text) == (400, True)
        assert says in answer.text
        assert "evil" not in answer.text


def test_of_too_many_clients_the_oldest_without_a_login_goes(hosted: Served, home: Path) -> None:
    HandClient(hosted.url).register()
    change(
        home,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO login_clients "
        "SELECT 'made-up-' || i, registration, NULL, '2020-01-01 00:00:00', until FROM n, "
        "(SELECT * FROM login_clients WHERE id NOT IN (SELECT client_id FROM grants) LIMIT 1)",
    )
    client = HandClient(hosted.url)
    assert client.register().status_code == 201
    assert httpx2.get(client.asking(), trust_env=False).status_code == 302
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        made_up = "SELECT count(*) FROM login_clients WHERE id LIKE 'made-up-%'"
        assert connection.execute(made_up).fetchone() == (9999,)
    change(home, "DELETE FROM login_clients WHERE id LIKE 'made-up-%'")


def test_one_address_registers_so_many_clients_a_minute(lium: Simulated, tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path, "--port", str(port), **at_lium(lium, tmp_path, port)) as served:
        begun, registered = time.monotonic(), 0
        while (answer := HandClient(served.url).register()).status_code == 201:
            registered += 1
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"
        assert 60 <= registered <= 61 + time.monotonic() - begun, "one more comes each second"


# Asking


def test_nobody_is_sent_to_where_the_client_was_not_registered(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    for change in (
        {"redirect_uri": "https://evil.example.com/"},
        {"redirect_uri": f"{REDIRECT}/more"},
        {"client_id": "00000000-0000-0000-0000-000000000000"},
        {"redirect_uri": "https://evil.example.com/", "response_type": "token"},
    ):
        answer = httpx2.get(client.asking(**change), trust_env=False)
        assert answer.status_code == 400
        assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"resource": "https://another.example.com/mcp"}, "invalid_target"),
        ({"resource": "http://127.0.0.1:1/mcp"}, "invalid_target"),
        ({"resource": "[::"}, "invalid_target"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": ""}, "invalid_request"),
        ({"code_challenge": "abc"}, "invalid_request"),
        ({"code_challenge": "x" * 42 + "="}, "invalid_request"),
        ({"request": "x.y.z"}, "request_not_supported"),
        ({"request_uri": "https://x.example/"}, "request_uri_not_supported"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"state": "x" * 4001}, "invalid_request"),
    ],
)
def test_a_client_that_asks_for_what_there_is_not_hears_so(hosted: Served, change: dict[str, str], error: str) -> None:
    client = HandClient(hosted.url)
    client.register()
    answer = httpx2.get(client.asking(**change), trust_env=False)
    assert answer.headers["Location"].startswith(f"{REDIRECT}?")
    said = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert (said["error"], said["iss"]) == ([error], [hosted.url])


@pytest.mark.parametrize(
    "change", [{"response_type": "token"}, {"resource": "https://x.example/"}, {"code_challenge": ""}]
)
def test_nobody_is_sent_to_a_site_by_our_address_alone(hosted: Served, change: dict[str, str]) -> None:
    """Anybody can register a site, and then give people an address of ours that would lead there."""
    client = HandClient(hosted.url)
    site = "https://evil.example.com/'onload=x?y=1&z=2"
    client.register(redirect_uris=[site])
    answer = httpx2.get(client.asking(redirect_uri=site, state='"><b>', **change), trust_env=False)
    assert (answer.status_code, "Location" in answer.headers) == (400, False)
    assert "You were not logged in" in answer.text
    assert "Back to evil.example.com" in answer.text
    assert 'http-equiv="refresh"' not in answer.text
    [link] = re.findall('<a href="([^"]*)"', answer.text)
    assert unescape(link).startswith(f"{site.replace(chr(39), '%27')}&error=")
    assert "<b>" not in answer.text


def test_a_client_may_write_our_address_a_little_differently_or_leave_it_out(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    for resource in ("", f"{hosted.url}/mcp/", f"{hosted.url.replace('http', 'HTTP')}/mcp"):
        answer = httpx2.get(client.asking(resource=resource), trust_env=False)
        assert answer.headers["Location"].startswith(f"{hosted.url}/login/"), resource


def test_what_is_asked_twice_is_refused_since_nobody_knows_which_counts(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    for more, error in (
        ({"resource": "https://another.example.com/mcp"}, "invalid_target"),
        ({"resource": f"{hosted.url}/mcp"}, "invalid_target"),
        ({"redirect_uri": "https://evil.example.com/"}, "invalid_request"),
        ({"client_id": client.client_id}, "invalid_request"),
    ):
        answer = httpx2.get(f"{client.asking()}&{urlencode(more)}", trust_env=False)
        assert (answer.status_code, answer.json()["error"]) == (400, error)
        said = [("grant_type", "refresh_token"), ("client_id", client.client_id), ("refresh_token", "x")]
        said += [("resource", f"{hosted.url}/mcp"), ("redirect_uri", REDIRECT), *more.items()]
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = httpx2.post(f"{hosted.url}/token", content=urlencode(said), headers=form, trust_env=False)
        assert (answer.status_code, answer.json()["error"]) == (400, error)


# The pages


async def test_the_page_says_who_asks_and_escapes_it(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register(client_name=HOSTILE, redirect_uris=["https://claude.example.com/callback"])
    async with Browser() as browser:
        page = await browser.open(client.asking(redirect_uri="https://claude.example.com/callback"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt; Claude &quot;&#x27;&amp;" in page.text
    assert "<script" not in page.text
    assert "\u202e" not in page.text
    assert "<strong>claude.example.com</strong>" in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert f"Path={page.url.path}" in cookie


async def test_nothing_goes_on_without_a_click_on_that_very_page(hosted: Served, lium: Simulated) -> None:
    client = HandClient(hosted.url)
    client.register()
    begun = len(lium.state()["logins"])
    async with Browser() as browser, Browser() as other:
        await browser.open(client.asking())
        address = str(browser.page.url)
        assert (await browser.press("agree", form="0" * 64)).status_code == 403
        assert (await browser.press("agree", form="")).status_code == 403
        forged = await other.http.post(address, data={"answer": "agree", "form": "0" * 64})
        assert forged.status_code == 403
        elsewhere = {"Origin": "https://evil.example.com"}
        assert (await browser.http.post(address, data={"answer": "agree"}, headers=elsewhere)).status_code == 403
        assert len(lium.state()["logins"]) == begun
        await browser.open(address)
        assert 'target="_blank"' in (await browser.press("agree")).text
        assert len(lium.state()["logins"]) == begun + 1
        assert (await other.open(address)).status_code == 403, "the login goes on in the browser that began it"
        assert (await browser.press("agree")).status_code == 403, "and is begun once"
        assert (await other.open(f"{hosted.url}/login/{'x' * 43}")).status_code == 404


async def test_who_cancels_is_sent_back_and_lium_hears_nothing(hosted: Served, lium: Simulated) -> None:
    client = HandClient(hosted.url)
    client.register()
    begun = len(lium.state()["logins"])
    async with Browser() as browser:
        await browser.open(client.asking())
        await browser.press("refuse")
        back = parse_qs(urlsplit(await browser.until_sent_back()).query)
    assert back == {
        "error": ["access_denied"],
        "error_description": ["The person did not agree."],
        "state": [client.state],
        "iss": [hosted.url],
    }
    assert len(lium.state()["logins"]) == begun


async def test_who_refuses_at_lium_is_sent_back_without_a_code(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    async with Browser() as browser:
        await browser.open(client.asking())
        await browser.press("agree")
        await browser.agree_at_lium("refuse")
        back = parse_qs(urlsplit(await browser.until_sent_back()).query)
    assert back["error"] == ["access_denied"]
    assert "code" not in back


async def test_a_login_page_gives_one_code(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    async with Browser() as browser:
        await browser.open(client.asking())
        await browser.press("agree")
        address = str(browser.page.url)
        await browser.agree_at_lium()
        back = await browser.until_sent_back()
        assert "You are logged in" in (await browser.open(address)).text
    assert parse_qs(urlsplit(back).query)["state"] == [client.state]
    assert client.exchange(back).status_code == 200


# Codes and tokens


async def test_a_code_is_for_its_client_its_verifier_and_its_address(hosted: Served, home: Path) -> None:
    client, other = HandClient(hosted.url), HandClient(hosted.url)
    client.register(token_endpoint_auth_method="client_secret_post")
    other.register()
    other.verifier = client.verifier
    back = await agree(client.asking())
    secret = client.form
    for answer, status, error in (
        (client.exchange(back, code_verifier="x" * 43), 400, "invalid_grant"),
        (client.exchange(back, redirect_uri=f"{REDIRECT}/more"), 400, "invalid_grant"),
        (client.exchange(back, redirect_uri=REDIRECT.replace("/callback", "/x/../callback")), 400, "invalid_grant"),
        (client.exchange(back, code_verifier="abc"), 400, "invalid_grant"),
        (client.exchange(back, code_verifier=""), 400, "invalid_request"),
        (client.exchange(back, client_secret="guessed"), 401, "invalid_client"),
        (other.exchange(back), 400, "invalid_grant"),
        (client.token(grant_type="password", username="x", password="y"), 400, "unsupported_grant_type"),
        (client.token(grant_type="client_credentials"), 400, "unsupported_grant_type"),
        (client.token(), 400, "invalid_request"),
        (client.token(grant_type="refresh_token"), 400, "invalid_request"),
    ):
        assert "Input" not in answer.text
        assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert secret["client_secret"].encode() not in kept_in(home)
    tokens = client.exchange(back)
    assert tokens.status_code == 200
    assert tokens.headers["Cache-Control"] == "no-store"
    assert post(hosted.url, tokens.json()["access_token"]) == 200
    assert post(hosted.url, tokens.json()["refresh_token"]) == 401, "it is for the token endpoint alone"


async def test_tokens_are_for_this_server_alone(hosted: Served, lium: Simulated, home: Path) -> None:
    client = HandClient(hosted.url)
    client.register()
    back = await agree(client.asking())
    elsewhere = {"resource": "https://another.example.com/mcp"}
    assert client.exchange(back, **elsewhere).json()["error"] == "invalid_target"
    tokens = client.exchange(back, resource=f"{hosted.url}/mcp").json()
    refused = client.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"], **elsewhere)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_target")
    port = free_port()
    with serving(home / "next", "--port", str(port), **at_lium(lium, home, port)) as next_door:
        assert post(next_door.url, tokens["access_token"]) == 401, "it shares the ledger, and has another address"
        client.url = next_door.url
        assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert post(hosted.url, tokens["access_token"]) == 200
    client.url = hosted.url
    assert client.refresh(tokens["refresh_token"]).status_code == 200


async def test_a_client_may_ask_for_any_scope_since_there_are_none(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register(scope="offline_access mcp:tools")
    tokens = client.exchange(await agree(client.asking(scope="openid offline_access")), scope="openid").json()
    renewed = client.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"], scope="offline_access")
    assert renewed.status_code == 200


async def test_a_client_with_a_secret_may_name_itself_in_the_header_alone(hosted: Served) -> None:
    """As RFC 6749 has it, and Go's library does; the SDK wants the id in the form too."""
    client = HandClient(hosted.url)
    secret = client.register(token_endpoint_auth_method="client_secret_basic").json()["client_secret"]
    back = await agree(client.asking())
    said = {
        "grant_type": "authorization_code",
        "code": parse_qs(urlsplit(back).query)["code"][0],
        "redirect_uri": REDIRECT,
        "code_verifier": client.verifier,
    }
    for password, status in (("guessed", 401), (secret, 200)):
        basic = (client.client_id, password)
        answer = httpx2.post(f"{hosted.url}/token", data=said, auth=basic, trust_env=False)
        assert answer.status_code == status
        assert answer.headers.get("WWW-Authenticate", "").startswith("Basic ") == (status == 401)
    ended = httpx2.post(
        f"{hosted.url}/revoke", data={"token": "x"}, auth=(client.client_id, "guessed"), trust_env=False
    )
    assert (ended.status_code, ended.headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
    garbled = {b"Authorization": "Basic é==".encode("latin-1")}
    assert httpx2.post(f"{hosted.url}/token", data=said, headers=garbled, trust_env=False).status_code == 401


async def test_a_code_that_is_used_again_ends_the_login(hosted: Served) -> None:
    client = HandClient(hosted.url)
    client.register()
    back = await agree(client.asking())
    tokens = client.exchange(back).json()
    assert post(hosted.url, tokens["access_token"]) == 200
    assert client.exchange(back).json()["error"] == "invalid_grant"
    assert post(hosted.url, tokens["access_token"]) == 401
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    hosted.says("was used again")


async def test_a_refresh_token_that_comes_again_at_once_is_of_a_client_whose_answer_was_lost(hosted: Served) -> None:
    client, other = HandClient(hosted.url), HandClient(hosted.url)
    first = await client.log_in()
    lost, second = (client.refresh(first["refresh_token"]).json() for _ in range(2))
    assert len({tokens["refresh_token"] for tokens in (first, lost, second)}) == 3
    assert {post(hosted.url, tokens["access_token"]) for tokens in (first, lost, second)} == {200}
    other.register()
    assert other.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    third = client.refresh(second["refresh_token"]).json()
    assert post(hosted.url, third["access_token"]) == 200


async def test_two_programs_of_a_person_may_renew_a_login_at_once(hosted: Served) -> None:
    client = HandClient(hosted.url)
    token = (await client.log_in())["refresh_token"]
    with ThreadPoolExecutor(4) as programs:
        answers = list(programs.map(client.refresh, [token] * 4))
    assert {answer.status_code for answer in answers} == {200}
    assert {post(hosted.url, answer.json()["access_token"]) for answer in answers} == {200}


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_refresh_token_that_comes_again_later_ends_the_login(hosted: Served, home: Path, is_late: bool) -> None:
    client = HandClient(hosted.url)
    first = await client.log_in()
    second = client.refresh(first["refresh_token"]).json()
    given = [first, second]
    if is_late:
        change(home, "UPDATE grant_tokens SET used_at = datetime(used_at, '-61 seconds') WHERE kind = 'refresh'")
    else:
        given.append(client.refresh(second["refresh_token"]).json())
    assert client.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    for tokens in given:
        assert post(hosted.url, tokens["access_token"]) == 401
    assert client.refresh(given[-1]["refresh_token"]).json()["error"] == "invalid_grant"
    hosted.says("A refresh was used again")


async def test_of_what_a_client_asked_for_nothing_stays_once_its_login_is_over(hosted: Served, home: Path) -> None:
    client = HandClient(hosted.url)
    client.state = secrets.token_hex(20)
    await client.log_in()
    with closing(sqlite3.connect(home / "ledger.db")) as connection:
        kept = [
            *connection.execute("SELECT request FROM logins"),
            *connection.execute("SELECT terms FROM grant_tokens"),
        ]
    challenge = parse_qs(urlsplit(client.asking()).query)["code_challenge"][0]
    assert not [row for row in kept if client.state in row[0] or challenge in row[0]]


async def test_what_has_expired_counts_no_more(hosted: Served, home: Path) -> None:
    client = HandClient(hosted.url)
    tokens = await client.log_in()
    change(home, "UPDATE grant_tokens SET until = '2020-01-01 00:00:00' WHERE kind = 'access'")
    assert post(hosted.url, tokens["access_token"]) == 401
    renewed = client.refresh(tokens["refresh_token"]).json()
    assert post(hosted.url, renewed["access_token"]) == 200
    change(home, "UPDATE grant_tokens SET until = '2020-01-01 00:00:00' WHERE kind = 'refresh'")
    assert client.refresh(renewed["refresh_token"]).json()["error"] == "invalid_grant"
    change(home, "UPDATE login_clients SET until = '2020-01-01 00:00:00'")
    assert client.refresh(renewed["refresh_token"]).status_code == 401


async def test_a_client_ends_its_own_login_and_no_other(hosted: Served) -> None:
    client, other = HandClient(hosted.url), HandClient(hosted.url)
    tokens = await client.log_in()
    other.register()
    for token in (tokens["access_token"], tokens["refresh_token"], "lmt_unknown"):
        said = {"client_id": other.client_id, "token": token}
        assert httpx2.post(f"{hosted.url}/revoke", data=said, trust_env=False).status_code == 200
    assert post(hosted.url, tokens["access_token"]) == 200
    said = {"client_id": client.client_id, "token": tokens["refresh_token"]}
    assert httpx2.post(f"{hosted.url}/revoke", data=said, trust_env=False).status_code == 200
    assert post(hosted.url, tokens["access_token"]) == 401
    assert httpx2.post(f"{hosted.url}/revoke", data={"token": "x"}, trust_env=False).status_code == 401
    nothing = httpx2.post(f"{hosted.url}/revoke", data={"client_id": client.client_id}, trust_env=False)
    assert (nothing.status_code, nothing.json()["error"]) == (400, "invalid_request")


async def test_a_session_belongs_to_the_account_and_not_to_the_token(hosted: Served) -> None:
    client = HandClient(hosted.url)
    tokens = await client.log_in()

    def say(headers: dict[str, str], message: dict[str, Any]) -> httpx2.Response:
        return httpx2.post(f"{hosted.url}/mcp", json=message, headers=MCP | headers, timeout=60, trust_env=False)

    opened = say({"Authorization": f"Bearer {tokens['access_token']}"}, initialize())
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
    renewed = client.refresh(tokens["refresh_token"]).json()
    noted = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert say(session | {"Authorization": f"Bearer {renewed['access_token']}"}, noted).status_code == 202
    assert say(session | {"X-API-Key": API_KEY}, noted).status_code == 404
    assert say(session, noted).status_code == 401


# The operator


async def test_the_operator_sees_who_has_logged_in_and_ends_it(hosted: Served, home: Path) -> None:
    ledger = f"sqlite:///{home / 'ledger.db'}"
    client = HandClient(hosted.url)
    client.register(client_name="Claude at work")
    tokens = client.exchange(await agree(client.asking())).json()
    status, out, _ = await run("grants", LIUM_MCP_STATE_URL=ledger, LIUM_MCP_OAUTH_KEYS=KEY)
    assert status == 0
    [row] = [line for line in out.splitlines() if "Claude at work" in line]
    assert "Sandbox <sandbox@example.com>, workspace Personal" in row
    grant = row.split()[0]
    status, out, _ = await run("grants", LIUM_MCP_STATE_URL=ledger)
    assert "sandbox@example.com" not in out, "without the key nobody reads who it is"
    assert "LIUM_MCP_OAUTH_KEYS" in out
    assert (await run("grants", "revoke", "nothing", LIUM_MCP_STATE_URL=ledger))[0] == 1
    assert post(hosted.url, tokens["access_token"]) == 200
    status, out, _ = await run("grants", "revoke", grant, LIUM_MCP_STATE_URL=ledger)
    assert (status, "lium.io/api-keys" in out) == (0, True)
    assert post(hosted.url, tokens["access_token"]) == 401
    assert client.refresh(tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert grant not in (await run("grants", LIUM_MCP_STATE_URL=ledger))[1]


async def test_whose_a_login_is_that_lium_did_not_tell_then_is_asked_again_when_it_is_renewed(
    hosted: Served, lium: Simulated, home: Path
) -> None:
    client = HandClient(hosted.url)
    client.register(client_name="Told later")
    lium.fault("error", status=500, times=None, lasting_seconds=3600, match={"method": "GET", "path": "/users/me"})
    tokens = client.exchange(await agree(client.asking())).json()
    operator = {"LIUM_MCP_STATE_URL": f"sqlite:///{home / 'ledger.db'}", "LIUM_MCP_OAUTH_KEYS": KEY}

    async def row() -> str:
        return next(line for line in (await run("grants", **operator))[1].splitlines() if "Told later" in line)

    assert "an account that Lium did not tell" in await row()
    lium.calm()
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    assert "Sandbox <sandbox@example.com>, workspace Personal" in await row()


async def test_nobody_is_logged_in_where_there_is_no_ledger(tmp_path: Path) -> None:
    status, out, _ = await run("grants", LIUM_MCP_STATE_URL=f"sqlite:///{tmp_path / 'none.db'}")
    assert (status, out) == (0, "Nobody is logged in.\n")


async def test_keys_that_encrypt_are_changed_without_logging_anybody_out(lium: Simulated, tmp_path: Path) -> None:
    port = free_port()

    def with_keys(*keys: str) -> dict[str, Any]:
        return at_lium(lium, tmp_path, port, LIUM_MCP_OAUTH_KEYS=",".join(keys))

    options = "--port", str(port)
    with serving(tmp_path, *options, **with_keys(KEY)) as served:
        client, forgetful = HandClient(served.url), HandClient(served.url)
        tokens, unrenewed = await client.log_in(), await forgetful.log_in()
    with serving(tmp_path, *options, **with_keys(NEWER_KEY, KEY)) as served:
        assert post(served.url, tokens["access_token"]) == 200
        tokens = client.refresh(tokens["refresh_token"]).json()
    with serving(tmp_path, *options, **with_keys(NEWER_KEY)) as served:
        assert post(served.url, tokens["access_token"]) == 200, "what was renewed is sealed with the newer key"
        assert post(served.url, unrenewed["access_token"]) == 401
        assert forgetful.refresh(unrenewed["refresh_token"]).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"LIUM_MCP_OAUTH_KEYS": None}, "openssl rand -base64 32"),
        ({"LIUM_MCP_SANDBOX": "true"}, "run `lium-mcp sandbox`"),
        ({"LIUM_MCP_OAUTH_HOOK": "house:find"}, "for an authorization server of your own"),
    ],
)
async def test_what_does_not_fit_stops_the_start(
    lium: Simulated, tmp_path: Path, change: dict[str, str | None], problem: str
) -> None:
    settings = at_lium(lium, tmp_path, 8000, LIUM_MCP_TRANSPORT="http") | change
    status, _, said = await run("serve", **{name: text for name, text in settings.items() if text is not None})
    assert (status, problem in said) == (2, True), said


# Replicas


async def log_in_across(lium: Simulated, home: Path, ledger: str) -> None:
    """Log in with every request at the other of two servers, and end it at one for both."""
    port = free_port()
    settings = at_lium(lium, home, port, LIUM_MCP_STATE_URL=ledger)
    with ExitStack() as running:
        one = running.enter_context(serving(home / "one", "--port", str(port), **settings))
        two = running.enter_context(serving(home / "two", "--port", str(free_port()), **settings))

        def there(address: httpx2.URL | str) -> str:
            return str(address).replace(one.url, two.url)

        client = HandClient(one.url)
        client.register()
        async with Browser() as browser:
            await browser.open(there(client.asking()))
            assert str(browser.page.url).startswith(one.url), "the address is the public one"
            # Cookies are for a host, whatever its port.
            await browser.open(there(browser.page.url))
            await browser.press("agree")
            await browser.agree_at_lium()
            browser.page = await browser.http.get(str(browser.page.url).replace(two.url, one.url))
            back = await browser.until_sent_back()
        client.url = two.url
        tokens = client.exchange(back).json()
        assert {post(served.url, tokens["access_token"]) for served in (one, two)} == {200}
        used = tokens["refresh_token"]
        for served in (one, two):  # whose answers were lost
            client.url = served.url
            assert client.refresh(used).status_code == 200
        client.url = one.url
        tokens = client.refresh(used).json()
        assert post(two.url, tokens["access_token"]) == 200
        said = {"client_id": client.client_id, "token": tokens["access_token"]}
        assert httpx2.post(f"{one.url}/revoke", data=said, trust_env=False).status_code == 200
        assert {post(served.url, tokens["access_token"]) for served in (one, two)} == {401}


async def test_every_request_of_a_login_may_come_to_another_server(lium: Simulated, tmp_path: Path) -> None:
    await log_in_across(lium, tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")


async def test_the_same_on_postgresql(lium: Simulated, tmp_path: Path, postgres: Postgres) -> None:
    with postgres.database() as ledger:
        await log_in_across(lium, tmp_path, ledger)


async def test_below_a_path_everything_is_found(lium: Simulated, tmp_path: Path) -> None:
    port = free_port()
    settings = at_lium(lium, tmp_path, port) | {
        "LIUM_MCP_PUBLIC_URL": f"http://127.0.0.1:{port}/lium",
        "LIUM_MCP_PATH_PREFIX": "/lium",
        "LIUM_MCP_ALLOWED_HOST": "127.0.0.1",
    }
    with serving(tmp_path, "--port", str(port), **settings) as served:
        kept = Kept()
        async with logging_in(f"{served.url}/lium", kept, agree) as caller:
            assert (await caller.call("get_balance"))["balance_usd"] > 0
        for path in ("/.well-known/oauth-authorization-server/lium", "/lium/.well-known/openid-configuration"):
            assert httpx2.get(f"{served.url}{path}", trust_env=False).json()["issuer"] == f"{served.url}/lium"
