"""``lium-mcp demo``: what an agent does, before a person's eyes.

The real server runs as a subprocess over the simulated Lium, and the SDK's own client calls its tools. Each step checks
what it claims; the exit status is 0 only if all of them held.
"""

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO
from uuid import uuid4

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

import lium_mcp

# Ten sandbox seconds in one: a pod starts while one watches, and two hours do not pass meanwhile.
_SANDBOX_SPEED: Final = 10
_DEMO_LIMIT_SECONDS: Final = 240.0
_LEDGER_LIMIT_SECONDS: Final = 60.0
_REMOVAL_TOLERANCE: Final = timedelta(minutes=10)
_HOURS: Final = 2
# Not a key anybody has: 32 bytes that say what they are, in the format of a public key.
_EXAMPLE_PUBLIC_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGxpdW0tbWNwIGRlbW8ga2V5LCBub2JvZHkgaGFzIGl0 demo"

Answer = dict[str, Any]


class StepFailed(Exception):
    """A step did not do what it says."""


class Demo:
    """Runs the steps and shows them."""

    def __init__(self, client: Client, out: TextIO) -> None:
        self._client = client
        self._out = out
        self._step = 0

    def title(self, text: str) -> None:
        """Announce a step."""
        self._step += 1
        self.show(f"\n{self._bold(f'{self._step}. {text}')}")

    def show(self, text: str) -> None:
        """Write a line."""
        self._out.write(f"{text}\n")
        self._out.flush()

    async def call(self, tool: str, **arguments: Any) -> Answer:  # noqa: ANN401 - any JSON value is an argument
        """Call a tool as an agent does, showing the call and its progress."""
        written = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        self.show(f"   -> {tool}({written})")

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK calls it by name
            self.show(f"      ... {message}")

        result = await self._client.call_tool(tool, arguments, progress_callback=on_progress)
        if result.is_error or result.structured_content is None:
            text = " ".join(block.text for block in result.content if isinstance(block, TextContent))
            raise StepFailed(f"{tool} failed: {text}")
        return dict(result.structured_content)

    def check(self, holds: bool, claim: str) -> None:
        """State what the step did, or stop if it did not.

        Raises:
            StepFailed: the claim does not hold.
        """
        if not holds:
            raise StepFailed(f"this does not hold: {claim}")
        self.show(f"   {self._green('ok')} {claim}")

    def _bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self._coloured else text

    def _green(self, text: str) -> str:
        return f"\033[32m{text}\033[0m" if self._coloured else text

    @property
    def _coloured(self) -> bool:
        return self._out.isatty() and "NO_COLOR" not in os.environ


async def run(out: TextIO = sys.stdout) -> int:
    """Run the demo.

    Returns:
        The exit status: 0 if every step did what it says.
    """
    problem = ""
    nobody_reads = False
    out.write("An agent rents a GPU through lium-mcp. Lium is simulated here: no account, no network, no money.\n")
    try:
        with anyio.fail_after(_DEMO_LIMIT_SECONDS):
            async with _client() as client:
                await _rent_use_remove(Demo(client, out))
    except* StepFailed as group:
        problem = str(_first(group))
    except* LookupError as group:
        problem = f"an answer lacks {_first(group)}"
    except* MCPError as group:
        problem = f"the server did not answer: {_first(group)}"
    except* BrokenPipeError:
        nobody_reads = True
    except* TimeoutError:
        problem = f"it did not end within {_DEMO_LIMIT_SECONDS:.0f} seconds"
    if nobody_reads:
        raise BrokenPipeError
    if problem:
        out.write(f"\nThe demo failed: {problem}\n")
        return 1
    out.write("\nAll steps did what they say. Next: put lium-mcp into your MCP host (see README.md).\n")
    return 0


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


@asynccontextmanager
async def _client() -> AsyncIterator[Client]:
    # Started by path, so that the demo also runs from a clone where nothing is installed.
    home = str(Path(lium_mcp.__file__).parent.parent)
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lium_mcp", "--sandbox", "--sandbox-speed", str(_SANDBOX_SPEED), "--log-level", "ERROR"],
        env={"PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))},
    )
    async with Client(stdio_client(server)) as client:
        yield client


