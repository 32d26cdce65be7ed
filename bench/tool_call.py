"""What a tool call adds to the one HTTP request it makes, measured against the sandbox over HTTP in the same run."""

import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import anyio
import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from lium_mcp.server import build_server
from lium_mcp.settings import Settings

ROUNDS = 200
KEY = "sk_sandbox"


async def milliseconds(action: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await action()
    return (time.perf_counter() - started) * 1000


logging.disable()


async def measure(base_url: str) -> None:
    settings = Settings(api_key=KEY, base_url=base_url)
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lium_mcp", "--log-level", "ERROR"],
        env={"LIUM_API_KEY": KEY, "LIUM_BASE_URL": base_url},
    )
    async with (
        httpx2.AsyncClient(headers={"X-API-KEY": KEY, "User-Agent": "bench"}) as http,
        Client(build_server(settings)) as in_memory,
        Client(stdio_client(parameters)) as over_stdio,
    ):
        actions: dict[str, Callable[[], Awaitable[object]]] = {
            "raw GET /ssh-keys": lambda: http.get(f"{base_url}/ssh-keys"),
            "list_ssh_keys in memory": lambda: in_memory.call_tool("list_ssh_keys", {}),
            "list_ssh_keys over stdio": lambda: over_stdio.call_tool("list_ssh_keys", {}),
        }
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(ROUNDS):
            for name, action in actions.items():
                times[name].append(await milliseconds(action))
    medians = {name: statistics.median(values) for name, values in times.items()}
    baseline = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{name}: {median:.2f} ms, adds {median - baseline:.2f} ms, ratio {median / baseline:.2f}")


def main() -> None:
    command = [sys.executable, "-m", "lium_mcp", "sandbox", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own sandbox
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            anyio.run(measure, line.rsplit(" ", 1)[-1].strip())
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
