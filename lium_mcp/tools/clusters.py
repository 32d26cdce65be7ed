"""Toolset `clusters`, off by default: several whole nodes of one fast fabric, rented and removed together."""

from contextlib import suppress
from typing import Annotated, Final

import anyio
from pydantic import Field

from lium_mcp.api import ClusterOffer, ClusterRentRequest, Conflict, Executor, LiumError, Pod, RentOutcomeUnknown
from lium_mcp.rentals import ClusterOrder, PodNameTaken, Rental
from lium_mcp.rentals.selection import has_price
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.parameters import Cursor, Limit, ShortText, page
from lium_mcp.tools.pod_views import Outcome
from lium_mcp.tools.registry import DESTROYS, READS, WRITES, Toolset
from lium_mcp.tools.renting import find_public_keys, name_taken, outcome_unknown
from lium_mcp.tools.results import Result, Usd
from lium_mcp.tools.targets import find_template

toolset = Toolset("clusters")

_IMAGE_PREFIX: Final = "daturaai/lium-cluster"
_READ_BACK_SECONDS: Final = 10.0


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
    if max_usd_per_hour is not None and (price is None or price > max_usd_per_hour):
        cost = "have no known price" if price is None else f"cost ${price:.2f} an hour together"
        raise ToolFailure(
            "price_above_ceiling",
            f"These nodes {cost}, and max_usd_per_hour={max_usd_per_hour:g}.",
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
            return await _rented(call, rental, price, max_usd_per_hour)
    except PodNameTaken as taken:
        raise name_taken(taken) from taken
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(name, unknown) from unknown
    except Conflict as refused:
        # It may have come as a success of HTTP, which says no more than that Lium answered.
        raise ToolFailure(
            "conflict",
            f"{str(refused).rstrip('.')}.",
            "Look at list_clusters again: a node may have been taken.",
            effect="Nothing was rented.",
            request_id=refused.request_id,
        ) from refused


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


async def _rented(call: Call, rental: Rental, quoted: float | None, ceiling: float | None) -> RentedCluster:
    members: list[Pod] = []
    # The pods bill: whatever fails now, the answer names them.
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        members = [pod for pod in await call.lium.pods.list() if pod.id in rental.pod_ids]
    prices = [pod.price for pod in members if pod.price is not None]
    price = sum(prices) if len(prices) == len(rental.pod_ids) else quoted
    warnings = []
    if not rental.confirmed:
        warnings.append("The answer was lost; the pods were found by name. Check them.")
    if not members:
        warnings.append("Lium does not list the pods yet.")
    if ceiling is not None and price is not None and price > ceiling:
        warnings.append(f"The price rose: they cost ${price:.2f} an hour, more than max_usd_per_hour={ceiling:g}.")
    return RentedCluster(
        pod_ids=list(rental.pod_ids),
        cluster_id=next((pod.cluster_id for pod in members if pod.cluster_id), None),
        price_per_hour_usd=price,
        warnings=warnings or None,
        next="Call list_pods until all members run. Remove them together with remove_cluster.",
    )


async def _price(call: Call, executor_ids: list[str]) -> float | None:
    """The price of the nodes together; None if one of them has none."""
    for offer in await call.lium.clusters.list_offers():
        nodes = {node.id: node for node in offer.nodes}
        if all(executor_id in nodes for executor_id in executor_ids):
            prices = [_node_price(nodes[executor_id]) for executor_id in executor_ids]
            known = [price for price in prices if price is not None]
            return sum(known) if len(known) == len(prices) else None
    raise ToolFailure(
        "nodes_not_one_cluster",
        "These nodes are not all free on one fabric.",
        "Take executor_ids of one offer of list_clusters.",
    )


def _node_price(node: Executor) -> float | None:
    if node.price_per_gpu is None or not has_price(node) or not node.total_gpu_count:
        return None
    return node.price_per_gpu * node.total_gpu_count


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
                price_per_hour_usd=_node_price(node),
            )
            for node in offer.nodes
        ],
    )
