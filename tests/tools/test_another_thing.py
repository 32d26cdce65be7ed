"""Answers about something else than was asked for: nothing is told, changed or destroyed by them."""

from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, agent_on
from tests.wires import (
    Act,
    Forward,
    Wire,
    answering,
    ask,
    editing,
    living,
    make_template,
    offers,
    rent,
    truth,
)

Row = dict[str, Any]


def about(other: str, instead_of: str) -> Act:
    """The sandbox answers about another thing than the one whose id stands in the path."""

    async def act(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        url = str(request.url).replace(instead_of, other)
        return await forward(httpx2.Request(request.method, url, headers=request.headers))

    return act


def saying(**fields: Any) -> Act:
    return editing(lambda row: row | fields)


def without(row: Row, field: str) -> Row:
    return {name: value for name, value in row.items() if name != field}


def changes(wire: Wire) -> list[str]:
    return [f"{request.method} {request.url.path}" for request in wire.requests if request.method != "GET"]


# --- one pod for another ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "given"),
    [
        ("remove_pod", {}),
        ("remove_pod", {"final_backup": True}),
        ("schedule_pod_removal", {"hours_from_now": 1}),
        ("cancel_pod_removal", {}),
        ("reboot_pod", {}),
        ("switch_pod_template", {"template": "mine"}),
        ("create_backup", {}),
        ("set_backup_schedule", {}),
        ("reset_pod_gpus", {}),
        ("install_jupyter", {"port": 8000}),
        ("rate_pod", {"rating": 5}),
        ("get_pod", {}),
        ("get_pod_logs", {}),
    ],
    ids=str,
)
async def test_a_pod_that_is_not_listed_is_never_another(sandbox: Sandbox, tool: str, given: Row) -> None:
    asked, other = await rent(sandbox, "asked"), await rent(sandbox, "other")
    await make_template(sandbox, "mine")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod for pod in pods if pod["id"] != asked]))
    wire.on("GET", f"/pods/{asked}", about(other, asked))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused(tool, pod=asked, **given)
    assert refused.code == "unreadable_answer"
    assert f"Lium answered with another PodDetail than was asked for: its id is not {asked}." in refused.text
    assert "Nothing was changed" in refused.text
    assert changes(wire) == []


async def test_an_id_is_the_same_in_capitals(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: []))
    wire.on("GET", f"/pods/{pod_id}", editing(lambda pod: pod | {"id": pod_id.upper()}))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.call("get_pod", pod=pod_id, wait_seconds=0))["outcome"] == "done"


async def test_the_end_of_a_pod_is_told_by_its_own_record_alone(sandbox: Sandbox) -> None:
    asked, other = await rent(sandbox, "asked"), await rent(sandbox, "other")
    for pod_id in (asked, other):
        await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    sandbox.clock.advance(minutes=5)
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.call("get_pod", pod=asked, wait_seconds=0))["pod"]["name"] == "asked"
        wire.on("GET", f"/pods/{asked}/record", about(other, asked))
        assert (await agent.call("get_pod", pod=asked, wait_seconds=0))["pod"]["name"] == "asked"
        wire.on("GET", f"/pods/{asked}/events", editing(lambda rows: [without(row, "pod_id") for row in rows]))
        assert (await agent.call("get_pod", pod=asked, wait_seconds=0))["pod"]["name"] == "asked"
        wire.on("GET", f"/pods/{asked}/events", about(other, asked))
        assert (await agent.refused("get_pod", pod=asked, wait_seconds=0)).code == "pod_not_found"


@pytest.mark.parametrize("is_own", [True, False])
async def test_the_last_event_of_a_pod_is_its_own(sandbox: Sandbox, is_own: bool) -> None:
    pod_id = await rent(sandbox, "worker")
    wire = Wire(sandbox)
    event = {"pod_id": pod_id if is_own else "another", "event_type": "pod-lifecycle", "to_status": "RUNNING"}
    wire.on("GET", "/pods/*/events", answering(404, {"detail": "Not Found"}))
    wire.on("GET", f"/pods/{pod_id}", saying(last_event=event))
    async with agent_on(sandbox, transport=wire) as agent:
        shown = (await agent.call("get_pod", pod="worker", wait_seconds=0))["pod"]
    assert [event["status"] for event in shown["last_events"]] == (["RUNNING"] if is_own else [])


