"""A real browser, and the library of hosts that show pages: `make clients` installs the latter."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.compat.installs import installed, node
from tests.pages import Shown, showing

HERE = Path(__file__).parent
# Machines that do much else at once draw slowly.
expect.set_options(timeout=60_000)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Chromium of the system."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("there is no chromium: install the package of that name", pytrace=False)
    async with async_playwright() as playwright:
        # Who tests as root, as in a container, has no sandbox of the browser's.
        browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def page_host(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of a host that shows pages."""
    client = installed("page_host")
    bundle = tmp_path_factory.mktemp("page_host") / "host.js"
    esbuild = client / "node_modules" / "esbuild" / "bin" / "esbuild"
    subprocess.run(
        [
            *(node(client), str(esbuild), str(HERE / "host.js")),
            *("--bundle", "--format=iife", "--log-level=error", f"--outfile={bundle}"),
        ],
        env={"NODE_PATH": str(client / "node_modules")},
        check=True,
        timeout=60,
    )
    return bundle.read_text()


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    """A dashboard over a sandbox in which an hour passes in a minute."""
    with showing(tmp_path, "dashboard", "--no-browser", "--sandbox", "--sandbox-speed", "60") as page:
        yield page


@asynccontextmanager
async def tab(browser: Browser, *, width: int = 1280, height: int = 900) -> AsyncIterator[Page]:
    """A new tab, in which nothing may go wrong: no error of a script, and nothing that a policy refuses."""
    page = await browser.new_page(viewport={"width": width, "height": height})
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_default_timeout(60_000)
    yield page
    await page.close()
    assert wrong == []
