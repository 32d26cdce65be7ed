"""Choosing what to rent: how many GPUs a node rents, the cheapest node that fits, the image it should run.

A figure that a node does not report never counts as meeting a floor, as on the API's own
`POST /executors/rent-by-spec`, whose order of preference is used here too. How many GPUs are free is no floor: where a
node does not say it, a rent that it refuses costs nothing.
"""

from collections.abc import Callable, Sequence

from lium_mcp.api import Executor, LiumClient, RentBySpecRequest, Template
from lium_mcp.figures import in_usd

_PLATFORM_VERIFIED = "VERIFY_SUCCESS"


class NothingFits(Exception):
    """No node on offer meets the request; the sentence says what is on offer instead."""


class NoDefaultTemplate(Exception):
    """The API recommends no image for a node that a template of the platform runs."""


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


def cheapest_matching(
    nodes: Sequence[Executor], spec: RentBySpecRequest, admits: Callable[[Executor], bool] = lambda _: True
) -> Executor:
    """The node that rent-by-spec would pick among nodes of the wanted GPU type.

    Raises:
        NothingFits: no node meets the spec.
    """
    fitting = [node for node in nodes if admits(node) and meets(node, spec)]
    if not fitting:
        cheapest = min(filter(has_price, filter(admits, nodes)), key=price_order, default=None)
        on_offer = f"no {spec.gpu_type} is for rent now"
        if cheapest:
            price = f"{in_usd(cheapest.price_per_gpu or 0)} per GPU-hour"
            on_offer = f"the cheapest {cheapest.gpu_type} costs {price}, and {describe_counts(cheapest)}"
        raise NothingFits(f"No node meets all of it: {on_offer}")
    return min(fitting, key=price_order)


async def default_template(lium: LiumClient, node: Executor) -> Template:
    """The platform's own template for a node's GPU and driver (`GET /executors/default-docker-image`).

    Public templates are named by whoever publishes them, and one with the recommended image may run other commands at
    start: only templates that the platform itself verified are taken.

    Raises:
        NoDefaultTemplate: none fits; the caller has to name a template.
        LiumError: the API could not be read.
    """
    driver = node.specs.gpu.driver if node.specs and node.specs.gpu else None
    images = await lium.executors.default_images(gpu_model=node.machine_name, driver_version=driver)
    # The platform verifies private templates too: those are somebody's own work, whatever image they start.
    verified = [
        template
        for template in await lium.templates.list()
        if template.status == _PLATFORM_VERIFIED and template.is_private is not True
    ]
    for image in images:
        for template in verified:
            if (template.docker_image, template.docker_image_tag) == (image.docker_image, image.docker_image_tag):
                return template
    raise NoDefaultTemplate


def meets(node: Executor, spec: RentBySpecRequest) -> bool:
    """Whether a node meets everything of a spec but its GPU type, in our units."""
    ceiling = spec.max_price_per_gpu_hour
    price = node.price_per_gpu
    # A node that does not say how it splits may rent only whole: it counts for nothing less.
    splits = node.smallest_rentable_gpu_count is not None or spec.gpu_count == node.total_gpu_count
    return (
        splits
        and can_rent(node, spec.gpu_count)
        and price is not None
        and has_price(node)
        and (ceiling is None or price <= ceiling)
        and at_least(node.vram_gb_per_gpu, spec.min_vram_gb)
        and at_least(node.cpu_count, spec.min_cpus)
        and at_least(node.ram_gb, spec.min_ram_gb)
        and at_least(node.disk_gb, spec.min_disk_gb)
        and at_least(node.port_count, spec.min_ports)
        and at_least(node.download_mbps, spec.min_download_mbps)
        and (not spec.country or (node.country_code or "").casefold() == spec.country.casefold())
        and (not spec.docker_in_docker or node.docker_in_docker is True)
    )
