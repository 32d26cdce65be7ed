"""What an answer is made of: it holds for as long as its readings are the newest, and keeps none of them in memory."""

import gc
import weakref

import anyio

from lium_mcp.api.client import LiumClient
from lium_mcp.api.shared_readings import NOBODY, noting_sources
from lium_mcp.sandbox import API_KEY, Sandbox
from tests.api.fakes import client_on
from tests.faults.virtual_time import LoopClock, run_virtually

SHORT_SECONDS = 0.5


def reading() -> LiumClient:
    return client_on(Sandbox(seed=7, speed=0).transport(), api_key=API_KEY, clock=LoopClock())


def test_sources_hold_while_their_readings_are_the_newest_and_keep_none() -> None:
    async def main() -> None:
        async with reading() as lium:
            with noting_sources() as sources:
                market = await lium.executors.market(most_seconds=SHORT_SECONDS)
            assert sources.owners == {NOBODY}
            assert sources.still_hold()
            rows = weakref.ref(market.value)
            del market
            await anyio.sleep(3 * SHORT_SECONDS)
            gc.collect()
            assert rows() is None
            assert not sources.still_hold()

    run_virtually(main())


def test_what_was_asked_for_anew_does_not_hold() -> None:
    async def main() -> None:
        async with reading() as lium:
            with noting_sources() as sources:
                await lium.executors.market()
                await lium.pods.lately()
            assert sources.still_hold()
            assert len(sources.owners) == 2
            with noting_sources() as sources:
                await lium.executors.market()
                await lium.ssh_keys.list()
            assert not sources.still_hold()
            with noting_sources() as sources:
                pass
            assert not sources.still_hold(), "nothing was read"

    run_virtually(main())
