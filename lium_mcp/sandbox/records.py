"""What the sandbox remembers, as plain data; other files say what may happen to it."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import JsonValue

Visibility = Literal["own", "account"]


@dataclass
class StoredAccount:
    """One customer in one workspace, with the money there; in another workspace the same user is another account."""

    id: str
    user_id: str
    name: str
    email: str
    workspace_id: str
    workspace_name: str
    session_token: str = field(repr=False)
    opening_balance: Decimal
    balance: Decimal
    created_at: datetime


@dataclass
class StoredApiKey:
    """A key with what it may do and spend."""

    id: str
    account_id: str
    name: str
    secret: str = field(repr=False)
    scopes: tuple[str, ...]
    visibility: Visibility
    created_at: datetime
    budgets: dict[str, Decimal | None] = field(default_factory=lambda: {"daily": None, "monthly": None, "max": None})
    is_active: bool = True
    last_used: datetime | None = None
    refusals: list[dict[str, JsonValue]] = field(default_factory=list)


@dataclass
class StoredLogin:
    """A program that waits for a person to agree on a page that it gets a key."""

    page: str
    session_id: str = field(repr=False)
    created_at: datetime
    status: Literal["pending", "approved", "denied"] = "pending"
    key_id: str | None = None
    is_delivered: bool = False


@dataclass
class StoredTemplate:
    """A container template; hidden ones (clones, Dockerfile builds) are not listed."""

    id: str
    user_id: str
    created_at: datetime
    status: str
    body: dict[str, JsonValue]
    size_bytes: int | None = None
    supports_encryption: bool = True
    supports_docker: bool = False
    hidden: bool = False
    updated_at: datetime | None = None
    verification_logs: str | None = None

    @property
    def image(self) -> str:
        """The image with its tag."""
        tag = self.body.get("docker_image_tag")
        return f"{self.body['docker_image']}:{tag}" if tag else str(self.body["docker_image"])

    @property
    def ports(self) -> list[int]:
        """The container's ports, SSH first."""
        ports = self.body.get("internal_ports")
        wanted = [port for port in ports if isinstance(port, int)] if isinstance(ports, list) else []
        return [22, *(port for port in wanted if port != 22)]  # noqa: PLR2004 - the SSH port

    @property
    def local_volume(self) -> str:
        """Where the pod's local volume is mounted."""
        volumes = self.body.get("volumes")
        return str(volumes[0]) if isinstance(volumes, list) and volumes else "/root"


@dataclass
class StoredPod:
    """One rental, from the rent to long after its removal."""

    id: str
    name: str
    account_id: str
    api_key_id: str | None
    node_id: str
    gpu_count: int
    price_per_hour: Decimal
    template_id: str
    image: str
    public_keys: list[str]
    created_at: datetime
    updated_at: datetime
    port_base: int
    phase_started_at: datetime
    eta_at: datetime
    extra_ports: int = 0
    status: str = "PENDING"
    boot: int = 0
    started_at: datetime | None = None
    enable_volume_encryption: bool = False
    volume_id: str | None = None
    termination_hours: int | None = None
    removal_scheduled_at: datetime | None = None
    jupyter_status: str | None = None
    jupyter_port: int | None = None
    cluster_id: str | None = None
    cluster_index: int | None = None
    startup_restore_id: str | None = None
    restored_paths: set[str] = field(default_factory=set)
    feedback: dict[str, JsonValue] | None = None
    launch_snapshot: dict[str, JsonValue] | None = None
    billable_from: datetime | None = None
    billed_seconds: int = 0
    charged: Decimal = Decimal(0)
    removed_at: datetime | None = None
    close_reason: str | None = None
    readable_from: datetime | None = None
    listed_from: datetime | None = None
    # What it came out with instead of what was asked, where a fault made that happen.
    open_ports: int | None = None
    visible_gpus: int | None = None
    encryption_status: str | None = None
    volume_failed: bool = False
    volume_failure_told: bool = True
    # How often the container started again by itself since its boot.
    restarts: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it holds its node's GPUs."""
        return self.removed_at is None and self.status not in {"CREATION_FAILED", "DELETING"}


@dataclass(frozen=True)
class Debit:
    """One debit. Pod rows carry the billed seconds; storage rows have no pod."""

    at: datetime
    account_id: str
    kind: Literal["pod", "storage"]
    amount: Decimal
    pod_id: str | None = None
    api_key_id: str | None = None
    seconds: int = 0
    price_per_hour: Decimal | None = None
    billed_until: datetime | None = None


@dataclass
class StoredVolume:
    """An S3 volume; one pod at a time."""

    id: str
    account_id: str
    name: str
    description: str
    created_at: datetime
    updated_at: datetime | None = None
    size_bytes: int = 0
    file_count: int = 0
    metrics_at: datetime | None = None


@dataclass
class StoredBackupConfig:
    """The backup schedule of one pod."""

    id: str
    account_id: str
    pod_id: str
    frequency_hours: int
    retention_days: int
    path: str
    created_at: datetime
    next_at: datetime
    is_active: bool = True
    updated_at: datetime | None = None


@dataclass
class StoredTransfer:
    """A backup or a restore: work that moves bytes for a while and then ends."""

    id: str
    account_id: str
    pod_id: str
    kind: Literal["backup", "restore"]
    created_at: datetime
    total_bytes: int
    total_files: int
    status: str = "PENDING"
    started_at: datetime | None = None
    due_at: datetime | None = None
    completed_at: datetime | None = None
    error: str | None = None
    config_id: str | None = None
    name: str | None = None
    retention_days: int = 7
    deletion_state: str | None = None
    remark: str | None = None
    cleanup_at: datetime | None = None
    backup_id: str | None = None
    path: str = ""
    at_startup: bool = False
    quality: str | None = None

    @property
    def is_active(self) -> bool:
        """Whether it may still change."""
        return self.status in {"PENDING", "IN_PROGRESS"}

    def progress(self, now: datetime) -> float:
        """Percent done: of the time while it runs, frozen where it ended otherwise."""
        if self.status == "COMPLETED" or self.status in {"EXPIRED", "DELETED"}:
            return 100.0
        if self.started_at is None or self.due_at is None:
            return 0.0
        until = self.completed_at or now
        share = (until - self.started_at) / (self.due_at - self.started_at)
        return round(min(99.0, max(0.0, 100 * share)), 1)


@dataclass
class StoredSshKey:
    """A registered public key."""

    id: str
    account_id: str
    name: str
    public_key: str
    created_at: datetime
    updated_at: datetime | None = None


@dataclass
class StoredCredential:
    """A registry login; no answer shows its password."""

    id: str
    account_id: str
    username: str
    password: str = field(repr=False)


@dataclass
class StoredGpuReset:
    """One reset of a pod's GPUs."""

    id: str
    pod_id: str
    indices: list[int]
    started_at: datetime
    status: str = "running"


@dataclass
class RentRecord:
    """What became of one Idempotency-Key."""

    fingerprint: str
    started_at: datetime
    completed_at: datetime | None = None
    status: int | None = None
    body: JsonValue = None
