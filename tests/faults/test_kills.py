"""A real server process that dies in mid-rent, and the next one on the same ledger: there is one pod, and it is known.

A proxy holds one request of the rent, so that the process dies at a chosen point. Each process that follows settles
what the one before it left, and is the next to die: starting one takes a second.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from lium_mcp.rentals import Entry
from lium_mcp.rentals.ledger import Ledger
from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.sandbox import FEATURES
from lium_mcp.settings import Settings
from tests.processes import serving
from tests.serving.test_stdio import CURRENT, Ask, called, speaking
from tests.wires import Hold, Moment, Wire, ask, living, rents, served

NO_REPLAY: Final = ("rent_by_spec", "run_record")
POD: Final = "/pods/*"


class Point(NamedTuple):
    """Where the process dies: the request that is held, and how far it has come."""

    name: str
    method: str
    path: str
    moment: Moment
    is_journaled: bool = True


BEFORE_THE_ROW: Final = (
    Point("the price is asked", "GET", "/executors/*/quote", "before the work", is_journaled=False),
    Point("the pods are asked for", "GET", "/pods", "before the work", is_journaled=False),
    Point("the pods are known", "GET", "/pods", "after the work", is_journaled=False),
)
UNANSWERED: Final = (
    Point("the rent is on its way", "POST", "/executors/*/rent", "before the work"),
    Point("the rent is done", "POST", "/executors/*/rent", "after the work"),
)
ANSWERED: Final = (
    Point("the rent is just answered", "POST", "/executors/*/rent", "after the answer"),
    Point("the pod is looked at", "GET", POD, "before the work"),
    Point("its events are asked for", "GET", f"{POD}/events", "after the work"),
)
ALL: Final = BEFORE_THE_ROW + UNANSWERED + ANSWERED
KILL_POINTS: Final = {
    "killed, then the same call again": len(ALL),
    "killed, then the pods are listed": len(UNANSWERED + ANSWERED[:1]),
    "killed, on PostgreSQL": len(UNANSWERED),
    "killed, where nothing is replayed": len(UNANSWERED + ANSWERED[:1]),
    "terminated and interrupted": 2 * len(UNANSWERED + ANSWERED[1:2]),
    "killed while it removes": 3,
}


class Relay:
    """Servers that follow one another on one ledger, over one sandbox; each call is of a name of its own."""

    def __init__(self, sandbox: Sandbox, wire: Wire, stack: AsyncExitStack, variables: dict[str, str]) -> None:
        self.sandbox = sandbox
        self.wire = wire
        self._stack = stack
        self._variables = {"LIUM_API_KEY": "sk_sandbox", "LIUM_BASE_URL": wire.base_url} | variables
        self._number = 0
        self._node = ""
        self.name = ""

    async def __call__(self) -> None:
        """Start the next server."""
        self.server = await self._stack.enter_async_context(serving(**self._variables))
        self.request: Ask = await speaking(self.server, CURRENT)

    async def begin(self, point: Point) -> Hold:
        """Begin to rent under a new name, until the point is reached."""
        if not self._node:
            nodes = await ask(self.sandbox, "GET", "/executors?view=summary")
            self._node = next(node["id"] for node in nodes if node.get("min_gpu_count_for_rental") == 1)
        self._number += 1
        self.name = f"train-{self._number}"
        hold = self.wire.hold(point.method, point.path, point.moment)
        await self.server.send(self._rent())
        await hold.reached()
        return hold

    async def end(self, number: signal.Signals) -> None:
        """End the server by a signal."""
        self.server.interrupt(number)
        status = await self.server.exited()
        assert status in {-number, 128 + number}
        # Longer than a server that lives waits for an answer.
        self.sandbox.clock.advance(seconds=30)

    async def rent(self) -> dict[str, Any]:
        """The same call again."""
        return await self._call(self._rent())

    async def list_pods(self) -> dict[str, Any]:
        return await self._call(called(8, self.request, "list_pods"))

    async def list_for_minutes(self) -> dict[str, Any]:
        """List until several lists, some time apart, lack what was not rented."""
        self.sandbox.clock.advance(minutes=6)
        for _ in range(4):
            await self.list_pods()
            self.sandbox.clock.advance(seconds=65)
        return await self.list_pods()

    async def clear(self) -> None:
        """Let the owner remove what lives, so that the next rent finds an empty account."""
        self.sandbox.clock.advance(minutes=1)
        for pod in living(self.sandbox):
            await ask(self.sandbox, "DELETE", f"/pods/{pod['id']}")
        self.sandbox.clock.advance(minutes=1)
        await self.list_pods()

    def living(self) -> list[dict[str, Any]]:
        return [pod for pod in living(self.sandbox) if pod["pod_name"] == self.name]

    def accepted(self) -> list[dict[str, Any]]:
        return [record for record in rents(self.sandbox) if record["pod_name"] == self.name]

    async def entries(self) -> Sequence[Entry]:
        """What the ledger has of this rent, newest first."""
        url = self._variables.get("LIUM_MCP_STATE_URL") or Settings().find_state_url()
        ledger = Ledger(url)
        try:
            return [entry for entry in await ledger.newest(100) if entry.pod_name == self.name]
        finally:
            await ledger.aclose()

    def _rent(self) -> dict[str, Any]:
        asked = {"name": self.name, "executor_id": self._node, "hours": 2, "wait_seconds": 0}
        return called(7, self.request, "rent_pod", **asked)

    async def _call(self, message: dict[str, Any]) -> dict[str, Any]:
        result = (await self.server.ask(message))["result"]
        assert not result.get("isError"), result
        return dict(result["structuredContent"])

    async def assert_one_pod(self, pod_id: str) -> None:
        """There is one, it is this one, and the ledger says so."""
        (pod,), (record,), (entry,) = self.living(), self.accepted(), await self.entries()
        assert pod["id"] == record["pod_id"] == pod_id
        assert (entry.status, entry.pod_ids) == ("rented", [pod_id])


@asynccontextmanager
async def relay(*features: str, **variables: str) -> AsyncIterator[Relay]:
    sandbox = Sandbox(seed=7, speed=0, features=features or FEATURES)
    async with served(Wire(sandbox)) as wire, AsyncExitStack() as stack:
        servers = Relay(sandbox, wire, stack, {"LIUM_MCP_ALLOW_TOOLS": "rent_pod,list_pods"} | variables)
        await servers()
        yield servers


async def test_the_same_call_again_gets_the_one_pod_wherever_the_server_was_killed() -> None:
    async with relay() as servers:
        for point in ALL:
            await servers.begin(point)
            await servers.end(signal.SIGKILL)
            assert len(await servers.entries()) == point.is_journaled, point.name
            await servers()
            rented = await servers.rent()
            assert rented.get("already_rented", False) == point.is_journaled, point.name
            await servers.assert_one_pod(rented["pod_id"])
            assert (await servers.rent())["already_rented"] is True
            await servers.assert_one_pod(rented["pod_id"])
            await servers.clear()
        assert len(rents(servers.sandbox)) == KILL_POINTS["killed, then the same call again"]


async def test_listing_the_pods_settles_what_a_killed_server_left() -> None:
    async with relay() as servers:
        for point in UNANSWERED + ANSWERED[:1]:
            await servers.begin(point)
            await servers.end(signal.SIGKILL)
            await servers()
            listed = await servers.list_pods()
            (row,) = listed["pods"]
            assert "unsettled" not in listed
            await servers.assert_one_pod(row["pod_id"])
            await servers.clear()
        assert len(rents(servers.sandbox)) == KILL_POINTS["killed, then the pods are listed"]


async def test_a_killed_server_leaves_the_same_in_postgresql(postgres: Any) -> None:
    with postgres.database() as url:
        async with relay(LIUM_MCP_STATE_URL=url) as servers:
            for point in UNANSWERED:
                await servers.begin(point)
                await servers.end(signal.SIGKILL)
                (entry,) = await servers.entries()
                assert entry.status == "sending"
                await servers()
                rented = await servers.rent()
                assert rented["already_rented"] is True
                await servers.assert_one_pod(rented["pod_id"])
                await servers.clear()


async def test_where_nothing_is_replayed_a_killed_rent_is_looked_for_and_never_sent_again() -> None:
    async with relay(*NO_REPLAY) as servers:
        for point in UNANSWERED + ANSWERED[:1]:
            await servers.begin(point)
            await servers.end(signal.SIGKILL)
            was_rented = len(servers.accepted())
            await servers()
            if was_rented:
                rented = await servers.rent()
                assert rented["already_rented"] is True
            else:
                listed = await servers.list_pods()
                assert [row["name"] for row in listed["unsettled"]] == [servers.name]
                assert "unsettled" not in await servers.list_for_minutes()
                assert [entry.status for entry in await servers.entries()] == ["absent"]
                assert (await servers.rent()).get("already_rented") is None
            assert len(servers.accepted()) == len(servers.living()) == 1
            await servers.clear()


async def test_a_rent_that_never_left_is_not_sent_when_nobody_waits_for_it_any_more() -> None:
    async with relay() as servers:
        for point in UNANSWERED:
            await servers.begin(point)
            await servers.end(signal.SIGKILL)
            was_rented = len(servers.accepted())
            await servers()
            listed = await servers.list_for_minutes()
            assert "unsettled" not in listed
            assert len(listed["pods"]) == len(servers.accepted()) == was_rented
            assert [entry.status for entry in await servers.entries()] == ["rented" if was_rented else "absent"]
            assert (await servers.rent()).get("already_rented", False) == bool(was_rented)
            assert len(servers.accepted()) == len(servers.living()) == 1
            await servers.clear()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_told_to_stop_leaves_what_a_killed_one_leaves_or_nothing(
    number: signal.Signals, tmp_path: Path
) -> None:
    async def stop_at(point: Point) -> None:
        async with relay(LIUM_MCP_STATE_URL=f"sqlite:///{tmp_path / point.name}.db") as servers:
            await servers.begin(point)
            await servers.end(number)
            await servers()
            # Its call was cancelled: what came of it goes, unless the process ended before it could write that.
            for _ in range(3):
                await servers.list_pods()
                servers.sandbox.clock.advance(seconds=20)
            was_kept = len(servers.living())
            rented = await servers.rent()
            assert rented.get("already_rented", False) == bool(was_kept)
            assert [pod["id"] for pod in servers.living()] == [rented["pod_id"]]

    # Each waits for its request for some seconds before it ends: at the same time.
    await asyncio.gather(*map(stop_at, UNANSWERED))
    async with relay() as servers:
        await servers.begin(ANSWERED[1])
        servers.sandbox.clock.advance(minutes=1)  # a pod that runs can be removed
        await servers.end(number)
        assert len(servers.accepted()) == 1
        assert servers.living() == []
        await servers()
        assert (await servers.rent()).get("already_rented") is None
        assert len(servers.living()) == 1


REMOVAL: Final = (
    Point("the removal is on its way", "DELETE", POD, "before the work"),
    Point("the removal is done", "DELETE", POD, "after the work"),
    Point("the removal is just answered", "DELETE", POD, "after the answer"),
)


async def test_the_next_server_goes_on_removing_the_pod_of_a_cancelled_rent() -> None:
    async with relay() as servers:
        for point in REMOVAL:
            looking = await servers.begin(ANSWERED[1])
            servers.sandbox.clock.advance(minutes=1)
            hold = servers.wire.hold(point.method, point.path, point.moment)
            cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
            await servers.server.send(cancelled)
            await hold.reached()
            looking.let_go()
            await servers.end(signal.SIGKILL)
            await servers()
            await servers.list_pods()
            assert servers.living() == [], point.name
            servers.sandbox.clock.advance(seconds=5)
            await servers.list_pods()
            assert {entry.status for entry in await servers.entries()} == {"removed"}, point.name
            servers.sandbox.clock.advance(minutes=1)
            assert (await servers.rent()).get("already_rented") is None
            assert len(servers.living()) == 1
            await servers.clear()
