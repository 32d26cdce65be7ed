"""What is on offer, and which nodes fit."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import anyio

from lium_mcp.api import Executor, LiumError, gpu_names, nearest_names
from lium_mcp.rentals.selection import at_least, can_rent, has_price, smallest_gpu_count
from lium_mcp.services.accounts import Account

_MOST_TYPES_NAMED = 20


_HINT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Floors:
    """What a node must have. A figure that a node does not report does not meet a floor."""

    gpu_count: int | None
    max_usd_per_gpu_hour: float | None
    min_vram_gb: float | None
    min_ram_gb: float | None
    min_disk_gb: float | None
    min_cuda: float | None
    country: str
    tier: str | None
    docker_in_docker: bool

    def admit(self, node: Executor) -> bool:
        """Whether a node meets every floor."""
        ceiling = self.max_usd_per_gpu_hour
        location = node.location
        named = {text.casefold() for text in (node.country_code, location and location.country) if text}
        return (
            can_rent(node, self.gpu_count or smallest_gpu_count(node))
            and has_price(node)
            and (ceiling is None or (node.price_per_gpu is not None and node.price_per_gpu <= ceiling))
            and at_least(node.vram_gb_per_gpu, self.min_vram_gb)
            and at_least(node.ram_gb, self.min_ram_gb)
            and at_least(node.disk_gb, self.min_disk_gb)
            and at_least(node.cuda_version, self.min_cuda)
            and (not self.country or self.country.strip().casefold() in named)
            and (self.tier is None or (node.tier or "").casefold() == self.tier)
            and (not self.docker_in_docker or node.docker_in_docker is True)
        )


def unmatched(gpu_type: str, nodes: Sequence[Executor]) -> str | None:
    """What of a list of names none of the nodes found is called; None where all are found."""
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
