"""What the API says about pods: rows, events, records, GPU resets."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, NamedTuple

from pydantic import AliasChoices, AliasPath, BeforeValidator, Field

from lium_mcp.api.addresses import MAX_PORT
from lium_mcp.api.clock import is_since
from lium_mcp.api.errors import InvalidRequest
from lium_mcp.api.executors.models import Executor
from lium_mcp.api.fields import (
    ApiBool,
    ApiFloat,
    ApiId,
    ApiInt,
    ApiModel,
    ApiNested,
    ApiNotice,
    ApiObject,
    ApiReason,
    ApiSigned,
    ApiStr,
    ApiText,
    ApiTime,
    ApiTuple,
    RequestModel,
    read_int,
    read_text,
)
from lium_mcp.api.huids import huid

TERMINAL_STATUSES = frozenset(
    {
        "FAILED",
        "STOPPED",
        "ERROR",
        "TERMINATED",
        "DELETED",
        "REMOVED",
        "CANCELLED",
        "CREATION_FAILED",
        "BROKEN",
        "REBOOT_FAILED",
        "DELETING",
    }
)
BILLING_STATUSES = frozenset({"RUNNING", "REBOOT_PENDING", "REBOOT_FAILED"})
# Before the first start, and after one that failed.
_NEVER_STARTED_STATUSES = frozenset({"PENDING", "CREATION_FAILED"})
REMOVED_STATUSES = frozenset({"DELETED", "REMOVED", "TERMINATED"})
DEFAULT_VOLUME_ROOT = "/root"
VOLUME_PATH = "/mnt"
# By how much two clocks may differ that date the same things.
_CLOCKS_DIFFER = timedelta(minutes=2)
_DEFAULT_SSH_PORT = 22
_SSH_COMMAND = re.compile(
    r"ssh ([A-Za-z0-9_][A-Za-z0-9._-]{0,31})@(\[[0-9A-Fa-f.:]{2,45}\]|[A-Za-z0-9.:-]{1,253})(?: -p ([0-9]{1,5}))?"
)
_HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


class SshTarget(NamedTuple):
    """Where a pod's SSH server listens."""

    user: str
    host: str
    port: int


def parse_ssh_command(command: str | None) -> SshTarget | None:
    """Return the target of `ssh <user>@<host> [-p <port>]`; anything else, such as a further option, is `None`."""
    match = _SSH_COMMAND.fullmatch((command or "").strip())
    if match is None:
        return None
    user, host, port_text = match.groups()
    host = host.strip("[]")
    port = int(port_text) if port_text else _DEFAULT_SSH_PORT
    if not 1 <= port <= MAX_PORT or not (_HOST_NAME.fullmatch(host) or _is_ip_address(host)):
        return None
    return SshTarget(user, host, port) if ":" not in host or _is_ip_address(host) else None


def _is_ip_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def image_name(repository: str | None, tag: str | None) -> str | None:
    """An image as it is written on a command line; a tag alone names no image."""
    return ":".join(part for part in (repository, tag) if part) if repository else None


class PodTemplate(ApiModel):
    """The template inside a pod row: incomplete, so never what an update may start from."""

    id: ApiStr = None
    name: ApiStr = None
    docker_image: ApiStr = None
    docker_image_tag: ApiStr = None
    volumes: ApiTuple[str] = ()
    internal_ports: ApiTuple[int] = ()

    @property
    def image(self) -> str | None:
        """The image that it starts."""
        return image_name(self.docker_image, self.docker_image_tag)


class PodVolume(ApiModel):
    """The volume attached to a pod; the API does not always say which."""

    id: ApiStr = None


def _as_object(value: object) -> object:
    # Some servers give only the id of a template or volume; anything else that is there means that there is one too.
    if isinstance(value, dict) or value is None:
        return value
    return {"id": value if isinstance(value, str) else None}


def _as_id(value: object) -> object:
    # What is there and cannot be read names something of which nobody knows what it is.
    return None if value is None else read_text(value) or ""


def _is_said(value: object) -> bool:
    return value is not None and value != ""


def _ids(*named: str | None) -> frozenset[str]:
    return frozenset(text.strip().casefold() for text in named if text is not None)


