"""From process start to an answered ``tools/list``, and to an answered call, each beside baselines of the same run.

Baselines are `python -c pass`, an empty server of the SDK, our own server where the front leaves everything to the SDK,
and where they are found, the official `lium mcp` (`make clients`) and a server in Go (`kubernetes-mcp-server` of npm,
on the path). It also prints which settings leave the first second to the SDK.
"""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lium_mcp.serving.front_settings import find_offer
from lium_mcp.serving.prepared import read_file, read_records
from lium_mcp.settings_table import SETTINGS

RUNS: Final = 11
EMPTY_SERVER: Final = "from mcp.server import MCPServer; MCPServer(name='empty', version='1').run('stdio')"
OURS: Final = [sys.executable, "-m", "lium_mcp", "--sandbox"]
OFFICIAL: Final = Path(__file__).parent.parent / ".cache" / "clients" / "lium.io" / "bin"
# It does not list its tools without one, and asks nobody.
KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
"""
# The front does not read quotes.
WITHOUT_FRONT: Final = {"LIUM_MCP_LOG_LEVEL": '"INFO"'}
# What a person would write, for each kind of setting.
USUAL: Final = {
    "key": "sk_0a1B2c", "password": "s3cret", "address": "https://lium.io/api", "path": "~/.ssh/id_ed25519",
    "folders": "/srv", "choices": "pods,account", "tools": "list_gpus,rent_pod", "flag": "true", "number": "2.5",
    "count": "3", "day": "2026-11-01", "gpu types": "H100,RTX4090", "countries": "US,DE",
    "ids": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "file": "/srv/policy.toml", "database": "sqlite:////srv/x.db",
    "host": "127.0.0.1", "hosts": "gpu.example.com", "url path": "/lium", "token": "t" * 40, "addresses": "10.0.0.0/8",
    "login": "lium", "public address": "https://gpu.example.com", "function": "house:find_key", "scopes": "gpu",
    "secrets": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "name": "gpu-1",
}  # fmt: skip


CLIENT: Final = {"name": "bench", "version": "1"}
HANDSHAKE: Final[dict[str, Any]] = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": CLIENT}


def message(method: str, request_id: int, params: dict[str, Any]) -> bytes:
    """A request as a host of today sends it."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode() + b"\n"


class Times:
    """What one start took.

    Attributes:
        wall_ms: Until the answer was read.
        user_ms: Of the process, in all.
        memory_mb: The most that it held, as far as the system says.
    """

    def __init__(self, wall_ms: float, user_ms: float, memory_mb: float) -> None:
        self.wall_ms = wall_ms
        self.user_ms = user_ms
        self.memory_mb = memory_mb


def start(command: list[str], variables: Mapping[str, str] | None = None, *, calls: bool = False) -> Times:
    """Start a server, list its tools as a host does, and call one if asked to."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["BENCH_HOME"], **(variables or {})}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - servers that are named here
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = [message("initialize", 1, HANDSHAKE), b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n']
        said.append(message("tools/list", 2, {}))
        if calls:
            said.append(message("tools/call", 3, {"name": "get_gpu_prices", "arguments": {}}))
        process.stdin.write(b"".join(said))
        process.stdin.flush()
        last = 3 if calls else 2
        while (answer := json.loads(process.stdout.readline())).get("id") != last:
            pass
        wall = time.perf_counter() - started
        memory = _memory_mb(process.pid)
        process.stdin.close()
    if "result" not in answer:
        raise SystemExit(f"{command}: {answer}")
    return Times(wall * 1000, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) * 1000, memory)


def run(command: list[str]) -> Times:
    """Start what ends by itself."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    started = time.perf_counter()
    subprocess.run(command, check=True)  # noqa: S603 - as above
    wall = time.perf_counter() - started
    return Times(wall * 1000, (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before) * 1000, 0)


def _memory_mb(process_id: int) -> float:
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0)


