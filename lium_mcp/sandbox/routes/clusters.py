"""The routes of clusters: fabrics on offer, renting several whole nodes of one, removing them together."""

from decimal import Decimal
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox import idempotency, lifecycle
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import ClusterRentBody
from lium_mcp.sandbox.market import Node
from lium_mcp.sandbox.node_rows import listing_row
from lium_mcp.sandbox.refusals import refuse
from lium_mcp.sandbox.routes.rents import RentTerms, require_means, start

CLUSTER_IMAGE: Final = "daturaai/lium-cluster"


async def rent_cluster(call: ApiCall) -> Reply:
    """Rent several whole nodes of one fabric, all or nothing."""
    world, body = call.world, call.parse(ClusterRentBody)
    nodes = [world.market.nodes.get(str(node_id)) for node_id in body.executor_uuids]
    known = [node for node in nodes if node is not None]
    require_means(call, sum((world.market.price(node, world.now) * node.gpu_count for node in known), Decimal(0)))

    def work() -> Reply:
        template = call.template(str(body.template_id))
        if len(known) != len(nodes):
            raise refuse(404, "node_not_found", "A node was not found.")
        if template is None:
            raise refuse(404, "template_not_found", "Template not found.")
        if not str(template.body["docker_image"]).startswith(CLUSTER_IMAGE):
            raise refuse(400, "template_invalid", f"A cluster needs a template of {CLUSTER_IMAGE}.")
        if (problem := _cluster_problem(call, known)) is not None:
            return Reply({"success": False, "pod_ids": [], "message": problem})
        terms = RentTerms(
            name=body.pod_name,
            template=template,
            public_keys=body.user_public_key,
            extra_ports=body.initial_port_count or 0,
            encryption=body.enable_volume_encryption,
        )
        cluster_id = world.new_id("cluster")
        pods = [start(call, node, node.gpu_count, terms, cluster=(cluster_id, rank)) for rank, node in enumerate(known)]
        return Reply({"success": True, "pod_ids": [pod.id for pod in pods], "message": None})

    return await idempotency.once(call, work)


def list_cluster_offers(call: ApiCall) -> Reply:
    """List the fabrics that have two free members or more."""
    world = call.world
    offers: list[JsonValue] = []
    for fabric in sorted({node.fabric_id for node in world.market.nodes.values() if node.fabric_id is not None}):
        members = [node for node in world.market.nodes.values() if node.fabric_id == fabric]
        free = [node for node in members if world.market.free_gpus(node, world.now) == node.gpu_count]
        kind = fabric.split(":")[1]
        if len(free) > 1:
            offers.append(
                {
                    "fabric_id": fabric,
                    "fabric_type": kind,
                    "link_rate": "400 Gb/sec (4X NDR)" if kind == "infiniband" else "200 Gb/sec (4X HDR)",
                    "fabric_measured": True,
                    "node_count": len(members),
                    "nodes": [listing_row(world.market, node, world.now, full=False) for node in free],
                }
            )
    return Reply(offers)


def delete_cluster(call: ApiCall) -> Reply:
    """Remove every member; a member that still boots, or may not be touched, stops it all."""
    world, cluster_id = call.world, call.uuid("cluster_id")
    members = [
        pod for pod in world.pods.values() if pod.cluster_id == cluster_id and pod.removed_at is None and call.sees(pod)
    ]
    if not members:
        raise refuse(404, "not_found", "Cluster not found")
    for pod in members:
        call.require_write(pod)
    if pending := [pod.id for pod in members if pod.status == "PENDING"]:
        message = "A member is still being created"
        detail: JsonValue = {"message": message, "cluster_id": cluster_id, "pending_pods": list[JsonValue](pending)}
        raise refuse(409, "conflict", message, detail=detail)
    rows: list[JsonValue] = []
    failures = 0
    for pod in sorted(members, key=lambda pod: pod.cluster_index or 0):
        message = "deletion already in progress"
        failed = pod.status != "DELETING" and world.faults.strike("delete_fails", pod_id=pod.id) is not None
        if failed:
            failures += 1
            message = "deletion failed, call again"
        elif pod.status != "DELETING":
            lifecycle.delete(world, pod, reason="user_initiated", actor=call.actor)
            message = "deletion started"
        rows.append(
            {
                "pod_id": pod.id,
                "pod_name": pod.name,
                "cluster_node_index": pod.cluster_index,
                "success": not failed,
                "message": message,
            }
        )
    message = f"{failures} of {len(rows)} members failed" if failures else "Deletion started for every member"
    return Reply({"cluster_id": cluster_id, "success": not failures, "message": message, "pods": rows})


def _cluster_problem(call: ApiCall, nodes: list[Node]) -> str | None:
    if len({node.id for node in nodes}) != len(nodes):
        return "A node is named twice"
    if nodes[0].fabric_id is None or len({node.fabric_id for node in nodes}) != 1:
        return "Nodes are on different fabrics"
    busy = [node for node in nodes if call.world.market.free_gpus(node, call.world.now) != node.gpu_count]
    if busy or any(call.world.faults.strike("node_taken", executor_id=node.id) for node in nodes):
        return "A node is not available"
    return None


OPERATIONS = (
    Operation("rentCluster", "POST", "/executors/cluster/rent", Access.RENT, rent_cluster, audit="cluster.rent"),
    Operation("listClusterOffers", "GET", "/executors/infiniband-clusters", Access.READ, list_cluster_offers),
    Operation("deleteCluster", "DELETE", "/clusters/{cluster_id}", Access.POD, delete_cluster, audit="cluster.delete"),
)
