"""How often a server asks Lium between calls, in an hour of virtual time, and that no call waits.

It lists pods for a rent that is lost, and for one of whose pod Lium does not state what was asked for, and nodes for
standing orders.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client

from lium_mcp.rentals import key_tag
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from tests.faults.virtual_time import LoopClock, run_virtually
from tests.rentals.entries import admit, allow, an_entry
from tests.wires import Act, Forward, Wire, answering

BASE_URL = "http://127.0.0.1/api"
KEY = "sk_sandbox"
HOUR_SECONDS = 3600.0
LISTED = {"id": "p", "pod_name": "train", "status": "RUNNING"}
LOST: dict[str, Any] = {"status": "unknown"}
NOT_STATED: dict[str, Any] = {
    "status": "rented",
    "pod_ids": ["p"],
    "kept_pod_ids": ["p"],
    "confirmed": True,
    "expected": {"countries": ["US"]},
}


@pytest.fixture(autouse=True)
def calls_alone() -> None:
    """Here servers also act between calls, and when they do so by themselves."""


def noting(act: Act, note: Callable[[], None]) -> Act:
    async def noted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        note()
        return await act(request, forward)

    return noted


@pytest.mark.parametrize(
    ("became", "rows", "whose", "most_lists", "unsettled"),
    [
        (LOST, [], KEY, 4, 0),
        (LOST, [], "another", 1, 1),
        (LOST, ["no row"], KEY, 16, 1),
        (LOST, [LISTED], KEY, 16, 0),
        (NOT_STATED, [LISTED], KEY, 16, 0),
    ],
    ids=["complete lists", "another key's rent", "lists with gaps", "a pod of its name", "a country never stated"],
)
def test_lists_for_a_rent_grow_rare_and_a_caller_gets_one_at_once(
    tmp_path: Path, became: dict[str, Any], rows: list[Any], whose: str, most_lists: int, unsettled: int
) -> None:
    async def main() -> None:
        clock = LoopClock()
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        ledger = Ledger(url)
        asked = clock.now() - timedelta(minutes=7)
        fields: dict[str, Any] = {
            "account": key_tag(KEY, BASE_URL),
            "key_tag": key_tag(whose, BASE_URL),
            "created_at": asked,
        }
        entry = await admit(ledger, an_entry(**fields, known_pod_ids=[]), allow)
        await ledger.change(entry, now=asked, **became)
        await ledger.aclose()
        at: list[float] = []
        lium = Wire()
        lium.on("*", "**", answering(404, {"detail": "nothing there"}))
        lium.on("GET", "/users/me", answering(200, {"id": "user"}))
        lium.on("GET", "/pods", noting(answering(200, rows), lambda: at.append(clock.monotonic())))
        settings = Settings(api_key=KEY, base_url=BASE_URL, state_url=url, ssh_key_path=Path("no-such-key"))
        async with Client(build_server(settings, transport=lium, clock=clock)) as client:
            await anyio.sleep(HOUR_SECONDS)
            pauses = [later - earlier for earlier, later in pairwise(at)]
            assert len(at) <= most_lists, at
            assert not unsettled or pauses == sorted(pauses)
            before, called_at = len(at), clock.monotonic()
            seen = (await client.call_tool("list_pods", {})).structured_content or {}
            assert len(seen.get("unsettled", [])) == unsettled
            assert len(at) > before, "who asks gets a list"
            assert clock.monotonic() - called_at < 1

    run_virtually(main())


NODE = {
    "id": "n",
    "machine_name": "NVIDIA A100 80GB PCIe",
    "price_per_gpu": 2.0,
    "available_gpu_count": 8,
    "min_gpu_count_for_rental": 1,
}


@pytest.mark.parametrize("orders", [1, 8])
def test_however_many_orders_wait_the_market_is_read_for_all_of_them_together(tmp_path: Path, orders: int) -> None:
    async def main() -> None:
        clock = LoopClock()
        lium = Wire()
        lium.on("GET", "/users/me", answering(200, {"id": "user"}))
        lium.on("GET", "/pods", answering(200, []))
        lium.on("GET", "/version", answering(200, {"features": []}))
        lium.on("GET", "/machines", answering(200, [{"name": NODE["machine_name"]}]))
        lium.on("GET", "/executors", answering(200, [NODE]))
        url = f"sqlite:///{tmp_path / 'ledger.db'}"
        settings = Settings(api_key=KEY, base_url=BASE_URL, state_url=url)
        async with Client(build_server(settings, transport=lium, clock=clock)) as client:
            for number in range(orders):
                wish = {"name": f"o{number}", "gpu_type": "A100", "hours": 1, "max_usd_per_gpu_hour": 1}
                placed = await client.call_tool("rent_pod", wish | {"keep_trying_hours": 24})
                assert not placed.is_error, placed.content
                await anyio.sleep(7)
            await anyio.sleep(60)
            lium.requests.clear()
            await anyio.sleep(HOUR_SECONDS / 3)
            reads = len(lium.sent("GET", "/executors"))
            assert HOUR_SECONDS / 3 / 75 <= reads <= HOUR_SECONDS / 3 / 20
            # What Lium can do is asked again now and then.
            assert len(lium.requests) - reads == len(lium.sent("GET", "/version")) <= HOUR_SECONDS / 3 / 600
            seen = (await client.call_tool("list_pods", {})).structured_content or {}
            assert all(row["status"] == "waiting" for row in seen["orders"])
            looked = [datetime.fromisoformat(row["looked_at"]) for row in seen["orders"]]
            assert len(looked) == orders
            assert min(looked) > clock.now() - timedelta(seconds=100)

    run_virtually(main())
