"""One of two replicas behind nginx is killed in the middle of what it does: that is done once, and the other goes on.

Lium holds a request, so that the replica that has sent it dies at a chosen point. It starts again after each test, as
a supervisor would see to.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal

import anyio
import httpx2
import psycopg
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from lium_mcp.rentals import LazyLedger, Task, read_claimant
from tests.compat.simulated import SimulatedElsewhere, simulating_elsewhere
from tests.deployment import MINE, OWN, Deployment, deployed
from tests.harness import PUBLIC_KEY, Person, text_of
from tests.http_server import WAYS, Served, Way, calling
from tests.postgres import Postgres
from tests.replicas import answer, put

pytestmark = [pytest.mark.external, pytest.mark.timeout(300)]

# How much faster time passes, and how much shorter servers pause.
HASTE: Final = 40
# Longer than a test takes: what is held goes on once the replica is dead that asked for it.
HELD_SECONDS: Final = 200
PATIENCE_SECONDS: Final = 60
NO_ANSWER: Final = "No answer came: the server that had this request has ended."
# What the SDK's client says where an answer had begun.
ENDED: Final = "SSE stream ended without a response"
CUT_OFF: Final = {"modern": NO_ANSWER, "legacy": ENDED, "sse": "Connection closed"}
_names = (f"pod-{number}" for number in count())
Stage = Literal["before", "answer"]


@dataclass
class Site:
    """Lium, two replicas and their proxy, and the ledger."""

    lium: SimulatedElsewhere
    deployment: Deployment
    state_url: str

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool through the proxy."""
        async with calling(self.deployment.url, "modern", MINE) as caller:
            return await caller.call(tool, **arguments)

    async def told(self, way: Way, tool: str, **arguments: Any) -> str:
        """What a call through the proxy says, whatever becomes of it."""
        with anyio.fail_after(PATIENCE_SECONDS):
            async with calling(self.deployment.url, way, MINE) as caller:
                try:
                    return text_of(await caller.raw(tool, **arguments))
                except MCPError as error:
                    return str(error)

    async def own(self, number: int, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool of one replica, from its own machine."""
        async with calling(self.deployment.replicas[number].url, "modern", OWN) as caller:
            return await caller.call(tool, **arguments)

    def hold(self, method: str, path: str, stage: Stage) -> Callable[[], bool]:
        """Let Lium hold the next such request, before it does anything or before it answers; whether one is held."""
        before = self._struck(method, path)
        self.lium.fault("slow", seconds=HELD_SECONDS, stage=stage, match={"method": method, "path": path})
        return lambda: not self._struck(method, path) <= before

    def _struck(self, method: str, path: str) -> set[str]:
        return {row["request_id"] for row in self._met(method, path) if "faults" in row}

    def _met(self, method: str, path: str) -> list[dict[str, Any]]:
        pattern = re.escape(path).replace(r"\*", "[^/]+")
        requests = self.lium.state()["requests"]
        return [row for row in requests if row["method"] == method and re.fullmatch(pattern, row["path"])]

    def at_work(self, tool: str) -> int:
        """The number of the replica that has a call of a tool, by its audit trail, which is written a moment later."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = [
                number
                for number, replica in enumerate(self.deployment.replicas)
                if replica.process.poll() is None and _at_work(replica.stderr(), tool)
            ]
            if len(found) == 1:
                return found[0]
            assert time.monotonic() < deadline, f"{tool} is at work at {found}"
            time.sleep(0.01)

    async def owner(self) -> int:
        """The number of the replica that has claimed the newest task; the claim of a dead one is soon another's."""

        def number_of(task: Task) -> list[int]:
            process_id = read_claimant(task.lease_owner).process_id
            return [n for n, replica in enumerate(self.deployment.replicas) if replica.process.pid == process_id]

        [number] = number_of(await self.task(number_of))
        return number

    def kill(self, number: int) -> None:
        """End a replica, and let what Lium holds go on."""
        self.deployment.kill(number)
        self.lium.let_go()

    async def kill_owner(self) -> None:
        """End the replica that has claimed the newest task, and start another in its place."""
        number = await self.owner()
        self.kill(number)
        self.deployment.start(number)

    async def task(self, holds: Callable[[Task], Any]) -> Task:
        """The newest task, once something holds of it."""
        async with aclosing(LazyLedger(self.state_url)) as ledger:
            with anyio.fail_after(PATIENCE_SECONDS):
                while True:
                    for task in await ledger.tasks().newest(1):
                        if holds(task):
                            return task
                    await asyncio.sleep(0.05)

    def rents_of(self, name: str) -> list[str]:
        """The pods that Lium has rented under a name."""
        return [rent["pod_id"] for rent in self.lium.state()["rents"] if rent["pod_name"] == name]

    def sent(self, method: str, path: str) -> int:
        """How many such requests Lium has carried out, or is about to answer."""
        return len([row for row in self._met(method, path) if row["status"] in {200, None}])

    async def assert_removed_once(self, pod_id: str) -> None:
        """Wait until a pod is gone, by one order."""
        await until(lambda: self.lium.pod(pod_id)["removed_at"] is not None)
        assert self.sent("DELETE", f"/pods/{pod_id}") == 1

    async def assert_saved_and_removed_once(self, pod_id: str) -> None:
        """Wait until a pod is gone, by one order and after one backup."""
        await self.assert_removed_once(pod_id)
        assert len([backup for backup in self.lium.state()["backups"] if backup["pod_id"] == pod_id]) == 1


