"""Toolset `volumes`: storage that outlives pods. A volume is mounted at /mnt of one pod at a time."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from pydantic import Field

from lium_mcp.api import LiumError, Pod, Volume
from lium_mcp.figures import rounded
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.parameters import Cursor, Limit, ShortText, page
from lium_mcp.tools.questions import ask_to_delete_volume
from lium_mcp.tools.registry import DESTROYS, READS, WRITES_EACH_TIME, Toolset
from lium_mcp.tools.results import Result, UtcTime
from lium_mcp.tools.targets import find_volume, refuse_maybe_attached, volume_holder

toolset = Toolset("volumes")

VolumeName = Annotated[ShortText, Field(min_length=1, description="Volume id, or a name that only one has.")]


class VolumeView(Result):
    """A volume. `attached_to` is the pod that has it mounted, if the key sees that pod."""

    volume_id: str
    name: str
    description: str | None = None
    size_gb: float | None = None
    files: int | None = None
    attached_to: str | None = None
    created_at: UtcTime | None = None


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


@toolset.tool(title="List volumes", hints=READS)
async def list_volumes(call: Call, limit: Limit = 20, cursor: Cursor = "") -> VolumeRows:
    """List the account's volumes with size and the pod that has each mounted. Volumes outlive pods and bill by size;
    attach one with rent_pod or reboot_pod.
    """
    volumes = sorted(await call.lium.volumes.list(), key=lambda volume: (volume.name, volume.id))
    pods: Sequence[Pod] | None = None
    with suppress(LiumError):
        pods = await call.lium.pods.list()
    rows, next_cursor = page(volumes, limit=limit, cursor=cursor)
    return VolumeRows(
        volumes=[volume_view(volume, pods or ()) for volume in rows],
        total=len(volumes),
        next_cursor=next_cursor,
        warnings=["The pods could not be read: which pod has a volume is not known."] if pods is None else None,
    )


@toolset.tool(title="Get volume", hints=READS)
async def get_volume(call: Call, volume: VolumeName) -> VolumeView:
    """Read one volume: its size, the number of files on it, and the pod that has it mounted. list_volumes shows all."""
    found = await find_volume(call, volume)
    return volume_view(await call.lium.volumes.get(found.id), await call.lium.pods.list())


@toolset.tool(title="Create volume", hints=WRITES_EACH_TIME)
async def create_volume(
    call: Call,
    name: Annotated[ShortText, Field(min_length=1, description="Name, not yet used.")],
    description: Annotated[ShortText, Field(description="Text.")] = "",
) -> VolumeView:
    """Create an empty volume, storage that outlives pods and bills by size. Attach it with rent_pod or reboot_pod; it
    is mounted at /mnt.
    """
    await refuse_taken_name(call, name)
    return volume_view(await call.lium.volumes.create(name=name, description=description), ())


@toolset.tool(title="Delete volume", hints=DESTROYS, asks=ask_to_delete_volume)
async def delete_volume(call: Call, volume: VolumeName) -> DeletedVolume:
    """Delete a volume and all data on it, for good. Refused while a pod has it mounted; backups are not touched."""
    found = await find_volume(call, volume)
    refuse_maybe_attached(found, await call.lium.pods.list())
    await call.lium.volumes.delete(found.id)
    return DeletedVolume(volume_id=found.id, name=found.name)


async def refuse_taken_name(call: Call, name: str) -> None:
    """Refuse a name that a volume has: two of one name could only be told apart by their ids.

    Raises:
        ToolFailure: a volume has it.
    """
    taken = [volume.id for volume in await call.lium.volumes.list() if volume.name == name]
    if taken:
        raise ToolFailure(
            "volume_name_taken",
            f"A volume is named {name} already: {', '.join(taken[:10])}.",
            "Use that volume, or choose another name.",
        )


def volume_view(volume: Volume, pods: Sequence[Pod]) -> VolumeView:
    """Show a volume and the pod that has it."""
    holder = volume_holder(volume, pods)
    return VolumeView(
        volume_id=volume.id,
        name=volume.name,
        description=volume.description or None,
        size_gb=rounded(volume.measured_size_gb, 3) if volume.measured_size_gb is not None else None,
        files=volume.measured_file_count,
        attached_to=f"{holder.pod_name} ({holder.id})" if holder else None,
        created_at=volume.created_at,
    )
