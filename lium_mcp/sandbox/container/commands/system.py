"""Commands about the machine: date, whoami, uname, df, free, nvidia-smi and their like."""

from typing import Final

from lium_mcp.sandbox.container.commands.inputs import Usage, options
from lium_mcp.sandbox.container.commands.trees import human_size
from lium_mcp.sandbox.container.files import Directory
from lium_mcp.sandbox.container.host import sample
from lium_mcp.sandbox.container.kernel import Process
from lium_mcp.sandbox.container.shell import Call, Program

GPU_FIELDS: Final = frozenset(
    {
        "index", "name", "uuid", "utilization.gpu", "memory.used", "memory.total", "memory.free", "temperature.gpu",
        "power.draw", "power.limit", "driver_version", "count",
    }
)  # fmt: skip
APP_FIELDS: Final = frozenset({"gpu_uuid", "pid", "process_name", "used_memory", "gpu_name"})
UNITS: Final = {
    "utilization.gpu": " %", "memory.used": " MiB", "memory.total": " MiB", "memory.free": " MiB",
    "used_memory": " MiB", "power.draw": " W", "power.limit": " W",
}  # fmt: skip
GPU_PROGRAMS: Final = ("python", "python3", "torchrun", "accelerate")
_DATE_PARTS: Final = frozenset("YmdHMSyjbBaAeIpFTDRuZ")


async def date(call: Call) -> int:
    """Print the sandbox's time."""
    words = [word for word in call.arguments if word not in {"-u", "--utc"}]
    if len(words) > 1 or (words and not words[0].startswith("+")):
        raise Usage("the sandbox's date takes -u and +FORMAT")
    template = words[0][1:] if words else "%a %b %e %H:%M:%S UTC %Y"
    now, shown, at = call.process.now, [], 0
    while at < len(template):
        letter = template[at + 1 : at + 2]
        if template[at] != "%" or not letter:
            shown.append(template[at])
            at += 1
            continue
        extra = {"s": str(int(now.timestamp())), "N": f"{now.microsecond * 1000:09d}", "n": "\n", "t": "\t", "%": "%"}
        shown.append(extra.get(letter) or (now.strftime(f"%{letter}") if letter in _DATE_PARTS else f"%{letter}"))
        at += 2
    await call.out(f"{''.join(shown)}\n")
    return 0


async def whoami(call: Call) -> int:
    """Print the user."""
    await call.out("root\n")
    return 0


async def id_(call: Call) -> int:
    """Print the user's numbers."""
    found, _ = options(call.arguments, "ugn")
    await call.out("uid=0(root) gid=0(root) groups=0(root)\n" if not found else "root\n" if "n" in found else "0\n")
    return 0


async def hostname(call: Call) -> int:
    """Print the container's name."""
    await call.out(f"{call.process.kernel.host.hostname}\n")
    return 0


async def uname(call: Call) -> int:
    """Print the system's name."""
    found, _ = options(call.arguments, "asnrmo")
    host = call.process.kernel.host.hostname
    parts = {"s": "Linux", "n": host, "r": "5.15.0-sandbox", "m": "x86_64", "o": "GNU/Linux"}
    letters = "snrmo" if "a" in found else (found or "s")
    await call.out(f"{' '.join(value for letter, value in parts.items() if letter in letters)}\n")
    return 0


async def nproc(call: Call) -> int:
    """Print the number of processors."""
    await call.out(f"{call.process.kernel.host.cpu_count}\n")
    return 0


async def uptime(call: Call) -> int:
    """Print the time."""
    await call.out(f" {call.process.now:%H:%M:%S} up, 0 users, load average: 0.00, 0.00, 0.00\n")
    return 0


