"""Takes the pictures of the page that the documentation shows: each view, light and dark, narrow and wide.

`make pictures` runs it. The world in them is the sandbox's, after a week of prices and a day of work.
"""

import asyncio
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
from playwright.async_api import Browser, async_playwright

from tests.pages import Shown, call, said_by, showing

PICTURES: Final = Path(__file__).parents[2] / "docs" / "page"
VIEWS: Final = ("Pods", "Market", "Money")
THEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
SIZES: Final = ((1280, 860), (360, 780))
_WIDE: Final = 1000
_LIMITS: Final = {"LIUM_MCP_BUDGET_USD": "250", "LIUM_MCP_MAX_PODS": "6", "LIUM_MCP_MAX_BURN_PER_HOUR_USD": "12"}
# Readings of the market are shared for about so long.
_SHARED_SECONDS: Final = 1.5
_WISHES: Final[tuple[dict[str, Any], ...]] = (
    {"name": "llama-finetune", "gpu_type": "A100 80GB PCIe", "gpu_count": 2, "hours": 48, "tier": "secure"},
    {"name": "eval-nightly", "gpu_type": "RTX4090", "hours": 30, "tier": "secure"},
    {"name": "notebook", "gpu_type": "L40S", "hours": 72, "tier": "secure"},
    {"name": "h200-tonight", "gpu_type": "H200", "max_usd_per_gpu_hour": 0.9, "hours": 6, "keep_trying_hours": 48},
)


class _Agent:
    """Who works meanwhile, looks at prices now and then, and says yes to everything."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def does(self, tool: str, **arguments: Any) -> None:
        result: dict[str, Any] = call(self._http, tool, **arguments).json()["result"]
        while "inputRequests" in result:
            yes = {key: {"action": "accept", "content": {"confirm": True}} for key in result["inputRequests"]}
            again = {"inputResponses": yes, "requestState": result["requestState"]}
            result = call(self._http, tool, **arguments, **again).json()["result"]
        assert not result["isError"], result

    def waits(self, hours: float) -> None:
        self._http.post("/_sandbox/clock", json={"advance_seconds": hours * 3600}).raise_for_status()

    def looks_on(self, hours: int, *, every: int) -> None:
        for _ in range(hours // every):
            self.waits(every)
            time.sleep(_SHARED_SECONDS)
            self.does("get_gpu_prices")


def work(agent: _Agent) -> None:
    """A week of prices, and then a day of work."""
    agent.looks_on(150, every=6)
    for wish in _WISHES:
        agent.does("rent_pod", **wish, wait_seconds=0)
    agent.waits(0.1)
    agent.does("create_backup", pod="llama-finetune", wait_seconds=0)
    agent.looks_on(22, every=2)
    agent.does("create_backup", pod="notebook", wait_seconds=0)
    agent.looks_on(4, every=2)
    agent.does("start_job", pod="llama-finetune", command="sleep 3000", name="sft-epoch-3", max_hours=6)


async def take(browser: Browser, shown: Shown, session: str) -> None:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    for theme in THEMES:
        for width, height in SIZES:
            context = await browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme, reduced_motion="reduce"
            )
            await context.add_init_script(f"sessionStorage.setItem('lium-session', '{session}')")
            page = await context.new_page()
            await page.goto(shown.url)
            for view in VIEWS:
                await page.get_by_role("navigation", name="Views").get_by_role("button", name=view).click()
                await page.locator(".freshness", has_text=re.compile("ago|date")).wait_for()
                if view == "Pods" and width > _WIDE:
                    await page.get_by_role("button", name="Details of llama-finetune").click()
                await page.wait_for_timeout(4000)
                await page.screenshot(path=PICTURES / f"{view.lower()}-{width}-{theme}.png")
            await context.close()


async def main() -> None:
    """Let it be worked, and take the pictures."""
    home = Path(tempfile.mkdtemp())
    try:
        with showing(home, "dashboard", "--no-browser", "--sandbox", **_LIMITS) as shown:
            session = shown.session()
            with shown.caller(**said_by(session, shown.url)) as http:
                work(_Agent(http))
            async with async_playwright() as playwright:
                program = shutil.which("chromium")
                browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                await take(browser, shown, session)
                await browser.close()
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    asyncio.run(main())
