"""``lium-mcp demo``: what an agent does, before a person's eyes.

The real server runs as a subprocess over the simulated Lium, and the SDK's own client calls its tools. Each step checks
what it claims; the exit status is 0 only if all of them held.
"""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, TextContent

import lium_mcp
from lium_mcp.cli.console import say, show_table, working
from lium_mcp.cli.exit_statuses import ExitStatus

_DEMO_LIMIT_SECONDS: Final = 240.0
_LEDGER_LIMIT_SECONDS: Final = 60.0
_REMOVAL_TOLERANCE: Final = timedelta(minutes=10)
_HOURS: Final = 2
_POD: Final = "demo"
_MOST_USD_PER_HOUR: Final = 1.5

ToolAnswer = dict[str, Any]


class StepFailed(Exception):
    """A step did not do what it says."""


class Demo:
    """Runs the steps and shows them."""

    def __init__(self, client: Client, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self._step = 0

    def title(self, text: str) -> None:
        """Announce a step."""
        self._step += 1
        say(f"\n{self._step}. {text}", style="bold")

    async def call(self, tool: str, **arguments: Any) -> ToolAnswer:  # noqa: ANN401 - any JSON value is an argument
        """Call a tool as an agent does, showing the call and its progress."""
        result = await self._ask(tool, arguments)
        if result.is_error or result.structured_content is None:
            raise StepFailed(f"{tool} failed: {_text(result)}")
        return dict(result.structured_content)

    async def refused(self, tool: str, **arguments: Any) -> str:  # noqa: ANN401 - as above
        """Call a tool that has to be refused, and show in which words it is."""
        result = await self._ask(tool, arguments)
        if not result.is_error:
            raise StepFailed(f"{tool} was not refused")
        say(f"      {_text(result)}", style="yellow")
        return _text(result)

    async def _ask(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        written = ", ".join(f"{key}={json.dumps(value)}" for key, value in arguments.items())
        say(f"   -> {tool}({written})", style="cyan")

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK calls it by name
            say(f"      ... {message}")

        with working(tool):
            return await self.client.call_tool(tool, arguments, progress_callback=on_progress)

    def check(self, holds: bool, claim: str) -> None:
        """State what the step did, or stop if it did not.

        Raises:
            StepFailed: the claim does not hold.
        """
        if not holds:
            raise StepFailed(f"this does not hold: {claim}")
        say(f"   ok {claim}", style="green")


def _text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def run(options: dict[str, Any]) -> int:
    """Run the command; the exit status is the answer."""
    return anyio.run(show, options["workflow"])


async def show(workflow: str) -> int:
    """Run the demo of a workflow: `rent`, or `job`.

    Returns:
        The exit status: 0 if every step did what it says.
    """
    problem = ""
    nobody_reads = False
    began = time.monotonic()
    does, speed, steps = _WORKFLOWS[workflow]
    say(f"An agent {does} through lium-mcp. Lium is simulated here: no account, no network, no money.")
    say(f"Its clock goes {speed} times as fast as ours.")
    try:
        with anyio.fail_after(_DEMO_LIMIT_SECONDS), TemporaryDirectory() as folder:
            async with _client(Path(folder), speed, workflow) as client:
                await steps(Demo(client, Path(folder)))
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
        say(f"\nThe demo failed: {problem}")
        return ExitStatus.FAILED
    say(f"\nAll steps did what they say, in {time.monotonic() - began:.0f} s.")
    say(
        "Next: `lium-mcp install HOST` puts it into your MCP host; `lium-mcp install --list` has their names. In a "
        "clone, `uv tool install .` makes that command."
    )
    return ExitStatus.OK


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


@asynccontextmanager
async def _client(folder: Path, speed: int, workflow: str) -> AsyncIterator[Client]:
    # Started by path, so that the demo also runs from a clone where nothing is installed.
    home = str(Path(lium_mcp.__file__).parent.parent)
    server = StdioServerParameters(
        command=sys.executable,
        args=[
            "-m",
            "lium_mcp",
            "--sandbox",
            "--sandbox-speed",
            str(speed),
            "--log-level",
            "ERROR",
            "--audit-file",
            os.devnull,
        ],
        env={
            "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")])),
            "LIUM_SSH_KEY_PATH": str(_make_key(folder)),
            "LIUM_MCP_MAX_PRICE_PER_HOUR_USD": str(_MOST_USD_PER_HOUR),
        },
        cwd=folder,
    )
    asking = say_yes if workflow == "rent" else None
    async with Client(stdio_client(server), elicitation_callback=asking) as client:
        yield client