def _at_work(log: str, tool: str) -> set[str]:
    """The acts of a tool that have begun and not ended."""
    begun, ended = (set(re.findall(rf'event="{event}" act="(\w+)" by="{tool}"', log)) for event in ("began", "ended"))
    return begun - ended


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def _site(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("site")
    with (
        postgres.database() as state_url,
        simulating_elsewhere(home / "lium", speed=HASTE) as lium,
        deployed(
            home, lium_url=lium.base_url, state_url=state_url, haste=HASTE, LIUM_MCP_TIMEOUT_SECONDS="45"
        ) as deployment,
    ):
        yield Site(lium, deployment, state_url)


@pytest.fixture
async def site(_site: Site) -> AsyncIterator[Site]:
    """Both replicas serve; afterwards what was killed serves again."""
    if not (await _site.call("list_ssh_keys"))["total"]:
        await _site.call("add_ssh_key", name="laptop", public_key=PUBLIC_KEY)
    async with reading(_site):
        yield _site
    _site.lium.calm()
    for number, replica in enumerate(_site.deployment.replicas):
        if replica.process.poll() is not None:
            _site.deployment.start(number)


@asynccontextmanager
async def asked_by(url: str, person: Person) -> AsyncIterator[Client]:
    """A client of the current protocol whose person answers."""
    async with (
        httpx2.AsyncClient(headers=MINE, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), elicitation_callback=person) as client,
    ):
        yield client


@asynccontextmanager
async def reading(site: Site) -> AsyncIterator[None]:
    """Others read meanwhile: they lose a call for each death at most, the one that the dead replica had."""
    lost: list[list[str]] = [[] for _ in range(2)]
    kills_before = site.deployment.kills
    over = asyncio.Event()

    async def read(mine: list[str]) -> None:
        while not over.is_set():
            try:
                heard = await site.told("modern", "list_ssh_keys")
            except* httpx2.RemoteProtocolError:
                heard = NO_ANSWER  # of which a part had come
            if '"total":1' not in heard:
                mine.append(heard)
            await asyncio.sleep(0.2)

    async def tell_time() -> None:
        # A replica knows Lium's time by what Lium answers it.
        while not over.is_set():
            for number in range(2):
                with suppress(ExceptionGroup, MCPError, httpx2.TransportError):
                    await site.own(number, "list_ssh_keys")
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as readers:
        readers.create_task(tell_time())
        for mine in lost:
            readers.create_task(read(mine))
        yield
        over.set()
    kills = site.deployment.kills - kills_before
    assert all(NO_ANSWER in heard for mine in lost for heard in mine), lost
    assert all(len(mine) <= kills for mine in lost), lost


