"""A node that refuses at the rent itself, or on which a pod did not start: the next one that fits, for no more."""

from typing import Any, Final

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.sandbox import FEATURES
from tests.faults.record import rows_of
from tests.harness import Agent, Person, agent_on
from tests.wires import Act, Forward, Wire, answering, drop, eventually, living, offers, passing, rents, sent_rents

OLD: Final = tuple(feature for feature in FEATURES if feature != "rent_by_spec")
WISH: Final[dict[str, Any]] = {"name": "train", "gpu_type": "RTX4090", "gpu_count": 1, "hours": 2}
TAKEN: Final = answering(400, {"success": False, "error": {"code": "node_unavailable", "message": "It is taken."}})


@pytest.fixture
def account() -> Sandbox:
    """An account on a server that leaves the choice of the node to the caller."""
    return Sandbox(seed=7, speed=0, features=OLD, pod_polls_per_minute=10**6)


@pytest.fixture
def ledger(tmp_path: Any) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def refusing(wire: Wire, *acts: Act) -> None:
    """Let the first rents be in the hands of these acts, one after the other; those after them pass."""
    left = list(acts)

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return await (left.pop(0) if left else passing)(request, forward)

    wire.on("POST", "/executors/*/rent", act)


def nodes_asked(wire: Wire) -> list[str]:
    return [request.url.path.split("/")[-2] for request in sent_rents(wire)]


async def dearest(sandbox: Sandbox, number: int) -> float:
    """The price of the node that comes so far in the order of prices, counted from 1."""
    rows = [row for row in await offers(sandbox, "RTX 4090") if row.get("min_gpu_count_for_rental") == 1]
    return float(sorted(row["price_per_gpu"] for row in rows)[number - 1])


@pytest.mark.parametrize(
    "act",
    [
        TAKEN,
        answering(404, {"success": False, "error": {"code": "node_not_found", "message": "No such node"}}),
        answering(409, {"success": False, "error": {"code": "provider_banned", "message": "Not from here"}}),
        answering(400, {"detail": "Not now"}),
    ],
    ids=["taken", "gone", "banned", "without a code"],
)
async def test_a_node_that_refuses_at_the_rent_gives_way_to_the_next(account: Sandbox, ledger: str, act: Act) -> None:
    wire = Wire(account)
    refusing(wire, act, act)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        answer = await agent.call("rent_pod", **WISH)
    asked = nodes_asked(wire)
    assert answer["outcome"] == "done"
    assert len(set(asked)) == len(asked) == 3
    assert answer["pod"]["executor_id"] == asked[-1]
    said = " ".join(answer["warnings"])
    assert all(f"Node {node}: Lium" in said for node in asked[:2])
    assert len(rents(account)) == 1
    assert [row["status"] for row in rows_of(ledger)].count("refused") == 2
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 3


async def test_no_more_than_three_nodes_are_tried_and_each_is_named(account: Sandbox) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", TAKEN)
    async with agent_on(account, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **WISH)
    asked = nodes_asked(wire)
    assert len(set(asked)) == len(asked) == 3
    assert failure.code == "nodes_taken"
    assert all(f"Node {node}: Lium refused the request: It is taken." in failure.text for node in asked)
    assert "Nothing was changed." in failure.text
    assert rents(account) == []


async def test_a_named_node_is_not_exchanged(account: Sandbox) -> None:
    node = (await offers(account, "RTX 4090"))[0]["id"]
    wire = Wire(account)
    refusing(wire, TAKEN)
    async with agent_on(account, transport=wire) as agent:
        await agent.refused("rent_pod", **WISH | {"executor_id": node})
    assert nodes_asked(wire) == [node]


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (400, "node_unavailable", "nodes_taken"),
        (400, "node_rent_in_progress", "nodes_taken"),
        (409, "node_rent_in_progress", "nodes_taken"),
        (409, "node_paused_by_provider", "nodes_taken"),
        (404, "node_not_found", "node_not_for_rent"),
        (400, "gpu_split_not_allowed", "gpu_count_not_rentable"),
        (404, "template_not_found", "template_not_found"),
    ],
)
@pytest.mark.parametrize("way", ["by type", "by node", "several", "several by node"])
async def test_one_thing_has_one_code_whoever_says_it(
    account: Sandbox, way: str, status: int, said: str, code: str
) -> None:
    wire, wish = Wire(account), dict(WISH)
    wire.on("POST", "/executors/*/rent", answering(status, {"success": False, "error": {"code": said, "message": "."}}))
    if "node" in way:
        several = [row for row in await offers(account, "RTX 4090") if row["gpu_count"] > 1]
        wish["executor_id"] = next(row["id"] for row in several if row.get("min_gpu_count_for_rental") == 1)
    if "several" in way:
        wish["count"] = 2
    async with agent_on(account, transport=wire) as agent:
        assert (await agent.refused("rent_pod", **wish)).code == code
    assert rents(account) == []


