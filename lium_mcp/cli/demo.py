"""``lium-mcp demo``: what an agent does, before a person's eyes.

The real server runs as a subprocess over the simulated Lium, and the SDK's own client calls its tools. Each step checks
what it claims; the exit status is 0 only if all of them held.
"""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TextIO
from uuid import uuid4

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

import lium_mcp

_DEMO_LIMIT_SECONDS: Final = 240.0
_LEDGER_LIMIT_SECONDS: Final = 60.0
_REMOVAL_TOLERANCE: Final = timedelta(minutes=10)
_HOURS: Final = 2

ToolAnswer = dict[str, Any]


class StepFailed(Exception):
    """A step did not do what it says."""


class Demo:
    """Runs the steps and shows them."""

    def __init__(self, client: Client, out: TextIO, folder: Path) -> None:
        self._client = client
        self._out = out
        self.folder = folder
        self._step = 0

    def title(self, text: str) -> None:
        """Announce a step."""
        self._step += 1
        self.show(f"\n{self._bold(f'{self._step}. {text}')}")

    def show(self, text: str) -> None:
        """Write a line."""
        self._out.write(f"{text}\n")
        self._out.flush()

    async def call(self, tool: str, **arguments: Any) -> ToolAnswer:  # noqa: ANN401 - any JSON value is an argument
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


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    return anyio.run(show, options["workflow"])


async def show(workflow: str = "rent", out: TextIO = sys.stdout) -> int:
    """Run the demo of a workflow: `rent`, or `job`.

    Returns:
        The exit status: 0 if every step did what it says.
    """
    problem = ""
    nobody_reads = False
    does, speed, steps = _WORKFLOWS[workflow]
    out.write(f"An agent {does} through lium-mcp. Lium is simulated here: no account, no network, no money.\n")
    try:
        with anyio.fail_after(_DEMO_LIMIT_SECONDS), TemporaryDirectory() as folder:
            async with _client(Path(folder), speed) as client:
                await steps(Demo(client, out, Path(folder)))
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
async def _client(folder: Path, speed: int) -> AsyncIterator[Client]:
    # Started by path, so that the demo also runs from a clone where nothing is installed.
    home = str(Path(lium_mcp.__file__).parent.parent)
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "lium_mcp", "--sandbox", "--sandbox-speed", str(speed), "--log-level", "ERROR"],
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")])),
            "LIUM_SSH_KEY_PATH": str(_make_key(folder)),
        },
        cwd=folder,
    )
    async with Client(stdio_client(server)) as client:
        yield client


def _make_key(folder: Path) -> Path:
    """A key pair for this demo alone: the pod takes its public half when it is rented."""
    import asyncssh  # noqa: PLC0415 - a demo that cannot start should not pay for it

    path = folder / "key"
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    key.write_public_key(f"{path}.pub")
    return path


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
    prices = [offer["price_per_hour_usd"] for offer in offers]
    demo.check(
        cheapest["gpu_type"].startswith("A100") and prices == sorted(prices),
        f"A100 with {cheapest['vram_gb']} GB in {cheapest.get('country', 'an unnamed country')} "
        f"at ${cheapest['price_per_hour_usd']:.2f} an hour",
    )

    demo.title(f"Quote it for {_HOURS} hours")
    executor_id = cheapest["executor_id"]
    quote = await demo.call("quote_rental", executor_id=executor_id, hours=_HOURS)
    price = quote["price_per_hour_usd"]
    demo.check(
        abs(quote["total_usd"] - price * _HOURS) < 0.01,  # noqa: PLR2004 - a cent
        f"{quote['gpu_count']} GPU: ${price:.2f} an hour, ${quote['total_usd']:.2f} in all; nothing is reserved",
    )

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


async def _use(demo: Demo, rented: ToolAnswer, price: float) -> None:
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


async def _check_charge(demo: Demo, before: ToolAnswer, pod_id: str) -> None:
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


