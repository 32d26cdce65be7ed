"""Random sequences of calls and faults, and what must hold after each of them whatever happened.

One account with limits, one ledger, a server of each protocol era, and people who act past them. A step is a call, a
turn of the clock, or a fault that waits for the next request. What holds is read from the sandbox's own record.

Some hundred steps run as a test; this takes 20,000, which is for a quiet hour:
`MACHINE_STEPS=20000 python -m pytest -n0 -s --timeout 3600 tests/faults/test_machine.py`
"""

import asyncio
import json
import os
import sqlite3
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from mcp.types import CallToolResult

from lium_mcp.sandbox import Sandbox
from tests.faults.fates import CANCELS, KILLS, WIRE, Connection, Fate, Fates
from tests.harness import PUBLIC_KEY, Mode, text_of
from tests.tools.wires import Row, ask, rent

STEPS: Final = int(os.environ.get("MACHINE_STEPS", "0"))
STEPS_EACH: Final = 40
EXAMPLES: Final = 8
MAX_PODS: Final = 3
MAX_PRICE_USD: Final = 0.8
MAX_BURN_USD: Final = 1.5
BUDGET_USD: Final = 14.0
# A removal may come a minute late, and a price may move between a quote and the rent.
BUDGET_SLACK_USD: Final = 0.5
TOOLS: Final = frozenset(
    {
        "rent_pod",
        "list_pods",
        "get_pod",
        "remove_pod",
        "schedule_pod_removal",
        "cancel_pod_removal",
        "reboot_pod",
    }
)
# The ends of a pod that nobody has to ask for.
BY_LIUM: Final = frozenset({"creation_failed", "spot_reclaimed", "insufficient_balance", "api_key_budget_exceeded"})
# Answers after which a rent may exist.
MAY_HAVE_RENTED: Final = ("outcome_unknown", "dearer_than_allowed", "server_stopping")

servers = st.integers(0, 1)
names = st.sampled_from(["a", "b", "c", "d"])
waits = st.sampled_from([0, 0, 5, 45])
requests = st.sampled_from(
    [
        {"gpu_type": "RTX3090", "hours": 2},
        {"gpu_type": "RTX4090", "hours": 7.5},
        {"gpu_type": "A100", "hours": 3, "max_usd_per_gpu_hour": 0.9},
        {"gpu_type": "RTX3090", "gpu_count": 2, "hours": 12},
        {"gpu_type": "L4"},
        {"executor_id": "cheapest", "hours": 1.5},
        {"executor_id": "cheapest", "gpu_count": 1, "hours": 0.5, "enable_backups": False},
    ]
)


