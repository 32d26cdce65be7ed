"""Pods changed by an agent: rebooted, removed for good, given a removal time, and never lied about."""

from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, Mode, agent_on
from tests.wires import (
    Act,
    Forward,
    Wire,
    after_work,
    answering,
    ask,
    editing,
    failing,
    first,
    lag,
    living,
    losing_the_answer,
    rent,
    then,
    truth,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
TAKES_A_POD: dict[str, dict[str, Any]] = {
    "get_pod": {},
    "reboot_pod": {},
    "remove_pod": {},
    "schedule_pod_removal": {"hours_from_now": 1},
    "cancel_pod_removal": {},
    "get_pod_logs": {},
}

Row = dict[str, Any]
LATER = "2099-01-01T00:00:00"


def pod_of(sandbox: Sandbox, pod_id: str) -> Row:
    return next(pod for pod in truth(sandbox, "pods") if pod["id"] == pod_id)


def now(sandbox: Sandbox) -> datetime:
    return datetime.fromisoformat(truth(sandbox, "now"))


# --- rebooting -------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_reboot_is_waited_for(sandbox: Sandbox, mode: Mode) -> None:
    pod_id = await rent(sandbox, "train")
    async with agent_on(sandbox, mode=mode) as agent:
        rebooted = await agent.call("reboot_pod", pod="train")
        assert any("REBOOT_PENDING" in message for message in agent.progress)
    assert rebooted["outcome"] == "done"
    kinds = [event["sub_event_type"] for event in truth(sandbox, "events") if event["pod_id"] == pod_id]
    assert kinds.count("pod-reboot.success") == 1


async def test_a_reboot_that_fails_is_a_failure_that_still_bills(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "train")
    sandbox.add_fault("reboot_fails", message="container did not come back")
    rebooted = await agent.call("reboot_pod", pod="train")
    assert rebooted["outcome"] == "failed"
    assert rebooted["pod"]["status"] == "REBOOT_FAILED"
    assert rebooted["pod"]["billing"] is True
    assert "container did not come back" in rebooted["next"] or "reboot_failed" in rebooted["next"]


async def test_a_pod_that_does_not_run_is_not_rebooted(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "train", boot=False)
    failure = await agent.refused("reboot_pod", pod="train")
    assert failure.code == "pod_not_running"
    assert "get_pod" in failure.text
    assert not [note for note in truth(sandbox, "requests") if note["path"].endswith("/reboot")]


@pytest.mark.parametrize("lost", [losing_the_answer(), after_work(answering(502, b"<html>"))], ids=["lost", "502"])
async def test_a_reboot_whose_answer_is_lost_is_unknown_and_not_repeated(sandbox: Sandbox, lost: Act) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reboot", lost)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("reboot_pod", pod="train")
    assert failure.code == "outcome_unknown"
    assert "Nothing was changed" not in failure.text
    assert len(wire.sent("POST", "/pods/*/reboot")) == 1


async def test_a_reboot_that_is_only_acknowledged_is_looked_at(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reboot", after_work(answering(200, b'{"success": true}')))
    async with agent_on(sandbox, transport=wire) as agent:
        rebooted = await agent.call("reboot_pod", pod="train")
        assert any("REBOOT_PENDING" in message for message in agent.progress)
    assert (rebooted["outcome"], rebooted["pod"]["pod_id"]) == ("done", pod_id)


async def test_a_pod_that_is_shown_as_before_is_waited_for_until_its_reboot_is_seen(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    lag(wire, sandbox, "POST", "/pods/*/reboot", f"/pods/{pod_id}", seconds=3)
    async with agent_on(sandbox, transport=wire) as agent:
        rebooted = await agent.call("reboot_pod", pod="train")
    assert rebooted["outcome"] == "done"
    assert rebooted["pod"]["last_events"][-1]["status"] == "RUNNING"
    assert pod_of(sandbox, pod_id)["status"] == "RUNNING"


@pytest.mark.parametrize("before", ["RUNNING", "REBOOT_FAILED"])
async def test_a_reboot_of_which_no_sign_is_seen_is_neither_done_nor_failed(sandbox: Sandbox, before: str) -> None:
    pod_id = await rent(sandbox, "train")
    if before != "RUNNING":
        sandbox.add_fault("reboot_fails")
        await ask(sandbox, "POST", f"/pods/{pod_id}/reboot", {})
        sandbox.clock.advance(minutes=1)
    wire = Wire(sandbox)
    lag(wire, sandbox, "POST", "/pods/*/reboot", f"/pods/{pod_id}", seconds=3600)
    async with agent_on(sandbox, transport=wire) as agent:
        rebooted = await agent.call("reboot_pod", pod="train", wait_seconds=600)
        assert agent.clock.slept_seconds < 60
    assert (rebooted["outcome"], rebooted["pod"]["status"]) == ("pending", before)
    assert "no sign of the change was seen" in rebooted["next"]


def event(kind: str, status: str | None = None) -> Row:
    return {"id": "e-new", "created_at": LATER, "sub_event_type": kind, "to_status": status}


@pytest.mark.parametrize(
    ("shown", "is_sign"),
    [
        ({"updated_at": LATER}, True),
        ({"ssh_connect_cmd": "ssh root@192.0.2.7 -p 2222"}, True),
        ({"last_event": event("pod-lifecycle.status", "RUNNING")}, True),
        ({"last_event": event("pod-reboot.success")}, True),
        ({"last_event": event("pod-reboot.requested")}, False),
        ({"last_event": event("pod-reboot.success", "REBOOT_PENDING")}, False),
        ({"last_event": event("pod-add-ssh-key.success")}, False),
        ({"last_event": None, "updated_at": None, "template": None}, False),
    ],
    ids=str,
)
async def test_what_a_running_pod_shows_tells_whether_its_reboot_is_over(
    sandbox: Sandbox, shown: Row, is_sign: bool
) -> None:
    pod_id = await rent(sandbox, "train")
    row = await ask(sandbox, "GET", f"/pods/{pod_id}")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/reboot", then(lambda: wire.on("GET", "/pods/*", answering(200, row | shown))))
    async with agent_on(sandbox, transport=wire) as agent:
        rebooted = await agent.call("reboot_pod", pod="train")
    assert (rebooted["outcome"] == "done") is is_sign


# --- removing --------------------------------------------------------------------------------------------------------


@both_eras
async def test_a_removed_pod_is_gone_and_its_cost_is_told(sandbox: Sandbox, mode: Mode) -> None:
    pod_id, other = await rent(sandbox, "train"), await rent(sandbox, "other")
    sandbox.clock.advance(hours=2)
    async with agent_on(sandbox, mode=mode) as agent:
        ordered = await agent.call("remove_pod", pod="train", wait_seconds=0)
        removed = await agent.call("remove_pod", pod=pod_id)
        assert (ordered["outcome"], removed["outcome"]) == ("pending", "done")
        assert removed["pod_id"] == pod_id
        assert removed["charged_usd"] == pytest.approx(pod_of(sandbox, pod_id)["charged_usd"], abs=1e-4)
        assert [pod["id"] for pod in living(sandbox)] == [other]
        assert (await agent.refused("remove_pod", pod=pod_id)).code == "pod_not_found"
    orders = [row for row in truth(sandbox, "requests") if row["method"] == "DELETE"]
    assert len(orders) == 1
    sandbox.clock.advance(hours=2)
    assert pod_of(sandbox, pod_id)["charged_usd"] == pytest.approx(removed["charged_usd"], abs=1e-4)


async def test_a_removal_that_is_not_waited_for_is_pending(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "train")
    removed = await agent.call("remove_pod", pod="train", wait_seconds=0)
    assert removed["outcome"] == "pending"
    assert "get_pod with this pod_id" in removed["next"]
    assert agent.clock.slept_seconds == 0
    assert living(sandbox) == []


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_pod_that_is_still_being_removed_may_bill_unless_its_record_says_that_it_is_gone(
    sandbox: Sandbox, recorded: bool
) -> None:
    pod_id = await rent(sandbox, "train")
    sandbox.add_fault("delete_slow", seconds=3600)
    wire = Wire(sandbox)
    if recorded:
        wire.on("GET", "/pods/*/record", editing(lambda record: record | {"removed": True}))
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod="train", wait_seconds=20)
    assert pod_of(sandbox, pod_id)["status"] == "DELETING"
    assert removed["outcome"] == ("done" if recorded else "pending")
    assert ("It may still bill" in removed.get("next", "")) is not recorded


async def test_a_pod_that_is_not_shown_is_not_removed_while_its_record_says_that_it_is_not(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)

    async def hidden(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        wire.on("GET", "/pods", editing(lambda rows: [row for row in rows if row["id"] != pod_id]))
        wire.on("GET", f"/pods/{pod_id}", answering(404, {"message": "Pod not found", "status_code": 404}))
        return await answering(200, {"success": True})(request, forward)

    wire.on("DELETE", "/pods/*", hidden)
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod="train", wait_seconds=20)
        assert removed["outcome"] == "pending"
        assert "charged_usd" not in removed
        assert "It may still bill" in removed["next"]
        for tool in ("get_pod", "remove_pod"):
            failure = await agent.refused(tool, pod=pod_id)
            assert failure.code == "pod_not_known_yet"
            assert "its record of it says that it is not removed" in failure.text
            assert "it may bill" in failure.text
            assert "call remove_pod again" in failure.text
        wire.behave()
        assert (await agent.call("get_pod", pod=pod_id))["pod"]["status"] == "RUNNING"
        assert (await agent.call("remove_pod", pod=pod_id))["outcome"] == "done"
    assert living(sandbox) == []


async def test_a_pod_that_still_starts_is_not_removed_and_says_what_can_be_done(sandbox: Sandbox, agent: Agent) -> None:
    pod_id = await rent(sandbox, "train", boot=False)
    failure = await agent.refused("remove_pod", pod="train")
    assert failure.code == "removal_refused"
    assert "PENDING" in failure.text
    assert "get_pod" in failure.text
    assert "schedule_pod_removal" in failure.text
    assert "The pod is still there." in failure.text
    await agent.call("get_pod", pod=pod_id)
    assert (await agent.call("remove_pod", pod="train"))["outcome"] == "done"


@pytest.mark.parametrize("status", [400, 409])
@pytest.mark.parametrize(
    "said", ["Pod is already DELETING", "Pod deletion already in progress", "The pod train is being removed."]
)
async def test_a_pod_that_lium_calls_leaving_needs_no_other_order(sandbox: Sandbox, status: int, said: str) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*", answering(status, {"message": said, "status_code": status}))
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod="train", wait_seconds=5)
    assert removed["outcome"] == "pending"
    assert "may still bill" in removed["next"]


async def test_a_running_pod_that_is_not_removed_is_not_said_to_start(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*", answering(409, {"message": "A backup is running", "status_code": 409}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("remove_pod", pod="train")
    assert failure.code == "removal_refused"
    assert "wait for what is running" in failure.text
    assert "still starting" not in failure.text


async def test_a_pod_that_went_meanwhile_is_removed(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)

    async def too_late(request: httpx2.Request, forward: Forward) -> httpx2.Response:
        await ask(sandbox, "DELETE", f"/pods/{pod_id}")
        sandbox.clock.advance(minutes=1)
        return await forward(request)

    wire.on("DELETE", "/pods/*", too_late)
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod=pod_id)
    assert removed["outcome"] == "done"
    assert living(sandbox) == []


@pytest.mark.parametrize(
    "lost",
    [losing_the_answer(), after_work(answering(500, b"{}")), after_work(answering(502, b"<html>"))],
    ids=["lost", "500", "502"],
)
async def test_a_removal_whose_answer_is_lost_is_settled_by_the_list(sandbox: Sandbox, lost: Act) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*", lost)
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod="train")
    assert removed["outcome"] == "done"
    assert living(sandbox) == []
    assert len(wire.sent("DELETE", "/pods/*")) == 1


