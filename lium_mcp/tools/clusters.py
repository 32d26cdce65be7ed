"""Toolset `clusters`, off by default: several whole nodes of one fast fabric, rented and removed together."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Final

import anyio
from pydantic import Field

from lium_mcp.api.clusters import ClusterOffer, ClusterRentRequest
from lium_mcp.api.errors import Conflict, LiumError, RentOutcomeUnknown
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.pods.models import Pod
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.figures import at_most_usd, in_usd, is_above, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask
from lium_mcp.inputs import LEAST_HOURS, ShortText
from lium_mcp.rentals import ClusterOrder, Expected, Rental, digest, whole_hours
from lium_mcp.results import Result, UsdRate, note_on
from lium_mcp.services.dropped_settings import dropped_settings
from lium_mcp.services.limits_left import find_judge, refuse_beyond_limits
from lium_mcp.services.login_keys import PodKeys, find_public_keys
from lium_mcp.services.node_warnings import NodeFlaws, flaws, node_warnings
from lium_mcp.services.offers import has_price
from lium_mcp.services.pod_details import Outcome
from lium_mcp.services.polling import READ_LIMIT_SECONDS, time_limit
from lium_mcp.services.questions import ask_to_remove_cluster, quoted
from lium_mcp.services.removing import is_gone
from lium_mcp.services.rent_terms import (
    came_out_dearer,
    ceiling_per_hour_usd,
    give_back,
    maybe_not_ours,
    not_stated,
    outcome_unknown,
    refuse_dearer,
)
from lium_mcp.services.targets import find_usable_template
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import DEFAULT_WAIT_SECONDS, Cursor, Limit, WaitSeconds, page
from lium_mcp.toolkit.registry import DESTROYS, READS, WRITES, Toolset

toolset = Toolset("clusters")

_IMAGE_PREFIX: Final = "daturaai/lium-cluster"
_READ_BACK_SECONDS: Final = 10.0


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


class RentedCluster(Result):
    """The pods of a cluster that was rented. Each bills by itself."""

    pod_ids: list[str]
    already_rented: bool | None = None
    cluster_id: str | None = None
    price_per_hour_usd: UsdRate | None = None
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
    note: str | None = None
    next: str | None = None


@toolset.tool(title="List cluster offers", hints=READS)
async def list_clusters(call: Call, limit: Limit = 20, cursor: Cursor = "") -> ClusterOffers:
    """List groups of free nodes that share one InfiniBand or RoCE fabric, for jobs over several nodes. Rent some of one
    group with rent_cluster.
    """
    offers = list(await call.lium.clusters.list_offers())
    rows, next_cursor = page(offers, limit=limit, cursor=cursor)
    return ClusterOffers(offers=[_offer(row) for row in rows], total=len(offers), next_cursor=next_cursor)


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A cluster that may be rented, and what it comes to.

    Attributes:
        price_per_hour_usd: Of all members together; None where Lium does not say one.
        hours: Until Lium removes the members.
        ceiling_usd: The caller's own, for all members together.
    """

    request: ClusterRentRequest
    price_per_hour_usd: float | None
    hours: float | None
    ceiling_usd: float | None
    nodes: Sequence[Executor]
    template: Template
    keys: PodKeys

    @property
    def pod_count(self) -> int:
        """How many members it has."""
        return len(self.request.executor_uuids)

    @property
    def ask(self) -> Ask:
        """What it would add to what the account is committed to."""
        return Ask(self.price_per_hour_usd, float(whole_hours(self.hours)) if self.hours else None, self.pod_count)

    @property
    def warnings(self) -> list[str]:
        """What to know before it is rented."""
        of_nodes = [f"Node {node.id}: {said}" for node in self.nodes for said in node_warnings(node)]
        return of_nodes + ([self.keys.warning] if self.keys.warning else [])


