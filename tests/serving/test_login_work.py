"""What goes on after the calls of those who have logged in at Lium: any server with the keys does it, while one is."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2
import pytest

from lium_mcp.rentals import Entry, LazyLedger, Task, key_tag, read_claimant
from lium_mcp.sandbox import API_KEY
from tests.compat.simulated import Simulated, simulating
from tests.faults.test_replica_kills import LEASE_SECONDS, ORDER, RENT, cheapest, claimed, price_at
from tests.harness import PUBLIC_KEY, text_of
from tests.http_server import Caller, Served, calling, serving_within
from tests.oauth_client import KEY, HandClient, Kept, agree, at_lium, logging_in
from tests.ports import free_port
from tests.processes import run
from tests.serving.test_oauth_lium import NEWER_KEY, kept_in

PATIENCE_SECONDS: Final = 60


@pytest.fixture
def lium() -> Iterator[Simulated]:
    with simulating() as simulated:
        start = datetime.now(UTC).replace(microsecond=0)
        simulated.begin(balance_usd=5000, pod_polls_per_minute=10**6, start=start)
        yield simulated


class Hosted:
    """Servers at which people log in at Lium, on one ledger; the first one is at the public address."""

    def __init__(self, lium: Simulated, home: Path, state_url: str) -> None:
        self.lium = lium
        self.home = home
        self.state_url = state_url
        self.port = free_port()
        self.count = 0

    @contextmanager
    def serving(self, **settings: str) -> Iterator[Served]:
        port = free_port() if self.count else self.port
        self.count += 1
        home = self.home / f"server-{self.count}"
        given = at_lium(self.lium, home, self.port, LIUM_MCP_STATE_URL=self.state_url) | {
            "LIUM_MCP_AUDIT_FILE": str(self.home / "audit")
        }
        with serving_within(home, given | settings, haste=20, port=port) as served:
            yield served

    async def task(self) -> Task:
        async with aclosing(LazyLedger(self.state_url)) as ledger:
            [task] = await ledger.tasks().newest(1)
            return task

    async def make_due(self) -> None:
        """Let the one task be due, unless it was done; a server may claim it or give it back at any moment."""
        with anyio.fail_after(PATIENCE_SECONDS):
            async with aclosing(LazyLedger(self.state_url)) as ledger:
                while (task := await self.task()).closed_at is None:
                    if await ledger.tasks().put_off(task, task.created_at):
                        return

    async def turn(self, seconds: float, *servers: Served) -> None:
        """Let time go by at Lium, and servers hear of it as they hear of all time: by an answer to whoever calls."""
        self.lium.turn(seconds=seconds)
        for server in servers:
            async with calling(server.url, "modern", {"X-API-Key": API_KEY}) as caller:
                await caller.call("get_balance")

    async def closed(self, *servers: Served, seconds: float = 20) -> Task:
        """The one task once it is closed, with time going by."""
        with anyio.fail_after(PATIENCE_SECONDS):
            while (task := await self.task()).closed_at is None:
                await self.turn(seconds, *servers)
                await asyncio.sleep(0.3)
        return task

    async def attended_to(self, *servers: Served) -> Entry:
        """The newest rent once nothing is left to do for it, with time going by."""
        async with aclosing(LazyLedger(self.state_url)) as ledger:
            with anyio.fail_after(PATIENCE_SECONDS):
                while (entry := (await ledger.open().newest(1))[0]).is_unsettled or not entry.removal_is_set:
                    await self.turn(15, *servers)
                    await asyncio.sleep(0.3)
        return entry

    def audited(self, **values: Any) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (self.home / "audit").read_text().splitlines()]
        return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


@pytest.fixture
def hosted(lium: Simulated, tmp_path: Path, state_url: str) -> Hosted:
    return Hosted(lium, tmp_path, state_url)


class Person:
    """Somebody who has logged in, with a program that shows the token of that login."""

    def __init__(self, server: Served, client: HandClient, tokens: dict[str, Any]) -> None:
        self.server = server
        self.client = client
        self.headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        self.refresh_token = tokens["refresh_token"]

    @classmethod
    async def logged_in(cls, server: Served) -> "Person":
        client = HandClient(server.url)
        return cls(server, client, await client.log_in())

    @classmethod
    async def who_ordered(cls, server: Served) -> "Person":
        """Somebody who has logged in and placed an order that waits."""
        person = await cls.logged_in(server)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        await person.order()
        return person

    def at(self, server: Served) -> "Person":
        other = object.__new__(Person)
        other.__dict__ = self.__dict__ | {"server": server}
        return other

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[Caller]:
        async with calling(self.server.url, "modern", self.headers) as caller:
            yield caller

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async with self.calling() as caller:
            return await caller.call(tool, **arguments)

    async def order(self, **wish: Any) -> dict[str, Any]:
        """Place an order for which nothing fits now."""
        price = cheapest(self.lium) / 2
        placed = await self.call("rent_pod", **ORDER | {"max_usd_per_gpu_hour": price} | wish)
        assert placed["order"]["status"] == "waiting"
        return dict(placed)

    lium: Simulated

    async def orders(self) -> list[dict[str, Any]]:
        return list((await self.call("list_pods"))["orders"])

    def log_out(self) -> None:
        said = {"client_id": self.client.client_id, "token": self.refresh_token}
        assert httpx2.post(f"{self.server.url}/revoke", data=said, trust_env=False).status_code == 200


@pytest.fixture(autouse=True)
def _at(lium: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Person, "lium", lium, raising=False)


def keys_of_logins(lium: Simulated) -> list[Any]:
    return [key for key in lium.playing._world.keys.values() if key.name.startswith("login")]


async def tags_of_rents(hosted: Hosted) -> list[str]:
    """The keys that rented, by their tags."""
    async with aclosing(LazyLedger(hosted.state_url)) as ledger:
        return [entry.key_tag for entry in await ledger.open().newest(10)]


# One dies


@pytest.mark.parametrize("stage", ["before", "answer"])
async def test_an_order_whose_server_dies_in_the_middle_is_carried_out_once_by_the_other(
    lium: Simulated, hosted: Hosted, stage: str
) -> None:
    with hosted.serving() as one, hosted.serving() as two:
        person = await Person.logged_in(one)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        placed = await person.order()
        assert "for as long as the user is logged in" in placed["next"]
        assert [order["name"] for order in await person.at(two).orders()] == ["train"]
        lium.fault("slow", seconds=200, stage=stage, match=RENT)
        price_at(lium, 1 / 4)
        with anyio.fail_after(PATIENCE_SECONDS):
            while not lium.requests("POST", RENT["path"]):
                await hosted.turn(20, one, two)
                await asyncio.sleep(0.3)
        async with aclosing(LazyLedger(hosted.state_url)) as ledger:
            owner = read_claimant((await claimed(ledger)).lease_owner).process_id
        [dying] = [server for server in (one, two) if server.process.pid == owner]
        [left] = [server for server in (one, two) if server is not dying]
        dying.process.kill()
        dying.process.wait()
        lium.let_go()
        lium.turn(seconds=LEASE_SECONDS)
        task = await hosted.closed(left)
        [order] = await person.at(left).orders()
        assert (task.status, order["status"]) == ("done", "rented")
    [record] = lium.state()["rents"]
    assert (record["pod_name"], record["pod_id"]) == ("train", order["pod_id"])
    assert hosted.audited(event="rented", by="standing_order", task_id=task.id)


async def test_a_rent_whose_server_dies_in_the_call_is_settled_by_the_other_though_nobody_calls(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as one, hosted.serving() as two:
        person = await Person.logged_in(one)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        lium.fault("slow", seconds=200, stage="answer", match=RENT)
        async with anyio.create_task_group() as group:

            async def rent() -> None:
                with pytest.raises(Exception):  # noqa: B017, PT011 - the connection ends
                    await person.call("rent_pod", name="train", gpu_type="RTX4090", hours=2, wait_seconds=0)

            group.start_soon(rent)
            with anyio.fail_after(PATIENCE_SECONDS):
                while not lium.state()["rents"]:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.1)
            one.process.kill()
            one.process.wait()
            lium.let_go()
        entry = await hosted.attended_to(two)
    assert entry.by_login
    [record] = lium.state()["rents"]
    assert entry.pod_ids == [record["pod_id"]]
    assert lium.pod(record["pod_id"])["removal_scheduled_at"] is not None


async def test_a_server_that_starts_goes_on_with_what_is_there_though_nobody_calls(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as one:
        await Person.who_ordered(one)
    price_at(lium, 1 / 4)
    with hosted.serving():
        # Its order may be due a minute after it was looked at; nobody turns the servers' clock.
        await hosted.make_due()
        assert (await hosted.closed(seconds=0)).status == "done"
    assert len(lium.state()["rents"]) == 1


# Whose key


async def test_an_order_goes_on_with_another_login_of_the_account_once_its_own_has_ended(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as server:
        first = await Person.who_ordered(server)
        second = await Person.logged_in(server)
        assert [order["name"] for order in await second.orders()] == ["train"]
        own, other = keys_of_logins(lium)
        price_at(lium, 1 / 4)
        first.log_out()
        assert (await hosted.closed(server)).status == "done"
        [order] = await second.orders()
        assert order["status"] == "rented"
    assert await tags_of_rents(hosted) == [key_tag(other.secret, lium.base_url)]
    for secret in (own.secret, other.secret):
        assert secret not in server.stderr()
        assert secret not in (hosted.home / "audit").read_text()
        if hosted.state_url.startswith("sqlite"):
            assert secret.encode() not in kept_in(Path(hosted.state_url.removeprefix("sqlite:///")).parent)


async def test_who_has_no_login_left_is_told_what_ended_and_nothing_is_rented(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        await Person.who_ordered(server)
        operator = {"LIUM_MCP_STATE_URL": hosted.state_url, "LIUM_MCP_OAUTH_KEYS": KEY}
        grant = next(line for line in (await run("grants", **operator))[1].splitlines() if "By hand" in line).split()[0]
        status, out, _ = await run("grants", "revoke", grant, **operator)
        assert (status, "standing_order train" in out) == (0, True), out
        price_at(lium, 1 / 4)
        task = await hosted.closed()
        assert task.status == "failed"
        assert "nobody else is logged in" in task.note
        server.says(f"Task standing_order {task.id} has ended")
        assert [row["outcome"] for row in hosted.audited(task_id=task.id, event="ended")] == ["login_ended"]
        assert "nobody else is logged in" in (await run("rentals", "--all", **operator))[1]
        again = await Person.logged_in(server)
        [order] = await again.orders()
        assert (order["status"], "ask for it anew" in order["because"]) == ("failed", True)
    assert lium.state()["rents"] == []


@pytest.mark.parametrize("is_opened", [True, False])
async def test_an_order_for_a_template_ends_with_its_login_and_the_operator_hears_so(
    lium: Simulated, hosted: Hosted, is_opened: bool
) -> None:
    with hosted.serving() as server:
        person = await Person.logged_in(server)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        template = (await person.call("list_templates"))["templates"][0]["template_id"]
        await person.order(template=template)
        await person.order(name="any")
        operator = {"LIUM_MCP_STATE_URL": hosted.state_url, "LIUM_BASE_URL": lium.base_url}
        operator |= {"LIUM_MCP_OAUTH_KEYS": KEY} if is_opened else {}
        grant = next(line for line in (await run("grants", **operator))[1].splitlines() if "By hand" in line).split()[0]
        await Person.logged_in(server)
        _, out, _ = await run("grants", "revoke", grant, **operator)
    told = "Ends too, since with another login" if is_opened else "Ends too if it was placed with this login"
    [line] = [line for line in out.splitlines() if told in line]
    assert line.endswith("standing_order train.")
    assert "With another login of the account goes on: standing_order any." in out


async def test_a_rent_of_a_caller_that_sends_a_key_is_not_said_to_be_gone_on_with(
    lium: Simulated, hosted: Hosted
) -> None:
    lium.playing.add_key("sk_colleague")
    with hosted.serving() as server:
        async with calling(server.url, "modern", {"X-API-Key": "sk_colleague"}) as caller:
            await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
            await caller.call("rent_pod", **NODE | {"hours": 1.5})
        said = (await run("rentals", LIUM_MCP_STATE_URL=hosted.state_url))[1]
        assert "Not done with yet. A server goes on with it only where it has a key of this account" in said
        await Person.logged_in(server)
        said = (await run("rentals", LIUM_MCP_STATE_URL=hosted.state_url))[1]
        assert "Not done with yet. A server on this ledger goes on with it" in said


async def test_a_server_that_only_reads_says_that_it_does_not_look(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        person = await Person.who_ordered(server)
        with hosted.serving(LIUM_MCP_READ_ONLY="true") as reading:
            [order] = await person.at(reading).orders()
    assert order["status"] == "waiting"
    assert "this server does not look for it, since it only reads (LIUM_MCP_READ_ONLY)" in order["because"]


async def test_a_key_that_lium_refuses_is_left_alone_and_the_order_goes_on_with_another(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as server:
        first = await Person.who_ordered(server)
        await Person.logged_in(server)
        own, other = keys_of_logins(lium)
        del lium.playing._world.keys[own.id]
        price_at(lium, 1 / 4)
        assert (await hosted.closed(server)).status == "done"
        server.says("Lium refuses the key of login")
        async with first.calling() as caller:
            assert (await caller.refused("get_balance"))[0] == "api_key_refused"
    assert await tags_of_rents(hosted) == [key_tag(other.secret, lium.base_url)]


async def test_a_key_that_lium_refuses_for_an_hour_was_withdrawn_and_what_it_was_for_ends(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as server:
        await Person.who_ordered(server)
        [key] = keys_of_logins(lium)
        del lium.playing._world.keys[key.id]
        price_at(lium, 1 / 4)

        task = await hosted.closed(server, seconds=240)
        assert task.status == "failed"
        said = server.says("has ended: Lium has refused its key since")
        assert 2 <= said.count("Lium refuses the key of login") <= 8
    assert lium.state()["rents"] == []


async def test_a_server_whose_keys_open_no_login_leaves_the_work_to_one_whose_keys_do(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as one:
        await Person.who_ordered(one)
        with hosted.serving(LIUM_MCP_OAUTH_KEYS=NEWER_KEY) as stranger:
            one.stop()
            await hosted.make_due()
            with anyio.fail_after(PATIENCE_SECONDS):
                while "No key in LIUM_MCP_OAUTH_KEYS opens a login" not in stranger.stderr():  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            price_at(lium, 1 / 4)
            assert (await hosted.task()).closed_at is None
    with hosted.serving(LIUM_MCP_OAUTH_KEYS=f"{NEWER_KEY},{KEY}"):
        assert (await hosted.closed(seconds=0)).status == "done"
    assert len(lium.state()["rents"]) == 1


# A login that ends in the middle of its call

NODE: Final = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}


async def end_amid(hosted: Hosted, server: Served, person: Person, request: dict[str, str], **asked: Any) -> str:
    """What a call that rents or removes answers if its login ends while Lium is slow with one of its requests."""
    lium, answers = hosted.lium, list[str]()
    asked_for = request["method"], f"/{request['path'].rpartition('/')[2]}"
    tool, begun, is_ready = asked.pop("tool"), len(lium.requests(*asked_for)), anyio.Event()
    async with anyio.create_task_group() as group:

        async def act() -> None:
            async with person.calling() as caller:
                await caller.client.list_tools()  # else it asks for them once there is an answer
                is_ready.set()
                said = await caller.raw(tool, **asked)
                answers.append(text_of(said))

        lium.fault("slow", seconds=200, stage="answer", match=request)
        group.start_soon(act)
        with anyio.fail_after(PATIENCE_SECONDS):
            await is_ready.wait()
            while len(lium.requests(*asked_for)) == begun:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.05)
        person.log_out()
        lium.let_go()
    return answers[0]


async def test_once_a_login_has_ended_no_call_of_it_that_is_under_way_rents(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        other = await Person.logged_in(server)
        await other.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        for slow in ("/pods", "/executors"):
            person = await Person.logged_in(server)
            said = await end_amid(hosted, server, person, {"method": "GET", "path": slow}, tool="rent_pod", **NODE)
            assert "code: login_ended" in said
            assert "Nothing was changed" in said
        assert lium.state()["rents"] == []
        assert not [row for row in lium.state()["requests"] if row["path"].endswith(("/rent", "/rent-by-spec"))]
        assert "pod_id" in str(await other.call("rent_pod", **NODE)), "another login of the account goes on"


async def test_of_several_rents_of_a_call_those_are_not_sent_that_wait_when_its_login_ends(
    lium: Simulated, hosted: Hosted
) -> None:
    with hosted.serving() as server:
        person = await Person.logged_in(server)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        said = await end_amid(
            hosted, server, person, {"method": "POST", "path": "/executors/*/rent"}, tool="rent_pod", count=3, **NODE
        )
        assert "The login that this call acted for has ended meanwhile" in said
    [record] = lium.state()["rents"]
    assert record["pod_id"] in said, "one had left, and is told of"


async def test_once_a_login_has_ended_no_call_of_it_that_is_under_way_removes(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        person = await Person.logged_in(server)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        rented = await person.call("rent_pod", **NODE)
        await hosted.attended_to(server)  # else the server reads its pods by itself, and Lium is slow with that
        said = await end_amid(
            hosted, server, person, {"method": "GET", "path": "/pods"}, tool="remove_pod", pod="train"
        )
        assert "code: login_ended" in said
    assert lium.pod(rented["pod"]["pod_id"])["status"] not in ("DELETED", "DELETING")


# What a call may, and no more


async def test_what_needs_this_machine_to_log_in_to_pods_is_refused(lium: Simulated, hosted: Hosted) -> None:
    run_job = {"name": "fit", "command": "true", "gpu_type": "RTX4090", "max_total_usd": 1, "hours": 2, "max_hours": 1}
    with hosted.serving() as server:
        person = await Person.logged_in(server)
        await person.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
        await person.call("rent_pod", name="train", gpu_type="RTX4090", hours=2, wait_seconds=0)
        for tool, arguments, refused in (
            ("run_job", run_job, "no_work_for_callers"),
            ("start_job", {"pod": "train", "command": "true", "name": "fit", "then": "backup"}, "no_ssh_for_callers"),
            ("schedule_pod_removal", {"pod": "train", "idle_minutes": 30}, "idle_not_watched"),
        ):
            async with person.calling() as caller:
                assert (await caller.refused(tool, **arguments))[0] == refused
        async with aclosing(LazyLedger(hosted.state_url)) as ledger:
            assert await ledger.tasks().newest(1) == []
    assert [rent["pod_name"] for rent in lium.state()["rents"]] == ["train"]


async def test_an_order_of_a_login_stays_within_the_limits_of_the_server(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving(LIUM_MCP_MAX_PODS="1") as server:
        person = await Person.who_ordered(server)
        await person.call("rent_pod", name="other", gpu_type="RTX4090", hours=2, wait_seconds=0)
        price_at(lium, 1 / 4)
        with anyio.fail_after(PATIENCE_SECONDS):
            while "max_pods" not in str((await person.orders())[0].get("because")):
                await hosted.turn(20, server)
                await asyncio.sleep(0.3)
    assert [rent["pod_name"] for rent in lium.state()["rents"]] == ["other"]


async def test_nobody_else_sees_or_ends_what_those_who_logged_in_ask_for(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        person = await Person.who_ordered(server)
        lium.playing.add_key("sk_colleague")
        async with calling(server.url, "modern", {"X-API-Key": "sk_colleague"}) as caller:
            assert "orders" not in await caller.call("list_pods")
            code, _ = await caller.refused("remove_pod", pod="train")
            assert code == "pod_not_found"
        await person.call("remove_pod", pod="train")
        assert (await hosted.task()).status == "cancelled"


async def test_the_sdks_own_client_places_an_order(lium: Simulated, hosted: Hosted) -> None:
    with hosted.serving() as server:
        async with logging_in(server.url, Kept(), agree, name="Claude") as caller:
            await caller.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
            placed = await caller.call("rent_pod", **ORDER, max_usd_per_gpu_hour=cheapest(lium) / 2)
        assert placed["order"]["status"] == "waiting"
