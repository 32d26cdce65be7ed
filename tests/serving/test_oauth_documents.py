"""Clients that nobody registers, since they are called by the address of a document that says what they are."""

import base64
import gzip
import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.client_sites import ADDRESS, SITE, Page, Sites, publishing
from tests.compat.simulated import Simulated, simulating
from tests.http_server import Served, serving_amid
from tests.oauth_client import REDIRECT, Browser, HandClient, Kept, agree, at_lium, logging_in
from tests.ports import free_port
from tests.postgres import Postgres
from tests.processes import run

OTHER_SITE: Final = "other.example.com"
# What a name stands for at the first lookup, at the second, and so on.
NAMES: Final = {
    SITE: [[ADDRESS]],
    OTHER_SITE: [["93.184.215.15"]],
    "inside.example.com": [["10.0.0.7"]],
    "link.example.com": [["169.254.169.254"]],
    "home.example.com": [["127.0.0.1"]],
    "six.example.com": [["::1"]],
    "unique.example.com": [["fd00::5"]],
    "mapped.example.com": [["::ffff:10.0.0.7"]],
    "translated.example.com": [["64:ff9b::a00:7"]],
    "carrier.example.com": [["100.64.0.1"]],
    "nowhere.example.com": [["0.0.0.0"]],  # noqa: S104 - an address that must not be connected to
    "many.example.com": [["224.0.0.1"]],
    "both.example.com": [[ADDRESS, "10.0.0.7"]],
    "rebinding.example.com": [[ADDRESS], ["10.0.0.7"]],
}


@pytest.fixture(scope="module")
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        simulated.begin(start=datetime.now(UTC).replace(microsecond=0))
        yield simulated


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    with publishing(tmp_path_factory.mktemp("sites"), OTHER_SITE, "rebinding.example.com") as sites:
        yield sites


