"""Makes the plan of a cluster: which nodes of one fabric, which template, at what price, within which limits.

Whatever is refused is refused here, before money is spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lium_mcp.api.clusters import ClusterRentRequest
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.templates import Template
from lium_mcp.failures import Failure
from lium_mcp.figures import at_most_usd, counted, in_usd, is_above, known_sum, rate_in_usd
from lium_mcp.guard.consent import Question
from lium_mcp.guard.policy import Ask, Policy
from lium_mcp.rentals import Expected, digest, most_hours
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.login_keys import PodKeys, find_public_keys
from lium_mcp.services.pods.node_warnings import node_warnings
from lium_mcp.services.question_words import quoted
from lium_mcp.services.rents.offers import has_price
from lium_mcp.services.rents.rent_questions import in_all
from lium_mcp.services.rents.rent_terms import ceiling_per_hour_usd
from lium_mcp.services.targets import find_usable_template

_IMAGE_PREFIX: Final = "daturaai/lium-cluster"
_PLATFORM_VERIFIED: Final = "VERIFY_SUCCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterWish:
    """What a caller wants to rent: the parameters of `rent_cluster`."""

    name: str
    executor_ids: list[str]
    template: str
    max_usd_per_hour: float | None
    hours: float | None

    @property
    def digest(self) -> str:
        """A digest of what the ledger recognizes the same call by; the ceiling changes nothing of what is rented."""
        nodes = sorted(self.executor_ids)
        return digest({"cluster": self.name, "nodes": nodes, "template": self.template, "hours": self.hours})


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
        return Ask(self.price_per_hour_usd, most_hours(self.hours) if self.hours else None, self.pod_count)

    @property
    def warnings(self) -> list[str]:
        """What to know before it is rented."""
        of_nodes = [f"Node {node.id}: {said}" for node in self.nodes for said in node_warnings(node)]
        return of_nodes + ([self.keys.warning] if self.keys.warning else [])


async def plan_cluster(account: Account, policy: Policy, wish: ClusterWish) -> ClusterPlan:
    """Find what to rent.

    Raises:
        Failure: it cannot be rented so.
        PolicyRefused: a limit does not allow it.
        LiumError: the API could not be read.
    """
    hours = policy.life(wish.hours)
    nodes = await _find_nodes(account, wish.executor_ids)
    for node in nodes:
        policy.check_gpu_type(node.gpu_name, node.vram_gb_per_gpu)
        policy.check_country(node.country_code)
        policy.check_price(node_price_per_hour_usd(node))
    price = _price(wish, nodes)
    template = await _template(account, wish.template)
    keys = await find_public_keys(account)
    request = ClusterRentRequest(
        pod_name=wish.name,
        template_id=template.id,
        executor_uuids=wish.executor_ids,
        user_public_key=keys.public,
    )
    policy.check_template(request.template_id)
    return ClusterPlan(request, price, hours, wish.max_usd_per_hour, nodes, template, keys)


def question_about_cluster(plan: ClusterPlan) -> Question:
    """What a person is asked before a cluster is rented."""
    hours = plan.hours
    price = None if plan.price_per_hour_usd is None else at_most_usd(plan.price_per_hour_usd)
    cost = f"at most {in_usd(price)} an hour together" if price is not None else "a price that Lium does not say"
    until = "They bill until somebody removes them."
    if hours:
        until = f"Lium removes them {counted(hours, 'hour')} after they start"
        until += "." if price is None else in_all([hours], [price])
        until += " A second request sets that: should this server die between the two, they bill until one runs again."
    nodes = ", ".join(plan.request.executor_uuids)
    text = f"Rent cluster {quoted(plan.request.pod_name)} of the whole nodes {nodes} for {cost}? {until}"
    return Question(" ".join((text, *plan.warnings)), price_per_hour_usd=price)


def expected_of_members(policy: Policy, agreed: Question | None, plan: ClusterPlan) -> Expected:
    """What each member must be to be kept."""
    limits, is_bound = policy.limits, not policy.shadow
    counts = {node.gpu_count for node in plan.nodes}
    return Expected(
        executor_ids=tuple(plan.request.executor_uuids),
        gpu_types=tuple(sorted({node.gpu_name for node in plan.nodes if node.gpu_name})),
        allowed_gpu_types=tuple(sorted(limits.allow_gpu_types)) if is_bound else (),
        gpu_count=counts.pop() if len(counts) == 1 else None,
        countries=tuple(sorted(limits.allow_countries)) if is_bound else (),
        template_id=plan.template.id,
        template_image=plan.template.image,
        ceiling_per_hour_usd=ceiling_per_hour_usd(
            policy, agreed, plan.price_per_hour_usd, plan.ceiling_usd, plan.pod_count
        ),
        ceiling_per_pod_hour_usd=policy.most_per_hour_usd(None),
    )


def node_price_per_hour_usd(node: Executor) -> float | None:
    """What a whole node costs; None where Lium does not say it."""
    if node.price_per_gpu is None or not has_price(node) or not node.total_gpu_count:
        return None
    return node.price_per_gpu * node.total_gpu_count


async def _find_nodes(account: Account, executor_ids: list[str]) -> list[Executor]:
    """The nodes, which one offer has all of."""
    for offer in await account.lium.clusters.list_offers():
        nodes = {node.id: node for node in offer.nodes}
        if all(executor_id in nodes for executor_id in executor_ids):
            return [nodes[executor_id] for executor_id in executor_ids]
    raise Failure(
        "nodes_not_one_cluster",
        "These nodes are not all free on one fabric.",
        "Take executor_ids of one offer of list_clusters.",
    )


def _price(wish: ClusterWish, nodes: Sequence[Executor]) -> float | None:
    """What the nodes cost together; None where nobody knows.

    Raises:
        Failure: it is above the caller's ceiling, or may be.
    """
    price = known_sum(node_price_per_hour_usd(node) for node in nodes)
    ceiling = wish.max_usd_per_hour
    if ceiling is not None and price is None:
        unsaid = " and ".join(_missing_figure(node) for node in nodes if node_price_per_hour_usd(node) is None)
        raise Failure(
            "price_unknown",
            f"Lium does not say {unsaid}, so nobody knows whether max_usd_per_hour={ceiling:g} is kept.",
            "Choose other nodes with list_clusters.",
        )
    if ceiling is not None and price is not None and is_above(price, ceiling):
        raise Failure(
            "price_above_ceiling",
            f"These nodes cost {rate_in_usd(price)} an hour together, and max_usd_per_hour={ceiling:g}.",
            "Choose fewer or cheaper nodes with list_clusters, or raise the ceiling.",
        )
    return price


def _missing_figure(node: Executor) -> str:
    """Of a node whose price is not known, what is missing for it."""
    return f"how many GPUs node {node.id} has" if has_price(node) else f"the price per GPU of node {node.id}"


async def _template(account: Account, named: str) -> Template:
    if named:
        template = await find_usable_template(account, named)
        if not template.docker_image.startswith(_IMAGE_PREFIX):
            raise Failure(
                "template_not_for_clusters",
                f"Template {template.name} runs {template.image or 'what Lium does not say'}; a cluster needs an image "
                f"{_IMAGE_PREFIX}.",
                "Leave template out for Lium's own.",
            )
        return template
    for template in await account.lium.templates.list():
        if template.docker_image.startswith(_IMAGE_PREFIX) and template.status == _PLATFORM_VERIFIED:
            return template
    raise Failure("template_needed", "Lium offers no cluster template.", "Name one with the parameter template.")