async def df(call: Call) -> int:
    """Print the storages and what is free in them."""
    found, _ = options(call.arguments, "hkT")
    root = call.process.files.root
    mounts = [("/", root), *mounted(root)]
    lines = [("Filesystem", "1K-blocks" if "h" not in found else "Size", "Used", "Available", "Use%", "Mounted on")]
    for path, directory in mounts:
        storage = directory.storage
        sizes = (storage.limit_bytes, storage.used_bytes, storage.limit_bytes - storage.used_bytes)
        shown = [human_size(size) if "h" in found else str(size // 1024) for size in sizes]
        share = f"{100 * storage.used_bytes // storage.limit_bytes}%"
        lines.append(("overlay" if path == "/" else "sandbox", shown[0], shown[1], shown[2], share, path))
    await call.out("".join(f"{a:<12} {b:>10} {c:>10} {d:>10} {e:>5} {f}\n" for a, b, c, d, e, f in lines))
    return 0


def mounted(root: Directory) -> list[tuple[str, Directory]]:
    """Return where another storage begins, among the upper directories."""
    found, level = [], [("", root)]
    for _ in range(4):
        level = [
            (f"{path}/{name}", node)
            for path, directory in level
            for name, node in directory.entries.items()
            if isinstance(node, Directory)
        ]
        found += [(path, node) for path, node in level if node.storage is not root.storage]
        level = [(path, node) for path, node in level if node.storage is root.storage]
    return found


async def free(call: Call) -> int:
    """Print how much memory is used."""
    found, _ = options(call.arguments, "hmgk")
    total = call.process.kernel.host.ram_kib * 1024
    used = total // 50 + 64 * 2**20 * len(call.process.kernel.processes)

    def shown(size: int) -> str:
        return (
            human_size(size)
            if "h" in found
            else str(size // (2**20 if "m" in found else 2**30 if "g" in found else 1024))
        )

    await call.out("               total        used        free\n")
    await call.out(f"Mem:    {shown(total):>12}{shown(used):>12}{shown(total - used):>12}\n")
    await call.out(f"Swap:   {'0':>12}{'0':>12}{'0':>12}\n")
    return 0


async def nvidia_smi(call: Call) -> int:
    """Print the GPUs: the table, -L, or a query as CSV."""
    query = [word for word in call.arguments if word.startswith("--query-")]
    if not call.arguments:
        await call.out(_table(call))
        return 0
    if call.arguments == ["-L"]:
        host = call.process.kernel.host
        await call.out("".join(f"GPU {n}: {host.gpu_name} (UUID: {u})\n" for n, u in enumerate(host.gpu_uuids)))
        return 0
    form = next((word.removeprefix("--format=") for word in call.arguments if word.startswith("--format=")), "")
    styles = form.split(",")
    if len(query) != 1 or len(call.arguments) != 2 or "csv" not in styles:  # noqa: PLR2004
        raise Usage("the sandbox knows nvidia-smi, -L, and --query-gpu or --query-compute-apps with --format=csv")
    kind, _, names = query[0].partition("=")
    asked = names.split(",")
    known, rows = (GPU_FIELDS, _gpus(call)) if kind == "--query-gpu" else (APP_FIELDS, _apps(call))
    if kind not in {"--query-gpu", "--query-compute-apps"}:
        raise Usage(f"Option {kind} is not recognized.")
    if unknown := [name for name in asked if name not in known]:
        await call.out(f'Field "{unknown[0]}" is not a valid field to query.\n')
        return 2
    if "noheader" not in styles:
        await call.out(", ".join(f"{name}{_header_unit(name, styles)}" for name in asked) + "\n")
    for row in rows:
        units = {} if "nounits" in styles else UNITS
        await call.out(", ".join(f"{row[name]}{units.get(name, '')}" for name in asked) + "\n")
    return 0


def _header_unit(name: str, styles: list[str]) -> str:
    return f" [{UNITS[name].strip()}]" if name in UNITS and "nounits" not in styles else ""


def _gpu_processes(call: Call) -> list[Process]:
    return [
        process
        for process in call.process.kernel.processes.values()
        if process.title.split(" ", 1)[0].rsplit("/", 1)[-1] in GPU_PROGRAMS
    ]


def _gpus(call: Call) -> list[dict[str, str]]:
    host = call.process.kernel.host
    is_busy = bool(_gpu_processes(call))
    rows = []
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


def _apps(call: Call) -> list[dict[str, str]]:
    host, processes = call.process.kernel.host, _gpu_processes(call)
    return [
        {
            "gpu_uuid": uuid,
            "gpu_name": host.gpu_name,
            "pid": str(process.pid),
            "process_name": process.title.split(" ", 1)[0],
            "used_memory": str(
                (sample(host, index, call.process.now, is_busy=True).memory_used_mib - 4) // len(processes)
            ),
        }
        for index, uuid in enumerate(host.gpu_uuids)
        for process in processes
    ]


def _table(call: Call) -> str:
    host = call.process.kernel.host
    bar = f"+{'-' * 77}+\n"
    title = f"| NVIDIA-SMI {host.driver:<12} Driver Version: {host.driver:<12} CUDA Version: {host.cuda:<8}"
    lines = [f"{call.process.now:%a %b %e %H:%M:%S %Y}\n", bar, f"{title:<78}|\n", bar]
    for row in _gpus(call):
        left = f"| {row['index']:>3}  {row['name']:<34}"
        memory = f"{row['memory.used']}MiB / {row['memory.total']}MiB"
        right = f"{row['temperature.gpu']}C  {memory:>22}  {row['utilization.gpu']:>3}%"
        lines.append(f"{left} {right:<37} |\n"[:200])
    lines += [bar, f"| {'Processes:':<75} |\n"]
    apps = [
        f"GPU {row['gpu_uuid'][:12]}  PID {row['pid']}  {row['process_name']}  {row['used_memory']}MiB"
        for row in _apps(call)
    ]
    lines += [f"| {text:<75} |\n" for text in apps or ["No running processes found"]]
    return "".join([*lines, bar])


async def sync(_: Call) -> int:
    """Do nothing: memory is always in sync."""
    return 0


PROGRAMS: Final[dict[str, Program]] = {
    "date": date, "whoami": whoami, "id": id_, "hostname": hostname, "uname": uname, "nproc": nproc,
    "uptime": uptime, "df": df, "free": free, "nvidia-smi": nvidia_smi, "sync": sync,
}  # fmt: skip
