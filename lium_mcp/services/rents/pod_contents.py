"""What goes into a pod: template, SSH keys, volume, backup; and the requests that carry it to Lium.

Whatever is missing is refused here, before money is spent.
"""

from dataclasses import dataclass

from lium_mcp.api.backups import Backup
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.rent_requests import RentBySpecRequest, RentRequest
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.rentals import NodeOrder, whole_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.backing_up import PARTIAL, check_path_in, plain_path, refuse_incomplete
from lium_mcp.services.pods.login_keys import PodKeys, find_public_keys
from lium_mcp.services.rents.wish import Wish
from lium_mcp.services.targets import find_free_volume, find_usable_template


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the pod."""

    keys: PodKeys
    template: Template | None
    volume_id: str | None
    is_backup_partial: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know of them before money is spent."""
        backup = f"Of the backup: {PARTIAL}" if self.is_backup_partial else None
        return tuple(warning for warning in (self.keys.warning, backup) if warning)


async def find_contents(account: Account, wish: Wish) -> Contents:
    """Find what goes into the pod; whatever is missing is refused before money is spent."""
    volume = await find_free_volume(account, wish.volume) if wish.volume else None
    backup: Backup | None = None
    if wish.backup_id:
        backup = await account.lium.backups.get(wish.backup_id)
        refuse_incomplete(backup)
    return Contents(
        keys=await find_public_keys(account),
        template=await find_usable_template(account, wish.template) if wish.template else None,
        volume_id=volume.id if volume else None,
        is_backup_partial=backup is not None and backup.is_partial,
    )


def node_order(
    wish: Wish, hours: float | None, node: Executor, count: int, contents: Contents, template: Template
) -> NodeOrder:
    """The request for a pod on a chosen node."""
    request = RentRequest(
        pod_name=wish.name,
        template_id=template.id,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        backup_log_id=wish.backup_id or None,
        restore_path=_restore_path(wish, template) if wish.backup_id else None,
        gpu_count=count,
        # Lium may refuse to restore into an encrypted volume before the pod runs.
        enable_volume_encryption=template.supports_volume_encryption is True and not wish.backup_id,
        enable_backups=wish.enable_backups,
        termination_hours=whole_hours(hours) if hours else None,
    )
    return NodeOrder(node.id, request)


def _restore_path(wish: Wish, template: Template) -> str:
    """Where a backup is restored to at the first start: a directory in the local volume that is new in a new pod.

    Raises:
        Failure: the one that was named cannot be it.
    """
    root = plain_path(template.volume_root)
    if not wish.restore_path:
        return f"{root.rstrip('/')}/restored"
    path = check_path_in(root, wish.restore_path, "restore_path")
    if path == root:
        raise Failure(
            "invalid_argument",
            f"restore_path is the local volume {root} itself, where the image may have files already.",
            f"Name a new directory under it, such as {root.rstrip('/')}/restored.",
        )
    return path


def spec_request(wish: Wish, hours: float | None, contents: Contents, gpu_type: str) -> RentBySpecRequest:
    """The request for a pod on a node that Lium picks."""
    chosen = contents.template
    return RentBySpecRequest(
        gpu_type=gpu_type,
        gpu_count=wish.gpu_count or 1,
        min_download_mbps=wish.min_download_mbps,
        max_price_per_gpu_hour=wish.for_one_node.max_usd_per_gpu,
        country=wish.country or None,
        docker_in_docker=wish.docker_in_docker or None,
        pod_name=wish.name,
        template_id=chosen.id if chosen else None,
        user_public_key=contents.keys.public,
        volume_id=contents.volume_id,
        enable_volume_encryption=chosen is None or chosen.supports_volume_encryption is True,
        enable_backups=wish.enable_backups,
        termination_hours=whole_hours(hours) if hours else None,
    )
