"""After the rent: whatever fails from there on, the answer names the pod that bills and says what it is."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import PUBLIC_KEY, Agent, Mode, agent_on
from tests.wires import (
    Wire,
    answering,
    ask,
    editing,
    failing,
    first,
    list_late,
    living,
    losing_the_answer,
    make_template,
    offers,
    rents,
    truth,
)

both_eras = pytest.mark.parametrize("mode", ["auto", "legacy"])
BY_SPEC = {"name": "train", "gpu_type": "RTX4090", "hours": 2}
NEW = ("rent_by_spec", "rent_idempotency", "run_record")
OLD = ("run_record",)

Row = dict[str, Any]


def asked(sandbox: Sandbox) -> list[Row]:
    """The bodies of all rent requests that arrived."""
    return [note["body"] for note in truth(sandbox, "requests") if "body" in note]


def hours(number: float) -> Any:
    """That many hours, give or take what a scheduled removal may be off."""
    return pytest.approx(number * 3600, abs=180)


# --- after the rent --------------------------------------------------------------------------------------------------


@both_eras
async def test_a_pod_that_does_not_boot_is_a_failure_with_its_cause(sandbox: Sandbox, mode: Mode) -> None:
    sandbox.add_fault("boot_fails", message="manifest unknown")
    async with agent_on(sandbox, mode=mode) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC)
    assert rented["outcome"] == "failed"
    assert rented["pod_id"] == rents(sandbox)[0]["pod_id"]
    assert "manifest unknown" in rented["next"]
    assert rented["pod"]["billing"] is False
    assert "warnings" not in rented


async def test_a_spot_pod_that_is_reclaimed_at_once_is_a_failure(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        node = next(row for row in await offers(sandbox) if row["tier"] == "spot")
        sandbox.add_fault("spot_reclaim")
        rented = await agent.call("rent_pod", name="train", executor_id=node["id"], hours=1)
    assert rented["outcome"] == "failed"
    assert rented["pod_id"] == rents(sandbox)[0]["pod_id"]
    assert "gone" in rented["next"]
    assert rented["pod"]["billing"] is False
    assert living(sandbox) == []


async def test_a_slow_boot_is_pending_and_names_the_pod(sandbox: Sandbox, agent: Agent) -> None:
    sandbox.add_fault("boot_slow", seconds=1000)
    rented = await agent.call("rent_pod", **BY_SPEC)
    assert rented["outcome"] == "pending"
    assert rented["pod"]["status"] == "PENDING"
    assert 45 <= agent.clock.slept_seconds < 60
    waited = await agent.call("get_pod", pod=rented["pod_id"], wait_seconds=600)
    assert waited["outcome"] == "pending"
    assert (await agent.call("get_pod", pod=rented["pod_id"], wait_seconds=600))["outcome"] == "done"


async def test_no_wait_asks_for_no_time(agent: Agent) -> None:
    rented = await agent.call("rent_pod", **BY_SPEC, wait_seconds=0)
    assert rented["outcome"] == "pending"
    assert rented["pod_id"]
    assert agent.clock.slept_seconds == 0


BROKEN = {
    "500": answering(500, {"detail": "oops"}),
    "404": answering(404, {"detail": "Not Found"}),
    "401": answering(401, {"detail": "no"}),
    "garbage": answering(200, b"\x00{["),
    "another shape": answering(200, b'{"items": [1, null]}'),
    "cut": failing(httpx2.ReadError("reset")),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize(
    "call",
    [
        ("GET", "/pods/*"),
        ("GET", "/pods/*/events"),
        ("GET", "/pods/*/record"),
        ("POST", "/pods/*/schedule-removal"),
        ("GET", "/version"),
    ],
    ids=lambda call: f"{call[0]} {call[1]}",
)
async def test_nothing_that_fails_after_the_rent_hides_the_pod(
    sandbox: Sandbox, call: tuple[str, str], broken: str
) -> None:
    wire = Wire(sandbox)
    wire.on(*call, BROKEN[broken])
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **(BY_SPEC | {"hours": 1.5, "wait_seconds": 60}))
    (record,) = rents(sandbox)
    assert rented["pod_id"] == record["pod_id"]
    if call == ("GET", "/pods/*"):
        assert rented["outcome"] == "pending"
        assert "may bill" in rented["next"]
    else:
        assert rented["outcome"] == "done"
    if call[0] == "POST" and broken not in {"garbage", "another shape"}:
        assert any("schedule_pod_removal" in warning for warning in rented["warnings"])


# --- the official parameters -----------------------------------------------------------------------------------------


async def test_the_parameters_of_the_official_server_work(sandbox: Sandbox, agent: Agent) -> None:
    template_id = await make_template(sandbox, "mine")
    rented = await agent.call(
        "rent_pod",
        **BY_SPEC,
        timeout_seconds=0,
        template_id=template_id,
        enable_backups=False,
        known_pod_ids='["a", "b"]',
    )
    assert rented["outcome"] == "pending"
    (body,) = asked(sandbox)
    assert body["template_id"] == template_id
    assert body["enable_backups"] is False
    tools = {tool.name: tool for tool in (await agent.client.list_tools()).tools}
    assert not {"dry_run", "known_pod_ids", "timeout_seconds"} & set(tools["rent_pod"].input_schema["properties"])


@pytest.mark.parametrize("features", [NEW, OLD], ids=["by spec", "old server"])
@both_eras
async def test_a_dry_run_says_what_it_would_rent_and_rents_nothing(features: tuple[str, ...], mode: Mode) -> None:
    sandbox = Sandbox(seed=7, speed=0, features=features)
    async with agent_on(sandbox, mode=mode) as agent:
        dry = await agent.call("rent_pod", **BY_SPEC, dry_run=True)
        assert rents(sandbox) == []
        assert not any("idempotency-key" in note["headers"] for note in truth(sandbox, "requests"))
        assert dry["outcome"] == "dry_run"
        assert dry["total_usd"] == pytest.approx(2 * dry["price_per_hour_usd"], abs=1e-3)
        assert "pod_id" not in dry
        await agent.call("rent_pod", **BY_SPEC, wait_seconds=0)
    (record,) = rents(sandbox)
    assert (dry["executor_id"], dry["gpu_count"]) == (record["executor_id"], record["gpu_count"])
    assert dry["price_per_hour_usd"] == pytest.approx(record["price_per_hour"])


async def test_backups_are_on_unless_they_are_declined(sandbox: Sandbox, agent: Agent) -> None:
    await agent.call("rent_pod", **BY_SPEC, wait_seconds=0)
    assert asked(sandbox)[0]["enable_backups"] is True


async def test_a_market_that_moves_between_choice_and_rent_rents_one_pod(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/executors/*/rent", first(lambda: sandbox.clock.advance(hours=3)))
    async with agent_on(sandbox, transport=wire) as agent:
        node = (await offers(sandbox, "4090"))[0]
        result = await agent.raw("rent_pod", name="train", executor_id=node["id"], hours=1)
    assert len(rents(sandbox)) == (0 if result.is_error else 1)


async def test_a_pod_that_is_dearer_than_it_was_offered_at_says_both_prices(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"price": 99.5}))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC, wait_seconds=0)
    (record,) = rents(sandbox)
    assert rented["pod"]["price_per_hour_usd"] == 99.5
    (said,) = (warning for warning in rented["warnings"] if "$99.5000" in warning)
    assert f"${record['price_per_hour']:.4f}" in said
    assert "remove_pod" in said


@pytest.mark.parametrize("written", ["1_0", "0x10", " 1e1 "])
@pytest.mark.parametrize("name", ["gpu_count", "hours", "max_usd_per_gpu_hour"])
async def test_a_figure_as_text_is_plain_digits(sandbox: Sandbox, agent: Agent, name: str, written: str) -> None:
    refusal = await agent.refused("rent_pod", **BY_SPEC | {name: written})
    assert name in refusal.text
    assert rents(sandbox) == []


@pytest.mark.parametrize("least", [1e-9, 0.09])
async def test_a_life_too_short_to_boot_in_is_refused_by_name(sandbox: Sandbox, agent: Agent, least: float) -> None:
    refusal = await agent.refused("rent_pod", **BY_SPEC | {"hours": least})
    assert "hours" in refusal.text
    assert rents(sandbox) == []


async def test_the_same_call_rents_anew_once_the_record_says_that_its_pod_was_removed(sandbox: Sandbox) -> None:
    wanted: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2}
    async with agent_on(sandbox) as agent:
        first = await agent.call("rent_pod", **wanted)
        await ask(sandbox, "DELETE", f"/pods/{first['pod_id']}")  # on the web site, say
        sandbox.clock.advance(seconds=10)
        second = await agent.call("rent_pod", **wanted)
        assert second["outcome"] == "done"
        assert "already_rented" not in second
        assert second["pod_id"] != first["pod_id"]
    assert [pod["id"] for pod in living(sandbox)] == [second["pod_id"]]


# --- what an answer says of the pod ----------------------------------------------------------------------------------


async def test_an_answer_says_on_what_the_pod_runs_and_who_logs_in(sandbox: Sandbox, agent: Agent) -> None:
    node = next(
        row for row in await offers(sandbox, "A100") if row["nvlink"] and row["location"] and "ram" in row["specs"]
    )
    rented = await agent.call("rent_pod", name="train", executor_id=node["id"], hours=1)
    assert rented["tier"] == node["tier"]
    assert rented["country"] == node["location"]["country_code"]
    ram = node["specs"]["ram"]
    assert rented["node_ram_gb"] == int((ram["total"] - ram["pod_reserve"]) * 1024 / 10**9)
    assert rented["nvlink"] is True
    assert rented["pod"]["gpu_type"].startswith("A100")
    assert rented["pod"]["gpu_count"] == rents(sandbox)[0]["gpu_count"]
    assert rented["ssh_keys"] == ["~/.ssh/id_ed25519"]
    again = await agent.call("rent_pod", name="train", executor_id=node["id"], hours=1)
    for name in ("tier", "country", "node_ram_gb", "nvlink", "ssh_keys"):
        assert again[name] == rented[name]
    assert "lost_answer_settled" not in rented


async def test_a_key_whose_private_half_is_elsewhere_is_named_by_its_fingerprint(sandbox: Sandbox) -> None:
    async with agent_on(sandbox) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC)
        (Path.home() / ".ssh/id_ed25519").unlink()
        again = await agent.call("rent_pod", **BY_SPEC)
    assert rented["ssh_keys"] == ["~/.ssh/id_ed25519"]
    blob = base64.b64decode(PUBLIC_KEY.split()[1])
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    assert again["ssh_keys"] == [f"SHA256:{fingerprint}"]


async def test_what_lium_does_not_say_of_a_node_is_absent(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    bare = {"tier": None, "location": None, "nvlink": None, "interconnect": None, "specs": None}
    wire.on("GET", "/pods/*", editing(lambda pod: pod | {"executor": pod["executor"] | bare}))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC)
    assert not {"tier", "country", "node_ram_gb", "nvlink"} & {*rented}


async def test_a_lost_answer_that_was_settled_is_told(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/executors/rent-by-spec", losing_the_answer(), times=1)
    list_late(wire, sends=2)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC, wait_seconds=90)
        assert rented["lost_answer_settled"] is True
        assert len(rents(sandbox)) == 1
        assert "lost_answer_settled" not in await agent.call("rent_pod", **BY_SPEC)


async def test_a_lost_answer_that_only_a_name_settles_is_no_settled_one(sandbox: Sandbox) -> None:
    wire = Wire(sandbox)
    wire.on("POST", "/executors/rent-by-spec", losing_the_answer(), times=1)
    wire.on("POST", "/executors/rent-by-spec", answering(409, {"detail": "x"}))
    wire.on("POST", "/executors/rent-by-spec", losing_the_answer(), times=1)
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **BY_SPEC, wait_seconds=90)
    assert "lost_answer_settled" not in rented
    assert "found by its name" in rented["warnings"][0]
