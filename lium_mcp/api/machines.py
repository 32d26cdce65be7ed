"""GPU types known to the marketplace (the API's machines)."""

from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.fields import ApiInt, ApiModel, ApiText
from lium_mcp.api.gpu_names import gpu_model
from lium_mcp.api.paging import Rows
from lium_mcp.api.wire import Resource


class Machine(ApiModel):
    """One GPU type; `name` is the full name that filters and requests take."""

    name: ApiText

    @property
    def gpu_type(self) -> str:
        """The model without its variants, such as `H100`."""
        return gpu_model(self.name)


class MachineRequested(ApiModel):
    """What became of a request for more machines of a type."""

    provider_notified_count: ApiInt = None


class Machines(Resource):
    """Calls on GPU types."""

    async def list(self) -> Rows[Machine]:
        """GET /machines: all GPU types; works without a key."""
        return (await self._wire.request("GET", "/machines", needs_key=False)).rows(Machine)

    async def request(self, machine_name: str, *, gpu_count: int) -> MachineRequested:
        """POST /machine-requests: tell providers that a type is wanted; reserves nothing."""
        if not machine_name.strip() or gpu_count < 1:
            raise InvalidRequest("machine_name is empty or gpu_count is less than 1.")
        body = {"machine_name": machine_name, "gpu_count": gpu_count}
        return (await self._wire.request("POST", "/machine-requests", json=body)).model(MachineRequested)
