"""The page of `lium-mcp dashboard` in a real browser: how it is opened, and that it acts only after a person's yes."""

import asyncio
from pathlib import Path

from playwright.async_api import Browser, Page, expect

from tests.page.conftest import tab
from tests.pages import Shown, call, said_by, showing


async def opened(page: Page, shown: Shown) -> str:
    """Open the page by its address; return the session."""
    await page.goto(f"{shown.url}/#token={shown.token}")
    await expect(page.get_by_role("navigation", name="Views")).to_be_visible()
    session = await page.evaluate("sessionStorage.getItem('lium-session')")
    return str(session)


def rent(shown: Shown, session: str, name: str) -> None:
    """Let somebody else rent a pod meanwhile, which runs then; nothing gets dearer before they have said yes."""
    with shown.caller(**said_by(session, shown.url)) as http:
        speed = http.get("/_sandbox/clock").json()["speed"]
        http.post("/_sandbox/clock", json={"speed": 0}).raise_for_status()
        wish = {"name": name, "gpu_type": "A100", "hours": 24, "wait_seconds": 0}
        asked = call(http, "rent_pod", **wish).json()["result"]
        [key] = asked["inputRequests"]
        yes = {key: {"action": "accept", "content": {"confirm": True}}}
        done = call(http, "rent_pod", **wish, inputResponses=yes, requestState=asked["requestState"]).json()["result"]
        assert not done["isError"], done
        http.post("/_sandbox/clock", json={"speed": speed}).raise_for_status()
        runs = call(http, "get_pod", pod=name, wait_seconds=30).json()["result"]["structuredContent"]
        assert runs["pod"]["status"] == "RUNNING", runs


def pods(shown: Shown, session: str) -> list[str]:
    """Those that there are, whoever has been told of them."""
    with shown.caller(**said_by(session, shown.url)) as http:
        known = http.get("/_sandbox/state").json()["pods"]
        return [pod["pod_name"] for pod in known if pod["removed_at"] is None]


