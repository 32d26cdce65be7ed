"""What a rent came to, as its caller is shown it: the pod, what was known before, and what is left to do."""

from typing import Any, Final, Literal

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.pods.models import Pod
from lium_mcp.results import Result, Timed, Usd, UsdRate, UtcTime
from lium_mcp.services.pods.dropped_settings import SSH_PORT, dropped_settings
from lium_mcp.services.pods.node_warnings import node_warnings
from lium_mcp.services.pods.pod_details import PodView
from lium_mcp.services.pods.price_rises import came_out_dearer
from lium_mcp.services.rents.offers import has_price
from lium_mcp.services.rents.order_view import StandingOrder
from lium_mcp.services.rents.rent_plan import Plan
from lium_mcp.services.rents.startup_restores import StartupRestore
from lium_mcp.text import quotation

_MOST_IMAGE_CHARACTERS: Final = 120


class RentedNode(Result):
    """What is known of the node of a pod, beside its GPUs. RAM is the whole node's."""

    tier: str | None = None
    country: str | None = None
    node_ram_gb: int | None = None
    nvlink: bool | None = None


class PodOfBatch(Result):
    """What came of one of several pods."""

    name: str
    outcome: Literal["done", "failed", "pending", "unknown", "dry_run"]
    pod_id: str | None = None
    already_rented: bool | None = None
    lost_answer_settled: bool | None = None
    executor_id: str | None = None
    gpu_type: str | None = None
    tier: str | None = None
    country: str | None = None
    template: str | None = None
    price_per_hour_usd: UsdRate | None = None
    code: str | None = None
    problem: str | None = None


class RentedPod(RentedNode, Timed):
    """What a rent came to: the pod as the API shows it, or on a dry run the node that would be rented.

    Of several pods it has a row each, and what they cost and how many there are of each outcome.
    """

    outcome: Literal["done", "partly_done", "failed", "pending", "dry_run"]
    pod_id: str | None = None
    already_rented: bool | None = None
    lost_answer_settled: bool | None = None
    executor_id: str | None = None
    gpu_type: str | None = None
    gpu_count: int | None = None
    price_per_hour_usd: UsdRate | None = None
    hours: float | None = None
    total_usd: Usd | None = None
    left_of_total_usd: Usd | None = None
    ssh_keys: list[str] | None = None
    pod: PodView | None = None
    restore: StartupRestore | None = None
    order: StandingOrder | None = None
    pods: list[PodOfBatch] | None = None
    pods_done: int | None = None
    pods_pending: int | None = None
    pods_failed: int | None = None
    pods_unknown: int | None = None
    removal_at: UtcTime | None = None
    warnings: list[str] | None = None
    next: str | None = None


def rented_node(node: Executor | None) -> dict[str, Any]:
    """The fields of `RentedNode`."""
    if node is None:
        return {}
    ram_gb = node.ram_gb
    return {
        "tier": node.tier,
        "country": node.country_code,
        "node_ram_gb": None if ram_gb is None else int(ram_gb),
        "nvlink": node.has_nvlink,
    }


def came_out(plan: Plan, pod: Pod) -> list[str]:
    """What was known before a rent, and what it came out dearer by."""
    is_planned = pod.executor_id in (None, plan.node.id)
    dearer = came_out_dearer(_planned_usd(plan), pod.price, "remove_pod")
    known = foreseen(plan, plan.node if is_planned else pod.executor)
    return [*known, *filter(None, (dearer, _runs_another_image(plan, pod)))]


def _runs_another_image(plan: Plan, pod: Pod) -> str | None:
    """Say that a template was changed in the moment of the rent."""
    planned, runs = plan.template, pod.template
    if planned is None or runs is None or runs.id != planned.id or None in (runs.image, planned.image):
        return None
    if runs.image == planned.image:
        return None
    return (
        f"Template {planned.id} was changed while it was rented: it runs {_image(runs.image)}, and was planned with "
        f"{_image(planned.image)}. remove_pod ends it if that will not do."
    )


def _image(name: str | None) -> str:
    return quotation(name or "", _MOST_IMAGE_CHARACTERS)


def _planned_usd(plan: Plan) -> float | None:
    """What a pod was planned at per hour, or is listed at where Lium picked the node."""
    if plan.price_per_hour_usd is None and has_price(plan.node):
        return (plan.node.price_per_gpu or 0) * plan.gpu_count
    return plan.price_per_hour_usd


def foreseen(plan: Plan, node: Executor | None) -> list[str]:
    """Warn of what is known before a rent.

    That is what speaks against the node, who could not log in, and which settings of the template the pod will lack.
    """
    sentences = [*(node_warnings(node) if node else []), *plan.warnings]
    if plan.template is None:
        return sentences
    sentences += dropped_settings(plan.template)
    asked, free = len({SSH_PORT, *(plan.template.internal_ports or ())}), node.port_count if node else None
    if free is not None and free < asked:
        sentences.append(f"Its node has {free} free ports and the template asks for {asked}: some will not be open.")
    return sentences


def would_rent(plan: Plan) -> RentedPod:
    """Show a plan that is not carried out."""
    price, hours = plan.price_per_hour_usd, plan.hours
    return RentedPod(
        outcome="dry_run",
        executor_id=plan.node.id,
        gpu_type=plan.node.gpu_type,
        gpu_count=plan.gpu_count,
        price_per_hour_usd=price,
        hours=hours,
        total_usd=price * hours if price is not None and hours else None,
        left_of_total_usd=plan.left_of_total_usd,
        **rented_node(plan.node),
        warnings=foreseen(plan, plan.node) or None,
        next="Nothing was rented. Call again without dry_run to rent.",
    )