class Machine(RuleBasedStateMachine):
    """The account and everybody who acts on it."""

    runner: ClassVar[asyncio.Runner]
    home: ClassVar[Path]
    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        # Within one month, since the budget is a month's.
        self.sandbox = Sandbox(
            seed=7, speed=0, balance_usd=60, start=datetime(2026, 3, 2, 9, 30, tzinfo=UTC), pod_polls_per_minute=10**6
        )
        self.fates = Fates(act_first=self._rival)
        self.ledger = self.home / f"machine-{sum(self.steps.values())}.db"
        self.ledger.unlink(missing_ok=True)
        self.connections: list[Connection] = []
        self.dropped: list[Connection] = []
        self.step = 0
        self.calls_that_may_rent = 0
        self.asked_to_go: set[str] = set()
        self.cancelled_names: set[str] = set()
        self.scheduled: set[str] = set()
        self.rivals: dict[str, int] = {}
        self.admitted_in: dict[str, int] = {}

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def connect(self) -> None:
        modes: tuple[Mode, Mode] = ("auto", "legacy")
        self.connections = [self.run(self._connect(mode)) for mode in modes]

    async def _connect(self, mode: Mode) -> Connection:
        return await Connection(
            self.sandbox,
            self.fates,
            mode,
            api_key="sk_sandbox",
            base_url="http://127.0.0.1/api",
            state_url=f"sqlite:///{self.ledger}",
            allow_tools=TOOLS,
            log_level="ERROR",
            max_pods=MAX_PODS,
            max_price_per_hour_usd=MAX_PRICE_USD,
            max_burn_per_hour_usd=MAX_BURN_USD,
            budget_usd=BUDGET_USD,
        ).open()

    async def _call(self, server: int, tool: str, **arguments: Any) -> CallToolResult | None:
        connection = self.connections[server]
        answer = await connection.call(tool, **arguments)
        if connection.died.is_set():
            await self._replace(server)
        return answer

    async def _replace(self, server: int) -> None:
        dead = self.connections[server]
        self.dropped.append(dead)
        self.connections[server] = await self._connect("legacy" if server else "auto")

    # What agents do.

    @rule(server=servers, name=names, what=requests, wait=waits)
    def rent(self, server: int, name: str, what: Row, wait: int) -> None:
        self._count("rent")
        self.run(self._rent(server, name, what, wait))

    @rule(
        server=servers,
        name=names,
        what=requests,
        wait=waits,
        kind=st.sampled_from([*WIRE, *CANCELS, *KILLS]),
        where=st.sampled_from(["rent", "rent", "read"]),
        passing=st.integers(0, 4),
    )
    def rent_in_trouble(
        self, server: int, name: str, what: Row, wait: int, kind: Any, where: Any, passing: int
    ) -> None:
        self._count("rent_in_trouble")
        # By specification the first request is one that only asks for the price.
        passing = min(passing, 1) if where == "rent" else passing
        self.fates.pending.append(Fate(kind, where, passing))
        self.run(self._rent(server, name, what, wait))

    @rule(name=names, what=requests, other=requests, same=st.booleans())
    def rent_twice_at_once(self, name: str, what: Row, other: Row, same: bool) -> None:
        self._count("rent_twice_at_once")

        async def both() -> None:
            calls = self._rent(0, name, what, 0), self._rent(1, name, what if same else other, 0)
            await asyncio.gather(*calls)

        self.run(both())

    async def _rent(self, server: int, name: str, what: Row, wait: int) -> None:
        if what.get("executor_id") == "cheapest":
            what = what | {"executor_id": cheapest(self.sandbox)}
        before = {row["idempotency_key"] for row in self._rows()}
        answer = await self._call(server, "rent_pod", name=name, wait_seconds=wait, **what)
        if answer is None:  # the client gave up, or the server died
            self.calls_that_may_rent += 1
            for row in self._rows():
                if row["idempotency_key"] not in before and row["pod_name"] == name:
                    self.cancelled_names.add(row["idempotency_key"])
            return
        self._answered(answer)
        if not answer.is_error:
            content = answer.structured_content or {}
            self.calls_that_may_rent += not content.get("already_rented", False)
        elif any(f"code: {code}" in text_of(answer) for code in MAY_HAVE_RENTED):
            self.calls_that_may_rent += 1
            if "dearer_than_allowed" in text_of(answer):
                self.cancelled_names |= {row["idempotency_key"] for row in self._rows() if row["pod_name"] == name}

    @rule(server=servers, pod=st.integers(0, 5), by_name=st.booleans(), wait=waits)
    def remove(self, server: int, pod: int, by_name: bool, wait: int) -> None:
        self._count("remove")
        target = self._target(pod)
        self.asked_to_go.add(target["id"])
        named = target["pod_name"] if by_name else target["id"]
        if by_name:  # whichever has the name when the call arrives
            self.asked_to_go |= {row["id"] for row in self._alive() if row["pod_name"] == named}
        self._do(server, "remove_pod", pod=named, wait_seconds=wait)

    @rule(server=servers, pod=st.integers(0, 5), hours=st.sampled_from([0.05, 0.5, 3, 30]))
    def schedule(self, server: int, pod: int, hours: float) -> None:
        self._count("schedule")
        target = self._target(pod)["id"]
        self.scheduled.add(target)
        self._do(server, "schedule_pod_removal", pod=target, hours_from_now=hours)

    @rule(server=servers, pod=st.integers(0, 5))
    def cancel_removal(self, server: int, pod: int) -> None:
        self._count("cancel_removal")
        self._do(server, "cancel_pod_removal", pod=self._target(pod)["id"])

    @rule(server=servers, pod=st.integers(0, 5), wait=waits)
    def reboot(self, server: int, pod: int, wait: int) -> None:
        self._count("reboot")
        self._do(server, "reboot_pod", pod=self._target(pod)["id"], wait_seconds=wait)

    @rule(server=servers, pod=st.integers(0, 5), wait=waits)
    def look_at_one(self, server: int, pod: int, wait: int) -> None:
        self._count("look_at_one")
        self._do(server, "get_pod", pod=self._target(pod)["id"], wait_seconds=wait)

    @rule(server=servers)
    def look_at_all(self, server: int) -> None:
        self._count("look_at_all")
        answer = self._do(server, "list_pods", limit=100)
        if answer is None or answer.is_error:
            return
        listed = {row["pod_id"] for row in (answer.structured_content or {})["pods"]}
        billing = {pod["id"] for pod in self._alive() if pod["status"] != "PENDING"}
        assert billing <= listed, "a pod bills and is not shown"

    # What goes wrong, and what others do.

    @rule(
        kind=st.sampled_from([*WIRE, *CANCELS, *KILLS]),
        where=st.sampled_from(["rent", "rent", "change", "read"]),
        passing=st.integers(0, 3),
        times=st.integers(1, 4),
    )
    def arm(self, kind: Any, where: Any, passing: int, times: int) -> None:
        self._count(f"arm_{kind}")
        self.fates.pending.append(Fate(kind, where, passing, 1 if kind in (*CANCELS, *KILLS) else times))

    @rule(where=st.sampled_from(["rent", "change", "read"]), passing=st.integers(0, 2))
    def arm_a_rival(self, where: Any, passing: int) -> None:
        self._count("arm_a_rival")
        self.fates.pending.append(Fate("act_first", where, passing))

    @rule(
        fault=st.sampled_from(
            [
                {"kind": "boot_fails"},
                {"kind": "boot_slow", "seconds": 200},
                {"kind": "reboot_fails"},
                {"kind": "node_taken"},
                {"kind": "provider_pause"},
                {"kind": "delete_fails"},
                {"kind": "rent_crash", "rented": True},
                {"kind": "rent_crash", "rented": False},
            ]
        )
    )
    def disturb(self, fault: Row) -> None:
        self._count(f"fault_{fault['kind']}")
        self.sandbox.add_fault(**fault)

    @rule(pod=st.integers(0, 5))
    def reclaim(self, pod: int) -> None:
        self._count("reclaim")
        with suppress(ValueError):  # not a spot pod
            self.sandbox.add_fault("spot_reclaim", pod_id=self._target(pod)["id"])

    @rule()
    def calm(self) -> None:
        self._count("calm")
        self.fates.pending.clear()
        self.sandbox.clear_faults()

    @rule(seconds=st.sampled_from([1, 20, 40, 90, 400, 1800, 3600, 4 * 3600]))
    def turn_the_clock(self, seconds: int) -> None:
        self._count("turn_the_clock")
        self.sandbox.clock.advance(seconds=seconds)

    @rule(server=servers)
    def crash(self, server: int) -> None:
        self._count("crash")

        async def crash() -> None:
            await self.connections[server].drop()
            await self._replace(server)

        self.run(crash())

    @rule()
    def rival(self) -> None:
        self._count("rival")
        self.run(self._rival())

    async def _rival(self) -> None:
        name = f"rival-{self.step}-{len(self.rivals)}"
        with suppress(AssertionError, httpx2.HTTPError):  # what is armed strikes rivals too
            await rent(self.sandbox, name, boot=False, termination_hours=5)
        self.rivals |= {pod["id"]: self.step for pod in self._alive() if pod["pod_name"] == name}

    @rule(pod=st.integers(0, 5))
    def person_removes(self, pod: int) -> None:
        self._count("person_removes")
        running = [row for row in self._alive() if row["status"] == "RUNNING"]
        if running:
            target = running[pod % len(running)]["id"]
            self.asked_to_go.add(target)
            with suppress(AssertionError, httpx2.HTTPError):
                self.run(ask(self.sandbox, "DELETE", f"/pods/{target}"))

    # What must hold.

    @invariant()
    def nothing_is_rented_twice(self) -> None:
        keys = Counter(item["idempotency_key"] for item in self._ours())
        assert all(count == 1 for count in keys.values()), "one request was carried out twice"
        assert sum(keys.values()) <= self.calls_that_may_rent, "more rents than calls that may have rented"
        alive = Counter(pod["pod_name"] for pod in self._alive() if pod["id"] not in self.rivals)
        assert all(count == 1 for count in alive.values()), f"two pods for one name: {alive}"

    @invariant()
    def the_limits_hold(self) -> None:
        for row in self._rows():
            self.admitted_in.setdefault(row["idempotency_key"], self.step)
        newest = max(self.admitted_in.values(), default=0)
        alive = self._alive()
        # A rival who came after the last admission was not there to be counted.
        counted = [pod for pod in alive if self.rivals.get(pod["id"], -1) < newest]
        ours = [pod for pod in alive if pod["id"] not in self.rivals]
        if not ours:
            return
        assert len(counted) <= MAX_PODS, "too many pods"
        burn = sum(float(pod["price"]) for pod in counted)
        assert burn <= MAX_BURN_USD + 0.001, f"they burn ${burn} an hour"
        assert all(float(pod["price"]) <= MAX_PRICE_USD + 0.001 for pod in ours), "one is too dear"

    @invariant()
    def the_budget_holds(self) -> None:
        state = self.sandbox.state()
        now = datetime.fromisoformat(state["now"])
        total = 0.0
        for pod in state["pods"]:
            if pod["id"] in self.rivals:
                continue
            total += pod["charged_usd"]
            if is_alive(pod):
                left = hours_left(pod, now)
                assert left is not None, f"{pod['pod_name']} lives for ever"
                total += float(pod["price"]) * left
        assert total <= BUDGET_USD + BUDGET_SLACK_USD, f"${total} are spent and committed"

    @invariant()
    def nothing_goes_that_nobody_asked_to_go(self) -> None:
        keys = {item["pod_id"]: item["idempotency_key"] for item in self.sandbox.state()["rents"]}
        for pod in self.sandbox.state()["pods"]:
            reason = pod["close_reason"]
            if reason is None or reason in BY_LIUM or keys[pod["id"]] in self.cancelled_names:
                continue
            if reason == "user_initiated":
                assert pod["id"] in self.asked_to_go, f"{pod['pod_name']} was removed"
            else:
                assert reason == "scheduled_termination", reason
                assert pod["id"] in self.scheduled or self._was_due(pod), f"{pod['pod_name']} went early"

    def _was_due(self, pod: Row) -> bool:
        hours = 5.0 if pod["id"] in self.rivals else self._hours_of(pod["id"])
        gone_at = datetime.fromisoformat(pod["removed_at"] or self.sandbox.state()["now"])
        return gone_at - instant(pod["created_at"]) >= timedelta(hours=hours) - timedelta(seconds=5)

    def _hours_of(self, pod_id: str) -> float:
        key = next(item["idempotency_key"] for item in self._ours() if item["pod_id"] == pod_id)
        return float(next(row["hours"] for row in self._rows() if row["idempotency_key"] == key))

    def teardown(self) -> None:
        try:
            if self.connections:
                self._settle_down()
        finally:
            for connection in (*self.connections, *self.dropped):
                self.run(connection.close())

    def _settle_down(self) -> None:
        """Once the API answers again, everything is settled, and the ledger and Lium agree."""
        self.fates.pending.clear()
        self.sandbox.clear_faults()
        self.sandbox.clock.advance(minutes=6)
        answer = self._do(0, "list_pods", limit=100)
        assert answer is not None
        assert not answer.is_error, text_of(answer)
        content = answer.structured_content or {}
        alive = {pod["id"]: pod for pod in self._alive()}
        assert set(alive) == {row["pod_id"] for row in content["pods"] if row["status"] != "CREATION_FAILED"}
        open_rows = [row for row in self._rows() if row["closed_at"] is None]
        now = datetime.fromisoformat(self.sandbox.state()["now"])
        fresh = [row for row in open_rows if now - instant(row["created_at"]) < timedelta(hours=23)]
        assert {row["status"] for row in fresh} <= {"rented"}, fresh
        assert "unsettled" not in content or len(fresh) < len(open_rows), content
        known = [pod_id for row in open_rows for pod_id in json.loads(row["pod_ids"])]
        assert sorted(known) == sorted(set(alive) - set(self.rivals)), "the ledger and Lium do not agree"
        self.nothing_is_rented_twice()
        self.the_limits_hold()
        self.nothing_goes_that_nobody_asked_to_go()
        self.steps["struck"] += self.fates.struck
        self.steps["rents"] += len(self._ours())
        self.steps["examples"] += 1

    # Looking.

    def _count(self, what: str) -> None:
        self.step += 1
        self.steps[what] += 1
        self.steps["steps"] += 1

    def _do(self, server: int, tool: str, **arguments: Any) -> CallToolResult | None:
        answer: CallToolResult | None = self.run(self._call(server, tool, **arguments))
        if answer is not None:
            self._answered(answer)
        return answer

    def _answered(self, answer: CallToolResult) -> None:
        text = text_of(answer)
        code = (answer.meta or {})["lium-mcp/error"]["code"] if answer.is_error else "ok"
        assert code != "internal_error", text
        self.steps[f"answer {code}"] += 1

    def _alive(self) -> list[Row]:
        return [pod for pod in self.sandbox.state()["pods"] if is_alive(pod)]

    def _target(self, number: int) -> Row:
        alive = self._alive()
        return alive[number % len(alive)] if alive else {"id": "none", "pod_name": "none"}

    def _ours(self) -> list[Row]:
        return [item for item in self.sandbox.state()["rents"] if item["idempotency_key"] is not None]

    def _rows(self) -> list[Row]:
        if not self.ledger.exists():
            return []
        connection = sqlite3.connect(self.ledger)
        connection.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in connection.execute("SELECT * FROM rentals")]
        except sqlite3.OperationalError:  # its table is not made yet
            return []
        finally:
            connection.close()


