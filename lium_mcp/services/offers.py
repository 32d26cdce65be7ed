"""What is on offer, and which nodes fit: how many GPUs a node rents, what it must have, which is the cheapest.

A figure that a node does not report never counts as meeting a floor, as on the API's own
`POST /executors/rent-by-spec`, whose order of preference is used here too. How many GPUs are free is no floor: where a
node does not say it, a rent that it refuses costs nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Annotated

import anyio
from pydantic import BaseModel, ConfigDict, Field

from lium_mcp.api.errors import LiumError
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_names, nearest_names
from lium_mcp.figures import rate_in_usd
from lium_mcp.inputs import ShortText
from lium_mcp.services.accounts import Account

_MOST_TYPES_NAMED = 20
_HINT_SECONDS = 5.0


class NothingFits(Exception):
    """No node on offer meets the request; the sentence says what is on offer instead."""


class Floors(BaseModel):
    """What a node must have, as callers say it. A figure that a node does not report does not meet a floor."""

    model_config = ConfigDict(frozen=True)

    gpu_type: Annotated[ShortText, Field(description="E.g. H100.")] = ""
    gpu_count: Annotated[int | None, Field(ge=1, description="Per node.")] = None
    max_usd_per_gpu_hour: Annotated[float | None, Field(gt=0, description="Ceiling.")] = None
    min_vram_gb: Annotated[float | None, Field(description="As sold.")] = None
    min_ram_gb: Annotated[float | None, Field(description="10^9 B.")] = None
    min_disk_gb: Annotated[float | None, Field(description="10^9 B.")] = None
    country: Annotated[ShortText, Field(description="ISO code.")] = ""
    docker_in_docker: Annotated[bool, Field(description="Required.")] = False

    def fit(self, node: Executor) -> bool:
        """Whether a node of the GPU type meets every floor, and rents the number of GPUs, now."""
        ceiling, price = self.max_usd_per_gpu_hour, node.price_per_gpu
        location = node.location
        named = {text.casefold() for text in (node.country_code, location and location.country) if text}
        return (
            can_rent(node, self.gpu_count or smallest_gpu_count(node))
            and price is not None
            and has_price(node)
            and (ceiling is None or price <= ceiling)
            and at_least(node.vram_gb_per_gpu, self.min_vram_gb)
            and at_least(node.ram_gb, self.min_ram_gb)
            and at_least(node.disk_gb, self.min_disk_gb)
            and (not self.country or self.country.casefold() in named)
            and (not self.docker_in_docker or node.docker_in_docker is True)
        )


def unmatched(gpu_type: str, nodes: Sequence[Executor]) -> str | None:
    """Say which of the named GPUs none of the nodes found has; None where each is found."""
    absent = [part for part in gpu_names(gpu_type) if not any(node.is_gpu(part) for node in nodes)]
    return f"Nothing that was found is called {', '.join(absent)[:200]}." if absent else None


async def say_what_is_on_offer(account: Account, gpu_type: str) -> str | None:
    """Say why nothing was found, as far as the market can be read again: another filter, or no such type."""
    with suppress(LiumError), anyio.move_on_after(_HINT_SECONDS):
        nodes = await account.lium.executors.list()
        if any(node.is_gpu(gpu_type) for node in nodes):
            return "This type is on offer, and no node of it fits the other filters: leave some out."
        return f"No gpu_type on offer matches; {types_on_offer(nodes, gpu_type)}."
    return None


def types_on_offer(nodes: Iterable[Executor], gpu_type: str) -> str:
    """Say which types are on offer, those nearest to the words first."""
    types = nearest_names(gpu_type, (node.gpu_type for node in nodes if node.gpu_type))
    if not types:
        return "nothing is on offer now"
    return f"on offer are: {', '.join(types[:_MOST_TYPES_NAMED])}{', ...' if len(types) > _MOST_TYPES_NAMED else ''}"


def smallest_gpu_count(node: Executor) -> int:
    """The fewest GPUs that a node rents; 1 where it does not say, since a refusal costs nothing."""
    return node.smallest_rentable_gpu_count or 1


def can_rent(node: Executor, gpu_count: int) -> bool:
    """Whether a node would rent this many GPUs now, as far as its listing says."""
    smallest, free = smallest_gpu_count(node), node.available_gpu_count
    # Of a node that says neither what it has nor what is free, its smallest part is all that can be hoped for.
    most = (node.total_gpu_count or smallest) if free is None else free
    return smallest <= gpu_count <= most


def describe_counts(node: Executor) -> str:
    """Say which counts a node rents."""
    smallest, free = smallest_gpu_count(node), node.available_gpu_count
    if free is None:
        has = "does not say how many it has" if node.total_gpu_count is None else f"has {node.total_gpu_count}"
        return f"it {has}, rents no fewer than {smallest}, and does not say how many are free"
    if smallest > free:
        return f"it has {free} free and rents no fewer than {smallest}"
    return f"it rents only {free} at once" if smallest == free else f"it rents {smallest} to {free}"


def price_order(node: Executor) -> tuple[float, float, float, str]:
    """Sort key: cheapest first; among equals the faster, then the more reliable, then by id."""
    price = node.price_per_gpu if node.price_per_gpu is not None and has_price(node) else float("inf")
    return (price, -(node.download_mbps or 0), -(node.reliability_score or 0), node.id)


def at_least(figure: float | None, floor: float | None) -> bool:
    """Whether a figure meets a floor; one that is not reported meets none but 0."""
    return not floor or (figure is not None and figure >= floor)


def has_price(node: Executor) -> bool:
    """Whether a node says a price that can be billed; 0 is none."""
    return node.price_per_gpu is not None and node.price_per_gpu > 0


def cheapest_fitting(
    nodes: Sequence[Executor], floors: Floors, admits: Callable[[Executor], bool] = lambda _: True
) -> Executor:
    """The node that rent-by-spec would pick among nodes of the wanted GPU type.

    Raises:
        NothingFits: no node fits.
    """
    fitting = [node for node in nodes if admits(node) and floors.fit(node) and _splits(node, floors.gpu_count)]
    if not fitting:
        cheapest = min(filter(has_price, filter(admits, nodes)), key=price_order, default=None)
        on_offer = f"no {floors.gpu_type} is for rent now"
        if cheapest:
            price = f"{rate_in_usd(cheapest.price_per_gpu or 0)} per GPU-hour"
            on_offer = f"the cheapest {cheapest.gpu_type} costs {price}, and {describe_counts(cheapest)}"
        raise NothingFits(f"No node meets all of it: {on_offer}")
    return min(fitting, key=price_order)


def _splits(node: Executor, gpu_count: int | None) -> bool:
    """Whether a node is sure to rent so many of its GPUs: one that does not say how it splits may rent only whole."""
    return node.smallest_rentable_gpu_count is not None or gpu_count == node.total_gpu_count