async def ask_to_rent_cluster(call: Call, **arguments: Any) -> Question | None:  # noqa: ANN401 - those of the tool
    """What a person is asked before a cluster is rented."""
    if await call.renter.earlier(arguments["name"], _digest(**arguments)) is not None:
        return None
    plan = await _plan(call, **arguments)
    await refuse_beyond_limits(call.account, call.policy, plan.ask)
    hours = plan.hours
    price = None if plan.price_per_hour_usd is None else at_most_usd(plan.price_per_hour_usd)
    cost = f"at most {in_usd(price)} an hour together" if price is not None else "a price that Lium does not say"
    until = f"Lium removes them after {hours:g} hours" if hours else "They bill until somebody removes them"
    total = f": at most {in_usd(at_most_usd(price * hours))} in all" if hours and price is not None else ""
    nodes = ", ".join(plan.request.executor_uuids)
    text = f"Rent cluster {quoted(plan.request.pod_name)} of the whole nodes {nodes} for {cost}? {until}{total}."
    return Question(" ".join((text, *plan.warnings)), price_per_hour_usd=price)


@toolset.tool(title="Rent a cluster", hints=WRITES, asks=ask_to_rent_cluster)
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
    hours: Annotated[float | None, Field(ge=LEAST_HOURS, le=720, description="Lium removes the pods then.")] = None,
) -> RentedCluster:
    """Rent whole nodes of one fabric, all or none. This spends money: each member bills per second until
    remove_cluster, or for the given hours.
    """
    arguments: dict[str, Any] = {"name": name, "executor_ids": executor_ids, "template": template, "hours": hours}
    asked = _digest(**arguments)
    with time_limit(READ_LIMIT_SECONDS):
        ready = await call.renter.earlier(name, asked) or await _plan(
            call, **arguments, max_usd_per_hour=max_usd_per_hour
        )
    if isinstance(ready, Rental):
        return await _rented(call, ready, None)
    refuse_dearer(call.agreed, ready.price_per_hour_usd)
    expected = _expected(call, ready)
    try:
        async with call.renter.rent(
            ClusterOrder(ready.request),
            asked=asked,
            price_per_hour_usd=ready.price_per_hour_usd,
            expected=expected,
            hours=ready.hours,
            find_judge=lambda: find_judge(call.account, call.policy, ready.ask),
        ) as rental:
            return await _rented(call, rental, None if rental.earlier else ready)
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(name, unknown) from unknown
    except Conflict as refused:
        # It may have come as a success of HTTP, which says no more than that Lium answered.
        raise Failure(
            "conflict",
            f"{str(refused).rstrip('.')}.",
            "Look at list_clusters again: a node may have been taken.",
            effect="Nothing was rented.",
            request_id=refused.request_id,
        ) from refused


