"""What happens to a pod from its rent to its removal.

A pod is PENDING, then RUNNING or CREATION_FAILED; REBOOT_PENDING and back; DELETING and gone. Only this file takes GPUs
from a pod, so that billing stops, the node is freed and the volume released exactly once. It knows nothing of HTTP.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from pydantic import JsonValue

from lium_mcp.sandbox import data_transfers, money
from lium_mcp.sandbox.faults import Fault
from lium_mcp.sandbox.market import Node, take_off_market
from lium_mcp.sandbox.records import StoredAccount, StoredApiKey, StoredPod, StoredTemplate, StoredTransfer
from lium_mcp.sandbox.world import World

BOOT_SECONDS: Final = (10.0, 35.0)
BUILD_SECONDS: Final = 60.0
REBOOT_SECONDS: Final = (8.0, 25.0)
DELETE_SECONDS: Final = (5.0, 15.0)
FAILED_ROW_SECONDS: Final = 180
FIRST_PORT: Final = 31000
PORTS_PER_POD: Final = 24
PORT_BLOCKS: Final = 1200

Actor = dict[str, JsonValue]


@dataclass(frozen=True)
class PodOrder:
    """Everything a rent asks for, checked."""

    account: StoredAccount
    key: StoredApiKey | None
    node: Node
    gpu_count: int
    price_per_hour: Decimal
    name: str
    template: StoredTemplate
    public_keys: list[str]
    actor: Actor
    extra_ports: int = 0
    encryption: bool = False
    volume_id: str | None = None
    termination_hours: int | None = None
    restore: tuple[StoredTransfer, str] | None = None
    cluster_id: str | None = None
    cluster_index: int | None = None
    snapshot: dict[str, JsonValue] = field(default_factory=dict)


def rent(world: World, order: PodOrder) -> StoredPod:
    """Take the GPUs and start to boot; the caller has checked availability in the same instant."""
    pod_id = world.new_id("pod")
    pod = StoredPod(
        id=pod_id,
        name=order.name,
        account_id=order.account.id,
        api_key_id=None if order.key is None else order.key.id,
        node_id=order.node.id,
        gpu_count=order.gpu_count,
        price_per_hour=order.price_per_hour,
        template_id=order.template.id,
        image=order.template.image,
        public_keys=order.public_keys,
        created_at=world.now,
        updated_at=world.now,
        phase_started_at=world.now,
        eta_at=world.now,
        port_base=FIRST_PORT + PORTS_PER_POD * (len(world.pods) % PORT_BLOCKS),
        extra_ports=order.extra_ports,
        enable_volume_encryption=order.encryption,
        volume_id=order.volume_id,
        termination_hours=order.termination_hours,
        cluster_id=order.cluster_id,
        cluster_index=order.cluster_index,
        launch_snapshot=order.snapshot,
    )
    world.pods[pod.id] = pod
    if late := world.faults.strike("appears_late", pod_name=pod.name):
        pod.readable_from = world.now + timedelta(seconds=late.seconds)
        pod.listed_from = None if late.listed else pod.readable_from
    if short := world.faults.strike("comes_out_short", pod_name=pod.name):
        pod.open_ports, pod.visible_gpus, pod.encryption_status = short.ports, short.gpus, short.encryption
        pod.volume_failed = short.volume in {"only told", "not mounted"}
        pod.volume_failure_told = short.volume == "only told"
        if short.volume == "not shown":
            pod.volume_id = None
    order.node.taken_by_us += order.gpu_count
    world.log_event(pod, "pod-rent.requested", actor=order.actor, to_status="PENDING")
    if order.restore is not None:
        backup, path = order.restore
        pod.startup_restore_id = data_transfers.prepare_restore(world, pod, backup, path, at_startup=True).id
    _begin_boot(world, pod, boot_seconds(world, pod.node_id, order.template))
    return pod


def boot_seconds(world: World, node_id: str, template: StoredTemplate) -> float:
    """Return how long a template takes to start on a node; for most pairs that is near the short end."""
    short, long = BOOT_SECONDS
    share = world.pick(0, 1, "boot", node_id, template.image) ** 2
    return short + (long - short) * share + (BUILD_SECONDS if template.hidden and template.size_bytes is None else 0)


def reboot(world: World, pod: StoredPod, *, actor: Actor | None, volume_id: str | None = None) -> None:
    """Replace the container; the pod keeps billing."""
    pod.volume_id, pod.volume_failed = volume_id or pod.volume_id, False
    # The API's success means the request's; the pod's states tell what becomes of the container.
    world.log_event(pod, "pod-reboot.success", actor=actor, from_status=pod.status, to_status="REBOOT_PENDING")
    world.set_status(pod, "REBOOT_PENDING")
    _begin_boot(world, pod, world.pick(*REBOOT_SECONDS, "reboot", pod.id, pod.boot))


def switch_template(world: World, pod: StoredPod, template: StoredTemplate, *, actor: Actor) -> None:
    """Start another template in the pod; what was in the container is lost, billing goes on."""
    if world.faults.strike("switch_fails", pod_id=pod.id, pod_name=pod.name):
        # The old container comes back.
        world.log_event(pod, "pod-switch-template.failed", actor=actor, error="the new container did not start")
        world.set_status(pod, "PENDING")
        _begin_boot(world, pod, boot_seconds(world, pod.node_id, template))
        return
    pod.template_id, pod.image = template.id, template.image
    pod.restored_paths.clear()
    pod.jupyter_status = pod.jupyter_port = None
    data_transfers.abort_for(world, pod, "The pod's template was switched")
    world.log_event(pod, "pod-switch-template.success", actor=actor, detail=template.image)
    world.set_status(pod, "PENDING")
    _begin_boot(world, pod, boot_seconds(world, pod.node_id, template))


def schedule_removal(world: World, pod: StoredPod, when: datetime) -> None:
    """Remove the pod at that time, or up to a minute later: removals run once a minute."""
    pod.removal_scheduled_at = when

    def run() -> None:
        if pod.removal_scheduled_at != when or not pod.is_open:
            return
        if pod.status == "PENDING":
            world.after(60, run)
            return
        delete(world, pod, reason="scheduled_termination", actor=None)

    world.at(_next_minute(when), run)


def delete(world: World, pod: StoredPod, *, reason: str, actor: Actor | None) -> None:
    """Begin a removal; billing stops here, the row goes a little later."""
    if pod.status == "CREATION_FAILED":
        _forget(world, pod)
        return
    money.stop_billing(world, pod)
    pod.close_reason = reason
    event = "worker-pod-delete.success" if actor is None else "pod-delete.success"
    world.log_event(pod, event, actor=actor, from_status=pod.status, reason=reason)
    world.set_status(pod, "DELETING", reason=reason)
    data_transfers.abort_for(world, pod, "The pod was removed")
    slow = world.faults.strike("delete_slow", pod_id=pod.id, pod_name=pod.name)
    seconds = world.pick(*DELETE_SECONDS, "delete", pod.id) + (slow.seconds if slow else 0)
    world.after(seconds, lambda: _finish_removal(world, pod))


def reclaim_spot(world: World, pod: StoredPod) -> None:
    """Take a spot pod back for its provider, at once and without refund."""
    money.stop_billing(world, pod)
    pod.close_reason = "spot_reclaimed"
    world.log_event(pod, "worker-pod-delete.success", from_status=pod.status, reason="spot_reclaimed")
    world.set_status(pod, "DELETING", reason="spot_reclaimed", detail="The provider reclaimed the spot node")
    data_transfers.abort_for(world, pod, "The spot node was reclaimed")
    _finish_removal(world, pod)
    take_off_market(world.market.nodes[pod.node_id], world.now)


def restart_container(world: World, pod: StoredPod, fault: Fault) -> None:
    """Let the container's main process die, and Docker start the container again; nobody asked for it."""
    boot = pod.boot

    def restart() -> None:
        if pod.boot != boot or pod.status != "RUNNING":
            return
        if fault.told:
            if fault.oom:
                world.log_event(pod, "container.oom")
            world.log_event(pod, "container.die", exit_code=fault.exit_code, reason=fault.message)
            world.log_event(pod, "container.start")
        pod.restarts += 1
        pod.started_at = world.now

    world.after(fault.seconds if "seconds" in fault.model_fields_set else 0, restart)


