"""The routes of S3 volumes and of registered SSH keys."""

from pydantic import JsonValue

from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import SshKeyBody, VolumeBody, VolumeChange
from lium_mcp.sandbox.lifecycle import attached_pod
from lium_mcp.sandbox.pod_rows import volume_row
from lium_mcp.sandbox.records import StoredSshKey, StoredVolume
from lium_mcp.sandbox.refusals import missing, refuse
from lium_mcp.sandbox.simulated_clock import iso_naive


def list_volumes(call: ApiCall) -> Reply:
    """List the account's volumes."""
    return Reply([volume_row(volume) for volume in call.world.volumes.values() if volume.account_id == call.me.id])


def create_volume(call: ApiCall) -> Reply:
    """Create an empty volume."""
    body = call.parse(VolumeBody)
    volume = StoredVolume(call.world.new_id("volume"), call.me.id, body.name, body.description, call.world.now)
    call.world.volumes[volume.id] = volume
    return Reply(volume_row(volume))


def get_volume(call: ApiCall) -> Reply:
    """Read one volume."""
    return Reply(volume_row(_volume(call)))


def update_volume(call: ApiCall) -> Reply:
    """Rename or describe a volume."""
    volume, body = _volume(call), call.parse(VolumeChange)
    volume.name = volume.name if body.name is None else body.name
    volume.description = volume.description if body.description is None else body.description
    volume.updated_at = call.world.now
    return Reply(volume_row(volume))


def delete_volume(call: ApiCall) -> Reply:
    """Delete a volume and its data, unless a pod has it mounted."""
    volume = _volume(call)
    if (pod := attached_pod(call.world, volume.id)) is not None:
        raise refuse(409, "volume_in_use", f"The volume is attached to pod {pod.id}.", hint="Remove the pod first.")
    del call.world.volumes[volume.id]
    return Reply({"success": True})


def list_ssh_keys(call: ApiCall) -> Reply:
    """List the registered keys."""
    return Reply([_ssh_row(key) for key in call.world.ssh_keys.values() if key.account_id == call.me.id])


def create_ssh_key(call: ApiCall) -> Reply:
    """Register a key; the same key twice is refused."""
    body = call.parse(SshKeyBody)
    if any(key.account_id == call.me.id and key.public_key == body.public_key for key in call.world.ssh_keys.values()):
        raise refuse(400, "ssh_key_exists", "This public key is already registered.")
    key = StoredSshKey(call.world.new_id("ssh-key"), call.me.id, body.name, body.public_key, call.world.now)
    call.world.ssh_keys[key.id] = key
    return Reply(_ssh_row(key))


def update_ssh_key(call: ApiCall) -> Reply:
    """Change a registered key."""
    key, body = _ssh_key(call), call.parse(SshKeyBody)
    key.name, key.public_key, key.updated_at = body.name, body.public_key, call.world.now
    return Reply(_ssh_row(key))


def delete_ssh_key(call: ApiCall) -> Reply:
    """Forget a registered key; pods that have it keep it."""
    del call.world.ssh_keys[_ssh_key(call).id]
    return Reply({"success": True})


def _volume(call: ApiCall) -> StoredVolume:
    volume = call.world.volumes.get(call.uuid("volume_id"))
    if volume is None or volume.account_id != call.me.id:
        raise missing("Volume")
    return volume


def _ssh_key(call: ApiCall) -> StoredSshKey:
    key = call.world.ssh_keys.get(call.uuid("key_id"))
    if key is None or key.account_id != call.me.id:
        raise missing("SSH key")
    return key


def _ssh_row(key: StoredSshKey) -> dict[str, JsonValue]:
    return {
        "id": key.id,
        "user_id": key.account_id,
        "name": key.name,
        "public_key": key.public_key,
        "created_at": iso_naive(key.created_at),
        "updated_at": None if key.updated_at is None else iso_naive(key.updated_at),
    }


OPERATIONS = (
    Operation("listVolumes", "GET", "/volumes", Access.READ, list_volumes),
    Operation("createVolume", "POST", "/volumes", Access.MANAGE, create_volume, audit="volume.create"),
    Operation("getVolume", "GET", "/volumes/{volume_id}", Access.READ, get_volume),
    Operation("updateVolume", "PUT", "/volumes/{volume_id}", Access.MANAGE, update_volume, audit="volume.update"),
    Operation("deleteVolume", "DELETE", "/volumes/{volume_id}", Access.MANAGE, delete_volume, audit="volume.delete"),
    Operation("listSshKeys", "GET", "/ssh-keys", Access.READ, list_ssh_keys),
    Operation("createSshKey", "POST", "/ssh-keys", Access.MANAGE, create_ssh_key, audit="ssh_key.create"),
    Operation("updateSshKey", "PUT", "/ssh-keys/{key_id}", Access.MANAGE, update_ssh_key, audit="ssh_key.update"),
    Operation("deleteSshKey", "DELETE", "/ssh-keys/{key_id}", Access.MANAGE, delete_ssh_key, audit="ssh_key.delete"),
)
