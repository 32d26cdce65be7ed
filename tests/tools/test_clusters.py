"""Clusters: all nodes of one fabric or none, once, and a removal that says which member goes on billing."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import OTHER_API_KEY, Sandbox
from tests.harness import PUBLIC_KEY, Agent, Mode, Person, agent_on
from tests.wires import (
    Forward,
    Wire,
    after_work,
    answering,
    ask,
    editing,
    failing,
    list_late,
    living,
    losing_the_answer,
    rent,
    rents,
    then,
    truth,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
RENT = "/executors/cluster/rent"
OLD = ("run_record",)

Row = dict[str, Any]


async def order(agent: Agent, count: int = 2, **more: Any) -> Row:
    """Arguments of a rent: so many nodes of the cheapest fabric."""
    offers = (await agent.call("list_clusters"))["offers"]
    cheapest = min(offers, key=lambda offer: sum(node["price_per_hour_usd"] for node in offer["nodes"][:count]))
    return {"name": "train", "executor_ids": [node["executor_id"] for node in cheapest["nodes"][:count]], **more}


@pytest.fixture
def sandbox() -> Sandbox:
    """An account that can pay for whole nodes."""
    return Sandbox(seed=7, speed=0, balance_usd=5000)


def keys_sent(wire: Wire) -> list[str]:
    return [request.headers["Idempotency-Key"] for request in wire.sent("POST", RENT)]


# --- offers ----------------------------------------------------------------------------------------------------------


async def test_offers_are_the_free_nodes_of_each_fabric(agent: Agent, sandbox: Sandbox) -> None:
    nodes = {node["id"]: node for node in truth(sandbox, "nodes")}
    answer = await agent.call("list_clusters")
    assert answer["total"] == len(answer["offers"]) > 1
    for offer in answer["offers"]:
        assert len(offer["nodes"]) > 1
        for node in offer["nodes"]:
            row = nodes[node["executor_id"]]
            assert row["fabric_id"] == offer["fabric_id"]
            assert node["gpus"] == row["gpu_count"]
            assert node["price_per_hour_usd"] == pytest.approx(row["price_per_gpu"] * row["gpu_count"], abs=1e-3)
    paged = await agent.call("list_clusters", limit=1)
    assert paged["offers"] == answer["offers"][:1]
    rest = await agent.call("list_clusters", limit=100, cursor=paged["next_cursor"])
    assert rest["offers"] == answer["offers"][1:]


async def test_what_speaks_against_a_node_is_said_in_its_offer_and_at_the_rent(sandbox: Sandbox) -> None:
    sound = {"frequent_rent_failures": False, "gpu_power_limited": False}
    notice = {"notice_period": "at noon"}

    def spoil(offers: list[Row]) -> list[Row]:
        for offer in offers:
            offer["nodes"] = [node | sound | notice for node in offer["nodes"]]
        return offers

    wire = Wire(sandbox)
    wire.on("GET", "/executors/infiniband-clusters", editing(spoil))
    person = Person("yes")
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        offers = (await agent.call("list_clusters"))["offers"]
        wanted = await order(agent)
        rented = await agent.call("rent_cluster", **wanted, hours=1)
    assert {node["maintenance"] for offer in offers for node in offer["nodes"]} == {'the provider says "at noon"'}
    for node_id in wanted["executor_ids"]:
        said = f"Node {node_id}: Maintenance of this node is announced"
        assert any(said in warning for warning in rented["warnings"])
        assert said in person.questions[0]


# --- renting ---------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_cluster_is_rented_whole_and_removed_together(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        wanted = await order(agent, 2)
        rented = await agent.call("rent_cluster", **wanted)
        assert len(rented["pod_ids"]) == 2
        assert "warnings" not in rented
        pods = {pod["id"]: pod for pod in living(sandbox)}
        assert set(pods) == set(rented["pod_ids"])
        assert {pod["pod_name"] for pod in pods.values()} == {"train"}
        assert {pod["cluster_id"] for pod in pods.values()} == {rented["cluster_id"]}
        assert rented["price_per_hour_usd"] == pytest.approx(sum(pod["price"] for pod in pods.values()), abs=1e-3)
        assert {node["id"] for node in truth(sandbox, "nodes") if node["rented_by_us"]} == set(wanted["executor_ids"])

        early = await agent.refused("remove_cluster", cluster_id=rented["cluster_id"])
        assert early.code == "removal_refused"
        assert len(living(sandbox)) == 2
        sandbox.clock.advance(minutes=1)
        removed = await agent.call("remove_cluster", cluster_id=rented["cluster_id"])
        assert removed["outcome"] == "done"
        assert {row["pod_id"] for row in removed["members"]} == set(pods)
        assert [row["rank"] for row in removed["members"]] == [0, 1]
        assert living(sandbox) == []
        sandbox.clock.advance(minutes=1)
        assert (await agent.refused("remove_cluster", cluster_id=rented["cluster_id"])).code == "not_found"


async def test_a_member_that_is_not_shown_is_not_removed_while_its_record_says_that_it_is_not(
    sandbox: Sandbox,
) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent, 2))
        sandbox.clock.advance(minutes=1)
        kept = rented["pod_ids"][0]
        wire.on("GET", f"/pods/{kept}", answering(404, {"message": "Pod not found", "status_code": 404}))
        wire.on("GET", f"/pods/{kept}/record", editing(lambda record: record | {"removed": False}))
        removed = await agent.call("remove_cluster", cluster_id=rented["cluster_id"], wait_seconds=60)
    outcomes = {row["pod_id"]: row["outcome"] for row in removed["members"]}
    assert outcomes == {kept: "pending", rented["pod_ids"][1]: "done"}
    assert removed["outcome"] == "pending"
    assert "may still bill" in removed["next"]


@both_eras
async def test_a_lost_answer_is_replayed_and_the_cluster_rented_once(sandbox: Sandbox, mode: Mode) -> None:
    wire = Wire(sandbox)
    wire.on("POST", RENT, losing_the_answer(), times=2)
    list_late(wire, sends=3)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
    assert "warnings" not in rented
    assert {pod["id"] for pod in living(sandbox)} == set(rented["pod_ids"])
    assert len(keys_sent(wire)) == 3
    assert len(set(keys_sent(wire))) == 1, "a replay has the first one's key"


@pytest.mark.parametrize(
    "act",
    [
        after_work(answering(502, b"<html>bad gateway</html>")),
        after_work(answering(200, b'{"success": true, "pod_ids": [], "message": null}')),
        after_work(answering(200, b"not json")),
        after_work(answering(200, b'{"success": false, "pod_ids": ["00000000-0000-4000-8000-000000000001"]}')),
    ],
)
async def test_an_answer_that_proves_nothing_is_settled_by_replay(sandbox: Sandbox, act: Any) -> None:
    wire = Wire(sandbox)
    wire.on("POST", RENT, act, times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
    assert {pod["id"] for pod in living(sandbox)} == set(rented["pod_ids"])
    assert len(set(keys_sent(wire))) == 1


async def test_a_server_that_cannot_replay_is_asked_once_and_the_pods_are_found_by_name(sandbox: Sandbox) -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=5000, features=OLD)
    wire = Wire(sandbox)
    wire.on("POST", RENT, losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent, 2))
    assert {pod["id"] for pod in living(sandbox)} == set(rented["pod_ids"])
    assert "found by name" in rented["warnings"][0]
    assert len(wire.sent("POST", RENT)) == 1


async def test_what_cannot_be_settled_is_unknown_and_never_rented_again(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("POST", RENT, failing(httpx2.ReadError("gone")))
    async with agent_on(sandbox, transport=wire) as agent:
        unknown = await agent.refused("rent_cluster", **await order(agent))
    assert unknown.code == "outcome_unknown"
    assert "may exist and bill" in unknown.text
    assert len(set(keys_sent(wire))) == 1
    assert living(sandbox) == []


@both_eras
async def test_a_200_that_says_no_is_a_refusal_and_nothing_is_rented(sandbox: Sandbox, mode: Mode) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, mode=mode, transport=wire) as agent:
        wanted = await order(agent)

        async def taken_on_the_way(request: httpx2.Request, forward: Forward) -> httpx2.Response:
            body = {"pod_name": "rival", "template_id": template_id, "user_public_key": [PUBLIC_KEY]}
            await ask(
                sandbox, "POST", f"/executors/{wanted['executor_ids'][0]}/rent", body, **{"X-API-KEY": OTHER_API_KEY}
            )
            return await forward(request)

        template_id = truth(sandbox, "templates")[0]["id"]
        wire.on("POST", RENT, taken_on_the_way)
        refused = await agent.refused("rent_cluster", **wanted)
    assert refused.code == "conflict"
    assert "Nothing was rented" in refused.text
    assert len(wire.sent("POST", RENT)) == 1
    assert [pod["pod_name"] for pod in living(sandbox)] == ["rival"]


def naming_one(wire: Wire) -> None:
    """Lium rents all pods of a cluster, and names one of them in its answers."""
    wire.on("POST", RENT, editing(lambda body: body | {"pod_ids": body["pod_ids"][:1]}))


def without_its_cluster(pod: Row) -> Row:
    return pod | {"cluster_id": None}


def without_its_node(pod: Row) -> Row:
    return pod | {"cluster_id": None, "executor_id": None, "executor": None}


@pytest.mark.parametrize("shown", [dict, without_its_cluster, without_its_node])
async def test_members_that_lium_does_not_name_are_found_priced_and_scheduled(
    sandbox: Sandbox, shown: Callable[[Row], Row]
) -> None:
    wire = Wire(sandbox)
    naming_one(wire)
    wire.on("GET", "/pods", editing(lambda pods: [shown(pod) for pod in pods]))
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent, hours=2)
        rented = await agent.call("rent_cluster", **wanted)
        pods = living(sandbox)
        assert {pod["id"] for pod in pods} == set(rented["pod_ids"])
        assert rented["price_per_hour_usd"] == pytest.approx(sum(pod["price"] for pod in pods), abs=1e-3)
        sandbox.clock.advance(minutes=2)
        await agent.call("list_pods")
    assert len(pods) == 2
    assert all(pod["removal_scheduled_at"] for pod in living(sandbox))


async def test_members_that_lium_does_not_name_are_given_back_too(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    naming_one(wire)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent)
        wire.on("GET", "/pods", editing(lambda pods: [pod | {"price": 500.0} for pod in pods]))
        failure = await agent.refused("rent_cluster", **wanted, max_usd_per_hour=900)
        assert "$1000.0000 an hour" in failure.text
        sandbox.clock.advance(minutes=5)
        await agent.call("list_pods")
    assert len(wire.sent("POST", RENT)) == 1
    assert living(sandbox) == []


@pytest.mark.parametrize("is_dear", [False, True])
async def test_a_cluster_of_which_not_all_is_listed_is_said_until_it_is(sandbox: Sandbox, is_dear: bool) -> None:
    wire, hidden = Wire(sandbox), ["?"]

    def name_one(body: Row) -> Row:
        hidden[:] = body["pod_ids"][1:]
        return body | {"pod_ids": body["pod_ids"][:1]}

    def partly(pods: list[Row]) -> list[Row]:
        return [pod | ({"price": 500.0} if is_dear else {}) for pod in pods if pod["id"] not in hidden]

    wire.on("POST", RENT, editing(name_one))
    wire.on("GET", "/pods", editing(partly))
    said = "Lium named 1 of 2 pods"
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent, hours=2)
        if is_dear:
            failure = await agent.refused("rent_cluster", **wanted, max_usd_per_hour=450)
            assert said in failure.text
            assert "may bill until then" in failure.text
        else:
            for _ in range(2):
                answer = await agent.call("rent_cluster", **wanted)
                assert any(warning.startswith(said) for warning in answer["warnings"])
            (row,) = (await agent.call("list_pods"))["unsettled"]
            assert "Lium named 1 of its 2 pods" in row["next"]
        for _ in range(4):
            sandbox.clock.advance(minutes=1)
            hidden.clear()
            await agent.call("list_pods")
        if not is_dear:
            answer = await agent.call("rent_cluster", **wanted)
            assert set(answer["pod_ids"]) == {pod["id"] for pod in living(sandbox)}
            assert "warnings" not in answer
    assert len(wire.sent("POST", RENT)) == 1
    pods = living(sandbox)
    assert len(pods) == (0 if is_dear else 2)
    assert all(pod["removal_scheduled_at"] for pod in pods)


async def test_a_pod_of_a_cluster_s_name_on_another_node_is_no_member(sandbox: Sandbox) -> None:
    wire, hidden, others = Wire(sandbox), ["?"], ["?"]

    async def rent_both(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        body = json.loads(await (await forward(request)).aread())
        hidden[:] = body["pod_ids"][1:]
        others[:] = [await rent(sandbox, "train", boot=False)]
        return httpx2.Response(200, json=body | {"pod_ids": body["pod_ids"][:1]})

    wire.on("POST", RENT, rent_both)
    wire.on(
        "GET", "/pods", editing(lambda pods: [pod for pod in map(without_its_cluster, pods) if pod["id"] not in hidden])
    )
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
    assert others[0] not in rented["pod_ids"]
    assert any("Lium named 1 of 2 pods" in warning for warning in rented["warnings"])


async def test_a_living_name_is_taken(agent: Agent, sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    refused = await agent.refused("rent_cluster", **await order(agent))
    assert refused.code == "pod_name_taken"
    assert pod_id in refused.text
    assert len(rents(sandbox)) == 1


async def test_a_ceiling_is_for_the_whole_cluster_and_holds_before_it_is_sent(agent: Agent, sandbox: Sandbox) -> None:
    wanted = await order(agent)
    offers = (await agent.call("list_clusters"))["offers"]
    nodes = {node["executor_id"]: node["price_per_hour_usd"] for offer in offers for node in offer["nodes"]}
    price = sum(nodes[executor_id] for executor_id in wanted["executor_ids"])
    refused = await agent.refused("rent_cluster", **wanted, max_usd_per_hour=price - 0.01)
    assert refused.code == "price_above_ceiling"
    assert rents(sandbox) == []
    rented = await agent.call("rent_cluster", **wanted, max_usd_per_hour=price + 0.01)
    assert rented["price_per_hour_usd"] == pytest.approx(price, abs=1e-3)


@pytest.mark.parametrize("price", [None, -3, "unknown"])
async def test_nodes_without_a_price_pass_no_ceiling(sandbox: Sandbox, price: Any) -> None:
    def spoil(offers: list[Row]) -> list[Row]:
        for offer in offers:
            offer["nodes"][0]["price_per_gpu"] = price
        return offers

    wire = Wire(sandbox)
    wire.on("GET", "/executors/infiniband-clusters", editing(spoil))
    async with agent_on(sandbox, transport=wire) as agent:
        offers = (await agent.call("list_clusters"))["offers"]
        assert "price_per_hour_usd" not in offers[0]["nodes"][0]
        nodes = [node["executor_id"] for node in offers[0]["nodes"][:2]]
        refused = await agent.refused("rent_cluster", name="train", executor_ids=nodes, max_usd_per_hour=1000)
        assert refused.code == "price_unknown"
        assert f"the price per GPU of node {nodes[0]}" in refused.text
        rented = await agent.call("rent_cluster", name="train", executor_ids=nodes)
        assert rented["price_per_hour_usd"] > 0, "what is billed is read back"


@pytest.mark.parametrize("changes", [{"gpu_name": "NVIDIA L4"}, {"gpu_count": "1"}], ids=str)
async def test_a_cluster_that_is_not_as_asked_is_removed(sandbox: Sandbox, changes: Row) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [{**pod, **changes} for pod in pods]))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("rent_cluster", **await order(agent, 2))
        assert refused.code == "not_as_asked"
        sandbox.clock.advance(minutes=5)
        await agent.call("list_pods")
    assert living(sandbox) == []


async def test_a_cluster_that_came_out_dearer_than_allowed_is_removed(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent)

        def dearer(pods: list[Row]) -> list[Row]:
            return [{**pod, "price": 500.0} for pod in pods]

        wire.on("GET", "/pods", editing(dearer))
        failure = await agent.refused("rent_cluster", **wanted, max_usd_per_hour=900)
        assert failure.code == "dearer_than_allowed"
        sandbox.clock.advance(minutes=1)
        await agent.call("list_pods")
    assert living(sandbox) == []


async def test_a_cluster_that_came_out_dearer_than_offered_is_kept_with_a_warning(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent)
        wire.on("GET", "/pods", editing(lambda pods: [pod | {"price": 500.0} for pod in pods]))
        rented = await agent.call("rent_cluster", **wanted)
    assert rented["price_per_hour_usd"] == 1000
    (said,) = (warning for warning in rented["warnings"] if "$1000.0000" in warning)
    assert "it was offered at" in said
    assert "remove_cluster" in said
    assert len(living(sandbox)) == 2


async def test_a_cluster_that_cannot_be_read_back_is_named_all_the_same(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    lost = answering(500, {"message": "sorry"})
    wire.on("POST", RENT, then(lambda: wire.on("GET", "/pods", lost)))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
    assert {pod["id"] for pod in living(sandbox)} == set(rented["pod_ids"])
    assert rented["price_per_hour_usd"] > 0
    assert "does not list" in rented["warnings"][0]


async def test_nodes_that_are_not_one_fabric_or_not_two_are_refused(agent: Agent, sandbox: Sandbox) -> None:
    offers = (await agent.call("list_clusters"))["offers"]
    mixed = [offer["nodes"][0]["executor_id"] for offer in offers[:2]]
    assert (await agent.refused("rent_cluster", name="train", executor_ids=mixed)).code == "nodes_not_one_cluster"
    for nodes in ([mixed[0]], [mixed[0], mixed[0]]):
        assert (await agent.refused("rent_cluster", name="train", executor_ids=nodes)).code == "invalid_argument"
    assert rents(sandbox) == []


async def test_a_template_must_be_one_for_clusters(agent: Agent, sandbox: Sandbox) -> None:
    templates = {row["body"]["name"]: row["id"] for row in truth(sandbox, "templates")}
    wanted = await order(agent)
    refused = await agent.refused("rent_cluster", **wanted, template=templates["Ubuntu 22.04"])
    assert refused.code == "template_not_for_clusters"
    assert rents(sandbox) == []
    await agent.call("rent_cluster", **wanted, template=templates["Cluster"])
    assert {pod["template"]["id"] for pod in living(sandbox)} == {templates["Cluster"]}


async def test_an_account_that_cannot_pay_rents_nothing(sandbox: Sandbox) -> None:
    poor = Sandbox(seed=7, speed=0, balance_usd=1)
    async with agent_on(poor) as agent:
        refused = await agent.refused("rent_cluster", **await order(agent))
    assert refused.code == "insufficient_balance"
    assert rents(poor) == []


# --- removal ---------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_member_that_is_not_removed_is_named_and_goes_with_the_next_call(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
        sandbox.clock.advance(minutes=1)
        stubborn = rented["pod_ids"][1]
        sandbox.add_fault("delete_fails", pod_id=stubborn)
        removed = await agent.call("remove_cluster", cluster_id=rented["cluster_id"])
        assert removed["outcome"] == "failed"
        assert {row["pod_id"]: row["outcome"] for row in removed["members"]} == {
            rented["pod_ids"][0]: "done",
            stubborn: "failed",
        }
        assert "1 members still bill" in removed["next"]
        assert [pod["id"] for pod in living(sandbox)] == [stubborn]
        again = await agent.call("remove_cluster", cluster_id=rented["cluster_id"])
        assert again["outcome"] == "done"
    assert living(sandbox) == []


async def test_members_that_are_still_being_removed_may_bill(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
        sandbox.clock.advance(minutes=1)
        first, second = rented["pod_ids"]
        sandbox.add_fault("delete_slow", seconds=600, pod_id=second)
        removed = await agent.call("remove_cluster", cluster_id=rented["cluster_id"])
    assert removed["outcome"] == "pending"
    assert {row["pod_id"]: row["outcome"] for row in removed["members"]} == {first: "done", second: "pending"}
    assert removed["next"].startswith("1 are being removed and may still bill")


async def test_a_removal_that_names_no_members_is_not_called_done(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("DELETE", "/clusters/*", answering(200, {"success": True, "message": "ok"}))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("remove_cluster", cluster_id="00000000-0000-4000-8000-000000000001")
    assert answer["outcome"] == "pending"
    assert "list_pods" in answer["next"]


async def test_a_member_that_a_removal_does_not_name_is_not_called_removed(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_cluster", **await order(agent))
        sandbox.clock.advance(minutes=1)
        wire.on("DELETE", "/clusters/*", editing(lambda body: body | {"pods": body["pods"][:1]}))
        answer = await agent.call("remove_cluster", cluster_id=rented["cluster_id"])
    assert answer["outcome"] == "pending"
    assert {row["pod_id"] for row in answer["members"]} == set(rented["pod_ids"])
    assert "does not say of 1 whether it removed them" in answer["next"]


async def test_a_removal_whose_answer_is_lost_is_unknown(agent: Agent, sandbox: Sandbox) -> None:
    rented = await agent.call("rent_cluster", **await order(agent))
    sandbox.clock.advance(minutes=1)
    sandbox.add_fault("lost_answer", match={"method": "DELETE", "path": "/clusters/*"})
    assert (await agent.refused("remove_cluster", cluster_id=rented["cluster_id"])).code == "outcome_unknown"
    assert living(sandbox) == []


async def test_a_member_of_which_lium_does_not_say_whether_it_was_removed_is_not_said_to_bill(sandbox: Sandbox) -> None:
    gone, untold = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
    wire = Wire(sandbox)
    wire.on("DELETE", "/clusters/*", answering(200, {"pods": [{"pod_id": gone, "success": True}, {"pod_id": untold}]}))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("remove_cluster", cluster_id=gone)
    assert answer["outcome"] == "pending"
    assert [row["outcome"] for row in answer["members"]] == ["done", "pending"]
    assert "bill" not in answer["next"]
    assert "list_pods" in answer["next"]


async def test_what_a_node_does_not_say_is_absent_and_passes_no_ceiling(sandbox: Sandbox) -> None:
    unsaid = {"gpu_count": None, "specs": None, "machine_name": None}

    def hide(offers: list[Row]) -> list[Row]:
        for offer in offers:
            offer["nodes"] = [node | unsaid for node in offer["nodes"]]
        return offers

    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wanted = await order(agent)
        wire.on("GET", "/executors/infiniband-clusters", editing(hide))
        shown = [node for offer in (await agent.call("list_clusters"))["offers"] for node in offer["nodes"]]
        refusal = await agent.refused("rent_cluster", **wanted, max_usd_per_hour=1000)
    assert shown
    assert all({"gpus", "gpu_type", "price_per_hour_usd"}.isdisjoint(node) for node in shown)
    assert refusal.code == "price_unknown"
    for executor_id in wanted["executor_ids"]:
        assert f"how many GPUs node {executor_id} has" in refusal.text
    assert not keys_sent(wire)
