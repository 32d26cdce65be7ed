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

from tests.compat.driver import Official

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


def lium(official: Official, *arguments: str) -> Any:
    """Run the installed `lium` command and read the JSON it prints."""
    done = subprocess.run(
        official.environment.lium(*arguments),
        env=official.variables,
        cwd=official.home,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


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
