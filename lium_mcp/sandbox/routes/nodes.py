"""The marketplace routes: version, nodes, quotes, recommended images, GPU types."""

from collections import defaultdict
from decimal import Decimal

from pydantic import JsonValue

from lium_mcp.sandbox import lifecycle, money
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import EstimateQuery, ListingQuery, MachineRequestBody, QuoteQuery
from lium_mcp.sandbox.market import Node, distance_miles
from lium_mcp.sandbox.node_rows import listing_row, public_row
from lium_mcp.sandbox.refusals import invalid, missing
from lium_mcp.sandbox.seeded import fraction
from lium_mcp.sandbox.simulated_clock import iso_zulu


def get_version(call: ApiCall) -> Reply:
    """Say since when the server runs and which optional features it has."""
    world = call.world
    body: dict[str, JsonValue] = {
        "started_at": iso_zulu(world.clock.start),
        "uptime_seconds": int((world.now - world.clock.start).total_seconds()),
    }
    if not world.faults.is_armed("old_server"):
        body["features"] = list[JsonValue](sorted(world.features))
    return Reply(body)


def list_executors(call: ApiCall) -> Reply:
    """List the nodes that can be rented now."""
    world, query = call.world, call.arguments(ListingQuery)
    nodes = [node for node in world.market.listed(world.now) if _wanted(call, node, query)]
    if query.page is not None and query.size is not None:
        nodes = nodes[(query.page - 1) * query.size : query.page * query.size]
    return Reply([listing_row(world.market, node, world.now, full=query.view == "full") for node in nodes])


def _wanted(call: ApiCall, node: Node, query: ListingQuery) -> bool:
    gaps = node.gaps
    if query.machine_names is not None and node.gpu.name not in query.machine_names.split(","):
        return False
    if not (query.gpu_count_gte or 1) <= node.gpu_count <= (query.gpu_count_lte or node.gpu_count):
        return False
    if query.price_per_hour_gte is not None or query.price_per_hour_lte is not None:
        host_price = float(call.world.market.price(node, call.world.now)) * node.gpu_count
        if not (query.price_per_hour_gte or 0) <= host_price <= (query.price_per_hour_lte or host_price):
            return False
    if query.lat is not None and query.lon is not None and query.max_distance_mile is not None:
        far = "location" in gaps or distance_miles(node, query.lat, query.lon) > query.max_distance_mile
        if far:
            return False
    if query.nvlink and ("interconnect" in gaps or node.gpu.nvlink_links is None or node.gpu_count == 1):
        return False
    if query.min_download_mbps is not None and ("network" in gaps or node.download_mbps < query.min_download_mbps):
        return False
    return not (query.reliable_only and node.frequent_failures)


def count_executors(call: ApiCall) -> Reply:
    """Count the nodes that can be rented now."""
    return Reply({"count": len(call.world.market.listed(call.world.now))})


def total_executor_count(call: ApiCall) -> Reply:
    """Count all nodes, rented ones too."""
    return Reply({"total_count": len(call.world.market.nodes)})


def list_public_nodes(call: ApiCall) -> Reply:
    """List the rentable nodes for everybody."""
    world = call.world
    return Reply({"nodes": [public_row(world.market, node, world.now) for node in world.market.listed(world.now)]})


def quote_executor(call: ApiCall) -> Reply:
    """Price a rental line by line; nothing is reserved."""
    world = call.world
    node, query = world.market.nodes.get(call.uuid("executor_id")), call.arguments(QuoteQuery)
    if node is None:
        raise missing("Executor")
    free = world.market.free_gpus(node, world.now)
    count = query.gpu_count or free or node.gpu_count
    if count > node.gpu_count:
        raise invalid(("gpu_count", f"the node has {node.gpu_count} GPUs"))
    per_gpu = world.market.price(node, world.now)
    price = per_gpu * count
    priced = [
        ("compute", "GPU-hour", per_gpu, query.hours * count, f"{count} GPU"),
        ("volume", "GB-hour", money.VOLUME_USD_PER_GB_HOUR, query.hours * query.volume_gb, "S3 volume"),
        ("backup", "GB-hour", money.BACKUP_USD_PER_GB_HOUR, query.hours * query.backup_gb, "stored backups"),
    ]
    lines: list[JsonValue] = [
        {
            "item": item,
            "unit": unit,
            "rate_usd": float(rate),
            "quantity": float(quantity),
            "amount_usd": float(_micro(rate * quantity)),
            "note": note,
        }
        for item, unit, rate, quantity, note in priced
    ]
    egress = {"item": "egress", "unit": "GB", "rate_usd": None, "quantity": 0, "amount_usd": None}
    lines.append({**egress, "note": "charged at provider cost"})
    required = None if call.account is None else float(money.required_balance(world, call.account, price))
    return Reply(
        {
            "executor_id": node.id,
            "gpu_count": count,
            "hours": float(query.hours),
            "price_per_hour": float(price),
            "lines": lines,
            "total_usd": float(_micro(sum((rate * quantity for _, _, rate, quantity, _ in priced), Decimal(0)))),
            "pod_balance_floor_usd": float(money.floor_usd(price)),
            "allocation": None,
            "rent_balance_required_usd": required,
        }
    )


