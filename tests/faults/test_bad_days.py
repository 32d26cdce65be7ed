"""Lium answers late, wrongly or in part, and others act meanwhile: still a rent happens once and within the limits.

Judged by the sandbox's own record. A list that is wrong proves nothing, a judgement is about the moment its data is of,
and limits belong to the account, whichever key and server spend for it.
"""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on as agent_on_sandbox
from tests.wires import (
    Forward,
    Hold,
    Wire,
    after_work,
    answering,
    ask,
    ask_as_person,
    editing,
    eventually,
    failing,
    living,
    losing_the_answer,
    offers,
    on_rents,
    passing,
    rents,
    truth,
)

GATEWAY = b"<html><h1>502 Bad Gateway</h1></html>"
OTHER_ACCOUNT = "sk_sandbox_other"
NO_REPLAY = ("rent_by_spec", "run_record")


@pytest.fixture
def account() -> Sandbox:
    return Sandbox(seed=7, speed=0, balance_usd=5000, pod_polls_per_minute=10**6)


@pytest.fixture
def ledger() -> Path:
    return Path.home() / "shared.db"


def agent_on(sandbox: Sandbox, ledger: Path, **settings: Any) -> Any:
    return agent_on_sandbox(sandbox, **{"state_url": f"sqlite:///{ledger}"} | settings)


async def a_rent(sandbox: Sandbox, name: str, **wanted: Any) -> dict[str, Any]:
    node = next(row["id"] for row in await offers(sandbox) if row.get("min_gpu_count_for_rental") == 1)
    return {"name": name, "executor_id": str(node), "hours": 2, "wait_seconds": 0, **wanted}


def rows(ledger: Path) -> dict[str, str]:
    """The newest status of each name, as the file has it."""
    with sqlite3.connect(ledger) as connection:
        return dict(connection.execute("SELECT pod_name, status FROM rentals ORDER BY created_at").fetchall())


async def another_key(sandbox: Sandbox, visibility: str) -> str:
    body = {"name": f"key-{visibility}", "scopes": ["read", "rent", "manage"], "pod_visibility": visibility}
    return str((await ask_as_person(sandbox, "POST", "/keys", body))["key"])


# --- while a rent is lost or in flight, nothing else leaves ----------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same server", "another server"])
async def test_nothing_else_is_rented_while_a_rent_is_lost(account: Sandbox, ledger: Path, elsewhere: bool) -> None:
    wire = Wire(account)
    on_rents(wire, after_work(answering(502, GATEWAY)))
    wire.on("GET", "/pods", answering(200, []))
    async with (
        agent_on(account, ledger, transport=wire) as one,
        agent_on(account, ledger, transport=wire) as other,
    ):
        assert (await one.refused("rent_pod", **await a_rent(account, "s1"))).code == "outcome_unknown"
        second = other if elsewhere else one
        for _ in range(8):  # in whatever stage of settling the first one is
            assert (await second.refused("rent_pod", **await a_rent(account, "s2"))).code == "rent_unsettled"
            [row] = (await second.call("list_pods"))["unsettled"]
            assert (row["name"], row["status"]) == ("s1", "unknown")
            account.clock.advance(seconds=20)
        assert [row["pod_name"] for row in rents(account)] == ["s1"]
        wire.on("GET", "/pods", passing)
        account.clock.advance(seconds=61)
        [pod] = (await one.call("list_pods"))["pods"]
        assert pod["name"] == "s1"
        on_rents(wire, passing)
        await second.call("rent_pod", **await a_rent(account, "s2"))
    assert sorted(row["pod_name"] for row in rents(account)) == ["s1", "s2"]


