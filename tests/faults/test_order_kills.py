"""A real server process that dies while a standing order rents, and the next one: there is one pod, and it is known.

Each process that follows goes on with what the one before it left, and is the next to die: starting one takes a second.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.sandbox import FEATURES
from tests.faults.test_kills import NO_REPLAY, Point
from tests.processes import serving
from tests.serving.test_stdio import CURRENT, Ask, called, speaking
from tests.wires import Wire, ask, living, rents, served

BEFORE_THE_ROW: Final = (
    Point("the market is read", "GET", "/executors", "before the work", is_journaled=False),
    Point("the price is asked", "GET", "/executors/*/quote", "before the work", is_journaled=False),
    Point("the pods are known", "GET", "/pods", "after the work", is_journaled=False),
)
AFTER_THE_ROW: Final = (
    Point("the rent is on its way", "POST", "/executors/*/rent", "before the work"),
    Point("the rent is done", "POST", "/executors/*/rent", "after the work"),
    Point("the rent is just answered", "POST", "/executors/*/rent", "after the answer"),
    Point("the pod is rented", "GET", "/ssh-keys", "before the work"),
)
_LEASE_SECONDS: Final = 100
_LOOKS: Final = 20


class Relay:
    """Servers that follow one another on one ledger, over one sandbox; each order is of a name of its own."""

    def __init__(self, sandbox: Sandbox, wire: Wire, stack: AsyncExitStack, variables: dict[str, str]) -> None:
        self.sandbox = sandbox
        self.wire = wire
        self._stack = stack
        self._variables = {"LIUM_API_KEY": "sk_sandbox", "LIUM_BASE_URL": wire.base_url} | variables
        self._numbers = count(1)

    async def __call__(self) -> None:
        """Start the next server."""
        self.server = await self._stack.enter_async_context(serving(**self._variables))
        self.request: Ask = await speaking(self.server, CURRENT)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = (await self.server.ask(called(8, self.request, tool, **arguments)))["result"]
        assert not result.get("isError"), result
        return dict(result["structuredContent"])

    async def place(self, name: str, usd: float) -> None:
        """Place an order for which nothing fits. That wakes the server, which looks at others that are due too."""
        wish = {"name": name, "gpu_type": "A100", "min_ram_gb": 1, "hours": 2, "keep_trying_hours": 100}
        placed = await self.call("rent_pod", **wish, max_usd_per_gpu_hour=usd)
        assert placed["order"]["status"] == "waiting", placed

    async def wake(self) -> None:
        """Let a minute go by, and the server look."""
        self.sandbox.clock.advance(seconds=60)
        await self.place(f"never-{next(self._numbers)}", 0.0001)

    async def begin(self, point: Point) -> str:
        """Let an order rent under a new name, until the point is reached."""
        name = f"train-{next(self._numbers)}"
        nodes = await ask(self.sandbox, "GET", "/executors?view=summary")
        cheapest = min(node["price_per_gpu"] for node in nodes if "A100" in node["machine_name"])
        await self.place(name, cheapest / 2)
        hold = self.wire.hold(point.method, point.path, point.moment)
        self._price_at(1 / 4)
        self.sandbox.clock.advance(seconds=60)
        never = {"name": f"never-{next(self._numbers)}", "gpu_type": "A100", "hours": 2, "keep_trying_hours": 100}
        await self.server.send(called(9, self.request, "rent_pod", **never, max_usd_per_gpu_hour=0.0001))
        await hold.reached()
        return name

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server by a signal, and let its lease run out."""
        self.server.interrupt(number)
        assert await self.server.exited() in {-number, 128 + number}
        self.sandbox.clock.advance(seconds=_LEASE_SECONDS)

    async def order(self, name: str) -> dict[str, Any]:
        listed = await self.call("list_pods")
        return next(dict(row) for row in listed["orders"] if row["name"] == name)

    async def assert_one_pod(self, name: str, why: str) -> None:
        """The order has rented, it has rented this one pod, and nothing else ever was for it."""
        row = await self.order(name)
        for _ in range(_LOOKS):
            if row["status"] != "rented":
                await self.wake()
                row = await self.order(name)
        assert row["status"] == "rented", (why, row)
        await self.wake()
        [pod] = [pod for pod in living(self.sandbox) if pod["pod_name"] == name]
        [record] = [record for record in rents(self.sandbox) if record["pod_name"] == name]
        assert pod["id"] == record["pod_id"] == row["pod_id"], why
        self._price_at(4)

    def _price_at(self, factor: float) -> None:
        for node in self.sandbox._world.market.nodes.values():
            node.base_price *= factor


@asynccontextmanager
async def relay(*features: str, **variables: str) -> AsyncIterator[Relay]:
    sandbox = Sandbox(seed=7, speed=0, features=features or FEATURES, pod_polls_per_minute=10**6)
    async with served(Wire(sandbox)) as wire, AsyncExitStack() as stack:
        servers = Relay(sandbox, wire, stack, {"LIUM_MCP_ALLOW_TOOLS": "rent_pod,list_pods"} | variables)
        await servers()
        yield servers


async def test_an_order_rents_one_pod_wherever_its_server_was_killed() -> None:
    async with relay() as servers:
        for point in BEFORE_THE_ROW + AFTER_THE_ROW:
            name = await servers.begin(point)
            await servers.end()
            await servers()
            await servers.assert_one_pod(name, point.name)
        assert len(rents(servers.sandbox)) == len(BEFORE_THE_ROW + AFTER_THE_ROW)


async def test_where_nothing_is_replayed_an_order_rents_one_pod_too() -> None:
    async with relay(*NO_REPLAY) as servers:
        for point in AFTER_THE_ROW[1:3]:
            name = await servers.begin(point)
            await servers.end()
            await servers()
            await servers.assert_one_pod(name, point.name)


async def test_a_server_that_is_stopped_in_mid_rent_leaves_the_pod_to_the_order() -> None:
    async with relay() as servers:
        for point in AFTER_THE_ROW[1:3]:
            name = await servers.begin(point)
            await servers.end(signal.SIGTERM)
            await servers()
            await servers.assert_one_pod(name, point.name)
            assert not servers.wire.sent("DELETE", "/pods/*")


async def test_a_killed_server_leaves_the_same_in_postgresql(postgres: Any) -> None:
    with postgres.database() as url:
        async with relay(LIUM_MCP_STATE_URL=url) as servers:
            for point in AFTER_THE_ROW[:2]:
                name = await servers.begin(point)
                await servers.end()
                await servers()
                await servers.assert_one_pod(name, point.name)
