"""GPU names through the tools: what list_gpus finds, every tool finds; what comes out is what was asked and allowed."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.wires import (
    Forward,
    Wire,
    answering,
    ask,
    editing,
    living,
    losing_the_answer,
    on_rents,
    rents,
    rows_of,
    truth,
)

Row = dict[str, Any]


def a_node(number: int, machine_name: str, price: float, **fields: Any) -> Row:
    """A node of a market made by hand."""
    row = {
        "id": f"00000000-0000-4000-8000-{number:012}",
        "machine_name": machine_name,
        "price_per_gpu": price,
        "gpu_count": 2,
        "available_gpu_count": 2,
        "min_gpu_count_for_rental": 1,
        "location": {"country_code": "US"},
    }
    return {name: value for name, value in (row | fields).items() if value != "absent"}


async def market_of(sandbox: Sandbox, wire: Wire, *cards: tuple[str, str, float]) -> dict[str, str]:
    """Let nodes of the sandbox be other cards: (its own, what it is called, its price); the id of each."""
    rows = await rows_of(sandbox)
    chosen: dict[str, Row] = {}
    for own, name, price in cards:
        row = next(
            row
            for row in rows
            if own in row["machine_name"]
            and row.get("min_gpu_count_for_rental") == 1
            and row["id"] not in {other["id"] for other in chosen.values()}
        )
        chosen[name] = row | {"machine_name": name, "price_per_gpu": price}
        for card in chosen[name]["specs"]["gpu"]["details"]:
            card["name"] = name
    ids = {row["id"]: name for name, row in chosen.items()}
    wire.on("GET", "/executors", answering(200, list(chosen.values())))
    wire.on("GET", "/machines", answering(200, [{"name": name} for name in chosen]))

    def renamed(pod: Row) -> Row:
        return pod | {"gpu_name": ids.get(pod["executor_id"], pod["gpu_name"])}

    wire.on("GET", "/pods/*", editing(renamed))
    return {name: row["id"] for name, row in chosen.items()}


def loosely(ids: dict[str, str]) -> Callable[[httpx2.Request, Forward], Any]:
    """A server that picks the first node whose name has the wanted type in it, and rents that one."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        body = json.loads(request.content)
        short = body["gpu_type"].replace(" ", "").upper()
        node_id = next(ids[name] for name in ids if short in name.replace(" ", "").upper())
        if body["dry_run"]:
            answer = {"success": True, "dry_run": True, "pod_id": None, "price_per_hour": 0.5}
            return httpx2.Response(200, json=answer | {"selected_executor": {"id": node_id}})
        body = {name: value for name, value in body.items() if name not in {"gpu_type", "dry_run"}}
        url = request.url.copy_with(path=f"/api/executors/{node_id}/rent")
        return await forward(httpx2.Request("POST", url, headers=_json_headers(request), json=body))

    return act


def _json_headers(request: httpx2.Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.lower() != "content-length"}


# --- names -----------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "4090": "NVIDIA GeForce RTX 4090",
    "GeForce RTX 4090": "NVIDIA GeForce RTX 4090",
    "A100 80GB": "NVIDIA A100 80GB PCIe",
    "nvidia a100": "NVIDIA A100 80GB PCIe",
    "RTX A6000": "NVIDIA RTX A6000",
    "RTX 6000 Ada": "NVIDIA RTX 6000 Ada Generation",
    "6000 Ada": "NVIDIA RTX 6000 Ada Generation",
    "H100 PCIe": "NVIDIA H100 PCIe",
    "H100 NVL": "NVIDIA H100 NVL",
    "H100 80GB HBM3": "NVIDIA H100 80GB HBM3",
    "A100-SXM4-80GB": "NVIDIA A100-SXM4-80GB",
    "rtx pro 6000": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "H100,A100": "NVIDIA A100 80GB PCIe",
}


@pytest.mark.parametrize("wanted", SPELLINGS)
@pytest.mark.parametrize("features", [("rent_by_spec", "rent_idempotency"), ()], ids=["by spec", "old"])
async def test_every_tool_finds_what_a_name_means(wanted: str, features: tuple[str, ...]) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=features)
    names = {row["id"]: row["machine_name"] for row in await rows_of(sandbox)}
    async with agent_on(sandbox) as agent:
        listed = await agent.call("list_gpus", gpu_type=wanted, limit=100)
        prices = await agent.call("get_gpu_prices", gpu_type=wanted)
        dry = await agent.call("rent_pod", name="dry", gpu_type=wanted, dry_run=True)
        rented = await agent.call("rent_pod", name="train", gpu_type=wanted, wait_seconds=60)
    on_offer = {names[offer["executor_id"]] for offer in listed["offers"]}
    assert SPELLINGS[wanted] in on_offer
    assert {offer["gpu_type"] for offer in listed["offers"]} == {row["gpu_type"] for row in prices["gpu_types"]}
    (record,) = rents(sandbox)
    assert names[record["executor_id"]] == SPELLINGS[wanted]
    assert rented["pod"]["gpu_type"] == dry["gpu_type"]
    assert rented["pod"]["gpu_type"] in {offer["gpu_type"] for offer in listed["offers"]}
    assert dry["executor_id"] == record["executor_id"]


