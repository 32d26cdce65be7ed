"""What a pod's container says of itself: GPUs, mounts, network, CPU time, its start. Nothing of it is trusted."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lium_mcp.remote.commands import run_short
from lium_mcp.remote.gpus import MOST_GPUS, Gpu, read_gpus

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection

# Only of the container's own group: that of the whole host, which some are shown, has no events. The older form of
# groups says a bare figure, which `grep` names by its file where it reads two.
_CPU_TIME: Final = (
    "test -e /sys/fs/cgroup/cgroup.events && grep usage_usec /sys/fs/cgroup/cpu.stat; "
    "grep '[0-9]' /dev/null /sys/fs/cgroup/cpuacct/cpuacct.usage"
)
_FACTS: Final = f"cat /proc/mounts /proc/1/stat /proc/net/dev; grep btime /proc/stat; date +%s; {_CPU_TIME}"
_MOUNT: Final = re.compile(r"\S+ (/\S*) \S+ \S+ \d+ \d+")
# Of the main process: its name may hold blanks and brackets; the start is the 20th figure after it.
_MAIN_PROCESS: Final = re.compile(r"1 \(.*\) \S(?: -?\d+){18} (\d{1,15})(?: .*)?")
_HOST_BOOT: Final = re.compile(r"btime (\d{9,11})")
_CPU_MICROSECONDS: Final = re.compile(r"usage_usec (\d{1,18})")
_CPU_NANOSECONDS: Final = re.compile(r"/sys/fs/cgroup/cpuacct/cpuacct\.usage:(\d{1,19})")
_NOW: Final = re.compile(r"(\d{9,11})")
# Linux shows every program this many, whatever it counts itself.
_TICKS_PER_SECOND: Final = 100
_BOOT_IS_KNOWN_TO_SECONDS: Final = 2
_INTERFACE: Final = re.compile(r"\s*(\S+):\s*(\d{1,18})(?:\s+\d+){7}\s+(\d{1,18})(?:\s+\d+){7}\s*")
_LOOPBACK: Final = "lo"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a container says of itself; what could not be read is None.

    Attributes:
        gpus: The GPUs that its programs reach.
        mounts: Where something is mounted.
        container: Stands for the container, as long as its main process runs.
        age: How long its main process has run.
        moved_bytes: What its network has moved both ways.
        cpu_seconds: How long its programs have kept a CPU busy, all together.
    """

    gpus: list[Gpu] | None = None
    mounts: frozenset[str] | None = None
    container: str | None = None
    age: timedelta | None = None
    moved_bytes: int | None = None
    cpu_seconds: float | None = None

    @property
    def visible_gpus(self) -> int | None:
        """How many GPUs its programs reach; None where that could not be read, or more may be there than were."""
        return len(self.gpus) if self.gpus is not None and len(self.gpus) < MOST_GPUS else None

    def has_mounted(self, path: str) -> bool | None:
        """Whether something is mounted at a path, not just below it; None if nobody could look."""
        return None if self.mounts is None else path in self.mounts


async def look_inside(connection: "Connection", *, timeout_seconds: float) -> Inside:
    """Ask a container what it is.

    Raises:
        Failure: the pod did not answer.
    """
    gpus = await read_gpus(connection, timeout_seconds=timeout_seconds)
    _, facts = await run_short(connection, _FACTS, timeout_seconds=timeout_seconds)
    return parse_facts(facts, gpus)


def parse_facts(text: str, gpus: list[Gpu] | None = None) -> Inside:
    """Read mounts, the start of the main process, network and CPU time; lines of another form are left out."""
    lines = text.splitlines()
    mounts = frozenset(match[1] for line in lines if (match := _MOUNT.fullmatch(line)))
    ticks, booted, now = (_figure(form, lines) for form in (_MAIN_PROCESS, _HOST_BOOT, _NOW))
    age = None
    if ticks is not None and booted is not None and now is not None:
        # A host's clock may be wrong, and some containers are shown another one than their host's.
        seconds = now - booted - ticks / _TICKS_PER_SECOND
        age = timedelta(seconds=max(seconds, 0)) if seconds >= -_BOOT_IS_KNOWN_TO_SECONDS else None
    moved = [match for line in lines if (match := _INTERFACE.fullmatch(line)) and match[1] != _LOOPBACK]
    microseconds, nanoseconds = _figure(_CPU_MICROSECONDS, lines), _figure(_CPU_NANOSECONDS, lines)
    if microseconds is None and nanoseconds is not None:
        microseconds = nanoseconds // 1000
    return Inside(
        gpus,
        mounts if "/" in mounts else None,  # every container has something mounted at its root
        None if ticks is None else str(ticks),
        age,
        sum(int(match[2]) + int(match[3]) for match in moved) if moved else None,
        None if microseconds is None else microseconds / 1_000_000,
    )


def _figure(form: re.Pattern[str], lines: list[str]) -> int | None:
    return next((int(match[1]) for line in lines if (match := form.fullmatch(line))), None)
