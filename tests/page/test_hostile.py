"""What others write, and answers that no server of ours gives: the page shows them as text, or says that it cannot."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from lium_mcp.sandbox import Sandbox
from tests.harness import Person
from tests.page.test_in_conversation import conversation, rent

MARKUP = '<img src=x onerror="top.hacked=window.hacked=1"><script>window.hacked=1</script>&lt;b&gt;\u202eevil\u0000'
MOST_OFFERS = 5000
_DRAWN_SECONDS = 60  # a second or two where nothing else is done


def everywhere(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Change each value in an answer that is neither a list nor an object."""

    def changed(data: Any) -> Any:
        if isinstance(data, dict):
            return {name: changed(value) for name, value in data.items()}
        if isinstance(data, list):
            return [changed(value) for value in data]
        return change(data)

    return changed


def _is_moment(value: object) -> bool:
    return isinstance(value, str) and value.startswith("20") and value.endswith("Z")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "markup in each text": everywhere(lambda value: MARKUP if isinstance(value, str) else value),
    "markup in place of figures": everywhere(lambda _: MARKUP),
    "figures that are none": everywhere(lambda value: "NaN" if isinstance(value, int | float) else value),
    "figures beyond all": everywhere(lambda value: -1e308 if isinstance(value, int | float) else value),
    "figures in place of texts": everywhere(lambda value: 7 if isinstance(value, str) else value),
    "nothing in each place": everywhere(lambda _: None),
    "moments that are none": everywhere(lambda value: "soon" if _is_moment(value) else value),
    "texts without an end": everywhere(lambda value: "w" * 20_000 if isinstance(value, str) else value),
    "an object in each place": everywhere(lambda _: {"a": [MARKUP]}),
    "nothing": lambda _: {},
    "lists in place of the answer": lambda data: [data],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_whatever_comes_stays_text_and_the_page_stays_there(
    browser: Browser, page_host: str, sandbox: Sandbox, change: Callable[[Any], Any]
) -> None:
    async with conversation(browser, page_host, sandbox, Person("yes")) as talk:
        await rent(talk.client, "train")
        talk.change = change
        await talk.show("list_pods")
        views = talk.frame.get_by_role("navigation", name="Views").get_by_role("button")
        for view in await views.all():
            await view.click()
            await expect(talk.frame.locator("[aria-busy=true]")).to_have_count(0)
            await expect(view).to_be_visible()
        async with asyncio.timeout(_DRAWN_SECONDS):
            while len(set(talk.called)) < 2:  # noqa: ASYNC110 - no event tells of what the views read
                await asyncio.sleep(0.02)
        made = "document.querySelectorAll('img, b, script:not([type=module])').length"
        assert await talk.frame.evaluate(made) == 0
        for frame in talk.page.frames:
            assert await frame.evaluate("window.hacked") is None


@pytest.mark.parametrize("count", [1000, MOST_OFFERS])
async def test_as_many_offers_as_there_can_be_are_drawn_in_time(
    browser: Browser, page_host: str, sandbox: Sandbox, count: int, record_property: Callable[[str, object], None]
) -> None:
    def many(data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("offers"):
            return data
        offers = data["offers"]
        ids = (f"{number:08d}-0000-4000-8000-000000000000" for number in range(count))
        return data | {
            "total": count,
            "offers": [offers[i % len(offers)] | {"executor_id": id_} for i, id_ in enumerate(ids)],
        }

    async with conversation(browser, page_host, sandbox, Person("yes")) as talk:
        talk.change = many
        begun = time.perf_counter()
        await talk.show("list_gpus")
        await expect(talk.frame.get_by_role("row").nth(20)).to_be_attached()
        seconds = time.perf_counter() - begun
        record_property("seconds", round(seconds, 2))
        assert seconds < _DRAWN_SECONDS
