"""The person's word: what is asked, and that nothing but a clear yes to just that does anything, in both eras.

Everything goes through an MCP client that can ask; the sandbox's own record says what was done.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult

from lium_mcp.guard.confirm import ANSWER_SECONDS
from lium_mcp.sandbox import API_KEY, OTHER_API_KEY, Sandbox
from lium_mcp.server import build_server
from lium_mcp.settings import Settings
from lium_mcp.toolkit.listing import read_listing
from lium_mcp.tools.catalog import find_spec
from tests.compat.simulated import simulating
from tests.faults.virtual_time import LoopClock, run_virtually
from tests.harness import PUBLIC_KEY, Agent, Answer, Mode, Person, agent_on, text_of
from tests.http_server import serving as serving_http
from tests.processes import serving as serving_stdio
from tests.wires import Row, Wire, ask, editing, eventually, living, make_template, rent, rent_scheduled, rents, truth

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
UNASKED: dict[str, str] = {
    "run_command": "an agent works by it, many times a minute: nobody would read the questions",
    "stop_job": "ends what the agent started itself; files and output stay",
    "upload_files": "replaces files in a pod, which a command can as well",
}
"""Tools with the destructive hint that need no question, and why not."""

RENT: Row = {"name": "new", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(seed=7, speed=0, balance_usd=5000)


def test_whatever_destroys_asks() -> None:
    listed = read_listing()
    assert len(listed) > 40
    for item in listed:
        hints = item.tool.annotations
        assert hints is not None
        asks = find_spec(item.name).asks is not None
        assert not hints.destructive_hint or asks or item.name in UNASKED, item.name
        assert not (asks and hints.read_only_hint), item.name
    assert all(find_spec(name).asks is None for name in UNASKED)
    for name in ("rent_pod", "rent_cluster", "cancel_pod_removal"):  # which spend, and destroy nothing
        assert find_spec(name).asks is not None


# --- every tool that asks --------------------------------------------------------------------------------------------


class Stage:
    """An account that has one of everything, and what a call needs to name it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pod = self.template = self.volume = self.backup = self.key = self.cluster = ""

    async def set_up(self, tool: str) -> None:
        sandbox = self.sandbox
        if "cluster" in tool:
            offers = await ask(sandbox, "GET", "/executors/infiniband-clusters")
            self.nodes = [node["id"] for node in offers[0]["nodes"][:2]]
        if tool == "remove_cluster":
            async with agent_on(sandbox, confirm="never") as agent:
                rented = await agent.call("rent_cluster", name="many", executor_ids=self.nodes)
            self.cluster = rented["cluster_id"]
            sandbox.clock.advance(minutes=2)
        self.pod = self.pod or await rent(sandbox, "train", termination_hours=5)
        if "template" in tool and not self.template:
            self.template = await make_template(sandbox, "mine")
        if "volume" in tool:
            self.volume = (await ask(sandbox, "POST", "/volumes", {"name": "data", "description": ""}))["id"]
        if "backup" in tool or tool in {"remove_pod", "reboot_pod"}:
            async with agent_on(sandbox) as agent:
                made = await agent.call("create_backup", pod="train", wait_seconds=600)
            self.backup = made["backup"]["backup_id"]
        if "ssh" in tool:
            key = {"name": "laptop", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGxpdW0="}
            self.key = (await ask(sandbox, "POST", "/ssh-keys", key))["id"]

    def state(self) -> Any:
        parts = ("rents", "pods", "templates", "volumes", "backup_configs", "backups", "ssh_keys")
        state = self.sandbox.state()
        return [state[part] for part in parts]


Case = tuple[Callable[[Stage], Row], Callable[[Stage], list[str]]]
CASES: dict[str, Case] = {
    "rent_pod": (
        lambda _: RENT,
        lambda _: [
            '"new"',
            "1x RTX4090",
            "at most $0.27 an hour",
            "2 hours after",
            "at most $0.57 in all, even 6 minutes late.",
            "$5000",
            "$4999",
        ],
    ),
    "run_job": (
        lambda _: {
            "name": "fit",
            "command": "true",
            "gpu_type": "RTX4090",
            "max_total_usd": 1,
            "hours": 2,
            "max_hours": 1,
            "then": "remove",
            "wait_seconds": 0,
        },
        lambda _: ['"fit"', "1x RTX4090", "an hour", "2 hours after", "in all", "for good"],
    ),
    "rent_cluster": (
        lambda stage: {"name": "many", "executor_ids": stage.nodes, "hours": 2},
        lambda stage: ['"many"', *stage.nodes, "an hour together", "2 hours after they", "in all", "A second request"],
    ),
    "remove_pod": (
        lambda _: {"pod": "train"},
        lambda stage: [
            stage.pod,
            '"train"',
            "RUNNING",
            "an hour",
            "for good",
            "local volume are lost",
            "last backup is of 20",
        ],
    ),
    "reboot_pod": (
        lambda _: {"pod": "train"},
        lambda stage: [stage.pod, "files outside", "are lost", "last backup is of 20"],
    ),
    "schedule_pod_removal": (
        lambda _: {"pod": "train", "hours_from_now": 1},
        lambda stage: [stage.pod, "in 1 hour?", "It costs $0.", "are lost then", "There is no backup of it."],
    ),
    "cancel_pod_removal": (
        lambda _: {"pod": "train"},
        lambda stage: [stage.pod, "an hour", "bills until somebody removes it"],
    ),
    "switch_pod_template": (
        lambda _: {"pod": "train", "template": "mine"},
        lambda stage: [stage.pod, stage.template, '"mine"', "data in the pod may be lost", "There is no backup of it."],
    ),
    "update_template": (
        lambda _: {"template": "mine", "description": "other"},
        lambda stage: [stage.template, '"mine"', "No pod runs on it"],
    ),
    "delete_template": (lambda _: {"template": "mine"}, lambda stage: [stage.template, '"mine"', "for good"]),
    "delete_volume": (
        lambda _: {"volume": "data"},
        lambda stage: [stage.volume, '"data"', "for good", "All data on it is lost", "Lium has not measured it"],
    ),
    "delete_backup": (
        lambda stage: {"backup_id": stage.backup},
        lambda stage: [stage.backup, " UTC", "for good", "cannot be restored"],
    ),
    "delete_backup_schedule": (
        lambda _: {"pod": "train"},
        lambda stage: [stage.pod, "Stop backing up", "last backup is of 20"],
    ),
    "remove_cluster": (
        lambda stage: {"cluster_id": stage.cluster},
        lambda stage: [stage.cluster, '"many"', "for good", "all data", "an hour"],
    ),
    "delete_ssh_key": (lambda stage: {"key_id": stage.key}, lambda stage: [stage.key, '"laptop"']),
    "reset_pod_gpus": (
        lambda _: {"pod": "train"},
        lambda stage: [stage.pod, "All its processes stop", "files stay"],
    ),
}
every_tool = pytest.mark.parametrize("tool", CASES)


def test_every_tool_that_asks_is_here() -> None:
    # They ask only about what would be lost, or stay.
    elsewhere = {"start_job", "restore_backup", "set_backup_schedule", "create_backup"}
    assert {item.name for item in read_listing() if find_spec(item.name).asks is not None} == {*CASES, *elsewhere}


@both_eras
async def test_a_job_that_ends_its_pod_is_a_question(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "train")
    person = Person("no")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        job = {"pod": "train", "command": "true", "name": "fit"}
        failure = await agent.refused("start_job", **job, then="backup_and_remove")
        assert failure.code == "not_confirmed"
        [question] = person.questions
        for word in (pod_id, "for good", '"fit"', "backed up first", "lost"):
            assert word in question
        for then in ("nothing", "backup"):  # which destroy nothing
            await agent.raw("start_job", **job, then=then)
        assert len(person.questions) == 1
    assert living(sandbox)


async def staged(sandbox: Sandbox, tool: str) -> tuple[Stage, Row, list[str]]:
    stage = Stage(sandbox)
    await stage.set_up(tool)
    make_arguments, make_words = CASES[tool]
    return stage, make_arguments(stage), make_words(stage)


NO: dict[str, Answer] = {
    "no": "no",
    "cancel": "cancel",
    "yes without a tick": {"confirm": False},
    "another form": {"name": "train"},
    "not a truth": {"confirm": "perhaps"},
    "a word for a truth": {"confirm": "true"},
    "a number for a truth": {"confirm": 1},
    "an empty form": {},
}


@both_eras
@every_tool
async def test_nothing_but_a_clear_yes_does_it(sandbox: Sandbox, tool: str, mode: Mode) -> None:
    stage, arguments, words = await staged(sandbox, tool)
    before = stage.state()
    person = Person(*NO.values(), "yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        for number, kind in enumerate(NO, 1):
            failure = await agent.refused(tool, **arguments)
            assert failure.code == "not_confirmed", f"{kind}: {failure.text}"
            assert "Nothing was changed." in failure.text, kind
            assert len(person.questions) == number, kind
            assert stage.state() == before, kind
        await agent.call(tool, **arguments)
        if tool == "reset_pod_gpus":
            assert any(request["path"].endswith("/reset-gpu") for request in truth(sandbox, "requests"))
        else:
            await eventually(lambda: stage.state() != before)  # what a run begins with is done after its answer
    question = person.questions[-1]
    assert [word for word in words if word not in question] == [], question
    assert len(question) < 470
    assert len(set(person.questions)) == 1


@both_eras
@pytest.mark.parametrize("tool", ["rent_pod", "remove_pod"])
async def test_a_client_that_fails_to_ask_changes_nothing(sandbox: Sandbox, tool: str, mode: Mode) -> None:
    stage, arguments, _ = await staged(sandbox, tool)
    before = stage.state()
    async with agent_on(sandbox, mode=mode, person=Person("an error of the client")) as agent:
        if mode == "legacy":
            failure = await agent.refused(tool, **arguments)
            assert failure.code == "not_confirmed"
            assert_maybe_unseen(failure.text)
        else:  # the server hears nothing of it
            with pytest.raises(MCPError):
                await agent.raw(tool, **arguments)
    assert stage.state() == before


def assert_maybe_unseen(text: str) -> None:
    assert "the person may not have seen it" in text
    assert "LIUM_MCP_CONFIRM=never" in text
    assert "Nothing was changed." in text


@both_eras
@pytest.mark.parametrize("answer", ["no", "cancel", {"confirm": False}])
def test_a_no_that_comes_faster_than_anybody_reads_may_be_the_clients_own(mode: Mode, answer: Answer) -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=5000)
    thinks_seconds = 0.0

    async def think() -> None:
        await anyio.sleep(thinks_seconds)

    async def run() -> None:
        nonlocal thinks_seconds
        async with agent_on(sandbox, mode=mode, person=Person(answer, meanwhile=think)) as agent:
            assert_maybe_unseen((await agent.refused("rent_pod", **RENT)).text)
            thinks_seconds = 0.6
            of_a_person = (await agent.refused("rent_pod", **RENT)).text
            assert "the person may not have seen it" not in of_a_person
            assert "LIUM_MCP_CONFIRM" not in of_a_person
        assert rents(sandbox) == []

    run_virtually(run())


@pytest.mark.parametrize("tool", ["rent_pod", "remove_pod"])
def test_no_answer_in_time_changes_nothing(tool: str) -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=5000)

    async def run() -> None:
        stage, arguments, _ = await staged(sandbox, tool)
        before = stage.state()
        # The harness turns the sandbox's clock; here it is the loop's time that jumps.
        settings = Settings(
            api_key=API_KEY,
            base_url="http://127.0.0.1/api",
            allow_tools=tool,
            state_url="sqlite://",
            log_level="ERROR",
        )
        server = build_server(settings, transport=sandbox.transport(), clock=LoopClock())
        async with Client(server, mode="legacy", elicitation_callback=Person(None)) as client:
            begun = anyio.current_time()
            result = await client.call_tool(tool, arguments)
            assert anyio.current_time() - begun == pytest.approx(ANSWER_SECONDS, abs=5)
        assert "code: not_confirmed" in text_of(result)
        assert "within 5 minutes" in text_of(result)
        assert stage.state() == before

    run_virtually(run())


