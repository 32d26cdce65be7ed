"""What the server can refuse by itself, it refuses before a person is asked: nobody says yes in vain."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Person, agent_on
from tests.servers import Servers
from tests.wires import Wire, answering, ask, drop, editing, living, make_template, offers, on_rents, rent, truth

Row = dict[str, Any]
Stage = Callable[[Sandbox], Awaitable[Row]]
"""Makes an account in which a call is refused, and returns the arguments that make it so."""

UNKNOWN: Final = "00000000-0000-4000-8000-00000000dead"
WISH: Final[Row] = {"name": "new", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 0}
RUN: Final[Row] = {"name": "fit", "command": "true", "max_total_usd": 1, "hours": 2, "max_hours": 1, "wait_seconds": 0}
UPDATE: Final[Row] = {"template": "mine", "wait_seconds": 0}


def given(**arguments: Any) -> Stage:
    async def stage(_: Sandbox) -> Row:
        return arguments

    return stage


def with_pod(rented: str = "train", /, *, boot: bool = True, **arguments: Any) -> Stage:
    async def stage(sandbox: Sandbox) -> Row:
        await rent(sandbox, rented, boot=boot)
        return arguments

    return stage


def with_templates(*names: str, **arguments: Any) -> Stage:
    async def stage(sandbox: Sandbox) -> Row:
        for name in names:
            await make_template(sandbox, name)
        return UPDATE | arguments

    return stage


async def cluster(sandbox: Sandbox) -> Row:
    [*groups] = await ask(sandbox, "GET", "/executors/infiniband-clusters")
    return {"name": "many", "executor_ids": [node["id"] for node in groups[0]["nodes"][:2]], "hours": 2}


def with_node(**wish: Any) -> Stage:
    async def stage(sandbox: Sandbox) -> Row:
        return wish | {"executor_id": (await offers(sandbox, "RTX 4090"))[0]["id"]}

    return stage


async def used_template(sandbox: Sandbox) -> Row:
    template = await make_template(sandbox, "mine")
    await rent(sandbox, "train", template_id=template)
    return {"template": "mine"}


async def attached_volume(sandbox: Sandbox) -> Row:
    volume = (await ask(sandbox, "POST", "/volumes", {"name": "data", "description": ""}))["id"]
    await rent(sandbox, "train", volume_id=volume)
    return {"volume": "data"}


async def volume_elsewhere(sandbox: Sandbox) -> Row:
    await attached_volume(sandbox)
    await rent(sandbox, "other")
    return {"pod": "other", "volume": "data"}


async def running_backup(sandbox: Sandbox) -> str:
    await rent(sandbox, "train")
    async with agent_on(sandbox) as agent:
        made = await agent.call("create_backup", pod="train", wait_seconds=0)
    return str(made["backup"]["backup_id"])


async def part_of_a_volume(sandbox: Sandbox) -> str:
    pod_id = await rent(sandbox, "train")
    root = truth(sandbox, "pods")[0]["template"]["volumes"][0]
    schedule = {"pod_id": pod_id, "backup_frequency_hours": 6, "retention_days": 7, "backup_path": f"{root}/part"}
    await ask(sandbox, "POST", "/backup-configs", schedule)
    return pod_id


async def restore_of_running(sandbox: Sandbox) -> Row:
    return {"backup_id": await running_backup(sandbox), "pods": ["train"], "path": "/root/there", "wait_seconds": 0}


async def delete_running(sandbox: Sandbox) -> Row:
    return {"backup_id": await running_backup(sandbox)}


async def partly_saved(sandbox: Sandbox) -> Row:
    await part_of_a_volume(sandbox)
    return {"pod": "train", "final_backup": True}


async def job_on_partly_saved(sandbox: Sandbox) -> Row:
    await part_of_a_volume(sandbox)
    return {"pod": "train", "command": "true", "name": "fit", "then": "backup_and_remove"}


async def on_a_lost_rent(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    on_rents(wire, drop)
    node = (await offers(sandbox, "RTX 4090"))[0]["id"]
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.refused("rent_pod", name="new", executor_id=node, hours=2, wait_seconds=0)


CASES: Final[dict[str, tuple[str, Stage, Row, str]]] = {
    "rent: nothing named": ("rent_pod", given(name="new"), {}, "invalid_argument"),
    "rent: no such GPU": ("rent_pod", given(**WISH | {"gpu_type": "H9000"}), {}, "no_gpu_matches"),
    "rent: no such node": ("rent_pod", given(name="new", executor_id=UNKNOWN, hours=1), {}, "node_not_for_rent"),
    "rent: no such template": ("rent_pod", given(**WISH, template="none"), {}, "template_not_found"),
    "rent: no such volume": ("rent_pod", given(**WISH, volume="none"), {}, "volume_not_found"),
    "rent: no such backup": ("rent_pod", given(**WISH, backup_id=UNKNOWN), {}, "not_found"),
    "rent: too dear": ("rent_pod", given(**WISH, max_usd_per_hour=0.01), {}, "no_gpu_matches"),
    "rent: total too low": ("rent_pod", given(**WISH, max_total_usd=0.01), {}, "total_too_low"),
    "rent: name taken": ("rent_pod", with_pod("new", **WISH), {}, "pod_name_taken"),
    "rent: price limit": ("rent_pod", given(**WISH), {"max_price_per_hour_usd": 0.01}, "policy_refused"),
    "rent: hours limit": ("rent_pod", given(**WISH), {"max_hours": 1}, "policy_refused"),
    "rent: pods limit": ("rent_pod", with_pod(**WISH), {"max_pods": 1}, "policy_refused"),
    "rent: burn limit": ("rent_pod", with_pod(**WISH), {"max_burn_per_hour_usd": 0.3}, "policy_refused"),
    "rent: country limit": ("rent_pod", given(**WISH), {"allow_countries": frozenset({"AQ"})}, "policy_refused"),
    "rent: GPU limit": ("rent_pod", given(**WISH), {"allow_gpu_types": frozenset({"H200"})}, "policy_refused"),
    "several: volume": ("rent_pod", given(**WISH, count=2, volume="data"), {}, "invalid_argument"),
    "several: no room": ("rent_pod", given(**WISH | {"gpu_type": "B200"}, count=20), {}, "no_gpu_matches"),
    "several: pods limit": ("rent_pod", given(**WISH, count=3), {"max_pods": 2}, "policy_refused"),
    "order: unbounded": (
        "rent_pod",
        given(name="new", gpu_type="RTX4090", keep_trying_hours=3),
        {},
        "invalid_argument",
    ),
    "run: no ceiling": ("run_job", given(name="fit", command="true"), {}, "invalid_argument"),
    "run: no such file": ("run_job", given(**RUN, local_path="~/no/such/file"), {}, "file_not_found"),
    "run: name taken": ("run_job", with_pod("fit", **RUN), {}, "pod_name_taken"),
    "run: secret": ("run_job", given(**RUN | {"command": "export KEY=sk_sandbox"}), {}, "secret_in_command"),
    "cluster: price limit": ("rent_cluster", cluster, {"max_price_per_hour_usd": 0.01}, "policy_refused"),
    "cluster: pods limit": ("rent_cluster", cluster, {"max_pods": 1}, "policy_refused"),
    "cluster: no such one": ("remove_cluster", given(cluster_id=UNKNOWN), {}, "not_found"),
    "remove: no such pod": ("remove_pod", given(pod="none"), {}, "pod_not_found"),
    "remove: nothing to save yet": (
        "remove_pod",
        with_pod(boot=False, pod="train", final_backup=True),
        {},
        "pod_not_running",
    ),
    "remove: part saved": ("remove_pod", partly_saved, {}, "backup_partial"),
    "reboot: does not run": ("reboot_pod", with_pod(boot=False, pod="train"), {}, "pod_not_running"),
    "reboot: busy volume": ("reboot_pod", volume_elsewhere, {}, "volume_in_use"),
    "job: NUL": (
        "start_job",
        with_pod(pod="train", command="a\0b", name="fit", then="backup_and_remove"),
        {},
        "invalid_argument",
    ),
    "job: bad name": (
        "start_job",
        with_pod(pod="train", command="true", name="a b", then="backup_and_remove"),
        {},
        "invalid_argument",
    ),
    "job: does not run": (
        "start_job",
        with_pod(boot=False, pod="train", command="true", name="fit", then="backup_and_remove"),
        {},
        "pod_not_running",
    ),
    "job: part saved": ("start_job", job_on_partly_saved, {}, "backup_partial"),
    "reset: no GPU": ("reset_pod_gpus", with_pod(pod="train", gpu_indices=[]), {}, "invalid_argument"),
    "reset: below the first": ("reset_pod_gpus", with_pod(pod="train", gpu_indices=[0, -1]), {}, "invalid_argument"),
    "reset: above the last": ("reset_pod_gpus", with_pod(pod="train", gpu_indices=[8]), {}, "invalid_argument"),
    "reset: does not run": ("reset_pod_gpus", with_pod(boot=False, pod="train"), {}, "pod_not_running"),
    "schedule: nothing": ("schedule_pod_removal", with_pod(pod="train"), {}, "invalid_argument"),
    "schedule: hours limit": (
        "schedule_pod_removal",
        with_pod(pod="train", hours_from_now=5),
        {"max_hours": 2},
        "policy_refused",
    ),
    "cancel: hours limit": ("cancel_pod_removal", with_pod(pod="train"), {"max_hours": 2}, "policy_refused"),
    "template: nothing to change": ("update_template", with_templates("mine"), {}, "invalid_argument"),
    "template: name taken": ("update_template", with_templates("mine", "b", name="b"), {}, "template_name_taken"),
    "template: no login": (
        "update_template",
        with_templates("mine", registry_credential="none"),
        {},
        "credential_not_found",
    ),
    "template: bad image": ("update_template", with_templates("mine", image="a b"), {}, "invalid_argument"),
    "template: bad line": ("update_template", with_templates("mine", environment=["A"]), {}, "invalid_argument"),
    "template: in use": ("delete_template", used_template, {}, "template_in_use"),
    "switch: no such template": (
        "switch_pod_template",
        with_pod(pod="train", template="none"),
        {},
        "template_not_found",
    ),
    "volume: attached": ("delete_volume", attached_volume, {}, "volume_in_use"),
    "backup: not complete": ("delete_backup", delete_running, {}, "backup_not_completed"),
    "restore: not complete": ("restore_backup", restore_of_running, {}, "backup_not_completed"),
    "backups: not in the volume": (
        "set_backup_schedule",
        with_pod(pod="train", path="/elsewhere"),
        {},
        "invalid_argument",
    ),
    "key: no such one": ("delete_ssh_key", given(key_id=UNKNOWN), {}, "not_found"),
}


@pytest.mark.parametrize("case", CASES)
async def test_nobody_is_asked_about_what_is_refused(sandbox: Sandbox, case: str) -> None:
    tool, stage, settings, code = CASES[case]
    arguments, person = await stage(sandbox), Person("yes")
    async with agent_on(sandbox, person=person, **settings) as agent:
        failure = await agent.refused(tool, **arguments)
    assert failure.code == code, failure.text
    assert person.questions == []


@pytest.mark.parametrize(
    ("tool", "stage", "said"),
    [
        ("delete_backup_schedule", with_pod(pod="train"), "This pod had no backup schedule: nothing was changed."),
        ("cancel_pod_removal", with_pod(pod="train"), "No removal was set. It bills until"),
        ("cancel_pod_removal", with_pod(pod="train", only_when_idle=True), "No removal when idle was set. It bills"),
        ("update_template", with_templates("mine", name="mine"), "It is so already: nothing was changed"),
    ],
    ids=["backup schedule", "removal", "removal when idle", "template"],
)
async def test_nobody_is_asked_about_what_changes_nothing(sandbox: Sandbox, tool: str, stage: Stage, said: str) -> None:
    wire, person, arguments = Wire(sandbox), Person("yes"), await stage(sandbox)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        answer = await agent.call(tool, **arguments)
    assert answer["next"].startswith(said)
    assert person.questions == []
    assert {request.method for request in wire.requests} == {"GET"}


async def test_nobody_is_asked_about_a_restore_where_another_writes(sandbox: Sandbox) -> None:
    backup_id, person = await running_backup(sandbox), Person("yes")
    restore: Row = {"backup_id": backup_id, "pods": ["train"], "path": "/root/there", "wait_seconds": 0}
    async with agent_on(sandbox, person=person) as agent:
        await agent.call("get_backup", backup_id=backup_id, wait_seconds=600)
        assert (await agent.call("restore_backup", **restore))["outcome"] == "pending"
        assert len(person.questions) == 1
        again = await agent.call("restore_backup", **restore)
    assert "restore_target_taken" in again["pods"][0]["problem"]
    assert len(person.questions) == 1


async def test_nobody_is_asked_about_a_job_whose_name_the_pod_has(account: Sandbox, at: Servers) -> None:
    person = Person("yes")
    async with at(person=person, confirm="auto") as agent:
        await agent.call("rent_pod", **WISH | {"wait_seconds": 300})
        job: Row = {"pod": "new", "name": "fit", "command": "sleep 60"}
        await agent.call("start_job", **job)
        person.questions.clear()
        failure = await agent.refused("start_job", **job, then="backup_and_remove")
        assert (failure.code, person.questions) == ("job_exists", [])
        await agent.call("start_job", **job | {"name": "other"}, then="backup_and_remove")
        assert len(person.questions) == 1


@pytest.mark.parametrize(
    ("tool", "stage", "balance_usd", "said"),
    [
        ("rent_pod", given(**WISH), 0.01, "minutes of all open pods and this one cost"),
        ("rent_pod", with_node(**WISH), 0.01, "and this one cost"),
        ("rent_pod", given(**WISH, count=3), 0.15, "and these 3 cost"),  # one of them it would bear
        ("run_job", given(**RUN), 0.01, "and this one cost"),
        ("rent_cluster", cluster, 4, "and these 2 cost"),
    ],
    ids=["pod", "on a node", "several", "run", "cluster"],
)
async def test_nobody_is_asked_about_what_the_balance_does_not_bear(
    tmp_path: Path, tool: str, stage: Stage, balance_usd: float, said: str
) -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=balance_usd)
    person, arguments = Person("yes"), await stage(sandbox)
    async with agent_on(sandbox, person=person, state_url=f"sqlite:///{tmp_path}/rentals.db") as agent:
        failure = await agent.refused(tool, **arguments)
    assert failure.code == "insufficient_balance", failure.text
    assert f"The balance is ${balance_usd:.2f}" in failure.text
    assert said in failure.text
    assert "create_top_up_link" in failure.text
    assert (person.questions, living(sandbox)) == ([], [])


@pytest.mark.parametrize("path", ["/users/me", "/executors/*/quote"])
@pytest.mark.parametrize("tool", ["rent_pod", "rent_cluster"])
async def test_a_balance_or_a_need_that_nobody_knows_refuses_nothing(tool: str, path: str) -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=0.05)
    wire, person = Wire(sandbox), Person("no")
    wire.on("GET", path, editing(lambda body: body | {"balance": None, "rent_balance_required_usd": None}))
    arguments = await (given(**WISH) if tool == "rent_pod" else cluster)(sandbox)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        await agent.refused(tool, **arguments)
    assert len(person.questions) == 1


async def test_an_account_that_is_exempt_needs_no_balance() -> None:
    sandbox = Sandbox(seed=7, speed=0, balance_usd=0)
    wire, person = Wire(sandbox), Person("no")
    wire.on("GET", "/executors/*/quote", editing(lambda body: body | {"rent_balance_required_usd": 0}))
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        await agent.refused("rent_pod", **WISH)
    assert len(person.questions) == 1


@pytest.mark.parametrize("where", [{"gpu_type": "RTX4090"}, {}], ids=["by type", "any"])
async def test_nobody_is_asked_about_a_run_that_needs_a_template(sandbox: Sandbox, where: Row) -> None:
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/executors/default-docker-image", editing(lambda _: []))
    bounded: Row = {"max_usd_per_hour": 3, "max_hours": 1, "wait_seconds": 0}
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        failure = await agent.refused("run_job", name="fit", command="true", **where, **bounded)
        assert (failure.code, person.questions) == ("template_needed", [])
        template = await make_template(sandbox, "mine")
        await agent.call("run_job", name="fit", command="true", template=template, **where, **bounded)
    assert len(person.questions) == 1


@pytest.mark.parametrize(
    ("tool", "stage"),
    [
        ("rent_pod", given(**WISH)),
        ("rent_pod", given(**WISH | {"name": "other"})),
        ("rent_pod", given(**WISH | {"name": "other"}, count=2)),
        ("rent_cluster", cluster),
    ],
    ids=["same name", "other name", "several", "cluster"],
)
async def test_nobody_is_asked_while_an_earlier_rent_is_not_settled(sandbox: Sandbox, tool: str, stage: Stage) -> None:
    await on_a_lost_rent(sandbox)
    wire, person = Wire(sandbox), Person("yes")
    on_rents(wire, drop)
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        failure = await agent.refused(tool, **await stage(sandbox))
    assert failure.code == "rent_unsettled", failure.text
    assert person.questions == []
    assert living(sandbox) == []


@pytest.mark.parametrize(
    ("tool", "stage"),
    [
        ("rent_pod", given(**WISH)),
        ("rent_pod", given(**WISH, count=2)),
        ("rent_pod", given(**WISH, max_usd_per_hour=0.01, keep_trying_hours=1)),
        ("rent_cluster", cluster),
        ("run_job", given(**RUN)),
        ("start_job", with_pod(pod="train", command="true", name="fit", then="backup_and_remove")),
        ("schedule_pod_removal", with_pod(pod="train", idle_minutes=30)),
    ],
)
async def test_nobody_is_asked_where_no_ledger_can_be_made(
    sandbox: Sandbox, tmp_path: Path, tool: str, stage: Stage
) -> None:
    (tmp_path / "file").touch()
    person = Person("yes")
    settings: Row = {"state_url": f"sqlite:///{tmp_path}/file/rentals.db", "confirm": "always"}
    arguments = await stage(sandbox)
    before = living(sandbox)
    async with agent_on(sandbox, person=person, **settings) as agent:
        failure = await agent.refused(tool, **arguments)
    codes = {"start_job": "follow_up_not_kept", "schedule_pod_removal": "idle_not_kept"}
    assert failure.code == codes.get(tool, "ledger_unavailable")
    assert "cannot be made" in failure.text
    assert (person.questions, living(sandbox)) == ([], before)


@pytest.mark.parametrize(("tool", "stage"), [("rent_pod", given(**WISH)), ("rent_cluster", cluster)])
async def test_nobody_is_asked_while_lium_does_not_say_whose_the_key_is(
    sandbox: Sandbox, tool: str, stage: Stage
) -> None:
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/users/me", answering(503, b""))
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        await agent.refused(tool, **await stage(sandbox))
    assert person.questions == []


async def test_a_key_that_may_not_read_whose_it_is_is_asked_about_its_rents_all_the_same(sandbox: Sandbox) -> None:
    wire, person = Wire(sandbox), Person("yes")
    wire.on("GET", "/users/me", answering(403, {"success": False, "error": {"code": "forbidden", "message": "No"}}))
    async with agent_on(sandbox, transport=wire, person=person) as agent:
        await agent.call("rent_pod", **WISH)
    [question] = person.questions
    assert "balance" not in question
