"""What a server that may be one of several replicas says, as it starts, of a ledger that they may not share.

One file for several processes of one machine is right. That each of several machines has a file of its own is seen by
none of them: then each rents as if it were alone.
"""

from pathlib import Path
from typing import Final

from lium_mcp.settings import Settings
from lium_mcp.settings_table import SETTINGS

_FILE: Final = "sqlite:///"
_MOUNTS: Final = Path("/proc/self/mountinfo")
# Between machines, locks of files on these hold only if all of them and the server are set up for it.
_OF_A_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "gpfs", "ocfs2"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.juicefs", "fuse.cephfs", "fuse.rclone"}
)
_CURE: Final = "set LIUM_MCP_STATE_URL to a PostgreSQL database that all of them share"


def doubts_about_ledger(settings: Settings) -> list[str]:
    """Sentences for the log on what replicas may not share; none where they do, or where there are none."""
    url = settings.find_state_url()
    if settings.sandbox or not url.startswith("sqlite:"):
        return []
    path = Path(url.removeprefix(_FILE)).absolute() if url.startswith(_FILE) else None
    doubts = []
    asked = [name for name in ("state_keys", "replica") if getattr(settings, name) is not None]
    if asked:
        variable = SETTINGS[asked[0]].variable
        if path is None:
            doubts.append(
                f"{variable} is for several replicas, and each would have a ledger in its own memory: {_CURE}"
            )
        else:
            doubts.append(
                f"{variable} is for several replicas, and the ledger is a file, {path}. That is right for processes of "
                "this machine which all use that file. With replicas on other machines, or in containers with a disk "
                f"each, every one would rent as if it were alone: {_CURE}"
            )
    kind = _file_system_of(path) if path is not None else None
    if kind in _OF_A_NETWORK:
        doubts.append(
            f"The ledger {path} is on a network's file system ({kind}), where locks may not hold between machines, so "
            f"that two servers could rent the same: keep it on a disk of this machine, or {_CURE}"
        )
    return doubts


def _file_system_of(path: Path) -> str | None:
    """The kind of file system that a path is, or would be, on; None where nobody says."""
    there = next(parent for parent in (path, *path.parents) if parent.exists()).resolve()
    try:
        mounts = [line.split(" ") for line in _MOUNTS.read_text(errors="replace").splitlines()]
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for fields in mounts:
        if "-" not in fields:
            continue
        place = Path(fields[4].replace("\\040", " "))
        if there.is_relative_to(place) and (found is None or len(place.parts) >= found[0]):
            found = len(place.parts), fields[fields.index("-") + 1]
    return found[1] if found else None
