"""A pod's host key stays pinned until Lium itself says that there is another container."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from lium_mcp.remote.host_keys import MOST_PINS, HostKeys, Pin
from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on, make_key_pair
from tests.wires import Act, Wire, answering, ask, failing

Connect = Callable[[], AbstractAsyncContextManager[Agent]]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    simulated = Sandbox(seed=7, speed=0, ssh=True)
    yield simulated
    await simulated.aclose()


@pytest.fixture
def wire(sandbox: Sandbox) -> Wire:
    return Wire(sandbox)


@pytest.fixture
def connect(sandbox: Sandbox, wire: Wire, tmp_path: Path) -> Connect:
    make_key_pair(tmp_path / "key")
    # A real address, so that pins outlive the server.
    return lambda: agent_on(sandbox, transport=wire, ssh_key_path=tmp_path / "key", base_url="https://lium.example/api")


@pytest.fixture
def pins(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".local" / "state" / "lium-mcp" / "host-keys"


async def rent(agent: Agent) -> str:
    rented = await agent.call("rent_pod", name="train", gpu_type="A100", gpu_count=1, hours=24, wait_seconds=300)
    await run(agent)
    return str(rented["pod_id"])


async def run(agent: Agent) -> None:
    assert (await agent.call("run_command", pod="train", command="echo on"))["stdout"] == "on\n"


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def refuse(agent: Agent) -> str:
    failure = await agent.refused("run_command", pod="train", command="echo on")
    assert failure.code == "host_key_changed"
    return failure.text


@pytest.mark.parametrize(
    "reboot",
    [failing(httpx2.ReadError("lost")), answering(502, b"<html>"), answering(200, {}), answering(400, {})],
)
async def test_a_reboot_that_never_happened_lets_no_other_key_in(
    sandbox: Sandbox, wire: Wire, connect: Connect, reboot: Act
) -> None:
    async with connect() as agent:
        await rent(agent)
        sandbox.clock.advance(hours=1)
        wire.on("POST", "/pods/*/reboot", reboot)
        await agent.raw("reboot_pod", pod="train", wait_seconds=0)
        sandbox.add_fault("host_key_changes", times=1)
    async with connect() as agent:
        await refuse(agent)


@pytest.mark.parametrize("by_us", [True, False])
async def test_a_reboot_that_lium_tells_of_lets_the_new_key_in_once(
    sandbox: Sandbox, connect: Connect, pins: Path, by_us: bool
) -> None:
    async with connect() as agent:
        pod_id = await rent(agent)
        sandbox.clock.advance(hours=1)
        if by_us:
            assert (await agent.call("reboot_pod", pod="train", wait_seconds=300))["outcome"] == "done"
    if not by_us:
        await ask(sandbox, "POST", f"/pods/{pod_id}/reboot", {})
        sandbox.clock.advance(minutes=5)
    async with connect() as agent:
        await run(agent)
        sandbox.clock.advance(hours=1)
    sandbox.add_fault("host_key_changes", times=1)
    async with connect() as agent:
        text = await refuse(agent)
        [pin] = files_in(pins)
        assert str(pin) in text
        pin.unlink()
        await run(agent)


BEGUN = ("pod-reboot.requested", "RUNNING", "REBOOT_PENDING")
DONE = ("pod-reboot.success", "REBOOT_PENDING", "RUNNING")
FIRST = ("pod-lifecycle.status", "PENDING", "RUNNING")
STATUS = ("pod-lifecycle.status", "REBOOT_PENDING", "RUNNING")


@pytest.mark.parametrize(
    ("events", "lets_in"),
    [
        ({-0.5: FIRST, 0.1: BEGUN, 1.7: DONE}, True),
        ({-30: FIRST, 60: STATUS}, True),
        ({-30: FIRST, -20: BEGUN, -1: DONE}, False),
        ({-30: FIRST, -1: STATUS}, False),
        ({-30: FIRST, -0.5: BEGUN, 1.2: DONE}, False),
        ({-30: FIRST, 60: ("pod-lifecycle.status", "STOPPED", "RUNNING")}, False),
    ],
    ids=["at-once", "status-alone", "before", "status-before", "meanwhile", "restart"],
)
async def test_a_reboot_counts_whose_key_was_seen_before_it_however_quick_it_was(
    sandbox: Sandbox,
    wire: Wire,
    connect: Connect,
    pins: Path,
    events: dict[float, tuple[str, str, str]],
    lets_in: bool,
) -> None:
    async with connect() as agent:
        await rent(agent)
    [pin] = files_in(pins)
    seen_at = json.loads(pin.read_text().splitlines()[1])["seen_at"]
    told = [
        {
            "created_at": datetime.fromtimestamp(seen_at + seconds, UTC).isoformat(),
            "event_type": kind.split(".")[0],
            "sub_event_type": kind,
            "from_status": before,
            "to_status": after,
        }
        for seconds, (kind, before, after) in events.items()
    ]
    wire.on("GET", "/pods/*/events", answering(200, told))
    sandbox.clock.advance(hours=1)
    sandbox.add_fault("host_key_changes", times=1)
    async with connect() as agent:
        await (run(agent) if lets_in else refuse(agent))


@pytest.mark.parametrize("soon", [True, False])
async def test_a_key_that_stays_over_a_reboot_stays_pinned(sandbox: Sandbox, connect: Connect, soon: bool) -> None:
    sandbox.add_fault("host_key_stays", times=None)
    async with connect() as agent:
        await rent(agent)
        sandbox.clock.advance(hours=1)
        assert (await agent.call("reboot_pod", pod="train", wait_seconds=300))["outcome"] == "done"
        sandbox.clock.advance(minutes=0 if soon else 5)
        await run(agent)
        sandbox.clock.advance(hours=1)
    sandbox.add_fault("host_key_changes", times=1)
    async with connect() as agent:
        await refuse(agent)


async def test_a_state_that_was_seen_is_enough_where_events_cannot_be_read(
    sandbox: Sandbox, wire: Wire, connect: Connect
) -> None:
    wire.on("GET", "/pods/*/events", answering(404, {"message": "Not Found", "status_code": 404}))
    async with connect() as agent:
        await rent(agent)
        sandbox.clock.advance(hours=1)
        await agent.call("reboot_pod", pod="train", wait_seconds=300)
        await run(agent)


async def test_another_template_lets_the_new_key_in(sandbox: Sandbox, wire: Wire, connect: Connect) -> None:
    wire.on("GET", "/pods/*/events", answering(404, {}))
    async with connect() as agent:
        pod_id = await rent(agent)
        present = (await ask(sandbox, "GET", f"/pods/{pod_id}"))["template"]["id"]
        other = next(row["id"] for row in await ask(sandbox, "GET", "/templates") if row["id"] != present)
        await agent.call("switch_pod_template", pod="train", template=other, wait_seconds=600)
        await run(agent)


async def test_the_pin_of_a_removed_pod_goes_and_a_list_without_the_pod_is_not_enough(
    wire: Wire, connect: Connect, pins: Path
) -> None:
    async with connect() as agent:
        await rent(agent)
        wire.on("DELETE", "/pods/*", answering(200, {"success": True}), times=1)
        wire.on("GET", "/pods", answering(200, []), times=0)
        await agent.raw("remove_pod", pod="train", wait_seconds=0)
        assert len(files_in(pins)) == 1
        await agent.call("remove_pod", pod="train", wait_seconds=300)
        assert files_in(pins) == []


@pytest.mark.parametrize("on_disk", [True, False])
def test_pins_are_bounded_and_those_used_longest_ago_go(tmp_path: Path, on_disk: bool) -> None:
    keys = HostKeys(tmp_path / "pins" if on_disk else None)
    for number in range(MOST_PINS + 5):
        keys.pin(f"pod-{number}", Pin(f"ssh-ed25519 {number}", number, number))
    there = [number for number in range(MOST_PINS + 5) if keys.read(f"pod-{number}") is not None]
    assert len(there) == MOST_PINS
    assert there[-1] == MOST_PINS + 4


@pytest.mark.parametrize("more", ["", "\n", "\nnot json", "\n[1]", '\n{"seen_at": "x", "template_id": 4}'])
def test_a_pin_of_an_older_or_damaged_file_keeps_its_key(tmp_path: Path, more: str) -> None:
    keys = HostKeys(tmp_path)
    path = keys.path("p")
    assert path is not None
    path.write_text(f"ssh-ed25519 AAAA test{more}")
    pin = keys.read("p")
    assert pin is not None
    assert (pin.key, pin.template_id) == ("ssh-ed25519 AAAA test", None)
    assert keys.pin("p", Pin("ssh-ed25519 other", 1, 1)).key == pin.key
