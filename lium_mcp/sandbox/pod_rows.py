"""How a pod looks on the wire: its row, what happened to it, what its container printed.

Rows carry times without a zone, the GPU count as a string, and a nested executor that describes the whole host.
"""

import json
import math
from datetime import datetime, timedelta
from typing import Final

from lium_mcp.sandbox.market import Node
from lium_mcp.sandbox.node_rows import Row, host_row
from lium_mcp.sandbox.records import StoredPod, StoredTemplate, StoredVolume
from lium_mcp.sandbox.seeded import fraction, identifier
from lium_mcp.sandbox.simulated_clock import iso_naive, iso_zulu
from lium_mcp.sandbox.world import World

SSH_ADDRESS: Final = "127.0.0.1"

# phase, the share of the start-up time at which it ends
BOOT_PHASES: Final = (
    ("queued", 0.05),
    ("preparing node", 0.12),
    ("connecting to node", 0.2),
    ("pulling image", 0.7),
    ("creating volume", 0.76),
    ("starting container", 0.9),
    ("configuring ssh", 1.0),
)
REBOOT_PHASES: Final = (("starting container", 0.7), ("configuring ssh", 1.0))
SECONDS_PER_LOG_LINE: Final = 5
TEMPLATE_FIELDS: Final = (
    "name",
    "description",
    "docker_image",
    "docker_image_tag",
    "docker_image_digest",
    "category",
    "volumes",
    "environment",
    "entrypoint",
    "internal_ports",
    "is_private",
    "startup_commands",
)


def pod_row(world: World, pod: StoredPod) -> Row:
    """Build the row of GET /pods."""
    node = world.market.nodes[pod.node_id]
    template = world.templates.get(pod.template_id)
    key = None if pod.api_key_id is None else world.keys.get(pod.api_key_id)
    ports = ports_mapping(pod, template)
    address = node.address
    if ports is not None and (ssh_port := world.ssh_ports.get(pod.id)) is not None:
        ports["22"], address = ssh_port, SSH_ADDRESS
    volume = None if pod.volume_id is None else world.volumes[pod.volume_id]
    return {
        "id": pod.id,
        "pod_name": pod.name,
        "status": pod.status,
        "executor_id": pod.node_id,
        "ssh_connect_cmd": None if ports is None else f"ssh root@{address} -p {ports['22']}",
        "ports_mapping": dict(ports) if ports is not None else None,
        "gpu_name": node.gpu.name,
        "gpu_count": str(pod.gpu_count),
        "cpu_name": node.cpu_model,
        "cpu_count": node.cpu_count * pod.gpu_count // node.gpu_count,
        "ram_total": node.ram_kib * pod.gpu_count // node.gpu_count,
        "is_favorite": False,
        "price": float(pod.price_per_hour),
        "created_at": iso_naive(pod.created_at),
        "updated_at": iso_naive(pod.updated_at),
        "removal_scheduled_at": None if pod.removal_scheduled_at is None else iso_naive(pod.removal_scheduled_at),
        "termination_hours": pod.termination_hours,
        "notice_period": node.notice,
        "jupyter_installation_status": pod.jupyter_status,
        "jupyter_url": _jupyter_url(pod, node, ports),
        "enable_jupyter": False,
        "enable_volume_encryption": pod.enable_volume_encryption,
        "volume_encryption_status": pod.encryption_status,
        **_start_progress(world, pod),
        "local_volume_path": template.local_volume if template and pod.started_at else None,
        "volume": None if volume is None else volume_row(volume),
        "ssh_keys": list(pod.public_keys),
        "skip_add_agent_ssh_key": False,
        "template": None if template is None else _template_part(template),
        "executor": host_row(node, world.now, full=False) | {"executor_ip_address": node.address},
        "workspace_id": world.accounts[pod.account_id].workspace_id,
        "api_key_id": pod.api_key_id,
        "api_key_name": None if key is None else key.name,
        "cluster_id": pod.cluster_id,
        "cluster_node_index": pod.cluster_index,
        "cluster_overlay_ip": None if pod.cluster_index is None else f"10.42.0.{pod.cluster_index + 1}",
    }


def ports_mapping(pod: StoredPod, template: StoredTemplate | None) -> dict[str, int] | None:
    """Map internal to public ports; None until the container is there."""
    if pod.started_at is None and pod.status not in {"REBOOT_PENDING", "REBOOT_FAILED"}:
        return None
    inside = template.ports if template is not None else [22]
    inside = inside + [port for port in range(20000, 20000 + pod.extra_ports) if port not in inside]
    return {str(port): pod.port_base + offset for offset, port in enumerate(inside[: pod.open_ports])}


