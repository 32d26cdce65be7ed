"""What is said of a rent before and after it: what goes into the pod, and that a spot node may be taken back."""

import asyncio
from typing import Any, Final

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Person, agent_on
from tests.wires import Wire, ask, make_template, rents

WISH: Final[dict[str, Any]] = {"name": "train", "gpu_type": "RTX4090", "hours": 2}


async def test_a_person_is_told_template_volume_and_backup(sandbox: Sandbox) -> None:
    template_id = await make_template(sandbox, "mine")
    person = Person("yes")
    async with agent_on(sandbox, person=person) as agent:
        await agent.call("create_volume", name="data")
        await agent.call("rent_pod", **WISH, template="mine", volume="data", wait_seconds=300)
        backup = (await agent.call("create_backup", pod="train", wait_seconds=300))["backup"]["backup_id"]
        await agent.call("rent_pod", **WISH | {"name": "copy"}, backup_id=backup, wait_seconds=0)
    first, second = person.questions[0], person.questions[-1]
    assert f'It runs template "mine" ({template_id}). Volume "data" is attached.' in first
    assert f'Backup "{backup}" is restored into it.' in second
    assert "Volume" not in second


async def test_a_template_that_lium_picks_is_called_so(sandbox: Sandbox) -> None:
    person = Person("no")
    async with agent_on(sandbox, person=person) as agent:
        await agent.refused("rent_pod", **WISH)
    assert "It runs a default template of Lium's." in person.questions[0]


async def test_who_rents_on_a_spot_node_is_warned(sandbox: Sandbox) -> None:
    person = Person("yes")
    async with agent_on(sandbox, person=person) as agent:
        planned = await agent.call("rent_pod", **WISH, tier="spot", dry_run=True)
        rented = await agent.call("rent_pod", **WISH, tier="spot")
        shown = await agent.call("get_pod", pod="train")
    for said in (person.questions[0], planned["warnings"][0], *rented["pod"]["warnings"], *shown["pod"]["warnings"]):
        assert "This is a spot node: it may be taken back at any time" in said
    assert "spot" not in str(rented.get("warnings"))  # once is enough


async def test_a_secure_node_needs_no_such_warning(agent: Agent) -> None:
    rented = await agent.call("rent_pod", **WISH, tier="secure")
    assert "spot node" not in str(rented)


async def test_a_name_that_only_a_public_template_has_points_to_its_id(sandbox: Sandbox, agent: Agent) -> None:
    templates = await ask(sandbox, "GET", "/templates")
    me = await ask(sandbox, "GET", "/users/me")
    public = next(row for row in templates if row["user_id"] != me["id"])
    failure = await agent.refused("rent_pod", **WISH, template=public["name"])
    assert failure.code == "template_not_found"
    assert public["id"] in failure.text
    assert "list_templates(search=...)" in failure.text
    assert rents(sandbox) == []


async def test_who_waits_for_rents_of_another_server_hears_that_it_may_have_ended(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    held = wire.hold("POST", "/executors/*/rent")
    async with agent_on(sandbox, transport=wire) as first, agent_on(sandbox) as second:
        batch = asyncio.create_task(first.raw("rent_pod", **WISH, count=2, wait_seconds=0))
        await held.reached()
        failure = await second.refused("rent_pod", **WISH | {"name": "other"}, wait_seconds=0)
        held.let_go()
        await batch
    assert failure.code == "rent_unsettled"
    assert "If the server that was to send them has ended, they are given up soon." in failure.text