@pytest.fixture(scope="module")
def hosted(lium: Simulated, sites: Sites, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home, port = tmp_path_factory.mktemp("hosted"), free_port()
    settings = at_lium(lium, home, port) | sites.settings()
    with serving_amid(home, NAMES, "--port", str(port), **settings) as served:
        yield served


@pytest.fixture(autouse=True)
def _nothing_published(sites: Sites) -> None:
    sites.pages.clear()
    sites.connected.clear()
    sites.asked.clear()


def ask(hosted: Served, client_id: str, **values: str) -> httpx2.Response:
    return httpx2.get(HandClient(hosted.url, client_id).asking(**values), timeout=60, trust_env=False)


def refusal(answer: httpx2.Response) -> str:
    """What a person reads who was sent by a client that is not taken."""
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client"), answer.text
    assert "Location" not in answer.headers
    return str(answer.json()["error_description"])


async def test_a_client_that_publishes_what_it_is_logs_people_in_without_registering(
    hosted: Served, sites: Sites
) -> None:
    client_id = sites.publish("/whole.json")
    kept = Kept()
    async with logging_in(hosted.url, kept, agree, document=client_id) as caller:
        assert (await caller.call("get_balance"))["balance_usd"] == 100
    assert kept.client is not None
    assert kept.client.client_id == client_id
    assert sites.connected == [f"{ADDRESS}:443"], "it is connected to what the name stood for, and once"
    assert sites.asked == [f"{SITE}/whole.json"]
    assert httpx2.get(f"{hosted.url}/.well-known/oauth-authorization-server", trust_env=False).json()[
        "client_id_metadata_document_supported"
    ]


async def test_it_renews_and_ends_its_login_as_others_do(hosted: Served, sites: Sites) -> None:
    client = HandClient(hosted.url, sites.publish("/renews.json"))
    tokens = client.exchange(await agree(client.asking())).json()
    sites.pages.clear()  # what was said once is not needed again
    renewed = client.refresh(tokens["refresh_token"]).json()
    other = HandClient(hosted.url)
    other.register()
    for ended_by, left in ((other, 200), (client, 401)):
        said = {"client_id": ended_by.client_id, "token": renewed["access_token"]}
        assert httpx2.post(f"{hosted.url}/revoke", data=said, trust_env=False).status_code == 200
        asked = httpx2.post(
            f"{hosted.url}/mcp",
            json={"jsonrpc": "2.0", "id": 1, "method": "ping"},
            headers={"Authorization": f"Bearer {renewed['access_token']}", "Accept": "application/json"},
            trust_env=False,
        )
        assert (asked.status_code == 401) is (left == 401)


async def test_the_page_says_which_site_stands_for_the_name(hosted: Served, sites: Sites) -> None:
    back = "https://app.example.net/callback"
    client_id = sites.publish("/named.json", client_name="<b>Claude</b>", redirect_uris=[back])
    async with Browser() as browser:
        page = await browser.open(HandClient(hosted.url, client_id).asking(redirect_uri=back))
    assert "&lt;b&gt;Claude&lt;/b&gt;" in page.text
    assert f"whoever has <strong>{SITE}</strong> says so too" in page.text
    assert "you are sent to <strong>app.example.net</strong>" in page.text
    assert f"<code>{back}</code>" in page.text


def test_what_it_published_is_read_once_in_ten_minutes(hosted: Served, sites: Sites) -> None:
    client_id = sites.publish("/often.json")
    assert [ask(hosted, client_id).status_code for _ in range(3)] == [302] * 3
    assert len(sites.asked) == 1


def test_what_cannot_be_used_is_asked_for_again(hosted: Served, sites: Sites) -> None:
    client_id = sites.publish("/mended.json", client_id="https://another.example.com/client.json")
    assert "of another client" in refusal(ask(hosted, client_id))
    sites.publish("/mended.json")
    assert ask(hosted, client_id).status_code == 302


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"client_id": f"https://{SITE}:443/x.json"}, "of another client"),
        ({"client_id": None}, "of another client"),
        ({"redirect_uris": None}, "no address in redirect_uris"),
        ({"redirect_uris": "https://a.example.com/"}, "no address in redirect_uris"),
        ({"redirect_uris": [5, "http://evil.example.com/", "javascript:alert(1)"]}, "no address in redirect_uris"),
        ({"token_endpoint_auth_method": "client_secret_post"}, "`none` is needed"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "`none` is needed"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": f"http://{SITE}/keys"}, "`none` is needed"),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": 5, "jwks": "keys"}, "`none` is needed"),
    ],
)
def test_a_document_that_says_too_little_is_refused(
    hosted: Served, sites: Sites, said: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(ask(hosted, sites.publish("/x.json", **said)))


async def test_a_client_that_can_also_do_without_a_proof_of_itself_is_taken(hosted: Served, sites: Sites) -> None:
    """As ChatGPT's document was seen: the way it likes best is another one."""
    client_id = sites.publish(
        "/chatgpt.json",
        token_endpoint_auth_method="private_key_jwt",
        token_endpoint_auth_methods_supported=["none", "private_key_jwt"],
    )
    client = HandClient(hosted.url, client_id)
    assert client.exchange(await agree(client.asking())).status_code == 200


SHARED: Final = b"a secret that somebody publishes by mistake, long"


class Signer:
    """A client that proves what it is by what it has signed."""

    def __init__(self, hosted: Served, sites: Sites, name: str, *, inline: bool = False, **said: Any) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        published = json.loads(RSAAlgorithm.to_jwk(self.key.public_key())) | {"kid": "one", "use": "sig"}
        self.keys = {"keys": [published, {"kty": "oct", "kid": "two", "k": base64.urlsafe_b64encode(SHARED).decode()}]}
        sites.pages[f"/{name}-keys.json"] = Page(json.dumps(self.keys).encode())
        where = {"jwks": self.keys} if inline else {"jwks_uri": f"https://{SITE}/{name}-keys.json"}
        method = {"token_endpoint_auth_method": "private_key_jwt"}
        self.client = HandClient(hosted.url, sites.publish(f"/{name}.json", **method | where | said))
        self.audience = f"{hosted.url}/token"

    def claims(self, **changed: Any) -> dict[str, Any]:
        now, name = int(time.time()), self.client.client_id
        said = {
            "iss": name,
            "sub": name,
            "aud": self.audience,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(),
        }
        return {claim: value for claim, value in (said | changed).items() if value is not None}

    def proof(self, *, kid: str = "one", **changed: Any) -> str:
        return jwt.encode(self.claims(**changed), self.key, algorithm="RS256", headers={"kid": kid})

    def form(self, proof: str) -> dict[str, str]:
        kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        return {"client_assertion_type": kind, "client_assertion": proof}


@pytest.mark.parametrize("where", ["jwks_uri", "jwks"])
async def test_a_client_that_signs_what_it_is_gets_tokens_by_that_alone(
    hosted: Served, sites: Sites, where: str
) -> None:
    signer = Signer(hosted, sites, f"signs-by-{where}", inline=where == "jwks")
    client = signer.client
    back = await agree(client.asking())
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = jwt.encode(signer.claims(), stranger, algorithm="RS256", headers={"kid": "one"})
    shared = jwt.encode(signer.claims(), SHARED, algorithm="HS256", headers={"kid": "two"})
    unsigned = jwt.encode(signer.claims(), "", algorithm="none", headers={"kid": "one"})
    used = signer.proof()
    for proof in (
        forged, shared, unsigned, signer.proof(kid="another"), signer.proof(aud="https://another.example.com/token"),
        signer.proof(aud=None), signer.proof(iss=f"https://{SITE}/x.json"), signer.proof(sub=f"https://{SITE}/x.json"),
        signer.proof(exp=int(time.time()) - 60), signer.proof(exp=None), signer.proof(exp=int(time.time()) + 7200),
        signer.proof(exp=10**30), "", "x", "x" * 9000,
    ):  # fmt: skip
        answer = client.exchange(back, **signer.form(proof))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), proof[:20]
    assert client.exchange(back).status_code == 401
    assert client.exchange(back, client_assertion=signer.proof()).status_code == 401
    tokens = client.exchange(back, **signer.form(used)).json()
    assert "access_token" in tokens
    again = client.token(grant_type="refresh_token", refresh_token=tokens["refresh_token"], **signer.form(used))
    assert (again.status_code, "was used before" in again.text) == (401, True)
    # Its id may stand in what it has signed alone.
    said = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], **signer.form(signer.proof())}
    renewed = httpx2.post(f"{hosted.url}/token", data=said, trust_env=False)
    assert renewed.status_code == 200
    shown = signer.form(signer.proof(aud=[hosted.url]))
    ended = {"client_id": client.client_id, "token": renewed.json()["access_token"]}
    assert httpx2.post(f"{hosted.url}/revoke", data=ended, trust_env=False).status_code == 401
    assert httpx2.post(f"{hosted.url}/revoke", data=ended | shown, trust_env=False).status_code == 200
    if where == "jwks_uri":
        assert sites.asked.count(f"{SITE}/signs-by-jwks_uri-keys.json") == 1


