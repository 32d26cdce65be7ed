"""Commands about the machine and what it runs: date, nvidia-smi and a pretended python3."""

import json
import posixpath
import re
from typing import Final

from lium_mcp.sandbox.container.commands.operands import seconds, whole_number
from lium_mcp.sandbox.container.files import File
from lium_mcp.sandbox.container.host import sample
from lium_mcp.sandbox.container.processes import Process
from lium_mcp.sandbox.container.shell import CommandCall, Program, Usage
from lium_mcp.sandbox.seeded import fraction

UNITS: Final = {
    "utilization.gpu": " %", "memory.used": " MiB", "memory.total": " MiB", "memory.free": " MiB",
    "used_memory": " MiB", "power.draw": " W", "power.limit": " W",
}  # fmt: skip
NO_DEVICES: Final = 6
VERSION: Final = "Python 3.11.9"
MOST_STEPS: Final = 20_000
CHECKPOINT_BYTES: Final = 64 * 1024
SECONDS_PER_STEP: Final = 30.0
STEPS: Final = 20
HOLDS_ONLY: Final = "--idle"
APP_FIELDS: Final = ("gpu_uuid", "gpu_name", "pid", "process_name", "used_memory")


async def date(call: CommandCall) -> None:
    """Print the sandbox's time."""
    words = [word for word in call.arguments if word != "-u"] or ["+%a %b %e %H:%M:%S UTC %Y"]
    if len(words) > 1 or not re.fullmatch(r"\+([^%]|%[YmdHMSsFT])*|\+%a %b %e.*", words[0], re.DOTALL):
        raise Usage("the sandbox's date takes -u and a +FORMAT of %Y %m %d %H %M %S %s %F %T")
    now = call.process.now
    shown = words[0][1:].replace("%s", str(int(now.timestamp())))
    await call.out(f"{now.strftime(shown)}\n")


async def nvidia_smi(call: CommandCall) -> None:
    """Print the GPUs: the table, -L, or a query as CSV."""
    if not call.process.kernel.host.gpu_uuids:
        await call.out("No devices were found\n")
        call.status = NO_DEVICES
    elif not call.arguments:
        await call.out(_table(call))
    elif call.arguments == ["-L"]:
        rows = _gpus(call)
        await call.out("".join(f"GPU {row['index']}: {row['name']} (UUID: {row['uuid']})\n" for row in rows))
    else:
        await _query(call)


async def _query(call: CommandCall) -> None:
    match = re.fullmatch("--query-(gpu|compute-apps)=(.*)\0--format=(.*)", "\0".join(call.arguments), re.DOTALL)
    styles = match[3].split(",") if match else []
    if match is None or "csv" not in styles:
        raise Usage("the sandbox knows nvidia-smi, -L, and --query-gpu or --query-compute-apps with --format=csv")
    names, rows = match[2].split(","), _gpus(call) if match[1] == "gpu" else _apps(call)
    known = rows[0].keys() if rows else APP_FIELDS
    if unknown := [name for name in names if name not in known]:
        raise Usage(f'Field "{unknown[0][:40]}" is not a valid field to query.')
    units = {} if "nounits" in styles else UNITS
    if "noheader" not in styles:
        await call.out(", ".join(f"{name} [{units[name].strip()}]" if name in units else name for name in names) + "\n")
    await call.out("".join(", ".join(row[name] + units.get(name, "") for name in names) + "\n" for row in rows))


def _gpu_processes(call: CommandCall) -> list[Process]:
    processes = call.process.kernel.processes.values()
    return [process for process in processes if re.match(r"(\S*/)?python3?\b", process.title)]


