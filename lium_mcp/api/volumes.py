"""Volumes: storage that outlives pods, mounted at /mnt. No field says whether one is attached."""

import re

from lium_mcp.api.addresses import endpoint
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.fields import ApiFloat, ApiId, ApiInt, ApiModel, ApiStr, ApiText, ApiTime
from lium_mcp.api.huids import huid
from lium_mcp.api.paging import Rows
from lium_mcp.api.wire import Resource

_NAME = re.compile(r"[A-Za-z0-9 \-_.,()!?/]{1,100}")


class Volume(ApiModel):
    """One volume of the account."""

    id: ApiId
    name: ApiText = ""
    description: ApiStr = None
    created_at: ApiTime = None
    current_file_count: ApiInt = None
    current_size_gb: ApiFloat = None
    last_metrics_update: ApiTime = None

    @property
    def measured_size_gb(self) -> float | None:
        """Its size at the last measurement; the API says 0 for a volume that it has never measured."""
        return self.current_size_gb if self.last_metrics_update is not None else None

    @property
    def measured_file_count(self) -> int | None:
        """The number of its files at the last measurement."""
        return self.current_file_count if self.last_metrics_update is not None else None

    @property
    def huid(self) -> str:
        """The short name that clients derive from the id."""
        return huid(self.id)


class Volumes(Resource):
    """Calls on volumes."""

    async def list(self) -> Rows[Volume]:
        """GET /volumes: all volumes."""
        return (await self._wire.request("GET", "/volumes")).rows(Volume)

    async def get(self, volume_id: str) -> Volume:
        """GET /volumes/{volume_id}: one volume."""
        path = endpoint("/volumes/{volume_id}", volume_id=volume_id)
        return (await self._wire.request("GET", path)).model(Volume, id=volume_id)

    async def create(self, *, name: str, description: str = "") -> Volume:
        """POST /volumes: create a volume; its storage is billed."""
        body = {"name": _checked_name(name), "description": description}
        return (await self._wire.request("POST", "/volumes", json=body)).model(Volume, name=name)

    async def update(self, volume_id: str, *, name: str | None = None, description: str | None = None) -> Volume:
        """PUT /volumes/{volume_id}: rename or describe a volume."""
        body: dict[str, str] = {}
        if name is not None:
            body["name"] = _checked_name(name)
        if description is not None:
            body["description"] = description
        if not body:
            raise InvalidRequest("name or description is needed.")
        path = endpoint("/volumes/{volume_id}", volume_id=volume_id)
        answer = await self._wire.request("PUT", path, json=body)
        return await self.get(volume_id) if answer.is_bare else answer.model(Volume, id=volume_id)

    async def delete(self, volume_id: str) -> None:
        """DELETE /volumes/{volume_id}: delete a volume and its data.

        Irreversible; what happens while a pod has it mounted is not known, so callers check that first.
        """
        await self._wire.request("DELETE", endpoint("/volumes/{volume_id}", volume_id=volume_id))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidRequest("name must have 1 to 100 letters, digits, spaces or any of - _ . , ( ) ! ? /.")
    return name