async def test_a_proof_that_is_not_asked_for_is_checked_where_it_is_shown(hosted: Served, sites: Sites) -> None:
    signer = Signer(hosted, sites, "both", token_endpoint_auth_methods_supported=["none", "private_key_jwt"])
    back = await agree(signer.client.asking())
    assert signer.client.exchange(back, **signer.form(signer.proof(aud="x"))).status_code == 401
    assert signer.client.exchange(back, **signer.form(signer.proof())).status_code == 200


async def test_keys_are_read_from_no_place_of_our_own_network(hosted: Served, sites: Sites) -> None:
    signer = Signer(hosted, sites, "inside", jwks_uri="https://inside.example.com/keys.json")
    back = await agree(signer.client.asking())
    connected = len(sites.connected)
    answer = signer.client.exchange(back, **signer.form(signer.proof()))
    assert (answer.status_code, "everybody can reach" in answer.text) == (401, True)
    assert len(sites.connected) == connected


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        (Page(b"", 404), "the answer was 404"),
        (Page(b"", 302, {"Location": f"https://{SITE}/there.json"}), "the answer was 302"),
        (Page(b"<!doctype html>"), "is no JSON object"),
        (Page(b'["https://client.example.com/x.json"]'), "is no JSON object"),
        (Page(b"[" * 30_000), "is no JSON object"),
        (Page(b'{"a": "' + b"x" * 40_000 + b'"}'), "longer than 32 KiB"),
        (Page(gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}), "is packed"),
        (Page(b"{}", headers={"Content-Type": "text/html; charset=utf-7"}), "not said to be JSON"),
        (Page(b"{}", headers={"Content-Type": "application/jsonp"}), "not said to be JSON"),
        (Page(b"{}", after_seconds=6), "did not answer within 5 seconds"),
    ],
    ids=["missing", "redirected", "HTML", "list", "deep", "long", "packed", "page", "script", "slow"],
)
def test_what_is_no_document_is_refused(hosted: Served, sites: Sites, page: Page, sentence: str) -> None:
    sites.publish("/there.json")
    sites.pages["/x.json"] = page
    assert sentence in refusal(ask(hosted, f"https://{SITE}/x.json"))
    assert sites.asked == [f"{SITE}/x.json"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "[::1]", "localhost", "10.0.0.7", "169.254.169.254",
        *(name for name in NAMES if name not in {SITE, OTHER_SITE, "rebinding.example.com"}),
    ],
)  # fmt: skip
def test_nothing_of_our_own_network_is_asked(hosted: Served, sites: Sites, host: str) -> None:
    """Also where a name stands for such an address, whatever else it stands for."""
    said = refusal(ask(hosted, f"https://{host}/x.json"))
    assert "is not an address that everybody can reach" in said
    assert sites.connected == []


