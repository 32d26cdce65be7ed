"""What pods answer that are not as they should be: no nvidia-smi, an odd one, GPUs without figures, junk in /proc.

Pods are the sandbox's own, over SSH, with another nvidia-smi in them.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lium_mcp.sandbox import Sandbox
from lium_mcp.sandbox.container.commands import PROGRAMS
from lium_mcp.services.pods import pod_connections
from tests.harness import Agent, agent_on, hosted, make_key_pair
from tests.wires import ask

Row = dict[str, Any]
NONE_SEEN = "2 GPUs are billed and none can be seen in it."
NO_FIGURES = "does not say how busy each GPU is"
UNREADABLE = "no nvidia-smi, or one that says nothing that can be read"


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Sandbox]:
    make_key_pair(tmp_path / "key")
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
async def agent(account: Sandbox, tmp_path: Path) -> AsyncIterator[Agent]:
    async with hosted(agent_on(account, ssh_key_path=tmp_path / "key")) as connected:
        yield connected


def say(monkeypatch: pytest.MonkeyPatch, said: str, status: int) -> None:
    """Let every pod's nvidia-smi say this of its GPUs, and nothing of processes."""

    async def nvidia_smi(call: Any) -> None:
        if "--query-gpu" in call.arguments[0]:
            await call.out(said)
            call.status = status

    monkeypatch.setitem(PROGRAMS, "nvidia-smi", nvidia_smi)


def rows(*busy: str) -> str:
    return "".join(f"{n}, NVIDIA A100, {one}, 4, 81920, 30, GPU-{n}\n" for n, one in enumerate(busy))


WORLDS: dict[str, tuple[str, int, str | None, str | None]] = {
    "missing": ("", 127, None, UNREADABLE),
    "not for us": ("", 126, None, UNREADABLE),
    "none found": ("No devices were found\n", 0, NONE_SEEN, "2 GPUs are billed, and nvidia-smi reaches none"),
    "none found, as an error": ("No devices were found\n", 6, NONE_SEEN, "reaches none"),
    "no driver": ("Failed to initialize NVML: Driver/library version mismatch\n", 18, NONE_SEEN, "reaches none"),
    "lost its devices": ("Failed to initialize NVML: Unknown Error\n", 255, NONE_SEEN, "reaches none"),
    "one fell off the bus": (
        "Unable to determine the device handle for GPU0000:41:00.0: Unknown Error\n" + rows("0"),
        255,
        "2 GPUs are billed and 1 can be seen in it.",
        "reaches 1",
    ),
    "more than billed": (rows("0", "0", "0"), 0, "2 GPUs are billed and 3 can be seen in it.", None),
    "split into instances": (rows("[N/A]", "[N/A]"), 0, None, NO_FIGURES),
    "one without a figure": (rows("0", "[Not Supported]"), 0, None, NO_FIGURES),
    "below nothing": (rows("-3", "0"), 0, None, NO_FIGURES),
    "beyond all reason": (rows("9" * 40, "0"), 0, None, NO_FIGURES),
    "junk": ("\x00\x1b[2J{not,csv\n\n,,,\n", 0, None, UNREADABLE),
    "nothing": ("", 0, None, UNREADABLE),
    "other fields": ('Field "uuid" is not a valid field to query.\n', 2, None, UNREADABLE),
    "with its header": ("index, name\n" + rows("0", "0"), 0, None, None),
    "idle": (rows("4", "0"), 0, None, None),
}


@pytest.mark.parametrize("world", WORLDS)
async def test_gpus_that_answer_oddly_are_told_and_never_taken_for_idle(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, world: str
) -> None:
    said, status, warning, refusal = WORLDS[world]
    say(monkeypatch, said, status)
    wanted: Row = {"name": "train", "gpu_type": "A100", "gpu_count": 2, "hours": 24, "wait_seconds": 300}
    rented = await agent.call("rent_pod", **wanted)
    warnings = rented["pod"].get("warnings", [])
    assert rented["outcome"] == "done"
    assert len(warnings) == (warning is not None)
    assert all(one.startswith(warning) for one in warnings)
    if refusal is None:
        assert (await agent.call("schedule_pod_removal", pod="train", idle_minutes=5))["idle_minutes"] == 5
    else:
        refused = await agent.refused("schedule_pod_removal", pod="train", idle_minutes=5)
        assert refused.code == "idle_not_readable"
        assert refusal in refused.text


async def test_an_nvidia_smi_that_never_answers_holds_nobody_up(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(call: Any) -> None:
        await call.process.sleep(10**9)

    monkeypatch.setitem(PROGRAMS, "nvidia-smi", hang)
    monkeypatch.setattr(pod_connections, "_INSIDE_SECONDS", 0.5)
    rented = await agent.call("rent_pod", name="train", gpu_type="A100", hours=24, wait_seconds=300)
    assert rented["outcome"] == "done"
    assert "warnings" not in rented["pod"]


JUNK: list[tuple[str, str]] = [
    ("/proc/mounts", "junk"),
    ("/proc/mounts", ""),
    ("/proc/1/stat", "1 (a) b) S 1 2 3"),
    ("/proc/1/stat", "1 (x) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 999999999999999 0"),
    ("/proc/stat", "btime 99999999999"),
    ("/proc/stat", "btime 1"),
]


@pytest.mark.parametrize(("path", "text"), JUNK)
async def test_junk_in_proc_is_no_warning(account: Sandbox, agent: Agent, path: str, text: str) -> None:
    volume = str((await ask(account, "POST", "/volumes", {"name": "data", "description": ""}))["id"])
    wanted: Row = {"name": "train", "gpu_type": "A100", "hours": 24, "volume": volume, "wait_seconds": 300}
    await agent.call("rent_pod", **wanted)
    account.clock.advance(hours=1)
    await agent.call("run_command", pod="train", command=f"echo '{text}' > {path}")
    assert "warnings" not in (await agent.call("get_pod", pod="train", wait_seconds=0))["pod"]