@pytest.mark.parametrize(("wanted", "models"), [("100", "A100, H100"), ("6000", "A6000, RTX6000 Ada, RTXPRO6000")])
async def test_a_name_of_several_models_lists_them_and_rents_none(
    sandbox: Sandbox, agent: Agent, wanted: str, models: str
) -> None:
    prices = await agent.call("get_gpu_prices", gpu_type=wanted)
    listed = await agent.call("list_gpus", gpu_type=wanted, limit=100)
    for model in models.split(", "):
        assert any(row["gpu_type"].startswith(model) for row in prices["gpu_types"])
        assert any(row["gpu_type"].startswith(model) for row in listed["offers"])
    for dry_run in (True, False):
        failure = await agent.refused("rent_pod", name="train", gpu_type=wanted, dry_run=dry_run)
        assert failure.code == "ambiguous_name"
        assert models in failure.text
    assert rents(sandbox) == []


async def test_no_match_says_what_is_on_offer_nearest_first_in_every_tool(sandbox: Sandbox, agent: Agent) -> None:
    texts = [
        (await agent.call("list_gpus", gpu_type="A1000"))["next"],
        (await agent.call("list_gpus", gpu_type="A1000", wait_seconds=10))["next"],
        (await agent.call("get_gpu_prices", gpu_type="A1000"))["next"],
    ]
    for dry_run in (True, False):
        failure = await agent.refused("rent_pod", name="train", gpu_type="A1000", dry_run=dry_run)
        assert failure.code == "no_gpu_matches"
        texts.append(failure.text)
    for text in texts:
        assert "other filters" not in text
        assert text.partition("on offer are: ")[2].startswith("A")
        assert "RTX4090" in text
    assert rents(sandbox) == []


async def test_a_type_that_is_sold_out_is_not_said_to_be_on_offer(agent: Agent) -> None:
    for tool in ("list_gpus", "get_gpu_prices"):
        assert "other filters" not in (await agent.call(tool, gpu_type="B300"))["next"]
    assert "on offer are" in (await agent.refused("rent_pod", name="p", gpu_type="B300")).text


# --- sizes and unknowns ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [("rent_by_spec", "rent_idempotency"), ()], ids=["by spec", "old"])
@pytest.mark.parametrize(("wanted", "size"), [("4090", 24), ("H100 PCIe", 80), ("L40S", 48), ("H200", 141)])
async def test_a_card_meets_the_size_that_it_is_sold_with(wanted: str, size: int, features: tuple[str, ...]) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=features)
    async with agent_on(sandbox) as agent:
        offers = (await agent.call("list_gpus", gpu_type=wanted, min_vram_gb=size))["offers"]
        assert {offer["vram_gb"] for offer in offers} == {size}
        asked = {"gpu_type": wanted, "min_vram_gb": size}
        assert (await agent.call("rent_pod", name="p", **asked, wait_seconds=0))["outcome"] == "pending"
        failure = await agent.refused("rent_pod", name="q", gpu_type=wanted, min_vram_gb=size + 1)
        assert failure.code == "no_gpu_matches"


async def test_floors_mean_the_same_whoever_picks_the_node(sandbox: Sandbox, agent: Agent) -> None:
    offers = (await agent.call("list_gpus", gpu_type="RTX4090", limit=100))["offers"]
    for name in ("ram_gb", "disk_gb"):
        # Just what the roomiest has: in the API's larger units it would be short of that.
        shown = f"node_{name}"
        floor = max(offer[shown] for offer in offers if shown in offer and offer.get("rentable_gpus", "")[:1] == "1")
        dry = await agent.call("rent_pod", name="p", gpu_type="RTX4090", **{f"min_{name}": floor}, dry_run=True)
        assert any(offer["executor_id"] == dry["executor_id"] and offer[shown] >= floor for offer in offers)