class Pod(ApiModel):
    """One pod. `price` is USD per hour for the pod as a whole; `executor` is the whole host it runs on."""

    id: ApiId
    pod_name: ApiText = ""
    status: ApiText = ""
    executor_id: ApiStr = None
    ssh_connect_cmd: ApiStr = None
    ports_mapping: ApiObject = None
    gpu_name: ApiStr = None
    gpu_count: ApiInt = None
    price: ApiFloat = None
    created_at: ApiTime = None
    updated_at: ApiTime = None
    removal_scheduled_at: ApiTime = None
    # Absurd hours are kept, since limits count them.
    termination_hours: Annotated[int | None, BeforeValidator(read_int)] = None
    # Whether the API gives these at all: what cannot be read is not none.
    says_removal_time: Annotated[bool, BeforeValidator(_is_said)] = Field(
        default=False, validation_alias=AliasPath("removal_scheduled_at")
    )
    says_removal_hours: Annotated[bool, BeforeValidator(_is_said)] = Field(
        default=False, validation_alias=AliasPath("termination_hours")
    )
    notice_period: ApiNotice = None
    jupyter_installation_status: ApiStr = None
    jupyter_url: ApiStr = Field(default=None, repr=False)  # its query may hold the notebook's token
    enable_volume_encryption: ApiBool = None
    volume_encryption_status: ApiStr = None
    estimated_ready_seconds: ApiInt = None
    phase: ApiStr = None
    local_volume_path: ApiStr = None
    volume: Annotated[ApiNested[PodVolume], BeforeValidator(_as_object)] = None
    volume_id: Annotated[str | None, BeforeValidator(_as_id)] = None
    template: Annotated[ApiNested[PodTemplate], BeforeValidator(_as_object)] = None
    template_id: Annotated[str | None, BeforeValidator(_as_id)] = None
    executor: ApiNested[Executor] = None
    cluster_id: ApiStr = None
    cluster_node_index: ApiInt = None
    api_key_name: ApiStr = None
    ssh_keys: ApiTuple[str] = Field(default=(), repr=False)

    @property
    def node_id(self) -> str | None:
        """The id of the node that it is on, whichever field of the API has it."""
        return self.executor_id or (self.executor.id if self.executor else None) or None

    @property
    def huid(self) -> str:
        """The short name that clients derive from the id."""
        return huid(self.id)

    @property
    def state(self) -> str:
        """The status, upper case."""
        return self.status.strip().upper()

    def was_made_since(self, moment: datetime) -> bool | None:
        """Whether it was made at a moment or later, as far as clocks agree; `None` where Lium does not say when."""
        return is_since(self.created_at, moment, clocks_differ=_CLOCKS_DIFFER)

    @property
    def has_unreadable_removal(self) -> bool:
        """Whether the API says that it is to be removed, and when cannot be read."""
        # Where there are hours, they count: at the boot the API sets the time by them.
        if self.says_removal_hours:
            return self.termination_hours is None
        return self.says_removal_time and self.removal_scheduled_at is None

    @property
    def has_removal(self) -> bool:
        """Whether the API is to remove it by itself, as far as it says; also at a time that cannot be read."""
        is_known = self.removal_scheduled_at is not None or self.termination_hours is not None
        return is_known or self.has_unreadable_removal

    @property
    def is_ready(self) -> bool:
        """Whether it runs and SSH is configured."""
        return self.runs and bool(self.ssh_connect_cmd)

    @property
    def runs(self) -> bool:
        """Whether Lium says that it runs; how to log in may still be missing."""
        return self.state == "RUNNING"

    @property
    def is_terminal(self) -> bool:
        """Whether it will not become ready any more."""
        return self.state in TERMINAL_STATUSES

    @property
    def is_being_removed(self) -> bool:
        """Whether its removal is under way, so that it has not failed and need not be removed again."""
        return self.state == "DELETING"

    @property
    def is_removed(self) -> bool:
        """Whether only its row is left."""
        return self.state in REMOVED_STATUSES

    @property
    def has_not_started(self) -> bool:
        """Whether it waits for its first start, or that start failed.

        A pod whose template was switched waits in the same way, but has run before.
        """
        return self.state in _NEVER_STARTED_STATUSES

    @property
    def has_failed_to_start(self) -> bool:
        """Whether its first start failed."""
        return self.has_not_started and self.is_terminal

    @property
    def bills(self) -> bool | None:
        """Whether it costs money now; `None` where nobody knows, such as during a removal."""
        if self.state in BILLING_STATUSES:
            return True
        return False if self.has_not_started or self.is_removed else None

    @property
    def is_billing(self) -> bool:
        """Whether it is known to cost money now."""
        return self.bills is True

    @property
    def is_alive(self) -> bool:
        """Whether it bills or will, so that its name is taken."""
        return self.is_billing or not self.is_terminal

    @property
    def ssh(self) -> SshTarget | None:
        """Where to log in; `None` until SSH is configured or if the API's command is not a plain one."""
        return parse_ssh_command(self.ssh_connect_cmd)

    @property
    def rented_gpu_count(self) -> int | None:
        """GPUs this pod is billed for."""
        return self.gpu_count

    @property
    def volume_root(self) -> str:
        """Where the local volume is mounted; it dies with the pod."""
        mounts = self.template.volumes if self.template else ()
        return self.local_volume_path or (mounts[0] if mounts else DEFAULT_VOLUME_ROOT)

    @property
    def attached_volume_id(self) -> str | None:
        """The id of the volume at /mnt, whichever field of the API has it."""
        return (self.volume.id if self.volume else None) or self.volume_id or None

    @property
    def says_volume(self) -> bool:
        """Whether the API says which volume it has, or that it has none."""
        return not self.model_fields_set.isdisjoint({"volume", "volume_id"})

    @property
    def volume_ids(self) -> frozenset[str]:
        """The ids by which any field names its volume, in lower case; one that cannot be read is empty."""
        return _ids((self.volume.id or "") if self.volume else None, self.volume_id)

    @property
    def template_ids(self) -> frozenset[str]:
        """The same of its template. Every pod has one, so none means that the API does not say."""
        return _ids((self.template.id or "") if self.template else None, self.template_id)

    @property
    def public_ports(self) -> dict[int, int]:
        """Public port of each internal port, as far as both are readable port numbers."""
        ports: dict[int, int] = {}
        for inside, outside in (self.ports_mapping or {}).items():
            internal, public = read_int(inside), read_int(outside)
            if internal and public and 1 <= internal <= MAX_PORT and 1 <= public <= MAX_PORT:
                ports[internal] = public
        return ports

    @property
    def open_ports(self) -> frozenset[int] | None:
        """The internal ports that are open to the outside; `None` until it runs, and where not all can be read."""
        ports, said = self.public_ports, self.ports_mapping
        return frozenset(ports) if self.is_ready and said is not None and len(ports) == len(said) else None


