"""Commands about the machine: date and nvidia-smi."""

import re
from typing import Final

from lium_mcp.sandbox.container.host import sample
from lium_mcp.sandbox.container.processes import Process
from lium_mcp.sandbox.container.shell import MISUSED, CommandCall, Program, Usage

UNITS: Final = {
    "utilization.gpu": " %", "memory.used": " MiB", "memory.total": " MiB", "memory.free": " MiB",
    "used_memory": " MiB", "power.draw": " W", "power.limit": " W",
}  # fmt: skip
APP_FIELDS: Final = ("gpu_uuid", "gpu_name", "pid", "process_name", "used_memory")


async def date(call: CommandCall) -> int:
    """Print the sandbox's time."""
    words = [word for word in call.arguments if word != "-u"] or ["+%a %b %e %H:%M:%S UTC %Y"]
    if len(words) > 1 or not re.fullmatch(r"\+([^%]|%[YmdHMSsFT])*|\+%a %b %e.*", words[0], re.DOTALL):
        raise Usage("the sandbox's date takes -u and a +FORMAT of %Y %m %d %H %M %S %s %F %T")
    now = call.process.now
    shown = words[0][1:].replace("%s", str(int(now.timestamp())))
    await call.out(f"{now.strftime(shown)}\n")
    return 0


async def nvidia_smi(call: CommandCall) -> int:
    """Print the GPUs: the table, -L, or a query as CSV."""
    host = call.process.kernel.host
    if not call.arguments:
        await call.out(_table(call))
        return 0
    if call.arguments == ["-L"]:
        await call.out("".join(f"GPU {n}: {host.gpu_name} (UUID: {u})\n" for n, u in enumerate(host.gpu_uuids)))
        return 0
    match = re.fullmatch("--query-(gpu|compute-apps)=(.*)\0--format=(.*)", "\0".join(call.arguments), re.DOTALL)
    styles = match[3].split(",") if match else []
    if match is None or "csv" not in styles:
        raise Usage("the sandbox knows nvidia-smi, -L, and --query-gpu or --query-compute-apps with --format=csv")
    names, rows = match[2].split(","), _gpus(call) if match[1] == "gpu" else _apps(call)
    known = rows[0].keys() if rows else APP_FIELDS
    if unknown := [name for name in names if name not in known]:
        await call.out(f'Field "{unknown[0][:40]}" is not a valid field to query.\n')
        return MISUSED
    units = {} if "nounits" in styles else UNITS
    if "noheader" not in styles:
        await call.out(", ".join(f"{name} [{units[name].strip()}]" if name in units else name for name in names) + "\n")
    await call.out("".join(", ".join(row[name] + units.get(name, "") for name in names) + "\n" for row in rows))
    return 0


def _gpu_processes(call: CommandCall) -> list[Process]:
    processes = call.process.kernel.processes.values()
    return [process for process in processes if re.match(r"(\S*/)?python3?\b", process.title)]


def _gpus(call: CommandCall) -> list[dict[str, str]]:
    host, is_busy, rows = call.process.kernel.host, bool(_gpu_processes(call)), []
    for index, uuid in enumerate(host.gpu_uuids):
        at = sample(host, index, call.process.now, is_busy=is_busy)
        rows.append(
            {
                "index": str(index),
                "name": host.gpu_name,
                "uuid": uuid,
                "utilization.gpu": str(at.utilization_percent),
                "memory.used": str(at.memory_used_mib),
                "memory.total": str(host.gpu_memory_mib),
                "memory.free": str(host.gpu_memory_mib - at.memory_used_mib),
                "temperature.gpu": str(at.temperature_celsius),
                "power.draw": f"{at.power_watts:.2f}",
                "power.limit": f"{host.gpu_power_watts:.2f}",
                "driver_version": host.driver,
                "count": str(len(host.gpu_uuids)),
            }
        )
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


PROGRAMS: Final[dict[str, Program]] = {"date": date, "nvidia-smi": nvidia_smi}
