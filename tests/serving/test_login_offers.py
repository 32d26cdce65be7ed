"""A call without a key, in a client that shows a person a page: the login is offered, and the call goes on after it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError, UrlElicitationRequiredError
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitRequestURLParams, ElicitResult, ErrorData

from lium_mcp.official_config import OfficialConfig
from lium_mcp.sandbox import Sandbox
from lium_mcp.saved_key import save_key
from tests.harness import Agent, Mode, Person, agent_on
from tests.wires import Wire, answering, drop, losing_the_answer

INIT, POLL = ("POST", "/cli-auth/init"), ("GET", "/cli-auth/poll/*")


class Reader(Person):
    """Who sits before a client that shows pages, and what they do on each page before the client goes on.

    `agree` and `refuse` are clicked on the page; `open` only opens it; `decline` and `cancel` do not; None is a client
    that fails.
    """

    def __init__(self, sandbox: Sandbox, *does: str | None) -> None:
        super().__init__("yes")
        self.sandbox = sandbox
        self.does = does
        self.pages: list[str] = []
        self.messages: list[str] = []

    async def __call__(self, context: Any, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        if isinstance(params, ElicitRequestFormParams):
            return await super().__call__(context, params)
        act = self.does[min(len(self.pages), len(self.does) - 1)]
        self.pages.append(params.url)
        self.messages.append(params.message)
        match act:
            case "agree" | "refuse":
                await self.click(act)
            case "decline" | "cancel":
                return ElicitResult(action=act)
            case None:
                return ErrorData(code=-1, message="no such thing here")
        return ElicitResult(action="accept")

    async def click(self, answer: str, page: str | None = None) -> None:
        async with httpx2.AsyncClient(transport=self.sandbox.transport()) as browser:
            await browser.post(page or self.pages[-1], data={"answer": answer})


@asynccontextmanager
async def keyless(
    sandbox: Sandbox, *does: str | None, mode: Mode = "auto", transport: Any = None, **settings: Any
) -> AsyncIterator[tuple[Agent, Reader]]:
    reader = Reader(sandbox, *(does or ("agree",)))
    settings = {"api_key": None, **settings}
    async with agent_on(sandbox, mode=mode, person=reader, transport=transport, **settings) as agent:
        yield agent, reader


def saved() -> str | None:
    return OfficialConfig().key("").text


def logins(sandbox: Sandbox) -> list[dict[str, Any]]:
    return list(sandbox.state("logins")["logins"])


async def page_of(agent: Agent, tool: str = "get_balance", **arguments: Any) -> ElicitRequestURLParams:
    """What a client of the older protocol is told to show."""
    with pytest.raises(MCPError) as caught:
        await agent.raw(tool, **arguments)
    error = UrlElicitationRequiredError.from_error(caught.value.error)
    [page] = error.elicitations
    assert page.elicitation_id
    assert page.url not in error.message
    assert "lium-mcp login" in error.message
    return page


async def test_a_call_goes_on_once_the_person_has_agreed(sandbox: Sandbox) -> None:
    async with keyless(sandbox) as (agent, reader):
        assert (await agent.call("get_balance"))["balance_usd"] == 100
        assert (await agent.call("list_pods"))["total"] == 0
        [message] = reader.messages
        assert "127.0.0.1" in message
        assert "Agree only if you have just asked" in message
        assert len(logins(sandbox)) == 1
        key = saved()
        assert key is not None
    async with keyless(sandbox) as (agent, reader):
        await agent.call("get_balance")
        assert reader.pages == []


async def test_a_client_of_the_older_protocol_calls_again_after_the_page(sandbox: Sandbox) -> None:
    async with keyless(sandbox, mode="legacy") as (agent, reader):
        page = await page_of(agent)
        await reader.click("agree", page.url)
        assert (await agent.call("get_balance"))["balance_usd"] == 100
        assert saved()


async def test_who_agrees_later_is_waited_for_a_while_by_calls_and_by_nothing_else(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, "open", transport=wire) as (agent, reader):
        failure = await agent.refused("get_balance")
        assert failure.code == "login_pending"
        assert "lium-mcp login" in failure.text
        assert agent.clock.slept_seconds == pytest.approx(30, abs=5)
        assert 6 <= len(wire.sent(*POLL)) <= 8
        polled = len(wire.sent(*POLL))
        await asyncio.sleep(0.05)
        assert len(wire.sent(*POLL)) == polled
        await reader.click("agree")
        assert (await agent.call("get_balance"))["balance_usd"] == 100
        assert len(reader.pages) == 1, "they had agreed, and were not asked again"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_page_that_nobody_answers_is_shown_a_few_times_and_then_no_more(sandbox: Sandbox, mode: Mode) -> None:
    wire = Wire(sandbox)
    pages: set[str] = set()
    async with keyless(sandbox, "open", mode=mode, transport=wire) as (agent, reader):
        codes = []
        for _ in range(12):
            try:
                codes.append((await agent.refused("get_balance")).code)
            except MCPError as error:
                pages.add(UrlElicitationRequiredError.from_error(error.error).elicitations[0].url)
        shown = len(set(reader.pages) | pages)
        await agent.clock.sleep(600)
        for _ in range(2):
            assert (await agent.refused("get_balance")).code == "api_key_missing"
    assert shown == 1
    assert len(reader.pages) <= 3
    assert set(codes) == {"login_pending"}
    assert len(wire.sent(*INIT)) == 1
    assert len(wire.sent(*POLL)) <= agent.clock.slept_seconds / 5 + 2
    assert saved() is None


@pytest.mark.parametrize(
    ("does", "code"), [("decline", "login_declined"), ("cancel", "login_declined"), ("refuse", "login_refused")]
)
async def test_who_says_no_is_not_asked_again_for_a_while(sandbox: Sandbox, does: str, code: str) -> None:
    async with keyless(sandbox, does) as (agent, reader):
        assert (await agent.refused("get_balance")).code == code
        for _ in range(3):
            failure = await agent.refused("get_balance")
            assert failure.code == "api_key_missing"
            assert "lium-mcp login" in failure.text
        assert len(reader.pages) == 1
        await agent.clock.sleep(601)
        reader.does = ("agree",)
        await agent.call("get_balance")
        assert len(logins(sandbox)) == 2


async def test_a_client_that_fails_to_show_the_page_learns_of_the_command(sandbox: Sandbox) -> None:
    async with keyless(sandbox, None) as (agent, _):
        for _ in range(3):
            with pytest.raises(MCPError):
                await agent.raw("get_balance")
        assert (await agent.refused("get_balance")).code == "login_pending"
        assert saved() is None


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_shows_no_pages_is_told_the_command(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, api_key=None) as agent:
        assert "`lium-mcp login`" in (await agent.refused("get_balance")).text
    assert logins(sandbox) == []


async def test_what_spends_asks_as_always_after_the_login(sandbox: Sandbox) -> None:
    async with keyless(sandbox) as (agent, reader):
        pod = await agent.call("rent_pod", name="a", gpu_type="A100", wait_seconds=60)
        assert len(reader.pages) == len(reader.questions) == 1
        assert pod["pod_id"] in [row["id"] for row in sandbox.state("pods")["pods"]]
        assert len(sandbox.state("rents")["rents"]) == 1


async def test_calls_at_the_same_time_share_one_login(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, transport=wire) as (agent, reader):
        answers = await asyncio.gather(*(agent.raw("get_balance") for _ in range(4)))
        later = await agent.call("get_balance")
    assert later["balance_usd"] == 100
    assert len(wire.sent(*INIT)) == len(set(reader.pages)) == 1
    assert any(not answer.is_error for answer in answers)
    assert len(wire.sent(*POLL)) <= 4


async def test_calls_that_wait_at_the_same_time_ask_lium_once(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, mode="legacy", transport=wire) as (agent, reader):
        page = await page_of(agent)
        held = wire.hold(*POLL)
        waiting = [asyncio.create_task(agent.raw("get_balance")) for _ in range(3)]
        await held.reached()
        await reader.click("agree", page.url)
        held.let_go()
        assert [answer.is_error for answer in await asyncio.gather(*waiting)] == [False] * 3
    assert len(wire.sent(*POLL)) == 1


async def test_calls_wait_for_another_only_as_long_as_that_waits(sandbox: Sandbox) -> None:
    async with keyless(sandbox, "open") as (agent, _):
        answers = await asyncio.gather(*(agent.refused("get_balance") for _ in range(3)))
        assert {answer.code for answer in answers} == {"login_pending"}


async def test_two_servers_at_once_come_to_one_key(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, "open", transport=wire) as (first, _), keyless(sandbox) as (second, _):
        held = wire.hold("GET", "/cli-auth/poll/*")
        waiting = asyncio.create_task(first.raw("get_balance"))
        await held.reached()
        await second.call("get_balance")
        held.let_go()
        assert not (await waiting).is_error
        assert (await first.call("get_balance"))["balance_usd"] == 100
    assert [login["status"] for login in logins(sandbox)] == ["pending", "approved"]


async def test_a_key_that_is_saved_meanwhile_is_used_without_a_restart(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, api_key=None) as agent:
        await agent.refused("get_balance")
        save_key("sk_sandbox", replaces=None)
        assert (await agent.call("get_balance"))["balance_usd"] == 100
        # Once it has one, it stays with it: another account's rents and limits are not mixed in.
        save_key("sk_sandbox_other", replaces="sk_sandbox")
        await agent.call("rent_pod", name="a", gpu_type="A100", wait_seconds=0)
    accounts = {row["name"]: row["id"] for row in sandbox.state("accounts")["accounts"]}
    assert [pod["account_id"] for pod in sandbox.state("pods")["pods"]] == [accounts["Sandbox"]]


async def test_a_key_that_came_later_works_between_calls_too(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, api_key=None) as agent:
        save_key("sk_sandbox", replaces=None)
        waits = await agent.call(
            "rent_pod", name="a", gpu_type="A100", hours=2, max_usd_per_hour=0.01, keep_trying_hours=3
        )
        assert "A running lium-mcp server with this" in waits["next"]


async def test_a_resource_is_read_with_a_key_that_came_later(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, api_key=None) as agent:
        save_key("sk_sandbox", replaces=None)
        [content] = (await agent.client.read_resource("lium://account")).contents
        assert json.loads(getattr(content, "text", ""))["balance_usd"] == 100


@pytest.mark.parametrize("content", ["not an ini file", "[api]\napi_key = YOUR_API_KEY\n", "[api]\napi_key = a b\n"])
async def test_a_file_that_holds_no_key_changes_nothing(sandbox: Sandbox, content: str) -> None:
    async with agent_on(sandbox, api_key=None) as agent:
        path = Path.home() / ".lium" / "config.ini"
        path.parent.mkdir()
        path.write_text(content)
        assert (await agent.refused("get_balance")).code == "api_key_missing"


async def test_a_login_replaces_no_key_that_another_program_saved_meanwhile(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, transport=wire) as (agent, _):
        held = wire.hold("GET", "/users/me")
        calling = asyncio.create_task(agent.raw("get_balance"))
        await held.reached()
        save_key("sk_sandbox_other", replaces=None)
        held.let_go()
        assert not (await calling).is_error
    assert saved() == "sk_sandbox_other"


async def test_a_key_that_lium_refuses_is_not_saved(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/users/me", answering(401, {"detail": "API key not found"}))
    async with keyless(sandbox, transport=wire) as (agent, _):
        assert (await agent.refused("get_balance")).code == "api_key_refused"
    assert saved() is None


async def test_a_key_that_cannot_be_saved_holds_until_the_server_ends(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    (Path.home() / ".lium").write_text("a file where the folder should be")
    async with keyless(sandbox) as (agent, _):
        assert (await agent.call("get_balance"))["balance_usd"] == 100
    assert "holds until this server ends" in caplog.text


@pytest.mark.parametrize(
    "act",
    [
        drop,
        answering(503, {}),
        answering(404, {"detail": "Not Found"}),
        answering(200, {"browser_url": "https://evil.example/", "session_id": "s"}),
        answering(200, {"browser_url": "https://lium.io/cli-auth", "session_id": "s"}),
    ],
)
async def test_where_no_login_can_begin_the_command_is_named_and_lium_left_alone(sandbox: Sandbox, act: Any) -> None:
    wire = Wire(sandbox)
    wire.on(*INIT, act)
    async with keyless(sandbox, transport=wire) as (agent, reader):
        for _ in range(3):
            assert (await agent.refused("get_balance")).code == "api_key_missing"
    assert reader.pages == []
    assert len(wire.sent(*INIT)) == 1


async def test_an_answer_with_the_key_that_was_lost_ends_the_login(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on(*POLL, losing_the_answer(), times=1)
    async with keyless(sandbox, transport=wire) as (agent, _):
        assert (await agent.refused("get_balance")).code == "login_expired"
    assert saved() is None


async def test_another_address_than_liums_is_not_logged_in_at(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, transport=wire, base_url="https://gpu.example/api") as (agent, reader):
        assert (await agent.refused("get_balance")).code == "api_key_missing"
    assert not reader.pages
    assert not wire.sent(*INIT)


@pytest.mark.parametrize("variables", [{"LIUM_WORKSPACE": "team"}])
async def test_where_a_saved_key_would_not_count_none_is_offered(
    sandbox: Sandbox, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with keyless(sandbox) as (agent, reader):
        assert (await agent.refused("get_balance")).code == "api_key_missing"
        assert reader.pages == []


async def test_over_http_nobody_is_offered_a_login(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIUM_MCP_TRANSPORT", "http")
    async with keyless(sandbox) as (agent, reader):
        save_key("sk_sandbox", replaces=None)
        failure = await agent.refused("get_balance")
        assert failure.code == "api_key_missing"
        assert "login" not in failure.text
    assert not reader.pages
    assert not logins(sandbox)


@pytest.mark.parametrize("path", ["/cli-auth/poll/*", "/users/me"])
async def test_a_cancelled_call_loses_no_key(sandbox: Sandbox, path: str) -> None:
    wire = Wire(sandbox)
    async with keyless(sandbox, transport=wire) as (agent, _):
        held = wire.hold("GET", path, "after the work")
        async with anyio.create_task_group() as calling:
            calling.start_soon(agent.raw, "get_balance")
            await held.reached()
            calling.cancel_scope.cancel()
            held.let_go()
        assert (await agent.call("get_balance"))["balance_usd"] == 100
    assert saved()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_session_page_and_key_are_in_no_log_and_no_result(
    sandbox: Sandbox, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "lium_mcp")
    wire = Wire(sandbox)
    seen = ""
    async with keyless(sandbox, "open", mode=mode, transport=wire) as (agent, reader):
        page = reader.pages[-1] if reader.pages else None
        if mode == "legacy":
            page = (await page_of(agent)).url
        seen += (await agent.raw("get_balance")).model_dump_json() if mode == "auto" else ""
        await reader.click("agree", page or reader.pages[-1])
        seen += (await agent.raw("get_balance")).model_dump_json()
    session = wire.sent(*POLL)[0].url.path.rpartition("/")[2]
    for secret in (session, saved() or "?", page or reader.pages[-1]):
        assert secret not in seen
        assert secret not in caplog.text
    ledgers = list(Path.home().glob("ledger-*"))
    assert all(session.encode() not in file.read_bytes() for file in ledgers)