@pytest.mark.parametrize("value", [None, "absent", "many"], ids=str)
async def test_an_older_market_that_does_not_say_what_is_free_is_listed_quoted_and_rented(
    sandbox: Sandbox, value: Any
) -> None:
    def unsaid(rows: list[Row]) -> list[Row]:
        rows = [row | {"available_gpu_count": value} for row in rows]
        return [{name: what for name, what in row.items() if what != "absent"} for row in rows]

    wire = Wire(sandbox)
    wire.on("GET", "/executors", editing(unsaid))
    async with agent_on(sandbox, transport=wire) as agent:
        page = await agent.call("list_gpus", gpu_type="RTX4090")
        assert page["offers"]
        assert not any("free_gpus" in offer for offer in page["offers"])
        (prices,) = (await agent.call("get_gpu_prices", gpu_type="RTX4090"))["gpu_types"]
        assert "free_gpus" not in prices
        assert prices["nodes"] == page["total"]
        node_id = page["offers"][0]["executor_id"]
        assert (await agent.call("quote_rental", executor_id=node_id))["total_usd"] > 0
        failure = await agent.refused("quote_rental", executor_id=node_id, gpu_count=99)
        assert "does not say how many are free" in failure.text
        await agent.call("rent_pod", name="by-node", executor_id=node_id, wait_seconds=0)
        await agent.call("rent_pod", name="by-type", gpu_type="RTX4090", wait_seconds=0)
    assert len(rents(sandbox)) == 2


# --- what comes out --------------------------------------------------------------------------------------------------

PAIRS = [
    ("RTXPRO6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 6000D", {}),
    ("H20", "NVIDIA H20", "NVIDIA H200", {}),
    ("L40", "NVIDIA L40", "NVIDIA L40S", {}),
    ("4090", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090 D", {}),
    ("PRO6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA RTX PRO 6000D", {"allow_gpu_types": "PRO6000"}),
    ("H20", "NVIDIA H20", "NVIDIA H200", {"allow_gpu_types": "H20"}),
    ("H20", "NVIDIA H20", "NVIDIA H200", {"max_price_per_hour_usd": 9}),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "right", "wrong", "limits"), PAIRS, ids=str)
@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_server_that_matches_loosely_rents_no_other_card(
    sandbox: Sandbox, wanted: str, right: str, wrong: str, limits: Row, dry_run: bool
) -> None:
    wire = Wire(sandbox)
    ids = await market_of(sandbox, wire, ("4090", wrong, 0.2), ("4090", right, 0.4))
    wire.on("POST", "/executors/rent-by-spec", loosely(ids))
    async with agent_on(sandbox, transport=wire, **limits) as agent:
        answer = await agent.call("rent_pod", name="train", gpu_type=wanted, hours=1, dry_run=dry_run)
    if dry_run:
        assert answer["executor_id"] == ids[right]
    else:
        assert [record["executor_id"] for record in rents(sandbox)] == [ids[right]]


@pytest.mark.parametrize(("wanted", "right", "wrong", "_limits"), PAIRS[:2], ids=str)
async def test_a_list_of_allowed_types_allows_no_other_card(
    sandbox: Sandbox, wanted: str, right: str, wrong: str, _limits: Row
) -> None:
    wire = Wire(sandbox)
    ids = await market_of(sandbox, wire, ("4090", wrong, 0.2), ("4090", right, 0.4))
    async with agent_on(sandbox, transport=wire, allow_gpu_types=wanted) as agent:
        for where in ({"executor_id": ids[wrong]}, {"gpu_type": wrong}):
            failure = await agent.refused("rent_pod", name="train", **where)
            assert failure.code == "policy_refused"
        await agent.call("rent_pod", name="train", executor_id=ids[right], wait_seconds=0)


async def test_a_node_of_a_dry_run_that_is_another_card_is_not_taken(sandbox: Sandbox) -> None:
    rows = await rows_of(sandbox)
    other = next(row for row in rows if "H200" in row["machine_name"])
    wire = Wire(sandbox)
    wire.on("POST", "/executors/rent-by-spec", editing(lambda body: body | {"selected_executor": other}))
    async with agent_on(sandbox, transport=wire) as agent:
        dry = await agent.call("rent_pod", name="train", gpu_type="RTX4090", hours=1, dry_run=True)
    names = {row["id"]: row["machine_name"] for row in rows}
    assert names[dry["executor_id"]] == "NVIDIA GeForce RTX 4090"
    assert dry["gpu_type"] == "RTX4090"


def with_template(template: Row) -> Callable[[Row], Row]:
    return lambda pod: pod | {"template": template}


OTHER_PODS: dict[str, tuple[Row, Row]] = {
    "card": ({"gpu_name": "NVIDIA L4"}, {}),
    "count": ({"gpu_count": "2"}, {}),
    "country": ({"executor": {"id": "x", "location": {"country_code": "AQ"}}}, {"country": "US"}),
    "memory": (
        {"executor": {"id": "x", "specs": {"gpu": {"details": [{"capacity": 12288}]}}}},
        {"min_vram_gb": 24},
    ),
}


