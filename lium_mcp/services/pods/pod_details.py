"""How a pod is shown: a row of the list, and the details of one, shared by every tool that ends with a pod."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import anyio

from lium_mcp.api.addresses import with_port
from lium_mcp.api.errors import LiumError
from lium_mcp.api.gpu_names import gpu_label
from lium_mcp.api.huids import huid
from lium_mcp.api.pods.models import REMOVED_STATUSES, Pod, PodDetail, PodEvent, PodRecord, own_events
from lium_mcp.figures import hours_since, rounded
from lium_mcp.remote.banner import SshAnswer
from lium_mcp.remote.inside import Inside
from lium_mcp.rentals import AccountUnknown, shortfalls
from lium_mcp.results import Result, Usd, UsdRate, UtcTime, note_on, state_in_words
from lium_mcp.services.accounts import Account
from lium_mcp.services.pods.container_restarts import restart_warning, started_at
from lium_mcp.services.pods.dropped_settings import SSH_PORT
from lium_mcp.services.pods.gpu_details import GpuView, gpu_view
from lium_mcp.services.pods.idle_removals import IdleState, idle_states
from lium_mcp.services.pods.node_warnings import maintenance, spot_warning
from lium_mcp.services.pods.pod_connections import inside_of, is_volume_mounted
from lium_mcp.services.pods.pod_events import EventView, cause_of, last_events, quoted, read_events
from lium_mcp.services.pods.price_rises import price_rises
from lium_mcp.services.pods.removal_problems import removal_problems, removal_time_problems
from lium_mcp.services.pods.rented_elsewhere import keys_of_others
from lium_mcp.services.removed_pods import read_record
from lium_mcp.text import shortened

Outcome = Literal["done", "failed", "pending"]

_MOST_NAME_CHARACTERS = 60
_OLDER_THAN_LIUM_HOURS = 24 * 366 * 10
_EXTRAS_SECONDS = 10.0


class PodRow(Result):
    """A pod in a list."""

    pod_id: str
    name: str
    status: str
    gpu_type: str | None = None
    gpu_count: int | None = None
    price_per_hour_usd: UsdRate | None = None
    billing: bool | None = None
    removal_at: UtcTime | None = None
    removal_hours_after_boot: int | None = None
    removal_unreadable: bool | None = None
    idle_minutes: int | None = None
    final_backup: bool | None = None
    maintenance: str | None = None
    cluster_id: str | None = None
    cluster_rank: int | None = None
    rented_with_key: str | None = None
    ssh_command: str | None = None


class ListedPod(PodRow):
    """A pod in the list of all: what runs on it, what it has cost by its price and age, and why it was not removed."""

    problem: str | None = None
    template: str | None = None
    age_hours: float | None = None
    cost_estimate_usd: Usd | None = None


class PodTemplateView(Result):
    """What runs in a pod."""

    template_id: str | None = None
    name: str | None = None
    image: str | None = None


class PodView(PodRow):
    """One pod in detail."""

    huid: str | None = None
    executor_id: str | None = None
    phase: str | None = None
    ready_in_seconds: int | None = None
    created_at: UtcTime | None = None
    removed_at: UtcTime | None = None
    removed_because: str | None = None
    cost_so_far_usd: Usd | None = None
    idle_for_minutes: int | None = None
    kept_because: str | None = None
    template: PodTemplateView | None = None
    ports: dict[str, str] | None = None
    ssh_answers: bool | None = None
    volume_id: str | None = None
    local_volume_path: str | None = None
    jupyter_url: str | None = None
    warnings: list[str] | None = None
    note: str | None = None
    last_events: list[EventView] | None = None
    gpus: list[GpuView] | None = None


@dataclass(slots=True)
class _Extras:
    """What is read of a pod beside its row, each side by side with the other: Lium may take seconds for either."""

    history: Sequence[PodEvent] = ()
    record: PodRecord | None = None

    async def read_events(self, account: Account, pod_id: str) -> None:
        self.history = await read_events(account, pod_id)

    async def read_record(self, account: Account, pod_id: str) -> None:
        self.record = await read_record(account, pod_id)


def unpriced(pods: Sequence[Pod]) -> int | None:
    """How many pods bill at a price that Lium does not say, and so are missing from the burn rate; None where none."""
    return sum(1 for pod in pods if pod.is_billing and pod.price is None) or None


def unknown_billing(pods: Sequence[Pod]) -> int | None:
    """How many pods are in a state that nobody knows to bill or not to; None where none."""
    return sum(1 for pod in pods if pod.bills is None) or None


async def pod_rows(account: Account, pods: Sequence[Pod]) -> list[ListedPod]:
    """Show pods in the list of all, with what the ledger knows of their ends."""
    idle = await idle_states(account) if pods else {}
    problems = await _problems(account, pods, idle) if pods else {}
    keys, now = await keys_of_others(account, pods), account.lium.now()
    return [
        _listed(pod, now, idle.get(pod.id, IdleState()), keys.get(pod.id), problem=problems.get(pod.id)) for pod in pods
    ]


async def _problems(account: Account, pods: Sequence[Pod], idle: Mapping[str, IdleState]) -> dict[str, str]:
    """What somebody should know of pods who does not ask, by the id of the pod: they cost more, or were not removed."""
    late = await removal_time_problems(account, pods)
    said = [late, await price_rises(account, pods), await removal_problems(account, idle)]
    ids = {pod_id for problems in said for pod_id in problems}
    return {pod_id: " ".join(problems[pod_id] for problems in said if pod_id in problems) for pod_id in ids}


def _listed(pod: Pod, now: datetime, idle: IdleState, key_name: str | None, *, problem: str | None) -> ListedPod:
    """Show a pod in the list of all.

    What it has cost is what its price makes of its whole age, which is a little more than it bills: the exact sum would
    take two requests for each.
    """
    age = hours_since(pod.created_at, now)
    age = age if age is not None and age < _OLDER_THAN_LIUM_HOURS else None
    is_priced = pod.is_billing and pod.price is not None and age is not None
    template = (pod.template.name if pod.template else None) or ""
    return ListedPod(
        **_row_fields(pod, idle, key_name),
        template=shortened(template, _MOST_NAME_CHARACTERS) or None,
        age_hours=None if age is None else rounded(age, 2),
        problem=problem,
        cost_estimate_usd=(pod.price or 0) * (age or 0) if is_priced else None,
    )


async def pod_view(
    account: Account,
    pod: PodDetail,
    *,
    current: bool = True,
    events: bool = True,
    gpus: bool = False,
    volume_id: str | None = None,
    ssh: SshAnswer | None = None,
) -> PodView:
    """Show a pod in detail.

    With it come its cost so far, its last events, and what it has less of than was asked, where these can be read.

    Args:
        account: Whose pod it is.
        pod: The pod.
        current: Whether this is how it stands now, as far as is known.
        events: Whether to show its last events.
        gpus: Whether to show what its GPUs do.
        volume_id: The volume that it was just given; None for the one that it was rented with.
        ssh: What came of a look at its SSH server.
    """
    extras = _Extras()
    idle: IdleState | None = None
    problem: str | None = None
    key_name: str | None = None
    runs = current and pod.is_ready
    inside = (await inside_of(account, pod) if runs and ssh in (None, "answers") else None) or Inside()

    # A pod is worth showing without its events, volume and cost.
    with anyio.move_on_after(_EXTRAS_SECONDS):
        volume_id = volume_id or (await _rented_volume(account, pod.id) if runs else None)
        if current:
            key_name = (await keys_of_others(account, [pod])).get(pod.id)
            states = await idle_states(account)
            idle, problem = states.get(pod.id), (await _problems(account, [pod], states)).get(pod.id)
        async with anyio.create_task_group() as group:
            group.start_soon(extras.read_events, account, pod.id)
            group.start_soon(extras.read_record, account, pod.id)
    history = extras.history
    lived = own_events(pod, history)
    cost = _cost_so_far(account, pod, lived, extras.record)
    if not history and pod.last_event is not None and pod.last_event.pod_id in (None, pod.id):
        history = [pod.last_event]
    warnings = _warnings(account, pod, inside, volume_id, history) if runs else []
    if current and (reclaim := spot_warning(pod.executor)):
        warnings.append(reclaim)
    template = pod.template
    shown = last_events(history) if events else []
    shown_gpus = inside.gpus if gpus else None
    processes = [process.name for gpu in shown_gpus or () for process in gpu.processes]
    fields = _row_fields(pod, idle or IdleState(), key_name)
    if pod.has_not_started and _has_run(lived):
        fields["billing"] = None  # one whose template was switched starts over, and may bill meanwhile
    return PodView(
        **fields,
        huid=pod.huid,
        executor_id=pod.executor_id or (pod.executor.id if pod.executor else None),
        phase=pod.phase,
        ready_in_seconds=pod.estimated_ready_seconds,
        created_at=pod.created_at,
        cost_so_far_usd=cost,
        idle_for_minutes=idle.idle_for_minutes if idle else None,
        kept_because=idle.kept_because if idle else None,
        template=PodTemplateView(
            template_id=template.id,
            name=template.name,
            image=template.image,
        )
        if template
        else None,
        ports=_ports(pod),
        ssh_answers=None if ssh in (None, "unreachable") else ssh == "answers",
        volume_id=pod.attached_volume_id,
        local_volume_path=pod.volume_root,
        jupyter_url=pod.jupyter_url,
        warnings=[*warnings, *([problem] if problem else [])] or None,
        note=note_on(*quoted(shown), *processes),
        last_events=shown if events else None,
        gpus=[gpu_view(gpu) for gpu in shown_gpus] if shown_gpus else None,
    )


async def past_view(account: Account, pod_id: str) -> PodView | None:
    """A removed pod by what Lium keeps of it; None where it keeps nothing, or does not say that the pod is gone."""
    history = await read_events(account, pod_id)
    record = await read_record(account, pod_id)
    gone = PodRecord(pod_id=pod_id) if record is None else record
    state = next((event.state for event in reversed(history) if event.state), "DELETED")
    if not ((history and state in REMOVED_STATUSES) if gone.removed is None else gone.removed):
        return None
    shown = last_events(history)
    named = next((event.pod_name for event in history if event.pod_name), None)
    # Charges reach Lium's ledger some minutes late, so a cost of 0 is final only for a pod that never ran.
    is_whole = bool(gone.total) or (bool(history) and not _has_run(history))
    return PodView(
        pod_id=pod_id,
        name=gone.pod_name or named or "",
        status=state,
        billing=False,
        huid=huid(pod_id),
        gpu_type=gpu_label(gone.gpu_name) if gone.gpu_name else None,
        gpu_count=gone.gpu_count,
        executor_id=gone.executor_id,
        created_at=gone.created_at,
        removed_at=gone.removed_at,
        removed_because=gone.close_reason,
        cost_so_far_usd=gone.total if is_whole else None,
        template=PodTemplateView(image=gone.image) if gone.image else None,
        note=note_on(*quoted(shown), gone.close_reason),
        last_events=shown,
    )


async def gone_view(account: Account, last_seen: PodDetail) -> PodView:
    """A pod that is not there any more, by what Lium keeps of it, else as it was last seen."""
    return await past_view(account, last_seen.id) or await pod_view(account, last_seen, current=False)


def describe_start(pod: Pod | None) -> str:
    """Say how far a starting pod is, for progress messages."""
    if pod is None:
        return "Waiting for the pod to be listed"
    phase = f": {pod.phase}" if pod.phase else ""
    eta = f", about {pod.estimated_ready_seconds} s left" if pod.estimated_ready_seconds else ""
    return f"{pod.pod_name} is {state_in_words(pod.status)}{phase}{eta}"


def failure_cause(view: PodView) -> str:
    """Lium's word on why a pod failed, to follow a sentence; empty where it left none."""
    return cause_of(view.last_events or [])


