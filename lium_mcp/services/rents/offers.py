"""What is on offer, and which nodes fit: how many GPUs a node rents, what it must have, which is the cheapest.

A figure that a node does not report never counts as meeting a floor, as on the API's own
`POST /executors/rent-by-spec`, whose order of preference is used here too. How many GPUs are free is no floor: where a
node does not say it, a rent that it refuses costs nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from lium_mcp.api.executors.models import Executor
from lium_mcp.api.gpu_names import gpu_names, nearest_names
from lium_mcp.api.paging import Rows
from lium_mcp.api.shared_readings import Reading
from lium_mcp.countries import Countries, plain_countries
from lium_mcp.failures import Failure
from lium_mcp.figures import counted, is_above, rate_in_usd
from lium_mcp.inputs import ShortText

Market = Reading[Rows[Executor]]

_MOST_TYPES_NAMED = 20
_SAID_NOT = "what Lium does not say"


class NothingFits(Exception):
    """No node on offer meets the request; the sentence says what is on offer instead."""


def _as_text(given: object) -> object:
    """A list of texts in one text, since hosts send either."""
    is_list = isinstance(given, list) and all(isinstance(part, str) for part in given)
    return ",".join(given) if isinstance(given, list) and is_list else given


Country = Annotated[
    ShortText,
    BeforeValidator(_as_text),
    Field(description="ISO codes, EU (the European Union), !US to exclude; comma."),
]
Tier = Annotated[Literal["secure", "spot"] | None, Field(description="spot may be lost.")]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """So many GPUs of a node, at what they cost together; None where nobody says it."""

    node: Executor
    gpu_count: int
    price_per_hour_usd: float | None


@dataclass(frozen=True, slots=True)
class _Rule:
    """Of one filter: whether a candidate meets what is given for it, and what it has instead, in words."""

    is_met: Callable[[Any, Candidate], bool]
    has: Callable[[Candidate], str]


def _ceiling(figure: Callable[[Candidate], float | None]) -> _Rule:
    def is_met(ceiling: float, candidate: Candidate) -> bool:
        has = figure(candidate)
        return has is not None and not is_above(has, ceiling)

    def say(candidate: Candidate) -> str:
        has = figure(candidate)
        return f"it costs {rate_in_usd(has, 4) if has else _SAID_NOT}"

    return _Rule(is_met, say)


def _floor(name: str) -> _Rule:
    figure = attrgetter(name)

    def say(candidate: Candidate) -> str:
        has = figure(candidate.node)
        return f"it has {_SAID_NOT if has is None else f'{has:.5g}'}"

    return _Rule(lambda floor, candidate: at_least(figure(candidate.node), floor), say)


def _flag(name: str) -> _Rule:
    has = attrgetter(name)
    return _Rule(
        lambda _, candidate: has(candidate.node) is True,
        lambda candidate: f"it has {_SAID_NOT if has(candidate.node) is None else 'none'}",
    )


def _price_per_gpu(candidate: Candidate) -> float | None:
    return candidate.price_per_hour_usd and candidate.price_per_hour_usd / candidate.gpu_count


_RULES: Final = {
    "gpu_type": _Rule(
        lambda wanted, candidate: candidate.node.is_gpu(wanted),
        lambda candidate: f"it has {candidate.node.gpu_type or 'GPUs that it does not name'}",
    ),
    "max_usd_per_gpu_hour": _ceiling(_price_per_gpu),
    "max_usd_per_hour": _ceiling(attrgetter("price_per_hour_usd")),
    "min_vram_gb": _floor("vram_gb_per_gpu"),
    "min_ram_gb": _floor("ram_gb"),
    "min_disk_gb": _floor("disk_gb"),
    "min_cuda": _floor("cuda_version"),
    "min_download_mbps": _floor("download_mbps"),
    "country": _Rule(
        lambda codes, candidate: Countries.of(codes).admits(candidate.node.country_code),
        lambda candidate: f"it is in {candidate.node.country_code or 'a country that Lium does not say'}",
    ),
    "tier": _Rule(
        lambda tier, candidate: (candidate.node.tier or "").casefold() == tier,
        lambda candidate: f"it is {candidate.node.tier or 'of one that Lium does not say'}",
    ),
    "nvlink": _flag("has_nvlink"),
    "docker_in_docker": _flag("docker_in_docker"),
}


class Filters(BaseModel):
    """What a node must have, as callers say it. A figure that a node does not report meets nothing."""

    model_config = ConfigDict(frozen=True)

    gpu_type: Annotated[ShortText, Field(description="E.g. H100.")] = ""
    gpu_count: Annotated[int | None, Field(ge=1, description="GPUs in the pod.")] = None
    max_usd_per_gpu_hour: Annotated[float | None, Field(gt=0, description="For each GPU.")] = None
    max_usd_per_hour: Annotated[float | None, Field(gt=0, description="For the whole pod.")] = None
    min_vram_gb: Annotated[float | None, Field(description="Per GPU, as sold.")] = None
    min_ram_gb: Annotated[float | None, Field(description="Of the node.")] = None
    min_disk_gb: Annotated[float | None, Field(description="Of the node.")] = None
    min_cuda: Annotated[float | None, Field(description="As 12.4.")] = None
    min_download_mbps: Annotated[float | None, Field(description="Download speed.")] = None
    country: Country = ""
    tier: Tier = None
    nvlink: Annotated[bool, Field(description="Only with it.")] = False
    docker_in_docker: Annotated[bool, Field(description="Only with it.")] = False

    @field_validator("country")
    @classmethod
    def _read_countries(cls, country: str) -> str:
        try:
            return plain_countries(country)
        except ValueError as error:
            raise Failure("invalid_argument", f"country: {error}.", "Correct it and call again.") from error

    @property
    def given(self) -> list[str]:
        """The names of the filters that say something of a node, the number of its GPUs aside."""
        return [name for name in Filters.model_fields if name != "gpu_count" and getattr(self, name)]

    @property
    def max_usd_per_gpu(self) -> float | None:
        """The lower of both ceilings on the price, per GPU and hour, where it is said how many GPUs."""
        whole = None
        if self.max_usd_per_hour is not None and self.gpu_count:
            whole = self.max_usd_per_hour / self.gpu_count
        return min((ceiling for ceiling in (self.max_usd_per_gpu_hour, whole) if ceiling is not None), default=None)

    def fit(self, node: Executor) -> bool:
        """Whether a node meets every filter, and rents the number of GPUs, now."""
        is_rentable = can_rent(node, self.gpu_count or smallest_gpu_count(node)) and has_price(node)
        return is_rentable and bool(self.met_by([listed_candidate(node, self.gpu_count)]))

    def met_by(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """The candidates that meet every filter, in their order."""
        # A pass for each that is given: a market has hundreds of nodes, and most calls give few filters.
        for _, rule, given in self._rules():
            candidates = [candidate for candidate in candidates if rule.is_met(given, candidate)]
        return candidates

    def unmet(self, node: Executor, gpu_count: int, price_per_hour_usd: float | None = None) -> Iterator[str]:
        """Name each filter that a node does not meet with so many GPUs, and the node's own figure.

        Args:
            node: The node.
            gpu_count: GPUs of the rental.
            price_per_hour_usd: What they cost; None for the price of its listing.
        """
        price = price_per_hour_usd
        if price is None:
            price = (node.price_per_gpu or 0) * gpu_count if has_price(node) else None
        candidate = Candidate(node, gpu_count, price)
        for name, rule, given in self._rules():
            if not rule.is_met(given, candidate):
                text = given if isinstance(given, str) else f"{given:g}"
                yield f"{name if given is True else f'{name}={text}'} ({rule.has(candidate)})"

    def _rules(self) -> Iterator[tuple[str, _Rule, Any]]:
        """The rules of the filters that are given, and what is given for each."""
        values = ((name, rule, getattr(self, name)) for name, rule in _RULES.items())
        return (found for found in values if found[2] is not None and found[2] is not False and found[2] != "")


def unmatched(gpu_type: str, nodes: Sequence[Executor]) -> str | None:
    """Say which of the named GPUs none of the nodes found has; None where each is found."""
    absent = [part for part in gpu_names(gpu_type) if not any(node.is_gpu(part) for node in nodes)]
    return f"Nothing that was found is called {', '.join(absent)[:200]}." if absent else None


def say_left_out(market: Market, wanted: Filters) -> str | None:
    """Say which nodes could be on offer and are not shown, and why; None where there are none."""
    unpriced = market.once(("unpriced", wanted.gpu_count), lambda nodes: _unpriced_candidates(nodes, wanted.gpu_count))
    said = []
    # At a price of nothing no ceiling is in the way.
    if fitting := wanted.met_by(unpriced):
        said.append(
            f"{counted(len(fitting), 'more node')} would do, but Lium says no price that can be billed: left out."
        )
    if market.value.skipped:
        said.append(f"{counted(market.value.skipped, 'node')} of the market could not be read.")
    if market.value.truncated:
        said.append("The market has more nodes than were read.")
    return " ".join(said) or None


def say_what_is_on_offer(nodes: Sequence[Executor], gpu_type: str) -> str:
    """Say why nothing was found on the market: another filter, or no such type."""
    if any(node.is_gpu(gpu_type) for node in nodes):
        return "This type is on offer, and no node of it fits the other filters: leave some out."
    return f"No gpu_type on offer matches; {types_on_offer(nodes, gpu_type)}."


def types_on_offer(nodes: Iterable[Executor], gpu_type: str) -> str:
    """Say which types are on offer, those nearest to the words first."""
    types = nearest_names(gpu_type, (node.gpu_type for node in nodes if node.gpu_type))
    if not types:
        return "nothing is on offer now"
    return f"on offer are: {', '.join(types[:_MOST_TYPES_NAMED])}{', ...' if len(types) > _MOST_TYPES_NAMED else ''}"


def smallest_gpu_count(node: Executor) -> int:
    """The fewest GPUs that a node rents; 1 where it does not say, since a refusal costs nothing."""
    return node.smallest_rentable_gpu_count or 1


def surely_rentable_count(node: Executor) -> int:
    """The fewest GPUs that a node surely rents: all that are free, where it does not say how it splits them."""
    return node.smallest_rentable_gpu_count or node.available_gpu_count or node.total_gpu_count or 1


def can_rent(node: Executor, gpu_count: int) -> bool:
    """Whether a node would rent this many GPUs now, as far as its listing says."""
    smallest, free = smallest_gpu_count(node), node.available_gpu_count
    # Of a node that says neither what it has nor what is free, its smallest part is all that can be hoped for.
    most = (node.total_gpu_count or smallest) if free is None else free
    return smallest <= gpu_count <= most


def listed_candidate(node: Executor, gpu_count: int | None) -> Candidate:
    """So many GPUs of a node, or the fewest that it surely rents, at the price of its listing; where it has none, 0."""
    count = gpu_count or surely_rentable_count(node)
    return Candidate(node, count, (node.price_per_gpu or 0) * count)


def _unpriced_candidates(nodes: Iterable[Executor], gpu_count: int | None) -> list[Candidate]:
    return [
        listed_candidate(node, gpu_count)
        for node in nodes
        if not has_price(node) and can_rent(node, gpu_count or smallest_gpu_count(node))
    ]


def sure_candidates(nodes: Iterable[Executor], gpu_count: int | None) -> list[Candidate]:
    """Those of so many GPUs, or of the fewest of each node, that the nodes are sure to rent now, at a price.

    A node that does not say how it splits may rent only whole.
    """
    return [
        listed_candidate(node, gpu_count)
        for node in nodes
        if has_price(node)
        and can_rent(node, gpu_count or smallest_gpu_count(node))
        and (gpu_count in (None, node.total_gpu_count) or node.smallest_rentable_gpu_count is not None)
    ]


def describe_counts(node: Executor) -> str:
    """Say which counts a node rents."""
    smallest, free = smallest_gpu_count(node), node.available_gpu_count
    if free is None:
        has = "does not say how many it has" if node.total_gpu_count is None else f"has {node.total_gpu_count}"
        return f"it {has}, rents no fewer than {smallest}, and does not say how many are free"
    if smallest > free:
        return f"it has {free} free and rents no fewer than {smallest}"
    return f"it rents only {free} at once" if smallest == free else f"it rents {smallest} to {free}"


def rentable_counts(node: Executor) -> str | None:
    """Which counts a node rents now, as 1-8 or 8; None where it does not say how many are free."""
    smallest, free = smallest_gpu_count(node), node.available_gpu_count
    if free is None or node.smallest_rentable_gpu_count is None:
        return None
    return str(free) if smallest >= free else f"{smallest}-{free}"


def price_order(node: Executor, gpu_count: int = 1) -> tuple[float, float, float, str]:
    """Sort key: cheapest for so many GPUs first; among equals the faster, then the more reliable, then by id."""
    price = node.price_per_gpu if node.price_per_gpu is not None and has_price(node) else float("inf")
    return (price * gpu_count, -(node.download_mbps or 0), -(node.reliability_score or 0), node.id)


def at_least(figure: float | None, floor: float | None) -> bool:
    """Whether a figure meets a floor; one that is not reported meets none but 0."""
    return not floor or (figure is not None and figure >= floor)


def has_price(node: Executor) -> bool:
    """Whether a node says a price that can be billed; 0 is none."""
    return node.price_per_gpu is not None and node.price_per_gpu > 0


def cheapest_fitting(
    nodes: Sequence[Executor], filters: Filters, admits: Callable[[Executor], bool] = lambda _: True
) -> Executor:
    """The node that rent-by-spec would pick among nodes of the wanted GPU type.

    Raises:
        NothingFits: no node fits.
    """
    fitting = [
        candidate.node for candidate in filters.met_by(sure_candidates(filter(admits, nodes), filters.gpu_count))
    ]
    if not fitting:
        cheapest = min(filter(has_price, filter(admits, nodes)), key=price_order, default=None)
        on_offer = f"no {filters.gpu_type or 'node'} is for rent now"
        if cheapest:
            price = f"{rate_in_usd(cheapest.price_per_gpu or 0)} per GPU-hour"
            on_offer = f"the cheapest {cheapest.gpu_type or 'node'} costs {price}, and {describe_counts(cheapest)}"
            if unmet := list(filters.unmet(cheapest, filters.gpu_count or smallest_gpu_count(cheapest))):
                on_offer += f"; it does not meet {' and '.join(unmet)}"
        raise NothingFits(f"No node meets all of it: {on_offer}")
    return min(fitting, key=price_order)
