"""Who holds a claim: its id says on which machine and by which process it was made, so that others can look for that.

Only what is certain counts. A machine is known where Linux names the boot and the process's namespaces; of any other
nobody here can tell whether a process of it lives.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

_MOST_CHARACTERS: Final = 36
_MACHINE_CHARACTERS: Final = 10
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# A process id and a start time mean the same only in the same ones.
_NAMESPACES: Final = (Path("/proc/self/ns/pid"), Path("/proc/self/ns/time"))
# The 22nd field of a process's status; the first two, of which the second may hold anything, come before it.
_START_FIELD: Final = 19


@dataclass(frozen=True, slots=True)
class Claimant:
    """A server process that holds, or held, a claim.

    Attributes:
        process_id: Of a process of this machine; None where it is on another one, or does not say.
        is_dead: Whether it has surely ended.
    """

    process_id: int | None = None
    is_dead: bool = False


def new_claim_id() -> str:
    """An id for a claim of this process, which no other claim has."""
    process_id = os.getpid()
    started, machine = _started(process_id), _machine()
    if started is None or machine is None:
        return str(uuid4())
    return f"{machine}-{process_id:x}-{started:x}-{uuid4().hex}"[:_MOST_CHARACTERS]


def read_claimant(claim_id: str | None) -> Claimant:
    """Who made a claim, and whether that process has surely ended."""
    parts = (claim_id or "").split("-")
    if len(parts) != 4 or parts[0] != _machine():  # noqa: PLR2004 - see `new_claim_id`
        return Claimant()
    try:
        process_id, started = int(parts[1], 16), int(parts[2], 16)
    except ValueError:
        return Claimant()
    return Claimant(process_id, is_dead=_has_ended(process_id, started))


def _has_ended(process_id: int, started: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass  # it is another user's
    now = _started(process_id)
    return now is not None and now != started


def _started(process_id: int) -> int | None:
    """When a process started, in ticks since the boot; None where nobody says."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text(errors="replace").rpartition(") ")[2].split()
        return int(fields[_START_FIELD])
    except (OSError, ValueError, IndexError):
        return None


@cache
def _machine() -> str | None:
    """A name for this boot of this machine, or of this container; None where it has none that is certain."""
    try:
        names = [_BOOT_ID.read_text().strip(), *(str(path.readlink()) for path in _NAMESPACES)]
    except OSError:
        return None
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:_MACHINE_CHARACTERS]