async def test_a_rent_in_flight_elsewhere_is_waited_for(account: Sandbox, ledger: Path) -> None:
    slow, wire = Wire(account), Wire(account)
    sent = Hold()
    on_rents(slow, sent, times=1)
    polls = 0

    async def counted(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        nonlocal polls
        polls += 1
        return await forward(request)

    wire.on("GET", "/pods", counted)
    first, second = await a_rent(account, "first"), await a_rent(account, "second")
    async with (
        agent_on(account, ledger, transport=slow) as one,
        agent_on(account, ledger, transport=wire) as other,
        anyio.create_task_group() as calls,
    ):
        calls.start_soon(lambda: one.call("rent_pod", **first))
        await sent.reached()
        calls.start_soon(lambda: other.call("rent_pod", **second))
        await eventually(lambda: other.clock.slept_seconds > 2)
        assert len(rents(account)) == 0
        sent.let_go()
    assert sorted(row["pod_name"] for row in rents(account)) == ["first", "second"]
    assert polls <= 4, "waiting asks the ledger, not Lium"


# --- a judgement is about the moment its data is of ------------------------------------------------------------------


async def test_a_list_from_before_another_servers_rent_neither_closes_it_nor_passes_a_limit(
    account: Sandbox, ledger: Path
) -> None:
    late, wire = Wire(account), Wire(account)
    async with (
        agent_on(account, ledger, transport=late, max_pods=2) as one,
        agent_on(account, ledger, transport=wire, max_pods=2) as other,
    ):
        await one.call("rent_pod", **await a_rent(account, "before"))
        asked = late.hold("GET", "/pods", "after the work")
        failures: list[str] = []
        third = await a_rent(account, "third")

        async def rent_third() -> None:
            failures.append((await one.refused("rent_pod", **third)).code)

        async with anyio.create_task_group() as calls:
            calls.start_soon(rent_third)
            await asked.reached()
            account.clock.advance(seconds=40)
            await other.call("rent_pod", **await a_rent(account, "meanwhile"))
            account.clock.advance(seconds=40)  # longer than a new pod takes to be listed
            asked.let_go()
        assert failures == ["policy_refused"]
        assert rows(ledger) == {"before": "rented", "meanwhile": "rented"}
    assert len(living(account)) == 2


# --- one list proves nothing -----------------------------------------------------------------------------------------

WRONG_LISTS: dict[str, Callable[[Any], Any]] = {
    "empty": lambda _: [],
    "short": lambda body: [row for row in body if row["pod_name"] != "train"],
    "unreadable": lambda body: [row if row["pod_name"] != "train" else {"pod_name": "train"} for row in body],
}


@pytest.mark.parametrize("wrong", WRONG_LISTS.values(), ids=WRONG_LISTS)
async def test_wrong_lists_lead_to_no_second_pod_and_past_no_limit(
    account: Sandbox, ledger: Path, wrong: Callable[[Any], Any]
) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire, max_pods=2, budget_usd=40) as agent:
        wanted = await a_rent(account, "train")
        train = await agent.call("rent_pod", **wanted)
        await agent.call("rent_pod", **await a_rent(account, "other"))
        account.clock.advance(minutes=2)
        wire.on("GET", "/pods", editing(wrong))
        for _ in range(12):
            again = await agent.call("rent_pod", **wanted)
            assert (again["already_rented"], again["pod_id"]) == (True, train["pod_id"])
            assert (await agent.refused("rent_pod", **await a_rent(account, "third"))).code == "policy_refused"
            listed = await agent.call("list_pods")
            assert ("train", "not_listed") in [(row["name"], row["status"]) for row in listed["unsettled"]]
            account.clock.advance(seconds=90)
        wire.on("GET", "/pods", passing)
        assert "unsettled" not in await agent.call("list_pods")
    assert len(rents(account)) == len(living(account)) == 2


async def test_a_pod_that_is_gone_is_closed_when_lium_says_so_of_the_pod_itself(account: Sandbox, ledger: Path) -> None:
    async with agent_on(account, ledger) as agent:
        wanted = await a_rent(account, "train")
        first = await agent.call("rent_pod", **wanted)
        account.clock.advance(minutes=2)
        await ask(account, "DELETE", f"/pods/{first['pod_id']}")
        account.clock.advance(minutes=2)
        second = await agent.call("rent_pod", **wanted)
        assert "already_rented" not in second
        assert second["pod_id"] != first["pod_id"]