# --- one of anything else for another --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "parameter", "model"),
    [
        ("list_volumes", "volume", "Volume"),
        ("get_template", "template", "Template"),
        ("update_template", "template", "Template"),
        ("get_backup", "backup_id", "Backup"),
        ("restore_backup", "backup_id", "Backup"),
    ],
)
async def test_a_thing_that_is_read_by_its_id_is_that_thing(
    sandbox: Sandbox, tool: str, parameter: str, model: str
) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        volumes = [(await agent.call("create_volume", name=name))["volume_id"] for name in ("a", "b")]
        templates = [await make_template(sandbox, name) for name in ("a", "b")]
        backups = [
            (await agent.call("create_backup", pod="worker", wait_seconds=300))["backup"]["backup_id"] for _ in range(2)
        ]
        path, (asked, other) = {
            "volume": ("volumes", volumes),
            "template": ("templates", templates),
            "backup_id": ("backup-logs", backups),
        }[parameter]
        wire.requests.clear()
        wire.on("GET", f"/{path}/{asked}", about(other, asked))
        if tool == "get_template":
            wire.on("GET", "/templates", editing(lambda rows: [row for row in rows if row["id"] != asked]))
        more: dict[str, Row] = {"update_template": {"description": "new"}, "restore_backup": {"pods": ["worker"]}}
        refused = await agent.refused(tool, **{parameter: asked}, **more.get(tool, {}))
    assert refused.code == "unreadable_answer"
    assert f"another {model} than was asked for" in refused.text
    assert changes(wire) == []


@pytest.mark.parametrize(
    "said", [{"executor_id": "11111111-1111-4111-8111-111111111111"}, {"gpu_count": 7}, {"hours": 3}], ids=str
)
async def test_a_quote_is_of_what_was_asked_for(sandbox: Sandbox, said: Row) -> None:
    node = (await offers(sandbox, "4090"))[0]
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        quoted = await agent.call("quote_rental", executor_id=node["id"], gpu_count=1, hours=2.3333333)
        assert quoted["total_usd"] > 0
        wire.on("GET", "/executors/*/quote", editing(lambda quote: quote | said))
        refused = await agent.refused("quote_rental", executor_id=node["id"], gpu_count=1, hours=2.3333333)
        assert refused.code == "unreadable_answer"
        wire.on("GET", "/executors/*/quote", editing(lambda quote: without(quote | {"hours": 2.33}, "gpu_count")))
        assert await agent.call("quote_rental", executor_id=node["id"], gpu_count=1, hours=2.3333333) == quoted


async def test_restores_into_another_pod_are_not_shown(sandbox: Sandbox) -> None:
    await rent(sandbox, "asked")
    other = await rent(sandbox, "other")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        backup = (await agent.call("create_backup", pod="other", wait_seconds=300))["backup"]["backup_id"]
        await agent.call("restore_backup", backup_id=backup, pods=["asked"])
        mixed = editing(
            lambda page: page | {"items": page["items"] + [page["items"][0] | {"id": "x", "pod_id": other}]}
        )
        wire.on("GET", "/pods/*/restore-logs", mixed)
        listed = await agent.call("list_restores", pods=["asked"])
    assert listed["total"] == 1
    assert "incomplete" in listed


# --- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["pod_id", "pod_executor_id"])
@pytest.mark.parametrize("tool", ["set_backup_schedule", "delete_backup_schedule"])
async def test_the_schedule_of_another_pod_is_left_alone(sandbox: Sandbox, tool: str, field: str) -> None:
    await rent(sandbox, "asked")
    other = await rent(sandbox, "other")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("set_backup_schedule", pod="asked")
        wire.requests.clear()
        linked = {"pod_id": None, "pod_executor_id": None, field: other.upper()}
        wire.on("GET", "/backup-configs/pod/*", editing(lambda schedule: schedule | linked))
        refused = await agent.refused(tool, pod="asked", **({"every_hours": 3} if tool.startswith("set") else {}))
    assert refused.code == "unreadable_answer"
    assert f"another BackupSchedule than was asked for: its {field} is not " in refused.text
    assert changes(wire) == []
    assert len(truth(sandbox, "backup_configs")) == 1


async def test_backups_are_listed_though_their_schedule_is_another_pods(sandbox: Sandbox) -> None:
    await rent(sandbox, "asked")
    other = await rent(sandbox, "other")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("create_backup", pod="asked", wait_seconds=300)
        wire.on("GET", "/backup-configs/pod/*", editing(lambda schedule: schedule | {"pod_id": other}))
        found = await agent.call("list_backups", pod="asked")
    assert (found["total"], found["incomplete"]) == (1, "Its schedule could not be read.")
    assert not {"schedule", "next"} & set(found)