# --- rents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "stage"), [("modern", "before"), *((way, "answer") for way in WAYS)])
async def test_a_rent_is_made_once_and_its_pod_is_known_to_the_other(site: Site, way: Way, stage: Stage) -> None:
    name = next(_names)
    wish = {"name": name, "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
    is_held = site.hold("POST", "/executors/rent-by-spec", stage)
    calling_first = asyncio.create_task(site.told(way, "rent_pod", **wish))
    await until(is_held)
    site.kill(site.at_work("rent_pod"))
    assert CUT_OFF[way] in await calling_first
    rented = await site.call("rent_pod", **wish)
    assert rented["already_rented"]
    assert site.rents_of(name) == [rented["pod_id"]]
    for other in WAYS:
        assert rented["pod_id"] in await site.told(other, "list_pods"), "new callers notice nothing"


async def test_several_rents_of_one_call_are_each_made_once(site: Site) -> None:
    name = next(_names)
    wish = {"name": name, "gpu_type": "RTX4090", "count": 3, "hours": 2, "wait_seconds": 0}
    is_held = site.hold("POST", "/executors/*/rent", "answer")
    calling_first = asyncio.create_task(site.told("modern", "rent_pod", **wish))
    await until(is_held)
    is_held = site.hold("POST", "/executors/*/rent", "answer")
    site.lium.let_go()
    await until(is_held)
    site.kill(site.at_work("rent_pod"))
    assert NO_ANSWER in await calling_first
    rented = await site.call("rent_pod", **wish)
    assert len(rented["pods"]) == 3
    for number in (1, 2, 3):
        [pod_id] = site.rents_of(f"{name}-{number}")
        assert pod_id in str(rented["pods"])


async def test_the_pod_of_a_caller_who_left_goes_although_its_replica_died_before_it_could_remove_it(
    site: Site,
) -> None:
    name = next(_names)
    is_held = site.hold("POST", "/executors/rent-by-spec", "answer")
    wish = {"name": name, "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
    calling_first = asyncio.create_task(site.told("modern", "rent_pod", **wish))
    await until(is_held)
    dying = site.at_work("rent_pod")
    calling_first.cancel()
    await until(lambda: is_unwanted(site.state_url, name))
    site.kill(dying)
    await until(lambda: site.rents_of(name))
    [pod_id] = site.rents_of(name)
    await site.assert_removed_once(pod_id)


def is_unwanted(state_url: str, name: str) -> bool:
    with psycopg.connect(state_url) as connection:
        row = connection.execute("SELECT unwanted FROM rentals WHERE pod_name = %s", [name]).fetchone()
    return bool(row and row[0])


# --- questions -------------------------------------------------------------------------------------------------------


async def test_the_answer_to_a_question_of_a_dead_replica_acts_at_the_other_and_once(site: Site) -> None:
    name, pod_id = await running_pod(site)
    arguments = {"pod": name, "wait_seconds": 0}
    async with asked_by(site.deployment.url, Person("no")) as client:
        asked = await put(client, "reboot_pod", arguments)
        await until(lambda: any(has_asked(replica) for replica in site.deployment.replicas))
        [asker] = [number for number, replica in enumerate(site.deployment.replicas) if has_asked(replica)]
        site.kill(asker)
        is_held = site.hold("POST", "/pods/*/reboot", "answer")
        answering = asyncio.create_task(answer(client, asked, "reboot_pod", arguments))
        await until(is_held)
        site.deployment.start(asker)
        site.kill(1 - asker)
        with pytest.raises(MCPError, match=NO_ANSWER):
            await answering
        # It may have acted, so that it counts no more; whoever still wants that is asked anew.
        refused = await answer(client, asked, "reboot_pod", arguments)
        assert "code: answer_used" in text_of(refused)
        assert site.sent("POST", f"/pods/{pod_id}/reboot") == 1
        await put(client, "reboot_pod", arguments)


def has_asked(replica: Served) -> bool:
    return "tool=reboot_pod outcome=asked" in replica.stderr()


async def running_pod(site: Site) -> tuple[str, str]:
    """Rent a pod with something in it; its name and id."""
    name = next(_names)
    rented = await site.call("rent_pod", name=name, gpu_type="RTX4090", hours=20, wait_seconds=300)
    assert rented["pod"]["status"] == "RUNNING", rented
    await site.own(0, "run_command", pod=name, command="echo 1 > /root/results")
    return name, rented["pod_id"]


# --- removals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("POST", "/pods/*/backup"), ("DELETE", "/pods/*")])
async def test_a_removal_goes_on_with_the_last_backup_that_a_dead_replica_began(
    site: Site, method: str, path: str
) -> None:
    name, pod_id = await running_pod(site)
    is_held = site.hold(method, path, "answer")
    arguments = {"pod": name, "final_backup": True, "wait_seconds": 300}
    calling_first = asyncio.create_task(site.told("modern", "remove_pod", **arguments))
    await until(is_held)
    site.kill(site.at_work("remove_pod"))
    heard = await calling_first
    assert NO_ANSWER in heard or ENDED in heard, heard
    again = await site.told("modern", "remove_pod", **arguments)
    # The dead one may have removed it, of which nobody knows yet.
    assert re.search('code: pod_not_(found|known_yet)|"outcome":"done"', again), again
    await site.assert_saved_and_removed_once(pod_id)


# --- what is done between calls --------------------------------------------------------------------------------------


async def test_a_run_goes_on_wherever_its_replicas_die_and_ends_once(site: Site) -> None:
    name = next(_names)
    command = "echo once >> /root/count"
    order = {"name": name, "gpu_type": "RTX4090", "max_total_usd": 5, "command": command, "then": "backup_and_remove"}
    is_held = site.hold("POST", "/executors/*/rent", "answer")
    calling_first = asyncio.create_task(site.own(0, "run_job", **order, wait_seconds=0))
    await until(is_held)
    is_held = site.hold("POST", "/pods/*/backup", "answer")
    await site.kill_owner()
    await asyncio.gather(calling_first, return_exceptions=True)
    await until(is_held)
    await site.kill_owner()
    task = await site.task(lambda task: task.closed_at is not None)
    assert task.status == "done", task
    [pod_id] = site.rents_of(name)
    await site.assert_saved_and_removed_once(pod_id)


async def test_what_follows_a_job_is_done_once(site: Site) -> None:
    name, pod_id = await running_pod(site)
    is_held = site.hold("DELETE", "/pods/*", "answer")
    await site.own(0, "start_job", pod=name, name="fit", command="true", then="backup_and_remove")
    await until(is_held)
    await site.kill_owner()
    task = await site.task(lambda task: task.closed_at is not None)
    assert task.status == "done", task
    await site.assert_saved_and_removed_once(pod_id)


async def test_an_idle_pod_is_removed_by_the_other(site: Site) -> None:
    name, pod_id = await running_pod(site)
    is_held = site.hold("DELETE", "/pods/*", "answer")
    await site.own(0, "schedule_pod_removal", pod=name, idle_minutes=5)
    await until(is_held)
    await site.kill_owner()
    await site.task(lambda task: task.closed_at is not None)
    await site.assert_removed_once(pod_id)