async def say_yes(context: Any, params: ElicitRequestParams) -> ElicitResult:  # noqa: ANN401, ARG001 - the SDK's own
    """Show what the server asks the person, and answer for them."""
    say("      ? " + params.message.replace("\n", "\n        "), style="magenta")
    say("      yes, the person answers", style="magenta")
    return ElicitResult(action="accept", content={"confirm": True})


def _make_key(folder: Path) -> Path:
    """A key pair for this demo alone: the pod takes its public half when it is rented."""
    import asyncssh  # noqa: PLC0415 - a demo that cannot start should not pay for it

    path = folder / "key"
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(path)
    key.write_public_key(f"{path}.pub")
    return path


async def rent_use_remove(demo: Demo) -> None:
    """Go through the workflow of renting a pod.

    Raises:
        StepFailed: a step does not do what it says.
    """
    demo.title("Connect to the server over stdio")
    tools = (await demo.client.list_tools()).tools
    demo.check(len(tools) > 0, f"the server lists {len(tools)} tools")

    demo.title("Read the balance and the limits that a person has set")
    before = await demo.call("get_balance")
    limits = {row["limit"]: row["allowed"] for row in before["limits"]}
    demo.check(
        before["balance_usd"] > 0 and limits["max_price_per_hour_usd"] == _MOST_USD_PER_HOUR,
        f"${before['balance_usd']:.2f}, and no pod may cost more than ${_MOST_USD_PER_HOUR:.2f} an hour",
    )

    demo.title("Find an A100")
    offers = (await demo.call("list_gpus", gpu_type="A100", sort="price", limit=4))["offers"]
    [per_gpu] = (await demo.call("list_gpus", gpu_type="A100", sort="price_per_gpu", limit=1))["offers"]
    _show_offers(offers, per_gpu)
    prices = [offer["price_per_hour_usd"] for offer in offers]
    demo.check(prices == sorted(prices), f"the cheapest rental is ${prices[0]:.2f} an hour")
    demo.check(
        per_gpu["price_per_hour_usd"] > prices[0],
        f"the cheapest GPU is ${per_gpu['price_per_gpu_hour_usd']:.2f} an hour, but its node rents "
        f"{per_gpu['rentable_gpus']} at once for ${per_gpu['price_per_hour_usd']:.2f}",
    )

    demo.title("Try more than the limit allows")
    said = await demo.refused("rent_pod", name="big", gpu_type="A100", gpu_count=4, hours=_HOURS)
    demo.check("policy_refused" in said, "the server refused it, whatever the agent was told to do; nothing was rented")

    demo.title(f"Quote one for {_HOURS} hours")
    quote = await demo.call("quote_rental", gpu_type="A100", hours=_HOURS)
    price = quote["price_per_hour_usd"]
    demo.check(
        abs(quote["total_usd"] - price * _HOURS) < 0.01,  # noqa: PLR2004 - a cent
        f"{quote['gpu_type']}: ${price:.3f} an hour x {_HOURS} = ${quote['total_usd']:.3f} in all; nothing is reserved",
    )

    demo.title(f"Rent it for {_HOURS} hours: the server asks the person first")
    rented = await demo.call("rent_pod", name=_POD, gpu_type="A100", hours=_HOURS, max_usd_per_hour=1, wait_seconds=60)
    try:
        await _use(demo, rented)
    finally:
        with anyio.CancelScope(shield=True):
            demo.title("Remove it: what destroys is asked too")
            removed = await demo.call("remove_pod", pod=_POD, wait_seconds=60)
    left = [row["name"] for row in (await demo.call("list_pods"))["pods"]]
    demo.check(removed["outcome"] == "done" and _POD not in left, f"{_POD} is gone from the account")

    demo.title("Read the balance again")
    await _check_charge(demo, before, rented["pod"]["pod_id"])


def _show_offers(offers: Sequence[ToolAnswer], per_gpu: ToolAnswer) -> None:
    show_table(
        ("", "GPU", "RENTS", "COUNTRY", "TIER", "PER GPU", "PER HOUR"),
        [
            (
                "     ",
                offer["gpu_type"],
                f"{offer['rentable_gpus']} of {offer['total_gpus']}",
                offer.get("country", "?"),
                offer.get("tier", "?"),
                f"${offer['price_per_gpu_hour_usd']:.3f}",
                f"${offer['price_per_hour_usd']:.3f}",
            )
            for offer in (*offers, per_gpu)
        ],
        numbers=("PER GPU", "PER HOUR"),
    )


