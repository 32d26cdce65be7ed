"""What a command began when the server that ran it ends or is killed, or when nobody can reach the pod any more."""

import asyncio
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from lium_mcp.sandbox import Sandbox
from tests.harness import Agent, agent_on
from tests.processes import Served, serving
from tests.sshd import Sshd, at_sshd, rent, wait_until
from tests.wires import served

# It ignores being asked to end, in whatever way it was started.
STUBBORN: Final = (
    "(trap '' TERM; while :; do sleep {n}; done) & env -i setsid sh -c \"trap '' TERM; sleep {n}; true\" & "
    "trap '' PIPE; trap 'touch asked' TERM; while :; do sleep {n}; done"
)


@pytest.fixture
def quick_pod(sshd: Sshd) -> Sshd:
    """A pod whose watch counts no second until it is let, so that no slow machine finds it over, and sooner then."""
    program = sshd.folder / "bin" / "sleep"
    program.write_text(
        "#!/bin/sh\n"
        '[ "$1" = 1 ] || exec /bin/sleep "$@"\n'
        f"while [ ! -e {shlex.quote(str(counts(sshd)))} ]; do /bin/sleep 0.05; done\n"
        "exec /bin/sleep 0.05\n"
    )
    program.chmod(0o755)
    return sshd


def counts(quick_pod: Sshd) -> Path:
    """The file with which the watch of a quick pod begins to count."""
    return quick_pod.folder / "counts"


def how_many(ending: str) -> int:
    """How many processes have a command line of that end."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += path.read_bytes().endswith(ending.encode())
        except OSError:
            continue
    return found


def running_of(sshd: Sshd) -> int:
    """How many of the command's processes run; the pod's port is its number."""
    return how_many(f"sleep\0{sshd.port}\0")


@asynccontextmanager
async def running_a_command(sandbox: Sandbox, sshd: Sshd, timeout_seconds: int) -> AsyncIterator[Served]:
    """A server process of its own, which runs the command in a pod."""
    wire = at_sshd(sandbox, sshd)
    async with agent_on(sandbox, transport=wire, ssh_key_path=sshd.key_path) as agent:
        await rent(agent)
    async with (
        served(wire) as lium,
        serving(LIUM_BASE_URL=lium.base_url, LIUM_API_KEY="sk_sandbox", LIUM_SSH_KEY_PATH=str(sshd.key_path)) as server,
    ):
        params = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "by-hand", "version": "1"},
        }
        await server.ask({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        await server.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        arguments = {
            "pod": "train",
            "command": STUBBORN.format(n=sshd.port),
            "timeout_seconds": timeout_seconds,
        }
        call = {"name": "run_command", "arguments": arguments}
        await server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
        await asyncio.to_thread(wait_until, lambda: running_of(sshd) == 3)
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_asked_to_end_leaves_nothing_of_its_command(
    sandbox: Sandbox, sshd: Sshd, number: signal.Signals
) -> None:
    async with running_a_command(sandbox, sshd, 60) as server:
        server.interrupt(number)
        assert await server.exited() == 128 + number
        # Sooner than at its limit; the pod may be busier than the server has time for.
        await asyncio.to_thread(wait_until, lambda: running_of(sshd) == 0)


async def test_what_a_server_has_asked_to_end_is_killed_though_the_server_is_gone_by_then(
    sandbox: Sandbox, sshd: Sshd
) -> None:
    async with running_a_command(sandbox, sshd, 60) as server:
        server.interrupt(signal.SIGTERM)
        await asyncio.to_thread(wait_until, (sshd.home / "asked").exists)
        server.interrupt(signal.SIGKILL)
        await server.exited()
        await asyncio.to_thread(wait_until, lambda: running_of(sshd) == 0)


async def test_where_a_server_is_killed_the_pod_keeps_the_time_limit(sandbox: Sandbox, quick_pod: Sshd) -> None:
    async with running_a_command(sandbox, quick_pod, 20) as server:
        server.interrupt(signal.SIGKILL)
        assert await server.exited() == -signal.SIGKILL
        assert running_of(quick_pod) == 3
        counts(quick_pod).touch()
        await asyncio.to_thread(wait_until, lambda: running_of(quick_pod) == 0)


async def test_where_the_pod_is_out_of_reach_it_is_said_that_the_command_may_run_on(
    on_sshd: Agent, quick_pod: Sshd
) -> None:
    await rent(on_sshd)
    command = f"setsid sleep {quick_pod.port} & rm ../authorized_keys; kill -9 $PPID; sleep 60"
    failure = await on_sshd.refused("run_command", pod="train", command=command, timeout_seconds=20)
    assert failure.code == "connection_lost"
    assert "may run on" in failure.text
    assert "20 seconds" in failure.text
    assert running_of(quick_pod) == 1
    counts(quick_pod).touch()
    await asyncio.to_thread(wait_until, lambda: running_of(quick_pod) == 0)


async def test_the_watch_ends_with_its_command_and_leaves_alone_what_is_meant_to_live_on(
    on_sshd: Agent, quick_pod: Sshd
) -> None:
    await rent(on_sshd)
    command = (
        f"nohup sleep {quick_pod.port} >/dev/null 2>&1 </dev/null & sleep 0.3; echo $$; ls /tmp/.LIUM*$LIUM_COMMAND"
    )
    run = await on_sshd.call("run_command", pod="train", command=command, timeout_seconds=10)
    counts(quick_pod).touch()
    assert run["outcome"] == "done"
    shell, *files = run["stdout"].split()
    assert files == []
    await asyncio.to_thread(wait_until, lambda: how_many(f"lium-mcp\0{shell}\0") == 0)
    assert running_of(quick_pod) == 1
    await on_sshd.call("run_command", pod="train", command=f"pkill -f 'sleep {quick_pod.port}$'; true")
