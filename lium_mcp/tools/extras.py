"""Toolset `extras`, off by default: what is rarely needed and should not cost everybody tokens."""

from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field

from lium_mcp.api.errors import MissingScope, NotFound
from lium_mcp.api.gpu_names import matching_machine_names
from lium_mcp.api.pods.models import FeedbackRequest as Feedback
from lium_mcp.api.ssh_keys import bare_keys
from lium_mcp.api.wire import hiding
from lium_mcp.failures import Failure
from lium_mcp.inputs import Few, ShortText
from lium_mcp.results import Result, Timed, Usd, UtcTime
from lium_mcp.services.as_asked import not_confirmed, unlike
from lium_mcp.services.backups.backup_details import EndedBackup
from lium_mcp.services.pods.gpu_resets import GpuReset, reset
from lium_mcp.services.pods.jupyter import Jupyter, install
from lium_mcp.services.pods.pod_states import ObservedPod
from lium_mcp.services.pods.registered_keys import SshKeyRow, key_material, key_row
from lium_mcp.services.pods.work_told import refuse_untold
from lium_mcp.services.questions import (
    ask_to_delete_ssh_key,
    ask_to_reset_gpus,
    ask_to_switch_template,
    refuse_unbootable,
)
from lium_mcp.services.switching import switch
from lium_mcp.services.targets import find_pod, find_usable_template, find_volume
from lium_mcp.services.volume_details import VolumeView, refuse_taken_name, volume_view
from lium_mcp.toolkit.call import Call
from lium_mcp.toolkit.parameters import (
    DEFAULT_WAIT_SECONDS,
    BackupId,
    LiumCursor,
    PodName,
    Port,
    TemplateName,
    VolumeName,
    WaitSeconds,
)
from lium_mcp.toolkit.registry import DESTROYS, DESTROYS_EACH_TIME, READS, WRITES, WRITES_EACH_TIME, Toolset

toolset = Toolset("extras")


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


_PAID_AT: Final = ("stripe.com", "lium.io")


class TopUpLink(Timed):
    """A page on which a person can pay. Nothing was charged."""

    url: str
    amount_usd: Usd
    expires_at: UtcTime | None = None
    next: str = "Give the person this address: whoever opens it pays there, and the balance follows."


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


class SshKeyList(Result):
    """The account's public keys."""

    keys: list[SshKeyRow]
    total: int


class AddedSshKey(Result):
    """A key that is registered now."""

    key: SshKeyRow
    already_registered: bool


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
    return await install(call.account, call.poller, target, port, wait_seconds=wait_seconds)


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
    if not reset_id:
        refuse_unbootable(target, "have its GPUs reset")
    return await reset(
        call.account, call.poller, target, gpu_indices=gpu_indices, reset_id=reset_id, wait_seconds=wait_seconds
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
    source: Annotated[
        Literal["portal", "cli", "sdk", "mcp", "api"] | None, Field(description="Which client made the change.")
    ] = None,
    limit: Annotated[int, Field(ge=1, le=100, description="Most rows to show.")] = 20,
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


@toolset.tool(title="Create top-up link", hints=WRITES_EACH_TIME, search_hint="add money, pay, charge up the account")
async def create_top_up_link(
    call: Call, amount_usd: Annotated[float, Field(ge=10, description="USD to pay, 10 at least.")]
) -> TopUpLink:
    """Make a page of the payment provider on which a person can pay to top up the account. Nothing is charged by this
    call, and no money moves until somebody pays there. It needs an API key with the scope billing.
    """
    amount = round(amount_usd, 2)
    try:
        checkout = await call.lium.account.create_checkout(amount_usd=amount)
    except (MissingScope, NotFound) as error:
        raise Failure(
            "top_up_not_possible",
            "This API key cannot make a page to pay on: that needs one with the scope billing, which rents nothing.",
            "A person tops up the account on lium.io, under Billing.",
            request_id=error.request_id,
        ) from error
    if checkout.safe_url is None:
        raise Failure(
            "unsafe_address",
            "Lium answered with no address, or with one that is not plainly of an encrypted page, so none is shown.",
            "A person tops up the account on lium.io, under Billing.",
            effect="Nothing was charged.",
        )
    link = TopUpLink(url=checkout.safe_url, amount_usd=amount, expires_at=checkout.expires)
    if checkout.expires is not None and checkout.expires <= call.lium.now():
        over = "Lium says that this page is over already, so nobody can pay there: call again for another one."
        return link.model_copy(update={"next": over})
    host = urlsplit(checkout.safe_url).hostname or ""
    if any(host == known or host.endswith(f".{known}") for known in _PAID_AT):
        return link
    doubt = f"Lium gave an address at {host}, which is not of Stripe or lium.io: a person should look before paying."
    return link.model_copy(update={"next": doubt})


@toolset.tool(
    title="Request GPUs", hints=WRITES_EACH_TIME, search_hint="GPU is sold out, tell me or providers that it is wanted"
)
async def request_gpus(
    call: Call,
    gpu_type: Annotated[ShortText, Field(min_length=1, description="GPU model, e.g. B300.")],
    gpu_count: Annotated[int, Field(ge=1, le=1024, description="How many are wanted.")] = 1,
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
    password_variable: Annotated[
        ShortText, Field(min_length=1, description="The variable's name, LIUM_MCP_REGISTRY_...")
    ],
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
    name: Annotated[ShortText, Field(description="New name, not yet used.")] = "",
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
        raise not_confirmed(f"volume {found.id}", names, "list_volumes")
    return volume_view(changed, await call.lium.pods.list())


@toolset.tool(title="List SSH keys", hints=READS, search_hint="which public keys are registered")
async def list_ssh_keys(call: Call) -> SshKeyList:
    """List the public SSH keys registered with the account. rent_pod puts the local key into a pod, or these where
    there is none.
    """
    keys = await call.lium.ssh_keys.list()
    return SshKeyList(keys=[key_row(key) for key in keys], total=len(keys))


@toolset.tool(title="Add SSH key", hints=WRITES, search_hint="register my public key to log in to pods")
async def add_ssh_key(
    call: Call,
    name: Annotated[ShortText, Field(min_length=1, description="What to call it on lium.io.")],
    public_key: Annotated[str, Field(min_length=1, max_length=16_384, description="One line of a .pub file.")],
) -> AddedSshKey:
    """Register a public SSH key with the account, so that pods rented later accept it. A key that is registered already
    is left as it is. Never takes a private key.
    """
    material = key_material(public_key)
    for key in await call.lium.ssh_keys.list():
        if material in bare_keys(key.public_key):
            return AddedSshKey(key=key_row(key), already_registered=True)
    created = await call.lium.ssh_keys.create(name=name, public_key=material)
    return AddedSshKey(key=key_row(created), already_registered=False)


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


@toolset.tool(
    title="Switch pod template",
    hints=DESTROYS_EACH_TIME,
    search_hint="run another image on the same GPU",
    asks=lambda call, **given: ask_to_switch_template(call.account, call.policy, **given),
)
async def switch_pod_template(
    call: Call, pod: PodName, template: TemplateName, wait_seconds: WaitSeconds = DEFAULT_WAIT_SECONDS
) -> ObservedPod:
    """Start a pod over from another template and wait until it runs. Its processes and all outside its local volume are
    lost, on older nodes that too. Billing goes on.
    """
    target = await find_pod(call.account, pod)
    chosen = await find_usable_template(call.account, template)
    if call.agreed is None:
        await refuse_untold(call.account, call.runtime.told_work, [target], what="start over")
    return await switch(call.account, call.policy, call.poller, target, chosen, wait_seconds=wait_seconds)
