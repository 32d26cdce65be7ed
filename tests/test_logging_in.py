"""From the page of a login to its key: how long and how often is asked, and what is taken for an answer."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from lium_mcp.api.client import LiumClient
from lium_mcp.api.errors import LiumError, NotLium, RateLimited, ServerFailed, UntrustedRedirect
from lium_mcp.failures import Failure
from lium_mcp.sandbox import Sandbox
from lium_mcp.services.logging_in import POLL_SECONDS, OpenLogin, begin_login, fetch_key
from tests.harness import TurnedClock
from tests.wires import Act, Wire, answering, drop, losing_the_answer, page

POLL = ("GET", "/cli-auth/poll/*")
KEY = "sk_new_0123456789"
APPROVED = answering(200, {"status": "approved", "api_key": KEY})


class Flow:
    """A login on a sandbox whose clock is turned."""

    def __init__(self, sandbox: Sandbox, wire: Wire) -> None:
        self.wire = wire
        self.sandbox = sandbox
        self.clock = TurnedClock(sandbox)
        self.lium = LiumClient(api_key=None, base_url="http://127.0.0.1/api", transport=wire, clock=self.clock)

    async def begin(self) -> OpenLogin:
        return await begin_login(self.lium)

    async def answer(self, login: OpenLogin, answer: str) -> None:
        async with httpx2.AsyncClient(transport=self.sandbox.transport()) as browser:
            assert (await browser.post(login.page, data={"answer": answer})).status_code == 200

    async def fetch(self, login: OpenLogin, minutes: float = 5) -> str:
        return await fetch_key(self.lium, login, self.clock, limit_seconds=60 * minutes)

    async def failure(self, login: OpenLogin, minutes: float = 5) -> str:
        with pytest.raises(Failure) as caught:
            await self.fetch(login, minutes)
        assert login.session_id not in f"{caught.value.happened} {caught.value.advice}"
        return caught.value.code

    @property
    def polls(self) -> int:
        return len(self.wire.sent(*POLL))


@pytest.fixture
async def flow(sandbox: Sandbox) -> AsyncIterator[Flow]:
    flow = Flow(sandbox, Wire(sandbox))
    async with flow.lium:
        yield flow


async def test_the_key_of_who_agreed_is_fetched_once(flow: Flow) -> None:
    login = await flow.begin()
    await flow.answer(login, "agree")
    assert (await flow.fetch(login)).startswith("sk_sandbox_")
    assert await flow.failure(login) == "login_expired"


async def test_neither_page_nor_session_is_in_a_repr(flow: Flow) -> None:
    login = await flow.begin()
    assert repr(login) == "OpenLogin(site='127.0.0.1')"


async def test_nobody_is_waited_for_longer_than_that_or_asked_for_more_often(flow: Flow) -> None:
    assert await flow.failure(await flow.begin(), minutes=2) == "login_unanswered"
    assert flow.clock.slept_seconds == pytest.approx(120)
    assert flow.polls == 120 / POLL_SECONDS + 1


async def test_a_refusal_ends_it_at_once(flow: Flow) -> None:
    login = await flow.begin()
    await flow.answer(login, "refuse")
    assert await flow.failure(login) == "login_refused"
    assert flow.polls == 1


async def test_a_session_that_lium_knows_no_more_ends_it(flow: Flow) -> None:
    login = await flow.begin()
    flow.sandbox.clock.advance(minutes=10)
    assert await flow.failure(login) == "login_expired"
    assert flow.polls == 3


@pytest.mark.parametrize("word", ["denied", "Rejected", "declined", "cancelled", "canceled", "refuse"])
async def test_words_for_no(flow: Flow, word: str) -> None:
    flow.wire.on(*POLL, answering(200, {"status": word}))
    assert await flow.failure(await flow.begin()) == "login_refused"


@pytest.mark.parametrize("word", ["expired", "timeout", "timed_out", "Used"])
async def test_words_for_over(flow: Flow, word: str) -> None:
    flow.wire.on(*POLL, answering(200, {"status": word}))
    assert await flow.failure(await flow.begin()) == "login_expired"


@pytest.mark.parametrize(
    "once",
    [
        answering(200, {"status": "pending"}),
        answering(200, {"status": "waiting for coffee", "success": False}),
        answering(200, {}),
        answering(200, []),
        answering(200, b"<html>", content_type="text/html"),
        answering(404, {"detail": "Session not found"}),
        answering(401, {"detail": "Not authenticated"}),
        answering(500, {}),
        page(403),
        answering(429, {}, retry_after="7"),
        drop,
    ],
)
async def test_whatever_else_is_said_once_means_to_wait(flow: Flow, once: Act) -> None:
    flow.wire.on(*POLL, APPROVED)
    flow.wire.on(*POLL, once, times=2)
    assert await flow.fetch(await flow.begin()) == KEY
    assert flow.polls == 3


@pytest.mark.parametrize(
    ("act", "kind", "polls"),
    [
        (answering(302, None, location="https://elsewhere.example/"), UntrustedRedirect, 1),
        (answering(302, None), LiumError, 1),
        (page(200), NotLium, 3),
    ],
    ids=["elsewhere", "nowhere", "to a page"],
)
async def test_an_answer_that_is_elsewhere_is_not_waited_for(
    flow: Flow, act: Act, kind: type[LiumError], polls: int
) -> None:
    flow.wire.on(*POLL, act)
    with pytest.raises(kind):
        await flow.fetch(await flow.begin())
    assert flow.polls == polls


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"status": "approved"}, "login_without_key"),
        ({"status": "approved", "api_key": ""}, "login_without_key"),
        ({"status": "approved", "api_key": "two words"}, "login_without_key"),
        ({"status": "approved", "api_key": "sk_\u2026abcd"}, "login_without_key"),
        ({"status": "pending", "api_key": KEY}, "login_unanswered"),
    ],
)
async def test_a_key_is_one_that_comes_with_an_agreement(flow: Flow, body: dict[str, Any], code: str) -> None:
    flow.wire.on(*POLL, answering(200, json.dumps(body).encode()))
    assert await flow.failure(await flow.begin()) == code


@pytest.mark.parametrize(
    ("act", "kind"),
    [(answering(503, {}), ServerFailed), (answering(429, {}), RateLimited), (drop, LiumError)],
)
async def test_what_failed_until_the_end_is_the_reason(flow: Flow, act: Act, kind: type[LiumError]) -> None:
    flow.wire.on(*POLL, act)
    with pytest.raises(kind):
        await flow.fetch(await flow.begin(), minutes=1)
    assert flow.polls <= 13


async def test_a_server_that_has_enough_is_asked_ever_less_often(flow: Flow) -> None:
    flow.wire.on(*POLL, answering(429, {}))
    with pytest.raises(RateLimited):
        await flow.fetch(await flow.begin(), minutes=5)
    assert flow.polls <= 13


async def test_a_key_whose_answer_was_lost_is_not_waited_for(flow: Flow) -> None:
    login = await flow.begin()
    await flow.answer(login, "agree")
    flow.wire.on(*POLL, losing_the_answer(), times=1)
    assert await flow.failure(login) == "login_expired"
    assert flow.polls == 4


async def test_a_page_elsewhere_is_refused_and_not_repeated(flow: Flow) -> None:
    flow.wire.on("POST", "**", answering(200, {"browser_url": "https://evil.example/x", "session_id": "s"}))
    with pytest.raises(Failure) as caught:
        await flow.begin()
    assert caught.value.code == "login_page_foreign"
    assert "evil" not in f"{caught.value.happened} {caught.value.advice}"
