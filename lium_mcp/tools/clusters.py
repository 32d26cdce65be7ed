"""Toolset `clusters`, off by default: several whole nodes of one fast fabric, rented and removed together."""

from typing import Annotated, Any

from pydantic import Field

from lium_mcp.api.clusters import ClusterOffer
from lium_mcp.guard.consent import Question
from lium_mcp.inputs import ShortText
from lium_mcp.rentals import Rental
from lium_mcp.results import Result, UsdRate
from lium_mcp.services.clusters.cluster_plan import (
    ClusterWish,
    node_price_per_hour_usd,
    plan_cluster,
    question_about_cluster,
)
from lium_mcp.services.clusters.cluster_removal import RemovedCluster, find_members, remove_members
from lium_mcp.services.clusters.cluster_renting import RentedCluster, rent_members, show_members
from lium_mcp.services.limits_left import refuse_beyond_limits
from lium_mcp.services.pods.node_warnings import NodeFlaws, flaws
from lium_mcp.services.pods.work_told import refuse_untold
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.services.questions import ask_to_remove_cluster
from lium_mcp.services.rents.balance_needed import NewPod, read_bearing_balance
from lium_mcp.services.rents.rent_terms import refuse_dearer
from lium_mcp.settings_table import LEAST_HOURS, MOST_HOURS
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import DEFAULT_WAIT_SECONDS, Cursor, Limit, WaitSeconds, page
from lium_mcp.toolkit.registry import DESTROYS, READS, WRITES, Toolset

toolset = Toolset("clusters")


class ClusterNode(NodeFlaws):
    """A free node of a fabric; it is rented whole."""

    executor_id: str
    gpu_type: str | None = None
    gpus: int | None = None
    price_per_hour_usd: UsdRate | None = None


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


@toolset.tool(
    title="List cluster offers", hints=READS, search_hint="multi-node training, InfiniBand, many GPUs together"
)
async def list_clusters(call: Call, limit: Limit = 20, cursor: Cursor = "") -> ClusterOffers:
    """List groups of free nodes that share one InfiniBand or RoCE fabric, for jobs over several nodes. Rent some of one
    group with rent_cluster.
    """
    offers = list(await call.lium.clusters.list_offers())
    rows, next_cursor = page(offers, limit=limit, cursor=cursor)
    return ClusterOffers(offers=[_offer(row) for row in rows], total=len(offers), next_cursor=next_cursor)


async def ask_to_rent_cluster(call: Call, **arguments: Any) -> Question | None:  # noqa: ANN401 - those of the tool
    """Before `rent_cluster`; not where it shows what it rented before."""
    wish = ClusterWish(**arguments)
    if await call.renter.earlier(wish.name, wish.digest) is not None:
        return None
    plan = await plan_cluster(call.account, call.policy, wish)
    await refuse_beyond_limits(call.account, call.policy, plan.ask)
    members = [NewPod(node, node.total_gpu_count, node_price_per_hour_usd(node)) for node in plan.nodes]
    await read_bearing_balance(call.account, members)
    await call.renter.refuse_in_vain([wish.name])
    return question_about_cluster(plan)


@toolset.tool(
    title="Rent a cluster",
    hints=WRITES,
    search_hint="multi-node training on several machines",
    asks=ask_to_rent_cluster,
)
async def rent_cluster(
    call: Call,
    *,
    name: Annotated[ShortText, Field(min_length=1, description="Unique name; all members get it.")],
    executor_ids: Annotated[
        list[Annotated[ShortText, Field(min_length=1)]],
        Field(min_length=2, max_length=64, description="Of one list_clusters offer."),
    ],
    template: Annotated[ShortText, Field(description="Default: Lium's cluster image.")] = "",
    max_usd_per_hour: Annotated[float | None, Field(gt=0, description="Ceiling for the whole cluster.")] = None,
    hours: Annotated[
        float | None, Field(ge=LEAST_HOURS, le=MOST_HOURS, description="Lium removes the pods then.")
    ] = None,
) -> RentedCluster:
    """Rent whole nodes of one fabric, all or none. This spends money: each member bills per second until
    remove_cluster, or for the given hours.
    """
    wish = ClusterWish(
        name=name, executor_ids=executor_ids, template=template, max_usd_per_hour=max_usd_per_hour, hours=hours
    )
    with time_limit(READ_LIMIT_SECONDS):
        earlier = await call.renter.earlier(name, wish.digest)
        ready = earlier or await plan_cluster(call.account, call.policy, wish)
    if isinstance(ready, Rental):
        return await show_members(call.account, ready)
    refuse_dearer(call.agreed, ready.price_per_hour_usd)
    return await rent_members(call.account, call.policy, call.agreed, ready, wish.digest)


@toolset.tool(
    title="Remove a cluster",
    hints=DESTROYS,
    search_hint="stop paying for a cluster",
    asks=lambda call, **given: ask_to_remove_cluster(call.account, **given),
)
async def remove_cluster(
    call: Call,
    cluster_id: Annotated[ShortText, Field(min_length=1, description="From rent_cluster.")],
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> RemovedCluster:
    """Remove every pod of a cluster for good. The answer has a result per member: one that failed goes on billing."""
    members = await find_members(call.account, cluster_id)
    if call.agreed is None:
        await refuse_untold(call.account, call.runtime.told_work, members, backups=True)
    return await remove_members(call.account, call.poller, cluster_id, members, wait_seconds)


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
                price_per_hour_usd=node_price_per_hour_usd(node),
                **flaws(node),
            )
            for node in offer.nodes
        ],
    )