async def test_a_schedule_may_be_linked_by_a_node_or_by_an_id_that_nobody_knows(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "worker")
    node = (await ask(sandbox, "GET", f"/pods/{pod_id}"))["executor_id"]
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call("set_backup_schedule", pod="worker")
        for link in (node, "11111111-1111-4111-8111-111111111111", None):
            wire.on("GET", "/backup-configs/pod/*", saying(pod_id=None, pod_executor_id=link))
            assert "schedule" in await agent.call("list_backups", pod="worker")


async def test_a_schedule_that_is_made_is_of_the_pod(sandbox: Sandbox) -> None:
    await rent(sandbox, "asked")
    other = await rent(sandbox, "other")
    wire = Wire(sandbox)
    wire.on("POST", "/backup-configs", editing(lambda row: row | {"pod_id": other}))
    async with agent_on(sandbox, transport=wire) as agent:
        assert (await agent.refused("set_backup_schedule", pod="asked")).code == "outcome_unknown"


# --- what is made ----------------------------------------------------------------------------------------------------

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDRH7c5K8VP2K2VbJNhQq0PHNTe72TcGsOtuRWV+Ac60"


@pytest.mark.parametrize(
    ("tool", "path", "given", "said"),
    [
        ("create_volume", "/volumes", {"name": "new"}, {"name": "datasets"}),
        ("create_template", "/templates", {"name": "new", "image": "me/mine:1"}, {"name": "another"}),
        ("create_template", "/templates", {"name": "new", "image": "me/mine:1"}, {"docker_image": "me/other"}),
        ("create_template", "/templates", {"name": "new", "image": "me/mine:1"}, {"docker_image_tag": "2"}),
        ("add_ssh_key", "/ssh-keys", {"name": "new", "public_key": PUBLIC_KEY}, {"public_key": f"{OTHER_KEY} me"}),
    ],
    ids=str,
)
async def test_what_is_made_is_what_was_asked_for(
    sandbox: Sandbox, tool: str, path: str, given: Row, said: Row
) -> None:
    wire = Wire(sandbox)
    wire.on("POST", path, editing(lambda row: row | said))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused(tool, **given)
    assert refused.code == "outcome_unknown"
    assert "Lium answered with another " in refused.text
    assert "List what there is now" in refused.text
    assert len(changes(wire)) == 1


@pytest.mark.parametrize(
    ("tool", "path", "given", "said"),
    [
        ("create_volume", "/volumes", {"name": "new"}, {"name": None}),
        ("create_template", "/templates", {"name": "new", "image": "me/mine:1"}, {"docker_image_tag": None}),
        (
            "create_template",
            "/templates",
            {"name": "new", "image": f"me/mine@sha256:{'a' * 64}"},
            {"docker_image": "me/mine", "docker_image_digest": f"sha256:{'a' * 64}"},
        ),
        ("add_ssh_key", "/ssh-keys", {"name": "new", "public_key": PUBLIC_KEY}, {"name": "x", "public_key": None}),
        (
            "add_ssh_key",
            "/ssh-keys",
            {"name": "new", "public_key": f"{PUBLIC_KEY} me"},
            {"public_key": f"{PUBLIC_KEY} x"},
        ),
    ],
    ids=str,
)
async def test_what_lium_does_not_say_of_a_thing_that_is_made_is_no_other(
    sandbox: Sandbox, tool: str, path: str, given: Row, said: Row
) -> None:
    wire = Wire(sandbox)
    wire.on("POST", path, editing(lambda row: row | said))
    async with agent_on(sandbox, transport=wire) as agent:
        await agent.call(tool, **given)


# --- backups ---------------------------------------------------------------------------------------------------------

OLD = {"created_at": "2026-01-01T00:00:00", "started_at": "2026-01-01T00:00:00", "completed_at": "2026-01-01T00:05:00"}
DATELESS = {"created_at": None, "started_at": None, "completed_at": None}
EMPTY = {"total_files": 0, "processed_files": 0, "total_bytes": 0, "processed_bytes": 0}
OTHER_SCHEDULE = {"backup_config_id": "11111111-1111-4111-8111-111111111111"}


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (OLD, "final_backup_unproven"),
        (DATELESS, "final_backup_unproven"),
        (OTHER_SCHEDULE, "final_backup_unproven"),
        (EMPTY, "final_backup_empty"),
    ],
    ids=["old", "of no known date", "of another schedule", "empty"],
)
async def test_a_pod_stays_whose_last_backup_is_not_its_own_and_of_now(sandbox: Sandbox, said: Row, code: str) -> None:
    pod_id = await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/*", editing(lambda row: row | said))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("remove_pod", pod="worker", final_backup=True, wait_seconds=300)
        assert refused.code == code
        assert "The pod was not removed and bills" in refused.text
        assert "remove_pod without final_backup" in refused.text
        assert "A backup schedule was made for it. It stays" in refused.text
    assert [pod["id"] for pod in living(sandbox)] == [pod_id]
    assert not wire.sent("DELETE", "/pods/*")


@pytest.mark.parametrize("owner", ["worker", "other"])
async def test_a_pod_stays_where_lium_names_a_backup_that_was_there_before(sandbox: Sandbox, owner: str) -> None:
    await rent(sandbox, "worker")
    await rent(sandbox, "other")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        earlier = await agent.call("create_backup", pod=owner, wait_seconds=300)
        sandbox.clock.advance(hours=1)
        named = answering(200, {"success": True, "backup_log_id": earlier["backup"]["backup_id"]})
        wire.on("POST", "/pods/*/backup", named)
        made = await agent.refused("create_backup", pod="worker", wait_seconds=300)
        assert made.code == "outcome_unknown"
        assert "list_backups" in made.text
        await agent.refused("remove_pod", pod="worker", final_backup=True, wait_seconds=300)
    assert len(living(sandbox)) == 2