@toolset.tool(
    title="Remove a cluster", hints=DESTROYS, asks=lambda call, **given: ask_to_remove_cluster(call.account, **given)
)
async def remove_cluster(
    call: Call,
    cluster_id: Annotated[ShortText, Field(min_length=1, description="From rent_cluster.")],
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> RemovedCluster:
    """Remove every pod of a cluster for good. The answer has a result per member: one that failed goes on billing."""
    try:
        answer = await call.lium.clusters.remove(cluster_id)
    except Conflict as error:
        raise Failure(
            "removal_refused",
            f"Lium refused to remove the cluster: {error}.",
            "A member is still starting: call list_pods until all run, then remove_cluster again.",
            request_id=error.request_id,
        ) from error
    going = [row.pod_id for row in answer.pods if row.success]
    for pod_id in going:
        await call.account.rents.note_removal(pod_id)
    left = await _wait_until_gone(call, going, wait_seconds)
    members = [
        ClusterMember(
            pod_id=row.pod_id,
            rank=row.cluster_node_index,
            outcome="failed"
            if row.success is False
            else "pending"
            if row.pod_id in left or not row.success
            else "done",
            message=row.message,
        )
        for row in answer.pods
    ]
    if not members:
        return RemovedCluster(
            outcome="pending", members=[], next="Lium named no members: call list_pods to see whether any is left."
        )
    outcomes = [member.outcome for member in members]
    failed, untold = outcomes.count("failed"), outcomes.count("pending") - len(left)
    advice = (
        f"{failed} members still bill: call remove_cluster again." if failed else "",
        f"Lium does not say of {untold} whether it removed them: call list_pods to see which are left."
        if untold
        else "",
        f"{len(left)} are being removed and may still bill: get_pod with their pod_id shows their end." if left else "",
    )
    return RemovedCluster(
        outcome="failed" if failed else "pending" if untold or left else "done",
        members=members,
        note=note_on(*(member.message for member in members)),
        next=" ".join(filter(None, advice)) or None,
    )


async def _wait_until_gone(call: Call, going: Sequence[str], wait_seconds: float) -> Sequence[str]:
    """Wait for the end of pods whose removal Lium has accepted; those that are left when the time is over."""
    left = list(going)

    async def read() -> int:
        for pod_id in tuple(left):
            if await is_gone(call.account, pod_id):
                left.remove(pod_id)
                await call.account.rents.note_gone(pod_id)
        return len(left)

    await call.poller.until(
        len(left),
        read,
        lambda count: not count,
        wait_seconds=wait_seconds,
        describe=lambda count: f"{count} members are being removed",
    )
    return left


async def _rented(call: Call, rental: Rental, plan: ClusterPlan | None) -> RentedCluster:
    """Show the members; `plan` is None where an earlier call rented them."""
    members: list[Pod] = []
    # The pods bill: whatever fails now, the answer names them.
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        members = [pod for pod in await call.lium.pods.list() if pod.id in rental.pod_ids]
    if plan is not None:
        await call.renter.refuse_anothers(rental, members)
    prices = [pod.price for pod in members if pod.price is not None]
    quoted = plan.price_per_hour_usd if plan else None
    price = sum(prices) if len(prices) == len(rental.pod_ids) else quoted
    warnings = plan.warnings if plan else []
    expected = _expected(call, plan) if plan else Expected()
    contradiction = next(filter(None, map(expected.contradiction, members)), None)
    if plan is not None and (contradiction or expected.is_dearer(members)):
        contradiction = contradiction or "they cost more than allowed together"
        if rental.confirmed:
            what = f"The cluster {plan.request.pod_name}"
            raise await give_back(call.account, rental, what, contradiction, expected, members)
        warnings.append(maybe_not_ours(contradiction))
    if plan is not None and (dearer := came_out_dearer(quoted, sum(prices), "remove_cluster")):
        warnings.append(dearer)
    if unverified := sorted({what for pod in members for what in expected.unverified(pod)}):
        warnings.append(not_stated(unverified))
    if plan is not None and members:
        await call.account.rents.note_checked(members)
    if plan is not None:
        warnings += dropped_settings(plan.template)
    if plan is not None and len(rental.pod_ids) != plan.pod_count:
        warnings.append(f"Lium named {len(rental.pod_ids)} pods of {plan.pod_count}: call list_pods to see the others.")
    if not rental.confirmed:
        warnings.append("The answer was lost; the pods were found by name. Check them.")
    if not members:
        warnings.append("Lium does not list the pods yet.")
    hours = plan.hours if plan else None
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


def _expected(call: Call, plan: ClusterPlan) -> Expected:
    """What each member must be to be kept."""
    limits, is_bound = call.policy.limits, not call.policy.shadow
    counts = {node.gpu_count for node in plan.nodes}
    return Expected(
        gpu_types=tuple(sorted({node.gpu_name for node in plan.nodes if node.gpu_name})),
        allowed_gpu_types=tuple(sorted(limits.allow_gpu_types)) if is_bound else (),
        gpu_count=counts.pop() if len(counts) == 1 else None,
        countries=tuple(sorted(limits.allow_countries)) if is_bound else (),
        template_id=plan.template.id,
        template_image=plan.template.image,
        ceiling_per_hour_usd=ceiling_per_hour_usd(
            call.policy, call.agreed, plan.price_per_hour_usd, plan.ceiling_usd, plan.pod_count
        ),
        ceiling_per_pod_hour_usd=call.policy.most_per_hour_usd(None),
    )


async def _keep_removal_times(call: Call, rental: Rental, members: Sequence[Pod], hours: float) -> bool:
    """Set a removal time on each member, since a cluster's rent carries no hours; return whether all have one."""
    is_set = [False]
    with suppress(LiumError), anyio.move_on_after(_READ_BACK_SECONDS):
        is_set = [(await call.renter.keep_removal_time(rental, pod, hours))[1] for pod in members]
    return len(is_set) == len(rental.pod_ids) and all(is_set)


def _digest(*, name: str, executor_ids: list[str], template: str, hours: float | None, **_: Any) -> str:  # noqa: ANN401 - as above
    return digest({"cluster": name, "nodes": sorted(executor_ids), "template": template, "hours": hours})


async def _plan(
    call: Call,
    *,
    name: str,
    executor_ids: list[str],
    template: str,
    hours: float | None,
    max_usd_per_hour: float | None,
) -> ClusterPlan:
    """Find what to rent; whatever is refused is refused here, before money is spent.

    Raises:
        Failure: it cannot be rented so.
        PolicyRefused: a limit does not allow it.
        LiumError: the API could not be read.
    """
    policy = call.policy
    hours = policy.life(hours)
    nodes = await _find_nodes(call, executor_ids)
    for node in nodes:
        policy.check_gpu_type(node.gpu_name, node.vram_gb_per_gpu)
        policy.check_country(node.country_code)
        policy.check_price(_node_price(node))
    prices = [_node_price(node) for node in nodes]
    price = None if None in prices else sum(price or 0 for price in prices)
    if max_usd_per_hour is not None and price is None:
        unsaid = " and ".join(_missing_figure(node) for node in nodes if _node_price(node) is None)
        raise Failure(
            "price_unknown",
            f"Lium does not say {unsaid}, so nobody knows whether max_usd_per_hour={max_usd_per_hour:g} is kept.",
            "Choose other nodes with list_clusters.",
        )
    if max_usd_per_hour is not None and price is not None and is_above(price, max_usd_per_hour):
        raise Failure(
            "price_above_ceiling",
            f"These nodes cost {rate_in_usd(price)} an hour together, and max_usd_per_hour={max_usd_per_hour:g}.",
            "Choose fewer or cheaper nodes with list_clusters, or raise the ceiling.",
        )
    chosen = await _template(call, template)
    keys = await find_public_keys(call.account)
    request = ClusterRentRequest(
        pod_name=name,
        template_id=chosen.id,
        executor_uuids=executor_ids,
        user_public_key=keys.public,
    )
    policy.check_template(request.template_id)
    return ClusterPlan(request, price, hours, max_usd_per_hour, nodes, chosen, keys)


async def _find_nodes(call: Call, executor_ids: list[str]) -> list[Executor]:
    """The nodes, which one offer has all of."""
    for offer in await call.lium.clusters.list_offers():
        nodes = {node.id: node for node in offer.nodes}
        if all(executor_id in nodes for executor_id in executor_ids):
            return [nodes[executor_id] for executor_id in executor_ids]
    raise Failure(
        "nodes_not_one_cluster",
        "These nodes are not all free on one fabric.",
        "Take executor_ids of one offer of list_clusters.",
    )


def _node_price(node: Executor) -> float | None:
    if node.price_per_gpu is None or not has_price(node) or not node.total_gpu_count:
        return None
    return node.price_per_gpu * node.total_gpu_count


def _missing_figure(node: Executor) -> str:
    """Of a node whose price is not known, what is missing for it."""
    return f"how many GPUs node {node.id} has" if has_price(node) else f"the price per GPU of node {node.id}"


async def _template(call: Call, named: str) -> Template:
    if named:
        template = await find_usable_template(call.account, named)
        if not template.docker_image.startswith(_IMAGE_PREFIX):
            raise Failure(
                "template_not_for_clusters",
                f"Template {template.name} runs {template.image or 'what Lium does not say'}; a cluster needs an image "
                f"{_IMAGE_PREFIX}.",
                "Leave template out for Lium's own.",
            )
        return template
    for template in await call.lium.templates.list():
        if template.docker_image.startswith(_IMAGE_PREFIX) and template.status == "VERIFY_SUCCESS":
            return template
    raise Failure("template_needed", "Lium offers no cluster template.", "Name one with the parameter template.")


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
                **flaws(node),
            )
            for node in offer.nodes
        ],
    )