def _micro(amount: Decimal) -> Decimal:
    return amount.quantize(money.MICRO_USD)


def get_default_images(call: ApiCall) -> Reply:
    """Recommend images for a GPU and its driver, best first."""
    pairs = recommended_images(call.query.get("driver_version", ""))
    return Reply([{"docker_image": image, "docker_image_tag": tag} for image, tag in pairs])


def recommended_images(driver: str) -> list[tuple[str, str]]:
    """Return image and tag pairs; a driver too old for CUDA 12.8 gets 12.4, an unknown one gets both."""
    newest = ("daturaai/pytorch", "2.8.0-py3.12-cuda12.8.0-devel-ubuntu22.04")
    older = ("daturaai/pytorch", "2.6.0-py3.11-cuda12.4.1-devel-ubuntu22.04")
    major = driver.partition(".")[0]
    if major.isdigit() and int(major) < 570:  # noqa: PLR2004 - the first driver with CUDA 12.8
        return [older]
    return [newest, older]


def get_deployment_estimate(call: ApiCall) -> Reply:
    """Estimate how long a template takes to start on a node."""
    query = call.arguments(EstimateQuery)
    node = call.world.market.nodes.get(str(query.executor_id))
    template = call.template(str(query.template_id))
    if node is None:
        raise missing("Executor")
    if template is None:
        raise missing("Template")
    seconds = lifecycle.boot_seconds(call.world, node.id, template)
    cached = fraction("cached", node.id, template.image) < 0.7  # noqa: PLR2004 - share of warm caches
    slow = seconds > 30  # noqa: PLR2004 - seconds
    return Reply(
        {
            "estimated_seconds": round(seconds),
            "is_slow_machine": slow,
            "warning_message": "This node is slow to start containers." if slow else None,
            "is_cached_template": cached,
            "docker_image_size": template.size_bytes,
        }
    )


def list_machines(call: ApiCall) -> Reply:
    """List the GPU types, with their usual price and how much of each is rented."""
    world = call.world
    rows: list[JsonValue] = []
    nodes_of: defaultdict[str, list[Node]] = defaultdict(list)
    for node in world.market.nodes.values():
        nodes_of[node.gpu.name].append(node)
    for gpu in world.market.gpu_types:
        nodes = nodes_of[gpu.name]
        total = sum(node.gpu_count for node in nodes)
        free = sum(world.market.free_gpus(node, world.now) for node in nodes)
        rows.append(
            {
                "name": gpu.name,
                "price": gpu.price_usd,
                "rental_rate": round(1 - free / total, 2),
                "total_gpu_count": total,
            }
        )
    return Reply(rows)


def request_machine(call: ApiCall) -> Reply:
    """Pass on a wish to the providers of a GPU type."""
    body = call.parse(MachineRequestBody)
    if all(gpu.name != body.machine_name for gpu in call.world.market.gpu_types):
        raise invalid(("machine_name", "is not a known machine"))
    providers = sum(node.gpu.name == body.machine_name for node in call.world.market.nodes.values())
    return Reply({"provider_notified_count": providers, "confirmation": "recorded"})


OPERATIONS = (
    Operation("getVersion", "GET", "/version", Access.PUBLIC, get_version),
    Operation("listExecutors", "GET", "/executors", Access.PUBLIC, list_executors),
    Operation("countExecutors", "GET", "/executors/count", Access.PUBLIC, count_executors),
    Operation("totalExecutorCount", "GET", "/executors/total-count", Access.PUBLIC, total_executor_count),
    Operation("getDefaultDockerImages", "GET", "/executors/default-docker-image", Access.READ, get_default_images),
    Operation("getDeploymentEstimate", "GET", "/executors/deployment-estimate", Access.READ, get_deployment_estimate),
    Operation("quoteExecutor", "GET", "/executors/{executor_id}/quote", Access.PUBLIC, quote_executor),
    Operation("listPublicNodes", "GET", "/public/v1/nodes", Access.PUBLIC, list_public_nodes),
    Operation("listMachines", "GET", "/machines", Access.PUBLIC, list_machines),
    Operation(
        "requestMachine", "POST", "/machine-requests", Access.RENT, request_machine, audit="machine_request.create"
    ),
)
