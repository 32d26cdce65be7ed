"""The routes that spend: renting a chosen node or by specification, and the build contexts a rent may use."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox import data_transfers, idempotency, lifecycle, money
from lium_mcp.sandbox.api_calls import Access, ApiCall, Operation, Reply
from lium_mcp.sandbox.bodies import RentBody, RentBySpecBody
from lium_mcp.sandbox.market import Node, take_for_another_renter, take_off_market
from lium_mcp.sandbox.node_rows import listing_row
from lium_mcp.sandbox.records import StoredPod, StoredTemplate
from lium_mcp.sandbox.refusals import Refusal, missing, refuse
from lium_mcp.sandbox.routes.nodes import recommended_images
from lium_mcp.sandbox.specification import candidates_for

MAX_TERMINATION_HOURS: Final = 720
BUILD_CONTEXT_KEPT: Final = timedelta(hours=1)
ALTERNATIVES_SHOWN: Final = 5
NOT_READY: Final = frozenset({"VERIFY_PENDING", "VERIFY_FAILED"})


async def rent_executor(call: ApiCall) -> Reply:
    """Rent GPUs on a chosen node; without gpu_count, all that are free."""
    world, body = call.world, call.parse(RentBody)
    node = world.market.nodes.get(call.uuid("executor_id"))
    count = body.gpu_count or (world.market.free_gpus(node, world.now) if node else 0)
    price = world.market.price(node, world.now) * count if node else Decimal(0)
    require_means(call, price)

    def work() -> Reply:
        if node is None:
            raise refuse(404, "node_not_found", "Node not found.")
        if body.template_id is None and body.dockerfile_content is None:
            raise refuse(400, "template_invalid", "A template or a Dockerfile is needed.")
        terms = _terms(call, body, _template_for(call, body))
        pod = _take(call, node, body.gpu_count, terms)
        return Reply({"success": True, "pod_id": pod.id})

    return await idempotency.once(call, work)


async def rent_by_spec(call: ApiCall) -> Reply:
    """Rent on the cheapest node that satisfies the constraints, or only say which that would be."""
    world, body = call.world, call.parse(RentBySpecBody)
    count = body.gpu_count or 1
    if not body.dry_run:
        found = _candidates(call, body, count)
        price = world.market.price(found[0], world.now) * count if isinstance(found, list) else Decimal(0)
        require_means(call, price)

    def work() -> Reply:
        candidates = _candidates(call, body, count)
        if isinstance(candidates, Refusal):
            raise candidates
        template = _template_for(call, body) or _recommended_template(call, candidates[0])
        terms = _terms(call, body, template)
        if body.dry_run:
            return _spec_reply(call, candidates, count, template, attempts=0)
        for attempt, node in enumerate(candidates, start=1):
            try:
                pod = _take(call, node, count, terms)
            except Refusal as refusal:
                if refusal.status not in {400, 409} or attempt == len(candidates):
                    raise
                continue
            return _spec_reply(call, candidates, count, template, attempts=attempt, pod=pod)
        raise AssertionError

    return await idempotency.once(call, work, stores_refusals=not body.dry_run)


def _candidates(call: ApiCall, body: RentBySpecBody, count: int) -> list[Node] | Refusal:
    world = call.world
    return candidates_for(world.market, world.now, body, count, loosely=world.faults.is_armed("loose_gpu_types"))


def upload_build_context(call: ApiCall) -> Reply:
    """Keep a gzipped archive for a Dockerfile build."""
    if not call.body.startswith(b"\x1f\x8b"):
        raise refuse(400, "build_context_invalid", "The build context must be a gzipped archive.")
    digest = hashlib.sha256(call.body).hexdigest()
    call.world.contexts[digest] = call.world.now
    return Reply({"sha256": digest})


@dataclass(frozen=True)
class RentTerms:
    """What a rent asks for besides the node."""

    name: str
    template: StoredTemplate
    public_keys: list[str]
    extra_ports: int = 0
    encryption: bool = False
    volume_id: str | None = None
    termination_hours: int | None = None
    backup_id: str | None = None
    restore_path: str | None = None


def require_means(call: ApiCall, price: Decimal) -> None:
    """Check the key's budget and the account's balance, which comes before the idempotency record."""
    route = f"{call.operation.method} {call.operation.path}"
    money.require_budget(call.world, call.key, route=route, amount=money.floor_usd(price))
    money.require_balance(call.world, call.me, price)


def _template_for(call: ApiCall, body: RentBody) -> StoredTemplate | None:
    if body.dockerfile_content is not None:
        digest = body.build_context_sha256
        uploaded = None if digest is None else call.world.contexts.get(digest)
        if digest is not None and (uploaded is None or call.world.now - uploaded > BUILD_CONTEXT_KEPT):
            raise refuse(400, "build_context_not_found", "The build context is unknown or no longer kept.")
        return _built_template(call, body.dockerfile_content)
    if body.template_id is None:
        return None
    template = call.template(str(body.template_id))
    if template is None:
        raise refuse(404, "template_not_found", "Template not found.")
    if template.status in NOT_READY:
        raise refuse(400, "template_invalid", f"The template cannot be used: {template.status}.")
    return template


def _built_template(call: ApiCall, dockerfile: str) -> StoredTemplate:
    digest = hashlib.sha256(dockerfile.encode()).hexdigest()[:12]
    body: dict[str, JsonValue] = {
        "name": f"build-{digest}",
        "description": None,
        "docker_image": "lium-builds",
        "docker_image_tag": digest,
        "category": "DOCKER",
        "internal_ports": [22],
        "volumes": ["/root"],
        "environment": {},
        "is_private": True,
        "one_time_template": True,
    }
    return StoredTemplate(
        call.world.new_id("template"),
        call.me.id,
        call.world.now,
        "CREATED",
        body,
        supports_encryption=False,
        hidden=True,
    )


def _recommended_template(call: ApiCall, node: Node) -> StoredTemplate:
    image, tag = recommended_images(node.driver)[0]
    return next(
        template
        for template in call.world.templates.values()
        if template.body["docker_image"] == image and template.body["docker_image_tag"] == tag
    )


def _terms(call: ApiCall, body: RentBody, template: StoredTemplate | None) -> RentTerms:
    world = call.world
    if template is None:
        raise refuse(400, "template_invalid", "A template or a Dockerfile is needed.")
    if body.termination_hours is not None and not 1 <= body.termination_hours <= MAX_TERMINATION_HOURS:
        raise refuse(400, "ttl_invalid", f"termination_hours must be between 1 and {MAX_TERMINATION_HOURS}.")
    volume_id = None if body.volume_id is None else str(body.volume_id)
    if volume_id is not None:
        require_free_volume(call, volume_id)
    if body.enable_volume_encryption and not template.supports_encryption:
        raise refuse(400, "template_invalid", "The template does not support volume encryption.")
    if body.backup_log_id is not None and body.restore_path is not None:
        data_transfers.restorable(world, call.me.id, str(body.backup_log_id))
        data_transfers.check_path(template.local_volume, body.restore_path, what="restore_path", may_be_empty=False)
    return RentTerms(
        name=body.pod_name,
        template=template,
        public_keys=body.user_public_key,
        extra_ports=body.initial_port_count or 0,
        encryption=body.enable_volume_encryption,
        volume_id=volume_id,
        termination_hours=body.termination_hours,
        backup_id=None if body.backup_log_id is None else str(body.backup_log_id),
        restore_path=body.restore_path,
    )


def require_free_volume(call: ApiCall, volume_id: str) -> None:
    """Refuse a volume that is not the account's or is mounted elsewhere."""
    volume = call.world.volumes.get(volume_id)
    if volume is None or volume.account_id != call.me.id:
        raise missing("Volume")
    if (pod := lifecycle.attached_pod(call.world, volume_id)) is not None:
        raise refuse(400, "volume_in_use", f"The volume is attached to pod {pod.id}.")


