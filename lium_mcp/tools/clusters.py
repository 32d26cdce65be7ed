"""Toolset `clusters`, off by default: several whole nodes of one fast fabric, rented and removed together."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

import anyio
from pydantic import Field

from lium_mcp.api import ClusterOffer, ClusterRentRequest, Conflict, Executor, LiumError, Pod, RentOutcomeUnknown
from lium_mcp.guard.confirm import Question
from lium_mcp.guard.policy import Ask
from lium_mcp.rentals import ClusterOrder, Entry, Rental, Terms, digest, whole_hours
from lium_mcp.rentals.selection import has_price
from lium_mcp.tools.call import Call
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.parameters import Cursor, Limit, ShortText, page
from lium_mcp.tools.pod_views import Outcome
from lium_mcp.tools.questions import ask_to_remove_cluster
from lium_mcp.tools.registry import DESTROYS, READS, WRITES, Toolset
from lium_mcp.tools.rent_plan import PRICE_TOLERANCE_USD, find_public_keys
from lium_mcp.tools.renting import give_back, outcome_unknown, refuse_dearer
from lium_mcp.tools.results import Result, Usd
from lium_mcp.tools.room import make_room
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
    already_rented: bool | None = None
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


async def ask_to_rent_cluster(
    call: Call,
    *,
    name: str,
    executor_ids: list[str],
    hours: float | None,
    **_: Any,  # noqa: ANN401 - the tool's others
) -> Question:
    """What a person is asked before a cluster is rented."""
    price = await _price(call, executor_ids)
    cost = f"${price:.2f} an hour together" if price is not None else "a price that Lium does not say"
    until = f"Lium removes them after {hours:g} hours" if hours else "They bill until somebody removes them"
    total = f": ${price * hours:.2f} in all" if hours and price is not None else ""
    nodes = ", ".join(executor_ids)
    return Question(
        f"Rent cluster {name} of whole nodes ({nodes}) for {cost}? {until}{total}.", price_per_hour_usd=price
    )


@toolset.tool(title="Rent a cluster", hints=WRITES, asks=ask_to_rent_cluster)
async def rent_cluster(
    call: Call,
    *,
    name: Annotated[ShortText, Field(min_length=1, description="Unique name; all members get it.")],
    executor_ids: Annotated[list[str], Field(min_length=2, max_length=64, description="Of one list_clusters offer.")],
    template: Annotated[ShortText, Field(description="Default: Lium's cluster image.")] = "",
    max_usd_per_hour: Annotated[float | None, Field(description="Ceiling for the whole cluster.")] = None,
    hours: Annotated[float | None, Field(gt=0, le=720, description="Lium removes the pods then.")] = None,
) -> RentedCluster:
    """Rent whole nodes of one fabric, all or none. This spends money: each member bills per second until
    remove_cluster, or for the given hours.
    """
    asked = digest({"cluster": name, "nodes": sorted(executor_ids), "template": template, "hours": hours})
    earlier = await call.renter.earlier(name, asked)
    if earlier is not None:
        return await _rented(call, earlier, None, None, None)
    hours = call.policy.life(hours)
    price = await _price(call, executor_ids)
    call.policy.check_price(price, len(executor_ids))
    refuse_dearer(call, price)
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
    call.policy.check_template(request.template_id)
    room = await make_room(call)
    ask = Ask(price, float(whole_hours(hours)) if hours else None, len(executor_ids))

    def judge_room(pods: Sequence[Pod], entries: Sequence[Entry]) -> None:
        room.check(ask, pods, entries)

    try:
        async with call.renter.rent(ClusterOrder(request), Terms(asked, price, hours), judge_room) as rental:
            return await _rented(call, rental, price, max_usd_per_hour, hours)
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


@toolset.tool(title="Remove a cluster", hints=DESTROYS, asks=ask_to_remove_cluster)
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
    for row in answer.pods:
        if row.success:
            await call.renter.note_removed(row.pod_id)
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


async def _rented(
    call: Call, rental: Rental, quoted: float | None, ceiling: float | None, hours: float | None
) -> RentedCluster:
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
    if not rental.earlier and price is not None and _costs_more(call, price, len(rental.pod_ids), ceiling):
        raise await give_back(call, rental, f"The cluster {members[0].pod_name or ''}" if members else "It", price)
    if hours is not None and not await _keep_removal_times(call, rental, members, hours):
        warnings.append(f"The removal after {hours:g} hours is not confirmed: call list_pods once all members run.")
    return RentedCluster(
        pod_ids=list(rental.pod_ids),
        already_rented=rental.earlier or None,
        cluster_id=next((pod.cluster_id for pod in members if pod.cluster_id), None),
        price_per_hour_usd=price,
        warnings=warnings or None,
        next="Call list_pods until all members run. Remove them together with remove_cluster.",
    )


def _costs_more(call: Call, price: float, members: int, ceiling: float | None) -> bool:
    """Whether the members together cost more than was allowed or agreed to, by more than it may be rounded."""
    allowed = call.policy.ceiling_per_pod_hour_usd
    ceilings = (
        ceiling,
        allowed * members if allowed is not None else None,
        call.agreed.price_per_hour_usd if call.agreed else None,
    )
    return any(limit is not None and price > limit + PRICE_TOLERANCE_USD for limit in ceilings)


async def _keep_removal_times(call: Call, rental: Rental, members: Sequence[Pod], hours: float) -> bool:
    """A cluster's rent carries no hours: set a removal time on each member at once, and again once all run."""
    is_set = [False]
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        is_set = [(await call.renter.keep_removal_time(rental, pod, hours))[1] for pod in members]
    return len(is_set) == len(rental.pod_ids) and all(is_set)


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