def _warnings(
    account: Account, pod: Pod, inside: Inside, volume_id: str | None, history: Sequence[PodEvent]
) -> list[str]:
    """What a pod that runs has less of than it was rented with, and whether its container started again by itself."""
    sentences = shortfalls(
        pod,
        volume_id=volume_id,
        visible_gpus=inside.visible_gpus,
        is_volume_mounted=is_volume_mounted(pod, inside),
        events=history,
    )
    restart = restart_warning(pod, history, started_at(inside, account.lium.now()))
    return [*sentences, *([restart] if restart else [])]


def _row_fields(pod: Pod, idle: IdleState, key_name: str | None) -> dict[str, object]:
    removal = idle.removal
    ssh = pod.ssh
    return {
        "pod_id": pod.id,
        "name": pod.pod_name or "",
        "status": pod.status or "UNKNOWN",
        "gpu_type": gpu_label(pod.gpu_name) if pod.gpu_name else None,
        "gpu_count": pod.rented_gpu_count,
        "price_per_hour_usd": pod.price,
        "billing": pod.bills,
        "removal_at": pod.removal_scheduled_at,
        "removal_hours_after_boot": pod.termination_hours,
        "removal_unreadable": pod.has_unreadable_removal or None,
        "idle_minutes": removal.idle_minutes if removal else None,
        "final_backup": (removal.final_backup or None) if removal else None,
        "maintenance": maintenance(pod),
        "cluster_id": pod.cluster_id,
        "cluster_rank": pod.cluster_node_index if pod.cluster_id else None,
        "rented_with_key": key_name,
        "ssh_command": f"ssh {ssh.user}@{ssh.host} -p {ssh.port}" if ssh else None,
    }


