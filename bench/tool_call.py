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
ECHO_SERVER = """
from mcp.server import MCPServer
server = MCPServer(name="echo", version="1")
@server.tool()
async def echo(text: str) -> str:
    return text
server.run("stdio")
"""


async def milliseconds(action: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await action()
    return (time.perf_counter() - started) * 1000


logging.disable()


async def measure(base_url: str) -> None:
    settings = Settings(api_key=KEY, base_url=base_url, toolsets=frozenset({"extras"}))
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lium_mcp", "--log-level", "ERROR"],
        env={"LIUM_API_KEY": KEY, "LIUM_BASE_URL": base_url, "LIUM_MCP_TOOLSETS": "extras"},
    )
    async with (
        httpx2.AsyncClient(headers={"X-API-KEY": KEY, "User-Agent": "bench"}) as http,
        Client(build_server(settings)) as memory,
        Client(stdio_client(parameters)) as stdio,
        Client(stdio_client(StdioServerParameters(command=sys.executable, args=["-c", ECHO_SERVER]))) as echo,
    ):
        actions: dict[str, Callable[[], Awaitable[object]]] = {
            "raw GET /ssh-keys": lambda: http.get(f"{base_url}/ssh-keys"),
            "echo of an empty SDK server over stdio": lambda: echo.call_tool("echo", {"text": "x"}),
            "list_ssh_keys in memory": lambda: memory.call_tool("list_ssh_keys", {}),
            "list_ssh_keys over stdio": lambda: stdio.call_tool("list_ssh_keys", {}),
        }
        times: dict[str, list[float]] = {name: [] for name in actions}
        for _ in range(ROUNDS):
            for name, action in actions.items():
                times[name].append(await milliseconds(action))
    medians = {name: statistics.median(values) for name, values in times.items()}
    raw, echoed, in_memory, over_stdio = medians.values()
    for name, median in medians.items():
        print(f"{median:6.2f} ms  {name}")
    print(f"a call adds to its HTTP request: {in_memory - raw:.2f} ms (ratio {in_memory / raw:.2f}; goal: under 3 ms)")
    ours = over_stdio - raw - echoed
    print(f"over stdio, of which the SDK's own round trip is {echoed:.2f} ms, ours: {ours:.2f} ms")


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