class PodEvent(ApiModel):
    """One entry of an event log; `actor` is `None` when the platform acted by itself."""

    created_at: ApiTime = None
    event_type: ApiText = ""
    sub_event_type: ApiStr = None
    pod_id: ApiStr = None
    pod_name: ApiStr = None
    from_status: ApiStr = None
    to_status: ApiStr = None
    reason: ApiReason = None
    detail: ApiReason = None
    error: ApiReason = None
    # Where a start failed; known from the wire between Lium and its nodes, so renters may not get them.
    failure_step: ApiStr = None
    failure_code: ApiStr = Field(default=None, validation_alias=AliasChoices("failure_code", "error_code"))
    # How a container's main process ended; whether renters get it is not known either.
    exit_code: ApiInt = None

    @property
    def state(self) -> str:
        """The state that it brought the pod to, upper case; empty where it changed none."""
        return (self.to_status or "").strip().upper()


def own_events(pod: Pod, events: Iterable[PodEvent]) -> list[PodEvent]:
    """The events since a pod was made; an earlier one does not tell whether the pod ran, or since when."""
    return [
        event
        for event in events
        if is_since(event.created_at, pod.created_at, clocks_differ=_CLOCKS_DIFFER) is not False
    ]


class PodDetail(Pod):
    """A pod with its last event."""

    last_event: ApiNested[PodEvent] = None


class PodRecord(ApiModel):
    """What remains of a pod, also after its removal; `total` is what the ledger charged."""

    pod_id: ApiId
    pod_name: ApiStr = None
    removed: ApiBool = None
    gpu_name: ApiStr = None
    gpu_count: ApiInt = None
    image: ApiStr = None
    executor_id: ApiStr = None
    created_at: ApiTime = None
    removed_at: ApiTime = None
    close_reason: ApiReason = None
    total: ApiSigned = None


class FeedbackRequest(RequestModel):
    """A rating of a pod's node; recorded once per pod."""

    feedback_text: str = ""
    rating: int | None = None
    reason: str | None = None

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        if self.rating is not None and not 1 <= self.rating <= 5:  # noqa: PLR2004 - stars
            raise InvalidRequest("rating is not between 1 and 5.")
        return self.model_dump()


class GpuResetOutcome(ApiModel):
    """What became of one GPU."""

    index: ApiInt = None
    result: ApiStr = None

    @property
    def has_failed(self) -> bool:
        """Whether Lium says that it was not reset."""
        return (self.result or "").strip().lower() == "failed"


class GpuResetState(ApiModel):
    """A GPU reset under way or over."""

    request_id: ApiStr = None
    pod_id: ApiStr = None
    status: ApiStr = None
    ok: ApiBool = None
    success: ApiBool = None
    gpus: ApiTuple[GpuResetOutcome] = ()
    error: ApiReason = None

    @property
    def state(self) -> str:
        """running, done, failed, timeout or unknown; older servers send no status, only whether it went well."""
        # With an id to ask by, success means only that it has begun.
        went_well = self.success if self.ok is None and self.request_id is None else self.ok
        said = (self.status or {True: "done", False: "failed", None: "unknown"}[went_well]).strip().lower()
        denied = False in (self.ok, self.success) or any(gpu.has_failed for gpu in self.gpus)
        return "failed" if said == "done" and denied else said