@pytest.mark.parametrize("what", OTHER_PODS)
async def test_a_pod_that_is_not_as_asked_is_given_back(sandbox: Sandbox, what: str) -> None:
    changes, more = OTHER_PODS[what]
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | changes))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("rent_pod", name="train", gpu_type="RTX4090", hours=1, **more)
        assert failure.code == "not_as_asked", failure.text
        assert "something else than asked: it" in failure.text
        sandbox.clock.advance(minutes=1)
        await agent.call("list_pods")
    assert len(rents(sandbox)) == 1
    assert living(sandbox) == []


async def test_a_pod_with_another_template_is_given_back_and_a_copy_is_kept(sandbox: Sandbox) -> None:
    template = (await ask(sandbox, "GET", "/templates"))[0]
    same = {"docker_image": template["docker_image"], "docker_image_tag": template["docker_image_tag"]}
    for name, image, code in (("copy", same, None), ("other", {"docker_image": "evil/x"}, "not_as_asked")):
        wire = Wire(sandbox)
        wire.on("GET", "/pods/*", editing(with_template({"id": "another", **image})))
        async with agent_on(sandbox, transport=wire) as agent:
            asked = {"name": name, "gpu_type": "RTX4090", "template": template["id"], "wait_seconds": 0}
            if code is None:
                await agent.call("rent_pod", **asked)
            else:
                assert (await agent.refused("rent_pod", **asked)).code == code


async def test_what_lium_does_not_say_keeps_the_pod_and_is_reported(sandbox: Sandbox) -> None:
    unsaid = {"gpu_name": None, "gpu_count": "many", "executor": None, "template": None}
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | unsaid))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", name="train", gpu_type="RTX4090", country="US", hours=1)
    assert rented["outcome"] == "done"
    [warning] = [text for text in rented["warnings"] if "which GPU it has" in text]
    for figure in ("how many GPUs it has", "which country it is in"):
        assert figure in warning
    assert len(living(sandbox)) == 1


async def test_a_pod_of_the_name_that_is_another_card_is_not_the_rents() -> None:
    sandbox = Sandbox(seed=7, speed=0, features=("rent_by_spec",))
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"gpu_name": "NVIDIA L4"}))
    on_rents(wire, losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        lost = await agent.refused("rent_pod", name="train", gpu_type="RTX4090", hours=1)
    assert lost.code == "outcome_unknown"
    assert f"{living(sandbox)[0]['id']} for it" in lost.text
    assert len(living(sandbox)) == 1
    assert wire.sent("POST", "/pods/*/schedule-removal") == wire.sent("DELETE", "/pods/*") == []


async def test_a_plan_is_at_the_price_of_today(sandbox: Sandbox, agent: Agent) -> None:
    wanted = {"name": "train", "gpu_type": "H100 PCIe", "hours": 1, "dry_run": True}
    for _ in range(3):
        dry = await agent.call("rent_pod", **wanted)
        (node,) = [row for row in truth(sandbox, "nodes") if row["id"] == dry["executor_id"]]
        assert dry["price_per_hour_usd"] == pytest.approx(node["price_per_gpu"] * dry["gpu_count"])
        sandbox.clock.advance(hours=2)


@pytest.mark.parametrize(("wanted", "absent"), [("4090,D", "D"), ("RTX 4090, Voodoo2, H9000", "Voodoo2, H9000")])
async def test_what_of_a_list_is_called_nothing_is_said_and_nothing_is_rented_for_the_rest(
    agent: Agent, sandbox: Sandbox, wanted: str, absent: str
) -> None:
    for tool in ("list_gpus", "get_gpu_prices"):
        found = await agent.call(tool, gpu_type=wanted)
        assert found["total"] > 0
        assert f"Nothing that was found is called {absent}." in found["next"]
        assert "next" not in await agent.call(tool, gpu_type="4090, 3090")
    refused = await agent.refused("rent_pod", name="train", gpu_type=wanted, hours=1)
    assert (refused.code, absent in refused.text) == ("no_gpu_matches", True)
    assert rents(sandbox) == []


async def test_an_h200_nvl_is_no_h200(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    cards = (("A100", "NVIDIA H200", 3.0), ("4090", "NVIDIA H200 NVL", 2.0))
    ids = await market_of(sandbox, wire, *cards)
    async with agent_on(sandbox, transport=wire) as agent:
        for wanted, name in (("H200", "NVIDIA H200"), ("h200-nvl", "NVIDIA H200 NVL")):
            found = await agent.call("list_gpus", gpu_type=wanted)
            assert [offer["executor_id"] for offer in found["offers"]] == [ids[name]]
            await agent.call("rent_pod", name=wanted, gpu_type=wanted, gpu_count=1, hours=1, wait_seconds=0)
            assert rents(sandbox)[-1]["executor_id"] == ids[name]
