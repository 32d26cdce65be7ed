"""Public SSH keys registered with the account. A rent sends its keys itself; these are for later pods."""

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.model import ApiId, ApiModel, ApiStr, ApiText, ApiTime
from lium_mcp.api.paging import Rows
from lium_mcp.api.resource import Resource


class SshKey(ApiModel):
    """One registered public key."""

    id: ApiId
    user_id: ApiStr = None
    name: ApiText = ""
    public_key: ApiText = ""
    created_at: ApiTime = None
    updated_at: ApiTime = None


class SshKeys(Resource):
    """Calls on registered public keys."""

    async def list(self) -> Rows[SshKey]:
        """GET /ssh-keys: all registered keys."""
        return (await self._wire.request("GET", "/ssh-keys")).rows(SshKey)

    async def create(self, *, name: str, public_key: str) -> SshKey:
        """POST /ssh-keys: register a public key; list first, since duplicates may be accepted."""
        return (await self._wire.request("POST", "/ssh-keys", json=_body(name, public_key))).model(SshKey)

    async def delete(self, key_id: str) -> None:
        """DELETE /ssh-keys/{key_id}: forget a key; pods that have it keep it."""
        await self._wire.request("DELETE", endpoint("/ssh-keys/{key_id}", key_id=key_id))


def _body(name: str, public_key: str) -> dict[str, str]:
    if not name.strip() or not public_key.strip():
        raise InvalidRequest("name and public_key must not be empty.")
    if "PRIVATE KEY" in public_key:
        raise InvalidRequest("public_key holds a private key; nothing was sent.")
    return {"name": name, "public_key": public_key}
