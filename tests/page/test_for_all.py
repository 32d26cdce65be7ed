"""That nobody is kept out: axe finds no fault in any view, light or dark, narrow or wide."""

import json
import time
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, expect

from tests.compat.installs import installed
from tests.page.conftest import tab
from tests.page.test_in_browser import opened, rent
from tests.pages import Shown

_DRAWN_SECONDS: Final = 60.0


async def faults(page: Page) -> list[Any]:
    """What axe finds in what is shown now."""
    axe = (installed("page_host") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    await page.evaluate(axe)
    found = await page.evaluate("axe.run().then((result) => result.violations)")
    return [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]]) for each in found]


async def comes_to_be(page: Page, faults: str, where: str) -> None:
    """Wait until a function of the page finds no fault: what is drawn by its width is drawn anew once that is known."""
    deadline = time.monotonic() + _DRAWN_SECONDS
    while found := await page.evaluate(faults):
        assert time.monotonic() < deadline, f"{where}: {found}"
        await page.wait_for_timeout(50)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_axe_finds_no_fault(browser: Browser, shown: Shown, theme: Any, width: int) -> None:
    async with tab(browser, width=width) as page:
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        session = await opened(page, shown)
        rent(shown, session, "train")
        for view in ("Pods", "Market", "Money"):
            await page.get_by_role("navigation", name="Views").get_by_role("button", name=view).click()
            await page.get_by_role("button", name="Read anew").click()
            await expect(page.locator("[aria-busy=true]")).to_have_count(0)
            await page.wait_for_timeout(500)
            found = await faults(page)
            assert found == [], f"{view}: {json.dumps(found, indent=1)}"
            await comes_to_be(page, TOO_WIDE, f"{view} is wider than the window")
        await page.get_by_role("navigation", name="Views").get_by_role("button", name="Pods").click()
        await page.get_by_role("button", name="Details of train").click()
        await page.get_by_role("button", name="Change removal", exact=True).click()
        await page.get_by_role("dialog").get_by_role("button", name="7 d").click()
        assert await faults(page) == []


TOO_WIDE = """() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  return scrollWidth > clientWidth ? [scrollWidth] : [];
}"""
CUT_OFF = """() => {
  const cut = [...document.querySelectorAll(".table-box, .figure .value, .figure .note, .badge, button, .line, .head")]
    .filter((each) => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1)
    .map((each) => `${each.className} ${each.textContent.slice(0, 40)}`);
  const outside = [...document.querySelectorAll(".plot text")].filter((each) => {
    const [own, panel] = [each, each.closest(".panel")].map((one) => one.getBoundingClientRect());
    return own.left < panel.left || own.right > panel.right;
  });
  return [...cut, ...outside.map((each) => each.textContent)];
}"""


async def test_nothing_is_cut_off_at_any_width(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        session = await opened(page, shown)
        rent(shown, session, "train")
        for view in ("Pods", "Market", "Money"):
            await page.get_by_role("navigation", name="Views").get_by_role("button", name=view).click()
            await page.get_by_role("button", name="Read anew").click()
            await expect(page.locator(".loading")).to_have_count(0)
            for width in (*range(320, 960, 40), 1100, 1280, 1600):
                await page.set_viewport_size({"width": width, "height": 900})
                await page.wait_for_timeout(100)
                await comes_to_be(page, CUT_OFF, f"{view} at {width}")


async def test_who_wants_it_still_gets_it_still(browser: Browser, shown: Shown) -> None:
    async with tab(browser) as page:
        await page.emulate_media(reduced_motion="reduce")
        session = await opened(page, shown)
        rent(shown, session, "train")
        await page.get_by_role("button", name="Change removal of train").click()
        moving = """[...document.querySelectorAll("*")].map((each) => getComputedStyle(each))
            .flatMap((style) => [style.transitionDuration, style.animationDuration]).filter((time) => time !== "0s")"""
        assert await page.evaluate(moving) == []
