"""Random sequences of calls and faults, and what must hold after each of them whatever happened.

Two accounts with limits of their own, one ledger, and five ways to a server: a process of each account's key, one of a
key that sees its own pods only, and one process that callers of both accounts reach over HTTP. Beside them people act
past them. A step is a call, a turn of the clock, or a fault that waits for the next request. What holds is read from
the sandbox's own record, from what left for Lium, and from the ledger's rows.

Some hundred steps run as a test; this takes 20,000, which is for a quiet hour:
`MACHINE_STEPS=20000 python -m pytest -n0 -s --timeout 7200 tests/faults/test_machine.py`
"""

import asyncio
import os
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from mcp.types import CallToolResult

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY, Sandbox
from tests.faults.fates import CANCELS, KILLS, LISTS, WIRE, Connection, Fate, Fates, Process, Rents
from tests.faults.record import forgotten, hours_left, instant, is_alive, is_open, is_unsettled, rows_of
from tests.harness import PUBLIC_KEY, Mode, text_of
from tests.wires import Row, ask, rent

STEPS: Final = int(os.environ.get("MACHINE_STEPS", "0"))
STEPS_EACH: Final = 40
EXAMPLES: Final = 8
MAX_PODS: Final = 3
MAX_PRICE_USD: Final = 0.8
MAX_BURN_USD: Final = 1.5
BUDGET_USD: Final = 14.0
# A removal may come a minute late, and a price may move between a quote and the rent.
BUDGET_SLACK_USD: Final = 0.5
LIMITS: Final[dict[str, Any]] = {
    "max_pods": MAX_PODS,
    "max_price_per_hour_usd": MAX_PRICE_USD,
    "max_burn_per_hour_usd": MAX_BURN_USD,
    "budget_usd": BUDGET_USD,
}
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
# Answers after which a rent may exist, and those after which it is given back.
GIVEN_BACK: Final = ("dearer_than_allowed", "not_as_asked")
MAY_HAVE_RENTED: Final = ("outcome_unknown", "server_stopping", *GIVEN_BACK)
# While these are armed, lists may lack pods.
DARK: Final = frozenset({"empty_list", "short_list", "unreadable_rows", "late", "appears_late"})
OWN_API_KEY: Final = "sk_own_pods"


@dataclass(frozen=True)
class Way:
    """A way to a server: with whose key, in which protocol era, and whether over HTTP, where all share one process."""

    key: str
    mode: Mode
    over_http: bool = False

    @property
    def account(self) -> str:
        return "Other" if self.key == OTHER_API_KEY else "Sandbox"

    @property
    def sees_all(self) -> bool:
        return self.key != OWN_API_KEY


WAYS: Final = (
    Way(API_KEY, "auto"),
    Way(OWN_API_KEY, "legacy"),
    Way(OTHER_API_KEY, "auto"),
    Way(API_KEY, "auto", over_http=True),
    Way(OTHER_API_KEY, "legacy", over_http=True),
)
ACCOUNTS: Final = {way.key: way.account for way in WAYS}

servers = st.sampled_from([0, 0, 1, 1, 2, 3, 4])
of_one_account = st.sampled_from([0, 1, 3])
pairs = st.sampled_from([(0, 1), (0, 3), (1, 0), (1, 3), (3, 0), (3, 1), (0, 2), (3, 4)])
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
        {"gpu_type": "RTX3090", "hours": 1, "count": 2},
        {"gpu_type": "RTX3090", "hours": 1, "count": 3},
    ]
)


