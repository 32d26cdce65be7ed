"""Toolset `clusters`, off by default: several whole nodes of one fast fabric, rented and removed together."""

from typing import Annotated

from pydantic import Field

from lium_mcp.api import ClusterOffer, ClusterRentRequest, Conflict, RentOutcomeUnknown
from lium_mcp.rentals import ClusterOrder, PodNameTaken
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.parameters import Cursor, Limit, ShortText, page
from lium_mcp.tools.pod_views import Outcome
from lium_mcp.tools.registry import DESTROYS, READS, WRITES, Toolset
from lium_mcp.tools.renting import find_public_keys, name_taken, outcome_unknown
from lium_mcp.tools.results import Result, Usd
from lium_mcp.tools.targets import find_template

toolset = Toolset("clusters")

_IMAGE_PREFIX = "daturaai/lium-cluster"


class ClusterNode(Result):
    """A free node of a fabric; it is rented whole."""

    executor_id: str
    gpu_type: str | None = None
    gpus: int
    price_per_hour_usd: Usd | None = None


class ClusterOfferView(Result):
    """Free nodes on one fabric."""

    fabric_id: str
    fabric_type: str | None = None
    link_rate: str | None = None
    measured: bool | None = None
    nodes: list[ClusterNode]


class ClusterOffers(Result):
    """One page of fabrics with free nodes."""

    offers: list[ClusterOfferView]
    total: int
    next_cursor: str | None = None


class RentedCluster(Result):
    """The pods of a cluster that was rented. Each bills by itself."""

    pod_ids: list[str]
    cluster_id: str | None = None
    price_per_hour_usd: Usd | None = None
    warnings: list[str] | None = None
    next: str


class ClusterMember(Result):
    """What became of one pod of a cluster."""

    pod_id: str
    rank: int | None = None
    outcome: Outcome
    message: str | None = None


class RemovedCluster(Result):
    """What a removal came to, pod by pod."""

    outcome: Outcome
    members: list[ClusterMember]
    next: str | None = None


@toolset.tool(title="List cluster offers", hints=READS)
async def list_clusters(call: Call, limit: Limit = 20, cursor: Cursor = "") -> ClusterOffers:
    """List groups of free nodes that share one InfiniBand or RoCE fabric, for jobs over several nodes. Rent some of one
    group with rent_cluster.
    """
    offers = list(await call.lium.clusters.list_offers())
    rows, next_cursor = page(offers, limit=limit, cursor=cursor)
    return ClusterOffers(offers=[_offer(row) for row in rows], total=len(offers), next_cursor=next_cursor)


@toolset.tool(title="Rent a cluster", hints=WRITES)
async def rent_cluster(
    call: Call,
    *,
    name: Annotated[ShortText, Field(min_length=1, description="Unique name; all members get it.")],
    executor_ids: Annotated[list[str], Field(min_length=2, max_length=64, description="Of one list_clusters offer.")],
    template: Annotated[ShortText, Field(description="Default: Lium's cluster image.")] = "",
    max_usd_per_hour: Annotated[float | None, Field(description="Ceiling for the whole cluster.")] = None,
) -> RentedCluster:
    """Rent whole nodes of one fabric, all or none. This spends money: each member bills per second until
    remove_cluster. Lium removes none of them by itself.
    """
    price = await _price(call, executor_ids)
    if max_usd_per_hour is not None and price > max_usd_per_hour:
        raise ToolFailure(
            "price_above_ceiling",
            f"These nodes cost ${price:.2f} an hour together, more than max_usd_per_hour={max_usd_per_hour:g}.",
            "Choose fewer or cheaper nodes with list_clusters, or raise the ceiling.",
        )
    request = ClusterRentRequest(
        pod_name=name,
        template_id=await _template_id(call, template),
        executor_uuids=executor_ids,
        user_public_key=await find_public_keys(call),
    )
    try:
        async with call.renter.rent(ClusterOrder(request)) as rental:
            members = [pod for pod in await call.lium.pods.list() if pod.id in rental.pod_ids]
            return RentedCluster(
                pod_ids=list(rental.pod_ids),
                cluster_id=next((pod.cluster_id for pod in members if pod.cluster_id), None),
                price_per_hour_usd=sum(pod.price or 0 for pod in members) or price,
                warnings=None
                if rental.confirmed
                else ["The answer was lost; the pods were found by name. Check them."],
                next="Call list_pods until all members run. Remove them together with remove_cluster.",
            )
    except PodNameTaken as taken:
        raise name_taken(taken) from taken
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(name, unknown) from unknown


@toolset.tool(title="Remove a cluster", hints=DESTROYS)
async def remove_cluster(
    call: Call, cluster_id: Annotated[ShortText, Field(min_length=1, description="From rent_cluster.")]
) -> RemovedCluster:
    """Remove every pod of a cluster for good. The answer has a result per member: one that failed goes on billing."""
    try:
        answer = await call.lium.clusters.remove(cluster_id)
    except Conflict as error:
        raise ToolFailure(
            "removal_refused",
            f"Lium refused to remove the cluster: {error}.",
            "A member is still starting: call list_pods until all run, then remove_cluster again.",
            request_id=error.request_id,
        ) from error
    members = [
        ClusterMember(
            pod_id=row.pod_id,
            rank=row.cluster_node_index,
            outcome="done" if row.success else "failed",
            message=row.message,
        )
        for row in answer.pods
    ]
    if not members:
        return RemovedCluster(
            outcome="pending", members=[], next="Lium named no members: call list_pods to see whether any is left."
        )
    failed = [member for member in members if member.outcome == "failed"]
    return RemovedCluster(
        outcome="failed" if failed else "done",
        members=members,
        next=f"{len(failed)} members still bill: call remove_cluster again." if failed else None,
    )


async def _price(call: Call, executor_ids: list[str]) -> float:
    offers = await call.lium.clusters.list_offers()
    for offer in offers:
        nodes = {node.id: node for node in offer.nodes}
        if all(executor_id in nodes for executor_id in executor_ids):
            chosen = [nodes[executor_id] for executor_id in executor_ids]
            return sum((node.price_per_gpu or 0) * node.total_gpu_count for node in chosen)
    raise ToolFailure(
        "nodes_not_one_cluster",
        "These nodes are not all free on one fabric.",
        "Take executor_ids of one offer of list_clusters.",
    )


async def _template_id(call: Call, named: str) -> str:
    if named:
        template = await find_template(call, named)
        if not template.docker_image.startswith(_IMAGE_PREFIX):
            raise ToolFailure(
                "template_not_for_clusters",
                f"Template {template.name} runs {template.docker_image}; a cluster needs an image {_IMAGE_PREFIX}.",
                "Leave template out for Lium's own.",
            )
        return template.id
    for template in await call.lium.templates.list():
        if template.docker_image.startswith(_IMAGE_PREFIX) and template.status == "VERIFY_SUCCESS":
            return template.id
    raise ToolFailure("template_needed", "Lium offers no cluster template.", "Name one with the parameter template.")


def _offer(offer: ClusterOffer) -> ClusterOfferView:
    return ClusterOfferView(
        fabric_id=offer.fabric_id,
        fabric_type=offer.fabric_type,
        link_rate=offer.link_rate,
        measured=offer.fabric_measured,
        nodes=[
            ClusterNode(
                executor_id=node.id,
                gpu_type=node.gpu_type,
                gpus=node.total_gpu_count,
                price_per_hour_usd=node.price_per_gpu * node.total_gpu_count
                if node.price_per_gpu is not None
                else None,
            )
            for node in offer.nodes
        ],
    )
