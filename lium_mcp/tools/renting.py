"""`rent_pod`, the tool that spends: what to rent, at most for how much, until when, and what came of it."""

import math
import platform
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal

import anyio
from pydantic import Field

from lium_mcp.api import Executor, LiumError, PodDetail, RentBySpecRequest, RentOutcomeUnknown, RentRequest, Template
from lium_mcp.rentals import NodeOrder, Order, PodNameTaken, Rental, SpecOrder
from lium_mcp.rentals.selection import (
    NoDefaultTemplate,
    NothingFits,
    cheapest_matching,
    default_template,
    smallest_gpu_count,
)
from lium_mcp.tools.call import READ_LIMIT_SECONDS, Call, time_limit
from lium_mcp.tools.failures import ToolFailure
from lium_mcp.tools.marketplace import PricedRental, find_node, quote_node
from lium_mcp.tools.parameters import DEFAULT_WAIT_SECONDS, ShortText, WaitSeconds
from lium_mcp.tools.pod_views import Outcome, PodView, describe_start, pod_view
from lium_mcp.tools.pods import judge, judge_gone, read_pod, settled
from lium_mcp.tools.pods import toolset as toolset  # noqa: PLC0414 - rent_pod joins the toolset; this says that it is public
from lium_mcp.tools.public_keys import is_public_key
from lium_mcp.tools.registry import WRITES
from lium_mcp.tools.results import Result, Usd
from lium_mcp.tools.schema import UNLISTED
from lium_mcp.tools.targets import find_free_volume, find_template

_APPEARS_WITHIN_SECONDS = 20.0
_FIRST_READ_SECONDS = 5.0
_SCHEDULE_SECONDS = 10.0
_REGISTER_SECONDS = 10.0
_SCHEDULE_TOLERANCE = timedelta(minutes=2)
_PRICE_TOLERANCE_USD = 0.0001
_NO_REMOVAL_TIME = "Lium shows no removal time: the pod may bill until it is removed. Call schedule_pod_removal."
# Parameters of the official MCP server: what works there works here, without costing everybody tokens.
_OFFICIAL = Field(json_schema_extra={UNLISTED: True})


class RentedPod(Result):
    """What a rent came to: the pod as the API shows it, or on a dry run the node that would be rented."""

    outcome: Outcome | Literal["dry_run"]
    pod_id: str | None = None
    executor_id: str | None = None
    gpu_count: int | None = None
    price_per_hour_usd: Usd | None = None
    total_usd: Usd | None = None
    pod: PodView | None = None
    warnings: list[str] | None = None
    next: str | None = None


