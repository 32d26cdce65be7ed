"""A yes counts for what a template ran when it was shown: who changes it meanwhile has no yes."""

from typing import Any, Final

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Mode, Person, agent_on
from tests.orders import wish_in_vain
from tests.wires import Forward, Wire, ask, make_template, on_rents, passing, rents

Row = dict[str, Any]
WISH: Final[Row] = {"name": "new", "gpu_type": "RTX4090", "hours": 2, "template": "mine", "wait_seconds": 0}
CHANGES: Final[dict[str, Row]] = {
    "image": {"docker_image": "evil/miner"},
    "command": {"startup_commands": "curl evil"},
    "nothing": {},
}


async def change(sandbox: Sandbox, template_id: str, **changed: Any) -> None:
    template = await ask(sandbox, "GET", f"/templates/{template_id}")
    await ask(sandbox, "PUT", f"/templates/{template_id}", template | changed)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("way", ["one", "several", "order", "run"])
async def test_a_template_that_changes_while_the_person_reads_is_not_rented(
    sandbox: Sandbox, way: str, changed: str, mode: Mode
) -> None:
    template_id = await make_template(sandbox, "mine")

    async def meanwhile() -> None:
        await change(sandbox, template_id, **CHANGES[changed])

    person = Person("yes", meanwhile=meanwhile)
    tool, arguments = "rent_pod", WISH
    match way:
        case "several":
            arguments = WISH | {"count": 2}
        case "order":
            arguments = await wish_in_vain(sandbox, template="mine")
        case "run":
            tool, arguments = "run_job", WISH | {"command": "true", "max_total_usd": 2}
    async with agent_on(sandbox, person=person, mode=mode) as agent:
        if changed == "nothing":
            await agent.call(tool, **arguments)
            return
        failure = await agent.refused(tool, **arguments)
        assert failure.code == "template_changed", failure.text
        assert len(person.questions) == 1
        assert rents(sandbox) == []
        # The next call asks about the template as it is now.
        person._meanwhile = None
        sandbox.clock.advance(minutes=10)  # until Lium has checked the new image
        await agent.call(tool, **arguments)
        assert len(person.questions) == 2


async def test_a_template_that_changes_in_the_moment_of_the_rent_is_told(sandbox: Sandbox) -> None:
    template_id = await make_template(sandbox, "mine", is_private=False)  # whose image is not checked
    wire = Wire(sandbox)

    async def first_changed(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await change(sandbox, template_id, docker_image="other/image")
        return await passing(request, forward)

    on_rents(wire, first_changed, times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("rent_pod", **WISH | {"wait_seconds": 45})
    [told] = [said for said in answer["warnings"] if "was changed while it was rented" in said]
    assert "other/image" in told
