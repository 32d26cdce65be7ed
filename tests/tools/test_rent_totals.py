"""A rent within a total: the most hours that it pays for, and no way to cost more."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Person, agent_on
from tests.wires import Forward, Wire, ask, editing, living, offers, rents, truth

Row = dict[str, Any]
LATE_HOURS = 0.1  # a total pays for a removal that comes so late
CHEAP = {"name": "train", "gpu_type": "RTX4090"}


def sent(sandbox: Sandbox) -> list[Row]:
    """The bodies of all rent requests that arrived."""
    return [note["body"] for note in truth(sandbox, "requests") if "body" in note]


def pricing(per_hour: float, per_hour_of_total: float | None = None) -> Any:
    """A quote at this price an hour, whose total is another per hour where one is given."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        hours = float(request.url.params["hours"])
        answer = json.loads(await (await forward(request)).aread())
        total = (per_hour if per_hour_of_total is None else per_hour_of_total) * hours
        return httpx2.Response(200, json=answer | {"price_per_hour": per_hour, "total_usd": total})

    return act


async def test_a_total_sets_the_most_hours_that_it_pays_for(sandbox: Sandbox, agent: Agent) -> None:
    rented = await agent.call("rent_pod", **CHEAP, max_total_usd=5)
    (record,), (body,) = rents(sandbox), sent(sandbox)
    price = record["price_per_hour"]
    assert rented["hours"] == body["termination_hours"] == int(5 / price - LATE_HOURS)
    assert rented["left_of_total_usd"] == pytest.approx(5 - price * (rented["hours"] + LATE_HOURS), abs=0.01)
    removal = datetime.fromisoformat(rented["pod"]["removal_at"])
    assert removal - sandbox.clock.now() == pytest.approx(timedelta(hours=rented["hours"]), abs=timedelta(minutes=3))
    sandbox.clock.advance(hours=rented["hours"] + 1)
    assert not living(sandbox)


@pytest.mark.parametrize(
    ("hours", "total_hours", "most", "is_sent"),
    [
        (2, 10.5, None, 2),
        (8, 3.5, None, 3),
        (None, 4, None, 3),  # a fourth hour would be paid for to the cent, and not its last minutes
        (2, 2.05, None, 1),
        (2.5, 2.7, None, 2),  # whole hours are sent, so a half would be a whole one in the worst case
        (0.5, 1.2, None, 1),
        (None, 5000, None, 720),
        (None, 100, 6, 6),
        (3, 100, 6, 3),
    ],
)
async def test_the_lowest_of_hours_total_and_limit_holds(
    sandbox: Sandbox, hours: float | None, total_hours: float, most: float | None, is_sent: int
) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", pricing(0.25))
    given = {} if hours is None else {"hours": hours}
    async with agent_on(sandbox, transport=wire, max_hours=most) as agent:
        total_usd = total_hours * 0.25
        wanted = CHEAP | given | {"max_total_usd": total_usd}
        planned = await agent.call("rent_pod", **wanted, dry_run=True)
        await agent.raw("rent_pod", **wanted, wait_seconds=0)
    (body,) = sent(sandbox)
    assert body["termination_hours"] == is_sent
    assert planned["hours"] == min(hours or is_sent, is_sent)
    assert planned["left_of_total_usd"] == pytest.approx(total_usd - (is_sent + LATE_HOURS) * 0.25)


async def test_what_a_pod_costs_until_its_removal_is_told_whatever_bounds_it(sandbox: Sandbox, agent: Agent) -> None:
    planned = await agent.call("rent_pod", **CHEAP, hours=2, dry_run=True)
    rented = await agent.call("rent_pod", **CHEAP, hours=2)
    (record,) = rents(sandbox)
    for answer in (planned, rented):
        assert (answer["hours"], answer["total_usd"]) == (2, pytest.approx(2 * record["price_per_hour"], abs=0.01))