@pytest.mark.parametrize("status", [404, 500], ids=["not found", "failing"])
async def test_a_new_pod_that_is_not_known_by_its_id_yet_keeps_its_name(
    account: Sandbox, ledger: Path, status: int
) -> None:
    wire = Wire(account)
    wire.on("GET", "/pods", answering(200, []))
    wire.on("GET", "/pods/*", answering(status, {"detail": "Pod not found"}))
    async with agent_on(account, ledger, transport=wire) as agent:
        wanted = await a_rent(account, "train")
        rented = await agent.call("rent_pod", **wanted)
        for _ in range(3):
            account.clock.advance(seconds=6)
            assert (await agent.call("rent_pod", **wanted))["pod_id"] == rented["pod_id"]
    assert len(rents(account)) == 1


async def test_a_lost_rent_is_absent_only_after_several_complete_lists_spread_over_minutes(ledger: Path) -> None:
    account = Sandbox(seed=7, speed=0, balance_usd=5000, features=NO_REPLAY)
    wire = Wire(account)
    on_rents(wire, losing_the_answer())
    wire.on("GET", "/pods", answering(200, []))
    async with agent_on(account, ledger, transport=wire) as agent:
        wanted = await a_rent(account, "train")
        assert (await agent.refused("rent_pod", **wanted)).code == "outcome_unknown"
        account.clock.advance(minutes=7)
        # As often as one likes within two minutes: these are not several.
        for _ in range(23):
            assert "unsettled" in await agent.call("list_pods")
            assert rows(ledger) == {"train": "unknown"}
            account.clock.advance(seconds=5)
        # A list with an unreadable row is not complete.
        wire.on("GET", "/pods", answering(200, [{"pod_name": "what"}]))
        for _ in range(6):
            account.clock.advance(seconds=90)
            assert "unsettled" in await agent.call("list_pods")
        # It was there all the time.
        wire.on("GET", "/pods", passing)
        account.clock.advance(seconds=90)
        [pod] = (await agent.call("list_pods"))["pods"]
        assert pod["pod_id"] == living(account)[0]["id"]
        assert (await agent.call("rent_pod", **wanted))["already_rented"] is True
    assert len(rents(account)) == 1


async def test_a_lost_rent_that_made_no_pod_is_absent_after_some_minutes(ledger: Path) -> None:
    account = Sandbox(seed=7, speed=0, balance_usd=5000, features=NO_REPLAY)
    wire = Wire(account)
    on_rents(wire, answering(502, GATEWAY), times=1)
    async with agent_on(account, ledger, transport=wire) as agent:
        wanted = await a_rent(account, "train")
        assert (await agent.refused("rent_pod", **wanted)).code == "outcome_unknown"
        lost_at = account.clock.now()
        while rows(ledger) == {"train": "unknown"}:
            account.clock.advance(seconds=15)
            await agent.call("list_pods")
            assert account.clock.now() - lost_at < timedelta(minutes=10)
        # The rent left some ten seconds before its call gave up.
        assert account.clock.now() - lost_at > timedelta(seconds=330 + 120 - 12)
        assert rows(ledger) == {"train": "absent"}
        await agent.call("rent_pod", **wanted)
    assert len(rents(account)) == 1


@pytest.mark.parametrize("row", [{"gpu_name": "NVIDIA H200"}, {"gpu_count": "7"}], ids=["another card", "more of them"])
async def test_a_pod_that_no_call_has_seen_is_held_against_what_was_asked(
    account: Sandbox, ledger: Path, row: dict[str, Any]
) -> None:
    """The call that rented it could not read it, as if its server had died."""
    wire = Wire(account)
    wire.on("GET", "/pods/*", answering(503, {"detail": "later"}))
    async with agent_on(account, ledger, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await a_rent(account, "train"))
        assert rented["outcome"] == "pending"
        wire.on("GET", "/pods", editing(lambda body: [each | row for each in body]))
        wire.on("GET", "/pods/*", passing)
        account.clock.advance(minutes=1)
        await agent.call("list_pods")
        assert living(account) == []
    [(status, note)] = sqlite3.connect(ledger).execute("SELECT status, note FROM rentals").fetchall()
    assert status == "removing"
    assert "H200" in note or "7 GPUs" in note


