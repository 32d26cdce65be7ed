"""Chooses the node of a rental, for a quote and a rent alike: what the filters mean on the market, within limits."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import anyio

from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_names, models_of
from lium_mcp.failures import Failure
from lium_mcp.figures import rate_in_usd
from lium_mcp.guard.policy import Policy, PolicyRefused
from lium_mcp.services.accounts import Account
from lium_mcp.services.rents.offers import (
    Filters,
    NothingFits,
    cheapest_fitting,
    price_order,
    smallest_gpu_count,
    surely_rentable_count,
    types_on_offer,
)
from lium_mcp.services.rents.quotes import PricedRental, find_node, quote_node

_MACHINES_SECONDS: Final = 5.0
_CEILINGS: Final = ("max_usd_per_gpu_hour", "max_usd_per_hour")
# Each is quoted on its own, while the caller waits.
MOST_NODES_TRIED: Final = 4
_OF_ONE_NODE: Final = ("price_above_ceiling", "filters_not_met", "price_unknown", "total_too_low")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offers:
    """What the market has of the wanted GPUs.

    Attributes:
        nodes: The nodes that have one of them; at least one.
        machine_names: Every GPU of the market, wanted or not.
    """

    nodes: Sequence[Executor]
    machine_names: Sequence[str]


async def find_offers(account: Account, gpu_type: str) -> Offers:
    """Find what a GPU's name means on the market; without one, all that is on offer.

    Raises:
        Failure: it means several models, or nothing that is on offer.
        LiumError: the market could not be read.
    """
    market = await account.lium.executors.list()
    names = {node.gpu_name for node in market}
    # Where these cannot be read, the names of what is on offer have to do.
    with suppress(LiumError), anyio.move_on_after(_MACHINES_SECONDS):
        names.update(machine.name for machine in await account.lium.machines.list())
    machine_names = sorted(name for name in names if name)
    for part in gpu_names(gpu_type):
        models = models_of(part, machine_names)
        if len(models) > 1:
            raise Failure(
                "ambiguous_name",
                f"{part} means several GPU models: {', '.join(models)}.",
                "Name one of them with gpu_type.",
            )
    nodes = [node for node in market if not gpu_type or node.is_gpu(gpu_type)]
    absent = [part for part in gpu_names(gpu_type) if not models_of(part, machine_names)]
    if nodes and absent:
        # "4090, D" may have been meant as one name: what is rented must not depend on a guess.
        raise Failure(
            "no_gpu_matches",
            f"No GPU of the market is called {', '.join(absent)[:200]}.",
            "Correct it or leave it out of gpu_type.",
        )
    if not nodes:
        happened = f"No gpu_type on offer matches {gpu_type}; {types_on_offer(market, gpu_type)}."
        raise Failure(
            "no_gpu_matches",
            happened if gpu_type else "Nothing is on offer now.",
            "Name one of these, or watch with list_gpus." if gpu_type else "Watch with list_gpus.",
        )
    return Offers(nodes, machine_names)


def pick_node(policy: Policy, filters: Filters, nodes: Sequence[Executor]) -> Executor:
    """The cheapest of these nodes that meets the filters and that the limits allow; one GPU where no number is said.

    Raises:
        Failure: none meets them.
        PolicyRefused: a limit is why.
    """
    wanted = filters.model_copy(update={"gpu_count": filters.gpu_count or 1})
    of_type = [node for node in nodes if policy.admits_gpu_type(node.gpu_name, node.vram_gb_per_gpu)]
    if not of_type:
        policy.check_gpu_type(nodes[0].gpu_name, nodes[0].vram_gb_per_gpu)
    try:
        return cheapest_fitting(of_type, wanted, lambda node: policy.admits_country(node.country_code))
    except NothingFits as error:
        with suppress(NothingFits):  # if something fits without it, the limit on countries is why
            policy.check_country(cheapest_fitting(of_type, wanted).country_code)
        advice = "Relax a filter or the ceiling, or watch with list_gpus."
        more = None if filters.gpu_count else _cheapest_of_more(policy, filters, of_type)
        if more is not None:
            count = surely_rentable_count(more)
            price = rate_in_usd((more.price_per_gpu or 0) * count)
            advice = f"Node {more.id} fits with {count} GPUs: set gpu_count={count} to rent it, for {price} an hour."
        raise Failure("no_gpu_matches", f"{error}.", advice) from error


def _cheapest_of_more(policy: Policy, filters: Filters, nodes: Sequence[Executor]) -> Executor | None:
    """The cheapest node that meets the filters, but rents more than one GPU at least."""
    fitting = (
        node
        for node in nodes
        if policy.admits_country(node.country_code)
        and filters.model_copy(update={"gpu_count": surely_rentable_count(node)}).fit(node)
    )
    return min(fitting, key=lambda node: price_order(node, surely_rentable_count(node)), default=None)


def is_of_one_node(error: Failure | PolicyRefused) -> bool:
    """Whether a node is refused for what its own quote says, so that another one may do."""
    if isinstance(error, PolicyRefused):
        return error.limit == "max_price_per_hour_usd"
    return error.code in _OF_ONE_NODE


async def use_cheapest(
    policy: Policy, filters: Filters, nodes: Sequence[Executor], use: Callable[[Executor], Awaitable[T]]
) -> T:
    """Use the node that `pick_node` takes, or one of the next where its quote is above its listing and does not fit.

    Raises:
        As `pick_node` and `use`; where none of those that were tried will do, as the first of them.
    """
    left, refused = list(nodes), None
    for _ in range(MOST_NODES_TRIED):
        try:
            node = pick_node(policy, filters, left)
        except (Failure, PolicyRefused):
            if refused is None:
                raise
            break
        try:
            return await use(node)
        except (Failure, PolicyRefused) as error:
            if not is_of_one_node(error):
                raise
            refused = refused or error
        left = [other for other in left if other.id != node.id]
        if not left:
            break
    assert refused is not None  # noqa: S101 - each turn ends with one
    raise refused


async def prefer_others(
    nodes: Sequence[Executor], failed: Collection[str], use: Callable[[Sequence[Executor]], Awaitable[T]]
) -> T:
    """Use nodes that have not failed lately; all of them where none of those will do.

    Raises:
        As `use`.
    """
    others = [node for node in nodes if node.id not in failed]
    if others and len(others) < len(nodes):
        with suppress(Failure, PolicyRefused):
            return await use(others)
    return await use(nodes)


def say_failed(failed: Mapping[str, str], cheapest: Sequence[Executor], chosen: Sequence[Executor]) -> tuple[str, ...]:
    """Say which of the cheapest nodes are passed over for what happened there, or are taken all the same."""
    taken = dict.fromkeys(node.id for node in chosen)
    passed = dict.fromkeys(node.id for node in cheapest if node.id in failed and node.id not in taken)
    sentences = [f"Node {node_id} is passed over: {failed[node_id]}." for node_id in passed]
    sentences += [
        f"Node {node_id} is taken although {failed[node_id]}, since no other node that fits is free."
        for node_id in taken
        if node_id in failed
    ]
    return tuple(sentences)


async def use_node(
    account: Account, policy: Policy, filters: Filters, executor_id: str, use: Callable[[Executor], Awaitable[T]]
) -> T:
    """Use the node that is named, or else as `use_cheapest`.

    Raises:
        As `find_node`, `find_offers` and `use_cheapest`.
    """
    if executor_id:
        return await use(await find_node(account, executor_id))
    return await use_cheapest(policy, filters, (await find_offers(account, filters.gpu_type)).nodes, use)


async def price_node(
    account: Account,
    filters: Filters,
    node: Executor,
    *,
    is_named: bool,
    hours: float = 1,
    volume_gb: float = 0,
    backup_gb: float = 0,
) -> PricedRental:
    """Price a rental on a node, and hold the node against the filters at that price.

    Args:
        account: Who asks.
        filters: What the node must have.
        node: The node, as it is listed.
        is_named: The caller named the node: where no number of GPUs was said, it is the fewest that it rents.
        hours: Of the rental.
        volume_gb: Size of an attached volume.
        backup_gb: Size of stored backups.

    Raises:
        Failure: it does not meet them, or cannot be rented so; each filter is named with the node's figure.
        LiumError: it cannot be priced.
    """
    count = filters.gpu_count or (smallest_gpu_count(node) if is_named else 1)
    priced = await quote_node(account, node, hours=hours, gpu_count=count, volume_gb=volume_gb, backup_gb=backup_gb)
    unmet = list(filters.unmet(node, count, priced.price_per_hour_usd))
    if unmet:
        is_price = all(one.startswith(_CEILINGS) for one in unmet)
        raise Failure(
            "price_above_ceiling" if is_price else "filters_not_met",
            f"Node {node.id} does not meet {' and '.join(unmet)}.",
            "Choose another node with list_gpus, which takes the same filters, or relax what it does not meet.",
        )
    return priced