def is_spot(world: World, pod: StoredPod) -> bool:
    """Whether the pod's node may be reclaimed."""
    return world.market.nodes[pod.node_id].tier == "spot"


def attached_pod(world: World, volume_id: str) -> StoredPod | None:
    """Return the pod that has the volume mounted."""
    return next((pod for pod in world.pods.values() if pod.volume_id == volume_id and pod.removed_at is None), None)


def _begin_boot(world: World, pod: StoredPod, seconds: float) -> None:
    pod.boot += 1
    pod.started_at = None
    pod.phase_started_at, pod.eta_at = world.now, world.now + timedelta(seconds=seconds)
    boot = pod.boot
    slow = world.faults.strike("boot_slow", executor_id=pod.node_id, pod_id=pod.id, pod_name=pod.name)
    world.after(seconds + (slow.seconds if slow else 0), lambda: _finish_boot(world, pod, boot))


def _finish_boot(world: World, pod: StoredPod, boot: int) -> None:
    if pod.boot != boot or not pod.is_open:
        return
    if pod.status == "REBOOT_PENDING":
        if fault := world.faults.strike("reboot_fails", pod_id=pod.id, pod_name=pod.name):
            message = fault.message or "container did not come back after the reboot"
            world.log_event(pod, "pod-reboot.failed", error=message)
            world.set_status(pod, "REBOOT_FAILED", reason="reboot_failed")
            return
    elif fault := world.faults.strike("boot_fails", executor_id=pod.node_id, pod_id=pod.id, pod_name=pod.name):
        _fail_creation(world, pod, fault.message or "failed to pull image: no space left on device", fault.step)
        return
    else:
        world.log_event(pod, "pod-create.success")
    if pod.volume_failed and pod.volume_failure_told:
        world.log_event(pod, "pod-create.warning", detail="ExternalVolumeFailed: the volume could not be attached")
    pod.started_at = world.now
    if pod.billable_from is None:
        pod.billable_from = world.now
    world.set_status(pod, "RUNNING")
    if pod.termination_hours is not None:
        # The server replaces whatever was scheduled meanwhile.
        schedule_removal(world, pod, world.now + timedelta(hours=pod.termination_hours))
        pod.termination_hours = None
    if pod.startup_restore_id is not None:
        data_transfers.begin_restore(world, world.transfers[pod.startup_restore_id])
        pod.startup_restore_id = None
    if fault := world.faults.strike("container_restarts", pod_id=pod.id, pod_name=pod.name):
        restart_container(world, pod, fault)
    if is_spot(world, pod) and world.faults.strike("spot_reclaim", pod_id=pod.id):
        reclaim_spot(world, pod)