async def _run_job(demo: Demo) -> None:
    demo.title("Connect to the server over stdio")
    tools = {tool.name for tool in (await demo._client.list_tools()).tools}  # noqa: SLF001 - the demo's own client
    demo.check({"upload_files", "start_job", "get_job"} <= tools, f"the server lists {len(tools)} tools")

    demo.title("Rent a fresh pod for the job")
    name = f"job-{uuid4().hex[:6]}"
    rented = await demo.call("rent_pod", name=name, gpu_type="A100", hours=_HOURS, wait_seconds=60)
    pod_id = rented["pod_id"]
    removed = False
    try:
        demo.check(rented["outcome"] == "done", f"{name} runs, and Lium removes it at {rented['pod']['removal_at']}")
        results = rented["pod"]["local_volume_path"]
        await _work(demo, pod_id, results)

        demo.title("Take a last backup, and only then remove the pod")
        ended = await demo.call("remove_pod", pod=pod_id, final_backup=True, wait_seconds=120)
        removed = ended["outcome"] == "done"
        demo.check(removed, f"{name} is gone")
        backup = await demo.call("get_backup", backup_id=ended["backup_id"])
        demo.check(backup["backup"]["status"] == "COMPLETED", f"backup {ended['backup_id']} is complete")
        left = (await demo.call("list_pods"))["pods"]
        demo.check(pod_id not in [row["pod_id"] for row in left], "nothing of it bills any more")
    finally:
        if not removed:
            with anyio.CancelScope(shield=True):
                await demo.call("remove_pod", pod=pod_id)


async def _work(demo: Demo, pod_id: str, results: str) -> None:
    demo.title("Bring the files")
    project = demo.folder / "project"
    project.mkdir()
    (project / "train.sh").write_text(_TRAINING)
    (project / "data.txt").write_text("1\n2\n3\n")
    up = await demo.call("upload_files", pod=pod_id, local_path="project", pod_path="project")
    demo.check(up["outcome"] == "done" and up["copied_files"] == 2, "two files are on the pod")  # noqa: PLR2004
    again = await demo.call("upload_files", pod=pod_id, local_path="project", pod_path="project")
    demo.check(again["copied_files"] == 0, "and are not copied again while they are the same")

    demo.title("Look at the GPU")
    run = await demo.call("run_command", pod=pod_id, command="nvidia-smi --query-gpu=name --format=csv,noheader")
    demo.check(run["exit_code"] == 0 and "A100" in run["stdout"], f"it is an {run['stdout'].strip()}")

    demo.title("Start the job, which needs neither connection nor server")
    command = f"sh project/train.sh {results}/model.txt"
    started = await demo.call("start_job", pod=pod_id, name="train", command=command, max_hours=1)
    demo.check(started["job"]["status"] == "running", f"it is stopped at {started['job']['stops_at']} at the latest")

    demo.title("Find it by its name and wait for its end")
    job = await demo.call("get_job", pod=pod_id, name="train", wait_seconds=120)
    for line in job["log"].splitlines():
        demo.show(f"      | {line}")
    demo.check(job["outcome"] == "done" and job["job"]["exit_code"] == 0, "it ended well")

    demo.title("Bring the results back")
    down = await demo.call("download_files", pod=pod_id, pod_path=f"{results}/model.txt", local_path="model.txt")
    model = demo.folder / "model.txt"
    demo.check(down["outcome"] == "done" and model.read_text() == "trained on 1 2 3\n", "model.txt is here")


_TRAINING: Final = """\
echo training
sleep 20
echo "trained on" $(cat project/data.txt) > "$1"
echo done
"""

# So many sandbox seconds in one: a pod starts while one watches, and two hours do not pass meanwhile.
_WORKFLOWS: Final[dict[str, tuple[str, int, Callable[[Demo], Awaitable[None]]]]] = {
    "rent": ("rents a GPU", 10, _rent_use_remove),
    "job": ("runs a job on a fresh GPU pod", 40, _run_job),
}
