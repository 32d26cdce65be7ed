"""How a pod is shown: a row of the list, and the details of one, shared by every tool that ends with a pod."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

import anyio

from lium_mcp.api import LiumError, Pod, PodDetail, PodEvent, gpu_label
from lium_mcp.api.addresses import with_port
from lium_mcp.remote.gpus import MOST_GPUS, Gpu
from lium_mcp.rentals import AccountUnknown, shortfalls
from lium_mcp.tools.call import Call
from lium_mcp.tools.pod_work import gpus_of
from lium_mcp.tools.results import Result, Usd, UtcTime, note_on

Outcome = Literal["done", "failed", "pending"]

_LAST_EVENTS = 5
_MOST_QUOTED_CHARACTERS = 200
_EXTRAS_SECONDS = 10.0


class PodRow(Result):
    """A pod in a list."""

    pod_id: str
    name: str
    status: str
    gpu_type: str | None = None
    gpu_count: int | None = None
    price_per_hour_usd: Usd | None = None
    billing: bool
    removal_at: UtcTime | None = None
    ssh_command: str | None = None


class PodTemplateView(Result):
    """What runs in a pod."""

    template_id: str | None = None
    name: str | None = None
    image: str | None = None


class EventView(Result):
    """Something that happened to a pod."""

    at: UtcTime | None = None
    event: str | None = None
    status: str | None = None
    reason: str | None = None
    error: str | None = None


class GpuProcessView(Result):
    """A process that uses a GPU."""

    pid: int
    name: str
    memory_gb: float | None = None


class GpuView(Result):
    """What a GPU does now."""

    index: int
    name: str
    utilization_percent: int | None = None
    memory_used_gb: float | None = None
    memory_total_gb: float | None = None
    temperature_celsius: int | None = None
    processes: list[GpuProcessView] | None = None


class PodView(PodRow):
    """One pod in detail."""

    huid: str
    executor_id: str | None = None
    phase: str | None = None
    ready_in_seconds: int | None = None
    created_at: UtcTime | None = None
    cost_so_far_usd: Usd | None = None
    removal_hours_after_boot: int | None = None
    template: PodTemplateView | None = None
    ports: dict[str, str] | None = None
    volume_id: str | None = None
    local_volume_path: str | None = None
    jupyter_url: str | None = None
    warnings: list[str] | None = None
    note: str | None = None
    last_events: list[EventView] | None = None
    gpus: list[GpuView] | None = None


def unpriced(pods: Sequence[Pod]) -> int | None:
    """How many pods bill at a price that Lium does not say: they are missing from what all burn; None where none is."""
    return sum(1 for pod in pods if pod.is_billing and pod.price is None) or None


def pod_row(pod: Pod) -> PodRow:
    """Show a pod in a list."""
    return PodRow(**_row_fields(pod))


async def pod_view(
    call: Call,
    pod: PodDetail,
    *,
    lives: bool = True,
    events: bool = True,
    gpus: bool = False,
    volume_id: str | None = None,
) -> PodView:
    """Show a pod in detail, with its cost so far, its last events, and what it came out with less of than was asked,
    where these can be read.

    Args:
        call: The call.
        pod: The pod.
        lives: Whether it is there, as far as is known.
        events: Whether to show its last events.
        gpus: Whether to show what its GPUs do.
        volume_id: The volume that it was just given; None for the one that it was rented with.
    """
    history: Sequence[PodEvent] = ()
    cost: float | None = None
    runs = lives and pod.is_ready
    seen = await gpus_of(call, pod) if runs else None
    # A pod is worth showing without them.
    with anyio.move_on_after(_EXTRAS_SECONDS):
        history = await _events(call, pod.id)
        volume_id = volume_id or (await _rented_volume(call, pod.id) if runs else None)
        cost = await _cost_so_far(call, pod, history)
    visible = len(seen) if seen and len(seen) < MOST_GPUS else None
    short = shortfalls(pod, volume_id=volume_id, visible_gpus=visible, events=history) if runs else []
    template = pod.template
    shown = [_event(item) for item in history[-_LAST_EVENTS:]] if events else []
    shown_gpus = seen if gpus else None
    processes = [process.name for gpu in shown_gpus or () for process in gpu.processes]
    return PodView(
        **_row_fields(pod),
        huid=pod.huid,
        executor_id=pod.executor_id or (pod.executor.id if pod.executor else None),
        phase=pod.phase,
        ready_in_seconds=pod.estimated_ready_seconds,
        created_at=pod.created_at,
        cost_so_far_usd=cost,
        removal_hours_after_boot=pod.termination_hours,
        template=PodTemplateView(
            template_id=template.id,
            name=template.name,
            image=":".join(part for part in (template.docker_image, template.docker_image_tag) if part) or None,
        )
        if template
        else None,
        ports=_ports(pod),
        volume_id=pod.volume.id if pod.volume else None,
        local_volume_path=pod.volume_root,
        jupyter_url=pod.jupyter_url,
        warnings=short or None,
        note=note_on(*(text for item in shown for text in (item.reason, item.error)), *processes),
        last_events=shown if events else None,
        gpus=[_gpu(gpu) for gpu in shown_gpus] if shown_gpus else None,
    )


def _gpu(gpu: Gpu) -> GpuView:
    return GpuView(
        index=gpu.index,
        name=gpu.name,
        utilization_percent=gpu.utilization_percent,
        memory_used_gb=gpu.memory_used_gb,
        memory_total_gb=gpu.memory_total_gb,
        temperature_celsius=gpu.temperature_celsius,
        processes=[GpuProcessView(pid=one.pid, name=one.name, memory_gb=one.memory_gb) for one in gpu.processes]
        or None,
    )


def describe_start(pod: Pod | None) -> str:
    """Say how far a starting pod is, for progress messages."""
    if pod is None:
        return "Waiting for the pod to be listed"
    phase = f": {pod.phase}" if pod.phase else ""
    eta = f", about {pod.estimated_ready_seconds} s left" if pod.estimated_ready_seconds else ""
    return f"{pod.pod_name} is {pod.status}{phase}{eta}"


def failure_cause(view: PodView) -> str:
    """The API's own word on why a pod failed, if it left one: a quotation, since images and nodes have a say in it."""
    for event in reversed(view.last_events or []):
        if event.error or event.reason:
            words = " ".join((event.error or event.reason or "").replace('"', "'").split())
            return f'; Lium says "{words[:_MOST_QUOTED_CHARACTERS]}"'
    return ""


