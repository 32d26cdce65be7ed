"""Callers who log in at an authorization server of the deployment's own: a real server, real tokens, and bad ones."""

import base64
import hmac
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyUrl

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY
from tests.authorization_server import CLIENT_ID, AuthorizationServer, authorizing
from tests.compat.simulated import Simulated, simulating
from tests.http_server import WAYS, Served, Way, calling, initialize, serving, tool_call
from tests.oauth_client import REDIRECT, Kept, logging_in
from tests.ports import free_port
from tests.processes import run

HOOK: Final = f"""
import asyncio

KEYS = {{"jane": "{API_KEY}", "omar": "{OTHER_API_KEY}", "blank": "not a key", "number": 42}}

async def key_for(claims):
    if claims["sub"] == "slow":
        await asyncio.sleep(60)
    if claims["sub"] == "faulty":
        raise RuntimeError("the password of the vault is hunter2")
    return KEYS.get(claims["sub"])

def not_async(claims):
    return None
"""
MCP: Final = {"Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(start=datetime.now(UTC).replace(microsecond=0))
        yield simulated


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorizing() as server:
        yield server


@pytest.fixture(scope="module")
def hosted(lium: Simulated, issuer: AuthorizationServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for those who log in at the issuer."""
    home = tmp_path_factory.mktemp("hosted")
    (home / "house.py").write_text(HOOK)
    port = str(free_port())
    with serving(
        home,
        *("--port", port, "--oauth", issuer.url, "--oauth-hook", "house:key_for", "--oauth-scopes", "gpu"),
        *("--public-url", f"http://127.0.0.1:{port}"),
        PYTHONPATH=str(home),
        LIUM_BASE_URL=lium.base_url,
        LIUM_MCP_LOG_LEVEL="DEBUG",
    ) as served:
        yield served


def known_client() -> Kept:
    return Kept(
        OAuthClientInformationFull(
            client_id=CLIENT_ID, redirect_uris=[AnyUrl(REDIRECT)], token_endpoint_auth_method="none"
        )
    )


async def follow(address: str) -> str:
    """Be sent on, once, and say where to."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        return (await http.get(address)).headers["Location"]


def post(url: str, token: str | None = None, path: str = "/mcp", **headers: str) -> httpx2.Response:
    sent = MCP | ({"Authorization": f"Bearer {token}"} if token is not None else {}) | headers
    return httpx2.post(f"{url}{path}", json=initialize(), headers=sent, timeout=60, trust_env=False)


def signed(issuer: AuthorizationServer, served: Served, **claims: Any) -> str:
    return issuer.token(**{"aud": f"{served.url}/mcp", "scope": "gpu"} | claims)


async def test_who_is_refused_logs_in_at_the_issuer_and_acts_with_the_key_that_the_hook_finds(
    hosted: Served, issuer: AuthorizationServer
) -> None:
    kept = known_client()
    async with logging_in(hosted.url, kept, follow) as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100
    assert kept.sent_to[0].startswith(f"{issuer.url}/login?")
    assert kept.tokens is not None
    log = hosted.stderr()
    assert not any(secret in log for secret in (kept.tokens.access_token, API_KEY, "hunter2"))


@pytest.mark.parametrize("way", WAYS)
async def test_callers_with_keys_of_their_own_need_no_login(hosted: Served, way: Way) -> None:
    for headers in ({"X-API-Key": API_KEY}, {"Authorization": f"Bearer {API_KEY}"}):
        async with calling(hosted.url, way, headers) as caller:
            assert (await caller.call("get_balance"))["balance_usd"] == 100


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/mcp"), ("GET", "/mcp"), ("GET", "/sse"), ("POST", "/messages/")]
)
def test_who_shows_nothing_is_told_where_to_log_in(hosted: Served, method: str, path: str) -> None:
    answer = httpx2.request(method, f"{hosted.url}{path}", headers=MCP, timeout=60, trust_env=False)
    assert answer.status_code == 401
    told = answer.headers["WWW-Authenticate"]
    assert told.startswith("Bearer ")
    assert "error" not in told, "nothing was wrong with what was not sent"
    assert 'scope="gpu"' in told
    [metadata] = re.findall(r'resource_metadata="([^"]+)"', told)
    said = httpx2.get(metadata, trust_env=False).json()
    assert said["resource"] == f"{hosted.url}/mcp"


def test_the_metadata_is_where_clients_look_for_it(hosted: Served, issuer: AuthorizationServer) -> None:
    for path in ("", "/mcp"):
        answer = httpx2.get(f"{hosted.url}/.well-known/oauth-protected-resource{path}", trust_env=False)
        assert answer.json()["authorization_servers"] == [issuer.url]
        assert answer.json()["scopes_supported"] == ["gpu"]
    assert httpx2.get(f"{hosted.url}/.well-known/oauth-authorization-server", trust_env=False).status_code == 404
    assert httpx2.get(f"{hosted.url}/healthz", trust_env=False).status_code == 200


def test_tokens_by_each_published_key_count(hosted: Served, issuer: AuthorizationServer) -> None:
    assert post(hosted.url, signed(issuer, hosted)).status_code == 200
    assert post(hosted.url, signed(issuer, hosted, of="ec")).status_code == 200
    assert post(hosted.url, signed(issuer, hosted, alg="PS256")).status_code == 200
    for of in ("rsa", "ec"):
        assert post(hosted.url, signed(issuer, hosted, of=of, kid="")).is_success, "one key is of its algorithm"
    assert post(hosted.url, signed(issuer, hosted, aud=["x", f"{hosted.url}/mcp"], scope=None, scp=["gpu"])).is_success


@pytest.mark.parametrize(
    ("claims", "because"),
    [
        ({"aud": "https://another.example.com/mcp"}, "not for this server"),
        ({"aud": None}, "lacks the claim aud"),
        ({"iss": "https://evil.example.com"}, "another issuer"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks the claim exp"),
        ({"sub": None}, "lacks the claim sub"),
        ({"sub": " "}, "sub of the token is empty"),
        ({"exp": str(2**33)}, "exp of the token is no number"),
        ({"cnf": {"jkt": "x"}}, "bound to a proof"),
        ({"cnf": {"x5t#S256": "x"}}, "bound to a proof"),
        ({"header": {"typ": "dpop+jwt"}}, "not signed in a way that this server takes"),
        ({"nbf": 2**33}, "not valid"),
        ({"of": "stranger"}, "not valid"),
        ({"of": "stranger", "kid": "unknown"}, "not signed by"),
    ],
)
def test_a_token_that_is_not_for_us_is_refused(
    hosted: Served, issuer: AuthorizationServer, claims: dict[str, Any], because: str
) -> None:
    answer = post(hosted.url, signed(issuer, hosted, **claims))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert because in answer.json()["error_description"]


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"", *, secret: bytes = b"") -> str:
    """A token by hand: with this signature, or signed with a secret, as no library would do it."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = hmac.digest(secret, b".".join(parts), "sha256") if secret else signature
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def test_a_token_without_a_signature_or_signed_with_what_is_public_is_refused(
    hosted: Served, issuer: AuthorizationServer
) -> None:
    claims = {"iss": issuer.url, "sub": "jane", "aud": f"{hosted.url}/mcp", "exp": 2**33, "scope": "gpu"}
    public = issuer.public_pem()
    secret = base64.urlsafe_b64decode(issuer.published()["keys"][2]["k"] + "=")
    for token in (
        forged({"alg": "none", "kid": "rsa"}, claims),
        forged({"alg": "None", "kid": "rsa"}, claims),
        forged({"alg": "HS256", "kid": "rsa"}, claims, secret=public),
        forged({"alg": "HS256", "kid": "secret"}, claims, secret=secret),
        forged({"alg": "RS256", "kid": "secret"}, claims, b"x"),
        forged({"alg": "ES256", "kid": "rsa"}, claims, b"x" * 64),
        signed(issuer, hosted)[:-4],
        "a.b.c",
        "y" * 9000,
    ):
        answer = post(hosted.url, token)
        assert answer.status_code == 401, token[:40]
        assert "invalid_token" in answer.headers["WWW-Authenticate"]
        assert token not in answer.text + hosted.stderr()


def test_a_token_without_the_scope_may_not_call(hosted: Served, issuer: AuthorizationServer) -> None:
    answer = post(hosted.url, signed(issuer, hosted, scope="mail gpu:read"))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert 'scope="gpu"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("subject", "because"),
    [
        ("nobody", "no Lium key for this login"),
        ("faulty", "could not be found"),
        ("blank", "cannot be one"),
        ("number", "cannot be one"),
    ],
)
async def test_without_a_key_a_login_reads_the_market_and_hears_what_is_missing(
    hosted: Served, issuer: AuthorizationServer, subject: str, because: str
) -> None:
    bearer = {"Authorization": f"Bearer {signed(issuer, hosted, sub=subject)}"}
    async with calling(hosted.url, "modern", bearer) as caller:
        assert (await caller.call("list_gpus"))["total"] > 0
        code, text = await caller.refused("get_balance")
    assert code == "api_key_missing"
    assert because in text
    assert "hunter2" not in text + hosted.stderr()


async def test_a_hook_that_takes_too_long_holds_nobody_up(hosted: Served, issuer: AuthorizationServer) -> None:
    bearer = {"Authorization": f"Bearer {signed(issuer, hosted, sub='slow')}"}
    opened = post(hosted.url, **bearer)
    session = {"Mcp-Session-Id": opened.headers["mcp-session-id"]}
    call = tool_call("get_balance", {}, modern=False)
    answer = httpx2.post(f"{hosted.url}/mcp", json=call, headers=MCP | bearer | session, timeout=30, trust_env=False)
    assert "in time" in answer.text


async def test_a_session_belongs_to_the_person_and_not_to_the_token(
    hosted: Served, issuer: AuthorizationServer
) -> None:
    session = {"Mcp-Session-Id": post(hosted.url, signed(issuer, hosted)).headers["mcp-session-id"]}
    said = {"jsonrpc": "2.0", "method": "notifications/initialized"}

    def say(**claims: Any) -> int:
        headers = MCP | session | {"Authorization": f"Bearer {signed(issuer, hosted, **claims)}"}
        return httpx2.post(f"{hosted.url}/mcp", json=said, headers=headers, trust_env=False).status_code

    assert say(jti="another token") == 202
    assert say(sub="omar") == 404


def test_made_up_key_ids_do_not_make_this_server_ask_the_issuer_each_time(
    hosted: Served, issuer: AuthorizationServer
) -> None:
    post(hosted.url, signed(issuer, hosted))
    issuer.asked.clear()
    begun = time.monotonic()
    for number in range(5):
        assert post(hosted.url, signed(issuer, hosted, kid=f"made-up-{number}")).status_code == 401
    assert len(issuer.asked) <= 2 * (1 + (time.monotonic() - begun) // 5)


def test_a_key_that_the_issuer_changes_to_counts_within_seconds(hosted: Served, issuer: AuthorizationServer) -> None:
    newer = {"of": "stranger", "kid": "newer"}
    assert post(hosted.url, signed(issuer, hosted, **newer)).status_code == 401
    issuer.has_changed_its_key, begun = True, time.monotonic()
    try:
        while post(hosted.url, signed(issuer, hosted, **newer)).status_code == 401:
            assert time.monotonic() - begun < 20
            time.sleep(0.2)
        assert post(hosted.url, signed(issuer, hosted)).is_success
    finally:
        issuer.has_changed_its_key = False


def test_without_the_issuers_keys_nobody_is_sent_to_log_in_again(lium: Simulated, tmp_path: Path) -> None:
    (tmp_path / "house.py").write_text(HOOK)
    for fault in ({"is_silent": True}, {"says_issuer": "https://evil.example.com"}):
        with authorizing() as issuer:
            issuer.__dict__.update(fault)
            port = str(free_port())
            with serving(
                tmp_path,
                *("--port", port, "--oauth", issuer.url, "--oauth-hook", "house:key_for"),
                *("--public-url", f"http://127.0.0.1:{port}"),
                PYTHONPATH=str(tmp_path),
                LIUM_BASE_URL=lium.base_url,
            ) as served:
                answer = post(served.url, signed(issuer, served))
                assert answer.status_code == 503
                assert "Retry-After" in answer.headers


def test_below_a_path_the_metadata_is_found_in_both_places(
    lium: Simulated, issuer: AuthorizationServer, tmp_path: Path
) -> None:
    (tmp_path / "house.py").write_text(HOOK)
    with serving(
        tmp_path,
        *(
            "--path-prefix",
            "/lium",
            "--public-url",
            "https://gpu.example.com/lium",
            "--allowed-host",
            "gpu.example.com",
        ),
        *("--oauth", issuer.url, "--oauth-hook", "house:key_for"),
        PYTHONPATH=str(tmp_path),
        LIUM_BASE_URL=lium.base_url,
    ) as served:
        host = {"Host": "gpu.example.com"}
        answer = post(served.url, path="/lium/mcp", **host)
        below = "https://gpu.example.com/lium/.well-known/oauth-protected-resource/mcp"
        assert f'resource_metadata="{below}"' in answer.headers["WWW-Authenticate"]
        for path in (
            "/.well-known/oauth-protected-resource/lium/mcp",
            "/lium/.well-known/oauth-protected-resource/mcp",
        ):
            said = httpx2.get(f"{served.url}{path}", headers=host, trust_env=False).json()
            assert said["resource"] == "https://gpu.example.com/lium/mcp"
        token = issuer.token(aud="https://gpu.example.com/lium/mcp")
        assert post(served.url, token, path="/lium/mcp", **host).status_code == 200


GOOD: Final = {
    "LIUM_MCP_TRANSPORT": "http",
    "LIUM_MCP_PORT": "0",
    "LIUM_MCP_OAUTH": "https://login.example.com",
    "LIUM_MCP_PUBLIC_URL": "http://127.0.0.1:8000",
    "LIUM_MCP_OAUTH_HOOK": "json:dumps",
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"LIUM_MCP_OAUTH": "http://login.example.com"}, "LIUM_MCP_OAUTH: https is needed"),
        ({"LIUM_MCP_OAUTH": "auth0"}, "LIUM_MCP_OAUTH: lium is needed, or the address"),
        ({"LIUM_MCP_PUBLIC_URL": "gpu.example.com"}, "LIUM_MCP_PUBLIC_URL: an address such as"),
        ({"LIUM_MCP_PUBLIC_URL": "https://gpu.example.com?x=1"}, "LIUM_MCP_PUBLIC_URL: an address such as"),
        ({"LIUM_MCP_PUBLIC_URL": "https://gpu.example.com"}, "LIUM_MCP_ALLOWED_HOST"),
        ({"LIUM_MCP_PUBLIC_URL": "http://127.0.0.1:8000/lium"}, "LIUM_MCP_PATH_PREFIX"),
        ({"LIUM_MCP_OAUTH_REGISTERED_ONLY": "true"}, "decides which clients it takes"),
        ({"LIUM_MCP_OAUTH_HOOK": "json"}, "as package.module:function"),
        ({"LIUM_MCP_OAUTH_HOOK": "no_such_house:key_for"}, "cannot be imported (ModuleNotFoundError)"),
        ({"LIUM_MCP_OAUTH_HOOK": "json:key_for"}, "LIUM_MCP_OAUTH_HOOK: json has no function key_for"),
        ({}, "has to be a function that is defined with async def"),
        ({"LIUM_MCP_OAUTH_KEYS": "c2hvcnQ="}, "LIUM_MCP_OAUTH_KEYS: each key is 32 random bytes in base64"),
        # Words of 32 letters.
        (
            {"LIUM_MCP_OAUTH_KEYS": "ZXhhbXBsZSBrZXksIG1ha2Ugb25lIG9mIHlvdXIgb3c="},
            "LIUM_MCP_OAUTH_KEYS: each key is 32 random",
        ),
    ],
)
async def test_what_does_not_fit_stops_the_start(change: dict[str, str], problem: str) -> None:
    status, _, said = await run("serve", **GOOD | change)
    assert status == 2
    assert problem in said
    assert "c2hvcnQ" not in said


async def test_all_that_is_missing_is_said_at_once() -> None:
    status, _, said = await run("serve", "--transport", "http", "--oauth", "https://login.example.com")
    assert status == 2
    assert "LIUM_MCP_PUBLIC_URL: it is missing" in said
    assert "LIUM_MCP_OAUTH_HOOK: the function" in said


async def test_what_a_login_lacks_is_said_beside_what_else_is_wrong() -> None:
    wrong = {"LIUM_MCP_PORT": "http", "LIUM_MCP_POLICY": "/no/such/policy.toml", "LIUM_MCP_MAX_POD": "3"}
    status, _, said = await run("serve", "--transport", "http", "--oauth", "lium", **wrong)
    assert status == 2
    for name in (*wrong, "LIUM_MCP_PUBLIC_URL", "LIUM_MCP_OAUTH_KEYS"):
        assert said.count(f"{name}: ") == 1, name


async def test_what_depends_on_a_setting_that_cannot_be_read_is_not_judged() -> None:
    wrong = {"LIUM_MCP_PUBLIC_URL": "gpu", "LIUM_MCP_BUDGET_USD": "much", "LIUM_MCP_BUDGET_SINCE": "2026-11-01"}
    status, _, said = await run("serve", "--transport", "http", "--oauth", "lium", **wrong)
    assert status == 2
    assert [said.count(f"{name}: ") for name in wrong] == [1, 1, 0]
    assert "missing" not in said