@pytest.mark.parametrize(
    "lost",
    [failing(httpx2.ReadError("lost")), answering(500, {"detail": "oops"}), answering(503, None)],
    ids=["lost", "500", "503"],
)
async def test_a_removal_that_may_not_have_happened_is_unknown(sandbox: Sandbox, lost: Act) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*", lost)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("remove_pod", pod="train")
    assert failure.code == "outcome_unknown"
    assert "Nothing was changed" not in failure.text
    assert len(living(sandbox)) == 1


async def test_a_removal_that_nobody_can_look_behind_is_unknown(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*", losing_the_answer())

    def dark() -> None:
        wire.on("GET", "/pods/*", failing(httpx2.ReadError("dark")))

    wire.on("GET", "/pods", then(dark), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("remove_pod", pod="train")
    assert failure.code == "outcome_unknown"
    assert "Nothing was changed" not in failure.text


async def test_a_removal_that_the_key_may_not_do_changes_nothing(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    body = {
        "error": {"code": "missing_scope", "message": "x"},
        "message": "API key 'a' does not have the 'manage' scope",
    }
    wire.on("DELETE", "/pods/*", answering(403, body))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("remove_pod", pod="train")
    assert failure.code == "scope_missing"
    assert "Nothing was changed." in failure.text


async def test_a_removal_goes_on_while_nothing_can_be_read(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)

    def dark() -> None:
        wire.on("GET", "/pods/**", answering(500, {"detail": "oops"}))

    wire.on("DELETE", "/pods/*", first(dark))
    async with agent_on(sandbox, transport=wire) as agent:
        removed = await agent.call("remove_pod", pod="train")
    assert removed["outcome"] == "pending"
    assert living(sandbox) == []


# --- the removal time ------------------------------------------------------------------------------------------------


@both_eras
@pytest.mark.parametrize("hours", [0.25, 3, 100])
async def test_a_removal_time_is_set_and_read_back(sandbox: Sandbox, mode: Mode, hours: float) -> None:
    pod_id = await rent(sandbox, "train")
    async with agent_on(sandbox, mode=mode) as agent:
        schedule = await agent.call("schedule_pod_removal", pod="train", hours_from_now=hours)
    row = pod_of(sandbox, pod_id)
    scheduled = datetime.fromisoformat(row["removal_scheduled_at"] + "+00:00")
    assert datetime.fromisoformat(schedule["removal_at"]) == scheduled.replace(microsecond=0)
    assert abs(scheduled - now(sandbox) - timedelta(hours=hours)) < timedelta(minutes=1)
    assert schedule["hours_left"] == pytest.approx(hours, abs=0.02)
    assert schedule["cost_until_then_usd"] == pytest.approx(hours * row["price"], rel=0.05, abs=0.02)
    sandbox.clock.advance(hours=hours, minutes=5)
    assert living(sandbox) == []


async def test_a_new_removal_time_replaces_the_old_one(sandbox: Sandbox, agent: Agent) -> None:
    await rent(sandbox, "train", termination_hours=1)
    await agent.call("schedule_pod_removal", pod="train", hours_from_now=10)
    sandbox.clock.advance(hours=2)
    assert living(sandbox)
    sandbox.clock.advance(hours=9)
    assert living(sandbox) == []


async def test_a_removal_time_can_be_cancelled(sandbox: Sandbox, agent: Agent) -> None:
    pod_id = await rent(sandbox, "train", termination_hours=1)
    for _ in range(2):
        answer = await agent.call("cancel_pod_removal", pod="train")
        assert "It bills until" in answer.pop("next")
        assert answer == {"pod_id": pod_id, "name": "train"}
    sandbox.clock.advance(hours=5)
    assert living(sandbox)


@pytest.mark.parametrize("tool", ["schedule_pod_removal", "cancel_pod_removal"])
async def test_a_time_that_the_boot_will_replace_says_so(sandbox: Sandbox, agent: Agent, tool: str) -> None:
    pod_id = await rent(sandbox, "train", boot=False, termination_hours=9)
    before = await agent.call(tool, pod="train", **TAKES_A_POD[tool])
    assert "9 hours" in before["next"]
    sandbox.clock.advance(minutes=1)
    left = datetime.fromisoformat(pod_of(sandbox, pod_id)["removal_scheduled_at"] + "+00:00") - now(sandbox)
    assert left.total_seconds() == pytest.approx(9 * 3600, abs=120)
    assert "9 hours" not in (await agent.call(tool, pod="train", **TAKES_A_POD[tool])).get("next", "")


@pytest.mark.parametrize("hours", [0, -1, 8761, "nan", "inf", "soon", None])
async def test_hours_out_of_range_are_refused_by_name(sandbox: Sandbox, agent: Agent, hours: Any) -> None:
    await rent(sandbox, "train")
    failure = await agent.refused("schedule_pod_removal", pod="train", hours_from_now=hours)
    assert failure.code == "invalid_argument"
    assert "hours_from_now" in failure.text


async def test_a_time_that_is_past_when_it_arrives_is_refused(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/schedule-removal", first(lambda: sandbox.clock.advance(minutes=10)))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("schedule_pod_removal", pod="train", hours_from_now=0.01)
    assert failure.code == "refused"
    assert "future" in failure.text
    assert pod_of(sandbox, pod_id)["removal_scheduled_at"] is None


async def test_a_removal_time_that_is_not_shown_afterwards_is_no_success(sandbox: Sandbox) -> None:
    await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"removal_scheduled_at": None}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused("schedule_pod_removal", pod="train", hours_from_now=1)
    assert failure.code == "schedule_not_confirmed"
    assert "may bill" in failure.text


@pytest.mark.parametrize("tool", ["schedule_pod_removal", "cancel_pod_removal"])
async def test_a_removal_time_that_stays_as_it_was_is_no_success(sandbox: Sandbox, tool: str) -> None:
    pod_id = await rent(sandbox, "train", termination_hours=5)
    shown = pod_of(sandbox, pod_id)["removal_scheduled_at"]
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/schedule-removal", answering(200, {"message": "ok"}))
    wire.on("DELETE", "/pods/*/schedule-removal", answering(200, {"message": "ok"}))
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused(tool, pod="train", **TAKES_A_POD[tool])
    assert failure.code == "schedule_not_confirmed"
    assert f"shows its removal at {shown[:19]}Z" in failure.text
    assert "bills until then" in failure.text


async def test_nothing_to_cancel_is_as_good_as_cancelled(sandbox: Sandbox) -> None:
    pod_id = await rent(sandbox, "train")
    wire = Wire(sandbox)
    wire.on("DELETE", "/pods/*/schedule-removal", answering(404, {"message": "No schedule", "status_code": 404}))
    async with agent_on(sandbox, transport=wire) as agent:
        answer = await agent.call("cancel_pod_removal", pod="train")
        assert (answer["pod_id"], "removal_at" in answer) == (pod_id, False)
        await ask(sandbox, "POST", f"/pods/{pod_id}/schedule-removal", {"removal_scheduled_at": f"{LATER}Z"})
        failure = await agent.refused("cancel_pod_removal", pod="train")
        assert failure.code == "schedule_not_confirmed"
        assert f"finds no scheduled removal of train ({pod_id}), but shows its removal at {LATER}Z" in failure.text
        wire.on("GET", "/pods/*", answering(404, {"message": "Pod not found", "status_code": 404}))
        assert (await agent.refused("cancel_pod_removal", pod="train")).code == "not_found"


@pytest.mark.parametrize("tool", ["reboot_pod", "schedule_pod_removal", "cancel_pod_removal"])
@pytest.mark.parametrize("status", [404, 500])
async def test_a_look_that_fails_after_a_change_does_not_deny_the_change(
    sandbox: Sandbox, tool: str, status: int
) -> None:
    await rent(sandbox, "train", termination_hours=5)
    wire = Wire(sandbox)
    broken = then(lambda: wire.on("GET", "/pods/*", answering(status, {"detail": "no"})))
    wire.on("POST", "/pods/*/*", broken)
    wire.on("DELETE", "/pods/*/schedule-removal", broken)
    async with agent_on(sandbox, transport=wire) as agent:
        failure = await agent.refused(tool, pod="train", **TAKES_A_POD[tool])
    assert "Nothing was changed" not in failure.text
    assert "train" in failure.text


@pytest.mark.parametrize("tool", ["schedule_pod_removal", "cancel_pod_removal"])
async def test_a_removal_time_whose_answer_is_lost_is_sent_again_or_unknown(sandbox: Sandbox, tool: str) -> None:
    await rent(sandbox, "train", termination_hours=5)
    wire = Wire(sandbox)
    wire.on("POST", "/pods/*/schedule-removal", losing_the_answer(), times=1)
    wire.on("DELETE", "/pods/*/schedule-removal", losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        result = await agent.raw(tool, pod="train", **TAKES_A_POD[tool])
    if tool == "schedule_pod_removal":
        assert not result.is_error
    else:
        assert (result.meta or {})["lium-mcp/error"]["code"] == "outcome_unknown"
        assert living(sandbox)[0]["removal_scheduled_at"] is None
