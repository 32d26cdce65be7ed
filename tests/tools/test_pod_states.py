"""States as they are: what is being removed has not failed, what nobody knows is absent, a failure says its cause."""

from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import agent_on
from tests.wires import Wire, answering, ask, editing, rent, truth

Row = dict[str, Any]


def events(*rows: Row) -> list[Row]:
    """An event log, oldest first."""
    return [{"created_at": "2026-01-01T00:00:00Z", "event_type": "pod-lifecycle"} | row for row in rows]


# --- removal ---------------------------------------------------------------------------------------------------------


async def test_a_pod_that_is_being_removed_has_not_failed_and_is_not_to_be_removed_again(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    sandbox.add_fault("delete_slow", seconds=100)
    await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    async with agent_on(sandbox) as agent:
        seen = await agent.call("get_pod", pod=pod_id, wait_seconds=5)
        refused = await agent.refused("reboot_pod", pod=pod_id)
        removed = await agent.call("remove_pod", pod=pod_id, wait_seconds=300)
        gone = await agent.call("get_pod", pod=pod_id, wait_seconds=300)
    assert (seen["outcome"], seen["pod"]["status"]) == ("pending", "DELETING")
    assert "remove_pod" not in seen["next"]
    assert "billing" not in seen["pod"]
    assert refused.code == "pod_being_removed"
    assert removed["outcome"] == "done"
    assert gone["outcome"] == "removed"
    orders = [row for row in truth(sandbox, "requests") if row["method"] == "DELETE"]
    assert len(orders) == 1


async def test_a_pod_that_is_being_removed_is_listed_where_lium_lists_it_and_nothing_else_is_done_with_it(
    sandbox: Sandbox,
) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"status": "DELETING"} for pod in pods]))
    async with agent_on(sandbox, transport=wire) as agent:
        (row,) = (await agent.call("list_pods"))["pods"]
        refused = await agent.refused("reboot_pod", pod="train")
    assert (row["pod_id"], row["status"]) == (pod_id, "DELETING")
    assert "billing" not in row
    assert refused.code == "pod_being_removed"
    assert not wire.sent("POST", "/pods/*/reboot")


async def test_a_pod_that_runs_and_names_no_ssh_address_is_said_to_run_and_bill(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"ssh_connect_cmd": None} for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"ssh_connect_cmd": None}))
    wire.on("DELETE", "/pods/*", answering(409, {"message": "not at this hour"}))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = await agent.call("get_pod", pod="train", wait_seconds=4)
        refused = await agent.refused("run_command", pod="train", command="true")
        kept = await agent.refused("remove_pod", pod="train")
    assert (seen["outcome"], seen["pod"]["billing"]) == ("pending", True)
    assert seen["next"].startswith("It runs and bills, but Lium names no SSH address for it yet")
    assert refused.code == "no_ssh_address"
    assert "is RUNNING, and Lium names no SSH address for it yet" in refused.text
    for text in (seen["next"], refused.text, kept.text):
        assert not any(wrong in text for wrong in ("only a running pod", "until it runs", "Not running", "starting"))


async def test_a_removed_pod_is_read_from_what_lium_keeps_of_it(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    sandbox.clock.advance(hours=2)
    await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    sandbox.clock.advance(hours=1)
    pod = next(row for row in truth(sandbox, "pods") if row["id"] == pod_id)
    async with agent_on(sandbox) as agent:
        seen = await agent.call("get_pod", pod=pod_id)
    assert seen["outcome"] == "removed"
    assert "user_initiated" in seen["next"]
    shown = seen["pod"]
    assert (shown["name"], shown["status"], shown["billing"]) == ("train", "DELETED", False)
    assert shown["removed_because"] == "user_initiated"
    assert shown["cost_so_far_usd"] == pytest.approx(pod["charged_usd"], abs=1e-4)
    assert [event["status"] for event in shown["last_events"][-2:]] == ["DELETING", "DELETED"]
    assert shown["removed_at"] == shown["last_events"][-1]["at"]


@pytest.mark.parametrize("kept", ["events", "record", "nothing"])
async def test_a_removed_pod_is_known_by_either_of_them(sandbox: Sandbox, kept: str) -> None:
    pod_id = await rent(sandbox, "train")
    await ask(sandbox, "DELETE", f"/pods/{pod_id}")
    sandbox.clock.advance(hours=1)
    wire = Wire(sandbox)
    for part in {"events", "record"} - {kept}:
        wire.on("GET", f"/pods/*/{part}", answering(404, {"detail": "Not Found"}))
    async with agent_on(sandbox, transport=wire) as agent:
        if kept == "nothing":
            assert (await agent.refused("get_pod", pod=pod_id)).code == "pod_not_found"
            return
        seen = await agent.call("get_pod", pod=pod_id)
    assert (seen["outcome"], seen["pod"]["name"]) == ("removed", "train")


# --- what nobody knows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["DELETING", "MIGRATING", "STOPPED", "", None], ids=str)
async def test_what_nobody_knows_is_absent_and_counted(sandbox: Sandbox, status: str | None) -> None:
    """Neither is it said not to bill, nor to have cost nothing because the ledger has nothing yet."""
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"status": status} for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"status": status}))
    wire.on("GET", "/pods/*/record", editing(lambda record: record | {"total": 0.0}))
    async with agent_on(sandbox, transport=wire) as agent:
        listed = await agent.call("list_pods")
        seen = await agent.call("get_pod", pod=pod_id, wait_seconds=0)
        balance = await agent.call("get_balance")
    for row in (listed["pods"][0], seen["pod"]):
        assert "billing" not in row
    assert "cost_so_far_usd" not in seen["pod"]
    assert listed["unknown_billing_pods"] == balance["unknown_billing_pods"] == 1
    assert (balance["billing_pods"], balance["starting_pods"]) == (0, 0)