def _ports(pod: Pod) -> dict[str, str] | None:
    if not pod.ssh or not pod.public_ports:
        return None
    # The SSH command has the one of SSH.
    open_ports = {inside: outside for inside, outside in pod.public_ports.items() if inside != SSH_PORT}
    return {str(inside): with_port(pod.ssh.host, outside) for inside, outside in open_ports.items()} or None


async def _rented_volume(account: Account, pod_id: str) -> str | None:
    """The volume that a pod was rented with, where the ledger knows."""
    with suppress(AccountUnknown, LiumError):
        for entry in await account.rents.open_entries():
            if pod_id in entry.pod_ids:
                return entry.volume_id
    return None


def _cost_so_far(account: Account, pod: Pod, history: Sequence[PodEvent], record: PodRecord | None) -> float | None:
    """What the ledger charged, or more where the ledger is behind: the price times the time since it ran.

    Charges reach the ledger some minutes late, so that none yet are nothing only of a pod that never ran.
    """
    charged = record.total if record else None
    hours = hours_since(_running_since(pod, history), account.lium.now())
    if pod.is_billing and pod.price is not None and hours is not None:
        return max(charged or 0.0, pod.price * hours)
    return charged or (0.0 if pod.has_not_started and not _has_run(history) else None)


def _running_since(pod: Pod, history: Sequence[PodEvent]) -> datetime | None:
    return next(
        (event.created_at for event in history if event.state == "RUNNING" and event.created_at), pod.created_at
    )


def _has_run(history: Sequence[PodEvent]) -> bool:
    return any(event.state == "RUNNING" for event in history)
