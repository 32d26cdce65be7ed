"""The page in a conversation: in the frame of a host, by the bridge that such hosts use."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.client.extension import advertise
from playwright.async_api import Browser, Frame, Page, expect

from lium_mcp.page import EXTENSION, MIME_TYPE
from lium_mcp.sandbox import API_KEY, Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.harness import Mode, Person, TurnedClock
from tests.page.conftest import tab


class Conversation:
    """A conversation with one page in it.

    Attributes:
        client: What the host has of our server.
        page: The host.
        frame: Our page in it.
        called: What the page has called.
        host: What the host does not do, as host.js takes it.
        change: What somebody on the way makes of the answers of tools.
    """

    def __init__(self, client: Client, page: Page, sandbox: Sandbox) -> None:
        self.client = client
        self.page = page
        self.called: list[str] = []
        self.host: dict[str, Any] = {}
        self.change: Callable[[Any], Any] = lambda data: data
        self._sandbox = sandbox

    @property
    def frame(self) -> Frame:
        return self.page.frames[1]

    async def show(self, tool: str, **arguments: Any) -> None:
        """Let the model call a tool that carries the page."""
        given = [tool, arguments, self.host]
        await self.page.evaluate("([tool, args, host]) => window.show(tool, args, host)", given)
        self.called.clear()

    async def told(self) -> list[str]:
        """What the model has heard of what a person did."""
        return list(await self.page.evaluate("window.told"))

    def pods(self) -> list[str]:
        return [pod["pod_name"] for pod in self._sandbox.state("pods")["pods"] if pod["removed_at"] is None]

    async def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Pass on what the host asks of the server."""
        result: Any
        if method == "tools/list":
            result = await self.client.list_tools()
        elif method == "resources/read":
            result = await self.client.read_resource(params["uri"])
        else:
            self.called.append(params["name"])
            result = await self.client.call_tool(params["name"], params.get("arguments") or {})
        said = dict(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        if said.get("structuredContent"):
            said["structuredContent"] = self.change(said["structuredContent"])
        return said


@asynccontextmanager
async def conversation(
    browser: Browser, page_host: str, sandbox: Sandbox, person: Person, mode: Mode = "auto"
) -> AsyncIterator[Conversation]:
    settings = Settings.model_validate(
        {"api_key": API_KEY, "base_url": "http://127.0.0.1/api", "state_url": "sqlite://"}
    )
    server = build_server(settings, transport=sandbox.transport(), clock=TurnedClock(sandbox))
    shows = [advertise(EXTENSION, {"mimeTypes": [MIME_TYPE]})]
    async with (
        Client(server, mode=mode, extensions=shows, elicitation_callback=person) as client,
        tab(browser, width=720) as page,
    ):
        talk = Conversation(client, page, sandbox)
        await page.expose_function("mcp", talk.answer)
        await page.route(
            "http://host.test/", lambda route: route.fulfill(body="<!doctype html><body>", content_type="text/html")
        )
        await page.goto("http://host.test/")
        await page.add_script_tag(content=page_host)
        yield talk


async def rent(client: Client, name: str) -> None:
    rented = await client.call_tool("rent_pod", {"name": name, "gpu_type": "A100", "hours": 24, "wait_seconds": 600})
    assert not rented.is_error, rented


async def test_the_model_asks_and_the_person_looks(browser: Browser, page_host: str, sandbox: Sandbox) -> None:
    async with conversation(browser, page_host, sandbox, Person("yes")) as talk:
        await rent(talk.client, "train")
        await talk.show("list_pods")
        await expect(talk.frame.get_by_text("train").first).to_be_visible()
        assert await talk.frame.evaluate("document.documentElement.dataset.theme") == "dark"
        assert await talk.told() == []


async def test_a_click_is_no_consent_and_the_model_hears_what_was_done(
    browser: Browser, page_host: str, sandbox: Sandbox
) -> None:
    person = Person("yes", "no", "yes")
    async with conversation(browser, page_host, sandbox, person) as talk:
        await rent(talk.client, "train")
        await talk.show("list_pods")
        await talk.frame.get_by_role("button", name="Details of train").click()
        for answer in ("no", "yes"):
            await talk.frame.get_by_role("button", name="Remove", exact=True).click()
            await talk.frame.get_by_label("Back up first").uncheck()
            await talk.frame.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
            said = {"no": "Nothing was done", "yes": "removed"}[answer]
            await expect(talk.frame.get_by_role("status").filter(has_text=said).first).to_be_visible()
            assert talk.pods() == (["train"] if answer == "no" else [])
        assert talk.called.count("remove_pod") == 2
        await talk.page.wait_for_function("window.told.length >= 2")
        no, yes = await talk.told()
        assert "was not done" in no
        assert "train" in yes
    assert len(person.questions) == 3
    assert "train" in person.questions[-1]


@pytest.mark.parametrize("host", [{"calls": "none"}, {"calls": "refused"}, {"calls": "unanswered"}, {"isText": True}])
async def test_the_answer_that_the_host_brings_is_shown_by_any_host(
    browser: Browser, page_host: str, sandbox: Sandbox, host: dict[str, Any]
) -> None:
    async with conversation(browser, page_host, sandbox, Person("yes", "yes")) as talk:
        for name in ("train-a", "train-b"):
            await rent(talk.client, name)
        talk.host = host
        await talk.show("list_pods")
        for name in ("train-a", "train-b"):
            await expect(talk.frame.get_by_text(name).first).to_be_visible()
        assert "list_pods" not in talk.called


async def test_a_host_that_lets_no_calls_be_made_is_asked_for_none_and_named_once(
    browser: Browser, page_host: str, sandbox: Sandbox
) -> None:
    for tool in ("list_pods", "get_balance", "get_gpu_prices", "list_gpus"):
        async with conversation(browser, page_host, sandbox, Person("no")) as talk:
            talk.host = {"calls": "none"}
            await talk.show(tool)
            await expect(talk.frame.get_by_text("lets it make no calls")).to_have_count(1)
            await expect(talk.frame.get_by_text("did not make the call")).to_have_count(0)
            await expect(talk.frame.get_by_role("button", name="Read anew")).to_have_count(0)
            assert talk.called == []


async def test_a_host_that_does_not_greet_is_named(browser: Browser, page_host: str, sandbox: Sandbox) -> None:
    async with conversation(browser, page_host, sandbox, Person("no")) as talk:
        talk.host = {"isSilent": True}
        await talk.show("list_pods")
        await expect(talk.frame.get_by_text("does not answer it")).to_be_visible()


async def test_a_call_that_failed_opens_its_view_with_its_error(
    browser: Browser, page_host: str, sandbox: Sandbox
) -> None:
    async with conversation(browser, page_host, sandbox, Person("no")) as talk:
        talk.host = {"calls": "none"}
        await talk.show("list_gpus", cursor="nonsense")
        await expect(talk.frame.locator("nav [aria-current=page]")).to_have_text("Market")
        await expect(talk.frame.locator("#offers").get_by_role("alert")).to_contain_text("cursor")


async def test_each_tool_opens_its_view(browser: Browser, page_host: str, sandbox: Sandbox) -> None:
    for tool, arguments, view in (
        ("get_gpu_prices", {}, "Market"),
        ("list_gpus", {"gpu_type": "A100"}, "Market"),
        ("get_balance", {}, "Money"),
        ("get_spending", {}, "Money"),
        ("list_pods", {}, "Pods"),
    ):
        async with conversation(browser, page_host, sandbox, Person("no")) as talk:
            await talk.show(tool, **arguments)
            current = talk.frame.locator("nav [aria-current=page]")
            await expect(current).to_have_text(view)