def volume_row(volume: StoredVolume) -> Row:
    """Build the row of a volume."""
    return {
        "id": volume.id,
        "name": volume.name,
        "description": volume.description,
        "created_at": iso_naive(volume.created_at),
        "updated_at": None if volume.updated_at is None else iso_naive(volume.updated_at),
        "current_size_bytes": volume.size_bytes,
        "current_file_count": volume.file_count,
        "current_size_gb": round(volume.size_bytes / 2**30, 3),
        "current_size_mb": round(volume.size_bytes / 2**20, 3),
        "last_metrics_update": None if volume.metrics_at is None else iso_naive(volume.metrics_at),
    }


def record_row(world: World, pod: StoredPod) -> Row:
    """Build what a run ran on and what the ledger charged for it."""
    node = world.market.nodes[pod.node_id]
    charged = float(pod.charged)
    segment: Row = {
        "price_per_hour": float(pod.price_per_hour),
        "billed_seconds": pod.billed_seconds,
        "amount": charged,
    }
    return {
        "pod_id": pod.id,
        "pod_name": pod.name,
        "removed": pod.removed_at is not None,
        "gpu_name": node.gpu.name,
        "gpu_count": pod.gpu_count,
        "image": pod.image,
        "launch_snapshot": pod.launch_snapshot,
        "executor_id": pod.node_id,
        "created_at": iso_zulu(pod.created_at),
        "removed_at": None if pod.removed_at is None else iso_zulu(pod.removed_at),
        "close_reason": pod.close_reason,
        "billed_seconds": pod.billed_seconds,
        "total": charged,
        "price_segments": [segment] if pod.billed_seconds else [],
    }


class LogLines:
    """The container's output, computed line by line, so that a pod may run for months."""

    def __init__(self, pod: StoredPod, template: StoredTemplate | None, node: Node, now: datetime) -> None:
        self._pod, self._now = pod, now
        image = pod.image
        self._serves = "vllm" in image
        command = str(template.body.get("startup_commands") or "") if template is not None else ""
        self._head = [
            f"=== {image} ===",
            f"Found {pod.gpu_count} x {node.gpu.name}, driver {node.driver}",
            "Starting OpenBSD Secure Shell server: sshd.",
            *([f"+ {command}"] if command else []),
            *(
                ["INFO:     Started server process [1]", "INFO:     Uvicorn running on http://0.0.0.0:8000"]
                * self._serves
            ),
        ]

    def __len__(self) -> int:
        if self._pod.started_at is None:
            return 0
        seconds = (self._now - self._pod.started_at).total_seconds()
        return min(len(self._head), 1 + int(seconds)) + max(0, int(seconds - len(self._head)) // SECONDS_PER_LOG_LINE)

    def line(self, index: int) -> bytes:
        """Return one line as the stream carries it."""
        head = len(self._head)
        text = self._head[index] if index < head else self._periodic(index - head)
        return b"data: " + json.dumps({"log": text}).encode() + b"\n"

    def _periodic(self, number: int) -> str:
        load = fraction(self._pod.id, self._pod.boot, number)
        if self._serves:
            return f'INFO:     127.0.0.1:{40000 + number % 20000} - "POST /v1/completions HTTP/1.1" 200 OK'
        return (
            f"step {number * 10:>7d} | loss {2.4 / (1 + number / 50) + 0.1 * load:.4f} | {1180 + 90 * load:.0f} tok/s"
        )


def _start_progress(world: World, pod: StoredPod) -> Row:
    phases = {"PENDING": BOOT_PHASES, "REBOOT_PENDING": REBOOT_PHASES}.get(pod.status)
    if phases is None:
        return {"estimated_ready_seconds": None, "eta_basis": None, "phase": None}
    total, left = pod.eta_at - pod.phase_started_at, pod.eta_at - world.now
    share = 1 - left / total
    basis = ("executor_history", "class_median", "cold_pull_estimate", "fleet_default")
    return {
        "estimated_ready_seconds": max(0, math.ceil(left / timedelta(seconds=1))),
        "eta_basis": basis[int(4 * fraction("eta", pod.id))],
        "phase": next((name for name, end in phases if share < end), phases[-1][0]),
    }


def _jupyter_url(pod: StoredPod, node: Node, ports: dict[str, int] | None) -> str | None:
    if pod.jupyter_status != "SUCCESS" or ports is None:
        return None
    return f"http://{node.address}:{ports[str(pod.jupyter_port)]}/lab?token={identifier('jupyter', pod.id)}"


def _template_part(template: StoredTemplate) -> Row:
    return {"id": template.id, **{name: template.body.get(name) for name in TEMPLATE_FIELDS}}
