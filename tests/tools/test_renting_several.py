"""Several pods from one plan and one question: what a person is asked, what is agreed to, and what the answer tells."""

import json
from functools import partial
from typing import Any, Final

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.guard.test_confirm import Market
from tests.harness import Mode, Person, agent_on
from tests.wires import Forward, Wire, answering, ask, editing, living, passing, rents, sent_rents

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
TRAIN: Final[dict[str, Any]] = {"name": "train", "gpu_type": "RTX4090", "count": 3, "hours": 2}


@pytest.fixture
def account() -> Sandbox:
    """An account whose servers may read as often as they like."""
    return Sandbox(seed=7, speed=0, pod_polls_per_minute=10**6)


@both_eras
async def test_a_person_is_asked_once_about_all_of_them(account: Sandbox, mode: Mode) -> None:
    person = Person("yes")
    async with agent_on(account, mode=mode, person=person) as agent:
        planned = await agent.call("rent_pod", **TRAIN, dry_run=True)
        assert planned["total_usd"] == pytest.approx(2 * planned["price_per_hour_usd"])
        assert planned["hours"] == 2
        await agent.call("rent_pod", **TRAIN)
        await agent.call("rent_pod", **TRAIN)  # there is nothing to ask
    [question] = person.questions
    for said in ('"train-1", "train-2", "train-3"', "1x RTX4090", "2 hours after", "The balance is about"):
        assert said in question
    prices = [row["price_per_hour_usd"] for row in planned["pods"]]
    assert "at most $0.85 an hour together, the dearest $0.29?" in question
    assert 0.85 - 0.03 < sum(prices) <= 0.85
    assert "at most $1.79 in all" in question


