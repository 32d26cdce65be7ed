"""Looks at the place in a pod where a backup is to be restored, since a restore writes over files of the same names.

A pod's answers are not trusted: no name from them is passed on, and only a bounded part of them is read.
"""

import posixpath
from typing import TYPE_CHECKING, Literal

from lium_mcp.failures import Failure

if TYPE_CHECKING:
    from lium_mcp.remote.connections import Connection
    from lium_mcp.remote.sftp import PodFiles

TargetState = Literal["fresh", "content", "link", "mount", "unseen"]
"""`fresh`: nothing or an empty folder is there. `content`: files, or something that is no folder. `link` and `mount`:
what is written there would go elsewhere. `unseen`: nobody could look."""


async def look(connection: "Connection", root: str, path: str) -> TargetState:
    """Say what is at a path below a pod's local volume.

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
        # A restore sees the volume, not what is mounted inside it: that may be empty while there are files below it.
        if device is not None and await files.file_system(here) not in (None, device):
            return "mount"
    try:
        return "content" if await files.list(here, most=1) else "fresh"
    except OverflowError:
        return "content"