def _row_fields(pod: Pod) -> dict[str, object]:
    ssh = pod.ssh
    return {
        "pod_id": pod.id,
        "name": pod.pod_name or "",
        "status": pod.status or "UNKNOWN",
        "gpu_type": gpu_label(pod.gpu_name) if pod.gpu_name else None,
        "gpu_count": pod.rented_gpu_count,
        "price_per_hour_usd": pod.price,
        "billing": pod.is_billing,
        "removal_at": pod.removal_scheduled_at,
        "ssh_command": f"ssh {ssh.user}@{ssh.host} -p {ssh.port}" if ssh else None,
    }


def _ports(pod: Pod) -> dict[str, str] | None:
    if not pod.ssh or not pod.public_ports:
        return None
    return {str(inside): with_port(pod.ssh.host, outside) for inside, outside in pod.public_ports.items()}


def _event(event: PodEvent) -> EventView:
    return EventView(
        at=event.created_at,
        event=event.sub_event_type or event.event_type,
        status=event.to_status,
        reason=event.reason,
        error=event.error,
    )


async def _events(call: Call, pod_id: str) -> Sequence[PodEvent]:
    try:
        return await call.lium.pods.events(pod_id)
    except LiumError:
        return ()  # older servers have no events; a pod is worth showing without them


async def _rented_volume(call: Call, pod_id: str) -> str | None:
    """The volume that a pod was rented with, where the ledger knows."""
    with suppress(AccountUnknown, LiumError):
        for entry in await call.renter.open_entries():
            if pod_id in entry.pod_ids:
                return entry.volume_id
    return None


async def _cost_so_far(call: Call, pod: Pod, history: Sequence[PodEvent]) -> float | None:
    """What the ledger charged, or more where the ledger is behind: the price times the time since it ran."""
    charged: float | None = None
    if await call.lium.supports("run_record"):
        with suppress(LiumError):  # a pod is worth showing without it, and a new one is not in the ledger yet
            charged = (await call.lium.pods.record(pod.id)).total
    if pod.price is None:
        return charged
    started = _running_since(pod, history)
    if started is None or not pod.is_billing:
        return charged if charged is not None else (0.0 if not pod.is_billing else None)
    hours = max((call.lium.now() - started).total_seconds(), 0) / 3600
    return max(charged or 0.0, pod.price * hours)


def _running_since(pod: Pod, history: Sequence[PodEvent]) -> datetime | None:
    for event in history:
        if (event.to_status or "").upper() == "RUNNING" and event.created_at:
            return event.created_at
    return pod.created_at