async def test_the_token_leaves_the_address_and_the_page_outlives_a_reload(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        await opened(page, shown)
        await expect(page).to_have_url(f"{shown.url}/")
        assert shown.token not in await page.content()
        await page.reload()
        await expect(page.get_by_text("No pod runs")).to_be_visible()


async def test_another_tab_with_a_used_address_says_what_to_do(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        await opened(page, shown)
    other = await browser.new_page()
    await other.goto(f"{shown.url}/#token={shown.token}")
    await expect(other.get_by_text("If you had not used it, somebody else has")).to_be_visible()
    await expect(other.get_by_text("lium-mcp dashboard")).to_be_visible()
    third = await browser.new_page()
    await third.goto(f"{shown.url}/")
    await expect(third.get_by_text("This page needs its whole address")).to_be_visible()


async def test_an_address_that_is_opened_in_the_tab_is_taken_out_and_tried(browser: Browser, shown: Shown) -> None:
    page = await browser.new_page()
    await page.goto(f"{shown.url}/#token=of-an-older-one")
    await expect(page.get_by_text("This is not the address that was printed")).to_be_visible()
    # Nothing is loaded: what stands behind the # alone is another.
    await page.goto(f"{shown.url}/#token={shown.token}")
    await expect(page.get_by_text("No pod runs")).to_be_visible()
    await page.get_by_role("navigation").get_by_role("button", name="Money").click()
    await page.goto(f"{shown.url}/#token={shown.token}")
    await expect(page.get_by_text("This address has been used")).to_be_visible()
    await expect(page).to_have_url(f"{shown.url}/#money")
    await page.get_by_role("button", name="Read anew").click()
    await expect(page.locator("nav [aria-current=page]")).to_have_text("Money")


async def test_views_are_in_the_history(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        await opened(page, shown)
        current = page.locator("nav [aria-current=page]")
        await page.get_by_role("navigation").get_by_role("button", name="Market").click()
        await page.get_by_role("navigation").get_by_role("button", name="Money").click()
        await page.go_back()
        await expect(current).to_have_text("Market")
        await page.reload()
        await expect(current).to_have_text("Market")
        await page.go_back()
        await expect(current).to_have_text("Pods")
        await expect(page).to_have_url(f"{shown.url}/")
        await page.go_forward()
        await page.go_forward()
        await expect(current).to_have_text("Money")
        await page.evaluate("location.hash = '#market'")
        await expect(current).to_have_text("Market")


async def test_no_other_page_may_frame_it(browser: Browser, shown: Shown) -> None:
    page = await browser.new_page()
    async with page.expect_console_message(lambda message: "frame-ancestors" in message.text, timeout=60_000):
        await page.set_content(f'<iframe src="{shown.url}/"></iframe>')


async def test_a_click_is_no_consent(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        session = await opened(page, shown)
        rent(shown, session, "train")
        await page.get_by_role("button", name="Read anew").click()
        for answer in ("No", "Yes"):
            await page.get_by_role("button", name="Remove train").first.click()
            await page.get_by_label("Back up first").uncheck()
            await page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True).click()
            question = page.get_by_role("dialog", name="The server asks you")
            await expect(question).to_contain_text("train")
            assert pods(shown, session) == ["train"], "nothing happens before an answer"
            await question.get_by_role("button", name=answer, exact=True).click()
            await expect(question).to_be_hidden()
            said = {"No": "Nothing was done", "Yes": "removed"}[answer]
            await expect(page.get_by_role("status").filter(has_text=said).first).to_be_visible()
            assert pods(shown, session) == (["train"] if answer == "No" else [])


async def test_what_limits_refuse_is_said_before_a_rent_and_is_what_the_server_says(
    browser: Browser, tmp_path: Path
) -> None:
    limits = {"LIUM_MCP_MAX_HOURS": "12", "LIUM_MCP_BUDGET_USD": "0.5", "LIUM_MCP_ALLOW_GPU_TYPES": "A100"}
    with showing(tmp_path, "dashboard", "--no-browser", "--sandbox", **limits) as shown:
        async with tab(browser) as page:
            await opened(page, shown)
            await page.get_by_role("navigation").get_by_role("button", name="Market").click()
            await page.get_by_label("GPU", exact=True).fill("A100")
            await page.get_by_role("button", name="Rent A100").first.click()
            sheet = page.get_by_role("dialog", name="Rent it")
            await sheet.get_by_role("button", name="1 h", exact=True).click()
            await expect(sheet.get_by_text("for 1 h,")).to_be_visible()
            said = sheet.locator(".refusals")
            await expect(said).to_contain_text("will refuse it:Budget: $0.50 is left")
            await expect(said).not_to_contain_text("GPU types")
            await sheet.get_by_role("button", name="24 h").click()
            await expect(said).to_contain_text("Life of a pod: at most 12 h, and this is for 1 d.")
            await sheet.get_by_role("button", name="Rent it").click()
            # The limit that the server looks at first.
            await expect(page.get_by_role("status").filter(has_text="at most 12 are allowed")).to_be_visible()


async def test_the_clock_of_the_sandbox_can_be_turned_on_it(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        session = await opened(page, shown)

        def today() -> str:
            with shown.caller(**said_by(session, shown.url)) as http:
                return str(http.get("/_sandbox/clock").json()["now"])[:10]

        before = today()
        await page.get_by_role("button", name="Sandbox").click()
        await page.get_by_role("dialog").get_by_role("button", name="1 d").click()
        async with asyncio.timeout(60):
            while today() == before:  # noqa: ASYNC110 - no event reaches us from there
                await asyncio.sleep(0.05)


async def test_it_says_when_the_dashboard_is_gone(browser: Browser, shown: Shown) -> None:
    page = await browser.new_page()
    await opened(page, shown)
    assert shown.stop() == 0
    await page.get_by_role("button", name="Read anew").click()
    await expect(page.get_by_text("does not answer").first).to_be_visible()
