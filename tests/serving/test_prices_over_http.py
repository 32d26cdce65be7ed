"""Earlier prices over HTTP: of the market that all callers read together, by Lium's clock, and of no key's own."""

import asyncio
from pathlib import Path

from tests.compat.simulated import Simulated
from tests.http_server import calling, serving

CALLERS: tuple[dict[str, str], ...] = ({"X-API-Key": "sk_sandbox"}, {"X-API-Key": "sk_sandbox_other"}, {})


def files_below(folder: Path) -> list[Path]:
    return list(folder.rglob("price-history*"))


async def test_whoever_looks_adds_to_what_all_see(lium: Simulated, tmp_path: Path) -> None:
    seen = []
    with serving(tmp_path / "home", LIUM_BASE_URL=lium.base_url) as served:
        for headers in CALLERS:
            async with calling(served.url, "modern", headers) as caller:
                [row] = (await caller.call("get_gpu_prices", gpu_type="H100 PCIe", history_days=1))["gpu_types"]
            seen.append(len(row["past"]["history"]["at"]) if "past" in row else 0)
            lium.turn(minutes=11)
            await asyncio.sleep(2.1)  # for so long a reading is everybody's
    assert seen == [0, 1, 2]
    assert len(lium.requests("GET", "/executors")) == len(CALLERS), "nobody asks for the sake of a sample"
    assert files_below(tmp_path) == [], "a simulated market is remembered in memory"