async def test_an_answer_for_several_says_how_long_and_how_much_as_one_for_a_single_pod_does(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        for answer in (await agent.call("rent_pod", **TRAIN), await agent.call("rent_pod", **TRAIN)):
            assert answer["hours"] == 2
            assert answer["total_usd"] == pytest.approx(2 * answer["price_per_hour_usd"], abs=0.01)
            assert "left_of_total_usd" not in answer
        unbounded = await agent.call("rent_pod", name="open", gpu_type="RTX4090", count=2)
    assert not {"hours", "total_usd"} & set(unbounded)


@both_eras
async def test_a_person_is_asked_about_those_alone_that_are_missing(account: Sandbox, mode: Mode) -> None:
    person = Person("yes")
    async with agent_on(account, mode=mode, person=person) as agent:
        await agent.call("rent_pod", **TRAIN)
        await agent.call("rent_pod", **TRAIN | {"count": 12, "gpu_type": "RTX4090"})
    assert len(person.questions) == 2
    assert 'Rent 9 pods ("train-4" to "train-12")' in person.questions[1]
    assert len(living(account)) == 12


@both_eras
async def test_no_is_none_of_them(account: Sandbox, mode: Mode) -> None:
    async with agent_on(account, mode=mode, person=Person("no")) as agent:
        assert (await agent.refused("rent_pod", **TRAIN)).code == "not_confirmed"
    assert rents(account) == []


@both_eras
async def test_a_sum_that_rose_is_not_agreed_to(account: Sandbox, mode: Mode) -> None:
    market = Market(account)
    person = Person("yes", "no", meanwhile=partial(market.set, 1.5))
    async with agent_on(account, mode=mode, person=person, transport=market.wire) as agent:
        failure = await agent.refused("rent_pod", **TRAIN)
    assert failure.code == ("price_changed" if mode == "legacy" else "not_confirmed")
    assert rents(account) == []


async def test_one_pod_may_not_take_the_share_of_another(account: Sandbox) -> None:
    """What is agreed to for all of them would pay for one that comes out twice as dear."""
    wire = Wire(account)
    wire.on("GET", "/pods", editing(_dearer("train-1")))
    wire.on("GET", "/pods/*", editing(_dearer("train-1")))
    async with agent_on(account, person=Person("yes"), transport=wire) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
        assert [row["outcome"] for row in answer["pods"]] == ["failed", "done", "done"]
        assert answer["pods"][0]["code"] == "dearer_than_allowed"
        assert answer["price_per_hour_usd"] < 0.6


def _dearer(name: str) -> Any:
    def change(value: Any) -> Any:
        if isinstance(value, list):
            return [change(item) for item in value]
        return value | {"price": value["price"] * 2} if value.get("pod_name") == name else value

    return change


async def test_the_answer_has_a_small_row_of_each_pod(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        answer = await agent.call("rent_pod", **TRAIN | {"count": 20})
    assert answer["pods_done"] == len(living(account)) == 20
    assert len(json.dumps(answer)) < 20 * 300
    assert "removal_at" in answer
    assert answer["price_per_hour_usd"] == pytest.approx(sum(float(pod["price"]) for pod in living(account)))


async def test_what_takes_longer_than_the_wait_is_pending_and_has_no_problem(account: Sandbox) -> None:
    account.add_fault("boot_slow", seconds=300)
    async with agent_on(account) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
        assert [row["outcome"] for row in answer["pods"]] == ["pending", "done", "done"]
        assert (answer["outcome"], answer["pods_pending"], answer["pods_done"]) == ("pending", 1, 2)
        account.clock.advance(seconds=400)
        again = await agent.call("rent_pod", **TRAIN)
    assert [row["outcome"] for row in again["pods"]] == ["done"] * 3


async def test_one_that_fails_to_start_is_told_and_rented_anew_by_the_same_call(account: Sandbox) -> None:
    account.add_fault("boot_fails")
    async with agent_on(account) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
        assert [row["outcome"] for row in answer["pods"]] == ["failed", "done", "done"]
        assert answer["outcome"] == "partly_done"
        assert "The same call again" in answer["next"]
        account.clock.advance(minutes=5)
        again = await agent.call("rent_pod", **TRAIN)
    assert [row["outcome"] for row in again["pods"]] == ["done"] * 3
    assert [row.get("already_rented", False) for row in again["pods"]] == [False, True, True]


async def test_a_batch_is_read_in_few_requests_however_many_pods_it_has(account: Sandbox) -> None:
    wire = Wire(account)
    async with agent_on(account, transport=wire) as agent:
        await agent.call("rent_pod", **TRAIN | {"count": 20})
    assert len(sent_rents(wire)) == 20
    assert len(wire.sent("GET", "/pods")) < 25
    nodes = {pod["executor_id"] for pod in living(account)}
    assert len(wire.sent("GET", "/templates")) < len(nodes)  # once for each driver
    assert len(wire.sent("GET", "/executors/*/quote")) <= len(nodes) + 3


async def test_count_1_is_the_pod_of_that_very_name(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        rented = await agent.call("rent_pod", **TRAIN | {"count": 1})
        again = await agent.call("rent_pod", **{name: value for name, value in TRAIN.items() if name != "count"})
    assert again["already_rented"]
    assert rented["pod_id"] == again["pod_id"]
    assert [pod["pod_name"] for pod in living(account)] == ["train"]


async def test_pods_of_a_batch_are_removed_by_their_names(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        await agent.call("rent_pod", **TRAIN)
        for name in ("train-1", "train-2", "train-3"):
            assert (await agent.call("remove_pod", pod=name))["outcome"] == "done"
    assert living(account) == []
    assert await ask(account, "GET", "/pods") == []


# --- a total for all of them -----------------------------------------------------------------------------------------


async def test_a_total_is_for_all_pods_together(account: Sandbox) -> None:
    wanted = {"name": "train", "gpu_type": "RTX4090", "count": 3, "max_total_usd": 5}
    async with agent_on(account) as agent:
        planned = await agent.call("rent_pod", **wanted, dry_run=True)
        answer = await agent.call("rent_pod", **wanted)
    price = answer["price_per_hour_usd"]
    assert answer["hours"] == planned["hours"] == int(5 / price - 0.1)
    assert answer["left_of_total_usd"] == pytest.approx(5 - price * (answer["hours"] + 0.1))
    assert {pod["termination_hours"] or answer["hours"] for pod in living(account)} == {answer["hours"]}
    account.clock.advance(hours=500)
    assert living(account) == []
    charged = sum(pod["charged_usd"] for pod in account.state("pods")["pods"])
    assert 5 - 1.2 * price <= charged <= 5


async def test_a_total_that_pays_for_no_hour_of_all_of_them_rents_none(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        failure = await agent.refused("rent_pod", name="t", gpu_type="RTX4090", count=3, max_total_usd=0.8)
        assert failure.code == "total_too_low"
        assert "max_total_usd=0.8 does not pay for one hour of 3 pods" in failure.text
    assert rents(account) == []


async def test_what_lives_of_a_batch_is_taken_off_its_total(account: Sandbox) -> None:
    wanted = {"name": "train", "gpu_type": "RTX4090", "max_total_usd": 5}
    async with agent_on(account) as agent:
        first = await agent.call("rent_pod", **wanted, count=2, hours=4)
        more = await agent.call("rent_pod", **wanted, count=3, hours=4)
        assert more["left_of_total_usd"] == pytest.approx(5 - more["price_per_hour_usd"] * 4.1)
        assert more["left_of_total_usd"] < first["left_of_total_usd"]
        failure = await agent.refused("rent_pod", **wanted, count=12, hours=4)
        assert failure.code == "total_too_low"
        assert "that its other pods may cost" in failure.text
    assert len(living(account)) == 3


async def test_a_person_is_asked_about_no_more_than_the_total(account: Sandbox) -> None:
    person = Person("yes")
    async with agent_on(account, person=person) as agent:
        await agent.call("rent_pod", name="train", gpu_type="RTX4090", count=3, max_total_usd=2.65)
    [question] = person.questions
    assert "3 hours after it starts: at most $2.64 in all" in question
    assert len(living(account)) == 3


async def test_the_total_of_a_batch_and_a_budget_both_hold(account: Sandbox) -> None:
    wanted = {"name": "train", "gpu_type": "RTX4090", "count": 3, "max_total_usd": 5}
    async with agent_on(account, budget_usd=3) as agent:
        assert (await agent.refused("rent_pod", **wanted)).code == "policy_refused"
        assert rents(account) == []
        assert (await agent.call("rent_pod", **wanted | {"max_total_usd": 2.9}))["pods_done"] == 3


# --- what it says ----------------------------------------------------------------------------------------------------


async def test_a_refusal_that_the_same_call_does_not_mend_is_to_be_mended_first(account: Sandbox) -> None:
    wire = Wire(account)
    body = {"success": False, "error": {"code": "PAYMENT_REQUIRED", "message": "The card was declined"}}
    left = [passing]

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        return await (left.pop() if left else answering(402, body))(request, forward)

    wire.on("POST", "/executors/*/rent", act)
    async with agent_on(account, transport=wire) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
    assert [row["outcome"] for row in answer["pods"]] == ["done", "failed", "failed"]
    assert answer["next"].startswith("Settle the payment on lium.io. After that: The same call again")


async def test_each_row_names_its_gpu_model(account: Sandbox) -> None:
    async with agent_on(account) as agent:
        answer = await agent.call("rent_pod", **TRAIN)
        again = await agent.call("rent_pod", **TRAIN)
    assert {row["gpu_type"] for row in (*answer["pods"], *again["pods"])} == {"RTX4090"}


@pytest.mark.parametrize(("before", "now"), [(None, 2), (1, 2), (2, None), (3, 1)])
async def test_the_same_request_with_another_way_to_name_its_pods_rents_none_beside_them(
    account: Sandbox, before: int | None, now: int | None
) -> None:
    def counted(count: int | None) -> dict[str, Any]:
        return {name: value for name, value in (TRAIN | {"count": count}).items() if value is not None}

    person = Person("yes")
    async with agent_on(account, person=person) as agent:
        await agent.call("rent_pod", **counted(before))
        lived = len(living(account))
        failure = await agent.refused("rent_pod", **counted(now))
        assert failure.code == "pod_name_taken"
        assert "another count" in failure.text
        assert len(person.questions) == 1
    async with agent_on(account) as agent:
        await agent.refused("rent_pod", **counted(now))
        await agent.call("rent_pod", **counted(now) | {"name": "other"})
    assert len(living(account)) == lived + (now or 1)


async def test_a_person_is_told_what_goes_into_the_pods(account: Sandbox) -> None:
    person = Person("yes")
    async with agent_on(account, person=person) as agent:
        await agent.call("rent_pod", **TRAIN)
    [question] = person.questions
    body = rents(account)[0]
    assert 'It runs template "' in question
    assert body["pod_name"] in question
