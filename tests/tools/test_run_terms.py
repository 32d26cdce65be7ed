"""What a person was shown of a run holds when its rent is planned again: the kind of GPU, and the tier."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person, agent_on
from tests.wires import Wire, editing, eventually, living

RUN: dict[str, Any] = {"name": "fit", "command": "sleep 600", "min_vram_gb": 24, "max_total_usd": 2, "hours": 2}


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked", "unasked"])
async def test_a_run_takes_the_tier_that_was_shown(sandbox: Sandbox, is_asked: bool) -> None:
    async with agent_on(sandbox) as agent:
        shown = await agent.call("rent_pod", **RUN_AS_RENT, dry_run=True)
    others = "spot" if shown["tier"] == "secure" else "secure"
    wire, is_cheap = Wire(sandbox), False

    def cheapen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not is_cheap:
            return rows
        return [row | ({"price_per_gpu": 0.01} if row["tier"] == others else {}) for row in rows]

    wire.on("GET", "/executors", editing(cheapen))

    async def meanwhile() -> None:
        nonlocal is_cheap
        is_cheap = True

    person = Person("yes", meanwhile=meanwhile)
    async with agent_on(sandbox, transport=wire, person=person if is_asked else None) as agent:
        if not is_asked:
            await meanwhile()
        await agent.call("run_job", **RUN, wait_seconds=0)
        await eventually(lambda: bool(living(sandbox)))
    [pod] = living(sandbox)
    assert (pod["executor"]["id"] == shown["executor_id"]) is is_asked


RUN_AS_RENT: dict[str, Any] = {name: value for name, value in RUN.items() if name != "command"}