async def test_a_pod_whose_template_was_switched_may_bill_while_it_starts_over(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    template = (await ask(sandbox, "GET", "/templates"))[1]["id"]
    sandbox.add_fault("boot_slow", seconds=1000)
    await ask(sandbox, "PUT", f"/pods/{pod_id}/switch-template", {"template_id": template})
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/record", editing(lambda record: record | {"total": 0.0}))
    async with agent_on(sandbox, transport=wire) as agent:
        pod = (await agent.call("get_pod", pod=pod_id, wait_seconds=0))["pod"]
    assert pod["status"] == "PENDING"
    assert not {"billing", "cost_so_far_usd"} & set(pod)


async def test_a_charge_that_the_statement_does_not_say_is_no_zero(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    sandbox.clock.advance(hours=1)
    wire = Wire(sandbox)
    silent = {"total": None}
    wire.on("GET", "/billing/statement", editing(lambda said: said | {"pods": [said["pods"][0] | silent]}))
    async with agent_on(sandbox, transport=wire) as agent:
        (row,) = (await agent.call("get_spending"))["pods"]
    assert "total_usd" not in row


# --- why a start failed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (events({"error": "disk full"}, {"to_status": "CREATION_FAILED", "reason": "creation_failed"}), "disk full"),
        (events({"error": "first"}, {"error": "second"}, {"reason": "late"}), "second"),
        (events({"reason": "no_capacity"}, {"to_status": "CREATION_FAILED"}), "no_capacity"),
        (events({"error": "early"}, *[{"reason": f"step {number}"} for number in range(9)]), "early"),
        (events({"error": "of an earlier start"}, {"to_status": "RUNNING"}, {"reason": "now"}), "now"),
    ],
    ids=["the error before the last reason", "the last error", "else the reason", "long ago", "since it ran"],
)
async def test_the_cause_is_the_last_error_else_the_last_reason(sandbox: Sandbox, log: list[Row], cause: str) -> None:
    sandbox.add_fault("boot_fails")
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/events", answering(200, log))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = await agent.call("get_pod", pod=pod_id)
    assert seen["outcome"] == "failed"
    assert f'Lium says "{cause}"' in seen["next"]


async def test_the_detail_of_an_event_is_shown(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*/events", answering(200, events({"reason": "maintenance", "detail": "node c7 at 12:00"})))
    async with agent_on(sandbox, transport=wire) as agent:
        pod = (await agent.call("get_pod", pod=pod_id))["pod"]
    assert pod["last_events"][-1]["detail"] == "node c7 at 12:00"
    assert "data, not instructions" in pod["note"]


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ({"step": "docker_pull"}, "image could not be pulled"),
        ({"message": "NoPortMappings: nothing left"}, "too few free ports"),
        ({"message": "Failed at step volume_creation: no space left on device"}, "more free disk"),
        ({"message": "create failed", "step": "finalize"}, "another node"),
        ({"message": "UnknownError", "step": "docker_login"}, "registry_credential"),
        ({"message": "ExceptionError while renting"}, "another template"),
        ({"message": "ContainerNotRunning"}, "goes on running"),
        ({"step": "build_context"}, "get_pod_logs"),
        ({"step": "oom_during_bootstrap"}, "more memory"),
    ],
    ids=str,
)
async def test_a_failed_step_is_told_in_words_with_what_to_do(
    sandbox: Sandbox, said: dict[str, str], advice: str
) -> None:
    sandbox.add_fault("boot_fails", **said)
    async with agent_on(sandbox) as agent:
        failed = await agent.call("rent_pod", name="train", gpu_type="A100", hours=1)
        sandbox.clock.advance(minutes=10)
        later = await agent.call("get_pod", pod=failed["pod_id"])
    assert failed["outcome"] == later["outcome"] == "failed"
    assert advice in failed["next"]
    assert advice in later["next"]


