"""Toolset `volumes`: storage that outlives pods. A volume is mounted at /mnt of one pod at a time."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from lium_mcp.api.errors import AuthenticationFailed, LiumError
from lium_mcp.api.pods.models import Pod
from lium_mcp.inputs import ShortText
from lium_mcp.results import Result
from lium_mcp.services.questions import ask_to_delete_volume
from lium_mcp.services.targets import find_volume, refuse_maybe_attached
from lium_mcp.services.volume_details import VolumeView, refuse_taken_name, volume_view
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import Cursor, Limit, VolumeName, page
from lium_mcp.toolkit.registry import DESTROYS, READS, WRITES_EACH_TIME, Toolset

toolset = Toolset("volumes")

_PODS_UNREAD = "The pods could not be read: which pod has a volume is not known."


class VolumeRows(Result):
    """One page of volumes."""

    volumes: list[VolumeView]
    total: int
    next_cursor: str | None = None
    warnings: list[str] | None = None


class DeletedVolume(Result):
    """A volume that is no more, nor its data."""

    volume_id: str
    name: str


@toolset.tool(
    title="List volumes", hints=READS, search_hint="persistent storage that outlives pods, disks, how full is a volume"
)
async def list_volumes(
    call: Call,
    volume: Annotated[ShortText, Field(description="Only this one: its id, or a name that only one has.")] = "",
    limit: Limit = 20,
    cursor: Cursor = "",
) -> VolumeRows:
    """List the account's volumes with size, files and the pod that has each mounted. They outlive pods and bill by
    size. rent_pod or reboot_pod attaches one; it is free to move again once the pod that has it is removed.
    """
    if volume:
        found = [await call.lium.volumes.get((await find_volume(call.account, volume)).id)]
    else:
        found = sorted(await call.lium.volumes.list(), key=lambda one: (one.name, one.id))
    pods = await _pods(call)
    rows, next_cursor = page(found, limit=limit, cursor=cursor)
    return VolumeRows(
        volumes=[volume_view(row, pods or ()) for row in rows],
        total=len(found),
        next_cursor=next_cursor,
        warnings=None if pods is not None else [_PODS_UNREAD],
    )


@toolset.tool(
    title="Create volume",
    hints=WRITES_EACH_TIME,
    search_hint="new persistent storage, disk for a dataset, datasets or checkpoints",
)
async def create_volume(
    call: Call,
    name: Annotated[ShortText, Field(min_length=1, description="Name, not yet used.")],
    description: Annotated[ShortText, Field(description="What it is for.")] = "",
) -> VolumeView:
    """Create an empty volume, storage that outlives pods and bills by size. Attach it with rent_pod or reboot_pod; it
    is mounted at /mnt.
    """
    await refuse_taken_name(call.account, name)
    return volume_view(await call.lium.volumes.create(name=name, description=description), ())


@toolset.tool(
    title="Delete volume",
    hints=DESTROYS,
    search_hint="free persistent storage, stop paying for a disk or volumes",
    asks=lambda call, **given: ask_to_delete_volume(call.account, **given),
)
async def delete_volume(call: Call, volume: VolumeName) -> DeletedVolume:
    """Delete a volume and all data on it, for good. Refused while a pod has it mounted; backups are not touched."""
    found = await find_volume(call.account, volume)
    refuse_maybe_attached(found, await call.lium.pods.list())
    await call.lium.volumes.delete(found.id)
    return DeletedVolume(volume_id=found.id, name=found.name)


async def _pods(call: Call) -> Sequence[Pod] | None:
    """The pods, where they can be read: a volume is worth showing without them, but for a key that Lium refuses."""
    try:
        return await call.lium.pods.list()
    except AuthenticationFailed:
        raise
    except LiumError:
        return None