class Machine(RuleBasedStateMachine):
    """The accounts and everybody who acts on them."""

    runner: ClassVar[asyncio.Runner]
    home: ClassVar[Path]
    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        # Within one month, since the budget is a month's.
        self.sandbox = Sandbox(
            seed=7, speed=0, balance_usd=60, start=datetime(2026, 3, 2, 9, 30, tzinfo=UTC), pod_polls_per_minute=10**6
        )
        self.sandbox.add_key(OWN_API_KEY, pod_visibility="own")
        identities = {account["id"]: account["name"] for account in self.sandbox.state("accounts")["accounts"]}
        self.account_names: dict[str, str] = identities
        ledger = self.home / f"machine-{sum(self.steps.values())}.db"
        ledger.unlink(missing_ok=True)
        self.ledger = f"sqlite:///{ledger}"
        self.rents = Rents(
            self.sandbox.clock.now,
            ACCOUNTS,
            lambda key: any(row["idempotency_key"] == key and is_unsettled(row) for row in self._rows()),
            lambda: {row["idempotency_key"] for row in self._rows() if row["status"] == "admitted"},
        )
        self.fates = Fates(self.rents, act_first=self._rival)
        self.processes: dict[str, Process] = {}
        self.connections: dict[int, Connection] = {}
        self.dropped: list[Process] = []
        self.step = 0
        self.calls_that_may_rent: Counter[str] = Counter()
        self.told: set[str] = set()
        self.asked_to_go: set[str] = set()
        self.cancelled: set[str] = set()
        self.scheduled: set[str] = set()
        self.prolonged: set[str] = set()
        self.rivals: dict[str, int] = {}
        # Per account: the step of its newest admission, and whether everybody who acted in it could see all pods.
        self.admitted: dict[str, tuple[int, bool]] = {}
        self.sees_all = True
        self.seen_keys: set[str] = set()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    async def _connection(self, server: int) -> Connection:
        """A client on the server; connected when it is first needed."""
        if server in self.connections:
            return self.connections[server]
        way = WAYS[server]
        name = "http" if way.over_http else str(server)
        if name not in self.processes:
            self.processes[name] = Process(
                self.sandbox,
                self.fates,
                over_http=way.over_http,
                base_url="http://127.0.0.1/api",
                state_url=self.ledger,
                allow_tools=TOOLS,
                log_level="ERROR",
                **LIMITS,
                **({} if way.over_http else {"api_key": way.key}),
            )
            if way.over_http:
                await self._register_ssh_keys()
        self.connections[server] = await self.processes[name].connect(way.key, way.mode)
        return self.connections[server]

    async def _register_ssh_keys(self) -> None:
        """A caller over HTTP has no key file here."""
        for key in (API_KEY, OTHER_API_KEY):
            with suppress(AssertionError, httpx2.HTTPError):
                await ask(
                    self.sandbox, "POST", "/ssh-keys", {"name": "k", "public_key": PUBLIC_KEY}, **{"X-API-KEY": key}
                )

    async def _call(self, server: int, tool: str, **arguments: Any) -> CallToolResult | None:
        connection = await self._connection(server)
        self.sees_all = self.sees_all and WAYS[server].sees_all and not self._is_dark()
        answer = await connection.call(tool, **arguments)
        if connection.process.died.is_set():
            self._bury(connection.process)
        return answer

    def _bury(self, process: Process) -> None:
        """Let the next call of whoever used a process that died start another."""
        self.processes = {name: other for name, other in self.processes.items() if other is not process}
        self.connections = {server: one for server, one in self.connections.items() if one.process is not process}
        if process not in self.dropped:
            self.dropped.append(process)

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
        kind=st.sampled_from([*WIRE, *CANCELS, *KILLS, "no_pod_id"]),
        where=st.sampled_from(["rent", "rent", "read"]),
        passing=st.integers(0, 4),
    )
    def rent_in_trouble(
        self, server: int, name: str, what: Row, wait: int, kind: Any, where: Any, passing: int
    ) -> None:
        self._count("rent_in_trouble")
        # By specification the first request is one that only asks for the price.
        where = "rent" if kind == "no_pod_id" else where
        passing = min(passing, 1) if where == "rent" else passing
        self.fates.pending.append(Fate(kind, where, passing))
        self.run(self._rent(server, name, what, wait))

    @rule(
        one=of_one_account,
        other=st.sampled_from([0, 1, 3, 4]),
        name=names,
        other_name=names,
        what=requests,
        kind=st.sampled_from(["fail_after_work", "lose_answer", "no_pod_id", "lose_request", "kill_after"]),
        dark=st.sampled_from(["empty_list", "short_list", "unreadable_rows"]),
    )
    def rent_in_the_dark(
        self, one: int, other: int, name: str, other_name: str, what: Row, kind: Any, dark: str
    ) -> None:
        """A rent is lost, lists are wrong for minutes, and somebody wants the next pod at once."""
        self._count("rent_in_the_dark")
        self.sandbox.add_fault(dark, lasting_seconds=400)
        self.fates.pending.append(Fate(kind, "rent", passing=int("gpu_type" in what)))
        self.run(self._rent(one, name, what, 0))
        self.run(self._rent(other, other_name, what, 0))

    @rule(servers=st.permutations([0, 1, 3]), name=names, what=requests, other=requests, same=st.booleans())
    def rent_twice_at_once(self, servers: list[int], name: str, what: Row, other: Row, same: bool) -> None:
        self._count("rent_twice_at_once")

        async def both() -> None:
            calls = self._rent(servers[0], name, what, 0), self._rent(servers[1], name, what if same else other, 0)
            await asyncio.gather(*calls)

        self.run(both())

    @rule(one=of_one_account, other=of_one_account, name=names, what=requests)
    def call_beside_one_that_is_cancelled(self, one: int, other: int, name: str, what: Row) -> None:
        """Whoever was told of the pod keeps it, whatever becomes of the call that rented it."""
        self._count("call_beside_one_that_is_cancelled")
        what = self._on_a_node(what)

        async def beside() -> None:
            await self._rent(other, name, what, 0)

        self.fates.call_beside = beside
        # While it looks at the pod it rents; before, it may ask about another.
        fate = Fate("call_beside", "pod", after_rents=len(self.rents.sent) + 1)
        self._with(fate, self._rent(one, name, what, 45))

    @rule(pair=pairs, name=names, other_name=names, what=requests, seconds=st.sampled_from([13, 45]))
    def look_at_an_old_list(self, pair: tuple[int, int], name: str, other_name: str, what: Row, seconds: int) -> None:
        """A list is asked for before another server's rent, and answered some time after it."""
        self._count("look_at_an_old_list")
        server, other = pair

        async def meanwhile() -> None:
            await self._rent(other, other_name, what, 0)
            self.sandbox.clock.advance(seconds=seconds)

        self.fates.act_meanwhile = meanwhile
        self._with(Fate("act_meanwhile", "list"), self._rent(server, name, what, 0))

    def _with(self, fate: Fate, work: Any) -> None:
        """Do something with a fate in store that is for nobody else."""
        self.fates.pending.append(fate)
        self.run(work)
        self.fates.pending = [other for other in self.fates.pending if other is not fate]

    def _on_a_node(self, what: Row) -> Row:
        return what | {"executor_id": cheapest(self.sandbox)} if what.get("executor_id") == "cheapest" else what

    async def _rent(self, server: int, name: str, what: Row, wait: int) -> None:
        what, start = self._on_a_node(what), len(self.rents.sent)
        way = WAYS[server]
        answer: CallToolResult | None = None
        count = what.get("count", 1)
        names = {name} if count == 1 else {f"{name}-{number}" for number in range(1, count + 1)}
        self.calls_that_may_rent[way.account] += count  # unless its answer says otherwise
        try:
            answer = await self._call(server, "rent_pod", name=name, wait_seconds=wait, **what)
        finally:
            if answer is None:  # the client gave up, or the server died
                # What this very call sent, as far as one can tell.
                own = {sent.key for sent in self.rents.sent[start:] if sent.caller == way.key}
                own -= {sent.key for sent in self.rents.sent[:start]}
                own &= {row["idempotency_key"] for row in self._rows() if row["pod_name"] in names}
                self.cancelled |= own
        if answer is None:
            return
        self._answered(answer)
        if not answer.is_error:
            content = answer.structured_content or {}
            for told in content.get("pods", [content]):
                self._told_of(way, told)
            return
        text = text_of(answer)
        if not any(f"code: {code}" in text for code in MAY_HAVE_RENTED):
            self.calls_that_may_rent[way.account] -= count
        if any(f"code: {code}" in text for code in GIVEN_BACK):
            self.cancelled |= {row["idempotency_key"] for row in self._rows() if row["pod_name"] in names}

    def _told_of(self, way: Way, told: Row) -> None:
        """What an answer says of one pod."""
        code = told.get("code")
        if told.get("already_rented", False) or (code is not None and code not in MAY_HAVE_RENTED):
            self.calls_that_may_rent[way.account] -= 1
        if code in GIVEN_BACK:
            self.cancelled |= {row["idempotency_key"] for row in self._rows() if row["pod_name"] == told["name"]}
        elif "pod_id" in told:
            self.told.add(told["pod_id"])

    @rule(server=servers, pod=st.integers(0, 5), by_name=st.booleans(), wait=waits)
    def remove(self, server: int, pod: int, by_name: bool, wait: int) -> None:
        self._count("remove")
        target = self._target(pod)
        named = target["pod_name"] if by_name else target["id"]
        # By name: whichever has it when the call arrives.
        self.asked_to_go |= {
            row["id"] for row in self._alive() if named in {row["id"], row["pod_name"]} and self._sees(server, row)
        }
        self._do(server, "remove_pod", pod=named, wait_seconds=wait)

    @rule(server=servers, pod=st.integers(0, 5), hours=st.sampled_from([0.05, 0.5, 3, 30]))
    def schedule(self, server: int, pod: int, hours: float) -> None:
        self._count("schedule")
        target = self._target(pod)
        if self._sees(server, target):
            self.scheduled.add(target["id"])
        self._do(server, "schedule_pod_removal", pod=target["id"], hours_from_now=hours)

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
        is_dark = self._is_dark()
        answer = self._do(server, "list_pods", limit=100)
        if answer is None or answer.is_error:
            return
        listed = {row["pod_id"] for row in (answer.structured_content or {})["pods"]}
        pods = self.sandbox.state("pods")["pods"]
        visible = [pod for pod in pods if self._sees(server, pod)]
        others = {pod["id"] for pod in pods} - {pod["id"] for pod in visible}
        assert not listed & others, "a pod of somebody else is shown"
        if not is_dark:
            billing = {pod["id"] for pod in visible if is_alive(pod) and pod["status"] != "PENDING"}
            assert billing <= listed, "a pod bills and is not shown"

    # What goes wrong, and what others do.

    @rule(
        kind=st.sampled_from([*WIRE, *CANCELS, *KILLS, "no_pod_id"]),
        where=st.sampled_from(["rent", "rent", "change", "read"]),
        passing=st.integers(0, 3),
        times=st.integers(1, 4),
    )
    def arm(self, kind: Any, where: Any, passing: int, times: int) -> None:
        self._count(f"arm_{kind}")
        where = "rent" if kind == "no_pod_id" else where
        self.fates.pending.append(Fate(kind, where, passing, 1 if kind in (*CANCELS, *KILLS) else times))

    @rule(kind=st.sampled_from(LISTS), passing=st.integers(0, 2), times=st.integers(1, 6))
    def arm_a_wrong_list(self, kind: Any, passing: int, times: int) -> None:
        self._count(f"arm_{kind}")
        self.fates.pending.append(Fate(kind, "list", passing, times))

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
                {"kind": "delete_slow", "seconds": 200},
                {"kind": "appears_late", "seconds": 25},
                {"kind": "appears_late", "seconds": 25, "listed": False},
                {"kind": "rent_crash", "rented": True},
                {"kind": "rent_crash", "rented": False},
                {"kind": "empty_list", "lasting_seconds": 200},
                {"kind": "short_list", "lasting_seconds": 200, "share": 0.5},
                {"kind": "unreadable_rows", "lasting_seconds": 200, "share": 0.5},
                {"kind": "spelled_otherwise", "lasting_seconds": 200, "share": 0.5},
                {"kind": "missing_fields", "lasting_seconds": 200, "share": 0.5},
                {"kind": "error", "status": 503, "lasting_seconds": 90, "match": {"path": "/users/me"}},
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
            process = (await self._connection(server)).process
            await process.drop()
            self._bury(process)

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
        if target := self._running(pod):
            self.asked_to_go.add(target["id"])
            self._ask_as_owner(target, "DELETE", "")

    @rule(pod=st.integers(0, 5), hours=st.sampled_from([0.2, 9, 40]))
    def person_chooses_another_end(self, pod: int, hours: float) -> None:
        self._count("person_chooses_another_end")
        if target := self._running(pod):
            self.prolonged.add(target["id"])
            self.scheduled.add(target["id"])
            when = self.sandbox.clock.now() + timedelta(hours=hours)
            self._ask_as_owner(target, "POST", "/schedule-removal", {"removal_scheduled_at": when.isoformat()})

    def _running(self, number: int) -> Row | None:
        running = [row for row in self._alive() if row["status"] == "RUNNING"]
        return running[number % len(running)] if running else None

    def _ask_as_owner(self, pod: Row, method: str, path: str, body: Row | None = None) -> None:
        key = OTHER_API_KEY if self._account(pod) == "Other" else API_KEY
        with suppress(AssertionError, httpx2.HTTPError):
            self.run(ask(self.sandbox, method, f"/pods/{pod['id']}{path}", body, **{"X-API-KEY": key}))

    # What must hold.

    @invariant()
    def nothing_left_that_may_not(self) -> None:
        assert not self.rents.wrongs, self.rents.wrongs

    @invariant()
    def nothing_is_rented_twice(self) -> None:
        keys = Counter(item["idempotency_key"] for item in self._ours())
        assert all(count == 1 for count in keys.values()), "one request was carried out twice"
        rented = Counter(self._account(item) for item in self._ours())
        for account, count in rented.items():
            assert count <= self.calls_that_may_rent[account], "more rents than calls that may have rented"
        alive = Counter((self._account(pod), pod["pod_name"]) for pod in self._alive() if pod["id"] not in self.rivals)
        assert all(count == 1 for count in alive.values()), f"two pods for one name: {alive}"

    @invariant()
    def the_limits_hold(self) -> None:
        for key in {sent.key for sent in self.rents.sent} - self.seen_keys:
            self.seen_keys.add(key)
            self.admitted[self.rents.account_of(key)] = (self.step, self.sees_all)
        self.sees_all = True
        for account in ("Sandbox", "Other"):
            newest, saw_all = self.admitted.get(account, (0, True))
            alive = [pod for pod in self._alive() if self._account(pod) == account]
            # A rival who came after the last admission, or whom it could not see, was not there to be counted.
            counted = [
                pod for pod in alive if pod["id"] not in self.rivals or (saw_all and self.rivals[pod["id"]] < newest)
            ]
            ours = [pod for pod in alive if pod["id"] not in self.rivals]
            if not ours:
                continue
            assert len(counted) <= MAX_PODS, "too many pods"
            burn = sum(float(pod["price"]) for pod in counted)
            assert burn <= MAX_BURN_USD + 0.001, f"they burn ${burn} an hour"
            assert all(float(pod["price"]) <= MAX_PRICE_USD + 0.001 for pod in ours), "one is too dear"

    @invariant()
    def the_budget_holds(self) -> None:
        state = self.sandbox.state("pods", "now")
        now = datetime.fromisoformat(state["now"])
        totals: Counter[str] = Counter()
        for pod in state["pods"]:
            # What a person chose at Lium is on the person.
            if pod["id"] in self.rivals or pod["id"] in self.prolonged:
                continue
            total = pod["charged_usd"]
            if is_alive(pod):
                left = hours_left(pod, now)
                assert left is not None, f"{pod['pod_name']} lives for ever"
                total += float(pod["price"]) * left
            totals[self._account(pod)] += total
        for total in totals.values():
            assert total <= BUDGET_USD + BUDGET_SLACK_USD, f"${total} are spent and committed"

    @invariant()
    def no_pod_is_forgotten(self) -> None:
        lost = [pod["pod_name"] for pod in forgotten(self.sandbox, self._rows())]
        assert not lost, f"{lost} live, and no open row of the ledger knows of them"

    @invariant()
    def nothing_goes_that_nobody_asked_to_go(self) -> None:
        state = self.sandbox.state("pods", "rents")
        keys = {item["pod_id"]: item["idempotency_key"] for item in state["rents"]}
        for pod in state["pods"]:
            reason = pod["close_reason"]
            if reason is None or reason in BY_LIUM:
                continue
            if keys[pod["id"]] in self.cancelled and pod["id"] not in self.told:
                continue
            if reason == "user_initiated":
                assert pod["id"] in self.asked_to_go, f"{pod['pod_name']} was removed"
            else:
                assert reason == "scheduled_termination", reason
                assert pod["id"] in self.scheduled or self._was_due(pod), f"{pod['pod_name']} went early"

    def _was_due(self, pod: Row) -> bool:
        hours = 5.0 if pod["id"] in self.rivals else self._hours_of(pod["id"])
        gone_at = datetime.fromisoformat(pod["removed_at"] or self.sandbox.state("now")["now"])
        return gone_at - instant(pod["created_at"]) >= timedelta(hours=hours) - timedelta(seconds=5)

    def _hours_of(self, pod_id: str) -> float:
        key = next(item["idempotency_key"] for item in self._ours() if item["pod_id"] == pod_id)
        return float(next(row["hours"] for row in self._rows() if row["idempotency_key"] == key))

    @invariant()
    def accounts_stay_apart(self) -> None:
        tags: dict[str, set[str]] = {"Sandbox": set(), "Other": set()}
        for row in self._rows():
            if row["idempotency_key"] in self.seen_keys:
                tags[self.rents.account_of(row["idempotency_key"])].add(row["account"])
        assert not tags["Sandbox"] & tags["Other"], "two accounts share rows"

    def teardown(self) -> None:
        try:
            if self.step and sys.exc_info()[0] is None:  # what broke is not to be hidden by what follows from it
                self._settle_down()
        finally:
            for process in (*self.processes.values(), *self.dropped):
                self.run(process.close())

    def _settle_down(self) -> None:
        """Once the API answers again, everything is settled, and the ledger and Lium agree."""
        self.fates.pending.clear()
        self.sandbox.clear_faults()
        self.sandbox.clock.advance(minutes=6)
        answers: dict[int, CallToolResult | None] = {}
        fresh: list[Row] = []
        alive: list[Row] = []
        known: list[str] = []
        ours: list[str] = []
        for _ in range(8):
            answers = {server: self._do(server, "list_pods", limit=100) for server in (0, 1, 2)}
            now = self.sandbox.clock.now()
            fresh = [row for row in self._rows() if is_open(row) and now - row["created_at"] < timedelta(hours=23)]
            alive = self._alive()
            known = sorted(pod_id for row in self._rows() if is_open(row) for pod_id in row["pod_ids"])
            ours = sorted({pod["id"] for pod in alive} - set(self.rivals))
            # What one server settles, another may have listed before.
            are_listed = all(
                self._lists(answers[server], account) for server, account in ((0, "Sandbox"), (2, "Other"))
            )
            if {row["status"] for row in fresh} <= {"rented"} and known == ours and are_listed:
                break
            self.sandbox.clock.advance(minutes=2)
        assert {row["status"] for row in fresh} <= {"rented"}, fresh
        assert known == ours, f"the ledger and Lium do not agree: {[row for row in self._rows() if is_open(row)]}"
        for server, account in ((0, "Sandbox"), (2, "Other")):
            answer = answers[server]
            assert answer is not None
            assert not answer.is_error, text_of(answer)
            assert self._lists(answer, account), text_of(answer)
        self.nothing_left_that_may_not()
        self.nothing_is_rented_twice()
        self.the_limits_hold()
        self.no_pod_is_forgotten()
        self.nothing_goes_that_nobody_asked_to_go()
        self.steps["struck"] += sum(self.fates.struck.values())
        self.steps["rents"] += len(self._ours())
        self.steps["requests of rents"] += len(self.rents.sent)
        self.steps["examples"] += 1

    # Looking.

    def _lists(self, answer: CallToolResult | None, account: str) -> bool:
        """Whether an answer of list_pods has what lives of an account, and nothing else."""
        content = (answer.structured_content or {}) if answer is not None else {}
        living = {pod["id"] for pod in self._alive() if self._account(pod) == account}
        return living == {row["pod_id"] for row in content.get("pods", ()) if row["status"] != "CREATION_FAILED"}

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

    def _account(self, record: Row) -> str:
        """Whose pod or rent of the sandbox's record this is."""
        return self.account_names[record["account_id"]]

    def _sees(self, server: int, pod: Row) -> bool:
        way = WAYS[server]
        if "account_id" not in pod or self._account(pod) != way.account:
            return False
        return way.sees_all or pod["api_key_name"] == OWN_API_KEY.removeprefix("sk_")

    def _is_dark(self) -> bool:
        """Whether lists may lack pods: they are wrong, or a pod is so new that it is not shown yet."""
        state = self.sandbox.state("pods", "faults")
        since = self.sandbox.clock.now() - timedelta(seconds=60)
        return (
            any(fate.kind in (*LISTS, "act_meanwhile") for fate in self.fates.pending)
            or any(fault["kind"] in DARK for fault in state["faults"])
            or any(instant(pod["created_at"]) > since for pod in state["pods"])
        )

    def _alive(self) -> list[Row]:
        return [pod for pod in self.sandbox.state("pods")["pods"] if is_alive(pod)]

    def _target(self, number: int) -> Row:
        alive = self._alive()
        return alive[number % len(alive)] if alive else {"id": "none", "pod_name": "none"}

    def _ours(self) -> list[Row]:
        return [item for item in self.sandbox.state("rents")["rents"] if item["idempotency_key"] is not None]

    def _rows(self) -> list[Row]:
        return rows_of(self.ledger)


def cheapest(sandbox: Sandbox) -> str:
    free = [node for node in sandbox.state("nodes")["nodes"] if node["available_gpu_count"]]
    single = [node for node in free if node["min_gpu_count_for_rental"] == 1]
    return str(min(single, key=lambda node: float(node["price_per_gpu"]))["id"])


@pytest.mark.timeout(0 if STEPS else 600)  # what fails is made as short as it can be, which takes minutes
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
                    derandomize=not STEPS,
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
