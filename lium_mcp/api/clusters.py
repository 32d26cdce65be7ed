"""Clusters: several whole nodes of one fabric, rented and removed together."""

from typing import Any

from lium_mcp.api.addresses import endpoint, segment
from lium_mcp.api.errors import Conflict, InvalidRequest, RentOutcomeUnknown, UnreadableResponse
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.fields import ApiBool, ApiId, ApiInt, ApiModel, ApiReason, ApiStr, ApiTuple, RequestModel
from lium_mcp.api.paging import Rows
from lium_mcp.api.rent_requests import send_rent
from lium_mcp.api.wire import Resource
from lium_mcp.text import one_line


class ClusterOffer(ApiModel):
    """Free nodes on one fabric; each is rented whole."""

    fabric_id: ApiId
    fabric_type: ApiStr = None
    link_rate: ApiStr = None
    fabric_measured: ApiBool = None
    nodes: ApiTuple[Executor] = ()


class ClusterRentRequest(RequestModel):
    """Body of a cluster rent: at least two nodes of one offer."""

    pod_name: str
    template_id: str
    executor_uuids: list[str]
    user_public_key: list[str]
    initial_port_count: int | None = None
    enable_volume_encryption: bool = True
    enable_backups: bool = True

    def check(self) -> None:
        """Raise `InvalidRequest` for what the API would refuse."""
        if not self.pod_name.strip() or not self.user_public_key:
            raise InvalidRequest("pod_name and user_public_key must not be empty.")
        if len(self.executor_uuids) < 2 or len(set(self.executor_uuids)) < len(self.executor_uuids):  # noqa: PLR2004
            raise InvalidRequest("executor_uuids must name at least two nodes, each once.")
        for executor_id in self.executor_uuids:
            segment("executor_uuids", executor_id)

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return self.model_dump()


class ClusterRentResponse(ApiModel):
    """The pods of a rented cluster."""

    success: ApiBool = None
    pod_ids: ApiTuple[str] = ()
    message: ApiReason = None


class ClusterMemberRemoval(ApiModel):
    """What became of one pod; one without success goes on billing."""

    pod_id: ApiId
    cluster_node_index: ApiInt = None
    success: ApiBool = None
    message: ApiReason = None


class ClusterDeleteResponse(ApiModel):
    """What became of each pod of a cluster. An answer without `pods` proves nothing."""

    pods: ApiTuple[ClusterMemberRemoval] = ()


class Clusters(Resource):
    """Calls on clusters."""

    async def list_offers(self) -> Rows[ClusterOffer]:
        """GET /executors/infiniband-clusters: groups of free nodes on one fabric."""
        return (await self._wire.request("GET", "/executors/infiniband-clusters")).rows(ClusterOffer)

    async def rent(self, request: ClusterRentRequest, *, idempotency_key: str) -> ClusterRentResponse:
        """POST /executors/cluster/rent: rent whole nodes, all or none. Spends money and is sent once.

        Errors mean the same as for `Executors.rent`. A refusal inside a 200 is raised as `Conflict`.
        """
        request.check()
        name = request.pod_name
        answer = await send_rent(
            self._wire,
            "/executors/cluster/rent",
            request.body(),
            idempotency_key=idempotency_key,
            pod_name=name,
        )
        try:
            response = answer.model(ClusterRentResponse)
            if not response.pod_ids and response.success is not False:
                raise answer.unreadable("Lium accepted the cluster but named no pods.")
            if response.pod_ids and response.success is False:
                raise answer.unreadable("Lium refused the cluster but named pods.")
        except UnreadableResponse as error:
            raise RentOutcomeUnknown(idempotency_key=idempotency_key, pod_name=name, cause=error) from error
        if response.success is False:
            raise Conflict(
                f"Lium refused the cluster: {one_line(response.message or 'no reason given', self._wire.redact)}",
                status=answer.status,
                request_id=answer.request_id,
                replayed=answer.replayed,
            )
        return response

    async def remove(self, cluster_id: str) -> ClusterDeleteResponse:
        """DELETE /clusters/{cluster_id}: remove every pod of a cluster; call again for members that failed.

        Irreversible. 403, 404 and 409 removed nothing.
        """
        path = endpoint("/clusters/{cluster_id}", cluster_id=cluster_id)
        return (await self._wire.request("DELETE", path, judges_body=True)).model(ClusterDeleteResponse)