def test_a_name_that_stands_for_something_else_the_next_time_leads_nowhere(hosted: Served, sites: Sites) -> None:
    client_id = sites.publish("/x.json", "rebinding.example.com")
    assert ask(hosted, client_id).status_code == 302
    assert sites.connected == [f"{ADDRESS}:443"]


@pytest.mark.parametrize(
    "client_id",
    [
        f"https://{SITE}", f"https://{SITE}/", f"https://{SITE}/a/../x.json", f"https://{SITE}/%2e%2E/x.json",
        f"https://{SITE}/x.json#part", f"https://user@{SITE}/x.json", f"https://{SITE}:8443/x.json",
        f"https://{SITE}:no/x.json", f"https://{SITE}/x y.json", f"https://{SITE}\\@evil.example.com/x.json",
        "https:///x.json", f"https://{SITE}/{'x' * 500}",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_document_is_not_asked_for(hosted: Served, sites: Sites, client_id: str) -> None:
    refusal(ask(hosted, client_id))
    assert sites.connected == []


def test_only_an_address_with_https_names_a_document(hosted: Served, sites: Sites) -> None:
    answer = ask(hosted, f"http://{SITE}/x.json")
    assert (answer.status_code, "not known here" in answer.text) == (400, True)
    assert sites.connected == []


def test_a_site_that_cannot_show_that_it_is_one_is_not_believed(hosted: Served, sites: Sites) -> None:
    """The certificate is held against the name, not against the address that was connected to."""
    sites.publish("/x.json", ADDRESS)
    assert "could not be reached" in refusal(ask(hosted, f"https://{ADDRESS}/x.json"))
    assert sites.asked == []
    assert ask(hosted, sites.publish("/x.json", OTHER_SITE)).status_code == 302


def test_nobody_is_sent_to_where_the_document_does_not_say(hosted: Served, sites: Sites) -> None:
    client_id = sites.publish("/strict.json", redirect_uris=[REDIRECT, "https://app.example.net/callback"])
    for back in ("https://app.example.net/callback/more", "https://app.example.net/callback?x=1", f"{REDIRECT}/more"):
        answer = ask(hosted, client_id, redirect_uri=back)
        assert answer.status_code == 400
        assert "Location" not in answer.headers
    assert ask(hosted, client_id, redirect_uri="https://app.example.net/callback").status_code == 302


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1:1"])
def test_a_proxy_that_leads_nowhere_is_no_crash(lium: Simulated, sites: Sites, tmp_path: Path, proxy: str) -> None:
    port = free_port()
    settings = at_lium(lium, tmp_path, port) | sites.settings() | {"HTTPS_PROXY": proxy}
    with serving_amid(tmp_path, {SITE: [[ADDRESS]]}, "--port", str(port), **settings) as served:
        assert "could not be reached" in refusal(ask(served, sites.publish("/x.json")))


async def test_where_clients_have_to_register_nothing_of_theirs_is_read(
    lium: Simulated, sites: Sites, tmp_path: Path
) -> None:
    port = free_port()
    settings = at_lium(lium, tmp_path, port, LIUM_MCP_OAUTH_REGISTERED_ONLY="true") | sites.settings()
    with serving_amid(tmp_path, {SITE: [[ADDRESS]]}, "--port", str(port), **settings) as served:
        metadata = httpx2.get(f"{served.url}/.well-known/oauth-authorization-server", trust_env=False).json()
        assert metadata["client_id_metadata_document_supported"] is False
        assert "takes clients that register" in refusal(ask(served, sites.publish("/x.json")))
        kept = Kept()
        async with logging_in(served.url, kept, agree, document=sites.publish("/x.json")) as caller:
            assert (await caller.call("get_balance"))["balance_usd"] == 100
    assert kept.client is not None
    assert not kept.client.client_id.startswith("https://"), "a client that could do either has registered"
    assert sites.connected == []


async def test_the_same_on_postgresql(lium: Simulated, sites: Sites, tmp_path: Path, postgres: Postgres) -> None:
    port = free_port()
    with postgres.database() as ledger:
        settings = at_lium(lium, tmp_path, port, LIUM_MCP_STATE_URL=ledger) | sites.settings()
        with serving_amid(tmp_path, {SITE: [[ADDRESS]]}, "--port", str(port), **settings) as served:
            client = HandClient(served.url, sites.publish(f"/{'x' * 400}.json"))
            tokens = client.exchange(await agree(client.asking())).json()
            assert client.refresh(tokens["refresh_token"]).status_code == 200
        _, out, _ = await run("grants", LIUM_MCP_STATE_URL=ledger)
    assert f"A published client ({SITE})" in out
