"""What speaks against a node or a template, said where one chooses and where one rents."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person, agent_on
from tests.wires import Wire, ask, editing, make_template, rent, rents, truth

Row = dict[str, Any]

CAPPED = {"gpu_power_limited": True, "gpu_power_limit_w": 280, "gpu_power_limit_default_w": 350}
# The node's row, what an offer shows of it, what a warning says of it.
FLAWS: list[tuple[Row, Row, str]] = [
    ({"frequent_rent_failures": True}, {"often_fails_to_start": True}, "often fail to start"),
    (CAPPED, {"power_capped": True}, "280 W each, where 350 W"),
    (CAPPED | {"gpu_power_limit_w": None}, {"power_capped": True}, "power cap: they are slower"),
    ({"notice_period": "down at noon"}, {"maintenance": 'the provider says "down at noon"'}, '"down at noon"'),
    ({"notice_period": {"h": 24}}, {"maintenance": 'the provider says "h: 24"'}, '"h: 24"'),
    (
        {"notice_period": {"starts_at": "2026-12-01T00:00:00", "until": None, "of": ["disk", {"gpus": True}]}},
        {"maintenance": 'the provider says "starts_at: 2026-12-01T00:00:00, of: disk; gpus: yes"'},
        "of: disk; gpus: yes",
    ),
    ({"notice_period": '{"at": "noon"}'}, {"maintenance": 'the provider says "at: noon"'}, '"at: noon"'),
    ({"notice_period": 24}, {"maintenance": 'the provider says "24"'}, '"24"'),
    ({"notice_period": 0, "frequent_rent_failures": None}, {}, ""),
    ({"notice_period": {}, "gpu_power_limited": None}, {}, ""),
]
SPOT = "This is a spot node: it may be taken back at any time"
UNFLAWED: Row = {"frequent_rent_failures": False, "gpu_power_limited": False}


def flawed(wire: Wire, flaw: Row) -> None:
    """Let every node have it, and nothing else that speaks against it."""
    wire.on("GET", "/executors", editing(lambda nodes: [node | UNFLAWED | flaw for node in nodes]))


@pytest.mark.parametrize(("flaw", "offered", "said"), FLAWS, ids=lambda value: str(value)[:40])
async def test_a_flaw_of_a_node_is_said_wherever_one_chooses_it_or_rents(
    sandbox: Sandbox, flaw: Row, offered: Row, said: str
) -> None:
    wire = Wire(sandbox)
    flawed(wire, flaw)
    async with agent_on(sandbox, transport=wire) as agent:
        offer = (await agent.call("list_gpus", gpu_type="A100", limit=1))["offers"][0]
        node = {"executor_id": offer["executor_id"]}
        answers = [
            await agent.call("quote_rental", **node),
            await agent.call("rent_pod", name="train", dry_run=True, **node),
            await agent.call("rent_pod", name="train", hours=1, **node),
        ]
    flaws = {"often_fails_to_start", "power_capped", "maintenance"}
    assert {name: offer[name] for name in flaws & set(offer)} == offered
    for answer in answers:
        # Others are of whether this machine could log in.
        about_the_node = [text for text in answer.get("warnings", []) if "SSH" not in text]
        assert len(about_the_node) == bool(said)
        assert said in "".join(about_the_node)


async def test_a_person_is_asked_with_the_flaw_of_the_named_node(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    flawed(wire, {"frequent_rent_failures": True})
    person = Person("no")
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        offer = (await agent.call("list_gpus", gpu_type="A100", limit=1))["offers"][0]
        await agent.refused("rent_pod", name="train", executor_id=offer["executor_id"], hours=1)
    assert "often fail to start" in person.questions[0]


async def test_another_node_than_planned_has_its_own_flaws(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    flawed(wire, {"frequent_rent_failures": True})
    taken = {"executor_id": "11111111-1111-4111-8111-111111111111"}
    wire.on("GET", "/pods/*", editing(lambda pod: pod | taken | {"executor": pod["executor"] | taken | UNFLAWED}))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=1)
    assert not any("often fail" in warning for warning in rented.get("warnings", []))


async def test_a_notice_of_maintenance_is_shown_with_the_pods_of_the_node(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    pod = next(row for row in truth(sandbox, "pods") if row["id"] == pod_id)
    async with agent_on(sandbox) as agent:
        assert "maintenance" not in (await agent.call("list_pods"))["pods"][0]
        sandbox.add_fault("provider_notice", executor_id=pod["executor_id"], message='reboot "soon"\n at noon')
        sandbox.clock.advance(seconds=3)  # a list is shown for two
        (listed,) = (await agent.call("list_pods"))["pods"]
        shown = (await agent.call("get_pod", pod=pod_id))["pod"]
    assert "\"reboot 'soon' at noon\"" in listed["maintenance"]
    assert shown["maintenance"] == listed["maintenance"]


async def test_a_template_that_failed_its_check_is_told_in_the_list_and_starts_no_pod(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    sandbox.add_fault("template_verify_fails", message="no such image")
    body = {"name": "mine", "docker_image": "me/none", "docker_image_tag": "1", "is_private": True}
    template = (await ask(sandbox, "POST", "/templates", body))["id"]
    sandbox.clock.advance(minutes=2)
    before = len(rents(sandbox))
    async with agent_on(sandbox) as agent:
        rows = (await agent.call("list_templates", limit=100))["templates"]
        refusals = [
            await agent.refused("rent_pod", name="new", gpu_type="A100", template="mine", hours=1),
            await agent.refused("rent_pod", name="new", gpu_type="A100", template=template, dry_run=True),
            await agent.refused("switch_pod_template", pod=pod_id, template="mine"),
        ]
    assert {row["template_id"] for row in rows if "failed Lium's check" in row.get("problem", "")} == {template}
    assert {refusal.code for refusal in refusals} == {"template_failed"}
    assert len(rents(sandbox)) == before
    assert truth(sandbox, "pods")[0]["status"] == "RUNNING"


def all_spot(sandbox: Sandbox) -> Wire:
    """Let every node of the market be one that may be taken back."""
    wire = Wire(sandbox)
    flawed(wire, {"tier": "spot"})
    return wire


async def test_a_spot_node_is_said_once_of_several_pods() -> None:
    sandbox, person = Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6), Person("yes")
    wish: Row = {"name": "train", "gpu_type": "RTX4090", "count": 3, "hours": 1}
    async with agent_on(sandbox, transport=all_spot(sandbox), person=person) as agent:
        answers = [await agent.call("rent_pod", **wish, dry_run=True), await agent.call("rent_pod", **wish)]
    for answer in answers:
        assert sum(SPOT in text for text in answer["warnings"]) == 1
        assert all(row["tier"] for row in answer["pods"])
        assert all(row["template"] for row in answer["pods"])
    assert person.questions[0].count(SPOT) == 1


async def test_a_spot_node_is_said_of_those_pods_alone_that_have_one(sandbox: Sandbox) -> None:
    wire, person = Wire(sandbox), Person("no")

    def one_spot(nodes: list[Row]) -> list[Row]:
        cheapest = min(
            (node for node in nodes if "4090" in node["machine_name"]), key=lambda node: node["price_per_gpu"]
        )
        return [node | UNFLAWED | {"tier": "spot" if node["id"] == cheapest["id"] else "secure"} for node in nodes]

    wire.on("GET", "/executors", editing(one_spot))
    wish: Row = {"name": "train", "gpu_type": "RTX4090", "count": 3, "hours": 1, "gpu_count": 1}
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        planned = await agent.call("rent_pod", **wish, dry_run=True)
        await agent.refused("rent_pod", **wish)
    spot = [row for row in planned["pods"] if row["tier"] == "spot"]
    if len(spot) == 1:
        assert SPOT in spot[0]["problem"]
    assert f"Of {len(spot)} of them: {SPOT}" in person.questions[0]


async def test_a_run_on_a_spot_node_says_so(sandbox: Sandbox) -> None:
    person = Person("yes")
    wish: Row = {"name": "train", "gpu_type": "RTX4090", "command": "sleep 600", "max_total_usd": 5, "hours": 100}
    async with agent_on(sandbox, transport=all_spot(sandbox), person=person) as agent:
        run = await agent.call("run_job", **wish, wait_seconds=10)
    assert sum(SPOT in text for text in run["warnings"]) == 1
    assert sum("of the 100 hours asked for fit into max_total_usd" in text for text in run["warnings"]) == 1
    assert person.questions[0].count(SPOT) == 1


async def test_templates_that_differ_by_node_are_said(sandbox: Sandbox) -> None:
    wire, drivers = Wire(sandbox), ["550.0", "580.0"]

    def differing(nodes: list[Row]) -> list[Row]:
        sure = [node for node in nodes if "4090" in node["machine_name"] and node.get("min_gpu_count_for_rental") == 1]
        two = sorted(sure, key=lambda node: node["price_per_gpu"])[:2]
        for node, driver in zip(two, drivers, strict=True):
            node["available_gpu_count"] = 1
            node["specs"]["gpu"]["driver"] = driver
        return two

    wire.on("GET", "/executors", editing(differing))
    async with agent_on(sandbox, transport=wire) as agent:
        planned = await agent.call("rent_pod", name="train", gpu_type="RTX4090", count=2, dry_run=True)
        named = await agent.call(
            "rent_pod",
            name="train",
            gpu_type="RTX4090",
            count=2,
            dry_run=True,
            template=await make_template(sandbox, "a"),
        )
    assert len({row["template"] for row in planned["pods"]}) == 2
    assert "Their templates differ" in " ".join(planned["warnings"])
    assert "Their templates differ" not in str(named)
