"""That nobody is kept out: axe finds no fault in any view, light or dark, narrow or wide."""

import json
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.compat.installs import installed
from tests.page.conftest import tab
from tests.page.test_in_browser import opened, rent
from tests.pages import Shown


async def faults(page: Page) -> list[Any]:
    """What axe finds in what is shown now."""
    axe = (installed("page_host") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    await page.evaluate(axe)
    found = await page.evaluate("axe.run().then((result) => result.violations)")
    return [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]]) for each in found]


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
            too_wide = await page.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            )
            assert not too_wide, f"{view} is wider than the window"
