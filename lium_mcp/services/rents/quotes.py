"""What a rental costs on one node."""

from collections.abc import Sequence
from dataclasses import dataclass

from lium_mcp.api.errors import NotFound, RouteMissing
from lium_mcp.api.executors.models import Executor, Quote, QuoteLine
from lium_mcp.failures import Failure
from lium_mcp.services.accounts import Account
from lium_mcp.services.rents.offers import can_rent, describe_counts, has_price


@dataclass(frozen=True, slots=True)
class PricedRental:
    """What a rental costs, whether Lium quotes it or not.

    Attributes:
        is_quoted: Lium quoted the price; else it is that of the node's listing.
        has_total: Lium quoted the total; else it is the price times the hours.
    """

    gpu_count: int
    price_per_hour_usd: float
    total_usd: float
    lines: Sequence[QuoteLine]
    balance_must_exceed_usd: float | None
    is_quoted: bool
    has_total: bool


async def find_node(account: Account, executor_id: str) -> Executor:
    """The listed node with this id.

    Raises:
        Failure: it is not for rent now.
    """
    for node in await account.lium.executors.list():
        if node.id == executor_id.strip():
            return node
    raise Failure(
        "node_not_for_rent",
        f"No node with id {executor_id.strip()[:64]} is for rent now.",
        "Call list_gpus for the executor_id of a free node.",
    )


async def quote_node(
    account: Account, node: Executor, *, hours: float, gpu_count: int, volume_gb: float = 0, backup_gb: float = 0
) -> PricedRental:
    """Price a rental on a listed node.

    Raises:
        Failure: the node does not rent that many GPUs, or says no price.
    """
    if not can_rent(node, gpu_count):
        raise Failure(
            "gpu_count_not_rentable",
            f"Node {node.id} cannot rent {gpu_count} GPUs now: {describe_counts(node)}.",
            "Choose another count or another node.",
        )
    quote: Quote | None = None
    try:
        quote = await account.lium.executors.quote(
            node.id, hours=hours, gpu_count=gpu_count, volume_gb=volume_gb, backup_gb=backup_gb
        )
    except (NotFound, RouteMissing) as error:
        if volume_gb or backup_gb:  # servers from before the quote route: only the GPUs' price can be worked out
            raise Failure(
                "not_supported",
                f"Lium quotes nothing for node {node.id}, so that only the price of its GPUs can be worked out.",
                "Leave volume_gb and backup_gb out.",
                request_id=error.request_id,
            ) from error
    quoted_price = quote.price_per_hour if quote else None
    price = quoted_price
    if price is None and has_price(node):
        price = (node.price_per_gpu or 0) * gpu_count
    if not price or price < 0:  # nothing is free: 0 is no price
        raise Failure("price_unknown", f"Lium says no price for node {node.id}.", "Choose another node.")
    total_usd = quote.total_usd if quote else None  # nor is 0 a total
    return PricedRental(
        gpu_count=gpu_count,
        price_per_hour_usd=price,
        total_usd=total_usd or price * hours,
        lines=quote.lines if quote else (),
        balance_must_exceed_usd=quote.rent_balance_required_usd if quote else None,
        is_quoted=quoted_price is not None,
        has_total=bool(total_usd),
    )
