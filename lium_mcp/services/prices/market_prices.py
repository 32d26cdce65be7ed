"""What each GPU type on offer costs: one price for each GPU that can be rented now."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from lium_mcp.api.executors.models import Executor
from lium_mcp.services.prices.price_samples import Sample
from lium_mcp.services.rents.offers import can_rent, has_price, smallest_gpu_count

MOST_GPUS_OF_A_NODE: Final = 64
# Bounds of a sample that no honest market meets, so that no other one fills the disk.
_MOST_TYPES: Final = 100
_MOST_NAME_CHARACTERS: Final = 100


def offered_by_type(market: Iterable[Executor], gpu_type: str = "") -> dict[str, list[Executor]]:
    """The nodes that say a price and can be rented now, by the name of their GPUs; those without a name under ""."""
    nodes: dict[str, list[Executor]] = defaultdict(list)
    for node in market:
        if (not gpu_type or node.is_gpu(gpu_type)) and has_price(node) and can_rent(node, smallest_gpu_count(node)):
            nodes[node.gpu_type or ""].append(node)
    return nodes


def price_of_each_gpu(nodes: Iterable[Executor]) -> list[float]:
    """USD per hour, once for each free GPU; a node that does not say how many counts for the fewest that it rents."""
    return [
        node.price_per_gpu or 0
        for node in nodes
        for _ in range(min(node.available_gpu_count or smallest_gpu_count(node), MOST_GPUS_OF_A_NODE))
    ]


def sample_market(market: Sequence[Executor]) -> list[Sample]:
    """What is remembered of a reading: of each GPU type on offer that has a name, those with the most GPUs first."""
    samples = [
        Sample(name, lowest_usd=min(prices), median_usd=median(prices), gpus=len(prices), nodes=len(nodes))
        for name, nodes in offered_by_type(market).items()
        if 0 < len(name) <= _MOST_NAME_CHARACTERS and name.isprintable() and (prices := price_of_each_gpu(nodes))
    ]
    return sorted(samples, key=lambda sample: -sample.gpus)[:_MOST_TYPES]