async def _rent_use_remove(demo: Demo) -> None:
    demo.title("Connect to the server over stdio")
    tools = (await demo._client.list_tools()).tools  # noqa: SLF001 - the demo's own client
    demo.check(len(tools) > 0, f"the server lists {len(tools)} tools")

    demo.title("Read the balance")
    before = await demo.call("get_balance")
    demo.check(
        before["balance_usd"] > 0, f"${before['balance_usd']:.2f}, and ${before['burn_per_hour_usd']:.2f} an hour burns"
    )

    demo.title("Find the cheapest A100")
    offers = (await demo.call("list_gpus", gpu_type="A100", sort="price", limit=5))["offers"]
    cheapest = offers[0]
    prices = [offer["price_per_gpu_hour_usd"] for offer in offers]
    demo.check(
        cheapest["gpu_type"] == "A100" and prices == sorted(prices),
        f"A100 with {cheapest['vram_gb']} GB in {cheapest.get('country', 'an unnamed country')} "
        f"at ${cheapest['price_per_gpu_hour_usd']:.2f} per GPU-hour",
    )

    demo.title(f"Quote it for {_HOURS} hours")
    executor_id = cheapest["executor_id"]
    quote = await demo.call("quote_rental", executor_id=executor_id, hours=_HOURS)
    price = quote["price_per_hour_usd"]
    demo.check(
        abs(quote["total_usd"] - price * _HOURS) < 0.01,  # noqa: PLR2004 - a cent
        f"{quote['gpu_count']} GPU: ${price:.2f} an hour, ${quote['total_usd']:.2f} in all; nothing is reserved",
    )

    demo.title("Make sure that somebody can log in")
    keys = await demo.call("list_ssh_keys")
    if not keys["total"]:
        keys = await demo.call("add_ssh_key", name="demo", public_key=_EXAMPLE_PUBLIC_KEY)
    demo.check(bool(keys), "a public key is there for the pod")

    demo.title(f"Rent it for {_HOURS} hours and wait until it runs")
    name = f"demo-{uuid4().hex[:6]}"
    rented = await demo.call(
        "rent_pod", name=name, executor_id=executor_id, gpu_count=quote["gpu_count"], hours=_HOURS, wait_seconds=60
    )
    pod = rented["pod"]
    pod_id = pod["pod_id"]
    try:
        await _use(demo, rented, price)
    finally:
        with anyio.CancelScope(shield=True):
            demo.title("Remove it")
            removed = await demo.call("remove_pod", pod=pod_id, wait_seconds=60)
    left = [row["pod_id"] for row in (await demo.call("list_pods"))["pods"]]
    demo.check(removed["outcome"] == "done" and pod_id not in left, f"{name} is gone from the account")

    demo.title("Read the balance again")
    await _check_charge(demo, before, pod_id)


async def _use(demo: Demo, rented: Answer, price: float) -> None:
    pod = rented["pod"]
    if rented["outcome"] != "done":
        raise StepFailed(f"{pod['name']} does not run. {rented['next']}")
    demo.check(
        rented["outcome"] == "done" and pod["status"] == "RUNNING" and abs(pod["price_per_hour_usd"] - price) < 0.01,  # noqa: PLR2004 - a cent
        f"{pod['name']} runs at the quoted ${pod['price_per_hour_usd']:.2f} an hour: {pod['ssh_command']}",
    )
    removal = datetime.fromisoformat(pod["removal_at"])
    created = datetime.fromisoformat(pod["created_at"])
    demo.check(
        abs(removal - created - timedelta(hours=_HOURS)) < _REMOVAL_TOLERANCE,
        f"Lium removes it at {removal:%H:%M} UTC even if everybody forgets it",
    )

    demo.title("Read its logs and what it costs")
    logs = await demo.call("get_pod_logs", pod=pod["pod_id"], tail=5)
    for line in logs["lines"]:
        demo.show(f"      | {line}")
    demo.check(bool(logs["lines"]), f"{len(logs['lines'])} lines of output")
    cost = (await demo.call("get_pod", pod=pod["pod_id"]))["pod"]["cost_so_far_usd"]
    demo.check(0 < cost < price * _HOURS, f"it has cost ${cost:.4f} so far")


async def _check_charge(demo: Demo, before: Answer, pod_id: str) -> None:
    """The ledger follows within minutes of sandbox time: wait for it, then hold the balance against it."""
    deadline = time.monotonic() + _LEDGER_LIMIT_SECONDS
    while True:
        after = await demo.call("get_balance")
        spending = await demo.call("get_spending", days=2)
        charged = sum(row["total_usd"] for row in spending["pods"] if row["pod_id"] == pod_id)
        paid = before["balance_usd"] - after["balance_usd"]
        settled = charged > 0 and abs(paid - charged) < 0.001  # noqa: PLR2004 - a tenth of a cent
        if settled or time.monotonic() > deadline:
            break
        await anyio.sleep(2)
    demo.check(settled, f"${after['balance_usd']:.4f}: ${paid:.4f} less than before, which is what the ledger charged")
    demo.check(after["burn_per_hour_usd"] == before["burn_per_hour_usd"], "nothing burns that did not burn before")
