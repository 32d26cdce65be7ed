"""A login at the wire: what is sent and read, what never shows, and which pages a person may be sent to."""

import httpx2
import pytest

from lium_mcp.api.addresses import page_of_site
from lium_mcp.api.errors import InvalidRequest, LiumError, UnreadableResponse
from tests.api.fakes import client_on
from tests.wires import Wire, answering

SESSION = "b1946ac9-2492-4d23-8f1e-6c6b7a3d9e01"
LIUM, LOCAL = "https://lium.io/api", "http://127.0.0.1:8765/api"


async def test_neither_the_session_nor_the_page_nor_the_key_is_in_a_repr() -> None:
    wire = Wire()
    wire.on("POST", "/cli-auth/init", answering(200, {"browser_url": "https://lium.io/p/1", "session_id": SESSION}))
    wire.on("GET", "/cli-auth/poll/*", answering(200, {"status": "approved", "api_key": "sk_new", "more": "sk_more"}))
    async with client_on(wire) as lium:
        session = await lium.logins.begin()
        status = await lium.logins.poll(session.session_id)
        shown = f"{session!r} {session} {status!r} {status} {lium.logins!r}"
    assert status.api_key == "sk_new"
    for secret in (SESSION, "lium.io/p/1", "sk_new", "sk_more"):
        assert secret not in shown


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_refusal_that_repeats_the_session_is_told_without_it(status: int) -> None:
    wire = Wire()
    wire.on("*", "**", answering(status, {"message": f"no session {SESSION}", "status_code": status}))
    async with client_on(wire) as lium:
        with pytest.raises(LiumError) as caught:
            await lium.logins.poll(SESSION)
    assert SESSION not in f"{caught.value} {caught.value.hint} {caught.value.data}"
    assert len(wire.requests) == 1, "the flow decides when to ask again"


async def test_a_page_of_a_company_network_is_no_answer() -> None:
    wire = Wire()
    wire.on("*", "**", answering(200, b"<html>Sign in to the guest network</html>", content_type="text/html"))
    async with client_on(wire) as lium:
        for ask in (lium.logins.begin(), lium.logins.poll(SESSION)):
            with pytest.raises(UnreadableResponse):
                await ask


async def test_a_session_that_could_leave_its_route_is_not_sent() -> None:
    wire = Wire()
    async with client_on(wire) as lium:
        for session in ("../keys", "a/b", "", "a?b", "a b"):
            with pytest.raises(InvalidRequest):
                await lium.logins.poll(session)
    assert wire.requests == []


async def test_a_redirect_takes_no_session_elsewhere() -> None:
    wire = Wire()
    wire.on("*", "**", answering(307, b"", location="https://evil.example/poll"))
    async with client_on(wire) as lium:
        with pytest.raises(LiumError):
            await lium.logins.poll(SESSION)
    assert [request.url.host for request in wire.requests] == [httpx2.URL(lium.base_url).host]


@pytest.mark.parametrize(
    ("base", "page"),
    [
        (LIUM, "https://lium.io/cli-auth/1?code=2#top"),
        (LIUM, "https://lium.io:443/cli-auth"),
        ("https://api.lium.io/api", "https://lium.io/cli-auth"),
        ("https://api.lium.io/api", "https://api.lium.io/cli-auth"),
        ("https://gpu.example:8443/api", "https://gpu.example:8443/login"),
        (LOCAL, "http://127.0.0.1:8765/cli-auth/1"),
        (LOCAL, "http://localhost:8765/cli-auth/1"),
        ("http://[::1]:8765/api", "http://[::1]:8765/cli-auth/1"),
    ],
)
def test_a_page_of_the_own_site_may_be_opened(base: str, page: str) -> None:
    assert page_of_site(base, page) == page


@pytest.mark.parametrize(
    ("base", "page"),
    [
        (LIUM, "http://lium.io/cli-auth"),
        (LIUM, "https://lium.io:444/cli-auth"),
        (LIUM, "https://lium.io.evil.example/"),
        (LIUM, "https://lium.io@evil.example/"),
        (LIUM, "https://lium.io:x@evil.example/"),
        (LIUM, "https://lium.io\\@evil.example/"),
        (LIUM, "https:/\\evil.example"),
        (LIUM, "https://evil.example\t.lium.io/"),
        (LIUM, "https://lium\u2024io/"),
        (LIUM, "//lium.io/"),
        (LIUM, "javascript:alert(1)//lium.io"),
        (LIUM, "file:///etc/passwd"),
        (LIUM, "-https://lium.io"),
        (LIUM, "https://lium.io/a b"),
        (LIUM, "https://lium.io/\n"),
        (LIUM, "https://lium.io/" + "a" * 4000),
        (LIUM, ""),
        # Another address that hands out a page of Lium's would be given the key to Lium.
        ("https://evil.example/api", "https://lium.io/cli-auth"),
        ("https://evillium.io/api", "https://lium.io/cli-auth"),
        (LOCAL, "https://lium.io/cli-auth"),
        (LOCAL, "http://127.0.0.1:9999/cli-auth"),
        ("https://gpu.example/api", "http://gpu.example/login"),
    ],
)
def test_no_other_page_is(base: str, page: str) -> None:
    assert page_of_site(base, page) is None