class Wanted(Result):
    """The request, checked for what cannot be expressed."""

    name: str
    executor_id: str
    gpu_type: str
    gpu_count: int | None
    max_usd_per_gpu_hour: float | None
    min_vram_gb: float | None
    min_ram_gb: float | None
    min_disk_gb: float | None
    country: str
    docker_in_docker: bool
    template: str
    volume: str
    backup_id: str
    hours: float | None
    enable_backups: bool

    def check(self) -> None:
        """Refuse what no request could carry; a constraint is never dropped in silence."""
        floors = ("gpu_type", "min_vram_gb", "min_ram_gb", "min_disk_gb", "country", "docker_in_docker")
        given = [name for name in floors if getattr(self, name)]
        if self.executor_id and given:
            problem = f"executor_id names the node already, so {', '.join(given)} cannot apply"
        elif not self.executor_id and not self.gpu_type:
            problem = "Name a node with executor_id, or a GPU model with gpu_type"
        elif self.country and not re.fullmatch("[A-Z]{2}", self.country):
            problem = "country is a two-letter ISO code here"
        else:
            return
        raise ToolFailure("invalid_argument", f"{problem}.", "Correct it and call again.")

    @property
    def termination_hours(self) -> int | None:
        """The API takes whole hours from boot; the exact time is set once the pod runs."""
        return max(math.ceil(self.hours), 1) if self.hours else None


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the pod."""

    public_keys: list[str]
    template: Template | None
    volume_id: str | None


@toolset.tool(title="Rent a pod", hints=WRITES)
async def rent_pod(
    call: Call,
    *,
    name: Annotated[ShortText, Field(min_length=1, description="Unique pod name.")],
    executor_id: Annotated[ShortText, Field(description="Node from list_gpus.")] = "",
    gpu_type: Annotated[ShortText, Field(description="Or cheapest of this model.")] = "",
    gpu_count: Annotated[int | None, Field(ge=1, description="Default: fewest.")] = None,
    max_usd_per_gpu_hour: Annotated[float | None, Field(description="Ceiling.")] = None,
    min_vram_gb: Annotated[float | None, Field(description="Per GPU.")] = None,
    min_ram_gb: Annotated[float | None, Field(description="Node.")] = None,
    min_disk_gb: Annotated[float | None, Field(description="Free.")] = None,
    country: Annotated[ShortText, Field(description="ISO code.")] = "",
    docker_in_docker: Annotated[bool, Field(description="Required.")] = False,
    template: Annotated[ShortText, Field(description="Id, or name of your own.")] = "",
    volume: Annotated[ShortText, Field(description="Mounted at /mnt.")] = "",
    backup_id: Annotated[ShortText, Field(description="Restored at start.")] = "",
    hours: Annotated[float | None, Field(gt=0, le=720, description="Lium removes it then.")] = None,
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
    enable_backups: Annotated[bool, _OFFICIAL] = True,
    dry_run: Annotated[bool, _OFFICIAL] = False,
    known_pod_ids: Annotated[list[str] | None, _OFFICIAL] = None,  # noqa: ARG001 - says nothing that list_pods does not
) -> RentedPod:
    """Rent GPUs as a pod and wait until it runs. This spends money: it bills per second until remove_pod, or for the
    given hours.
    """
    wanted = Wanted(
        name=name,
        executor_id=executor_id,
        gpu_type=gpu_type,
        gpu_count=gpu_count,
        max_usd_per_gpu_hour=max_usd_per_gpu_hour,
        min_vram_gb=min_vram_gb,
        min_ram_gb=min_ram_gb,
        min_disk_gb=min_disk_gb,
        country=country.upper(),
        docker_in_docker=docker_in_docker,
        template=template,
        volume=volume,
        backup_id=backup_id,
        hours=hours,
        enable_backups=enable_backups,
    )
    wanted.check()
    with time_limit(READ_LIMIT_SECONDS):
        contents = await _contents(call, wanted)
        # A restore needs a path in the template's volume, so the template has to be known before the rent.
        if executor_id or backup_id or not await call.lium.supports("rent_by_spec"):
            node = await _pick_node(call, wanted, contents)
            priced = await _price(call, wanted, node)
            if dry_run:
                return _would_rent(wanted, node.id, priced.gpu_count, priced.price_per_hour_usd)
            order: Order = await _node_order(call, wanted, node, priced.gpu_count, contents)
        else:
            request = _spec_request(wanted, contents)
            if dry_run:
                answer = await call.lium.executors.select_by_spec(request)
                node_id = answer.selected_executor.id if answer.selected_executor else None
                return _would_rent(wanted, node_id, request.gpu_count, answer.price_per_hour)
            order = SpecOrder(request)
    return await _rent(call, order, wanted, wait_seconds)


async def _rent(call: Call, order: Order, wanted: Wanted, wait_seconds: float) -> RentedPod:
    try:
        async with call.renter.rent(order) as rental:
            restore = order.request.restore_path if isinstance(order, NodeOrder) else None
            return await _follow(call, rental, wanted, restore, wait_seconds)
    except PodNameTaken as taken:
        raise name_taken(taken) from taken
    except RentOutcomeUnknown as unknown:
        raise outcome_unknown(wanted.name, unknown) from unknown


def name_taken(taken: PodNameTaken) -> ToolFailure:
    """Say that the name is in use."""
    return ToolFailure(
        "pod_name_taken",
        f"A pod named {taken.pod_name} exists already: {', '.join(taken.pod_ids)}. Nothing was rented.",
        "Use that pod (get_pod), or choose another name if you want one more.",
        effect="",
    )


def outcome_unknown(name: str, unknown: RentOutcomeUnknown) -> ToolFailure:
    """Say that a rent may have gone through."""
    return ToolFailure(
        "outcome_unknown",
        f"The rent of {name} got no clear answer, and it could not be established what became of it.",
        f"Do not rent again. Call list_pods: if {name} is there, use it; if it does not appear within a few minutes, "
        "nothing was rented.",
        effect="It may exist and bill.",
        request_id=unknown.request_id,
    )


async def _follow(call: Call, rental: Rental, wanted: Wanted, restore: str | None, wait_seconds: float) -> RentedPod:
    """From here on a pod bills: whatever fails, the answer names it."""
    await register_public_keys(call)
    pod, gone = await _wait_until_runs(call, rental.pod_id, wait_seconds)
    if pod is None:
        return RentedPod(
            outcome="pending",
            pod_id=rental.pod_id,
            next="The pod is rented, but it could not be read. It may bill: call get_pod with this pod_id.",
        )
    warnings = (
        [] if rental.confirmed else ["The answer was lost; this pod was found by its name. Check that it is yours."]
    )
    if restore:
        warnings.append(f"The backup is being restored into {restore}: leave it alone until list_restores says done.")
    if wanted.hours and not pod.is_terminal and not gone:
        pod, warning = await _fix_removal(call, pod, wanted.hours)
        warnings += warning
    view = await pod_view(call, pod, events=gone or not pod.is_ready)
    observed = judge_gone(view) if gone else judge(view, pod)
    if _costs_more(pod, wanted.max_usd_per_gpu_hour):
        warnings.append(
            f"Its price rose above max_usd_per_gpu_hour={wanted.max_usd_per_gpu_hour:g}: remove_pod ends it."
        )
    if wanted.hours is None and observed.outcome != "failed":
        warnings.append("No removal time is set: it bills until remove_pod or schedule_pod_removal.")
    return RentedPod(
        outcome=observed.outcome,
        pod_id=pod.id,
        price_per_hour_usd=pod.price,
        pod=observed.pod,
        warnings=warnings or None,
        next=observed.next,
    )


def _costs_more(pod: PodDetail, ceiling: float | None) -> bool:
    """Whether the price that is billed is above the ceiling, by more than it may be rounded."""
    if ceiling is None or pod.price is None:
        return False
    return pod.price / (pod.rented_gpu_count or 1) > ceiling + _PRICE_TOLERANCE_USD


async def _wait_until_runs(call: Call, pod_id: str, wait_seconds: float) -> tuple[PodDetail | None, bool]:
    """The pod as it was last seen, if it ever was, and whether it is gone since."""
    clock = call.runtime.clock
    seen: list[PodDetail] = []
    started = clock.monotonic()

    async def read() -> PodDetail | None:
        pod = await read_pod(call, pod_id)
        if pod is not None:
            seen.append(pod)
        return pod

    def over(pod: PodDetail | None) -> bool:
        # A new pod may take some seconds to be listed; one that was seen and is gone has failed.
        if pod is None:
            return bool(seen) or clock.monotonic() - started > _APPEARS_WITHIN_SECONDS
        return settled(pod)

    first: PodDetail | None = None
    with suppress(LiumError), anyio.move_on_after(max(wait_seconds, _FIRST_READ_SECONDS)):
        first = await read()
    newest = await call.wait_until(first, read, over, wait_seconds=wait_seconds, describe=describe_start)
    return newest or (seen[-1] if seen else None), newest is None and bool(seen)


async def _fix_removal(call: Call, pod: PodDetail, hours: float) -> tuple[PodDetail, list[str]]:
    """Make the removal time exact once the pod runs, since Lium sets whole hours at boot; read it back."""
    if not pod.is_ready:
        return pod, _warn_of_whole_hours(pod, hours)
    due = call.lium.now() + timedelta(hours=hours)
    scheduled = pod.removal_scheduled_at
    if scheduled is None or abs(scheduled - due) > _SCHEDULE_TOLERANCE:
        try:
            with anyio.fail_after(_SCHEDULE_SECONDS):
                await call.lium.pods.schedule_removal(pod.id, at=due)
                pod = await call.lium.pods.get(pod.id)
        except TimeoutError:
            return pod, [f"Whether the removal after {hours:g} hours is set is not known: call schedule_pod_removal."]
        except LiumError as error:
            return pod, [f"The removal after {hours:g} hours could not be set ({error}): call schedule_pod_removal."]
    return pod, [] if pod.removal_scheduled_at else [_NO_REMOVAL_TIME]


def _warn_of_whole_hours(pod: PodDetail, hours: float) -> list[str]:
    """The rent carried whole hours, which hold from boot on: say so where that is longer than was asked for."""
    whole = pod.termination_hours
    if whole is None:
        return [] if pod.removal_scheduled_at else [_NO_REMOVAL_TIME]
    if whole <= hours:
        return []
    return [f"It is removed {whole} hours after it starts. Once it runs, schedule_pod_removal sets the exact time."]


async def _contents(call: Call, wanted: Wanted) -> Contents:
    """Find what goes into the pod; whatever is missing is refused before money is spent."""
    volume = await find_free_volume(call, wanted.volume) if wanted.volume else None
    if wanted.backup_id:
        backup = await call.lium.backups.get(wanted.backup_id)
        if not backup.is_completed:
            raise ToolFailure(
                "backup_not_completed",
                f"Backup {backup.id} is {backup.state} and cannot be restored.",
                "Choose a completed one with list_backups.",
            )
    return Contents(
        public_keys=await find_public_keys(call),
        template=await find_template(call, wanted.template) if wanted.template else None,
        volume_id=volume.id if volume else None,
    )


async def _pick_node(call: Call, wanted: Wanted, contents: Contents) -> Executor:
    if wanted.executor_id:
        return await find_node(call, wanted.executor_id)
    try:
        return await cheapest_matching(call.lium, _spec_request(wanted, contents))
    except NothingFits as error:
        raise ToolFailure(
            "no_gpu_matches", f"{error}.", "Relax a floor or the ceiling, or watch with list_gpus."
        ) from error


async def _price(call: Call, wanted: Wanted, node: Executor) -> PricedRental:
    count = wanted.gpu_count or (smallest_gpu_count(node) if wanted.executor_id else 1)
    priced = await quote_node(call, node, hours=wanted.hours or 1, gpu_count=count)
    per_gpu = priced.price_per_hour_usd / count
    ceiling = wanted.max_usd_per_gpu_hour
    if ceiling is not None and per_gpu > ceiling:
        raise ToolFailure(
            "price_above_ceiling",
            f"Node {node.id} costs ${per_gpu:.4f} per GPU-hour, more than max_usd_per_gpu_hour={ceiling:g}.",
            "Choose another node with list_gpus, or raise the ceiling.",
        )
    return priced


async def _node_order(call: Call, wanted: Wanted, node: Executor, count: int, contents: Contents) -> NodeOrder:
    try:
        template = contents.template or await default_template(call.lium, node)
    except NoDefaultTemplate as error:
        raise ToolFailure(
            "template_needed",
            f"Lium recommends no image of its own for node {node.id}.",
            "Name a template with the parameter template.",
        ) from error
    request = RentRequest(
        pod_name=wanted.name,
        template_id=template.id,
        user_public_key=contents.public_keys,
        volume_id=contents.volume_id,
        backup_log_id=wanted.backup_id or None,
        restore_path=restore_path(template) if wanted.backup_id else None,
        gpu_count=count,
        enable_volume_encryption=template.supports_volume_encryption is True,
        enable_backups=wanted.enable_backups,
        termination_hours=wanted.termination_hours,
    )
    return NodeOrder(node.id, request)


def restore_path(template: Template) -> str:
    """Where a backup is restored to at the first start: a new directory in the local volume."""
    root = template.volumes[0] if template.volumes else "/root"
    return f"{root.rstrip('/')}/restored"


def _spec_request(wanted: Wanted, contents: Contents) -> RentBySpecRequest:
    chosen = contents.template
    return RentBySpecRequest(
        gpu_type=wanted.gpu_type,
        gpu_count=wanted.gpu_count or 1,
        min_vram_gb=wanted.min_vram_gb,
        min_ram_gb=wanted.min_ram_gb,
        min_disk_gb=wanted.min_disk_gb,
        max_price_per_gpu_hour=wanted.max_usd_per_gpu_hour,
        country=wanted.country or None,
        docker_in_docker=wanted.docker_in_docker or None,
        pod_name=wanted.name,
        template_id=chosen.id if chosen else None,
        user_public_key=contents.public_keys,
        volume_id=contents.volume_id,
        enable_volume_encryption=chosen is None or chosen.supports_volume_encryption is True,
        enable_backups=wanted.enable_backups,
        termination_hours=wanted.termination_hours,
    )


def _would_rent(wanted: Wanted, node_id: str | None, gpu_count: int, price_per_hour: float | None) -> RentedPod:
    return RentedPod(
        outcome="dry_run",
        executor_id=node_id,
        gpu_count=gpu_count,
        price_per_hour_usd=price_per_hour,
        total_usd=price_per_hour * wanted.hours if price_per_hour is not None and wanted.hours else None,
        next="Nothing was rented. Call again without dry_run to rent.",
    )


async def find_public_keys(call: Call) -> list[str]:
    """The keys to put into the pod: this machine's own, else the account's. None at all is refused before spending."""
    keys = await _own_public_keys(call) or [
        key.public_key.strip() for key in await call.lium.ssh_keys.list() if key.public_key
    ]
    if keys:
        return keys
    raise ToolFailure(
        "ssh_key_missing",
        "There is no SSH key to put into the pod, so nobody could log in. Nothing was rented.",
        "Make one with `ssh-keygen -t ed25519` on the machine of this server, or register one with add_ssh_key.",
        effect="",
    )


async def register_public_keys(call: Call) -> None:
    """Register this machine's public keys with the account, for pods that are rented elsewhere; best effort."""
    with suppress(LiumError), anyio.move_on_after(_REGISTER_SECONDS):
        own = await _own_public_keys(call)
        known = {_blob(key.public_key) for key in await call.lium.ssh_keys.list()} if own else set()
        for key in own:
            if _blob(key) not in known:
                await call.lium.ssh_keys.create(name=f"lium-mcp-{platform.node()[:40] or 'key'}", public_key=key)


async def _own_public_keys(call: Call) -> list[str]:
    account = call.runtime.account()
    text = ""
    if account.ssh_public_key_path is not None:
        with suppress(OSError):  # a file that cannot be read any more is no key
            text = await anyio.Path(account.ssh_public_key_path).read_text(encoding="utf-8", errors="replace")
    keys = [line.strip() for line in text.splitlines() if is_public_key(line)]
    # Without a file of the public half, the private one or the agent still knows it.
    return keys or (await account.pod_access.keys.public_keys() if account.pod_access else [])


def _blob(public_key: str) -> tuple[str, ...]:
    return tuple(public_key.split()[:2])