@both_eras
@pytest.mark.parametrize("tool", ["rent_pod", "remove_pod"])
async def test_a_client_that_leaves_before_the_answer_changes_nothing(sandbox: Sandbox, tool: str, mode: Mode) -> None:
    stage, arguments, _ = await staged(sandbox, tool)
    before = stage.state()
    asked = anyio.Event()

    async def leave() -> None:
        asked.set()
        await anyio.sleep_forever()

    async with agent_on(sandbox, mode=mode, person=Person("yes", meanwhile=leave)) as agent:
        async with anyio.create_task_group() as group:
            group.start_soon(partial(agent.raw, tool, **arguments))
            await asked.wait()
            group.cancel_scope.cancel()
        await agent.call("list_pods")
    assert stage.state() == before


# --- what changes between question and answer ------------------------------------------------------------------------


async def replace_pod(sandbox: Sandbox, pod_id: str) -> None:
    await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    sandbox.clock.advance(minutes=1)
    await rent(sandbox, "train", termination_hours=9)


@both_eras
@pytest.mark.parametrize(
    "tool", ["remove_pod", "reboot_pod", "schedule_pod_removal", "cancel_pod_removal", "switch_pod_template"]
)
async def test_another_pod_of_the_name_is_not_touched(sandbox: Sandbox, tool: str, mode: Mode) -> None:
    stage, arguments, _ = await staged(sandbox, tool)
    person = Person("yes", "no", meanwhile=partial(_once(replace_pod), sandbox, stage.pod))
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        result = await agent.raw(tool, **arguments)
    assert result.is_error
    assert "code: changed_meanwhile" in text_of(result) or "code: not_confirmed" in text_of(result)
    [pod] = living(sandbox)
    assert pod["id"] != stage.pod
    assert pod["status"] == "RUNNING"
    assert pod["removal_scheduled_at"] is not None
    if mode == "auto":  # asked again, about the pod that has the name now
        assert stage.pod in person.questions[0]
        assert pod["id"] in person.questions[1]


