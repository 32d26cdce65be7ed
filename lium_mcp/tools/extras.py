"""Toolset `extras`, off by default: what is rarely needed and should not cost everybody tokens."""

from typing import Annotated, Literal

from pydantic import Field

from lium_mcp.api.gpu_names import matching_machine_names
from lium_mcp.api.pods.models import FeedbackRequest as Feedback
from lium_mcp.api.pods.models import GpuResetOutcome, GpuResetState, PodDetail
from lium_mcp.api.wire import hiding
from lium_mcp.failures import Failure
from lium_mcp.inputs import Few, ShortText
from lium_mcp.results import Result, UtcTime, note_on
from lium_mcp.services.as_asked import not_confirmed, unlike
from lium_mcp.services.backup_details import EndedBackup
from lium_mcp.services.failure_words import after_change
from lium_mcp.services.pod_details import Outcome
from lium_mcp.services.pod_states import differ
from lium_mcp.services.polling import OrderedChange
from lium_mcp.services.questions import ask_to_delete_ssh_key, ask_to_reset_gpus
from lium_mcp.services.targets import find_pod, find_volume
from lium_mcp.services.volume_details import VolumeView, refuse_taken_name, volume_view
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import (
    DEFAULT_WAIT_SECONDS,
    BackupId,
    LiumCursor,
    PodName,
    Port,
    VolumeName,
    WaitSeconds,
)
from lium_mcp.toolkit.registry import DESTROYS, DESTROYS_EACH_TIME, READS, WRITES, WRITES_EACH_TIME, Toolset

toolset = Toolset("extras")

_JUPYTER_OVER = ("SUCCESS", "FAILED")
_OLD_JUPYTER = (
    "Lium accepted it, but still shows the Jupyter of before: no sign of the new one was seen. Call get_pod in a "
    "minute for its jupyter_url. Another install_jupyter would install it once more."
)
_RESET_OVER = ("done", "failed", "timeout")
_RESET_POLL_SECONDS = 3.0


class Jupyter(Result):
    """Jupyter in a pod."""

    outcome: Outcome
    pod_id: str
    url: str | None = None
    next: str | None = None


class GpuReset(Result):
    """What came of a GPU reset, GPU by GPU."""

    outcome: Outcome
    pod_id: str
    reset_id: str | None = None
    gpus: list[str]
    problem: str | None = None
    note: str | None = None
    next: str | None = None


class Rated(Result):
    """A rating that was sent."""

    pod_id: str
    rating: int


class Activity(Result):
    """Something that happened on the account."""

    at: UtcTime | None = None
    action: str
    source: str | None = None
    by_key: str | None = None
    resource_id: str | None = None
    status: int | None = None


class Activities(Result):
    """What happened on the account, newest first."""

    activities: list[Activity]
    next_cursor: str | None = None


class Requested(Result):
    """Providers that were told of a demand."""

    machine_name: str
    providers_notified: int | None = None


class RegistryCredential(Result):
    """A registry login that is stored. create_template takes its id or its user name."""

    credential_id: str
    username: str
    already_stored: bool


class CancelledRestore(Result):
    """A restore that was stopped; files that it had written stay."""

    restore_id: str


class DeletedSshKey(Result):
    """A public key that is registered no more."""

    key_id: str


