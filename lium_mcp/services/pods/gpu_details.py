"""How a GPU of a pod is shown: what it does now, and for which processes."""

from lium_mcp.remote.gpus import Gpu
from lium_mcp.results import Result


class GpuProcessView(Result):
    """A process that uses a GPU."""

    pid: int
    name: str
    memory_gb: float | None = None


class GpuView(Result):
    """What a GPU does now."""

    index: int
    name: str
    utilization_percent: int | None = None
    memory_used_gb: float | None = None
    memory_total_gb: float | None = None
    temperature_celsius: int | None = None
    processes: list[GpuProcessView] | None = None


def gpu_view(gpu: Gpu) -> GpuView:
    """Show a GPU."""
    return GpuView(
        index=gpu.index,
        name=gpu.name,
        utilization_percent=gpu.utilization_percent,
        memory_used_gb=gpu.memory_used_gb,
        memory_total_gb=gpu.memory_total_gb,
        temperature_celsius=gpu.temperature_celsius,
        processes=[GpuProcessView(pid=one.pid, name=one.name, memory_gb=one.memory_gb) for one in gpu.processes]
        or None,
    )
