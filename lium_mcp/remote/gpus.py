"""What the GPUs of a pod do now, as `nvidia-smi` says. Reading its answers never fails, whatever they hold."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lium_mcp.figures import rounded
from lium_mcp.remote.commands import run_short

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

_GPU_FIELDS: Final = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "uuid")
_PROCESS_FIELDS: Final = ("gpu_uuid", "pid", "process_name", "used_memory")
_FORMAT: Final = "--format=csv,noheader,nounits"
MOST_GPUS: Final = 32
_MOST_PROCESSES: Final = 20
_MOST_CHARACTERS: Final = 120
_MIB_PER_GB: Final = 1024
# No device found, no driver, no library, a GPU that is lost, a library of another version, and all else that is wrong.
_NOT_REACHED_STATUSES: Final = (6, 9, 12, 15, 18, 255)
_NO_DEVICES: Final = "no devices were found"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that uses a GPU."""

    pid: int
    name: str
    memory_gb: float | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; what could not be read is None."""

    index: int
    name: str
    utilization_percent: int | None
    memory_used_gb: float | None
    memory_total_gb: float | None
    temperature_celsius: int | None
    processes: tuple[GpuProcess, ...] = ()


async def read_gpus(connection: "Connection", *, timeout_seconds: float) -> list[Gpu] | None:
    """The pod's GPUs, as far as `nvidia-smi` reaches them; None where it is missing, or answers nothing that is read.

    Raises:
        Failure: the pod did not answer.
    """
    status, gpus = await run_short(
        connection, f"nvidia-smi --query-gpu={','.join(_GPU_FIELDS)} {_FORMAT}", timeout_seconds=timeout_seconds
    )
    reaches_all = status == 0 and _NO_DEVICES not in gpus.casefold()
    if not reaches_all and status not in (0, *_NOT_REACHED_STATUSES):
        return None
    status, processes = await run_short(
        connection,
        f"nvidia-smi --query-compute-apps={','.join(_PROCESS_FIELDS)} {_FORMAT}",
        timeout_seconds=timeout_seconds,
    )
    found = parse_gpus(gpus, processes if status == 0 else "")
    return None if reaches_all and not found else found


def parse_gpus(gpus: str, processes: str) -> list[Gpu]:
    """Read the answers about GPUs and about processes; lines of another form are left out."""
    by_gpu: dict[str, list[GpuProcess]] = {}
    for uuid, pid, name, memory in _rows(processes, len(_PROCESS_FIELDS)):
        number = _integer(pid)
        if number is not None:
            by_gpu.setdefault(uuid, []).append(GpuProcess(number, name[:_MOST_CHARACTERS], _gb(memory)))
    found: list[Gpu] = []
    for index, name, utilization, used, total, temperature, uuid in _rows(gpus, len(_GPU_FIELDS)):
        number = _integer(index)
        if number is None or len(found) == MOST_GPUS:
            continue
        found.append(
            Gpu(
                index=number,
                name=name[:_MOST_CHARACTERS],
                utilization_percent=_integer(utilization),
                memory_used_gb=_gb(used),
                memory_total_gb=_gb(total),
                temperature_celsius=_integer(temperature),
                processes=tuple(by_gpu.get(uuid, ())[:_MOST_PROCESSES]),
            )
        )
    return found


def _rows(text: str, count: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        try:
            fields = next(csv.reader([line], skipinitialspace=True), [])
        except csv.Error:
            continue
        if len(fields) > count and count == len(_PROCESS_FIELDS):
            # A process chooses its own name, which may hold commas.
            fields = [*fields[:2], ", ".join(fields[2:-1]), fields[-1]]
        if len(fields) == count:
            yield [field.strip() for field in fields]


def _integer(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None  # noqa: PLR2004 - "[N/A]" and absurdities


def _gb(text: str) -> float | None:
    mib = _integer(text)
    return None if mib is None else rounded(mib / _MIB_PER_GB, 2)
