"""A pod is ready when its SSH server answers: what is said where it does not, and where nobody can see it."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lium_mcp.remote import banner
from lium_mcp.sandbox import Sandbox
from lium_mcp.services.pods import pod_connections
from tests.harness import Agent, agent_on
from tests.wires import Wire, editing

RENT: dict[str, Any] = {"name": "train", "gpu_type": "RTX4090", "hours": 2, "wait_seconds": 120}


@asynccontextmanager
async def renter(**settings: Any) -> AsyncIterator[tuple[Sandbox, Agent]]:
    sandbox = Sandbox(seed=7, speed=0, ssh=True)
    async with agent_on(sandbox, **settings) as agent:
        yield sandbox, agent
    await sandbox.aclose()


def at_port(port: int) -> Callable[[Any], Any]:
    """Let Lium say that every pod that runs listens there."""

    def change(row: Any) -> Any:
        if row.get("status") == "RUNNING":
            row["ssh_connect_cmd"] = f"ssh root@127.0.0.1 -p {port}"
        return row

    return change


@asynccontextmanager
async def saying(said: bytes) -> AsyncIterator[int]:
    """A server that says this to whoever connects, and keeps the line open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("fault", ["ssh_refuses", "ssh_silent"])
async def test_a_pod_is_waited_for_until_its_ssh_server_answers(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    monkeypatch.setattr(banner, "_BANNER_SECONDS", 0.1)
    async with renter() as (sandbox, agent):
        sandbox.add_fault(fault, times=2, pod_name="train")
        rented = await agent.call("rent_pod", **RENT)
        assert (rented["outcome"], rented["pod"]["ssh_answers"]) == ("done", True)
        assert "next" not in rented
        assert any("its SSH server does not answer yet" in line for line in agent.progress)
        sandbox.add_fault(fault, pod_name="train")
        assert (await agent.call("reboot_pod", pod="train", wait_seconds=120))["pod"]["ssh_answers"] is True


async def test_a_pod_whose_port_says_nothing_is_not_ready_and_it_is_said_what_to_do() -> None:
    async with renter() as (sandbox, agent):
        sandbox.add_fault("ssh_refuses", times=None, pod_name="train")
        rented = await agent.call("rent_pod", **RENT)
        looked = await agent.call("get_pod", pod="train", wait_seconds=8)
        for answer in (rented, looked):
            assert answer["outcome"] == "pending"
            assert (answer["pod"]["status"], answer["pod"]["ssh_answers"]) == ("RUNNING", False)
            assert "bills" in answer["next"]
            assert "get_pod_logs" in answer["next"]
            assert "reboot_pod" in answer["next"]
        assert rented["pod"]["removal_at"], "what ends the billing does not wait for SSH"
        failure = await agent.refused("run_command", pod="train", command="true")
        assert "get_pod_logs" in failure.text
        assert "reboot_pod" in failure.text
        # One that has run for long is not waited for: who asks what it costs is answered now.
        sandbox.clock.advance(minutes=20)
        slept_seconds = agent.clock.slept_seconds
        assert (await agent.call("get_pod", pod="train"))["outcome"] == "pending"
        assert agent.clock.slept_seconds == slept_seconds
        sandbox.clear_faults()
        assert (await agent.call("get_pod", pod="train"))["outcome"] == "done"


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (b"be welcome\r\nto SSH-1\r\nSSH-2.0-OpenSSH_9.6\r\n", True),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (b"noise " * 4000, False),
    ],
)
async def test_only_a_version_of_ssh_is_an_answer(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, said: bytes, answers: bool
) -> None:
    monkeypatch.setattr(banner, "_BANNER_SECONDS", 0.1)
    monkeypatch.setattr(pod_connections, "_INSIDE_SECONDS", 0.1)  # for a login that never gets further
    wire = Wire(sandbox)
    async with saying(said) as port, agent_on(sandbox, transport=wire) as agent:
        wire.on("GET", "/pods/*", editing(at_port(port)))
        rented = await agent.call("rent_pod", **RENT | {"wait_seconds": 40})
    assert rented["pod"]["ssh_answers"] is answers
    assert rented["outcome"] == ("done" if answers else "pending")


async def test_a_port_that_refuses_is_said_and_waited_for_only_so_long(sandbox: Sandbox) -> None:
    async with saying(b"") as port:
        pass  # nobody listens there any more
    wire = Wire(sandbox)
    wire.on("GET", "/pods/*", editing(at_port(port)))
    async with agent_on(sandbox, transport=wire) as agent:
        rented = await agent.call("rent_pod", **RENT | {"wait_seconds": 600})
        assert agent.clock.slept_seconds < 120
    assert (rented["outcome"], rented["pod"]["ssh_answers"]) == ("done", False)
    assert "no SSH was seen yet" in rented["next"]


@pytest.mark.parametrize("error", [PermissionError(errno.EPERM, "no"), OSError(errno.ENETUNREACH, "no")])
async def test_a_server_that_may_not_connect_to_anything_calls_no_pod_unready(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    looks = 0

    async def refuse(*_: Any) -> Any:
        nonlocal looks
        looks += 1
        raise error

    async with renter() as (_, agent):
        monkeypatch.setattr(asyncio, "open_connection", refuse)
        rented = await agent.call("rent_pod", **RENT)
        assert looks == 2
    assert rented["outcome"] == "done"
    assert "ssh_answers" not in rented["pod"]
    assert "could not be checked" in rented["next"]


async def test_nobody_looks_where_the_call_does_not_wait() -> None:
    async with renter() as (sandbox, agent):
        await agent.call("rent_pod", **RENT)
        sandbox.add_fault("ssh_refuses", pod_name="train")
        again = await agent.call("rent_pod", **RENT | {"wait_seconds": 0})
        assert again["outcome"] == "done"
        assert "ssh_answers" not in again["pod"]
        assert [fault["kind"] for fault in sandbox.state("faults")["faults"]] == ["ssh_refuses"]