def _take(call: ApiCall, node: Node, gpu_count: int | None, terms: RentTerms) -> StoredPod:
    """Rent the node, or refuse for a reason that lies with the node."""
    world = call.world
    if world.faults.strike("node_taken", executor_id=node.id):
        take_for_another_renter(node, world.now)
    if world.faults.strike("provider_pause", executor_id=node.id):
        take_off_market(node, world.now)
    if world.market.is_paused(node, world.now):
        raise refuse(409, "node_paused_by_provider", "The provider has paused rentals of this node.")
    free = world.market.free_gpus(node, world.now)
    if free == 0:
        raise refuse(400, "node_unavailable", "This node is not available for rent.")
    count = gpu_count or free
    if node.min_gpu_count is None and count != node.gpu_count:
        raise refuse(400, "gpu_split_not_allowed", "This node can only be rented whole.")
    if not node.smallest_split <= count <= free:
        limits = f"{node.smallest_split} to {free}"
        raise refuse(400, "gpu_count_invalid", f"This node rents {limits} GPUs now, not {count}.")
    return start(call, node, count, terms)


def start(
    call: ApiCall,
    node: Node,
    count: int,
    terms: RentTerms,
    *,
    cluster: tuple[str, int] | tuple[None, None] = (None, None),
) -> StoredPod:
    """Take GPUs that were found free, and note the rent."""
    world = call.world
    restore = None
    if terms.backup_id is not None and terms.restore_path is not None:
        restore = (world.transfers[terms.backup_id], terms.restore_path)
    world.templates.setdefault(terms.template.id, terms.template)
    links = node.gpu.nvlink_links
    order = lifecycle.PodOrder(
        account=call.me,
        key=call.key,
        node=node,
        gpu_count=count,
        price_per_hour=world.market.price(node, world.now) * count,
        name=terms.name,
        template=terms.template,
        public_keys=terms.public_keys,
        actor=call.actor,
        extra_ports=terms.extra_ports,
        encryption=terms.encryption,
        volume_id=terms.volume_id,
        termination_hours=terms.termination_hours,
        restore=restore,
        cluster_id=cluster[0],
        cluster_index=cluster[1],
        snapshot={
            "gpu_driver": node.driver,
            "cuda_driver": str(node.cuda),
            "gpu_interconnect": f"NV{links}" if links is not None and count > 1 else None,
        },
    )
    pod = lifecycle.rent(world, order)
    world.rents.append(
        {
            "pod_id": pod.id,
            "pod_name": pod.name,
            "executor_id": node.id,
            "gpu_count": count,
            "price_per_hour": float(pod.price_per_hour),
            "account_id": pod.account_id,
            "api_key_id": pod.api_key_id,
            "idempotency_key": call.headers.get("idempotency-key"),
            "request_id": call.request_id,
        }
    )
    return pod