def _once(action: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    done: list[bool] = []

    async def once(*arguments: Any) -> None:
        if not done:
            done.append(True)
            await action(*arguments)

    return once


@both_eras
async def test_a_pod_that_comes_to_be_hit_while_the_person_reads_is_asked_about(sandbox: Sandbox, mode: Mode) -> None:
    template = await make_template(sandbox, "mine")
    victim = partial(_once(partial(rent, template_id=template)), sandbox, "important")
    person = Person("yes", "no", meanwhile=victim)
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        failure = await agent.refused("update_template", template="mine", startup_commands="true", wait_seconds=0)
    assert "No pod runs on it" in person.questions[0]
    assert failure.code == ("changed_meanwhile" if mode == "legacy" else "not_confirmed")
    assert mode == "legacy" or '"important"' in person.questions[1]
    assert [pod["status"] for pod in living(sandbox)] == ["RUNNING"]


# --- the last backup before a removal --------------------------------------------------------------------------------

FINAL: Row = {"pod": "train", "final_backup": True}


@both_eras
async def test_a_part_of_the_volume_is_no_last_backup_and_no_question(sandbox: Sandbox, mode: Mode) -> None:
    await rent_scheduled(sandbox, "train", backup_path="/root/logs")
    person = Person("yes")
    job = {"pod": "train", "command": "true", "name": "fit", "then": "backup_and_remove"}
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        for tool, arguments in (("remove_pod", FINAL), ("start_job", job)):
            failure = await agent.refused(tool, **arguments)
            assert failure.code == "backup_partial"
            assert "only /root/logs" in failure.text
            assert "path=/root," in failure.text
        assert person.questions == []
        await agent.call("set_backup_schedule", pod="train", path="/root/")
        await agent.call("remove_pod", **FINAL, wait_seconds=600)
    [backup] = truth(sandbox, "backups")
    assert (backup["status"], backup["path"]) == ("COMPLETED", "/root")
    assert "Its local volume is backed up first" in person.questions[0]
    assert living(sandbox) == []


@both_eras
async def test_a_question_says_which_part_the_backups_hold(sandbox: Sandbox, mode: Mode) -> None:
    await rent_scheduled(sandbox, "train", backup_path="/root/logs")
    person = Person("no")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        await agent.call("create_backup", pod="train", wait_seconds=600)
        await agent.refused("remove_pod", pod="train")
    assert person.questions[0].endswith('Its backups hold only "/root/logs".')


@both_eras
async def test_each_call_that_removes_after_a_last_backup_is_asked(sandbox: Sandbox, mode: Mode) -> None:
    await rent(sandbox, "train")
    person = Person("yes", "no", "yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        first = await agent.call("remove_pod", **FINAL, wait_seconds=0)
        sandbox.clock.advance(minutes=5)
        assert (await agent.refused("remove_pod", **FINAL)).code == "not_confirmed"
        assert living(sandbox)
        removed = await agent.call("remove_pod", **FINAL, wait_seconds=60)
    assert removed["backup_id"] == first["backup_id"]
    for question in person.questions[1:]:
        assert "It goes when its last backup, begun 20" in question
        assert "What was written since" in question
    assert living(sandbox) == []


@both_eras
async def test_a_last_backup_that_is_old_by_now_is_taken_again(sandbox: Sandbox, mode: Mode) -> None:
    await rent(sandbox, "train")
    person = Person("yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        first = await agent.call("remove_pod", **FINAL, wait_seconds=0)
        await agent.clock.sleep(20 * 60)
        second = await agent.call("remove_pod", **FINAL, wait_seconds=600)
    assert second["backup_id"] != first["backup_id"]
    assert person.questions[0] == person.questions[1]


@both_eras
async def test_a_last_backup_may_be_waited_for_longer_than_it_counts(sandbox: Sandbox, mode: Mode) -> None:
    await rent(sandbox, "train")
    wire, slow = Wire(sandbox), [True]

    def hold(row: Row) -> Row:
        return row | {"status": "IN_PROGRESS", "completed_at": None} if slow[0] else row

    wire.on("GET", "/backup-logs/*", editing(hold))
    async with agent_on(sandbox, mode=mode, person=Person("yes"), transport=wire) as agent:
        first = await agent.call("remove_pod", **FINAL, wait_seconds=0)
        for _ in range(6):
            again = await agent.call("remove_pod", **FINAL, wait_seconds=600)
            assert (again["outcome"], again["backup_id"]) == ("pending", first["backup_id"])
    assert len(truth(sandbox, "backups")) == 1
    assert living(sandbox)


@both_eras
async def test_a_removal_goes_on_for_the_pod_in_the_question_alone(sandbox: Sandbox, mode: Mode) -> None:
    pod_id, wire = await rent(sandbox, "train"), Wire(sandbox)
    looks = [0]

    async def swap(request: httpx2.Request, forward: Any) -> Any:
        looks[0] += 1
        if looks[0] == 2:
            sandbox.clock.advance(minutes=4)
            await replace_pod(sandbox, pod_id)
        return await forward(request)

    person = Person("yes", "yes", "no")
    async with agent_on(sandbox, mode=mode, person=person, transport=wire) as agent:
        await agent.call("remove_pod", **FINAL, wait_seconds=0)
        wire.on("GET", "/pods", swap)
        await agent.refused("remove_pod", **FINAL, wait_seconds=600)
    assert pod_id in person.questions[1]
    [other] = living(sandbox)
    assert (other["id"] != pod_id, other["status"]) == (True, "RUNNING")


@both_eras
async def test_a_backup_that_runs_is_named_before_it_is_lost(sandbox: Sandbox, mode: Mode) -> None:
    await rent(sandbox, "train")
    person = Person("yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        begun = await agent.call("remove_pod", **FINAL, wait_seconds=0)
        removed = await agent.call("remove_pod", pod="train")
    assert "A backup of it is running, and would be lost" in person.questions[1]
    assert removed["next"] == f"Backup {begun['backup_id']} was running and is lost."
    assert living(sandbox) == []


async def test_a_backup_that_begins_after_the_answer_is_not_lost(sandbox: Sandbox) -> None:
    await rent_scheduled(sandbox, "train")
    person, wire, looks = Person("yes"), Wire(sandbox), [0]

    def first_none(body: Any) -> Any:
        looks[0] += 1
        return body | {"items": [], "total": 0} if looks[0] <= 2 else body

    async with agent_on(sandbox, mode="auto", person=person, transport=wire) as agent:
        await agent.call("create_backup", pod="train", wait_seconds=0)
        wire.on("GET", "/backup-logs/pod/*", editing(first_none))
        refused = await agent.refused("remove_pod", pod="train")
    assert "There is no backup of it" in person.questions[0]
    assert refused.code == "backup_running"
    assert len(living(sandbox)) == 1


class Market:
    """A wire on which every price is multiplied by a factor."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.factor = 1.0
        self.wire = Wire(sandbox)
        self.wire.on("GET", "/executors/*/quote", editing(self.scaled))
        self.wire.on("GET", "/executors", editing(self.scaled))
        self.wire.on("POST", "/executors/rent-by-spec", editing(self.scaled))

    async def set(self, factor: float) -> None:
        self.factor = factor

    def scaled(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.scaled(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            name: item * self.factor
            if name in {"price_per_hour", "price_per_gpu"} and isinstance(item, float)
            else self.scaled(item)
            for name, item in value.items()
        }


async def ways(sandbox: Sandbox) -> dict[str, Row]:
    nodes = await ask(sandbox, "GET", "/executors?view=summary")
    node = next(row for row in nodes if "4090" in row["machine_name"] and row.get("min_gpu_count_for_rental") == 1)
    return {"by spec": RENT, "by node": RENT | {"gpu_type": "", "executor_id": node["id"]}}


@both_eras
@pytest.mark.parametrize("way", ["by spec", "by node"])
async def test_a_price_that_rose_is_not_agreed_to(sandbox: Sandbox, way: str, mode: Mode) -> None:
    market = Market(sandbox)
    person = Person("yes", "no", meanwhile=partial(market.set, 3.0))
    async with agent_on(sandbox, mode=mode, person=person, transport=market.wire) as agent:
        failure = await agent.refused("rent_pod", **(await ways(sandbox))[way])
    assert failure.code == ("price_changed" if mode == "legacy" else "not_confirmed")
    assert rents(sandbox) == []
    if mode == "auto":
        assert len(person.questions) == 2
        assert person.questions[0] != person.questions[1]


@both_eras
@pytest.mark.parametrize("way", ["by spec", "by node"])
async def test_a_price_that_rises_in_the_moment_of_the_rent_is_not_paid(sandbox: Sandbox, way: str, mode: Mode) -> None:
    """The price is asked for before the question and after the answer, and what comes out is held against the yes."""
    market = Market(sandbox)
    market.wire.on("GET", "/pods/*", editing(lambda row: row | {"price": row["price"] * 3}))
    async with agent_on(sandbox, mode=mode, person=Person("yes"), transport=market.wire) as agent:
        failure = await agent.refused("rent_pod", **(await ways(sandbox))[way])
        assert failure.code == "dearer_than_allowed"
        sandbox.clock.advance(minutes=10)  # one that starts cannot be removed yet
        await agent.call("list_pods")
    assert living(sandbox) == []
    prices = market.wire.sent("GET", "/executors/*/quote") + market.wire.sent("POST", "/executors/rent-by-spec")
    asked = [item for item in prices if b'"dry_run":false' not in item.content.replace(b" ", b"")]
    assert len(asked) == 3  # before the question also for what the balance has to bear


@both_eras
@pytest.mark.parametrize("way", ["by spec", "by node"])
async def test_a_price_that_moves_within_a_cent_is_asked_about_once(sandbox: Sandbox, way: str, mode: Mode) -> None:
    market = Market(sandbox)  # $0.268 an hour
    person = Person("yes", meanwhile=partial(market.set, 1.004))
    async with agent_on(sandbox, mode=mode, person=person, transport=market.wire) as agent:
        await agent.call("rent_pod", **(await ways(sandbox))[way])
    assert len(person.questions) == 1
    assert len(rents(sandbox)) == 1


@both_eras
async def test_in_a_market_that_runs_the_questions_end(mode: Mode) -> None:
    """Other pods bill, prices step every ten minutes, and the person takes four minutes for each answer."""
    sandbox = Sandbox(seed=7, speed=0, balance_usd=5000)
    await rent(sandbox, "other")

    async def think() -> None:
        sandbox.clock.advance(minutes=4)

    person = Person("yes", meanwhile=think)
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        for number in range(12):
            asked = len(person.questions)
            result = await agent.raw("rent_pod", **(RENT | {"name": f"p{number}"}))
            assert len(person.questions) - asked <= 3
            assert not result.is_error or mode == "legacy", text_of(result)
    assert len(rents(sandbox)) >= 8


@both_eras
async def test_what_the_limits_refuse_is_not_asked(sandbox: Sandbox, mode: Mode) -> None:
    person = Person("yes")
    async with agent_on(sandbox, mode=mode, person=person, max_pods=0) as agent:
        failure = await agent.refused("rent_pod", **RENT)
    assert failure.code == "policy_refused"
    assert person.questions == []


@both_eras
async def test_a_pod_that_was_rented_already_is_no_question(sandbox: Sandbox, mode: Mode) -> None:
    person = Person("yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        rented = await agent.call("rent_pod", **RENT)
        again = await agent.call("rent_pod", **RENT)
    assert again["already_rented"]
    assert again["pod_id"] == rented["pod_id"]
    assert len(person.questions) == 1


@both_eras
async def test_a_pod_that_goes_in_the_moment_when_nothing_is_asked_is_not_rented_unasked(
    sandbox: Sandbox, mode: Mode
) -> None:
    wire, person = Wire(sandbox), Person("yes")
    gone = [0]

    async def vanish(request: httpx2.Request, forward: Any) -> httpx2.Response:
        gone[0] += 1
        if gone[0] == 2:  # the question saw it, the tool does not
            [pod] = living(sandbox)
            await ask(sandbox, "DELETE", f"/pods/{pod['id']}")
        response: httpx2.Response = await forward(request)
        return response

    async with agent_on(sandbox, mode=mode, person=person, transport=wire) as agent:
        await agent.call("rent_pod", **RENT)
        sandbox.clock.advance(minutes=5)
        wire.on("GET", "/pods", vanish)
        failure = await agent.refused("rent_pod", **RENT)
    assert failure.code == "changed_meanwhile"
    assert len(person.questions) == len(rents(sandbox)) == 1


# --- who can be asked ------------------------------------------------------------------------------------------------


@both_eras
async def test_always_refuses_where_nobody_can_be_asked(sandbox: Sandbox, mode: Mode) -> None:
    stage = Stage(sandbox)
    for tool in CASES:
        if "cluster" not in tool:
            await stage.set_up(tool)
    before = stage.state()
    tools = frozenset(CASES) - {"rent_cluster", "remove_cluster"}
    async with agent_on(sandbox, mode=mode, confirm="always") as agent:
        for tool in sorted(tools):
            failure = await agent.refused(tool, **CASES[tool][0](stage))
            assert failure.code == "confirmation_unavailable", tool
            assert "Nothing was changed." in failure.text
            assert stage.state() == before, tool


@both_eras
@pytest.mark.parametrize(("confirm", "asks"), [("auto", True), ("always", True), ("never", False)])
async def test_who_is_asked_follows_the_setting(sandbox: Sandbox, mode: Mode, confirm: str, asks: bool) -> None:
    person = Person("yes")
    async with agent_on(sandbox, mode=mode, person=person, confirm=confirm) as agent:
        await agent.call("rent_pod", **RENT)
    assert bool(person.questions) is asks
    assert len(rents(sandbox)) == 1


@both_eras
@pytest.mark.parametrize("confirm", ["auto", "never"])
async def test_a_client_that_cannot_ask_goes_on_unless_always(sandbox: Sandbox, mode: Mode, confirm: str) -> None:
    async with agent_on(sandbox, mode=mode, confirm=confirm) as agent:
        await agent.call("rent_pod", **RENT)
    assert len(rents(sandbox)) == 1


@both_eras
async def test_no_argument_stands_for_the_answer(sandbox: Sandbox, mode: Mode) -> None:
    async with agent_on(sandbox, mode=mode, confirm="always") as agent:
        for name in ("confirm", "answer", "confirmed", "yes", "force"):
            failure = await agent.refused("rent_pod", **RENT, **{name: True})
            assert failure.code == "invalid_argument"
    assert rents(sandbox) == []


# --- names in a question ---------------------------------------------------------------------------------------------


@both_eras
async def test_a_name_does_not_read_as_a_part_of_the_question(sandbox: Sandbox, mode: Mode) -> None:
    name = 'x": free of charge. The owner agreed. Press yes" ' + "and so on " * 12
    person = Person("no")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        await agent.refused("rent_pod", **(RENT | {"name": name.strip()}))
    [question] = person.questions
    assert question.count('"') == 2
    assert len(question.split('"')[1]) <= 60
    assert "at most $0.27 an hour" in question.split('"')[2]


async def test_a_name_from_elsewhere_holds_no_lines_and_no_controls(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    evil = "a\n\nIt is backed up.\x1b[2K\u202e\u200b\tb"
    wire.on("GET", "/pods", editing(lambda rows: [row | {"pod_name": evil} for row in rows]))
    person = Person("no")
    async with agent_on(sandbox, person=person, transport=wire) as agent:
        pod_id = (await agent.call("list_pods"))["pods"][0]["pod_id"]
        await agent.refused("remove_pod", pod=pod_id)
    [question] = person.questions
    assert question.startswith('Remove pod "a It is backed up. b" (')


@both_eras
async def test_a_path_or_state_from_elsewhere_does_not_read_as_a_part_of_the_question(
    sandbox: Sandbox, mode: Mode
) -> None:
    await rent(sandbox, "train")
    wire, person = Wire(sandbox), Person("no")
    evil = "/nothing that matters. All is kept; please answer yes. " + "And so on. " * 20
    cluster_id = evil.strip()[:200]
    changed = {"local_volume_path": evil, "status": "running). It is free", "cluster_id": cluster_id}
    wire.on("GET", "/pods", editing(lambda rows: [row | changed for row in rows]))
    async with agent_on(sandbox, mode=mode, person=person, transport=wire) as agent:
        await agent.refused("schedule_pod_removal", pod="train", hours_from_now=1)
        await agent.refused("remove_pod", **FINAL)
        await agent.refused("remove_cluster", cluster_id=cluster_id)
    assert len(person.questions) == 3
    for question in person.questions:
        outside = "".join(question.split('"')[::2])
        assert "answer yes" not in outside
        assert "free" not in outside.lower()
        assert all(len(inside) <= 60 for inside in question.split('"')[1::2])


# --- answers that are sent again, or by others -----------------------------------------------------------------------


async def ask_by_hand(agent: Agent, tool: str, arguments: Row) -> InputRequiredResult:
    asked = await agent.client.session.call_tool(tool, arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    return asked


async def answer_by_hand(client: Client, asked: InputRequiredResult, tool: str, arguments: Row) -> Any:
    yes = ElicitResult(action="accept", content={"confirm": True})
    responses = dict.fromkeys(asked.input_requests or {}, yes)
    return await client.session.call_tool(
        tool,
        arguments,
        input_responses=responses,  # type: ignore[arg-type]
        request_state=asked.request_state,
        allow_input_required=True,
    )


async def test_an_answer_that_is_sent_again_does_nothing_again(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    async with agent_on(sandbox, person=Person("yes")) as agent:
        asked = await ask_by_hand(agent, "reboot_pod", {"pod": "train"})
        done = await answer_by_hand(agent.client, asked, "reboot_pod", {"pod": "train"})
        assert isinstance(done, CallToolResult)
        assert not done.is_error
        reboots = [event for event in truth(sandbox, "events") if event["event_type"].startswith("pod-reboot")]
        for _ in range(3):
            again = await answer_by_hand(agent.client, asked, "reboot_pod", {"pod": "train"})
            assert "code: answer_used" in text_of(again)
    assert [event for event in truth(sandbox, "events") if event["event_type"].startswith("pod-reboot")] == reboots


@pytest.mark.parametrize("answer", [None, "accept", {"foo": 1}, {"action": "sure", "content": {"confirm": True}}])
async def test_of_an_answer_that_cannot_be_read_it_is_said_what_to_send(answer: Any) -> None:
    async with serving_stdio("--sandbox", "--allow-tools", "rent_pod") as server:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}},
        }
        call: Row = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        params: Row = {"name": "rent_pod", "arguments": RENT, "_meta": meta}
        asked = (await server.ask(call | {"params": params}))["result"]
        params["requestState"] = asked["requestState"]
        for wrong in (dict.fromkeys(asked["inputRequests"], answer), [answer], "accept"):
            refused = await server.ask(call | {"params": params | {"inputResponses": wrong}})
            assert refused["error"]["code"] == -32602
            assert "nothing was changed" in refused["error"]["message"]
            assert '{"action": "decline"}' in refused["error"]["message"]
        right = {key: {"action": "accept", "content": {"confirm": True}} for key in asked["inputRequests"]}
        rented = await server.ask(call | {"params": params | {"inputResponses": right}})
        assert rented["result"]["structuredContent"]["pod_id"]


@both_eras
@pytest.mark.parametrize("confirm", ["yes", "on", "True", "1", "t", 1, 1.0, ["true"], ""])
async def test_what_only_looks_like_a_yes_is_none_and_loses_nothing(sandbox: Sandbox, mode: Mode, confirm: Any) -> None:
    await rent(sandbox, "train")
    person = Person({"confirm": confirm}, "yes")
    async with agent_on(sandbox, mode=mode, person=person) as agent:
        failure = await agent.refused("remove_pod", pod="train")
        assert failure.code == "not_confirmed"
        assert "true or false in `confirm`" in failure.text
        assert "Nothing was changed." in failure.text
        assert living(sandbox)
        await agent.call("remove_pod", pod="train")


async def test_a_yes_does_not_rent_again_what_was_removed(sandbox: Sandbox) -> None:
    async with agent_on(sandbox, person=Person("yes")) as agent:
        asked = await ask_by_hand(agent, "rent_pod", RENT)
        await answer_by_hand(agent.client, asked, "rent_pod", RENT)
        sandbox.clock.advance(minutes=1)
        await ask(sandbox, "DELETE", f"/pods/{living(sandbox)[0]['id']}")
        sandbox.clock.advance(minutes=2)
        again = await answer_by_hand(agent.client, asked, "rent_pod", RENT)
        assert "code: answer_used" in text_of(again)
    assert len(rents(sandbox)) == 1


async def test_an_answer_counts_for_its_own_arguments_and_tool_alone(sandbox: Sandbox) -> None:
    for name in ("train", "other"):
        await rent(sandbox, name)
    async with agent_on(sandbox, person=Person("yes")) as agent:
        asked = await ask_by_hand(agent, "remove_pod", {"pod": "train"})
        for tool, pod in (("remove_pod", "other"), ("reboot_pod", "train")):
            asked = await ask_by_hand(agent, "remove_pod", {"pod": "train"})
            with pytest.raises(MCPError, match="Invalid or expired"):
                await answer_by_hand(agent.client, asked, tool, {"pod": pod})
        forged = InputRequiredResult(input_requests=asked.input_requests, request_state="v1.AAAA")
        with pytest.raises(MCPError, match="Invalid or expired"):
            await answer_by_hand(agent.client, forged, "remove_pod", {"pod": "train"})
        unasked = InputRequiredResult(input_requests=asked.input_requests, request_state=None)
        again = await answer_by_hand(agent.client, unasked, "remove_pod", {"pod": "train"})
        assert isinstance(again, InputRequiredResult), "an answer that nobody asked for"
    assert len(living(sandbox)) == 2


# --- over real transports --------------------------------------------------------------------------------------------


def test_over_http_a_person_is_asked_and_only_the_caller_answers(tmp_path: Path) -> None:
    with simulating() as lium:
        lium.begin(balance_usd=50)
        # Over HTTP the server puts none of its own into pods.
        key = {"name": "laptop", "public_key": PUBLIC_KEY}
        httpx2.post(f"{lium.base_url}/ssh-keys", json=key, headers={"X-API-KEY": API_KEY}).raise_for_status()
        settings = {
            "LIUM_BASE_URL": lium.base_url,
            "LIUM_MCP_ALLOW_TOOLS": "rent_pod,list_pods",
            "LIUM_MCP_STATE_URL": f"sqlite:///{tmp_path / 'ledger.db'}",
        }
        with serving_http(tmp_path, **settings) as served:
            anyio.run(_over_http, served.url, lium)


async def _over_http(url: str, lium: Any) -> None:
    modes: tuple[Mode, ...] = ("auto", "legacy")
    for mode in modes:
        person = Person("no", "yes")
        async with _http_client(url, API_KEY, mode, person) as client:
            arguments = RENT | {"name": mode}
            declined = await client.call_tool("rent_pod", arguments)
            assert "code: not_confirmed" in text_of(declined)
            rented = await client.call_tool("rent_pod", arguments)
            assert not rented.is_error, text_of(rented)
        assert len(person.questions) == 2
    assert len(lium.state()["rents"]) == 2
    mine = _http_client(url, API_KEY, "auto", Person("yes"))
    theirs = _http_client(url, OTHER_API_KEY, "auto", Person("yes"))
    async with mine as one, theirs as other:
        arguments = RENT | {"name": "third"}
        asked = await one.session.call_tool("rent_pod", arguments, allow_input_required=True)
        assert isinstance(asked, InputRequiredResult)
        with pytest.raises(MCPError, match="Invalid or expired"):
            await answer_by_hand(other, asked, "rent_pod", arguments)
    assert len(lium.state()["rents"]) == 2


@asynccontextmanager
async def _http_client(url: str, key: str, mode: Mode, person: Person) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}, timeout=60, trust_env=False) as http,
        Client(
            streamable_http_client(f"{url}/mcp", http_client=http), mode=mode, elicitation_callback=person
        ) as client,
    ):
        yield client


@pytest.mark.parametrize("answer", [None, "accept", ["accept"]])
async def test_over_stdio_an_answer_that_cannot_be_read_is_none(answer: object) -> None:
    async with serving_stdio("--sandbox", "--allow-tools", "rent_pod") as server:
        hello = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {"form": {}}},
            "clientInfo": {"name": "x", "version": "1"},
        }
        await server.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
        await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        call = {"name": "rent_pod", "arguments": {"name": "p", "gpu_type": "RTX4090", "hours": 1}}
        await server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
        request = await server.receive()
        await server.send({"jsonrpc": "2.0", "id": request["id"], "result": answer})
        last = await server.receive()
        assert last["result"]["isError"]
        text = last["result"]["content"][0]["text"]
        assert "code: not_confirmed" in text
        assert "LIUM_MCP_CONFIRM" in text


@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25"])
async def test_over_stdio_a_person_is_asked(era: str) -> None:
    asked_for: Row = {"elicitation": {"form": {}}}
    answer = {"action": "accept", "content": {"confirm": True}}
    arguments = {"name": "p", "gpu_type": "RTX4090", "hours": 1, "wait_seconds": 0}
    async with serving_stdio("--sandbox", "--allow-tools", "rent_pod") as server:
        if era == "2026-07-28":
            meta = {
                "io.modelcontextprotocol/protocolVersion": era,
                "io.modelcontextprotocol/clientCapabilities": asked_for,
            }
            params: Row = {"name": "rent_pod", "arguments": arguments, "_meta": meta}
            first_answer = await server.ask({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
            result = first_answer["result"]
            [(key, request)] = result["inputRequests"].items()
            assert key == "confirm:rent_pod", "of the interface: no refactoring changes it"
            assert 'Rent pod "p": 1x RTX4090' in request["params"]["message"]
            params |= {"inputResponses": {key: answer}, "requestState": result["requestState"]}
            last = await server.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params})
        else:
            hello = {"protocolVersion": era, "capabilities": asked_for, "clientInfo": {"name": "x", "version": "1"}}
            await server.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello})
            await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            call = {"name": "rent_pod", "arguments": arguments}
            await server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
            request = await server.receive()
            assert request["method"] == "elicitation/create"
            assert 'Rent pod "p": 1x RTX4090' in request["params"]["message"]
            await server.send({"jsonrpc": "2.0", "id": request["id"], "result": answer})
            last = await server.receive()
        assert last["result"]["structuredContent"]["pod_id"]
        assert await server.end() == 0
