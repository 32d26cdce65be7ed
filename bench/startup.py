"""From process start to an answered ``tools/list``, beside an empty server of the SDK in the same run."""

import json
import statistics
import subprocess
import sys
import time

RUNS = 5
EMPTY_SERVER = "from mcp.server import MCPServer; MCPServer(name='empty', version='1').run('stdio')"
REQUEST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/list",
    "params": {
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    },
}


def seconds_to_list(command: list[str]) -> float:
    started = time.perf_counter()
    with subprocess.Popen(  # noqa: S603 - our own server
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(REQUEST) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        elapsed = time.perf_counter() - started
        process.stdin.close()
    if "tools" not in answer["result"]:
        raise SystemExit(f"no tool list: {answer}")
    return elapsed


def main() -> None:
    ours = [sys.executable, "-m", "lium_mcp"]
    empty = [sys.executable, "-c", EMPTY_SERVER]
    for command in (empty, ours):
        seconds_to_list(command)  # compiles the bytecode and fills the disk cache
    # Alternating, so that a slow moment of the machine hits both.
    pairs = [(seconds_to_list(empty), seconds_to_list(ours)) for _ in range(RUNS)]
    baseline, measured = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"start to tools/list, median of {RUNS}: {measured * 1000:.0f} ms; empty MCPServer: {baseline * 1000:.0f} ms")
    print(f"ratio: {measured / baseline:.2f} (goal: at most 1.25)")


if __name__ == "__main__":
    main()