async def test_what_lium_bills_beside_the_hours_counts(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", pricing(0.25, 0.4))
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.raw("rent_pod", **CHEAP, max_total_usd=4, wait_seconds=0)
    (body,) = sent(sandbox)
    assert body["termination_hours"] == 9


@pytest.mark.parametrize("more", [{}, {"hours": 0.1}], ids=str)
async def test_less_than_an_hour_is_refused(sandbox: Sandbox, agent: Agent, more: Row) -> None:
    price = min(row["price_per_gpu"] for row in await offers(sandbox, "4090"))
    failure = await agent.refused("rent_pod", **CHEAP, **more, max_total_usd=price * 1.05)
    assert failure.code == "total_too_low"
    assert "whole hours" in failure.text
    assert "Nothing was changed." in failure.text
    assert sent(sandbox) == []


@pytest.mark.parametrize("given", [0, -1, "", "nan"])
async def test_a_total_that_is_none_is_refused(agent: Agent, given: Any) -> None:
    failure = await agent.refused("rent_pod", **CHEAP, max_total_usd=given)
    assert failure.code == "invalid_argument"
    assert "max_total_usd" in failure.text


async def test_a_total_alone_rents_the_cheapest_there_is(sandbox: Sandbox, agent: Agent) -> None:
    await agent.call("rent_pod", name="any", max_total_usd=1, wait_seconds=0)
    (record,) = rents(sandbox)
    sure = [row for row in await offers(sandbox) if row.get("min_gpu_count_for_rental") == 1]
    assert record["price_per_hour"] <= min(row["price_per_gpu"] for row in sure)


async def test_a_pod_that_came_out_too_dear_for_the_total_is_given_back(sandbox: Sandbox) -> None:
    price = min(row["price_per_gpu"] for row in await offers(sandbox, "4090"))
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        wire.on("GET", "/pods/*", editing(lambda pod: pod | {"price": price * 1.3}))
        failure = await agent.refused("rent_pod", **CHEAP, max_total_usd=price * 4.5)
    assert failure.code == "dearer_than_allowed"


async def test_a_price_that_rises_while_a_person_is_asked_is_held_against_the_total(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", pricing(0.333))

    async def rise() -> None:
        wire.on("GET", "/executors/*/quote", pricing(0.34))

    person = Person("yes", meanwhile=rise)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        failure = await agent.refused("rent_pod", **CHEAP, max_total_usd=1.04)
    assert failure.code == "price_changed"
    assert sent(sandbox) == []
    assert "removes it 3 hours after it starts: at most $1.04 in all, even 6 minutes late." in person.questions[0]


async def test_the_same_call_again_says_the_same_hours(sandbox: Sandbox, agent: Agent) -> None:
    rented = await agent.call("rent_pod", **CHEAP, max_total_usd=3)
    again = await agent.call("rent_pod", **CHEAP, max_total_usd=3)
    assert again["already_rented"] is True
    for name in ("pod_id", "hours", "left_of_total_usd"):
        assert again[name] == rented[name]
    other = await agent.refused("rent_pod", **CHEAP, max_total_usd=4)
    assert other.code == "pod_name_taken"
    assert len(sent(sandbox)) == 1


async def test_the_same_call_again_is_known_where_a_limit_chose_the_hours(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, max_hours=4) as agent:
        rented = await agent.call("rent_pod", **CHEAP)
        again = await agent.call("rent_pod", **CHEAP)
    assert (again["pod_id"], again["already_rented"]) == (rented["pod_id"], True)


async def test_a_server_that_dies_at_once_leaves_no_more_than_the_total(sandbox: Sandbox, agent: Agent) -> None:
    rented = await agent.call("rent_pod", **CHEAP, max_total_usd=1, hours=2.5, wait_seconds=0)
    sandbox.clock.advance(hours=100)  # nobody sets the exact time
    assert not living(sandbox)
    record = await ask(sandbox, "GET", f"/pods/{rented['pod_id']}/record")
    assert 0.2 < record["total"] <= 1


async def test_a_quote_says_what_a_total_pays_for(sandbox: Sandbox, agent: Agent) -> None:
    quote = await agent.call("quote_rental", gpu_type="RTX4090", max_total_usd=5)
    planned = await agent.call("rent_pod", **CHEAP, max_total_usd=5, dry_run=True)
    for name in ("executor_id", "hours", "total_usd", "price_per_hour_usd"):
        assert quote[name] == planned[name]
    assert (await agent.refused("quote_rental", gpu_type="RTX4090", max_total_usd=0.01)).code == "total_too_low"


async def test_a_total_that_is_too_low_is_told_the_price_of_one_hour(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/executors/*/quote", pricing(1))
    async with agent_on(sandbox, transport=wire, max_hours=5) as agent:
        refused = await agent.refused("rent_pod", **CHEAP, max_total_usd=0.9, min_ram_gb=1)
    assert refused.code == "total_too_low"
    assert "one hour, which costs $1.10 with the 6 minutes by which Lium may remove it late:" in refused.text


@pytest.mark.parametrize("more", [{}, {"count": 2}], ids=["one", "two"])
async def test_hours_that_a_total_cuts_short_are_told_wherever_they_are_planned(sandbox: Sandbox, more: Row) -> None:
    person, told = Person("yes"), "3 of the 100 hours asked for fit into max_total_usd, with 6 minutes spare."
    total = 3.6 * min(row["price_per_gpu"] for row in await offers(sandbox, "4090"))
    wanted = CHEAP | more | {"hours": 100, "max_total_usd": total * more.get("count", 1)}
    async with agent_on(sandbox, person=person) as agent:
        planned = await agent.call("rent_pod", **wanted, dry_run=True)
        rented = await agent.call("rent_pod", **wanted)
        quote = await agent.call("quote_rental", gpu_type="RTX4090", hours=100, max_total_usd=total)
    assert [answer["warnings"].count(told) for answer in (planned, rented, quote)] == [1, 1, 1]
    assert person.questions[0].count(told) == 1


# --- what pods of the same name cost before ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
async def test_pods_that_were_removed_count_towards_a_total_whatever_else_is_asked(
    sandbox: Sandbox, count: int
) -> None:
    price = count * min(row["price_per_gpu"] for row in await offers(sandbox, "4090"))
    total = round(4 * price * 1.1, 2)  # of several, the dearer ones count too
    wanted = CHEAP | {"count": count, "max_total_usd": total, "wait_seconds": 60}
    async with agent_on(sandbox) as agent:
        left = []
        for _ in range(20):
            planned = await agent.raw("rent_pod", **wanted, dry_run=True)
            if planned.is_error:
                break
            left.append(planned.structured_content["left_of_total_usd"])
            rented = await agent.call("rent_pod", **wanted)
            sandbox.clock.advance(hours=0.9)
            for pod_id in [row["pod_id"] for row in rented.get("pods", [rented])]:
                await agent.call("remove_pod", pod=pod_id, wait_seconds=60)
        failure = await agent.refused("rent_pod", **wanted)
        assert failure.code == "total_too_low"
        assert f"max_total_usd={total:g}, less up to $" in failure.text
        assert "pods of this name that are gone" in failure.text
        others: list[Row] = [{"min_ram_gb": 1}, {"max_usd_per_hour": 50}, {"count": 4}, {"max_total_usd": total * 1.05}]
        for more in others:
            assert (await agent.refused("rent_pod", **wanted | more)).code == "total_too_low"
        await agent.call("rent_pod", **wanted | {"name": "other"}, dry_run=True)
        higher = await agent.call("rent_pod", **wanted | {"max_total_usd": 2 * total}, dry_run=True)
        assert higher["left_of_total_usd"] < total
    assert len(left) >= 2
    assert sum(pod["charged_usd"] for pod in sandbox.state("pods")["pods"]) <= total


async def test_the_same_call_some_hours_later_asks_anew(sandbox: Sandbox, agent: Agent) -> None:
    """As one that runs every night does, whether or not anybody saw how the pod of the last night ended."""
    planned = []
    for is_removed in (True, False, True):
        planned.append(await agent.call("rent_pod", **CHEAP, hours=2, max_total_usd=1, dry_run=True))
        await agent.call("rent_pod", **CHEAP, hours=2, max_total_usd=1)
        sandbox.clock.advance(hours=1.5)
        if is_removed:
            await agent.call("remove_pod", pod="train", wait_seconds=60)
        sandbox.clock.advance(hours=8)
    assert [one["hours"] for one in planned] == [2, 2, 2]


async def test_while_pods_of_a_batch_live_those_that_went_long_ago_count(sandbox: Sandbox, agent: Agent) -> None:
    price = min(row["price_per_gpu"] for row in await offers(sandbox, "4090"))
    wanted = CHEAP | {"count": 2, "hours": 100, "max_total_usd": price * 210, "wait_seconds": 60}
    await agent.call("rent_pod", **wanted)
    sandbox.clock.advance(hours=50)
    await agent.call("remove_pod", pod="train-2", wait_seconds=60)
    sandbox.clock.advance(hours=20)
    again = await agent.call("rent_pod", **wanted)
    assert again["outcome"] == "done"
    second = sent(sandbox)[-1]
    assert second["pod_name"] == "train-2"
    assert 0 < second["termination_hours"] < 60
    sandbox.clock.advance(hours=300)
    assert living(sandbox) == []
    assert sum(pod["charged_usd"] for pod in sandbox.state("pods")["pods"]) <= price * 210


async def test_a_pod_that_never_started_took_nothing_of_the_total(sandbox: Sandbox, agent: Agent) -> None:
    sandbox.add_fault("boot_fails")
    failed = await agent.raw("rent_pod", **CHEAP, max_total_usd=1, wait_seconds=300)
    first = await agent.call("rent_pod", **CHEAP | {"name": "other"}, max_total_usd=1, dry_run=True)
    await agent.call("remove_pod", pod="train", wait_seconds=60)
    again = await agent.call("rent_pod", **CHEAP, max_total_usd=1, dry_run=True)
    assert failed.structured_content["outcome"] == "failed"
    assert again["left_of_total_usd"] == first["left_of_total_usd"]


# --- hours that are no whole ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"count": 2}], ids=["one", "two"])
async def test_a_person_is_told_the_most_that_hours_with_a_fraction_may_cost(sandbox: Sandbox, more: Row) -> None:
    """Whatever becomes of the server after the yes, the pods cost no more than that."""
    person = Person("yes")
    async with agent_on(sandbox, person=person) as agent:
        await agent.call("rent_pod", **CHEAP, **more, hours=1.2, wait_seconds=0)
    [question] = person.questions
    said = re.search(r"1\.2 hours after it starts, for about \$([\d.]+): at most \$([\d.]+) in all", question)
    assert said, question
    about, most = map(float, said.groups())
    assert about < most
    sandbox.clock.advance(hours=100)
    assert not living(sandbox)
    charged = sum(pod["charged_usd"] for pod in sandbox.state("pods")["pods"])
    assert about < charged <= most


async def test_a_pod_whose_price_rose_says_so_wherever_it_is_shown(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **CHEAP, hours=2)
        assert "problem" not in (await agent.call("list_pods"))["pods"][0]
        price = rented["pod"]["price_per_hour_usd"]
        wire.on("GET", "/pods", editing(lambda rows: [row | {"price": price * 1.5} for row in rows]))
        wire.on("GET", "/pods/*", editing(lambda pod: pod | {"price": price * 1.5}))
        await agent.clock.sleep(2)  # for so long pods are kept
        [listed] = (await agent.call("list_pods"))["pods"]
        shown = await agent.call("get_pod", pod="train")
    said = f"It costs ${price * 1.5:.4f} an hour, more than the ${price:.4f} it was offered at: remove_pod stops it."
    assert listed["problem"] == said
    assert shown["pod"]["warnings"].count(said) == 1