@pytest.mark.parametrize(
    "act",
    [
        drop,
        answering(502, b""),
        answering(200, {"success": False, "message": "node_unavailable"}),
        answering(402, {"success": False, "error": {"code": "API_KEY_BUDGET_EXCEEDED", "message": "Budget"}}),
        answering(403, {"success": False, "error": {"code": "insufficient_balance", "message": "Balance"}}),
        answering(422, {"success": False, "error": {"message": "Not valid"}}),
        answering(429, {"detail": "Too many"}),
        answering(400, {"success": False, "error": {"code": "template_invalid", "message": "No"}}),
        answering(404, {"success": False, "error": {"code": "template_not_found", "message": "No"}}),
        answering(400, {"detail": "The volume is attached to another pod"}),
        answering(409, {"success": False, "error": {"code": "idempotency_in_progress", "message": "Wait"}}),
    ],
    ids=[
        "lost", "gateway", "not surely", "budget", "balance", "not valid", "too many",
        "template", "no template", "volume", "in progress",
    ],
)  # fmt: skip
async def test_what_is_no_sure_refusal_of_one_node_sends_no_other_rent(account: Sandbox, act: Act) -> None:
    wire = Wire(account)
    wire.on("POST", "/executors/*/rent", act)
    async with agent_on(account, transport=wire) as agent:
        await agent.refused("rent_pod", **WISH)
    assert len({request.headers["Idempotency-Key"] for request in sent_rents(wire)}) == 1
    assert len(set(nodes_asked(wire))) == 1


async def test_a_stored_refusal_after_a_lost_answer_sends_no_other_rent(account: Sandbox) -> None:
    wire = Wire(account)
    replayed = answering(
        400, {"success": False, "error": {"code": "node_unavailable", "message": "It is taken."}},
        idempotent_replayed="true",
    )  # fmt: skip
    refusing(wire, drop, replayed)
    async with agent_on(account, transport=wire) as agent:
        failure = await agent.refused("rent_pod", **WISH)
    assert "It is taken." in failure.text
    assert len(set(nodes_asked(wire))) == 1
    assert rents(account) == []


async def test_after_a_yes_the_next_node_costs_no_more_than_was_agreed_to(account: Sandbox) -> None:
    person = Person("yes")
    wire = Wire(account)
    refusing(wire, TAKEN)
    async with agent_on(account, transport=wire, person=person) as agent:
        dear = await dearest(account, 2) > await _agreed(agent)
        result = await agent.raw("rent_pod", **WISH)
    assert len(person.questions) == 1
    assert bool(result.is_error) is dear
    assert len(rents(account)) == (0 if dear else 1)


