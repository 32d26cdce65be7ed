"""What a pod's container says of itself: GPUs, mounts, network, when it started. Nothing of it is trusted."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lium_mcp.remote.commands import run_short
from lium_mcp.remote.gpus import Gpu, read_gpus

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

_FACTS: Final = "cat /proc/mounts /proc/1/stat /proc/net/dev; grep btime /proc/stat"
_MOUNT: Final = re.compile(r"\S+ (/\S*) \S+ \S+ \d+ \d+")
# Of the main process: its name may hold blanks and brackets; the start is the 20th figure after it.
_MAIN_PROCESS: Final = re.compile(r"1 \(.*\) \S(?: -?\d+){18} (\d{1,15})(?: .*)?")
_HOST_BOOT: Final = re.compile(r"btime (\d{9,11})")
# Linux shows every program this many, whatever it counts itself.
_TICKS_PER_SECOND: Final = 100
_SOONEST_YEAR: Final = 2020
_INTERFACE: Final = re.compile(r"\s*(\S+):\s*(\d{1,18})(?:\s+\d+){7}\s+(\d{1,18})(?:\s+\d+){7}\s*")
_LOOPBACK: Final = "lo"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a container says of itself; what could not be read is None.

    Attributes:
        gpus: The GPUs that its programs reach.
        mounts: Where something is mounted.
        started_at: When its main process started, by its host's clock.
        moved_bytes: What its network has moved both ways.
    """

    gpus: list[Gpu] | None = None
    mounts: frozenset[str] | None = None
    started_at: datetime | None = None
    moved_bytes: int | None = None

    def has_mounted(self, path: str) -> bool | None:
        """Whether something is mounted at a path or below it; None if nobody could look."""
        return None if self.mounts is None else any(f"{at}/".startswith(f"{path}/") for at in self.mounts)


async def look_inside(connection: "Connection", *, timeout_seconds: float) -> Inside:
    """Ask a container what it is.

    Raises:
        Failure: the pod did not answer.
    """
    gpus = await read_gpus(connection, timeout_seconds=timeout_seconds)
    _, facts = await run_short(connection, _FACTS, timeout_seconds=timeout_seconds)
    return parse_facts(facts, gpus)


def parse_facts(text: str, gpus: list[Gpu] | None = None) -> Inside:
    """Read mounts, the start of the main process, and what the network moved; lines of another form are left out."""
    lines = text.splitlines()
    mounts = frozenset(match[1] for line in lines if (match := _MOUNT.fullmatch(line)))
    ticks = next((int(match[1]) for line in lines if (match := _MAIN_PROCESS.fullmatch(line))), None)
    booted = next((int(match[1]) for line in lines if (match := _HOST_BOOT.fullmatch(line))), None)
    started_at = None
    if ticks is not None and booted is not None:
        try:
            started_at = datetime.fromtimestamp(booted + ticks / _TICKS_PER_SECOND, UTC)
        except (OverflowError, ValueError, OSError):
            started_at = None
    if started_at is not None and started_at.year < _SOONEST_YEAR:
        started_at = None
    moved = [match for line in lines if (match := _INTERFACE.fullmatch(line)) and match[1] != _LOOPBACK]
    return Inside(
        gpus,
        mounts if "/" in mounts else None,  # every container has something mounted at its root
        started_at,
        sum(int(match[2]) + int(match[3]) for match in moved) if moved else None,
    )
