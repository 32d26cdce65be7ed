"""What is at the place in a pod into which a backup is to be restored. A restore writes over files of the same names.

What a pod answers is its own word: no name from it is passed on, and how much of it is read is bounded.
"""

import posixpath
from typing import TYPE_CHECKING, Literal

from lium_mcp.failures import Failure

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import PodFiles

TargetState = Literal["fresh", "content", "link", "mount", "unseen"]
"""fresh: nothing is there, or an empty folder; content: files, or something that is no folder; link and mount: what is
written there would go elsewhere; unseen: nobody could look."""


async def look(connection: "Connection", root: str, path: str) -> TargetState:
    """What is at a path below a pod's local volume.

    Args:
        connection: To the pod.
        root: Where the local volume is mounted: absolute, without `.`, `..` or a slash at its end.
        path: In the same form, below `root`.
    """
    try:
        return await _look(await connection.files(), root, path)
    except (OSError, Failure):
        return "unseen"


async def _look(files: "PodFiles", root: str, path: str) -> TargetState:
    device = await files.file_system(root)
    here = root
    for name in posixpath.relpath(path, root).split("/"):
        here = posixpath.join(here, name)
        try:
            kind = (await files.stat(here, follow=False)).kind
        except FileNotFoundError:
            return "fresh"
        if kind == "link":
            return "link"
        if kind != "folder":
            return "content"
        # A restore sees the volume and not what is mounted inside it, whose emptiness says nothing of what lies below.
        if device is not None and await files.file_system(here) not in (None, device):
            return "mount"
    try:
        return "content" if await files.list(here, most=1) else "fresh"
    except OverflowError:
        return "content"