# --- settling is gentle ----------------------------------------------------------------------------------------------


async def test_asking_again_is_gentle_however_many_look(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    on_rents(wire, answering(502, GATEWAY))
    async with agent_on(account, ledger, transport=wire) as one, agent_on(account, ledger, transport=wire) as other:
        wanted = await a_rent(account, "train")
        before = len(wire.requests)
        assert (await one.refused("rent_pod", **wanted)).code == "outcome_unknown"
        posts = wire.sent("POST", "/executors/*/rent")
        first = wire.requests.index(posts[0])
        assert first > before
        assert len(wire.requests) - first <= 8, "at most eight requests for a rent in one call"
        started = account.clock.now()
        second = await a_rent(account, "second")
        for _ in range(20):
            for agent in (one, other):
                await agent.call("list_pods")
                await agent.refused("rent_pod", **wanted)
                await agent.refused("rent_pod", **second)
            account.clock.advance(seconds=1)
        seconds = (account.clock.now() - started).total_seconds()
        posts = wire.sent("POST", "/executors/*/rent")
        assert seconds < 60
        assert len(posts) <= 3 + 6, f"{len(posts)} requests in {seconds} s"
        assert len({request.headers["Idempotency-Key"] for request in posts}) == 1


# --- a cancelled call ------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_a_pod_that_another_call_was_told_of(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire) as one, agent_on(account, ledger) as other:
        wanted = await a_rent(account, "train", wait_seconds=60)
        told: list[dict[str, Any]] = []
        async with anyio.create_task_group() as calls:
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await one.raw("rent_pod", **wanted)

            looked = wire.hold("GET", "/pods/*")
            calls.start_soon(first)
            await looked.reached()
            told.append(await other.call("rent_pod", **wanted | {"wait_seconds": 0}))
            scope.cancel()
            looked.let_go()
            account.clock.advance(minutes=1)
        assert told[0]["already_rented"] is True
        await other.call("list_pods")
        assert [pod["id"] for pod in living(account)] == [told[0]["pod_id"]]
        assert rows(ledger) == {"train": "rented"}


@pytest.mark.parametrize("killed", [False, True], ids=["server lives", "server killed"])
async def test_a_call_that_is_cancelled_while_its_rent_is_lost_leaves_no_pod(
    account: Sandbox, ledger: Path, killed: bool
) -> None:
    wire = Wire(account)
    sent = anyio.Event()

    async def lose(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        if not sent.is_set():
            await forward(request)
            sent.set()
        if killed:
            await anyio.sleep_forever()
        return httpx2.Response(502, content=GATEWAY)

    on_rents(wire, lose)
    wanted = await a_rent(account, "train")
    with suppress(Exception):
        async with (
            agent_on(account, ledger, transport=wire, timeout_seconds=1) as one,
            anyio.create_task_group() as calls,
        ):
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await one.raw("rent_pod", **wanted)

            calls.start_soon(first)
            await sent.wait()
            scope.cancel()
            for _ in range(2000):
                await anyio.lowlevel.checkpoint()
            if killed:
                raise RuntimeError("the server is gone")
    assert len(living(account)) == 1
    async with agent_on(account, ledger) as later:
        for _ in range(5):
            account.clock.advance(seconds=40)
            await later.call("list_pods")
        assert living(account) == []
        assert "already_rented" not in await later.call("rent_pod", **wanted)


async def test_a_cancelled_call_leaves_a_pod_that_another_call_works_with(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire) as one, agent_on(account, ledger) as other:
        wanted = await a_rent(account, "train", wait_seconds=60)
        async with anyio.create_task_group() as calls:
            scope = anyio.CancelScope()

            async def first() -> None:
                with scope:
                    await one.raw("rent_pod", **wanted)

            looked = wire.hold("GET", "/pods/*")
            calls.start_soon(first)
            await looked.reached()
            await other.call("schedule_pod_removal", pod="train", hours_from_now=3)
            scope.cancel()
            looked.let_go()
        account.clock.advance(minutes=2)
        await other.call("list_pods")
        assert len(living(account)) == 1
        assert rows(ledger) == {"train": "rented"}


async def test_a_rented_pod_that_is_not_shown_yet_is_not_said_to_be_none(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    wire.on("GET", "/pods", answering(200, []))
    wire.on("GET", "/pods/*", answering(404, {"message": "Pod not found", "status_code": 404}))
    async with agent_on(account, ledger, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await a_rent(account, "train"))
        for named in ("train", rented["pod_id"]):
            failure = await agent.refused("get_pod", pod=named, wait_seconds=0)
            assert failure.code == "pod_not_known_yet"
            assert "may bill" in failure.text
            assert "a new pod may take that long" in failure.text
        wire.on("GET", "/pods/*", passing)
        assert (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]["pod_id"] == rented["pod_id"]


async def test_a_pod_past_its_removal_time_that_is_not_shown_is_said_to_be_gone_most_likely(
    account: Sandbox, ledger: Path
) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire) as agent:
        rented = await agent.call("rent_pod", **await a_rent(account, "train", hours=2, wait_seconds=60))
        due = account.clock.now() + timedelta(hours=2)
        account.clock.advance(hours=1)
        wire.on("GET", "/pods", answering(200, []))
        for path in ("/pods/*", "/pods/*/record", "/pods/*/events"):
            wire.on("GET", path, answering(404, {"message": "Pod not found", "status_code": 404}))
        early = await agent.refused("get_pod", pod="train", wait_seconds=0)
        account.clock.advance(hours=1, minutes=3)
        late = await agent.refused("get_pod", pod=rented["pod_id"], wait_seconds=0)
    assert "Its removal time was" not in early.text
    said = re.search(r"Its removal time was (\S+)Z, as far as is known", late.text)
    assert said
    assert abs(datetime.fromisoformat(said[1]).replace(tzinfo=UTC) - due) < timedelta(minutes=5)
    assert "most likely it is removed" in late.text
    assert "a new pod" not in late.text


async def test_a_name_whose_pod_is_being_removed_is_said_to_be(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire, max_pods=1) as agent:
        wanted = await a_rent(account, "train", wait_seconds=60)
        rented = await agent.call("rent_pod", **wanted)
        account.clock.advance(minutes=1)
        # Accepted, and not done for a while.
        wire.on("DELETE", "/pods/*", answering(200, {"success": True}))
        await agent.call("remove_pod", pod=rented["pod_id"], wait_seconds=0)
        failure = await agent.refused("rent_pod", **wanted)
        assert failure.code == "pod_name_taken"
        assert "is being removed" in failure.text
        other = await agent.refused("rent_pod", **await a_rent(account, "other"))
        assert other.code == "policy_refused"
        assert "Nothing was changed" in other.text
        assert len(wire.sent("DELETE", "/pods/*")) < 8
        wire.on("DELETE", "/pods/*", passing)
        account.clock.advance(minutes=1)
        await agent.call("list_pods")
        account.clock.advance(minutes=1)
        assert "already_rented" not in await agent.call("rent_pod", **wanted)


# --- accounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visibility", ["own", "account"])
async def test_two_keys_of_one_account_share_names_and_limits(account: Sandbox, ledger: Path, visibility: str) -> None:
    second_key = await another_key(account, visibility)
    async with (
        agent_on(account, ledger, max_pods=2) as one,
        agent_on(account, ledger, max_pods=2, api_key=second_key) as other,
    ):
        wanted = await a_rent(account, "train")
        first = await one.call("rent_pod", **wanted)
        account.clock.advance(minutes=2)
        # A key that sees only its own pods closes nobody else's.
        await other.call("list_pods")
        again = await other.call("rent_pod", **wanted)
        assert (again["already_rented"], again["pod_id"]) == (True, first["pod_id"])
        await other.call("rent_pod", **await a_rent(account, "second"))
        account.clock.advance(minutes=2)
        for agent in (one, other):
            assert (await agent.refused("rent_pod", **await a_rent(account, "third"))).code == "policy_refused"
        assert rows(ledger) == {"train": "rented", "second": "rented"}
        # What the first key's pod has come to, Lium tells that key.
        await ask(account, "DELETE", f"/pods/{first['pod_id']}")
        account.clock.advance(minutes=2)
        await one.call("list_pods")
        assert rows(ledger)["train"] == "removed"
        await other.call("rent_pod", **await a_rent(account, "third"))
    assert len(living(account)) == 2


async def test_a_lost_rent_is_repeated_with_its_own_key_only(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    on_rents(wire, failing(httpx2.ReadError("gone")))
    async with (
        agent_on(account, ledger, transport=wire, api_key=await another_key(account, "own")) as one,
        agent_on(account, ledger) as other,
    ):
        wanted = await a_rent(account, "train")
        assert (await one.refused("rent_pod", **wanted)).code == "outcome_unknown"
        account.clock.advance(minutes=2)
        # Had this made the pod, it would be this key's, and the first could not see it.
        await other.call("list_pods")
        assert (await other.refused("rent_pod", **wanted)).code == "rent_unsettled"
        assert not rents(account)
        on_rents(wire, passing)
        account.clock.advance(minutes=2)
        await one.call("list_pods")
        for agent in (one, other):
            account.clock.advance(minutes=2)
            assert [pod["name"] for pod in (await agent.call("list_pods"))["pods"]] == ["train"]
        assert rows(ledger) == {"train": "rented"}
    assert len(rents(account)) == len(living(account)) == 1


async def test_a_lost_rent_is_settled_beside_pods_that_its_key_does_not_see(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    on_rents(wire, failing(httpx2.ReadError("gone")))
    async with (
        agent_on(account, ledger) as other,
        agent_on(account, ledger, transport=wire, api_key=await another_key(account, "own")) as one,
    ):
        await other.call("rent_pod", **await a_rent(account, "theirs"))
        account.clock.advance(minutes=2)
        assert (await one.refused("rent_pod", **await a_rent(account, "train"))).code == "outcome_unknown"
        account.clock.advance(minutes=6)
        for _ in range(4):
            await one.call("list_pods")
            account.clock.advance(seconds=65)
        assert rows(ledger) == {"theirs": "rented", "train": "absent"}
    assert [row["pod_name"] for row in rents(account)] == ["theirs"]


async def test_another_account_is_another_account(account: Sandbox, ledger: Path) -> None:
    async with (
        agent_on(account, ledger, max_pods=1) as one,
        agent_on(account, ledger, max_pods=1, api_key=OTHER_ACCOUNT) as other,
    ):
        await one.call("rent_pod", **await a_rent(account, "train"))
        assert "already_rented" not in await other.call("rent_pod", **await a_rent(account, "train"))
    assert len(rents(account)) == 2


async def test_nothing_is_rented_for_an_account_that_was_never_known(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    wire.on("GET", "/users/me", answering(503, {"detail": "later"}))
    async with agent_on(account, ledger, transport=wire) as agent:
        wanted = await a_rent(account, "train")
        failure = await agent.refused("rent_pod", **wanted)
        assert failure.code == "account_unknown"
        assert "Nothing was changed" in failure.text
        await agent.call("list_pods")
        assert not rents(account)
        wire.on("GET", "/users/me", passing)
        await agent.call("rent_pod", **wanted)
        # Once it was learned it is known, by every later server too.
        wire.on("GET", "/users/me", answering(503, {"detail": "later"}))
        await agent.call("rent_pod", **await a_rent(account, "second"))
    async with agent_on(account, ledger, transport=wire) as later:
        await later.call("rent_pod", **await a_rent(account, "third"))
    assert len(rents(account)) == 3


async def test_a_key_that_may_not_read_its_account_is_an_account_of_its_own(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    denial = {"success": False, "error": {"code": "forbidden", "message": "API key 'k' does not have the 'read' scope"}}
    wire.on("GET", "/users/me", answering(403, denial))
    async with agent_on(account, ledger, transport=wire, max_pods=1) as agent:
        await agent.call("rent_pod", **await a_rent(account, "train"))
        assert (await agent.refused("rent_pod", **await a_rent(account, "second"))).code == "policy_refused"
    assert len(rents(account)) == 1


async def test_a_page_of_the_firewall_says_nothing_of_the_account(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    wire.on("GET", "/users/me", answering(403, b"<html>Forbidden</html>", **{"Content-Type": "text/html"}))
    async with agent_on(account, ledger, transport=wire) as agent:
        assert (await agent.refused("rent_pod", **await a_rent(account, "train"))).code == "account_unknown"
    assert not rents(account)


# --- what an earlier version wrote -----------------------------------------------------------------------------------

VERSION_1 = """
CREATE TABLE rentals (
    id VARCHAR(36) NOT NULL PRIMARY KEY, account VARCHAR(64) NOT NULL, pod_name VARCHAR(200) NOT NULL,
    status VARCHAR(16) NOT NULL, "order" JSON NOT NULL, asked VARCHAR(64) NOT NULL,
    idempotency_key VARCHAR(36) NOT NULL UNIQUE, known_pod_ids JSON NOT NULL, pod_ids JSON NOT NULL,
    pod_count FLOAT NOT NULL, price_per_hour_usd FLOAT, ceiling_per_hour_usd FLOAT, hours FLOAT,
    kept_pod_ids JSON NOT NULL, confirmed BOOLEAN NOT NULL, note VARCHAR(500) NOT NULL, created_at DATETIME NOT NULL,
    settled_at DATETIME, closed_at DATETIME
);
CREATE UNIQUE INDEX one_open_rental_per_name ON rentals (account, pod_name) WHERE closed_at IS NULL;
"""


def downgrade(ledger: Path) -> None:
    """Make of a ledger what the first version would have written: no later column, the key's tag as the account."""
    with sqlite3.connect(ledger) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(rentals)")]
        written = [dict(zip(columns, row, strict=True)) for row in connection.execute("SELECT * FROM rentals")]
    for path in ledger.parent.glob(f"{ledger.name}*"):
        path.unlink()
    with sqlite3.connect(ledger) as connection:
        connection.executescript(VERSION_1)
        old = [row[1] for row in connection.execute("PRAGMA table_info(rentals)")]
        for row in written:
            row["account"] = row["key_tag"]
            row["status"] = "repeated" if row["status"] == "unknown" else row["status"]
            row["ceiling_per_hour_usd"] = json.loads(row["expected"] or "{}").get("ceiling_per_hour_usd")
            values = [row[name] for name in old]
            names = ", ".join(f'"{name}"' for name in old)
            connection.execute(f"INSERT INTO rentals ({names}) VALUES ({', '.join('?' * len(old))})", values)  # noqa: S608


async def test_rents_that_an_earlier_version_wrote_are_carried_over(account: Sandbox, ledger: Path) -> None:
    wire = Wire(account)
    async with agent_on(account, ledger, transport=wire) as agent:
        wanted = await a_rent(account, "train")
        train = await agent.call("rent_pod", **wanted)
        on_rents(wire, answering(502, GATEWAY))
        lost = await a_rent(account, "lost")
        assert (await agent.refused("rent_pod", **lost)).code == "outcome_unknown"
        on_rents(wire, passing)
    downgrade(ledger)
    assert rows(ledger) == {"train": "rented", "lost": "repeated"}
    account.clock.advance(minutes=1)
    second_key = await another_key(account, "account")
    async with (
        agent_on(account, ledger, max_pods=2) as one,
        agent_on(account, ledger, max_pods=2, api_key=second_key) as other,
    ):
        assert (await one.call("rent_pod", **wanted))["pod_id"] == train["pod_id"]
        assert (await one.call("rent_pod", **lost))["already_rented"] is True
        assert (await other.call("rent_pod", **wanted))["already_rented"] is True
        assert (await other.refused("rent_pod", **await a_rent(account, "third"))).code == "policy_refused"
    assert len(rents(account)) == 2


async def test_a_ledger_of_a_newer_version_is_not_touched(account: Sandbox, ledger: Path) -> None:
    async with agent_on(account, ledger) as agent:
        await agent.call("rent_pod", **await a_rent(account, "train"))
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE ledger_version SET version = 1000")
    async with agent_on(account, ledger) as agent:
        failure = await agent.refused("rent_pod", **await a_rent(account, "second"))
        assert failure.code == "ledger_unavailable"
        assert "newer version" in failure.text
    assert len(rents(account)) == 1


async def test_closed_rents_are_kept_for_ninety_days(account: Sandbox, ledger: Path) -> None:
    async with agent_on(account, ledger) as agent:
        for name, days in (("old", 30), ("older", 61), ("new", 0)):
            rented = await agent.call("rent_pod", **await a_rent(account, name, wait_seconds=60))
            await agent.call("remove_pod", pod=rented["pod_id"])
            account.clock.advance(hours=24 * days)
            if name == "older":
                assert rows(ledger) == {"old": "removed", "older": "removed"}
        assert rows(ledger) == {"older": "removed", "new": "removed"}


# --- later removals are admitted like rents --------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["a rent", "a later removal"])
async def test_what_fits_alone_but_not_together_is_admitted_once(account: Sandbox, ledger: Path, other: str) -> None:
    """Two servers of one ledger, and a budget that bears one of two: the second comes while the first is on its way."""
    slow = Wire(account)
    sent = slow.hold("POST", "/pods/*/schedule-removal")
    async with agent_on(account, ledger) as free:
        wanted = await a_rent(account, "one", hours=1)
        one = await free.call("rent_pod", **wanted | {"wait_seconds": 60})
        two = await free.call("rent_pod", **await a_rent(account, "two", hours=1, wait_seconds=60))
    price = one["pod"]["price_per_hour_usd"]
    budget = round(price * 13 + two["pod"]["price_per_hour_usd"] * 2, 2)  # ten hours more for one of them, not for both
    async with (
        agent_on(account, ledger, transport=slow, budget_usd=budget) as first,
        agent_on(account, ledger, budget_usd=budget) as second,
    ):
        extended: list[Any] = []
        async with anyio.create_task_group() as calls:

            async def extend() -> None:
                extended.append(await first.call("schedule_pod_removal", pod=one["pod_id"], hours_from_now=11))

            calls.start_soon(extend)
            await sent.reached()
            if other == "a rent":
                failure = await second.refused("rent_pod", **await a_rent(account, "three", hours=10))
            else:
                failure = await second.refused("schedule_pod_removal", pod=two["pod_id"], hours_from_now=11)
            assert failure.code == "policy_refused"
            assert "budget" in failure.text
            sent.let_go()
        assert extended
        # What was refused by Lium holds no room.
        refusing = Wire(account)
        refusing.on("POST", "/pods/*/schedule-removal", answering(400, {"detail": "no"}))
        async with agent_on(account, ledger, transport=refusing, budget_usd=budget + price * 10) as third:
            await third.refused("schedule_pod_removal", pod=two["pod_id"], hours_from_now=10)
            on_its_way = json.dumps(truth(account, "pods"))
            await second.call("list_pods")
            assert json.dumps(truth(account, "pods")) == on_its_way
        async with agent_on(account, ledger, budget_usd=budget + price * 10) as fourth:
            await fourth.call("rent_pod", **await a_rent(account, "three", hours=9))