def is_alive(pod: Row) -> bool:
    return pod["removed_at"] is None and pod["status"] not in {"DELETING", "CREATION_FAILED"}


def instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def hours_left(pod: Row, now: datetime) -> float | None:
    if pod["termination_hours"] is not None:
        return float(pod["termination_hours"])
    if pod["removal_scheduled_at"] is None:
        return None
    return max((instant(pod["removal_scheduled_at"]) - now).total_seconds() / 3600, 0)


def cheapest(sandbox: Sandbox) -> str:
    free = [node for node in sandbox.state()["nodes"] if node["available_gpu_count"]]
    single = [node for node in free if node["min_gpu_count_for_rental"] == 1]
    return str(min(single, key=lambda node: float(node["price_per_gpu"]))["id"])


def test_no_sequence_of_calls_and_faults_breaks_a_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert PUBLIC_KEY in (Path.home() / ".ssh" / "id_ed25519.pub").read_text()
    Machine.home, Machine.steps = tmp_path, Counter()
    with asyncio.Runner() as Machine.runner:
        while True:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=max(STEPS // STEPS_EACH // 4, EXAMPLES),
                    stateful_step_count=STEPS_EACH,
                    deadline=None,
                    database=None,
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
            if Machine.steps["steps"] >= STEPS:
                break
    assert Machine.steps["rents"], "nothing was ever rented"
    assert Machine.steps["struck"], "no fault ever struck"
    with capsys.disabled():
        if STEPS:
            print(*sorted(Machine.steps.items()), sep="\n")  # noqa: T201 - for whoever runs it by hand
