"""The hardware that a container sees, with figures that follow from the pod and the time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lium_mcp.sandbox.seeded import fraction

SAMPLE_SECONDS: Final = 5


@dataclass(frozen=True)
class Host:
    """What a pod has of its node; `started_ticks` after the node booted, the container's main process started."""

    pod_id: str
    hostname: str
    gpu_name: str
    gpu_uuids: tuple[str, ...]
    gpu_memory_mib: int
    gpu_power_watts: int
    driver: str
    cuda: str
    booted_at: int
    started_ticks: int


def sample(host: Host, index: int, now: datetime, *, is_busy: bool) -> tuple[int, int, int, int]:
    """Read one GPU, nearly idle or under the load of a job: percent in use, MiB of memory, degrees Celsius, watts."""
    noise = fraction(host.pod_id, index, int(now.timestamp()) // SAMPLE_SECONDS)
    steady = fraction(host.pod_id, index)
    if not is_busy:
        return 0, 4, 31 + int(6 * steady), int(host.gpu_power_watts * (0.08 + 0.02 * noise))
    used_mib = int(host.gpu_memory_mib * (0.55 + 0.3 * steady))
    return 84 + int(15 * noise), used_mib, 61 + int(12 * noise), int(host.gpu_power_watts * (0.7 + 0.25 * noise))