@toolset.tool(title="Install Jupyter", hints=WRITES, search_hint="notebook on a GPU, JupyterLab")
async def install_jupyter(
    call: Call,
    pod: PodName,
    port: Annotated[Port, Field(description="Internal port that the pod exposes.")],
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> Jupyter:
    """Install Jupyter in a running pod on one of its exposed internal ports, wait, and return its address. get_pod
    shows the ports.
    """
    target = await find_pod(call.account, pod)

    async def read() -> PodDetail:
        return await call.lium.pods.get(target.id)

    state = before = await read()
    change: OrderedChange[PodDetail] | None = None
    # One under way is waited for: to start it again would start its wait again.
    if _jupyter(state) in (*_JUPYTER_OVER, ""):
        if state.open_ports is not None and port not in state.open_ports:
            ports = ", ".join(map(str, sorted(state.open_ports))) or "none"
            raise Failure(
                "port_not_exposed",
                f"Pod {target.pod_name} ({target.id}) does not expose port {port}. Its internal ports: {ports}.",
                "Choose one of those that nothing uses, or rent with a template that exposes the port.",
            )
        await call.lium.pods.install_jupyter(target.id, port=port)
        if _jupyter(before):
            change = OrderedChange(lambda now: _is_another_jupyter(before, now))
        with after_change(f"Jupyter is being installed in {target.pod_name}."):
            state = await read()
    newest = await call.poller.until(
        state,
        read,
        lambda state: _jupyter(state) in _JUPYTER_OVER,
        wait_seconds=wait_seconds,
        describe=lambda state: f"Jupyter is {state.jupyter_installation_status or 'starting'}",
        change=change,
    )
    if change is not None and not change.is_seen:
        return Jupyter(outcome="pending", pod_id=target.id, next=_OLD_JUPYTER)
    status = _jupyter(newest)
    if status == "SUCCESS":
        return Jupyter(outcome="done", pod_id=target.id, url=newest.jupyter_url)
    if status == "FAILED":
        return Jupyter(outcome="failed", pod_id=target.id, next="Check that the pod exposes the port, then try again.")
    return Jupyter(outcome="pending", pod_id=target.id, next="Call install_jupyter again to wait on.")


@toolset.tool(
    title="Reset pod GPUs",
    hints=DESTROYS_EACH_TIME,
    search_hint="GPU hangs, CUDA error, out of memory that stays",
    asks=lambda call, **given: ask_to_reset_gpus(call.account, **given),
)
async def reset_pod_gpus(
    call: Call,
    pod: PodName,
    gpu_indices: Annotated[list[int] | None, Few, Field(description="As nvidia-smi counts; default all.")] = None,
    reset_id: Annotated[ShortText, Field(description="Only wait for this pending reset.")] = "",
    wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS,
) -> GpuReset:
    """Reset hung GPUs of a pod. All processes in the pod stop; files stay. At most once a minute; reboot_pod replaces
    the whole container instead.
    """
    target = await find_pod(call.account, pod)
    if reset_id:
        state = await call.lium.pods.get_gpu_reset(target.id, reset_id)
    else:
        state = await call.lium.pods.reset_gpus(target.id, gpu_indices=gpu_indices)
    request_id = state.request_id or reset_id

    async def read() -> GpuResetState:
        return await call.lium.pods.get_gpu_reset(target.id, request_id)

    newest = await call.poller.until(
        state,
        read,
        lambda now: now.state in _RESET_OVER or not request_id,
        wait_seconds=wait_seconds,
        describe=lambda now: f"GPU reset is {now.state}",
        every_seconds=_RESET_POLL_SECONDS,
    )
    outcome: Outcome = "pending" if newest.state not in _RESET_OVER else "done" if newest.state == "done" else "failed"
    problem = newest.error if outcome == "failed" else None
    return GpuReset(
        outcome=outcome,
        pod_id=target.id,
        reset_id=request_id or None,
        gpus=[_gpu(gpu) for gpu in newest.gpus],
        problem=problem,
        note=note_on(problem),
        next=_next_of_reset(request_id) if outcome == "pending" else None,
    )


@toolset.tool(title="Rate pod", hints=WRITES, search_hint="report a bad machine, give feedback")
async def rate_pod(
    call: Call,
    pod: PodName,
    rating: Annotated[int, Field(ge=1, le=5, description="Stars, 5 is best.")],
    text: Annotated[ShortText, Field(description="What was good or bad.")] = "",
) -> Rated:
    """Rate the node of a living pod. Lium's support and the provider's rating see it; it counts once per pod."""
    target = await find_pod(call.account, pod)
    await call.lium.pods.send_feedback(target.id, Feedback(feedback_text=text, rating=rating))
    return Rated(pod_id=target.id, rating=rating)


@toolset.tool(title="List activity", hints=READS, search_hint="audit log, who changed what")
async def list_activity(
    call: Call,
    action: Annotated[ShortText, Field(description="Prefix, e.g. pod. or key.")] = "",
    source: Annotated[Literal["portal", "cli", "sdk", "mcp", "api"] | None, Field(description="Where from.")] = None,
    limit: Annotated[int, Field(ge=1, le=100, description="Rows.")] = 20,
    cursor: LiumCursor = "",
) -> Activities:
    """List what was changed on the account and by which key, newest first: the audit log of the last 90 days. get_pod
    shows the events of one pod.
    """
    page = await call.lium.account.audit(action=action or None, source=source, limit=limit, cursor=cursor or None)
    return Activities(
        activities=[
            Activity(
                at=entry.created_at,
                action=entry.action,
                source=entry.source,
                by_key=entry.actor.api_key_name if entry.actor else None,
                resource_id=entry.resource_id,
                status=entry.status_code,
            )
            for entry in page.items[:limit]
        ],
        next_cursor=page.next_cursor,
    )


@toolset.tool(
    title="Request GPUs", hints=WRITES_EACH_TIME, search_hint="GPU is sold out, tell me or providers that it is wanted"
)
async def request_gpus(
    call: Call,
    gpu_type: Annotated[ShortText, Field(min_length=1, description="GPU model, e.g. B300.")],
    gpu_count: Annotated[int, Field(ge=1, le=1024, description="How many.")] = 1,
) -> Requested:
    """Tell providers that a sold-out GPU type is wanted. Real people are notified and nothing is reserved; list_gpus
    with wait_seconds watches for it.
    """
    names = [machine.name for machine in await call.lium.machines.list()]
    exact = [name for name in names if name.casefold() == gpu_type.casefold()]
    matches = exact or matching_machine_names(gpu_type, names)
    if len(matches) != 1:
        shown = ", ".join(matches or names)[:600]
        raise Failure(
            "gpu_type_not_found" if not matches else "ambiguous_name",
            f"{len(matches) or 'No'} GPU types match {gpu_type}: {shown}.",
            "Name one in full.",
        )
    answer = await call.lium.machines.request(matches[0], gpu_count=gpu_count)
    return Requested(machine_name=matches[0], providers_notified=answer.provider_notified_count)


@toolset.tool(title="Add registry credential", hints=WRITES, search_hint="private Docker registry login")
async def add_registry_credential(
    call: Call,
    username: Annotated[ShortText, Field(min_length=1, description="Login at the registry.")],
    password_variable: Annotated[ShortText, Field(min_length=1, description="Name, LIUM_MCP_REGISTRY_...")],
) -> RegistryCredential:
    """Store a registry login with the account, for templates with private images. The password is read from the
    variable of this server's environment that is named, and never passes through the conversation.
    """
    for stored in await call.lium.docker_credentials.list():
        if stored.docker_username == username:
            return RegistryCredential(credential_id=stored.id, username=username, already_stored=True)
    read = call.account.registry_password
    password = read(password_variable) if read else None
    if password is None:
        raise Failure(
            "password_not_found",
            "This server's environment holds no registry password under that name, or the caller is elsewhere.",
            "Set a variable whose name starts with LIUM_MCP_REGISTRY_ where the server is started, or store the login "
            "on lium.io.",
        )
    with hiding([password]):
        created = await call.lium.docker_credentials.create(docker_username=username, docker_password=password)
    return RegistryCredential(credential_id=created.id, username=username, already_stored=False)


@toolset.tool(title="Cancel backup", hints=WRITES, search_hint="stop a running backup")
async def cancel_backup(call: Call, backup_id: BackupId) -> EndedBackup:
    """Stop a running backup. It stays in the list and cannot be restored; delete_backup deletes a completed one."""
    await call.lium.backups.cancel(backup_id)
    backup = await call.lium.backups.get(backup_id)
    return EndedBackup(backup_id=backup_id, status=backup.state or None)


@toolset.tool(title="Cancel restore", hints=WRITES, search_hint="stop a running restore")
async def cancel_restore(
    call: Call, restore_id: Annotated[ShortText, Field(min_length=1, description="From list_restores.")]
) -> CancelledRestore:
    """Stop a running restore. Files that it has written stay in the pod; list_restores shows what became of it."""
    await call.lium.restores.cancel(restore_id)
    return CancelledRestore(restore_id=restore_id)


@toolset.tool(title="Update volume", hints=WRITES, search_hint="rename a disk")
async def update_volume(
    call: Call,
    volume: VolumeName,
    name: Annotated[ShortText, Field(description="New name.")] = "",
    description: Annotated[ShortText, Field(description="New text; empty leaves it.")] = "",
) -> VolumeView:
    """Rename a volume or change its description. Its data and the pod that has it mounted are not touched."""
    found = await find_volume(call.account, volume)
    if not name and not description:
        raise Failure("invalid_argument", "Neither name nor description is given.", "Give one of them.")
    if name and name != found.name:
        await refuse_taken_name(call.account, name)
    changed = await call.lium.volumes.update(found.id, name=name or None, description=description or None)
    asked = {"name": (name or None, changed.name or None), "description": (description or None, changed.description)}
    if names := unlike(asked):
        raise not_confirmed(f"volume {found.id}", names, "get_volume")
    return volume_view(changed, await call.lium.pods.list())


@toolset.tool(
    title="Delete SSH key",
    hints=DESTROYS,
    search_hint="remove a public key from the account",
    asks=lambda call, **given: ask_to_delete_ssh_key(call.account, **given),
)
async def delete_ssh_key(
    call: Call, key_id: Annotated[ShortText, Field(min_length=1, description="From list_ssh_keys.")]
) -> DeletedSshKey:
    """Remove a public SSH key from the account. Pods that have it keep it; pods rented later do not get it."""
    await call.lium.ssh_keys.delete(key_id)
    return DeletedSshKey(key_id=key_id)


def _next_of_reset(request_id: str) -> str:
    if request_id:
        return "Call reset_pod_gpus with this reset_id to wait on."
    return "Lium named no id to wait by: look with get_pod what the GPUs do. Another call would reset them again."


def _gpu(gpu: GpuResetOutcome) -> str:
    index = "A GPU" if gpu.index is None else str(gpu.index)
    return f"{index}: {gpu.result or 'Lium does not say'}"


def _is_another_jupyter(before: PodDetail, now: PodDetail) -> bool:
    return (
        differ(_jupyter(before), _jupyter(now))
        or differ(before.jupyter_url, now.jupyter_url)
        or differ(before.updated_at, now.updated_at)
    )


def _jupyter(pod: PodDetail) -> str:
    return (pod.jupyter_installation_status or "").upper()