def _gpus(call: CommandCall) -> list[dict[str, str]]:
    is_busy = any(HOLDS_ONLY not in process.title.split() for process in _gpu_processes(call))
    host, rows = call.process.kernel.host, []
    for index, uuid in enumerate(host.gpu_uuids):
        percent, used_mib, degrees, watts = sample(host, index, call.process.now, is_busy=is_busy)
        rows.append(
            {
                "index": str(index), "name": host.gpu_name, "uuid": uuid, "driver_version": host.driver,
                "count": str(len(host.gpu_uuids)), "utilization.gpu": str(percent), "temperature.gpu": str(degrees),
                "memory.used": str(used_mib), "memory.total": str(host.gpu_memory_mib),
                "memory.free": str(host.gpu_memory_mib - used_mib), "power.draw": f"{watts:.2f}",
                "power.limit": f"{host.gpu_power_watts:.2f}",
            }
        )  # fmt: skip
    return rows


def _apps(call: CommandCall) -> list[dict[str, str]]:
    processes = _gpu_processes(call)
    return [
        {
            "gpu_uuid": row["uuid"],
            "gpu_name": row["name"],
            "pid": str(process.pid),
            "process_name": process.title.split(" ", 1)[0],
            "used_memory": str((int(row["memory.used"]) - 4) // len(processes)),
        }
        for row in _gpus(call)
        for process in processes
    ]


def _table(call: CommandCall) -> str:
    host = call.process.kernel.host
    bar = f"+{'-' * 77}+\n"
    lines = [f"NVIDIA-SMI {host.driver:<12} Driver Version: {host.driver:<12} CUDA Version: {host.cuda}", ""]
    for row in _gpus(call):
        memory = f"{row['memory.used']}MiB / {row['memory.total']}MiB"
        lines.append(
            f"{row['index']:>3}  {row['name']:<34}{row['temperature.gpu']}C {memory:>22} {row['utilization.gpu']:>3}%"
        )
    apps = [f"{row['gpu_uuid'][:12]}  PID {row['pid']}  {row['process_name']}" for row in _apps(call)]
    lines += ["", "Processes:", *(apps or ["No running processes found"])]
    shown = "".join(f"| {line:<75.75} |\n" if line else bar for line in lines)
    return f"{call.process.now:%a %b %e %H:%M:%S %Y}\n{bar}{shown}{bar}"


async def python3(call: CommandCall) -> None:
    """Tell the version, or play ``train*.py``; it runs no Python."""
    path, *words = [word for word in call.arguments if word != "-u"] or ["-"]
    name = posixpath.basename(path)
    if path in {"--version", "-V"}:
        await call.out(f"{VERSION}\n")
    elif not (name.startswith("train") and name.endswith(".py")):
        await call.fail("the sandbox does not run Python, it only plays train*.py")
    elif not isinstance(call.process.files.find(path, call.process.cwd).node, File):
        await call.fail(f"can't open file '{path[:200]}': No such file or directory", 2)
    else:
        await _train(call, " ".join(words))


async def _train(call: CommandCall, options: str) -> None:
    """Print a loss line a step, on the sandbox's clock, and at last write what a training does."""
    given = dict(re.findall("--(steps|step-seconds|output)[= ]([^ ]+)", options))
    steps = whole_number(given.get("steps", str(STEPS)), largest=MOST_STEPS)
    pause, output = seconds(given.get("step-seconds", str(SECONDS_PER_STEP))), given.get("output", "")
    loss = 2.5
    for step in range(1, steps + 1):
        call.process.budget.spend()
        await call.process.sleep(pause)
        loss = 2.4 / (1 + step / 4) + 0.1 * fraction("loss", call.process.kernel.host.pod_id, step)
        await call.out(f"step {step}/{steps} loss {loss:.4f}\n")
    if output:
        files, cwd = call.process.files, call.process.cwd
        files.make_directory(output, cwd, parents=True)
        metrics = json.dumps({"steps": steps, "loss": round(loss, 4)})
        files.write_file(posixpath.join(output, "metrics.json"), f"{metrics}\n".encode(), cwd)
        weights = bytes((step * 37 + at) & 255 for step in range(256) for at in range(CHECKPOINT_BYTES // 256))
        files.write_file(posixpath.join(output, "model.safetensors"), weights, cwd)
        await call.out(f"saved to {output}\n")


PROGRAMS: Final[dict[str, Program]] = {"date": date, "nvidia-smi": nvidia_smi, "python3": python3, "python": python3}