def _fail_creation(world: World, pod: StoredPod, error: str, step: str | None) -> None:
    money.stop_billing(world, pod)
    world.log_event(pod, "pod-create.failed", error=error, failure_step=step)
    # The reason in the last event is no cause: the cause is the error in the event before.
    world.set_status(pod, "CREATION_FAILED", reason="creation_failed", detail=error)
    pod.close_reason = "creation_failed"
    data_transfers.abort_for(world, pod, "The pod did not start")
    _release(world, pod)
    world.after(FAILED_ROW_SECONDS, lambda: _forget(world, pod))


def _finish_removal(world: World, pod: StoredPod) -> None:
    _release(world, pod)
    _forget(world, pod)


def _release(world: World, pod: StoredPod) -> None:
    world.market.nodes[pod.node_id].taken_by_us -= pod.gpu_count
    pod.volume_id = None
    for config in [config for config in world.configs.values() if config.pod_id == pod.id]:
        del world.configs[config.id]


def _forget(world: World, pod: StoredPod) -> None:
    """Let the row disappear; its record, events and charges stay."""
    if pod.removed_at is not None:
        return
    pod.removed_at = world.now
    world.set_status(pod, "DELETED", reason=pod.close_reason)
    template = world.templates.get(pod.template_id)
    if template is not None and template.body.get("one_time_template") is True:
        del world.templates[template.id]


def _next_minute(moment: datetime) -> datetime:
    return datetime.fromtimestamp(math.ceil(moment.timestamp() / 60) * 60, tz=moment.tzinfo)