async def _use(demo: Demo, rented: ToolAnswer) -> None:
    pod = rented["pod"]
    if rented["outcome"] != "done":
        raise StepFailed(f"{pod['name']} does not run. {rented['next']}")
    price = pod["price_per_hour_usd"]
    demo.check(
        pod["status"] == "RUNNING" and price <= 1, f"{pod['name']} runs at ${price:.3f} an hour: {pod['ssh_command']}"
    )
    removal = datetime.fromisoformat(pod["removal_at"])
    created = datetime.fromisoformat(pod["created_at"])
    demo.check(
        abs(removal - created - timedelta(hours=_HOURS)) < _REMOVAL_TOLERANCE,
        f"Lium removes it at {removal:%H:%M} UTC even if everybody forgets it",
    )

    demo.title("Read its logs and what it costs")
    logs = await demo.call("get_pod_logs", pod=_POD, tail=5)
    for line in logs["lines"]:
        say(f"      | {line}")
    demo.check(bool(logs["lines"]), f"{len(logs['lines'])} lines of output")
    cost = (await demo.call("get_pod", pod=_POD))["pod"]["cost_so_far_usd"]
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
    demo.check(
        settled, f"${before['balance_usd']:.4f} - ${charged:.4f} that Lium charged = ${after['balance_usd']:.4f}"
    )
    demo.check(after["burn_per_hour_usd"] == before["burn_per_hour_usd"], "nothing burns that did not burn before")


async def _run_job(demo: Demo) -> None:
    demo.title("Connect to the server over stdio")
    tools = {tool.name for tool in (await demo.client.list_tools()).tools}
    demo.check({"upload_files", "start_job", "get_job"} <= tools, f"the server lists {len(tools)} tools")

    demo.title("Rent a fresh pod for the job")
    rented = await demo.call("rent_pod", name=_POD, gpu_type="A100", hours=_HOURS, wait_seconds=60)
    removed = False
    try:
        demo.check(rented["outcome"] == "done", f"{_POD} runs, and Lium removes it at {rented['pod']['removal_at']}")
        results = rented["pod"]["local_volume_path"]
        await _work(demo, results)

        demo.title("Take a last backup, and only then remove the pod")
        ended = await demo.call("remove_pod", pod=_POD, final_backup=True, wait_seconds=120)
        removed = ended["outcome"] == "done"
        demo.check(removed, f"{_POD} is gone")
        backup = await demo.call("get_backup", backup_id=ended["backup_id"])
        demo.check(backup["backup"]["status"] == "COMPLETED", f"backup {ended['backup_id']} is complete")
        left = (await demo.call("list_pods"))["pods"]
        demo.check(_POD not in [row["name"] for row in left], "nothing of it bills any more")
    finally:
        if not removed:
            with anyio.CancelScope(shield=True):
                await demo.call("remove_pod", pod=_POD)


async def _work(demo: Demo, results: str) -> None:
    demo.title("Bring the files")
    project = demo.folder / "project"
    project.mkdir()
    (project / "train.sh").write_text(_TRAINING)
    (project / "data.txt").write_text("1\n2\n3\n")
    up = await demo.call("upload_files", pod=_POD, local_path="project", pod_path="project")
    demo.check(up["outcome"] == "done" and up["copied_files"] == 2, "two files are on the pod")  # noqa: PLR2004
    again = await demo.call("upload_files", pod=_POD, local_path="project", pod_path="project")
    demo.check(again["copied_files"] == 0, "and are not copied again while they are the same")

    demo.title("Look at the GPU")
    run = await demo.call("run_command", pod=_POD, command="nvidia-smi --query-gpu=name --format=csv,noheader")
    demo.check(run["exit_code"] == 0 and "A100" in run["stdout"], f"it is an {run['stdout'].strip()}")

    demo.title("Start the job, which needs neither connection nor server")
    command = f"sh project/train.sh {results}/model.txt"
    started = await demo.call("start_job", pod=_POD, name="train", command=command, max_hours=1)
    demo.check(started["job"]["status"] == "running", f"it is stopped at {started['job']['stops_at']} at the latest")

    demo.title("Find it by its name and wait for its end")
    job = await demo.call("get_job", pod=_POD, name="train", wait_seconds=120)
    for line in job["log"].splitlines():
        say(f"      | {line}")
    demo.check(job["outcome"] == "done" and job["job"]["exit_code"] == 0, "it ended well")

    demo.title("Bring the results back")
    down = await demo.call("download_files", pod=_POD, pod_path=f"{results}/model.txt", local_path="model.txt")
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
    "rent": ("rents a GPU", 10, rent_use_remove),
    "job": ("runs a job on a fresh GPU pod", 40, _run_job),
}
