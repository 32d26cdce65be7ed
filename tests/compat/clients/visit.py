"""What each SDK's client does with our server, and what it must have seen. The drivers report in this shape."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.compat.installs import variables
from tests.compat.simulated import Simulated

LIMIT_SECONDS: Final = 60
RENT: Final = {"name": "train", "gpu_type": "A100", "hours": 2, "wait_seconds": 30}


_SPEED: Final = 8
_POD: Final = re.compile(r"/pods/[0-9a-f-]{36}")


@contextmanager
def coming_up(lium: Simulated) -> Iterator[None]:
    """Let a pod that is rented in the block come up two seconds after it was looked at, and none before."""
    is_over = threading.Event()

    def wait() -> None:
        while not is_over.wait(0.05):
            if any(request["method"] == "GET" and _POD.search(request["path"]) for request in lium.state()["requests"]):
                lium.run_at(_SPEED)
                return

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        yield
    finally:
        is_over.set()
        waiting.join()


def drive(command: list[str], target: dict[str, Any], home: Path, lium: Simulated) -> dict[str, Any]:
    """Run a driver, which reads where to go from standard input and prints one line of JSON."""
    with coming_up(lium):
        done = subprocess.run(
            command,
            input=json.dumps(target | {"rent": RENT}),
            env=variables(home),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(report: dict[str, Any], lium: Simulated) -> None:
    """Check what a visitor saw: the lists, a read, a rent with progress, a failure, and a pod that is gone."""
    assert report["server"] == "lium-mcp"
    assert "rent_pod" in report["instructions"]
    assert {"list_gpus", "rent_pod", "list_pods", "remove_pod", "get_balance"} <= set(report["tools"])
    assert len(report["prompts"]) > 0
    assert len(report["resources"]) > 0
    assert report["balance"]["balance_usd"] == 100
    assert report["rented"]["outcome"] == "done", report["rented"]
    assert report["progress"][0].startswith("train is PENDING")
    assert report["failure"]["isError"] is True
    assert "(code: pod_not_found" in report["failure"]["text"]
    [pod] = lium.state()["pods"]
    assert report["rented"]["pod_id"] == pod["id"]
    assert pod["status"] in {"DELETING", "DELETED"} or pod["removed_at"] is not None