async def _agreed(agent: Agent) -> float:
    planned = await agent.call("rent_pod", **WISH, dry_run=True)
    return -(-float(planned["price_per_hour_usd"]) * 100 // 1) / 100


async def test_after_a_yes_a_dearer_node_is_told_and_not_rented(account: Sandbox) -> None:
    person = Person("yes")
    wire = Wire(account)

    async def rise(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        for node in account._world.market.nodes.values():
            node.base_price *= 2
        return await TAKEN(request, forward)

    refusing(wire, rise)
    async with agent_on(account, transport=wire, person=person) as agent:
        failure = await agent.refused("rent_pod", **WISH)
    assert failure.code == "nodes_taken"
    assert "No other one will do" in failure.text
    assert rents(account) == []


@pytest.mark.parametrize("is_dearer", [True, False])
async def test_where_nobody_was_asked_a_dearer_node_is_told_with_both_prices(account: Sandbox, is_dearer: bool) -> None:
    wire = Wire(account)
    first = await dearest(account, 1)

    async def change(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        for node in account._world.market.nodes.values():
            node.base_price *= 3 if is_dearer else 0.5
        return await TAKEN(request, forward)

    refusing(wire, change)
    async with agent_on(account, transport=wire) as agent:
        answer = await agent.call("rent_pod", **WISH)
    now = answer["pod"]["price_per_hour_usd"]
    told = [said for said in answer["warnings"] if "rented instead" in said]
    assert len(told) == is_dearer
    for said in told:
        assert answer["pod"]["executor_id"] in said
        assert f"${now:.3f}" in said
        assert f"${first:.3f}" in said


async def test_every_limit_is_checked_again_at_each_try(account: Sandbox) -> None:
    wire = Wire(account)
    cheapest = await dearest(account, 1)
    refusing(wire, TAKEN)
    async with agent_on(account, transport=wire, max_price_per_hour_usd=cheapest) as agent:
        failure = await agent.refused("rent_pod", **WISH)
    assert "max_price_per_hour_usd" in failure.text
    assert len(sent_rents(wire)) == 1
    assert rents(account) == []


# --- a pod that did not start ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [OLD, FEATURES], ids=["old server", "by spec"])
@pytest.mark.parametrize("after", ["at once", "removed", "seen by a list"])
async def test_the_node_on_which_a_pod_did_not_start_is_passed_over(features: tuple[str, ...], after: str) -> None:
    account = Sandbox(seed=7, speed=0, features=features, pod_polls_per_minute=10**6)
    account.add_fault("boot_fails")
    wait = 0 if after == "seen by a list" else 45
    async with agent_on(account) as agent:
        await agent.call("rent_pod", **WISH, wait_seconds=wait)
        if after == "removed":
            await agent.call("remove_pod", pod="train")
        if after == "seen by a list":
            account.clock.advance(seconds=60)
            await agent.call("list_pods")
        account.clock.advance(minutes=5)
        answer = await agent.call("rent_pod", **WISH)
        first, second = [record["executor_id"] for record in rents(account)]
        assert answer["outcome"] == "done"
        assert first != second
        assert f"Node {first} is passed over: a pod failed to start there lately." in answer["warnings"]
        account.clock.advance(hours=3)
        planned = await agent.call("rent_pod", **WISH | {"name": "later"}, dry_run=True)
        assert planned.get("warnings") is None


async def test_where_no_other_node_fits_the_same_is_rented_with_a_warning(account: Sandbox) -> None:
    account.add_fault("boot_fails")
    most = await dearest(account, 1)
    async with agent_on(account) as agent:
        await agent.call("rent_pod", **WISH, max_usd_per_gpu_hour=most)
        account.clock.advance(minutes=5)
        answer = await agent.call("rent_pod", **WISH, max_usd_per_gpu_hour=most)
    assert answer["outcome"] == "done"
    assert len({record["executor_id"] for record in rents(account)}) == 1
    assert "no other node that fits is free" in " ".join(answer["warnings"])


async def test_a_person_is_told_which_node_is_passed_over(account: Sandbox) -> None:
    account.add_fault("boot_fails")
    person = Person("yes")
    async with agent_on(account, person=person) as agent:
        await agent.call("rent_pod", **WISH)
        account.clock.advance(minutes=5)
        await agent.call("rent_pod", **WISH)
    assert "is passed over: a pod failed to start there lately." in person.questions[1]


async def test_a_batch_passes_over_the_node_too(account: Sandbox) -> None:
    account.add_fault("boot_fails")
    async with agent_on(account) as agent:
        first = await agent.call("rent_pod", **WISH, count=2)
        assert [row["outcome"] for row in first["pods"]] == ["failed", "done"]
        account.clock.advance(minutes=5)
        again = await agent.call("rent_pod", **WISH, count=2)
    records = rents(account)
    assert [row["outcome"] for row in again["pods"]] == ["done", "done"]
    assert records[0]["executor_id"] != records[-1]["executor_id"]
    assert len(living(account)) == 2


async def test_a_run_goes_on_with_the_next_node_where_one_refuses(account: Sandbox, ledger: str) -> None:
    wire = Wire(account)
    refusing(wire, TAKEN)
    async with agent_on(account, transport=wire, state_url=ledger) as agent:
        wanted: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "max_total_usd": 2}
        await agent.call("run_job", command="sleep 60", wait_seconds=1, **wanted)
        await eventually(lambda: bool(living(account)))
        asked = nodes_asked(wire)
        assert len(set(asked)) == len(asked) == 2
        [pod] = living(account)
        assert pod["executor"]["id"] == asked[-1]
    assert [row["status"] for row in rows_of(ledger)].count("refused") == 1


async def test_a_node_that_refused_is_passed_over_for_some_minutes(account: Sandbox) -> None:
    """Such a node may stay listed, and a person is not to be asked about it again and again."""
    wire = Wire(account)
    person = Person("yes")
    dead: list[str] = []

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        node = request.url.path.split("/")[-2]
        if not dead:
            dead.append(node)
        return await (TAKEN if node in dead else passing)(request, forward)

    wire.on("POST", "/executors/*/rent", act)
    async with agent_on(account, transport=wire, person=person) as agent:
        assert (await agent.refused("rent_pod", **WISH)).code == "nodes_taken", "a person agreed to the cheapest price"
        answer = await agent.call("rent_pod", **WISH)
        assert answer["outcome"] == "done"
        assert answer["pod"]["executor_id"] not in dead
        assert f"Node {dead[0]} is passed over: it refused a rent minutes ago." in answer["warnings"]
        assert nodes_asked(wire).count(dead[0]) == 1
        account.clock.advance(minutes=11)
        quote = await agent.call("rent_pod", **WISH | {"name": "again", "dry_run": True})
        assert "minutes ago" not in " ".join(quote.get("warnings", []))