def compared(actions: Mapping[str, Any]) -> dict[str, Times]:
    """The medians of all actions, which take turns: a slow moment of the machine hits each of them."""
    for action in actions.values():
        action()  # compiles the bytecode and fills the disk cache
    rounds = [{name: action() for name, action in actions.items()} for _ in range(RUNS)]
    medians = {}
    for name in actions:
        times = [each[name] for each in rounds]
        wall, user, memory = (
            statistics.median(getattr(item, kind) for item in times) for kind in ("wall_ms", "user_ms", "memory_mb")
        )
        medians[name] = Times(wall, user, memory)
    return medians


def main() -> None:
    with tempfile.TemporaryDirectory() as home:
        os.environ["BENCH_HOME"] = home
        (Path(home) / ".kube").mkdir()
        (Path(home) / ".kube" / "config").write_text(KUBECONFIG)
        _lists()
        _calls()
        _without_bytecode(home)
    _settings()


def _lists() -> None:
    servers = {
        "ours": OURS,
        "ours, installed script": [str(Path(sys.executable).with_name("lium-mcp")), "--sandbox"],
        "empty MCPServer": [sys.executable, "-c", EMPTY_SERVER],
        "official lium mcp": [*map(str, (OFFICIAL / "python", OFFICIAL / "lium")), "mcp"] if OFFICIAL.exists() else [],
        "kubernetes-mcp-server": [path] if (path := shutil.which("kubernetes-mcp-server")) else [],
    }
    actions: dict[str, Any] = {"python -c pass": lambda: run([sys.executable, "-c", "pass"])}
    actions |= {name: lambda command=command: start(command) for name, command in servers.items() if command}
    found = compared(actions)
    print(f"start to an answered tools/list, median of {RUNS}, in turns:")
    for name, times in found.items():
        print(f"  {times.wall_ms:7.1f} ms wall  {times.user_ms:7.1f} ms user  {times.memory_mb:5.0f} MB  {name}")
    for name in servers.keys() - found.keys():
        print(f"  not found: {name}")
    ours, empty, nothing = (found[name].wall_ms for name in ("ours", "empty MCPServer", "python -c pass"))
    print(f"  ratio to the empty server: {ours / empty:.3f} (goal: at most 0.06)")
    print(f"  ratio to python -c pass: {ours / nothing:.2f} (goal: at most 2.5)")


def _calls() -> None:
    found = compared(
        {
            "with the front": lambda: start(OURS, calls=True),
            "without it": lambda: start(OURS, WITHOUT_FRONT, calls=True),
        }
    )
    print("start to the answer of a call that is sent at once:")
    for name, times in found.items():
        print(f"  {times.wall_ms:7.1f} ms wall  {times.memory_mb:5.0f} MB  {name}")
    ours, before = found["with the front"], found["without it"]
    wall, memory = ours.wall_ms / before.wall_ms, ours.memory_mb / before.memory_mb
    print(f"  ratio: {wall:.2f} (goal: at most 1.05), of memory {memory:.2f}")


def _without_bytecode(home: str) -> None:
    fresh = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": f"{home}/none"}
    found = compared(
        {"ours": lambda: start(OURS, fresh), "without the front": lambda: start(OURS, fresh | WITHOUT_FRONT)}
    )
    shown = ", ".join(f"{times.wall_ms:.0f} ms {name}" for name, times in found.items())
    print(f"the same without compiled files, as right after an installation: {shown}")


def _settings() -> None:
    tools = read_records().tools()
    costly = []
    for name, setting in SETTINGS.items():
        value = setting.choices[0] if setting.kind == "choice" else USUAL[setting.kind]
        environment = {"HOME": "/nowhere", setting.variable: value}
        if name == "budget_since":
            environment[SETTINGS["budget_usd"].variable] = "10"
        if find_offer([], environment, tools, read_file) is None:
            costly.append(setting.variable)
    print(f"settings that leave the first second to the SDK: {', '.join(costly)}")


if __name__ == "__main__":
    main()
