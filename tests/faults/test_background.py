"""How often a server lists pods between calls, in an hour of virtual time, and that no call waits.

It does so for a rent that is lost, and for one of whose pod Lium does not state what was asked for.
"""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client

from lium_mcp.rentals.identity import key_tag
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