async def test_a_backup_is_found_though_lium_names_an_earlier_one(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        earlier = await agent.call("create_backup", pod="worker", wait_seconds=300)
        sandbox.clock.advance(hours=1)
        wire.on("POST", "/pods/*/backup", editing(lambda row: row | {"backup_log_id": earlier["backup"]["backup_id"]}))
        made = await agent.call("create_backup", pod="worker", wait_seconds=300)
    assert made["outcome"] == "done"
    assert made["backup"]["backup_id"] != earlier["backup"]["backup_id"]


@pytest.mark.parametrize("said", [OLD, OTHER_SCHEDULE], ids=["old", "of another schedule"])
async def test_a_backup_that_is_another_is_not_called_made(sandbox: Sandbox, said: Row) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on("GET", "/backup-logs/*", editing(lambda row: row | said))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("create_backup", pod="worker", wait_seconds=300)
        assert refused.code == "outcome_unknown"
        wire.on("GET", "/backup-logs/*", saying(**DATELESS, backup_config_id=None))
        sandbox.clock.advance(hours=1)
        assert (await agent.call("create_backup", pod="worker", wait_seconds=300))["outcome"] == "done"


# --- restores --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"backup_id": "11111111-1111-4111-8111-111111111111"},
        {"restore_path": "/root/old"},
        {"created_at": "2026-01-01T00:00:00", "started_at": "2026-01-01T00:00:00"},
    ],
    ids=["of another backup", "elsewhere", "old"],
)
async def test_another_restore_is_not_this_one(sandbox: Sandbox, said: Row) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    wire.on(
        "GET", "/pods/*/restore-logs", editing(lambda page: page | {"items": [row | said for row in page["items"]]})
    )
    async with agent_on(sandbox, transport=wire) as agent:
        made = await agent.call("create_backup", pod="worker", wait_seconds=300)
        answer = await agent.call("restore_backup", backup_id=made["backup"]["backup_id"], pods=["worker"])
    assert answer["outcome"] == "pending"
    assert "Lium answered with another restore" in answer["pods"][0]["problem"]


async def test_a_restore_is_found_though_lium_names_an_earlier_one(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    async with agent_on(sandbox, transport=wire) as agent:
        backup = (await agent.call("create_backup", pod="worker", wait_seconds=300))["backup"]["backup_id"]
        earlier = await agent.call("restore_backup", backup_id=backup, pods=["worker"], wait_seconds=300)
        old_id = earlier["pods"][0]["restore"]["restore_id"]
        wire.on("POST", "/pods/*/restore", editing(lambda row: row | {"restore_log_id": old_id}))
        answer = await agent.call("restore_backup", backup_id=backup, pods=["worker"], wait_seconds=300)
    assert answer["outcome"] == "done"
    assert answer["pods"][0]["restore"]["restore_id"] != old_id


async def test_a_restore_that_says_no_more_than_its_id_is_this_one(sandbox: Sandbox) -> None:
    await rent(sandbox, "worker")
    wire = Wire(sandbox)
    bare = {"backup_id": None, "restore_path": None, "created_at": None, "started_at": None}
    wire.on(
        "GET", "/pods/*/restore-logs", editing(lambda page: page | {"items": [row | bare for row in page["items"]]})
    )
    async with agent_on(sandbox, transport=wire) as agent:
        made = await agent.call("create_backup", pod="worker", wait_seconds=300)
        restored = await agent.call(
            "restore_backup", backup_id=made["backup"]["backup_id"], pods=["worker"], wait_seconds=300
        )
    assert restored["outcome"] == "done"
