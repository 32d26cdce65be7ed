"""How a volume is shown, and which name a new one may have."""

from collections.abc import Sequence

from lium_mcp.api.pods.models import Pod
from lium_mcp.api.volumes import Volume
from lium_mcp.failures import Failure
from lium_mcp.figures import rounded_gb
from lium_mcp.results import Result, UtcTime
from lium_mcp.services.accounts import Account
from lium_mcp.services.targets import volume_holder


class VolumeView(Result):
    """A volume. `attached_to` is the pod that has it mounted, if the key sees that pod."""

    volume_id: str
    name: str
    description: str | None = None
    size_gb: float | None = None
    files: int | None = None
    attached_to: str | None = None
    created_at: UtcTime | None = None


async def refuse_taken_name(account: Account, name: str) -> None:
    """Refuse a name that a volume has: two of one name could only be told apart by their ids.

    Raises:
        Failure: a volume has it.
    """
    taken = [volume.id for volume in await account.lium.volumes.list() if volume.name == name]
    if taken:
        raise Failure(
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
        size_gb=rounded_gb(volume.measured_size_gb) if volume.measured_size_gb is not None else None,
        files=volume.measured_file_count,
        attached_to=f"{holder.pod_name} ({holder.id})" if holder else None,
        created_at=volume.created_at,
    )
