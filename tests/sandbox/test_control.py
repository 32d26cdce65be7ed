"""The clock, the control routes, and that the same history always leads to the same state."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lium_mcp.sandbox import API_KEY, OTHER_API_KEY, SESSION_TOKEN, Sandbox, SimulatedClock
from tests.sandbox.wire import PUBLIC_KEY, Wire, wire_to

START = datetime(2026, 10, 6, 12, tzinfo=UTC)
CONTROL = "http://sandbox/_sandbox"


async def _history(sandbox: Sandbox) -> dict[str, Any]:
    async with wire_to(sandbox, checks=False) as wire:
        volume = (await wire.ok("createVolume", json={"name": "v"}))["id"]
        pod_id = await wire.running(sandbox, volume_id=volume)
        config = {"pod_id": pod_id, "backup_frequency_hours": 1, "retention_days": 1, "backup_path": ""}
        await wire.ok("createBackupConfig", json=config)
        sandbox.clock.advance(hours=3, minutes=7)
        await wire.rent(await wire.node("RTX 4090"))
        await wire.ok("createKey", session=SESSION_TOKEN, json={"name": "k"})
        sandbox.clock.advance(hours=20)
        await wire.ok("deletePod", pod_id=pod_id)
        sandbox.clock.advance(minutes=3)
    return sandbox.state()


async def test_the_same_history_leads_to_the_same_state() -> None:
    first, second, other = [await _history(Sandbox(seed=seed, speed=0, start=START)) for seed in (7, 7, 8)]
    assert first == second
    assert first["nodes"] != other["nodes"]


@given(steps=st.lists(st.integers(1, 7200), min_size=1, max_size=6))
@settings(max_examples=12)
async def test_one_long_turn_equals_many_short_ones(steps: list[int]) -> None:
    states = []
    for turns in (steps, [sum(steps)]):
        sandbox = Sandbox(seed=7, speed=0, start=START)
        async with wire_to(sandbox, checks=False) as wire:
            await wire.rent(termination_hours=1)
            for seconds in turns:
                sandbox.clock.advance(seconds=seconds)
                sandbox.state()
        states.append(sandbox.state())
    assert states[0] == states[1]


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["advance", "speed"]), st.floats(0, 1e6, allow_nan=False)), min_size=1, max_size=20
    )
)
def test_the_clock_never_goes_back(moves: list[tuple[str, float]]) -> None:
    clock = SimulatedClock(start=START, speed=0)
    before = clock.now()
    for kind, value in moves:
        if kind == "advance":
            clock.advance(seconds=value)
        else:
            clock.set_speed(value / 1000)
        now = clock.now()
        assert now >= before
        before = now


def test_a_frozen_clock_moves_by_exactly_what_it_is_turned() -> None:
    clock = SimulatedClock(start=START, speed=0)
    clock.advance(seconds=1, minutes=2, hours=3)
    assert clock.now() == START + timedelta(hours=3, minutes=2, seconds=1)
    with pytest.raises(ValueError, match="forward"):
        clock.advance(seconds=-1)
    with pytest.raises(ValueError, match="time zone"):
        SimulatedClock(start=START.replace(tzinfo=None))


def test_a_running_clock_can_be_frozen_without_a_jump() -> None:
    clock = SimulatedClock(start=START, speed=1e6)
    clock.freeze()
    now = clock.now()
    assert now > START
    assert clock.now() == now


async def test_the_clock_is_turned_over_http(sandbox: Sandbox, wire: Wire) -> None:
    before = sandbox.clock.now()
    turned = (await wire.http.post(f"{CONTROL}/clock", json={"advance_seconds": 90})).json()
    assert sandbox.clock.now() - before == timedelta(seconds=90)
    assert turned == (await wire.http.get(f"{CONTROL}/clock")).json()
    assert (await wire.http.post(f"{CONTROL}/clock", json={"speed": 2})).json()["speed"] == 2
    assert (await wire.http.post(f"{CONTROL}/clock", json={"advance_seconds": -1})).status_code == 422


async def test_the_list_of_control_routes_is_that_of_the_documentation(wire: Wire) -> None:
    listed = (await wire.http.get(CONTROL)).json()
    assert listed == (await wire.http.get(f"{CONTROL}/")).json()
    document = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    assert ["GET /_sandbox/", *listed] == re.findall(r"^\| `([A-Z]+ /_sandbox/\w*)`", document, re.MULTILINE)
    for method, path in (route.split() for route in listed):
        assert (await wire.http.request(method, f"http://sandbox{path}", content=b"")).status_code != 404


async def test_faults_are_armed_listed_and_cleared_over_http(wire: Wire) -> None:
    fault = {"kind": "rate_limit", "times": 2, "match": {"path": "/pods"}}
    assert (await wire.http.post(f"{CONTROL}/faults", json=fault)).json() == [fault]
    assert (await wire.send("listPods")).status_code == 429
    assert (await wire.http.get(f"{CONTROL}/faults")).json()[0]["times"] == 1
    assert (await wire.http.delete(f"{CONTROL}/faults")).json() == []
    await wire.ok("listPods")
    unknown = await wire.http.post(f"{CONTROL}/faults", json={"kind": "volcano"})
    assert unknown.status_code == 422
    for kind in ("lost_request", "late", "boot_fails"):
        assert unknown.text.count(f"'{kind}'") == 1
    assert (await wire.http.post(f"{CONTROL}/faults", content=b"not json")).status_code == 422
    stray = {"kind": "provider_pause", "executor_id": "nowhere"}
    assert (await wire.http.post(f"{CONTROL}/faults", json=stray)).json() == {"error": "executor_id names no node"}
    assert (await wire.http.get(f"{CONTROL}/volcano")).status_code == 404


async def test_the_state_shows_the_requests_but_no_secret(sandbox: Sandbox, wire: Wire) -> None:
    await wire.ok("createDockerCredential", json={"docker_username": "u", "docker_password": "hunter2"})
    node, body = await wire.node(), await wire.rent_body()
    headers = {"Idempotency-Key": "k-1", "X-Source": "mcp"}
    await wire.ok("rentExecutor", executor_id=node["id"], json=body, headers=headers)
    text = (await wire.http.get(f"{CONTROL}/state")).text
    assert all(f'"{secret}"' not in text for secret in (API_KEY, OTHER_API_KEY, SESSION_TOKEN, "hunter2"))
    request = sandbox.state()["requests"][-1]
    assert request["path"] == f"/executors/{node['id']}/rent"
    assert request["status"] == 200
    assert request["body"]["user_public_key"] == [PUBLIC_KEY]
    assert request["headers"]["idempotency-key"] == "k-1"
    assert request["authenticated_by"] == "x-api-key"


def test_a_part_of_the_state_is_what_the_whole_says(sandbox: Sandbox) -> None:
    whole = sandbox.state()
    assert sandbox.state("nodes", "balance") == {name: whole[name] for name in ("nodes", "balance")}
    with pytest.raises(KeyError):
        sandbox.state("everything")


async def test_a_browser_page_and_a_stranger_cannot_reach_the_controls(sandbox: Sandbox, wire: Wire) -> None:
    page = {"Origin": "https://evil.example"}
    assert (await wire.http.get(f"{CONTROL}/state", headers=page)).status_code == 403
    stranger = httpx2.ASGITransport(sandbox.app, client=("192.0.2.9", 5000))
    async with httpx2.AsyncClient(transport=stranger) as client:
        assert (await client.post(f"{CONTROL}/clock", json={"advance_seconds": 5})).status_code == 403


async def test_outside_its_two_paths_there_is_nothing(wire: Wire) -> None:
    assert (await wire.http.get("http://sandbox/")).status_code == 404
    assert (await wire.http.get("http://sandbox/api/nothing")).json() == {"detail": "Not Found"}