def _spec_reply(
    call: ApiCall,
    candidates: list[Node],
    count: int,
    template: StoredTemplate,
    *,
    attempts: int,
    pod: StoredPod | None = None,
) -> Reply:
    world = call.world
    chosen = candidates[max(0, attempts - 1)]
    per_gpu = world.market.price(chosen, world.now)
    others = [node for node in candidates if node is not chosen][:ALTERNATIVES_SHOWN]
    return Reply(
        {
            "success": True,
            "dry_run": pod is None,
            "pod_id": None if pod is None else pod.id,
            "template_id": template.id,
            "price_per_hour": float(per_gpu * count),
            "selected_executor": listing_row(world.market, chosen, world.now, full=False),
            "candidates": len(candidates),
            "alternatives_considered": [_alternative(call, node, count) for node in others],
            "attempts": attempts,
        }
    )


def _alternative(call: ApiCall, node: Node, count: int) -> JsonValue:
    world = call.world
    price = world.market.price(node, world.now)
    return {
        "id": node.id,
        "machine_name": node.gpu.name,
        "gpu_count": node.gpu_count,
        "available_gpu_count": world.market.free_gpus(node, world.now),
        "price_per_gpu": float(price),
        "price_per_hour": float(price * count),
        "download_mbps": None if "network" in node.gaps else node.download_mbps,
        "country_code": None if "location" in node.gaps else node.place.code,
    }


OPERATIONS = (
    Operation(
        "rentBySpec",
        "POST",
        "/executors/rent-by-spec",
        Access.RENT,
        rent_by_spec,
        audit="pod.rent",
        feature="rent_by_spec",
    ),
    Operation("rentExecutor", "POST", "/executors/{executor_id}/rent", Access.RENT, rent_executor, audit="pod.rent"),
    Operation(
        "uploadBuildContext",
        "POST",
        "/build-contexts",
        Access.RENT,
        upload_build_context,
        audit="build.upload",
        feature="build_context",
    ),
)
