"""The real thing: `lium-mcp sandbox` in one process, the official `lium` command in others, an address between them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters

from tests.compat.driver import Official
from tests.harness import make_key_pair

LIMIT_SECONDS = 60


@pytest.fixture
def base_url(official: Official) -> Iterator[str]:
    """The address that `lium-mcp sandbox` prints; the official commands learn nothing else."""
    command = [sys.executable, "-m", "lium_mcp", "sandbox", "--port", "0", "--speed", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/api", process.stderr.readline())
        assert found is not None
        official.point_at(found[0])
        yield found[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        assert process.returncode == 0
        assert "Traceback" not in errors


def run(official: Official, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run the installed `lium` command to its end."""
    return subprocess.run(
        official.environment.lium(*arguments),
        env=official.variables,
        cwd=official.home,
        input=typed,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def succeed(official: Official, *arguments: str, typed: str = "") -> str:
    """Run the installed `lium` command and return what it prints."""
    done = run(official, *arguments, typed=typed)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lium(official: Official, *arguments: str) -> Any:
    """Run the installed `lium` command and read the JSON it prints."""
    return json.loads(succeed(official, *arguments))


def test_a_pod_is_rented_and_removed_by_commands(official: Official, base_url: str) -> None:
    assert lium(official, "balance", "--json")["balance_usd"] == 100
    assert {row["gpu_type"] for row in lium(official, "ls", "--gpu", "4090", "--format", "json")} == {"RTX4090"}
    rented = lium(official, "up", "--gpu", "RTX4090", "--name", "train", "--ttl", "6h", "-y", "--json")["pod"]
    assert rented["status"] == "RUNNING"
    assert [pod["id"] for pod in lium(official, "ps", "--format", "json")] == [rented["id"]]
    assert lium(official, "rm", "train", "-y", "--format", "json")["failed"] == []

    state = httpx2.get(f"{base_url.removesuffix('/api')}/_sandbox/state", trust_env=False).json()
    [pod] = state["pods"]
    assert (pod["id"], pod["gpu_name"]) == (rented["id"], "NVIDIA GeForce RTX 4090")
    assert pod["status"] in {"DELETING", "DELETED"}
    assert pod["removal_scheduled_at"] is not None


@pytest.mark.usefixtures("base_url")
async def test_a_pod_is_worked_on_over_ssh_by_commands(official: Official) -> None:
    key, results = official.home / ".ssh" / "id_ed25519", official.home / "result.txt"
    make_key_pair(key)
    key.chmod(0o600)
    lium(official, "up", "--gpu", "RTX4090", "--name", "train", "--ttl", "6h", "-y", "--json")

    (official.home / "input.txt").write_text("a line\n")
    succeed(official, "scp", "train", "input.txt", "/root/input.txt")
    assert "GPU 0: NVIDIA GeForce RTX 4090" in succeed(official, "exec", "train", "nvidia-smi -L")
    assert run(official, "exec", "train", "cat input.txt input.txt > result.txt; exit 3").returncode == 3
    succeed(official, "scp", "train", "/root/result.txt", str(results), "--download")
    assert results.read_text() == "a line\na line\n"
    assert "input.txt\nresult.txt\n" in succeed(official, "ssh", "train", typed="ls\nexit\n")

    command, *arguments = official.environment.lium("mcp")
    server = StdioServerParameters(command=command, args=arguments, env=official.variables, cwd=official.home)
    async with Client(server) as client:
        ran = await client.call_tool("run_command", {"pod": "train", "command": "cat result.txt"})
    assert "a line" in str(ran.content)

    # The pods' shell does not know all that this one sends around the command; the command ends and so does the pod.
    refused = run(official, "job", "run", "true", *("--gpu", "RTX4090", "--budget", "5", "--deadline", "2h", "--json"))
    assert (refused.returncode, json.loads(refused.stdout)["cleanup"]) == (2, "removed")
