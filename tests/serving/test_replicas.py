"""Several replicas behind one address: no request of the current protocol needs the one that served the last."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError

from lium_mcp.rentals import LazyLedger
from lium_mcp.sandbox import API_KEY, OTHER_API_KEY
from lium_mcp.toolkit.listing import read_listing
from tests.compat.simulated import Simulated, simulating
from tests.guard.test_confirm import CASES, staged
from tests.harness import PUBLIC_KEY, Person, text_of
from tests.http_server import Served, calling, serving, serving_at
from tests.postgres import Postgres
from tests.replicas import NEXT_STATE_KEY, STATE_KEY, answer, client_of, put, replicas

RENT = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
# What goes on after a call is not for callers with keys of their own.
OF_CALLERS = sorted(CASES.keys() - {"run_job"})
LISTED = {item.name: item for item in read_listing()}
_begun = itertools.count()


@pytest.fixture(scope="module")
def _simulated() -> Iterator[Simulated]:
    with simulating() as simulated:
        yield simulated


@pytest.fixture
def lium(_simulated: Simulated) -> Simulated:
    """A fresh sandbox, later than the last: replicas that live on take its pods for gone."""
    _simulated.begin(balance_usd=5000, start=datetime.now(UTC).replace(microsecond=0) + timedelta(hours=next(_begun)))
    return _simulated


@pytest.fixture(scope="module")
def _three(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Served]]:
    home = tmp_path_factory.mktemp("three")
    with replicas(home, 3, f"sqlite:///{home / 'shared.db'}", LIUM_BASE_URL=_simulated.base_url) as servers:
        yield servers


@pytest.fixture
def three(_three: list[Served], lium: Simulated) -> list[Served]:
    """Three replicas on one ledger."""
    return _three


async def add_key(servers: list[Served]) -> None:
    """Give the account a key to put into pods: a caller elsewhere has no key file here."""
    async with client_of(servers) as client:
        result = await client.call_tool("add_ssh_key", {"name": "laptop", "public_key": PUBLIC_KEY})
        assert not result.is_error, text_of(result)


async def test_each_request_of_a_conversation_may_reach_another_replica(
    lium: Simulated, tmp_path: Path, state_url: str
) -> None:
    person = Person("yes")
    with replicas(tmp_path, 3, state_url, LIUM_BASE_URL=lium.base_url) as servers:
        await add_key(servers)
        async with client_of(servers, person=person) as client:

            async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                result = await client.call_tool(tool, arguments)
                assert not result.is_error, text_of(result)
                return dict(result.structured_content or {})

            assert (await call("list_gpus", gpu_type="RTX4090"))["total"]
            pod_id = (await call("rent_pod", **RENT))["pod_id"]
            for _ in range(3):
                assert (await call("rent_pod", **RENT))["already_rented"]
            lium.turn(minutes=2)
            lium.run_at(60)
            assert [pod["pod_id"] for pod in (await call("list_pods"))["pods"]] == [pod_id]
            await call("schedule_pod_removal", pod="train", hours_from_now=1)
            await call("remove_pod", pod="train")
    assert len(person.questions) == 3
    assert len(lium.state()["rents"]) == 1
    assert lium.pod(pod_id)["status"] in ("DELETING", "DELETED")


@pytest.mark.parametrize("tool", OF_CALLERS)
async def test_a_question_of_one_replica_is_answered_at_another(
    three: list[Served], lium: Simulated, tool: str
) -> None:
    stage, arguments, words = await staged(lium.playing, tool)
    if "wait_seconds" in LISTED[tool].tool.input_schema["properties"]:
        arguments = arguments | {"wait_seconds": 0}
    if tool != "delete_ssh_key":
        await add_key(three)
    before = stage.state()
    person = Person("no", "yes")
    async with client_of(three[:2], person=person) as client:
        declined = await client.call_tool(tool, arguments)
        assert "code: not_confirmed" in text_of(declined)
        assert stage.state() == before
        done = await client.call_tool(tool, arguments)
        assert not done.is_error, text_of(done)
    assert len(person.questions) == 2
    assert [word for word in words if word not in person.questions[0]] == []


async def test_an_answer_that_reaches_all_replicas_at_once_acts_once(
    lium: Simulated, tmp_path: Path, state_url: str
) -> None:
    await staged(lium.playing, "reboot_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    with replicas(tmp_path, 3, state_url, LIUM_BASE_URL=lium.base_url) as servers:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client_of([server])) for server in servers]
            for _ in range(5):
                asked = await put(clients[0], "reboot_pod", arguments)
                before = reboots(lium)
                both = [answer(client, asked, "reboot_pod", arguments) for client in clients * 2]
                results = await asyncio.gather(*both)
                [done] = [result for result in results if not result.is_error]
                refused = {text_of(result) for result in results if result is not done}
                assert all("code: answer_used" in text and "Nothing was changed." in text for text in refused)
                assert reboots(lium) == before + 1
                lium.turn(minutes=5)


def reboots(lium: Simulated) -> int:
    return len([request for request in lium.state()["requests"] if request["path"].endswith("/reboot")])


async def test_an_answer_counts_for_the_account_that_was_asked_whichever_of_its_keys_comes(
    three: list[Served], lium: Simulated
) -> None:
    lium.playing.add_key("sk_sandbox_rotated")
    await staged(lium.playing, "remove_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    async with (
        client_of(three) as mine,
        client_of(three, OTHER_API_KEY) as theirs,
        client_of(three, "sk_unknown") as nobodys,
        client_of(three, "sk_sandbox_rotated") as rotated,
    ):
        asked = await put(mine, "remove_pod", arguments)
        for _ in three:
            with pytest.raises(MCPError, match="Invalid or expired"):
                await answer(theirs, asked, "remove_pod", arguments)
        assert "code: api_key_refused" in text_of(await answer(nobodys, asked, "remove_pod", arguments))
        assert lium.requests("DELETE", f"/pods/{lium.state()['pods'][0]['id']}") == []
        done = await answer(rotated, asked, "remove_pod", arguments)
        assert not done.is_error, text_of(done)


async def test_nothing_is_asked_of_an_account_that_cannot_be_told(three: list[Served], lium: Simulated) -> None:
    lium.playing.add_key("sk_sandbox_new")
    await staged(lium.playing, "remove_pod")
    lium.fault("redirect", location="/api/elsewhere", match={"method": "GET", "path": "/users/me"}, times=50)
    async with client_of(three, "sk_sandbox_new") as client:
        result = await client.session.call_tool("remove_pod", {"pod": "train"})
    assert "code: account_unknown" in text_of(result)
    assert "Nothing was changed." in text_of(result)


async def test_secrets_are_exchanged_while_questions_are_open(lium: Simulated, tmp_path: Path, state_url: str) -> None:
    await staged(lium.playing, "reboot_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    rings = {
        "before": STATE_KEY,
        "known": f"{STATE_KEY},{NEXT_STATE_KEY}",
        "turned": f"{NEXT_STATE_KEY},{STATE_KEY}",
        "after": NEXT_STATE_KEY,
    }
    shared = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_STATE_URL": state_url}
    async with AsyncExitStack() as stack:
        clients = {}
        for name, keys in rings.items():
            server = stack.enter_context(serving(tmp_path / name, **shared, LIUM_MCP_STATE_KEYS=keys))
            clients[name] = await stack.enter_async_context(client_of([server]))
        for asking, answering in itertools.product(rings, rings):
            asked = await put(clients[asking], "reboot_pod", arguments)
            if rings[asking].partition(",")[0] not in rings[answering]:
                # Not so where each step of the exchange is made everywhere before the next.
                with pytest.raises(MCPError, match="Invalid or expired"):
                    await answer(clients[answering], asked, "reboot_pod", arguments)
                continue
            done = await answer(clients[answering], asked, "reboot_pod", arguments)
            assert not done.is_error, f"{asking}, {answering}: {text_of(done)}"
            lium.turn(minutes=5)


@pytest.mark.parametrize(("behind_seconds", "counts"), [(40, True), (180, False)])
async def test_clocks_may_differ_by_a_minute_and_beyond_that_they_are_named(
    lium: Simulated, tmp_path: Path, state_url: str, behind_seconds: float, counts: bool
) -> None:
    await staged(lium.playing, "reboot_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    shared = {"LIUM_BASE_URL": lium.base_url, "LIUM_MCP_STATE_URL": state_url, "LIUM_MCP_STATE_KEYS": STATE_KEY}
    with serving(tmp_path / "one", **shared) as one, serving_at(tmp_path / "two", -behind_seconds, **shared) as two:
        async with client_of([one]) as asking, client_of([two]) as answering:
            asked = await put(asking, "reboot_pod", arguments)
            if counts:
                done = await answer(answering, asked, "reboot_pod", arguments)
                assert not done.is_error, text_of(done)
            else:
                with pytest.raises(MCPError, match=r"Nothing was changed\..* whose clocks agree within a minute"):
                    await answer(answering, asked, "reboot_pod", arguments)
            lium.turn(minutes=5)
            asked = await put(answering, "reboot_pod", arguments)
            done = await answer(asking, asked, "reboot_pod", arguments)
            assert not done.is_error, text_of(done)
        two.says("one of the two clocks is wrong")


async def test_without_a_common_secret_only_the_process_that_asked_takes_the_answer(
    lium: Simulated, tmp_path: Path
) -> None:
    await staged(lium.playing, "reboot_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    with (
        serving(tmp_path / "one", LIUM_BASE_URL=lium.base_url, LIUM_MCP_ALLOWED_HOST="127.0.0.1") as one,
        serving(tmp_path / "two", LIUM_BASE_URL=lium.base_url) as two,
    ):
        async with client_of([one]) as asking, client_of([two]) as answering:
            asked = await put(asking, "reboot_pod", arguments)
            with pytest.raises(MCPError, match="Invalid or expired"):
                await answer(answering, asked, "reboot_pod", arguments)
            done = await answer(asking, asked, "reboot_pod", arguments)
            assert not done.is_error, text_of(done)
        assert "LIUM_MCP_STATE_KEYS" in one.says("only this process takes the answers")


async def test_what_a_template_runs_is_agreed_to_at_whichever_replica(three: list[Served], lium: Simulated) -> None:
    stage, _, _ = await staged(lium.playing, "update_template")
    await add_key(three)
    arguments = RENT | {"name": "other", "template": stage.template}
    async with client_of(three[:2]) as client, calling(three[2].url, "modern", {"X-API-Key": API_KEY}) as owner:
        asked = await put(client, "rent_pod", arguments)
        await owner.call("update_template", template=stage.template, startup_commands="sleep infinity")
        refused = await answer(client, asked, "rent_pod", arguments)
    assert "code: changed_meanwhile" in text_of(refused)
    assert [rent["pod_name"] for rent in lium.state()["rents"]] == ["train"]


async def test_what_would_end_with_a_pod_is_told_once_whichever_replica_is_called(
    lium: Simulated, tmp_path: Path, state_url: str
) -> None:
    stage, _, _ = await staged(lium.playing, "remove_pod")
    now = lium.playing.clock.now()
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(replicas(tmp_path, 3, state_url, LIUM_BASE_URL=lium.base_url))
        ledger = await stack.enter_async_context(aclosing(LazyLedger(state_url)))
        await ledger.work_log().begin(stage.pod, "command", now=now, until=now + timedelta(hours=1))
        # None of them can ask a person.
        one, other, third = [
            await stack.enter_async_context(calling(server.url, "modern", {"X-API-Key": API_KEY})) for server in servers
        ]
        assert (await one.refused("remove_pod", pod="train"))[0] == "pod_at_work"
        lium.turn(minutes=11)
        assert (await other.refused("remove_pod", pod="train"))[0] == "pod_at_work", "so long ago that it is told again"
        assert lium.pod(stage.pod)["status"] == "RUNNING"
        await third.call("remove_pod", pod="train", wait_seconds=0)
    assert lium.pod(stage.pod)["status"] in ("DELETING", "DELETED")


async def test_a_removal_goes_on_at_another_replica_with_the_last_backup_that_one_began(
    lium: Simulated, tmp_path: Path, state_url: str
) -> None:
    stage, _, _ = await staged(lium.playing, "remove_pod")
    backups = len(lium.state()["backups"])
    arguments = {"pod": "train", "final_backup": True}
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(replicas(tmp_path, 3, state_url, LIUM_BASE_URL=lium.base_url))
        one, other, third = [
            await stack.enter_async_context(calling(server.url, "modern", {"X-API-Key": API_KEY})) for server in servers
        ]
        for caller in (one, other):
            pending = await caller.call("remove_pod", **arguments, wait_seconds=0)
            assert pending["outcome"] == "pending", pending
        lium.turn(minutes=5)
        await third.call("remove_pod", **arguments, wait_seconds=0)
    assert len(lium.state()["backups"]) == backups + 1
    assert lium.pod(stage.pod)["status"] in ("DELETING", "DELETED")


async def test_restores_into_one_pod_are_ordered_one_after_the_other_whichever_replica_orders_them(
    lium: Simulated, tmp_path: Path, state_url: str
) -> None:
    await staged(lium.playing, "remove_pod")
    backup = next(row["id"] for row in lium.state()["backups"] if row["status"] == "COMPLETED")
    arguments = {"backup_id": backup, "pods": ["train"], "path": "/root/data", "wait_seconds": 0}
    person = Person(*["yes"] * 2)
    with replicas(tmp_path, 2, state_url, LIUM_BASE_URL=lium.base_url) as servers:
        lium.fault("slow", seconds=2, match={"method": "POST", "path": "/pods/*/restore"})
        async with client_of(servers[:1], person=person) as one, client_of(servers[1:], person=person) as other:
            both = await asyncio.gather(
                one.call_tool("restore_backup", arguments), other.call_tool("restore_backup", arguments)
            )
    rows = [row for result in both for row in (result.structured_content or {})["pods"]]
    assert sorted(row["outcome"] for row in rows) == ["failed", "pending"], rows
    [problem] = [row["problem"] for row in rows if row["outcome"] == "failed"]
    assert "restore_target_taken" in problem
    assert len(lium.state()["restores"]) == 1


async def test_replicas_whose_ledger_is_a_file_are_told_what_that_is_good_for(lium: Simulated, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    for setting in ({"LIUM_MCP_STATE_KEYS": STATE_KEY}, {"LIUM_MCP_REPLICA": "gpu-1"}):
        with serving(tmp_path / "one", LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url, **setting) as server:
            said = server.says(f"{next(iter(setting))} is for several replicas")
        assert str(tmp_path / "ledger.db") in said
        assert "set LIUM_MCP_STATE_URL to a PostgreSQL database" in said
    with serving(tmp_path / "two", LIUM_BASE_URL=lium.base_url, LIUM_MCP_STATE_URL=url) as server:
        assert "several replicas" not in server.stderr()


@pytest.mark.external
async def test_where_the_ledger_is_down_no_answer_acts(lium: Simulated, tmp_path: Path, postgres: Postgres) -> None:
    await staged(lium.playing, "reboot_pod")
    arguments = {"pod": "train", "wait_seconds": 0}
    with (
        postgres.database() as state_url,
        replicas(tmp_path, 2, state_url, LIUM_BASE_URL=lium.base_url) as servers,
    ):
        async with client_of(servers) as client:
            asked = await put(client, "reboot_pod", arguments)
            before = reboots(lium)
            postgres.close(state_url)
            for _ in servers:
                refused = await answer(client, asked, "reboot_pod", arguments)
                assert "code: ledger_unavailable" in text_of(refused)
            assert reboots(lium) == before
            postgres.open(state_url)
            done = await answer(client, asked, "reboot_pod", arguments)
            assert not done.is_error, text_of(done)
    assert reboots(lium) == before + 1