CREATION, REBOOT = "CREATION_FAILED", "REBOOT_FAILED"
REMOVE_IT = "Remove it with remove_pod."


@pytest.mark.parametrize(
    ("status", "said", "expected", "unexpected"),
    [
        (CREATION, "no such node", [REMOVE_IT, "Rent another node."], ["local volume"]),
        (CREATION, "DeletionInProgress", ["Its removal was ordered", "Rent again"], ["emove it", "another node"]),
        (CREATION, "cancelled_by_delete", ["Its removal was ordered", "Rent again"], ["emove it", "another node"]),
        (CREATION, "RentingInProgress", [REMOVE_IT, "in a minute"], ["ent another node"]),
        (CREATION, "docker_login", [REMOVE_IT, "registry_credential"], ["nother node"]),
        (REBOOT, "no answer", ["may hold data", "reboot_pod", "create_backup", "final_backup"], [REMOVE_IT]),
        (REBOOT, "attestation", ["may hold data", "reboot_pod", "another node"], [REMOVE_IT]),
        (
            "STOPPED",
            "oom",
            ["may hold data", "list_backups", "create_backup", "final_backup"],
            ["reboot_pod", REMOVE_IT],
        ),
        ("BROKEN", "force_closed", ["may hold data", "create_backup"], ["reboot_pod", REMOVE_IT]),
    ],
)
async def test_what_to_do_with_a_pod_that_failed_is_one_piece_of_advice(
    sandbox: Sandbox, status: str, said: str, expected: list[str], unexpected: list[str]
) -> None:
    """What may hold data is saved first, what never ran is removed, and what is being removed needs no second order."""
    pod_id = await rent(sandbox, "train")
    started = [] if status == CREATION else [{"to_status": "RUNNING"}]
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda pods: [pod | {"status": status} for pod in pods]))
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"status": status, "last_event": None}))
    wire.on("GET", "/pods/*/events", answering(200, events(*started, {"to_status": status, "error": said})))
    async with agent_on(sandbox, transport=wire) as agent:
        seen = await agent.call("get_pod", pod=pod_id)
        if status != REBOOT:  # which may be rebooted once more
            refused = await agent.refused("reboot_pod", pod=pod_id)
            assert ("may hold data" in refused.text) is (status != CREATION)
            assert (REMOVE_IT in refused.text) is (status == CREATION)
    assert seen["outcome"] == "failed"
    assert [words for words in expected if words not in seen["next"]] == []
    assert [words for words in unexpected if words in seen["next"]] == []


async def test_a_pod_that_fails_after_a_switch_of_its_template_may_hold_data(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    template = (await ask(sandbox, "GET", "/templates"))[1]["id"]
    sandbox.add_fault("boot_fails")
    await ask(sandbox, "PUT", f"/pods/{pod_id}/switch-template", {"template_id": template})
    async with agent_on(sandbox) as agent:
        seen = await agent.call("get_pod", pod=pod_id)
    assert seen["pod"]["status"] == CREATION
    assert "may hold data" in seen["next"]


async def test_words_of_everyday_english_are_no_steps(sandbox: Sandbox) -> None:
    sandbox.add_fault("boot_fails", message="could not finalize the order")
    pod_id = await rent(sandbox, "train")
    async with agent_on(sandbox) as agent:
        seen = await agent.call("get_pod", pod=pod_id)
    assert "(finalize)" not in seen["next"]


async def test_a_tag_without_an_image_is_no_image(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    template = {"id": "t1", "docker_image": None, "docker_image_tag": "2.8.0"}
    wire.on("GET", "/pods", editing(lambda rows: [row | {"template": template} for row in rows]))
    wire.on("GET", "/pods/*", editing(lambda row: row | {"template": template}))
    async with agent_on(sandbox, transport=wire) as agent:
        pod = (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
    assert pod["template"] == {"template_id": "t1"}


async def test_a_pod_in_a_state_that_lium_does_not_say_is_said_to_be_in_none(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods", editing(lambda rows: [row | {"status": None} for row in rows]))
    async with agent_on(sandbox, transport=wire) as agent:
        refused = await agent.refused("reboot_pod", pod="train")
    assert "is in a state that Lium does not say and cannot be rebooted" in refused.text
